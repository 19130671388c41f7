"""Networks written in words: layers, names of tensors, and errors that say what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from gibbon.core.errors import SpecError
from gibbon.models.sequential import LAYERS, sequential
from gibbon.models.sources.build import build_model
from gibbon.specs.decoding import parse_suite

CONV = ["conv 4 3 stride=2 padding=1", "relu", "flatten", "linear 10"]


def test_tensors_have_the_names_of_a_sequential_network() -> None:
    theirs = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(196, 10)
    )
    ours = sequential([1, 14, 14], CONV)
    ours.load_state_dict(theirs.state_dict())
    inputs = torch.rand(3, 1, 14, 14)
    torch.testing.assert_close(ours(inputs), theirs(inputs))
    assert not ours.training


def test_named_layers_and_groups_give_their_tensors_these_names() -> None:
    net = sequential(
        [1, 8, 8],
        ["features.0: conv 2 3", "features.1: relu", "flatten", "fc: linear 3 bias=0"],
    )
    assert list(net.state_dict()) == ["features.0.weight", "features.0.bias", "fc.weight"]
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_every_kind_of_layer_can_be_made() -> None:
    net = sequential(
        [2, 12, 12],
        [
            "conv 4 3 dilation=2 groups=2 bias=0", "batchnorm", "leaky-relu slope=0.2",
            "maxpool 2 stride=1", "avgpool 2", "relu", "identity", "dropout 0.5", "flatten",
            "linear 5", "batchnorm", "sigmoid", "linear 4", "tanh", "linear 4", "elu",
            "linear 4", "softplus",
        ],
    )  # fmt: skip
    assert net(torch.zeros(2, 2, 12, 12)).shape == (2, 4)
    assert len(LAYERS) == 14


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (["convv 4 3"], r"layers\[0\]: there is no layer 'convv'; did you mean 'conv'\?"),
        (["conv 4"], "must be written conv OUT KERNEL, got 'conv 4'"),
        (["relu", "conv 4 3 strid=2"], r"layers\[1\]: conv has no option 'strid'; did you mean"),
        (["linear many"], "must be a number, got 'many'"),
        (["flatten", "conv 4 3"], "a convolution takes channels"),
        (["conv 4 99"], "can't take inputs of shape"),
        (["a: relu", "b: relu", "a: relu"], "called 'a'"),
        (["a: relu", "a.b: relu"], "'a' is the name of a layer and of a group"),
        ([""], "there is no layer ''"),
    ],
)
def test_a_wrong_layer_is_named_with_what_was_expected(layers: list[str], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        sequential([1, 14, 14], layers)


@pytest.mark.parametrize("suffix", [".pth", ".model", ".pt"])
def test_a_suite_loads_a_state_dict_without_trust(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "nets").mkdir()
    torch.save(sequential([1, 14, 14], CONV).state_dict(), tmp_path / "nets" / f"net{suffix}")
    layers = ", ".join(f'"{each}"' for each in CONV)
    text = (
        'name = "x"\ndataset = "mnist"\n[[models]]\nname = "net"\n'
        'model = "gibbon.models.sequential:sequential"\n'
        f'weights = "nets/net{suffix}"\n'
        f"arguments = {{ input_shape = [1, 14, 14], layers = [{layers}] }}"
    )
    (experiment,) = parse_suite(text, where="x.toml", folder=tmp_path).experiments
    built = build_model(experiment.models[0], input_shape=(1, 14, 14))
    assert built.classifier.classes == 10
