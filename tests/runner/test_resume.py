"""A run that is killed or interrupted, and goes on, ends with the same tables."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import doomed
import planted
import pytest
from same_outcomes import assert_same_outcomes, assert_same_records, assert_same_tables

from gibbon.records.run import RunRecord
from gibbon.report import write_report
from gibbon.runner.run_folder import CANDIDATES
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings

TABLES = ("evaluations.csv", "transfer.csv", "worst_case.csv", "agreement.csv", "tables.md")
NEVER, ALWAYS = 1e9, 0.0  # seconds between two savings
KILLED, INTERRUPTED = -9, 130


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        doomed.plant(patch)
        return finished(tmp_path_factory.mktemp("whole"))


def finished(folder: Path, save_every: float = NEVER) -> Path:
    go_on(folder, save_every)
    return folder


def go_on(folder: Path, save_every: float = NEVER, *, places: int = 2) -> RunRecord:
    return run_suite(
        doomed.SUITE, folder, settings=doomed.settings(save_every, places), publish=write_report
    )


def die(
    folder: Path,
    moment: int,
    *,
    name: str = "SIGKILL",
    save_every: float = NEVER,
    places: int = 2,
) -> int:
    options = [str(folder), str(moment), name, str(save_every), str(places)]
    command = [sys.executable, doomed.__file__, *options]
    path = os.pathsep.join([str(Path(planted.__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, check=False, capture_output=True, timeout=120, env=environment)
    return done.returncode


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    doomed.plant(monkeypatch)


def moments(seed: int, count: int, below: int) -> list[int]:
    return sorted(random.Random(seed).sample(range(1, below), count))  # noqa: S311


LIVED = 80  # moments that a whole run lives through, at least


@pytest.mark.slow
def test_there_are_as_many_moments_as_the_tests_take(tmp_path: Path) -> None:
    assert die(tmp_path, LIVED, save_every=ALWAYS) == KILLED


@pytest.mark.slow
@pytest.mark.parametrize("moment", moments(seed=1, count=12, below=LIVED))
@pytest.mark.parametrize("save_every", [NEVER, ALWAYS], ids=["unsaved", "saved"])
def test_killed_at_some_moment(whole: Path, tmp_path: Path, moment: int, save_every: float) -> None:
    assert die(tmp_path, moment, save_every=save_every) in (KILLED, 0)
    go_on(tmp_path, save_every)
    assert_same_tables(tmp_path, whole, *TABLES)


@pytest.mark.slow
@pytest.mark.parametrize("moment", moments(seed=2, count=8, below=LIVED))
@pytest.mark.parametrize("then", [1, 2])
def test_killed_while_models_come_in_turns(
    whole: Path, tmp_path: Path, moment: int, then: int
) -> None:
    assert die(tmp_path, moment, places=1) in (KILLED, 0)
    go_on(tmp_path, places=then)
    assert_same_tables(tmp_path, whole, *TABLES)
    assert not (tmp_path / CANDIDATES).exists()


def test_killed_and_interrupted(whole: Path, tmp_path: Path) -> None:
    assert die(tmp_path, 8, save_every=ALWAYS) == KILLED
    assert die(tmp_path, 17, name="SIGINT", save_every=ALWAYS) == INTERRUPTED
    go_on(tmp_path)
    assert_same_tables(tmp_path, whole, *TABLES)


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(7, 26))
def test_killed_between_any_two_files_of_a_job(whole: Path, tmp_path: Path, moment: int) -> None:
    """The passes of a job that was filed in part are booked as if nothing had happened."""
    die(tmp_path, moment)
    go_on(tmp_path)
    assert_same_tables(tmp_path, whole, *TABLES)


@pytest.mark.parametrize("after", [1, 3, 4, 5])
def test_what_ctrl_c_interrupts_is_saved_and_gone_on_with(
    plant: planted.Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """An interrupted job goes on after its last whole batch, and saves nothing half done."""
    suite = doomed.Suite.model_validate(
        {
            "name": "interrupted",
            "dataset": "squares",
            "models": ["one"],
            "attacks": [{"name": "interrupts", "epsilon": ["0.1", "0.2"]}],
        }
    )
    run_settings = RunSettings(device="cpu", examination=False, batch_size=20)
    expected = run_suite(suite, tmp_path / "whole", settings=run_settings)
    monkeypatch.setattr(planted.INTERRUPTS, "asked", [])
    monkeypatch.setattr(planted.INTERRUPTS, "after", after)
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, tmp_path / "cut", settings=run_settings)
    whole_batches = (after - 1) // 2  # two epsilons a batch
    saved = list((tmp_path / "cut").glob("outcomes/*.partial.parquet"))
    assert len(saved) == (whole_batches > 0)
    monkeypatch.setattr(planted.INTERRUPTS, "after", 0)
    planted.INTERRUPTS.asked.clear()
    record = run_suite(suite, tmp_path / "cut", settings=run_settings)
    assert planted.INTERRUPTS.asked == [20, 20] * (3 - whole_batches)
    assert not list((tmp_path / "cut").glob("outcomes/*.partial.parquet"))
    assert_same_records(expected, record)
    assert_same_outcomes(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_a_damaged_saving_is_not_gone_on_with(whole: Path, tmp_path: Path) -> None:
    assert die(tmp_path, 8, save_every=ALWAYS) == KILLED
    saved = list(tmp_path.glob("outcomes/*.partial.parquet"))
    assert saved
    for file in saved:
        file.write_bytes(file.read_bytes()[:-10])
    go_on(tmp_path)
    assert_same_tables(tmp_path, whole, *TABLES)
    assert not list(tmp_path.glob("outcomes/*.partial.parquet"))


@pytest.mark.slow
def test_another_batch_size_goes_on_where_it_stopped(whole: Path, tmp_path: Path) -> None:
    assert die(tmp_path, 8, save_every=ALWAYS) == KILLED
    record = run_suite(
        doomed.SUITE, tmp_path, settings=RunSettings(device="cpu", examination=False, batch_size=7)
    )
    assert_same_records(RunRecord.read(whole), record)
    assert_same_outcomes(whole, tmp_path)
