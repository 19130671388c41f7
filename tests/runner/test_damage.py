"""Damaged and lost files of a run: nothing altered is believed, and a run makes them again."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import planted
import pyarrow as pa
import pytest
from same_outcomes import assert_same_outcomes, assert_same_records
from typer.testing import CliRunner

from gibbon.cli.app import app
from gibbon.core.errors import RecordError, RequestError, RunFolderError
from gibbon.gate.baseline import read_side, save_baseline
from gibbon.gate.compare import compare
from gibbon.records.checksums import parquet_bytes
from gibbon.records.examination import EXAMINATIONS
from gibbon.records.outcomes import OUTCOMES, read_table
from gibbon.records.proofs import PROOFS
from gibbon.records.run import RunRecord
from gibbon.report import write_report
from gibbon.report.documents import Document, document, write_figures
from gibbon.report.file_names import EVENTS_FILE
from gibbon.runner.counting import provenance
from gibbon.runner.folder_state.publish import Publish
from gibbon.runner.run_folder import DAMAGED_FILE
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

FGSM = {"name": "fgsm", "epsilon": ["0.05", "0.1", "0.2"]}
SUITE = Suite.model_validate(
    {
        "name": "damaged",
        "dataset": "squares",
        "models": ["one", "two"],
        "attacks": [
            FGSM,
            {"name": "deepfool", "norm": "linf", "epsilon": ["0.05", "0.1"], "steps": 3},
            {"name": "pgd", "epsilon": "0.1", "steps": 2},
        ],
        "transfer": {"attacks": ["fgsm"]},
        "accept": ["preprocessing", "error-at-chance"],
    }
)
LIST = {"name": "worst-of", "epsilon": "0.1", "attacks": [{"name": "fgsm"}, {"name": "noise-sign"}]}


class Notes(list[str]):
    """Sentences for the user, and the numbers of cells that were computed and reused."""

    cells: tuple[int, int] = (-1, -1)

    def note(self, text: str) -> None:
        self.append(text)

    def start(self, *, work: int, cells: int, reused: int) -> None:
        self.cells = (cells, reused)

    def checking(self, examples: int, *, of: int, dataset: str) -> None: ...
    def advance(self, work: int, *, doing: str) -> None: ...
    def failed(self, cell: str, *, error: str) -> None: ...


def plant(patch: pytest.MonkeyPatch) -> None:
    planting = planted.Plant(patch)
    planting.dataset("squares", lambda request: planted.squares())
    planting.model("one", planted.rows(1))
    planting.model("two", planted.rows(2))
    patch.setattr(provenance, "_commit", lambda: ("", None))
    patch.setattr(provenance, "now", lambda: "2026-01-01T00:00:00+00:00")  # as event files say


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)


def run(
    folder: Path, suite: Suite = SUITE, *, publish: Publish | None = None, **settings: Any
) -> tuple[RunRecord, Notes]:
    notes = Notes()
    chosen = RunSettings(**{"device": "cpu", "pictures": True, **settings})
    return run_suite(suite, folder, settings=chosen, progress=notes, publish=publish), notes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        run(folder, publish=write_report)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.is_file())


def kinds(folder: Path) -> list[Path]:
    """One file of each kind in a run's folder."""
    groups = itertools.groupby(
        files(folder), key=lambda each: (each.parent.name[:9], each.suffix, each.name[:5])
    )
    found = {(key[0], key[1]): next(group) for key, group in groups if key[0] != "run"}
    return [*found.values(), *(each for each in files(folder) if each.parent == folder)]


def flipped(content: bytes, draw: random.Random, count: int) -> Iterator[bytes]:
    for _ in range(count if content else 0):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        yield bytes(damaged)


def errors(folder: Path) -> list[Any]:
    side = read_side(folder)
    return [(each.key, each.made_with, each.invalid, each.wrong.tolist()) for each in side.cells]


def test_no_reader_crashes_or_believes_a_flipped_bit(folder: Path, whole: Path) -> None:
    """Bits of each kind of file that is read: every bit of one is tried in other tests."""
    expected, draw = errors(whole), random.Random(1)  # noqa: S311
    text = document(RunRecord.read(whole), whole, Document.MARKDOWN)
    refusals = []
    for file in kinds(folder):
        content = file.read_bytes()
        read = file.suffix in (".json", ".parquet", ".npz", ".csv") and file.parent.name != PROOFS
        for damaged in flipped(content, draw, 2 if read else 0):
            file.write_bytes(damaged)
            try:
                assert errors(folder) == expected
                record = RunRecord.read(folder)
                assert document(record, folder, Document.MARKDOWN) == text
                document(record, folder, Document.HTML)
                save_baseline(folder, folder.parent / "b.json")
            except RecordError as error:
                refusals.append(str(error))
        file.write_bytes(content)
    assert len(refusals) > 2
    assert all("damaged" in each or "run.json" in each for each in refusals), refusals


@pytest.mark.parametrize("each_way", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_makes_every_kind_of_file_again(
    folder: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, each_way: bool
) -> None:
    """A file of each kind is damaged or, for every second kind, removed; or each is both."""
    expected, draw, redrawn = RunRecord.read(whole), random.Random(2), []  # noqa: S311
    # Drawing figures takes long: here it is enough that they would be drawn.
    tensorboard = "gibbon.report.tensorboard.writer.write_tensorboard"
    monkeypatch.setattr(tensorboard, lambda record, at, **_: redrawn.append(at))
    for number, file in enumerate(kinds(folder)):
        content = file.read_bytes()
        name = file.relative_to(folder).as_posix()
        stored = name.partition("/")[0] in (OUTCOMES, PROOFS, EXAMINATIONS)
        (damaged,) = flipped(content, draw, 1) if content else (b"x",)
        ways = (damaged, None) if each_way else (damaged if number % 2 else None,)
        for changed in ways:
            if changed is None:
                file.unlink()
            else:
                file.write_bytes(changed)
            redrawn.clear()
            repair = name == "run.json"
            record, notes = run(folder, repair=repair, publish=write_report)
            assert record.status == "done", name
            assert_same_records(record, expected)
            assert any(name in note for note in notes) == stored, (name, notes)
            if file.name == EVENTS_FILE:
                assert redrawn, name
                file.write_bytes(content)
            assert file.exists(), name
            if file.suffix in (".csv", ".md"):
                assert file.read_bytes() == content, name
    assert_same_outcomes(folder, whole)


@pytest.mark.parametrize("place", [0, 1, 2, 4, 6, 9])
def test_a_lost_cell_is_computed_again_with_the_same_passes(
    folder: Path, whole: Path, place: int
) -> None:
    expected = RunRecord.read(whole)
    row = expected.evaluations[place % len(expected.evaluations)]
    (folder / OUTCOMES / f"{row.digest}.parquet").unlink()
    record, notes = run(folder)
    assert notes.cells == (1, len(expected.evaluations) - 1)
    (said,) = [note for note in notes if "computed again" in note]
    assert f"1 stored result is computed again: {OUTCOMES}/{row.digest}.parquet" in said
    assert "is missing" in said
    assert_same_records(record, expected)  # forward and backward passes, too
    assert_same_outcomes(folder, whole)


@pytest.mark.parametrize("lost", list(itertools.combinations(range(4), 2)), ids=str)
@pytest.mark.parametrize(
    "attack", [FGSM, FGSM | {"carried": True}, FGSM | {"name": "pgd", "steps": 2}]
)
def test_several_lost_cells_of_an_attack_book_the_same_passes(
    tmp_path: Path, attack: dict[str, Any], lost: tuple[int, ...]
) -> None:
    suite = Suite.model_validate(
        {"name": "few", "dataset": "squares", "models": ["one"], "attacks": [attack]}
    )
    expected, _ = run(tmp_path, suite, pictures=False, examination=False)
    for place in lost:
        (tmp_path / OUTCOMES / f"{expected.evaluations[place].digest}.parquet").unlink()
    record, notes = run(tmp_path, suite, pictures=False, examination=False)
    assert notes.cells == (2, 2)
    assert_same_records(record, expected)


def test_a_lost_member_of_a_list_is_computed_again(tmp_path: Path) -> None:
    suite = Suite.model_validate(
        {
            "name": "list",
            "dataset": "squares",
            "models": ["one"],
            "attacks": [LIST],
            "error_only": True,
        }
    )
    expected, _ = run(tmp_path, suite)
    names = {row.digest for row in expected.evaluations}
    (member,) = [each for each in (tmp_path / OUTCOMES).iterdir() if each.stem not in names]
    member.unlink()
    record, notes = run(tmp_path, suite)
    assert any(member.stem in note for note in notes)
    assert member.exists()
    assert_same_records(record, expected)


def test_an_outcome_that_cannot_be_read_back_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that loses what was written, as soon as it was written."""
    from gibbon.runner.run_folder import RunFolder

    write = RunFolder.write

    def losing(folder: RunFolder, digest: str, outcome: Any) -> None:
        write(folder, digest, outcome)
        if outcome.path is not None and "fgsm at epsilon 0.1" in outcome.meta.cell:
            (folder.outcomes / f"{digest}.parquet").write_bytes(b"")

    monkeypatch.setattr(RunFolder, "write", losing)
    record, _ = run(tmp_path)
    assert record.status == "failed"
    lost = [each for each in record.failures if each.attack == "fgsm"]
    assert {(each.model, str(each.epsilon)) for each in lost} == {("one", "0.1"), ("two", "0.1")}
    assert len(lost) == 2
    assert "run the suite again" in lost[0].error
    failed = [row for row in record.evaluations if row.status == "failed"]
    assert {(row.model, str(row.epsilon)) for row in failed} == {("one", "0.1"), ("two", "0.1")}


def _set(table: pa.Table, name: str, change: Callable[[Any], Any]) -> pa.Table:
    at = table.column_names.index(name)
    return table.set_column(at, name, pa.array(change(table.column(name).to_pylist())))


ALTERED: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "fewer": (lambda table: table.slice(1), "other examples"),
    "another order": (
        lambda table: table.take(list(range(table.num_rows))[::-1]),
        "other examples",
    ),
    "twice": (lambda table: pa.concat_tables([table, table]), "one comes twice"),
    "of another cell": (
        lambda table: _set(table, "example_id", lambda ids: [each + 1 for each in ids]),
        "other examples",
    ),
    "texts": (lambda table: _set(table, "predicted", lambda old: ["a"] * len(old)), "is damaged"),
    "a null": (
        lambda table: _set(table, "confidence", lambda old: [None, *old[1:]]),
        "lacks values of confidence",
    ),
    "beyond the type": (
        lambda table: _set(table, "label", lambda old: [2**40, *old[1:]]),
        "is damaged",
    ),
}


@pytest.mark.parametrize("change", ALTERED)
def test_an_outcome_whose_rows_are_not_those_of_the_cell_is_computed_again(
    folder: Path, whole: Path, change: str
) -> None:
    """Files that were rewritten on purpose: their checksums match."""
    alter, reason = ALTERED[change]
    file = max((folder / OUTCOMES).iterdir())
    file.write_bytes(parquet_bytes(alter(read_table(file).table)))
    record, notes = run(folder)
    assert any(file.stem in note and reason in note for note in notes), notes
    assert_same_records(record, RunRecord.read(whole))


def test_proofs_of_other_examples_are_computed_again(folder: Path, whole: Path) -> None:
    proofs = folder / PROOFS
    for file in proofs.iterdir():
        file.write_bytes(parquet_bytes(read_table(file).table.slice(1)))
    record, notes = run(folder)
    assert sum(PROOFS in note and "other examples" in note for note in notes) == 1
    assert_same_records(record, RunRecord.read(whole))


def test_report_says_what_is_missing(folder: Path) -> None:
    outcomes = sorted((folder / OUTCOMES).iterdir())
    outcomes[0].unlink()
    outcomes[1].write_bytes(outcomes[1].read_bytes()[:-1])
    done = CliRunner().invoke(app, ["report", str(folder), "--markdown"])
    assert done.exit_code == 0, done.output
    assert f"2 of {len(outcomes)} outcomes are missing or damaged" in done.stderr
    assert outcomes[0].stem in done.stderr
    shutil.rmtree(folder / OUTCOMES)
    done = CliRunner().invoke(app, ["report", str(folder), "--markdown"])
    assert f"{len(outcomes)} of {len(outcomes)} outcomes are missing" in done.stderr


def test_a_damaged_record_is_made_again_from_the_outcomes(folder: Path, whole: Path) -> None:
    expected = RunRecord.read(whole)
    (folder / "run.json").write_bytes(b"\0" * 100)
    with pytest.raises(
        RunFolderError, match=r"make run\.json again from the outcomes with --repair"
    ):
        run(folder)
    record, notes = run(folder, repair=True)
    assert notes.cells == (0, len(expected.evaluations))  # nothing is computed
    assert_same_records(record, expected)
    assert (folder / DAMAGED_FILE).read_bytes() == b"\0" * 100
    (folder / "run.json").unlink()
    with pytest.raises(RunFolderError, match=r"but no run.json: .*--repair"):
        run(folder)
    assert run(folder, repair=True)[1].cells[0] == 0


def test_a_repair_takes_over_no_folder_of_another_suite(folder: Path) -> None:
    other = SUITE.model_copy(update={"name": "other"})
    with pytest.raises(RunFolderError, match="belongs to suite 'damaged'"):
        run(folder, other, repair=True)


def test_an_altered_number_in_a_record_is_noticed(folder: Path) -> None:
    path = folder / "run.json"
    text = path.read_text()
    path.write_text(text.replace('"examples": 60', '"examples": 61', 1))
    for read in (RunRecord.read, read_side):
        with pytest.raises(RecordError, match="damaged: its content does not match its checksum"):
            read(folder)
    path.write_bytes(text.replace("\n", "\r\n").encode())  # as git may write it
    assert RunRecord.read(folder).status == "done"


def test_a_lost_examination_comes_from_the_record(folder: Path, whole: Path) -> None:
    """Its checks at candidates can't be repeated without attacking again."""
    before = RunRecord.read(whole)
    shutil.rmtree(folder / EXAMINATIONS)
    record, _ = run(folder)
    assert record.examinations == before.examinations
    assert len(list((folder / EXAMINATIONS).iterdir())) == len(record.examinations)


def test_a_fifo_in_the_place_of_a_file_is_damage(folder: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes")
    outcome = next((folder / OUTCOMES).iterdir())
    outcome.unlink()
    os.mkfifo(outcome)
    with pytest.raises(RecordError, match="missing or damaged"):
        read_side(folder)
    assert run(folder)[1].cells[0] == 1


def state(folder: Path) -> dict[Path, tuple[int, int]]:
    skipped = ("run.json", ".gibbon.inputs.json", ".gibbon.lock")
    return {
        each: (each.stat().st_mtime_ns, each.stat().st_ino)
        for each in files(folder)
        if each.name not in skipped
    }


def test_a_finished_run_leaves_its_files_alone(folder: Path, monkeypatch: Any) -> None:
    before = state(folder)

    def forbidden(*_: object, **__: object) -> Any:
        raise AssertionError("it was counted again")

    monkeypatch.setattr("gibbon.runner.counting.complete_record.make_record", forbidden)
    monkeypatch.setattr("gibbon.report.tensorboard.writer.write_tensorboard", forbidden)
    record, notes = run(folder, publish=write_report)
    assert notes.cells == (0, len(record.evaluations))
    assert record.provenance.reused_cells == len(record.evaluations)
    assert state(folder) == before


CHANGES: dict[str, Callable[[Suite], Suite]] = {
    "title": lambda suite: suite.model_copy(update={"title": "Another title"}),
    "accept": lambda suite: suite.model_copy(update={"accept": ("preprocessing",)}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_record_is_made_from_is_noticed(folder: Path, change: str) -> None:
    suite = CHANGES[change](SUITE)
    record, notes = run(folder, suite)
    assert notes.cells[0] == 0
    assert record.suite == suite
    assert RunRecord.read(folder).suite == suite


def test_a_run_that_is_not_finished_is_no_record_to_compare_with(
    folder: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a new one nor one of a folder that was finished, and is computed further."""

    class Killed(BaseException):
        pass

    def killed(*_: object) -> Any:
        raise Killed

    more = SUITE.experiments[0].attacks[0].model_copy(update={"epsilon": (), "label": "more"})
    more = more.model_copy(update={"epsilon": SUITE.experiments[0].attacks[0].epsilon[:1]})
    (experiment,) = SUITE.experiments
    larger = experiment.model_copy(update={"attacks": (*experiment.attacks, more)})
    suite = SUITE.model_copy(update={"experiments": (larger,)})
    monkeypatch.setattr("gibbon.runner.compute.run_jobs", killed)
    for place, settings in ((folder, {"fresh": True}), (folder.parent / "new", {})):
        with pytest.raises(Killed):
            run(place, suite if place != folder else SUITE, **settings)
        assert RunRecord.read(place).status == "running"
        for judge in (lambda at: compare(at, whole), lambda at: compare(whole, at), read_side):
            with pytest.raises(RecordError, match=r"not finished \(running\)"):
                judge(place)
        with pytest.raises(RequestError, match="not finished"):
            save_baseline(place, folder.parent / "b.json")
    monkeypatch.undo()
    plant(monkeypatch)
    record, _ = run(folder)
    assert record.status == "done"
    assert compare(whole, folder).passed


def test_figures_of_a_damaged_folder_are_drawn_or_refused(folder: Path, tmp_path: Path) -> None:
    for file in (folder / OUTCOMES).iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert write_figures(RunRecord.read(folder), folder, tmp_path / "figures")
