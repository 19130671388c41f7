"""Parameters as text: what differs has different texts, and ordinary ones their repr."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gibbon.attacks.pgd import PGD
from gibbon.attacks.toolkit.parameter_text import parameter_text, parameter_texts
from gibbon.core.errors import SpecError
from gibbon.core.threat import Norm

LONG = torch.zeros(5000)
OTHER = LONG.clone()
OTHER[2500] = 1.0  # where a repr leaves out
Pair = namedtuple("Pair", "first second")


@dataclass(frozen=True)
class Held:
    content: Any


class Plain:
    """What it is stands in no repr."""


def linear(content: torch.Tensor) -> nn.Module:
    module = nn.Linear(len(content), 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(content)
    return module


@pytest.mark.parametrize(
    "around",
    [
        lambda tensor: tensor,
        lambda tensor: tensor.numpy(),
        lambda tensor: nn.Parameter(tensor),
        lambda tensor: [1, tensor],
        lambda tensor: (tensor, "a"),
        lambda tensor: {"a": [tensor.numpy()]},
        lambda tensor: OrderedDict(a=tensor),
        lambda tensor: Pair(1, tensor),
        lambda tensor: Held({"a": tensor}),
        lambda tensor: np.array([tensor.tolist(), None], dtype=object),
        lambda tensor: tensor.to_sparse(),
        linear,
    ],
)
def test_what_differs_where_a_repr_leaves_out_has_another_text(around: Any) -> None:
    assert parameter_text(around(LONG)) != parameter_text(around(OTHER))
    assert parameter_text(around(OTHER)) == parameter_text(around(OTHER.clone()))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LONG, LONG.double()),
        (LONG, LONG.view(50, 100)),
        (LONG.int(), LONG),
        (LONG, LONG.numpy()),
        (torch.tensor(1), torch.tensor([1])),
        ([LONG], (LONG,)),
    ],
)
def test_kind_and_shape_count(one: Any, other: Any) -> None:
    assert parameter_text(one) != parameter_text(other)


@pytest.mark.parametrize("view", [LONG.bfloat16(), LONG.bool(), torch.zeros(2, 3).T, LONG + 0j])
def test_any_tensor_has_a_text(view: torch.Tensor) -> None:
    assert parameter_text(view) == parameter_text(view.clone())


@pytest.mark.parametrize(
    "value",
    [
        1,
        0.1,
        True,
        None,
        "at 0x12",
        [1, "at 0x12"],
        (1,),
        {"a": 1},
        Path("a"),
        Norm.L2,
        np.float32(0.1),
    ],
)
def test_an_ordinary_parameter_is_its_repr(value: Any) -> None:
    assert parameter_text(value) == repr(value)


def test_an_attack_of_ours_is_filed_under_its_reprs() -> None:
    attack = PGD(steps=3)
    assert parameter_texts(attack)["steps"] == "3"
    assert parameter_texts(attack)["keep"] == repr(attack.keep)


@pytest.mark.parametrize("value", [Plain(), [Plain()], {"a": (Plain(), LONG)}])
def test_an_address_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match=r"at 0x.*: a memory address does not say what it is"):
        parameter_text(value)
