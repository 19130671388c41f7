"""What one attack or model leaves changed reaches no cell of another."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from typing import ClassVar

import nets
import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.modules import module as all_modules

from gibbon import evaluate
from gibbon.attacks.base import STRICT, Attack
from gibbon.core.global_state import GlobalState

COUNT = 40
EPSILON = 0.05
KNOWN = {"examination": False, "bounds": "none"}
KEPT: list[object] = []


def autocast() -> None:
    KEPT.append(torch.autocast("cpu", dtype=torch.bfloat16))
    KEPT[-1].__enter__()


def inference() -> None:
    KEPT.append(torch.inference_mode())
    KEPT[-1].__enter__()


def hook() -> None:
    all_modules.register_module_forward_hook(lambda module, inputs, outputs: outputs * 0)


def argmax() -> None:
    Tensor.argmax = lambda self, *_, **__: torch.zeros(len(self), dtype=torch.int64)


def linear() -> None:
    nn.functional.linear = lambda inputs, weight, bias=None: inputs @ weight.T * 0


def settings() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_grad_enabled(False)
    torch.set_flush_denormal(True)
    np.seterr(all="raise")
    warnings.simplefilter("error")
    os.environ["GIBBON_TEST"] = "1"
    os.chdir("/")
    torch.manual_seed(0)


SILENT = [autocast, inference, settings]
NAMED = {hook: "a hook on all modules", argmax: "Tensor.argmax", linear: "functional.linear"}
LEAKS = [*SILENT, *NAMED]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Leaks(Attack):
    """Does what FGSM does, and leaves something changed."""

    leak: ClassVar[Callable[[], None]]
    early: bool = False

    def propose(self, classifier, inputs, *, labels, threat, streams) -> Iterator[Tensor]:
        """Yields FGSM's candidate."""
        direction = classifier.loss_gradient(inputs, labels).sign()
        candidate = (inputs + threat.radius * direction).clamp(0, 1)
        if self.early:
            type(self).leak()
        yield candidate
        if not self.early:
            type(self).leak()


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    batch = nets.random_batch(count=COUNT)
    return batch.inputs, nets.linear().module(batch.inputs).argmax(1)


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    state = GlobalState.now()
    try:
        yield
    finally:
        changes = state.put_back()
    # pytest itself writes the name of the phase into the environment.
    assert not {*changes.settings, *changes.code} - {"os.environ"}
    assert "GIBBON_TEST" not in os.environ


def rows(found, model: str, attack: str) -> list[float]:
    return [
        row.adversarial_error
        for row in found.record.evaluations
        if (row.model, row.attack) == (model, attack)
    ]


def models() -> dict[str, nn.Module]:
    return {"one": nets.linear().module, "two": nets.linear(seed=5).module}


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("leak", LEAKS)
def test_what_an_attack_leaves_changed_reaches_no_other_cell(leak, early, data):
    Leaks.leak = staticmethod(leak)
    plain = evaluate(models(), data, attack="fgsm", epsilon=EPSILON, **KNOWN)
    attacks = [Leaks(early=early), {"name": "fgsm"}]
    found = evaluate(models(), data, attack=attacks, epsilon=EPSILON, **KNOWN)
    for model in models():
        assert rows(found, model, "fgsm") == rows(plain, model, "fgsm")
        assert rows(found, model, "none") == rows(plain, model, "none")
    if leak in SILENT or early:  # an early leak ends at the yield, and is back when it continues
        own = [rows(found, model, "leaks") for model in models()]
        assert own == [rows(plain, model, "fgsm") for model in models()] or found.failures
    if leak in NAMED:
        assert len(found.failures) == len(models())
        for failure in found.failures:
            assert "the attack left global state changed" in failure.error
            assert NAMED[leak] in failure.error
            assert "--isolate" in failure.error


class LeakyModel(nn.Module):
    """Leaves something changed in each call."""

    def __init__(self, leak: Callable[[], None]) -> None:
        super().__init__()
        self.net, self.leak = nets.linear(seed=7).module, leak

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.net(inputs)
        self.leak()
        return outputs


@pytest.mark.parametrize("leak", LEAKS)
def test_what_a_model_leaves_changed_reaches_no_other_model(leak, data):
    plain = evaluate(models(), data, attack="pgd", steps=2, epsilon=EPSILON, **KNOWN)
    among = {"leaky": LeakyModel(leak), **models()}
    found = evaluate(among, data, attack="pgd", steps=2, epsilon=EPSILON, **KNOWN)
    for model in models():
        assert rows(found, model, "pgd") == rows(plain, model, "pgd")
        assert rows(found, model, "none") == rows(plain, model, "none")
    assert not [each for each in found.failures if each.model != "leaky"]
    assert not any("AttackError" in each.error for each in found.failures)
    card = next(card for card in found.record.models if card.name == "leaky")
    assert any("leave global state changed" in note for note in card.notes)
