"""The folder of a run: what is written comes back, and what is damaged is not believed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gibbon.core.errors import RunFolderError
from gibbon.records.outcomes import (
    OUTCOME_FORMAT,
    UNCHECKED_FORMAT,
    Outcome,
    OutcomeMeta,
    TargetOutcome,
)
from gibbon.records.run import RunRecord
from gibbon.runner.run_folder import LOCK_FILE, RunFolder
from gibbon.specs.suite import Suite

CELL, JOB = "c" * 32, "j" * 16
floats = st.floats(width=32)
flags = st.booleans()
few = settings(max_examples=30, deadline=None)
NAMES = ["one", "two", "drei"]


@st.composite
def outcomes(draw: st.DrawFn, size: int | None = None) -> Outcome:
    count = size if size is not None else draw(st.integers(1, 12))

    def column(kind: Any, elements: st.SearchStrategy[Any]) -> np.ndarray[Any, Any]:
        return draw(arrays(kind, count, elements=elements))

    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    targets = {f"digest of {name}": name for name in names}
    meta = OutcomeMeta(
        cell="a cell",
        forward_passes=draw(st.integers(0, 10**9)),
        backward_passes=draw(st.integers(0, 10**9)),
        seconds=draw(st.floats(0, 1e6)),
        targets=targets,
        target_errors=draw(st.dictionaries(st.text(), st.text(), max_size=2)),
    )
    return Outcome(
        example_id=draw(arrays(np.int64, count, elements=st.integers(0, 2**62), unique=True)),
        label=column(np.int32, st.integers(0, 9)),
        verdict=column(np.int8, st.integers(0, 3)),
        distance=column(np.float32, floats),
        any_misclassified=column(np.bool_, flags),
        saturated=draw(st.none() | arrays(np.bool_, count, elements=flags)),
        zero_gradient=draw(st.none() | arrays(np.bool_, count, elements=flags)),
        scores={
            digest: TargetOutcome(
                column(np.int32, st.integers(0, 9)), column(np.float32, st.floats(0, 1, width=32))
            )
            for digest in targets
        },
        meta=meta,
        nearest=draw(st.none() | arrays(np.float32, count, elements=floats)),
        misled_by=draw(st.none() | arrays(np.int16, count, elements=st.integers(-1, 9))),
    )


def assert_same(one: Outcome, other: Outcome) -> None:
    for name in ("example_id", "label", "verdict", "distance", "any_misclassified"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)
    for name in ("saturated", "zero_gradient", "nearest", "misled_by"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            np.testing.assert_array_equal(mine, theirs, strict=True)
    assert set(one.scores) == set(other.scores)
    for digest, answers in one.scores.items():
        theirs = other.scores[digest]
        np.testing.assert_array_equal(answers.predicted, theirs.predicted, strict=True)
        np.testing.assert_array_equal(answers.confidence, theirs.confidence, strict=True)
    assert one.meta.model_copy(update={"digest": ""}) == other.meta.model_copy(
        update={"digest": ""}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with RunFolder.open(tmp_path_factory.mktemp("store"), suite="any") as opened:
        yield opened


@few
@given(outcome=outcomes())
def test_an_outcome_survives_the_round_trip(folder: RunFolder, outcome: Outcome) -> None:
    folder.write(CELL, outcome)
    read = folder.read(CELL)
    assert read is not None
    assert_same(read, outcome)


@few
@given(data=st.data())
def test_unfinished_outcomes_survive_the_round_trip(folder: RunFolder, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    saved = {f"cell {place}": data.draw(outcomes(count)) for place in range(3)}
    folder.write_partial(JOB, saved)
    read = folder.read_partial(JOB, saved)
    assert list(read) == list(saved)
    for digest, outcome in saved.items():
        assert_same(read[digest], outcome)


@few
@given(data=st.data())
def test_joining_batches_is_associative(data: st.DataObject) -> None:
    first, second, third = (data.draw(outcomes()) for _ in range(3))
    one = first.then(second).then(third)
    other = first.then(second.then(third))
    seconds = {"seconds": 0.0}
    assert_same(
        replace(one, meta=one.meta.model_copy(update=seconds)),
        replace(other, meta=other.meta.model_copy(update=seconds)),
    )
    assert len(one.example_id) == sum(len(each.example_id) for each in (first, second, third))
    assert set(one.meta.targets) == set(one.scores)


@few
@given(data=st.data())
def test_distances_and_tries_go_where_their_examples_go(data: st.DataObject) -> None:
    first, second = data.draw(outcomes()), data.draw(outcomes())
    joined = first.then(second)
    both = first.nearest is not None and second.nearest is not None
    assert (joined.nearest is not None) == both
    np.testing.assert_array_equal(
        joined.first_misled, np.concatenate([first.first_misled, second.first_misled])
    )
    kept = first.only([]).with_targets({}, second.only([]).meta)
    assert kept.nearest is first.nearest
    assert kept.misled_by is first.misled_by


def test_columns_that_do_not_apply_are_not_in_the_file(folder: RunFolder) -> None:
    folder.write(CELL, plain())
    names = pq.read_schema(folder.outcomes / f"{CELL}.parquet").names
    assert not {"nearest_distance", "misled_by"} & set(names)


def test_an_example_without_an_adversarial_one_is_not_a_null(folder: RunFolder) -> None:
    nothing = np.full(40, np.nan, dtype=np.float32)
    folder.write(CELL, replace(plain(), nearest=nothing))
    column = pq.read_table(folder.outcomes / f"{CELL}.parquet").column("nearest_distance")
    assert column.null_count == 0
    read = folder.read(CELL)
    assert read is not None
    assert read.nearest is not None
    assert np.isnan(read.nearest).all()


def test_of_several_cells_only_those_asked_for_are_given_back(folder: RunFolder) -> None:
    folder.write_partial(JOB, {"a": plain(), "b": plain()})
    assert folder.read_partial(JOB, ["a"]) == {}
    assert folder.read_partial(JOB, ["a", "b", "c"]) == {}
    assert folder.read_partial("another job", ["a", "b"]) == {}


def plain(count: int = 40, targets: Mapping[str, str] | None = None) -> Outcome:
    names = targets or {"digest of one": "one"}
    random = np.random.default_rng(0)
    return Outcome(
        example_id=np.arange(count, dtype=np.int64),
        label=random.integers(0, 9, count).astype(np.int32),
        verdict=np.zeros(count, np.int8),
        distance=random.random(count, np.float32),
        any_misclassified=random.random(count) > 0.5,
        saturated=None,
        zero_gradient=None,
        scores={
            digest: TargetOutcome(
                random.integers(0, 9, count).astype(np.int32), random.random(count, np.float32)
            )
            for digest in names
        },
        meta=OutcomeMeta(cell="a cell", targets=dict(names)),
    )


def test_a_truncated_file_is_not_used(folder: RunFolder) -> None:
    folder.write(CELL, plain())
    path = folder.outcomes / f"{CELL}.parquet"
    content = path.read_bytes()
    for length in (0, 1, 4, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert folder.read(CELL) is None


def test_no_flipped_bit_is_believed(folder: RunFolder) -> None:
    """A bit of each byte: of the pages and of the footer, which holds names, passes and seconds."""
    folder.write(CELL, plain())
    path = folder.outcomes / f"{CELL}.parquet"
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        assert folder.read(CELL) is None, place


def test_an_outcome_of_the_format_before_checksums_is_read(folder: RunFolder) -> None:
    folder.write(CELL, plain())
    path = folder.outcomes / f"{CELL}.parquet"
    table = pq.read_table(path)
    meta = OutcomeMeta.model_validate_json(table.schema.metadata[b"gibbon"])
    earlier = meta.model_copy(update={"format": UNCHECKED_FORMAT})
    written = {"gibbon": earlier.model_dump_json()}
    pq.write_table(table.replace_schema_metadata(written), path)
    read = folder.read(CELL)
    assert read is not None
    folder.write(CELL, read)  # with a checksum from now on
    assert b"gibbon-checksum" in path.read_bytes()
    again = folder.read(CELL)
    assert again is not None
    assert again.meta.format == OUTCOME_FORMAT
    # Without its checksum a file of today's format is not taken for one of the earlier format.
    pq.write_table(table.replace_schema_metadata({"gibbon": meta.model_dump_json()}), path)
    assert folder.read(CELL) is None


def test_a_file_of_something_else_is_not_used(folder: RunFolder) -> None:
    path = folder.outcomes / f"{CELL}.parquet"
    table = pa.table({"a": [1, 2]})
    pq.write_table(table, path)
    assert folder.read(CELL) is None
    meta = OutcomeMeta(digest=CELL).model_dump_json()
    pq.write_table(table.replace_schema_metadata({"gibbon": meta}), path)
    assert folder.read(CELL) is None
    path.write_text("not parquet at all")
    assert folder.read(CELL) is None


def test_a_file_under_the_name_of_another_cell_is_not_used(folder: RunFolder) -> None:
    folder.write(CELL, plain())
    other = "d" * 32
    (folder.outcomes / f"{other}.parquet").write_bytes(
        (folder.outcomes / f"{CELL}.parquet").read_bytes()
    )
    assert folder.read(other) is None
    assert folder.read(CELL) is not None


def test_a_file_of_another_format_is_not_used(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write(CELL, plain())
    folder.write_partial(JOB, {CELL: plain()})
    for module in ("gibbon.records.outcomes", "gibbon.runner.run_folder"):
        monkeypatch.setattr(f"{module}.OUTCOME_FORMAT", 99)
    assert folder.read(CELL) is None
    assert folder.read_partial(JOB, [CELL]) == {}


def test_a_write_that_fails_leaves_the_old_file(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = plain()
    folder.write(CELL, outcome)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunFolderError, match=r"can't be written: No space left on device"):
            folder.write(CELL, plain(3))
    read = folder.read(CELL)
    assert read is not None
    assert_same(read, outcome)
    assert not list(folder.outcomes.glob(".*.tmp"))


def test_nothing_stands_under_its_name_before_it_is_whole(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        there = sorted(each.name for each in folder.outcomes.glob("*fresh*"))
        seen.append(there)

    monkeypatch.setattr(os, "fsync", watched)
    folder.write("fresh", plain())
    assert seen == [[".fresh.parquet.tmp"]]
    assert (folder.outcomes / "fresh.parquet").exists()


def test_what_a_killed_run_left_half_written_is_cleared(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, suite="any") as folder:
        folder.write(CELL, plain())
        half = folder.outcomes / ".x.parquet.tmp"
        half.write_text("half")
        claim(folder.path, "any")
    with RunFolder.open(tmp_path, suite="any") as folder:
        assert not half.exists()
        assert folder.read(CELL) is not None


def test_folders_may_be_called_anything(tmp_path: Path) -> None:
    path = tmp_path / "label=3" / "with a space" / "naïve'"
    with RunFolder.open(path, suite="any") as folder:
        folder.write(CELL, plain())
        assert folder.read(CELL) is not None


def test_two_versions_of_a_model_are_told_apart(folder: RunFolder) -> None:
    outcome = plain(5, {"old digest": "one", "new digest": "one"})
    folder.write(CELL, outcome)
    read = folder.read(CELL)
    assert read is not None
    assert_same(read, outcome)


def test_the_parquet_file_reads_by_itself(folder: RunFolder) -> None:
    """A user with pandas alone sees one row an example and target, by name."""
    folder.write(CELL, plain(4, {"d1": "one", "d2": "two"}))
    frame = pq.read_table(folder.outcomes / f"{CELL}.parquet").to_pandas()
    assert frame["target"].tolist() == ["one"] * 4 + ["two"] * 4
    assert frame["example_id"].tolist() == [0, 1, 2, 3] * 2
    wrong = (frame["predicted"] != frame["label"]) & (frame["verdict"] == 0)
    assert (frame["misclassified"] == wrong).all()


def claim(path: Path, name: str) -> None:
    suite = Suite.model_validate({"name": name, "dataset": "squares", "models": ["one"]})
    record = RunRecord.model_validate(
        {
            "suite": suite,
            "status": "done",
            "provenance": {
                "gibbon": "",
                "commit": "",
                "dirty": None,
                "python": "",
                "libraries": {},
                "platform": "",
                "device": "cpu",
                "threads": 1,
                "batch_size": 1,
                "limit": None,
                "started": "",
            },
        }
    )
    record.write(path)


def everything(path: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()
    }


def refused(path: Path, suite: str = "mine") -> str:
    with pytest.raises(RunFolderError) as caught, RunFolder.open(path, suite=suite):
        pass
    return str(caught.value)


def test_a_folder_of_another_suite_is_refused_and_left_alone(tmp_path: Path) -> None:
    claim(tmp_path, "theirs")
    before = everything(tmp_path)
    assert refused(tmp_path) == (
        f"{tmp_path}: belongs to suite 'theirs', not to 'mine'; choose another folder with --output"
    )
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["evaluations.csv", "transfer.csv", "tables.md", "tensorboard", "outcomes"]
)
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("theirs")
    assert f"holds {name} but no run.json" in refused(tmp_path)
    assert everything(tmp_path) == {name: b"theirs"}


def test_a_folder_with_other_files_is_used_and_they_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".lock").write_text("somebody else's")
    with RunFolder.open(tmp_path, suite="mine"):
        pass
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / ".lock").read_text() == "somebody else's"


def test_a_damaged_record_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    assert "run.json: damaged: not JSON" in refused(tmp_path)
    assert everything(tmp_path) == {"run.json": b"{"}


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    assert refused(path) == f"{path}: is a file, expected a folder"
    assert refused(path / "run") == f"{path / 'run'}: can't be written: Not a directory"
    assert path.read_text() == "mine"


def test_a_file_in_the_place_of_the_outcomes_is_refused(tmp_path: Path) -> None:
    claim(tmp_path, "mine")
    (tmp_path / "outcomes").write_text("x")
    with RunFolder.open(tmp_path, suite="mine") as folder:
        assert folder.read(CELL) is None
        with pytest.raises(RunFolderError, match=r"can't be written: File exists"):
            folder.write(CELL, plain())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        try:
            (tmp_path / "probe").touch()
        except PermissionError:
            assert "can't be written: Permission denied" in refused(tmp_path / "run")
            assert "can't be written: Permission denied" in refused(tmp_path)
        else:
            pytest.skip("this user may write everywhere")
    finally:
        tmp_path.chmod(0o700)


def test_a_run_that_was_killed_at_once_leaves_no_foreign_folder(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, suite="mine"):
        pass
    with RunFolder.open(tmp_path, suite="mine") as folder:
        assert folder.read(CELL) is None


def test_a_second_run_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, suite="mine") as first:
        first.write(CELL, plain())
        claim(tmp_path, "mine")
        assert refused(tmp_path) == f"{tmp_path}: another run is using this folder"
        first.write(CELL, plain(3))
    with RunFolder.open(tmp_path, suite="mine") as again:
        read = again.read(CELL)
        assert read is not None
        assert len(read.example_id) == 3


def test_a_lock_that_a_killed_run_left_is_free(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, signal\n"
        "from gibbon.runner.run_folder import RunFolder\n"
        f"with RunFolder.open(pathlib.Path({str(tmp_path / 'run')!r}), suite='mine'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    claim(tmp_path / "run", "mine")
    assert (tmp_path / "run" / LOCK_FILE).exists()
    with RunFolder.open(tmp_path / "run", suite="mine"):
        pass
