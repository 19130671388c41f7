"""Runs whose shards are computed by worker processes: the answer of one process."""

from __future__ import annotations

import random
from pathlib import Path

import failures
import pytest
from worker_runs import ALL_KINDS, FGSM, MEMBERS, QUICK, assert_same_runs, plug_in, run, suite_of

from gibbon.core.errors import RequestError
from gibbon.core.shard import Shard
from gibbon.records.run import RunRecord
from gibbon.runner import run_shard as run_shard_module
from gibbon.runner import run_suite as run_suite_module
from gibbon.runner.executors import dispatch, open_executor
from gibbon.runner.executors.shard_slices import shard_slices
from gibbon.runner.merge_shards import merge_shards
from gibbon.runner.run_shard import run_shard
from gibbon.runner.settings import RunSettings

ATTACKS = [*ALL_KINDS, {"name": "doomed", "label": "own", "epsilon": "0.1"}]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(tmp_path, monkeypatch)


def test_workers_give_the_answer_of_one_process(tmp_path: Path) -> None:
    suite = suite_of(*ATTACKS, transfer={"attacks": ["fgsm", "pgd"]})
    run(suite, tmp_path / "one", certify="none")
    record = run(suite, tmp_path / "two", workers=2, certify="none")
    assert record.status == "done"
    assert record.survivors
    assert_same_runs(tmp_path / "two", tmp_path / "one")


def test_members_of_lists(tmp_path: Path) -> None:
    """Each attacks the survivors of the one before it."""
    members = {"name": "worst-of", "label": "list", "epsilon": ["0.02", "0.1"], "attacks": MEMBERS}
    errors = suite_of(members, error_only=True)
    run(errors, tmp_path / "errors-one", **QUICK)
    run(errors, tmp_path / "errors-two", workers=2, **QUICK)
    assert_same_runs(tmp_path / "errors-two", tmp_path / "errors-one")


@pytest.mark.slow
def test_candidates_that_wait_for_their_targets_and_isolated_cells(tmp_path: Path) -> None:
    suite = suite_of(FGSM, transfer={"attacks": ["fgsm"]})
    run(suite, tmp_path / "one", **QUICK)
    run(suite, tmp_path / "two", workers=2, models_in_memory=1, isolate=True, **QUICK)
    assert_same_runs(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_a_shard_of_a_run_with_workers(tmp_path: Path) -> None:
    suite = suite_of(FGSM)
    run(suite, tmp_path / "one", **QUICK)
    folders = [tmp_path / "1-of-2", tmp_path / "2-of-2"]
    for index, folder in enumerate(folders, start=1):
        settings = RunSettings(device="cpu", batch_size=5, workers=index, **QUICK)
        run_shard(suite, folder, shard=Shard(index, 2), settings=settings)
    merge_shards(folders, tmp_path / "two", settings=RunSettings(device="cpu"))
    records = [RunRecord.read(tmp_path / name) for name in ("one", "two")]
    assert records[0].evaluations
    assert [row.adversarial_error for row in records[0].evaluations] == [
        row.adversarial_error for row in records[1].evaluations
    ]


def test_what_befalls_workers_changes_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three things at once; `failures` has each kind happen at random moments."""
    monkeypatch.setattr(dispatch, "SLOW_SECONDS", failures.SLOW_SECONDS)
    run(failures.SUITE, tmp_path / "calm", **QUICK)
    scene = failures.Scene(tmp_path / "two", random.Random(0))  # noqa: S311
    progress = scene.run(kill=3, memory=5, other_data=0)
    assert not progress.undone, progress.notes
    assert_same_runs(tmp_path / "two", tmp_path / "calm")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [each for each in failures.KINDS if each != "node-killed"])
def test_troubles_at_random_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(dispatch, "SLOW_SECONDS", failures.SLOW_SECONDS)
    failures.befall(kind, tmp_path, times=20, seed=0)


@pytest.mark.slow
def test_an_attack_that_always_ends_its_worker_fails_alone(tmp_path: Path) -> None:
    suite = suite_of(FGSM, {"name": "ends-it", "epsilon": "0.1"})
    run(suite_of(FGSM), tmp_path / "without", **QUICK)
    record = run(suite, tmp_path / "two", workers=2, **QUICK)
    assert {each.attack for each in record.failures} == {"ends-it"}
    for each in record.failures:
        assert each.raised_by == f"the attack EndsIt, or the model {each.model} that it ran on"
    assert record.failures[0].error.startswith("ProcessEndedError: 3 workers ended that computed")
    done = [each for each in record.evaluations if each.status == "done"]
    expected = RunRecord.read(tmp_path / "without").evaluations
    assert [each.adversarial_error for each in done] == [
        each.adversarial_error for each in expected
    ]


def test_no_worker_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has another version of Gibbon than the run: a sentence, and nothing is computed."""
    monkeypatch.setattr(open_executor, "package_digest", lambda: "0123456789abcdef")
    with pytest.raises(RequestError, match=r"no worker can compute this run: it has another"):
        run(suite_of(FGSM), tmp_path / "run", workers=2, **QUICK)


@pytest.mark.parametrize(("workers", "starts"), [(None, 0), (2, 1)])
def test_the_server_of_workers_starts_before_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None, starts: int
) -> None:
    """It imports torch for seconds, meanwhile."""
    started: list[bool] = []

    def planning(*_: object, **__: object) -> None:
        raise RequestError(f"started {len(started)}")

    monkeypatch.setattr(open_executor, "start_server", lambda: started.append(True))
    monkeypatch.setattr(run_suite_module, "make_plan", planning)
    monkeypatch.setattr(run_shard_module, "make_plan", planning)
    with pytest.raises(RequestError, match=f"^started {starts}$"):
        run(suite_of(FGSM), tmp_path / "run", workers=workers, **QUICK)
    settings = RunSettings(device="cpu", workers=workers)
    with pytest.raises(RequestError, match=f"^started {2 * starts}$"):
        run_shard(suite_of(FGSM), tmp_path / "shard", shard=Shard(1, 2), settings=settings)


@pytest.mark.parametrize("count", [1, 7, 60, 1000])
@pytest.mark.parametrize("batch", [1, 5, 64, 1000])
@pytest.mark.parametrize("workers", [1, 2, 30])
@pytest.mark.parametrize("most", [3, 10_000])
def test_slices_cover_all_examples_once(count: int, batch: int, workers: int, most: int) -> None:
    slices = shard_slices(count, batch=batch, workers=workers, most=most)
    covered = [each for part in slices for each in range(part.start, part.stop)]
    assert covered == list(range(count))
    assert max(part.stop - part.start for part in slices) <= most
