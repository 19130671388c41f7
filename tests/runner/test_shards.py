"""Shards of a run, and their merge: the same folder as that of one run."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import doomed
import numpy as np
import planted
import pytest
import torch
from pydantic.dataclasses import dataclass as checked
from same_outcomes import (
    assert_same,
    assert_same_folders,
    assert_same_outcomes,
    assert_same_records,
)
from torch import Tensor
from typer.testing import CliRunner
from worker_runs import ALL_KINDS, TABLES

from gibbon.attacks.base import STRICT
from gibbon.cli.app import app, main
from gibbon.core.errors import IncompleteError, RecordError, RunFolderError, SpecError
from gibbon.core.shard import Shard
from gibbon.core.threat import ThreatModel
from gibbon.datasets.array_dataset import HeldDataset
from gibbon.datasets.iterable_dataset import store_stream
from gibbon.gate.baseline import save_baseline
from gibbon.gate.compare import compare
from gibbon.records.no_class_answers import NO_CLASS, NoClassAnswers, read_answers
from gibbon.records.outcomes import OUTCOMES
from gibbon.records.proofs import PROOFS, read_proofs
from gibbon.records.run import RunRecord
from gibbon.report import write_report
from gibbon.runner.executors import in_process
from gibbon.runner.merge_shards import merge_shards
from gibbon.runner.run_shard import run_shard
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

ROWS = (
    *("evaluations", "transfers", "agreements", "worst_cases", "members", "comparisons", "seeds"),
    *("bounds", "no_class", "no_class_shares", "fooling", "failures", "flags", "checks"),
    *("examinations", "survivors", "models", "datasets"),
)
ATTACKS = [*ALL_KINDS, {"name": "noise-uniform", "epsilon": "0.2"}]
Order = Callable[[list[int]], list[int]]


def suite_of(*attacks: dict[str, Any], **more: Any) -> Suite:
    written = {
        "name": "shards",
        "dataset": "squares",
        "models": ["one", "two"],
        "attacks": list(attacks or ATTACKS),
        "transfer": {"attacks": ["fgsm", "pgd"]} if not attacks else None,
        **more,
    }
    return Suite.model_validate({key: each for key, each in written.items() if each is not None})


def settings(**more: Any) -> RunSettings:
    return RunSettings(**{"device": "cpu", "batch_size": 16, **more})


@pytest.fixture(autouse=True)
def planting(monkeypatch: pytest.MonkeyPatch) -> planted.Plant:
    return doomed.plant(monkeypatch)


def shards_of(
    suite: Suite,
    folder: Path,
    count: int,
    *,
    order: Callable[[list[int]], list[int]] = list,
    **more: Any,
) -> list[Path]:
    """Runs all shards of a suite, and returns their folders."""
    paths = []
    for index in order(list(range(1, count + 1))):
        paths.append(folder / f"{index}-of-{count}")
        run_shard(suite, paths[-1], shard=Shard(index, count), settings=settings(**more))
    return paths


def merged(folders: list[Path], output: Path, **more: Any) -> RunRecord:
    return merge_shards(folders, output, settings=settings(**more), publish=write_report)


def whole(suite: Suite, folder: Path, **more: Any) -> RunRecord:
    return run_suite(suite, folder, settings=settings(**more), publish=write_report)


def assert_same_runs(one: Path, other: Path) -> None:
    assert_same_folders(one, other, rows=ROWS, tables=TABLES)
    names = [{each.relative_to(path).as_posix() for each in files(path)} for path in (one, other)]
    assert names[0] == names[1]
    for file in (one / PROOFS).glob("*.parquet"):
        proofs = [read_proofs(path, file.stem) for path in (one, other)]
        assert_same(*proofs, where=file.name, but=frozenset({"forward_passes", "backward_passes"}))
    for file in (one / NO_CLASS).glob("*.parquet"):
        answers = [in_order(read_answers(path, file.stem)) for path in (one, other)]
        assert_same(*answers, where=file.name)


def in_order(answers: NoClassAnswers | None) -> NoClassAnswers:
    """Returns answers sorted by example, class and draw: batches give them another order."""
    assert answers is not None
    names = ("example_id", "wanted", "draw", "predicted", "confidence")
    rows = np.lexsort([getattr(answers, name) for name in ("draw", "wanted", "example_id")])
    return replace(answers, **{name: getattr(answers, name)[rows] for name in names})


def files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and "tensorboard" not in path.parts and "tfevents" not in path.name:
            yield path


@pytest.mark.parametrize(
    ("count", "batch_size"), [(3, 16), pytest.param(7, 100, marks=pytest.mark.slow)]
)
def test_merged_shards_are_one_run(tmp_path: Path, count: int, batch_size: int) -> None:
    noise = {
        "dataset": {"source": "rubbish:gaussian", "count": 20},
        "models": ["one", "two"],
        "fooling": {"step": "0.5", "direction": "unit"},
    }
    own = {
        "dataset": "squares",
        "models": ["one", "two"],
        "attacks": ATTACKS,
        "transfer": {"attacks": ["fgsm", "pgd"]},
    }
    suite = Suite.model_validate({"name": "shards", "certify": True, "experiments": [own, noise]})
    whole(suite, tmp_path / "whole", pictures=True)
    folders = shards_of(
        suite, tmp_path, count, batch_size=batch_size, order=lambda each: each[::-1]
    )
    record = merged(folders, tmp_path / "merged", pictures=True)
    assert record.status == "done"
    for found in (record.bounds, record.fooling, record.survivors):
        assert found
    assert_same_runs(tmp_path / "merged", tmp_path / "whole")


# The suite of the tests about what goes wrong: small, and without an examination.
SMALL = {"name": "fgsm", "epsilon": ["0.1", "0.2"]}
QUICK = {"examination": False, "certify": "none"}


def test_more_shards_than_examples(tmp_path: Path) -> None:
    suite = suite_of(SMALL)
    whole(suite, tmp_path / "whole", limit=3, **QUICK)
    folders = shards_of(suite, tmp_path, 5, limit=3, **QUICK)
    assert not (folders[-1] / OUTCOMES).exists()
    merged(folders, tmp_path / "merged", **QUICK)
    assert_same_runs(tmp_path / "merged", tmp_path / "whole")


def test_a_shard_whose_examples_are_all_misclassified_before(tmp_path: Path) -> None:
    """It is not attacked again, and lacks what the others know of attacked examples."""
    carried = {"name": "pgd", "epsilon": ["0.05", "0.6"], "steps": 2, "carried": True}
    suite = suite_of(carried, {**carried, "label": "more", "epsilon": ["0.5", "0.6", "0.7"]})
    whole(suite, tmp_path / "whole", limit=12, **QUICK)
    folders = shards_of(suite, tmp_path, 6, limit=12, **QUICK)
    merged(folders, tmp_path / "merged", **QUICK)
    assert_same_runs(tmp_path / "merged", tmp_path / "whole")


class Noisy(planted.Rows):
    """Adds noise to its input."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs + 0.2 * torch.randn_like(inputs))


def streamed() -> HeldDataset:
    """The planted dataset, as a stream of examples gives it."""
    given = planted.squares().batch(np.arange(planted.EXAMPLES))
    pairs = zip(given.inputs.numpy(), given.labels.tolist(), strict=True)
    return store_stream("squares", pairs, classes=("a", "b", "c"))


def test_random_models_and_streamed_examples(tmp_path: Path, planting: planted.Plant) -> None:
    """Random numbers of a model belong to examples, and a stream is divided as files are."""
    planting.model("two", lambda: planted.classifier(Noisy(2)))
    planting.dataset("squares", lambda request: streamed())
    pgd = {"name": "pgd", "epsilon": "0.1", "steps": 2}
    suite = suite_of({**pgd, "eot": 2, "label": "averaged"}, pgd, draws=3)
    expected = whole(suite, tmp_path / "whole", **QUICK)
    assert max(each.draws for each in expected.evaluations) == 3
    folders = shards_of(suite, tmp_path, 3, **QUICK)
    merged(folders, tmp_path / "merged", **QUICK)
    assert_same_runs(tmp_path / "merged", tmp_path / "whole")


def test_models_one_at_a_time_and_cells_in_processes(tmp_path: Path) -> None:
    suite = suite_of(SMALL, transfer={"attacks": ["fgsm"]})
    whole(suite, tmp_path / "whole", **QUICK)
    folders = shards_of(suite, tmp_path, 2, models_in_memory=1, isolate=True, **QUICK)
    merged(folders, tmp_path / "merged", **QUICK)
    assert_same_runs(tmp_path / "merged", tmp_path / "whole")


def test_a_merge_is_repeated_as_shards_come_in(tmp_path: Path) -> None:
    suite, output = suite_of(SMALL), tmp_path / "merged"
    whole(suite, tmp_path / "whole", **QUICK)
    folders = shards_of(suite, tmp_path, 4, **QUICK)
    with pytest.raises(IncompleteError) as caught:
        merged([folders[1], folders[0]], output, **QUICK)
    assert str(caught.value) == (
        "shard 3/4 is missing (squares: examples 31 to 45 of 60); "
        "shard 4/4 is missing (squares: examples 46 to 60 of 60)"
    )
    assert not output.exists()
    for _ in range(2):  # and again, once it is merged
        merged(folders, output, **QUICK)
        assert_same_runs(output, tmp_path / "whole")
    record = whole(suite, output, **QUICK)  # nothing is left to do
    assert record.provenance.computed_cells == 0


def test_many_missing_shards_are_counted(tmp_path: Path) -> None:
    (folder,) = shards_of(suite_of(SMALL), tmp_path, 20, order=lambda each: [3], **QUICK)
    with pytest.raises(IncompleteError, match=r"14 more shards of 20 are missing: 7-20"):
        merged([folder], tmp_path / "merged")


def test_an_interrupted_shard_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, shard, folder = suite_of(SMALL), Shard(1, 2), tmp_path / "1-of-2"
    whole(suite, tmp_path / "whole", **QUICK)
    run_batch, batches = in_process.run_batch, iter(range(100))

    def dying(task: Any) -> None:
        if next(batches) == 1:
            raise KeyboardInterrupt
        run_batch(task)

    with monkeypatch.context() as patch:
        patch.setattr(in_process, "run_batch", dying)
        with pytest.raises(KeyboardInterrupt):
            run_shard(suite, folder, shard=shard, settings=settings(**QUICK))
    second = shards_of(suite, tmp_path, 2, order=lambda each: [2], **QUICK)
    with pytest.raises(IncompleteError, match=r"shard 1/2 in .* is not finished \(squares: exa"):
        merged([folder, *second], tmp_path / "merged", **QUICK)
    attacked = [0]

    def counted(task: Any) -> None:
        attacked[0] += len(task.given.ids)
        run_batch(task)

    monkeypatch.setattr(in_process, "run_batch", counted)
    run_shard(suite, folder, shard=shard, settings=settings(**QUICK))
    assert attacked == [30 + 14]  # 16 of the first model's were saved
    merged([folder, *second], tmp_path / "merged", **QUICK)
    assert_same_runs(tmp_path / "merged", tmp_path / "whole")


def test_a_cell_that_fails_in_one_shard_fails(tmp_path: Path, planting: planted.Plant) -> None:
    """Like one that fails in one batch of a run; what follows it fails as well."""
    planting.attack("raises-late", RaisesLate)
    late = {"name": "raises-late", "epsilon": ["0.1", "0.2"], "carried": True}
    suite = suite_of(SMALL, late)
    expected = whole(suite, tmp_path / "whole", **QUICK)
    folders = shards_of(suite, tmp_path, 3, **QUICK)
    assert [RunRecord.read_any(each).status for each in folders] == ["done", "done", "failed"]
    record = merged(folders, tmp_path / "merged", **QUICK)
    assert record.status == "failed"
    assert_same_records(record, expected)
    assert [each.error for each in record.failures] == [each.error for each in expected.failures]
    assert_same_outcomes(tmp_path / "merged", tmp_path / "whole")


LATE = planted.squares().batch(np.arange(50, 60)).inputs


@checked(frozen=True, kw_only=True, config=STRICT)
class RaisesLate(planted._Planted):
    """Raises on the last examples."""

    def change(self, inputs: Tensor, threat: ThreatModel) -> Tensor:
        if bool((inputs[:, None] == LATE).flatten(2).all(2).any()):
            raise RuntimeError("planted trouble with late examples")
        return inputs


Change = Callable[[Path, planted.Plant], Path]


def other_run(folder: Path, suite: Suite, **more: Any) -> Path:
    return shards_of(suite, folder / "other", 2, order=lambda each: [2], **{**QUICK, **more})[0]


def other_dataset(folder: Path, planting: planted.Plant) -> Path:
    planting.dataset("squares", lambda request: planted.squares(seed=9))
    return other_run(folder, suite_of(SMALL))


def other_model(folder: Path, planting: planted.Plant) -> Path:
    planting.model("two", planted.rows(7))
    return other_run(folder, suite_of(SMALL))


def other_code(folder: Path, planting: planted.Plant) -> Path:
    found = other_run(folder, suite_of(SMALL))
    record = RunRecord.read_any(found)
    assert record.shard is not None
    card = record.shard.model_copy(update={"code": "0" * 64})
    record.model_copy(update={"shard": card}).write(found)
    return found


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda folder, _: other_run(folder, suite_of(SMALL, name="others")),
            "is a shard of suite 'others'; that in",
        ),
        (
            lambda folder, _: other_run(folder, suite_of({**SMALL, "epsilon": ["0.1", "0.3"]})),
            "differs from that of .* in experiments",
        ),
        (
            lambda folder, _: other_run(folder, suite_of(SMALL), limit=10),
            "the run evaluates other examples of dataset 'squares' \\(10\\) than the 60 in",
        ),
        (
            lambda folder, _: other_run(folder, suite_of(SMALL), certify="all"),
            "has another value of settings.certify than in",
        ),
        (
            lambda folder, _: other_run(folder, suite_of(SMALL), keep_examples="all"),
            "has another value of settings.keep_examples than in",
        ),
        (
            lambda folder, _: shards_of(
                suite_of(SMALL), folder / "other", 3, order=lambda each: [2], **QUICK
            )[0],
            "is shard 2/3, that in .* is 1/2: the number of shards must be one",
        ),
        (other_dataset, "dataset 'squares' has other content .* than .* in"),
        (other_model, "model 'two' on 'squares' is another .* than .* in"),
        (other_code, "was computed by another version of Gibbon .* than .* in"),
        (
            lambda folder, _: shutil.copytree(folder / "1-of-2", folder / "copy"),
            "shard 1/2 is in two folders, .* and .*: give one of them",
        ),
        (lambda folder, _: folder / "1-of-2", "is given twice"),
        (lambda folder, _: folder / "nothing", "holds no run.json: expected the folder of a shard"),
        (
            lambda folder, _: one_run(folder / "whole"),
            "holds a whole run of suite 'shards', expected a shard",
        ),
    ],
)
def test_shards_of_another_run_are_refused(
    tmp_path: Path, planting: planted.Plant, change: Change, sentence: str
) -> None:
    first = shards_of(suite_of(SMALL), tmp_path, 2, order=lambda each: [1], **QUICK)
    other = change(tmp_path, planting)
    with pytest.raises(RunFolderError, match=sentence) as caught:
        merged([*first, other], tmp_path / "merged")
    assert str(other) in str(caught.value)
    assert not (tmp_path / "merged").exists()


def one_run(folder: Path) -> Path:
    whole(suite_of(SMALL), folder, **QUICK)
    return folder


def test_a_merge_needs_the_datasets_and_models_of_the_shards(
    tmp_path: Path, planting: planted.Plant
) -> None:
    folders = shards_of(suite_of(SMALL), tmp_path, 2, **QUICK)
    planting.model("one", planted.rows(8))
    with pytest.raises(RunFolderError, match=r"model 'one' on 'squares' is another .* here: merge"):
        merged(folders, tmp_path / "merged")
    planting.model("one", planted.rows(1))
    planting.dataset("squares", lambda request: planted.squares(seed=9))
    with pytest.raises(RunFolderError, match=r"dataset 'squares' has other content .* here"):
        merged(folders, tmp_path / "merged")


@pytest.mark.parametrize("lost", [False, True])
def test_a_damaged_result_is_named(tmp_path: Path, lost: bool) -> None:
    suite = suite_of(SMALL)
    folders = shards_of(suite, tmp_path, 2, **QUICK)
    merged(folders, tmp_path / "earlier", **QUICK)
    before = {file: file.read_bytes() for file in files(tmp_path / "earlier")}
    (tmp_path / "empty").mkdir()
    outcomes = sorted((folders[1] / OUTCOMES).glob("*.parquet"))
    for file in outcomes[:2]:
        content = file.read_bytes()
        file.unlink()
        if not lost:
            file.write_bytes(content[:-20] + bytes(20))
    what = "missing" if lost else "damaged"
    for name in ("earlier", "empty", "merged"):
        with pytest.raises(RunFolderError) as caught:
            merged(folders, tmp_path / name, **QUICK)
    assert {file: file.read_bytes() for file in files(tmp_path / "earlier")} == before
    assert not list((tmp_path / "empty").iterdir())
    for file in outcomes[:2]:
        assert f"shard 2/2 in {folders[1]}: {OUTCOMES}/{file.name} is {what}" in str(caught.value)
    assert "run this shard again" in str(caught.value)
    assert not (tmp_path / "merged").exists()
    run_shard(suite, folders[1], shard=Shard(2, 2), settings=settings(**QUICK))
    merged(folders, tmp_path / "merged", **QUICK)
    whole(suite, tmp_path / "whole", **QUICK)
    for name in ("evaluations", "flags"):
        rows = [getattr(RunRecord.read(tmp_path / each), name) for each in ("merged", "whole")]
        assert_same(*rows, but=frozenset({"forward_passes", "backward_passes"}), where=name)


def test_a_folder_holds_one_shard(tmp_path: Path) -> None:
    suite = suite_of(SMALL)
    (folder,) = shards_of(suite, tmp_path, 2, order=lambda each: [1], **QUICK)
    with pytest.raises(RunFolderError, match="holds shard 1/2, not shard 2/2, of suite 'shards'"):
        run_shard(suite, folder, shard=Shard(2, 2), settings=settings(**QUICK))
    with pytest.raises(RunFolderError, match="holds shard 1/2, not a whole run, of suite"):
        whole(suite, folder, **QUICK)
    with pytest.raises(RunFolderError, match="holds a whole run, not shard 1/2, of suite"):
        run_shard(suite, one_run(tmp_path / "w"), shard=Shard(1, 2), settings=settings(**QUICK))


def test_a_shard_is_no_run(tmp_path: Path) -> None:
    (folder,) = shards_of(suite_of(SMALL), tmp_path, 2, order=lambda each: [1], **QUICK)
    refused = f"{folder}: holds shard 1/2 of suite 'shards', not a whole run: merge all shards"
    for read in (
        lambda: RunRecord.read(folder),
        lambda: save_baseline(folder, tmp_path / "baseline.json"),
        lambda: compare(folder, folder),
    ):
        with pytest.raises(RecordError, match=re.escape(refused)):
            read()
    for words in (["report", str(folder)], ["audit", str(folder)]):
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, RecordError)
        assert str(result.exception).startswith(refused)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("3/2", "of 2 there is no shard 3"),
        ("0/2", "of 2 there is no shard 0"),
        ("1/0", "there must be 1 to 1,000,000 shards, got 0"),
        ("2", "expected I/N with I from 1 to N, such as 2/4, got '2'"),
        ("-1/2", "expected I/N"),
        ("1/2/3", "expected I/N"),
        ("", "expected I/N"),
    ],
)
def test_texts_that_name_no_shard(text: str, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        Shard.parse(text)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 60, 61, 1000])
def test_shards_hold_each_example_once(count: int) -> None:
    parts = [np.arange(60)[Shard(index, count).part(60)] for index in range(1, count + 1)]
    assert np.array_equal(np.concatenate(parts), np.arange(60))
    sizes = [len(each) for each in parts]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def ended(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of the command line for these words."""
    monkeypatch.setattr(sys, "argv", ["gibbon", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, one, two = (str(tmp_path / each) for each in ("small.toml", "one", "two"))
    Path(suite).write_text(
        'name = "small"\ndataset = "squares"\nmodels = ["one"]\ncertify = false\n'
        '[[attacks]]\nname = "fgsm"\nepsilon = "0.1"\n'
    )
    run = ["run", suite, "--no-examination", "--no-pictures"]
    assert ended(monkeypatch, *run, "--dry-run", "--price", "2", "--output", one) == 0
    said = capsys.readouterr().out
    assert "nothing was computed or written" in said
    assert "at 2 an hour" in said
    assert not Path(one).exists()
    assert ended(monkeypatch, *run, "--shard", "1/2", "--output", one) == 0
    assert "shard 1/2 is finished (squares: examples 1 to 30 of 60)" in capsys.readouterr().out
    output = str(tmp_path / "out")
    assert ended(monkeypatch, "merge", one, "--output", output) == 3
    said = capsys.readouterr().err
    assert "shard 2/2 is missing (squares: examples 31 to 60 of 60)" in said
    assert ended(monkeypatch, *run, "--shard", "2/2", "--output", two) == 0
    assert ended(monkeypatch, "merge", two, one, "--output", output) == 0
    assert RunRecord.read(Path(output)).status == "done"
    assert (Path(output) / "tables.md").exists()
    assert ended(monkeypatch, "merge", one, one, "--output", output) == 2
    assert ended(monkeypatch, *run, "--shard", "3/2") == 2
    capsys.readouterr()
    assert ended(monkeypatch, *run, "--shard", "1/2", "--strict") == 2
    assert "--strict: flags are raised on all examples: give it to merge" in capsys.readouterr().err
    assert ended(monkeypatch, *run, "--price", "2") == 2
    assert ended(monkeypatch, *run, "--dry-run", "--price", "inf") == 2
    assert "--price: must be a finite number, got inf" in capsys.readouterr().err
    assert ended(monkeypatch, "report", one) == 2
    assert "holds shard 1/2 of suite 'small', not a whole run" in capsys.readouterr().err
