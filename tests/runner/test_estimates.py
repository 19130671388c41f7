"""Estimates of a run: passes as they are counted, ranges that hold them, and nothing written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import doomed
import nets
import planted
import pytest
import torch
from torch import Tensor

from gibbon.attacks import ATTACKS
from gibbon.attacks.base import Attack
from gibbon.cli.estimate_text import lines
from gibbon.core.errors import ModelError, RunFolderError
from gibbon.core.rng import ExampleStreams
from gibbon.core.shard import Shard
from gibbon.core.threat import Epsilon, ThreatModel
from gibbon.records.run import RunRecord
from gibbon.runner import run_suite as run_suite_module
from gibbon.runner.estimate import estimate_run, long_run, parallel
from gibbon.runner.estimate.attack_passes import NumberRange, search_passes
from gibbon.runner.estimate.dry_run import DryRun, dry_run
from gibbon.runner.estimate.estimate_run import RunEstimate
from gibbon.runner.estimate.parallel import Parallel, parallel_of
from gibbon.runner.estimate.timing import ModelTimes, TimeOfPass, time_model
from gibbon.runner.execute.jobs import Job
from gibbon.runner.executors import ray as ray_executor
from gibbon.runner.model_checks.examine_models import examine_models
from gibbon.runner.plan import load_model, sharing
from gibbon.runner.plan.planned import Plan
from gibbon.runner.run_progress.progress import SilentProgress
from gibbon.runner.run_shard import run_shard
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite
from gibbon.verify.guard import guarding
from gibbon.verify.judge import judge
from gibbon.verify.proposal import propose

FEW = {"steps": 5, "queries": 5, "iterations": 3, "searches": 3}
SLACK = 1.01


def built(name: str) -> Attack:
    kind = ATTACKS.load(name)
    names = {each.name for each in dataclasses.fields(kind)}
    attack: Attack = kind(**{key: value for key, value in FEW.items() if key in names})
    return attack


def own_attacks() -> Iterator[str]:
    for entry in ATTACKS.entries():
        # A list is as many estimates as it has members.
        if entry.origin == "gibbon" and entry.name not in (
            "worst-of",
            "autoattack",
            "autoattack-l1",
        ):
            yield entry.name


@pytest.mark.parametrize("name", list(own_attacks()))
def test_the_passes_of_an_attack_are_those_that_it_makes(name: str) -> None:
    """On examples that are never misclassified, of which searches of the nearest have none."""
    attack, model = built(name), nets.mlp()
    batch = nets.random_batch(16)
    with torch.no_grad():
        labels = model.predict(batch.inputs).argmax(1)
    batch = dataclasses.replace(batch, labels=labels)
    threat = ThreatModel(attack.norms[0], Epsilon.parse("1/100000"), bounds=model.bounds)
    streams = ExampleStreams.derive(3, batch.ids)
    with model.evaluating("cpu"), guarding(model, batch, seed=1, attack=attack) as guarded:
        (proposed,) = propose(attack, model, guarded.batch, threats=[threat], streams=streams)
        judge(model, batch, proposed=proposed, threat=threat, watch=guarded.watch)
    expected = search_passes(attack, model.classes)
    forward = model.passes.forward / len(batch.labels) - expected.tries
    backward = model.passes.backward / len(batch.labels)
    for made, guess in ((forward, expected.forward), (backward, expected.backward)):
        assert guess.low / SLACK <= made <= guess.high * SLACK + 1, (name, made, guess)
        if guess.low == guess.high:
            assert abs(made - guess.likely) <= 1, (name, made, guess)


def suite_of(*attacks: dict[str, Any], **more: Any) -> Suite:
    return Suite.model_validate(
        {"name": "guess", "dataset": "squares", "models": ["one", "two"], "attacks": [*attacks]}
        | more
    )


FGSM = {"name": "fgsm", "epsilon": ["0.05", "0.1"]}
PGD = {"name": "pgd", "epsilon": ["0.1", "0.2"], "steps": 5}
LIST = {
    "name": "worst-of",
    "epsilon": "0.1",
    "attacks": [
        {"name": "noise-sign"},
        {"name": "pgd", "steps": 4},
        {"name": "square", "queries": 9},
    ],
}
SETTINGS = {"examination": False, "certify": "none", "batch_size": 16}


@pytest.fixture(autouse=True)
def planting(monkeypatch: pytest.MonkeyPatch) -> planted.Plant:
    return doomed.plant(monkeypatch)


def estimated(suite: Suite, folder: Path, *, shard: Shard | None = None, **more: Any) -> DryRun:
    settings = RunSettings(device="cpu", **{**SETTINGS, **more})
    return dry_run(suite, folder, settings=settings, shard=shard, seconds=0.0)


@pytest.mark.parametrize(
    ("suite", "share"),
    [
        (suite_of(FGSM, PGD), 0.05),
        (suite_of(FGSM, PGD, transfer={"attacks": ["fgsm", "pgd"]}), 0.05),
        (suite_of({**PGD, "carried": True}, LIST, error_only=True), 1.0),
    ],
)
def test_the_passes_of_a_run_are_within_the_range(
    tmp_path: Path, suite: Suite, share: float
) -> None:
    found = estimated(suite, tmp_path / "run").estimate
    assert not (tmp_path / "run").exists()
    settings = RunSettings(device="cpu", **SETTINGS)
    record = run_suite(suite, tmp_path / "run", settings=settings)
    assert found.cells == len(record.evaluations)
    assert found.reused == 0
    made = NumberRange.exactly(passes_made(record))
    guess = found.forward + found.backward
    assert guess.low * (1 - share) <= made.likely <= guess.high * (1 + share)
    if share < 1:
        assert guess.likely == pytest.approx(made.likely, rel=share)
    again = estimated(suite, tmp_path / "run").estimate
    assert (again.cells, again.reused) == (0, found.cells)
    assert again.forward.high == again.backward.high == 0
    anew = estimated(suite, tmp_path / "run", fresh=True).estimate
    assert (anew.cells, anew.reused) == (found.cells, 0)
    assert anew.forward == found.forward
    assert anew.backward == found.backward


def passes_made(record: RunRecord) -> int:
    scored = sum(each.examples for each in record.transfers if each.source != each.target)
    rows = record.evaluations
    return sum(each.forward_passes + each.backward_passes for each in rows) + scored


def test_shards_divide_the_passes(tmp_path: Path) -> None:
    suite = suite_of(FGSM, PGD)
    whole = estimated(suite, tmp_path / "run").estimate
    parts = [
        estimated(suite, tmp_path / "run", shard=Shard(index, 3)).estimate for index in (1, 2, 3)
    ]
    assert sum(each.forward.likely for each in parts) == pytest.approx(whole.forward.likely)
    assert {each.cells for each in parts} == {whole.cells}


def test_a_shard_may_have_no_examples(tmp_path: Path, planting: planted.Plant) -> None:
    planting.dataset("few", lambda request: planted.squares(examples=3, name="few"))
    one = {"models": ["one"], "attacks": [FGSM]}
    suite = Suite.model_validate(
        {"name": "two", "experiments": [{"dataset": name, **one} for name in ("squares", "few")]}
    )
    found = estimated(suite, tmp_path / "run", shard=Shard(4, 4), examination=True).estimate
    assert (found.cells, found.reused) == (3, 0)
    assert [each.dataset for each in found.models] == ["squares"]
    empty = estimated(suite_of(FGSM), tmp_path / "run", limit=3, shard=Shard(4, 4)).estimate
    assert (empty.cells, empty.reused, empty.forward.high) == (0, 0, 0)


def test_kept_examples_are_counted(tmp_path: Path) -> None:
    suite = suite_of(FGSM, PGD)
    assert estimated(suite, tmp_path / "run").estimate.examples == 0
    found = estimated(suite, tmp_path / "run", keep_examples="all").estimate
    assert found.examples == (2 * 4 + 1) * 60 * 16 * 4  # cells and clean, examples, numbers, bytes


class Limited(planted.Rows):
    """Raises an exception for batches of more than five examples."""

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > 5:
            raise torch.OutOfMemoryError("too many")
        return super().forward(inputs)


def test_a_model_is_timed_in_smaller_batches_if_memory_runs_out(
    tmp_path: Path, planting: planted.Plant
) -> None:
    planting.model("one", lambda: planted.classifier(Limited()))
    found = estimated(suite_of(FGSM), tmp_path / "run", batch_size=None).estimate
    assert [each.batch <= 5 for each in found.models] == [True, False]
    whole = estimated(suite_of(FGSM, models=["two"]), tmp_path / "run").estimate
    assert found.forward.likely == pytest.approx(2 * whole.forward.likely)


def test_a_model_that_fails_when_it_is_timed_is_named(
    tmp_path: Path, planting: planted.Plant
) -> None:
    planting.model("one", lambda: planted.classifier(Limited()))
    said = "model 'one': it failed on 16 examples of 'squares' .* out of memory"
    with pytest.raises(ModelError, match=said):  # a batch size that was given is kept
        estimated(suite_of(FGSM), tmp_path / "run")


def test_a_folder_that_the_run_would_refuse_is_refused(tmp_path: Path) -> None:
    suite = suite_of(FGSM)
    settings = RunSettings(device="cpu", **SETTINGS)
    run_suite(suite, tmp_path / "run", settings=settings)
    run_shard(suite, tmp_path / "shard", shard=Shard(1, 3), settings=settings)
    with pytest.raises(RunFolderError, match="holds a whole run, not shard 1/3"):
        estimated(suite, tmp_path / "run", shard=Shard(1, 3))
    for shard, words in ((None, "not a whole run"), (Shard(2, 3), "not shard 2/3")):
        with pytest.raises(RunFolderError, match=f"holds shard 1/3, {words}"):
            estimated(suite, tmp_path / "shard", shard=shard)
    with pytest.raises(RunFolderError, match="belongs to suite"):
        estimated(suite.model_copy(update={"name": "other"}), tmp_path / "run")
    assert estimated(suite, tmp_path / "shard", shard=Shard(1, 3)).estimate.cells == 0


def test_candidates_that_wait_on_disk_are_counted(tmp_path: Path) -> None:
    suite = suite_of(FGSM, transfer={"attacks": ["fgsm"]})
    found = estimated(suite, tmp_path / "run", models_in_memory=1).estimate
    assert found.scratch == 2 * 2 * 60 * 16 * 4  # sources, epsilons, examples, numbers, bytes


def test_a_model_is_left_as_it_was() -> None:
    """Neither its passes nor its state, mode and random numbers show that it was timed."""
    model, inputs = nets.conv(), nets.random_batch(8).inputs
    state = {name: each.clone() for name, each in model.module.state_dict().items()}
    numbers = torch.random.get_rng_state()
    times = time_model(model, inputs, seconds=0.0)
    assert times.batch == 8
    assert times.forward.of(8, batch=8) > 0
    assert (model.passes.forward, model.passes.backward) == (0, 0)
    assert torch.equal(numbers, torch.random.get_rng_state())
    for name, each in model.module.state_dict().items():
        assert torch.equal(each, state[name]), name


def test_a_pass_of_few_examples_takes_a_call() -> None:
    time = TimeOfPass(call=2.0, example=0.5)
    assert time.of(1, batch=10) == 2.5
    assert time.of(20, batch=10) == 14.0
    assert time.of(0, batch=10) == 0.0


@pytest.mark.parametrize(("likely", "said"), [(5400.0, True), (500.0, False)])
def test_a_long_run_says_so_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, likely: float, said: bool
) -> None:
    seconds = NumberRange(likely / 2, likely, 2 * likely)
    nothing = NumberRange.exactly(0)
    found = RunEstimate(1, 0, nothing, nothing, seconds, 0, 0, 0, 0, 0, ())
    monkeypatch.setattr(long_run, "FEWEST_PASSES", 1)
    monkeypatch.setattr(long_run, "PASS_FACTOR", 1e9)
    monkeypatch.setattr(long_run, "estimate_run", lambda *args, **keys: found)
    notes: list[str] = []

    class Notes:
        def note(self, text: str) -> None:
            notes.append(text)

        def start(self, *, work: int, cells: int, reused: int) -> None:
            notes.append("started")

        def checking(self, examples: int, *, of: int, dataset: str) -> None: ...
        def advance(self, work: int, *, doing: str) -> None: ...
        def failed(self, cell: str, *, error: str) -> None: ...

    settings = RunSettings(device="cpu", **SETTINGS)
    run_suite(suite_of(FGSM), tmp_path / "run", settings=settings, progress=Notes())
    expected = ["this run takes about 1.5 hours (0.75 to 3)"] if said else []
    assert [each for each in notes if "takes about" in each] == expected
    assert notes[-1] == "started"


def test_a_run_that_is_short_in_small_batches_is_not_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    estimated: list[int] = []

    def took(plan: Plan, jobs: Sequence[Job], count: int) -> float:
        looks.append(count)
        return 3 * long_run.LONG / count

    monkeypatch.setattr(long_run, "FEWEST_PASSES", 1)
    monkeypatch.setattr(long_run, "PASS_FACTOR", 1e9)
    monkeypatch.setattr(long_run, "_at_most", took)
    monkeypatch.setattr(long_run, "estimate_run", lambda *args, **keys: estimated.append(1))
    run_suite(suite_of(FGSM), tmp_path / "run", settings=RunSettings(device="cpu", **SETTINGS))
    assert looks == list(long_run.LOOKS)
    assert not estimated


def test_the_words_of_an_estimate() -> None:
    seconds = NumberRange(1800.0, 3600.0, 7200.0)
    passes = NumberRange(1000, 2000, 3000)
    found = RunEstimate(
        cells=12,
        reused=3,
        forward=passes,
        backward=NumberRange.exactly(1500),
        seconds=seconds,
        memory=2_500_000_000,
        device_memory=12_000_000_000,
        disk=8_000_000,
        examples=99_700_000,
        scratch=1_000_000_000,
        models=(),
        notes=("a note",),
    )
    said = dict(lines(DryRun(found, 0.0, "cuda"), shard=Shard(1, 4), price=2.5))
    assert said == {
        "cells": "12 to compute, 3 recorded already",
        "passes": "2,000 (1,000 to 3,000) forward, 1,500 backward, by example",
        "time": "60 minutes (30 to 120) on this machine's cuda",
        "money": "2.50 (1.25 to 5.00) at 2.5 an hour",
        "memory": "about 2.5 GB at most, 12 GB on the device",
        "disk": "about 8 MB, and up to 100 MB of kept examples, and up to 1 GB while it runs",
        "note": "a note",
    }
    fresh = DryRun(dataclasses.replace(found, reused=0), 0.0, "cuda")
    said = dict(lines(fresh, shard=Shard(1, 4), price=2.5))
    assert said[""] == "10.00 (5.00 to 20.00) for all 4 shards"


class Written(SilentProgress):
    """Keeps the notes of a run, and whether it had begun to examine models."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize(("seconds", "said"), [(40.0, True), (0.5, False)])
def test_few_passes_of_a_slow_model_say_so_before_it_is_examined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, said: bool
) -> None:
    """The time of the probe of all 60 examples is known without another pass."""
    plain, examined = load_model.probe_model, list[list[str]]()

    def slow(*args: Any, **keys: Any) -> Any:
        return dataclasses.replace(plain(*args, **keys), seconds=seconds)

    def examine(*args: Any, **keys: Any) -> Any:
        examined.append([*progress.notes])
        return examine_models(*args, **keys)

    monkeypatch.setattr(load_model, "probe_model", slow)
    monkeypatch.setattr(run_suite_module, "examine_models", examine)
    progress, settings = Written(), RunSettings(device="cpu", **SETTINGS)
    run_suite(suite_of(FGSM), tmp_path / "run", settings=settings, progress=progress)
    # Two models, 60 examples, 5 passes of 2.5 seconds, four times for what comes beside.
    expected = ["this run takes up to about 1.7 hours"] if said else []
    assert [each for each in progress.notes if "takes" in each] == expected
    assert examined == [progress.notes[: len(examined[0])]]
    assert [each for each in examined[0] if "takes" in each] == expected


def test_workers_divide_the_time_and_add_their_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "cores", lambda: 2)
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    times = ModelTimes(*(TimeOfPass(0.0, each) for each in (1.0, 2.0, 0.0)), batch=5)
    monkeypatch.setattr(estimate_run, "time_model", lambda *args, **keys: times)
    suite = suite_of(FGSM, PGD)
    found = [
        estimated(suite, tmp_path / "run", batch_size=5, **settings).estimate
        for settings in ({}, {"workers": 1}, {"workers": 2}, {"workers": 4})
    ]
    alone, one, two, four = (each.seconds.likely for each in found)
    start = estimate_run.WORKERS_SECONDS.likely
    assert one == pytest.approx(alone + start)
    assert two == pytest.approx(alone / 2, rel=0.05)
    assert four == pytest.approx(two, rel=0.1)  # there are two cores
    assert [each.workers for each in found] == [0, 1, 2, 4]
    assert found[0].forward == found[2].forward
    assert found[0].memory < found[1].memory < found[2].memory
    assert found[0].disk == found[2].disk
    said = dict(lines(DryRun(found[2], 0.0, "cpu"), shard=None, price=3600.0))
    assert said["time"].endswith("on this machine's cpu, with 2 workers")
    assert said["memory"].endswith("at most, with its workers")
    assert float(said["money"].split(" ")[0].replace(",", "")) == pytest.approx(two, abs=0.01)


@pytest.mark.parametrize(
    ("count", "batch", "workers", "share"),
    [
        (100, 10, 2, 0.5),  # ten shards of a batch
        (100, 1000, 2, 0.5),  # four shards of 25
        (10, 1000, 4, 0.3),  # four shards, of three at most
        (1, 10, 2, 1.0),
    ],
)
def test_a_job_takes_as_long_as_the_worker_with_most_shards(
    count: int, batch: int, workers: int, share: float
) -> None:
    found = Parallel(workers, threads=1, at_once=workers)
    assert found.share(count, batch) == pytest.approx(share)
    assert Parallel(workers, threads=1, at_once=1).share(count, batch) == 1.0
    assert Parallel().share(count, batch) == 1.0
    assert Parallel().batch(count, batch) == min(count, batch)


def test_the_workers_of_ray_are_those_that_a_local_cluster_would_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(ray_executor, "cores", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    cpu = torch.device("cpu")
    assert parallel_of(RunSettings(executor="ray", device="cpu"), cpu) == Parallel(8, 1, 8.0)
    settings = RunSettings(executor="ray", device="cpu", workers=2)
    assert parallel_of(settings, cpu) == Parallel(2, 4, 2.0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    settings = RunSettings(executor="ray", workers=4, gpus_per_worker=0.5)
    assert parallel_of(settings, torch.device("cuda")) == Parallel(4, 2, 2.0, 2)
