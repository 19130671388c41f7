"""Every shipped attack and suite runs on a device that is not the CPU, with the CPU's results.

The device is played (`played_device`): a tensor that was left on the CPU fails here as on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nets
import pytest
import short_suites
import test_worker_attacks
import torch
from attacks import golden_probe
from played_device import played
from same_outcomes import assert_same_outcomes
from torch import nn

from gibbon import evaluate
from gibbon.core.errors import DeviceError
from gibbon.core.rng import ExampleStreams
from gibbon.runner.device.choose_device import choose_device
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

EXAMPLES = 24

pytestmark = pytest.mark.played


@pytest.fixture(scope="module")
def device() -> Iterator[torch.device]:
    with played() as found:
        yield found


def test_the_played_device_fails_where_a_gpu_does(device: torch.device):
    there, here = torch.arange(6.0, device=device), torch.arange(3)
    for mixed in (
        lambda: there + torch.ones(6),
        lambda: there[here],
        lambda: there.index_copy(0, here, torch.ones(3)),
        lambda: torch.cat([there, torch.ones(1)]),
        lambda: torch.where(torch.ones(6, dtype=torch.bool), there, 0.0),
        lambda: torch.ones(6).add_(there),
    ):
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            mixed()
    with pytest.raises(TypeError, match="convert played"):
        there.numpy()
    assert (there + torch.tensor(1.0)).tolist() == [1, 2, 3, 4, 5, 6]
    assert there[here.to(device)].device == device
    assert torch.equal(there.cpu(), torch.arange(6.0))
    column = torch.arange(3.0, device=device).unsqueeze_(1)
    assert column.shape == (3, 1)
    assert column.transpose_(0, 1).squeeze_().tolist() == [0, 1, 2]


def test_gradients_on_the_played_device_are_those_of_the_cpu(device: torch.device):
    classifier, batch = nets.conv(), nets.random_batch(5)
    found = []
    for place in ("cpu", device):
        with classifier.evaluating(place):
            inputs, labels = batch.inputs.to(place), batch.labels.to(place)
            found.append(classifier.loss_gradient(inputs, labels))
    assert found[1].device == device
    torch.testing.assert_close(found[0], found[1].cpu())


@pytest.mark.parametrize("name", golden_probe.names())
def test_an_attack_makes_its_stored_candidates_there(device: torch.device, name: str):
    made = golden_probe.probe(name)
    there = replace(
        made,
        inputs=made.inputs.to(device),
        labels=made.labels.to(device),
        streams=ExampleStreams(made.streams.keys.to(device)),
    )
    with made.classifier.evaluating(device):
        now = golden_probe.candidates(name, there)
    assert golden_probe.differences(name, golden_probe.stored(name), now) == []


def _models() -> dict[str, nn.Module]:
    return {"net": nets.mlp().module, "other": nets.mlp(seed=5).module}


def _run(folder: Path, device: str, names: list[str]) -> None:
    batch = nets.random_batch(EXAMPLES)
    attacks = [
        {"name": name, **case}
        for name in names
        if "lbfgs" not in name
        for case in golden_probe.CASES.get(name, [{}])[:1]
        if not {"smallest", "kernel"} & case.keys()  # for larger pictures
    ]
    results = evaluate(
        _models(),
        (batch.inputs, batch.labels),
        attack=attacks,
        epsilon="0.1",
        device=device,
        output=folder,
    )
    assert not results.failures, results.failures


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["fgsm", "pgd", "apgd-ce", "square", "deepfool"], id="some"),
        pytest.param(golden_probe.names(), id="all", marks=pytest.mark.slow),
    ],
)
def test_a_run_of_attacks_there_is_that_of_the_cpu(
    device: torch.device, tmp_path: Path, names: list[str]
):
    for name in ("cpu", str(device)):
        _run(tmp_path / name[:3], name, names)
    assert_same_outcomes(tmp_path / "cpu", tmp_path / "pla")


def _run_suite(suite: Suite, folder: Path, device: str) -> None:
    settings = RunSettings(device=device, limit=4, certify="none", batch_size=3)
    record = run_suite(suite, folder, settings=settings)
    assert not record.failures, [(each.attack, each.error) for each in record.failures]
    assert record.evaluations


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # other libraries' own
@pytest.mark.parametrize("name", short_suites.SUITES)
def test_a_shipped_suite_there_is_that_of_the_cpu(
    device: torch.device, tmp_path: Path, name: str
) -> None:
    """With few steps, and random data and weights in place of those that are not shipped."""
    suite = short_suites.short(name, tmp_path)
    for place in ("cpu", str(device)):
        _run_suite(suite, tmp_path / place[:3], place)
    assert_same_outcomes(tmp_path / "cpu", tmp_path / "pla")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # other libraries' own
def test_every_adapter_there_gives_what_it_gives_on_the_cpu(
    device: torch.device, tmp_path: Path
) -> None:
    written = [each for each in test_worker_attacks.attacks() if ":" in each["name"]]
    if not written:
        pytest.skip("no library is installed")
    suite = Suite.model_validate(
        {"name": "adapters", "dataset": "mnist", "models": ["softmax"], "attacks": written}
    )
    for place in ("cpu", str(device)):
        _run_suite(suite, tmp_path / place[:3], place)
    assert_same_outcomes(tmp_path / "cpu", tmp_path / "pla")


def test_a_device_of_another_backend_is_chosen_if_it_is_there(device: torch.device):
    assert choose_device("played:0") == device
    with pytest.raises(DeviceError, match="'xpu' is not there"):
        choose_device("xpu")
    with pytest.raises(DeviceError, match="expected auto, cpu, cuda, cuda:1 or mps, got 'meta'"):
        choose_device("meta")
