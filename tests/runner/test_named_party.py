"""Every message names the party whose code is at fault, in every phase of a run.

A table over phases and parties: in one phase one party raises, and what the user reads of it must
name this party and no other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset

from gibbon import Attack, evaluate
from gibbon.api.results import Results
from gibbon.attacks import base as attack_base
from gibbon.core.errors import DatasetError, GibbonError, ModelError, RequestError
from gibbon.datasets.base import ArrayDataset, Batch
from gibbon.runner import train_seeds
from gibbon.runner.executors import in_process
from gibbon.runner.job_results import target_scores
from gibbon.runner.model_checks import check_survivors, examine_models
from gibbon.runner.own_processes import own_process
from gibbon.runner.plan import load_model, make_plan
from gibbon.runner.proofs import prove

PICTURES = torch.rand(24, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 3
GIBBON = "Gibbon itself"
LOUD: set[str] = set()  # the parties that raise from now on


def complain(party: str) -> None:
    if party in LOUD:
        raise KeyError(f"{party} has lost a table")


class Moody(nn.Module):
    """A part of a model."""

    def forward(self, inputs: Tensor) -> Tensor:
        complain("the model")
        return inputs


class Target(Moody):
    """A part of the model that examples are scored on."""

    def forward(self, inputs: Tensor) -> Tensor:
        complain("the target")
        return inputs


@dataclass(frozen=True)
class Steps(Attack):
    """A small step, by an author of an attack."""

    def propose(self, classifier, inputs, *, labels, threat, streams):  # type: ignore[no-untyped-def]
        complain("the attack")
        step = threat.radius * classifier.loss_gradient(inputs, labels).sign()
        yield attack_base.clip_(inputs + step / 8, threat.bounds)


class Held(ArrayDataset):
    """A dataset that its author's code reads."""

    def batch(self, ids: Any) -> Batch:
        complain("the dataset")
        return super().batch(ids)

    def batches(self, chunks: Any) -> Iterator[Batch]:  # type: ignore[override]
        for ids in chunks:
            yield self.batch(ids)


def data() -> Any:
    pictures = (PICTURES.numpy() * 255).astype(np.uint8)
    return Held("held", pictures, targets=LABELS.numpy(), classes=("a", "b", "c"))


def network(part: nn.Module) -> nn.Module:
    """A network that is right about most examples: they are all of the class that it prefers."""
    torch.manual_seed(0)
    net = nn.Sequential(part, nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        net[2].weight.mul_(0.05)  # type: ignore[union-attr,operator]
    return net


# The functions that a phase runs through: while one runs, the party is loud.
PHASES: dict[str, tuple[ModuleType, str]] = {
    "load": (load_model, "probe_model"),
    "read": (make_plan, "select"),
    "examination": (examine_models, "_examine"),
    "cell": (in_process, "run_batch"),
    "transfer": (target_scores, "ask"),
    "survivors": (check_survivors, "_attacked"),
    "proofs": (prove, "trace"),
    "bounds": (prove, "certify"),
}

MODEL = r"raised by the model('s part Moody)?"
TABLE = [
    ("load", "the model", r"models\[0\]: 'source': the model can't be run: KeyError.*party\.py"),
    ("load", GIBBON, r"raised by Gibbon itself: please report it"),
    ("read", "the dataset", r"dataset: 'held' can't be loaded: KeyError"),
    ("examination", "the model", rf"could not be made: KeyError.*{MODEL}"),
    ("examination", GIBBON, r"could not be examined: KeyError.*raised by Gibbon itself"),
    ("cell", "the model", MODEL),
    ("cell", "the attack", r"raised by the attack Steps, test_named_party\.py:\d+"),
    ("cell", GIBBON, r"raised by Gibbon itself"),
    ("transfer", "the target", r"scored on target: KeyError.*raised by the model's part Target"),
    ("transfer", GIBBON, r"scored on target: KeyError.*raised by Gibbon itself"),
    ("survivors", "the model", MODEL),
    ("survivors", GIBBON, r"raised by Gibbon itself"),
    ("proofs", "the model", rf"can't be traced: KeyError.*{MODEL}"),
    ("proofs", GIBBON, r"can't be traced: KeyError.*raised by Gibbon itself"),
    ("bounds", GIBBON, r"failed: KeyError.*raised by Gibbon itself"),
]


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes a party raise while a phase is at work."""

    def arranged(phase: str, party: str) -> None:
        module, name = PHASES[phase]
        inner = getattr(module, name)

        def around(*args: Any, **keywords: Any) -> Any:
            LOUD.add(party)
            try:
                complain(GIBBON)
                return inner(*args, **keywords)
            finally:
                LOUD.discard(party)

        monkeypatch.setattr(module, name, around)

    return arranged


def said(**more: Any) -> str:
    """Returns all that a user reads of a run."""
    steps = {"name": "pgd", "steps": 100}
    models = {"source": network(Moody()), "target": network(Target())}
    keys: dict[str, Any] = {"attack": [Steps(), steps], "epsilon": 0.01, "certify": "all", **more}
    try:
        results: Results = evaluate(models, data(), **keys)
    except GibbonError as error:
        return f"{type(error).__name__}: {error}"
    record = results.record
    lines = [each.text for each in results.failures]
    lines += [each.sentence for each in record.flags]
    lines += [each.reason for made in record.examinations for each in made.checks]
    lines += [each.reason for each in record.survivors]
    lines += [each.reason for each in record.bounds]
    return "\n".join(filter(None, lines))


@pytest.mark.parametrize(("phase", "party", "expected"), TABLE)
@pytest.mark.parametrize("isolate", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_party_is_named(
    loud: Callable[[str, str], None], phase: str, party: str, expected: str, isolate: bool
) -> None:
    if isolate and not own_process.can_fork():
        pytest.skip("processes can't be forked here")
    loud(phase, party)
    text = said(isolate=isolate)
    assert re.search(expected, text), text
    named = {"the attack": "the attack Steps", "the dataset": "the dataset 'held'", GIBBON: GIBBON}
    for other, words in named.items():
        if other != party:
            assert f"raised by {words}" not in text


class Items(TorchDataset[Any]):
    """A dataset of torch with something wrong."""

    def __init__(self, wrong: str) -> None:
        self.wrong = wrong

    def __len__(self) -> int:
        if self.wrong == "raises in len":
            raise KeyError("no table")
        wrong: dict[str, Any] = {"a word as length": "many", "a negative length": -1}
        return wrong.get(self.wrong, 24)  # type: ignore[no-any-return]

    def __getitem__(self, index: int) -> Any:
        if self.wrong == "raises in getitem" and index == 5:
            raise KeyError("no table")
        if self.wrong == "exits in getitem":
            raise SystemExit(3)
        return PICTURES[index], index % 3


class WithoutIndex:
    def __len__(self) -> int:
        return 24

    def __getitem__(self) -> Any:
        return PICTURES[0], 0


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield PICTURES[0], 0
        raise KeyError("no table")


DATASETS = {
    "raises in len": (Items("raises in len"), r"its __len__ can't be used: KeyError.*party\.py"),
    "a word as length": (Items("a word as length"), "its __len__ can't be used: TypeError"),
    "a negative length": (Items("a negative length"), "its __len__ can't be used: ValueError"),
    "raises in getitem": (
        Items("raises in getitem"),
        r"item 5 can't be read: KeyError: 'no table' \(.*test_named_party\.py, line \d+\)",
    ),
    "exits in getitem": (Items("exits in getitem"), "item 0 can't be read: it ended the program"),
    "takes no index": (WithoutIndex(), "item 0 can't be read: TypeError"),
    "a stream that breaks off": (Stream(), "number 1 of what it gives can't be read: KeyError"),
}


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_that_can_not_be_read_is_named_with_its_line(name: str) -> None:
    wrong, expected = DATASETS[name]
    with pytest.raises(DatasetError, match=f"dataset '{type(wrong).__name__}': {expected}") as told:
        evaluate(network(Moody()), wrong, attack="fgsm", epsilon=0.1)
    assert "map_dataset.py" not in str(told.value)


BUILDERS = """
class Net:
    def __init__(self):
        raise KeyError("no table")

def build():
    return {}["no table"]

def leaves():
    raise SystemExit(3)

def data():
    raise KeyError("no table")
"""


@pytest.mark.parametrize("name", ["Net", "build", "leaves"])
def test_a_builder_of_models_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "net.py").write_text(BUILDERS)
    with pytest.raises(ModelError, match=rf"models\[0\]: '{name}': {name} raised.*net\.py, line"):
        evaluate(f"{tmp_path / 'net.py'}:{name}", (PICTURES, LABELS), attack="fgsm", epsilon=0.1)


def test_a_factory_of_data_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(BUILDERS)
    place = f"{tmp_path / 'net.py'}:data"
    with pytest.raises(RequestError, match=r"dataset '.*net\.py:data' can't be made: KeyError"):
        evaluate(network(Moody()), place, attack="fgsm", epsilon=0.1)


def test_a_trainer_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def trainer(request: object) -> None:
        raise KeyError("no table")

    monkeypatch.setattr(train_seeds.TRAINERS, "load", lambda name: trainer)
    request = train_seeds.TrainingRequest(output=tmp_path, report=lambda _: None)
    with pytest.raises(RequestError, match="seed 3: the trainer of 'mine' failed: KeyError"):
        train_seeds.train_seeds("mine", request, seeds=[3])


class Dies(Held):
    """A dataset whose process dies as it is read."""

    def batch(self, ids: Any) -> Batch:
        import os

        os._exit(7)


def test_a_dataset_whose_process_dies_is_named() -> None:
    if not own_process.can_fork():
        pytest.skip("processes can't be forked here")
    pictures = (PICTURES.numpy() * 255).astype(np.uint8)
    dying = Dies("dying", pictures, targets=LABELS.numpy(), classes=("a", "b", "c"))
    with pytest.raises(RequestError, match=r"dataset: 'dying' is opened and read: .*exit code 7"):
        evaluate(network(Moody()), dying, attack="fgsm", epsilon=0.1, isolate=True)
