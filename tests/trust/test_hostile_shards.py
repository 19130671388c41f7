"""Shards, kept examples and records that other people made: read as data, and named if damaged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest

from gibbon.core.errors import RecordError, RequestError, RunFolderError
from gibbon.records.checksums import with_checksum
from gibbon.records.run import RunRecord
from gibbon.report import table_files
from gibbon.report.viewer.examples import RunExamples
from gibbon.runner.merge_shards import merge_shards
from gibbon.runner.plan.planned import Supplied
from tools.fuzz.fuzz_targets import code_of_shards, merge_runs, settings, supplied

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus" / "shards" / "two"
MARK = "code ran"


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """The folders ``1`` and ``2`` of the shards of a small run."""
    return Path(shutil.copytree(CORPUS, tmp_path / "two"))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a record, whose checksum is that of what it holds then."""
    path = folder / "run.json"
    record = RunRecord.read_any(folder).model_dump(mode="json")
    change(record)
    path.write_text(with_checksum(json.dumps(record, indent=1)))


def refusal(folder: Path) -> str:
    """The sentence that a merge of two shards is refused with; nothing is lost by it."""
    before = {each: each.read_bytes() for each in folder.glob("[12]/**/*") if each.is_file()}
    with pytest.raises((RunFolderError, RecordError)) as refused:
        merge_runs(folder)
    assert all(each.read_bytes() == content for each, content in before.items())
    text = str(refused.value)
    assert "\n" not in text
    return text


# Code


def code(folder: Path) -> str:
    """Writes a model whose import leaves a mark, and returns its name."""
    folder.mkdir(parents=True, exist_ok=True)
    text = f"""
from pathlib import Path
from torch import nn
Path({str(folder / MARK)!r}).touch()
def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
"""
    (folder / "net.py").write_text(text)
    return f"{folder / 'net.py'}:build"


def with_model(folder: Path, **keys: Any) -> None:
    def change(record: dict[str, Any]) -> None:
        record["suite"]["experiments"][0]["models"][0] = {"name": "one", **keys}

    for index in "12":
        rewrite(folder / index, change)


@pytest.mark.parametrize("written", [lambda path: path, lambda path: os.path.relpath(path)])
def test_a_merge_runs_no_code_from_the_folder_of_a_shard(
    two: Path, monkeypatch: pytest.MonkeyPatch, written: Callable[[str], str]
) -> None:
    monkeypatch.chdir(two)
    with_model(two, model=written(code(two / "2" / "outcomes")))
    assert "names code in the folder of a shard" in refusal(two)
    assert not (two / "2" / "outcomes" / MARK).exists()


@pytest.mark.parametrize("key", ["trust_code", "trust_pickle"])
def test_a_vouch_in_a_shard_is_none_for_the_merge(two: Path, key: str) -> None:
    with_model(two, model="net.pt2", **{key: True})
    assert "vouches for the files of 'one'" in refusal(two)
    assert "--trust-code" in refusal(two)
    parts, data = [two / "1", two / "2"], Supplied(datasets=supplied().datasets)
    with code_of_shards(), pytest.raises(RequestError, match=r"net\.pt2") as gone_on:
        merge_shards(parts, two / "run", settings=settings(), supplied=data, trust_code=True)
    assert "vouches" not in str(gone_on.value)


# Stored results


def test_candidates_of_another_shape_are_damaged(two: Path) -> None:
    path = two / "2" / "kept_candidates.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["0.inputs"] = arrays["0.inputs"][:, None]
    np.savez(path, **arrays)
    assert "kept_candidates.npz is damaged" in refusal(two)


@pytest.mark.parametrize(
    "name", ["kept_candidates.npz", "outcomes/*.parquet", "bounds/*.parquet", "examples/*/*.npz"]
)
@pytest.mark.parametrize("what", ["pipe", "device", "folder", "link out", "empty", "lost"])
def test_a_file_of_a_shard_that_is_none(two: Path, name: str, what: str) -> None:
    path = sorted((two / "2").glob(name))[0]
    content = path.read_bytes()
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "folder":
        path.mkdir()
    elif what == "empty":
        path.touch()
    elif what == "link out":
        secret = two / "secret"
        secret.write_bytes(content[:-3])
        path.symlink_to(secret)
    with pytest.raises((RunFolderError, RecordError), match=r"shard 2/2 in .*: (run|is|can't)"):
        merge_runs(two)


@pytest.mark.parametrize("name", ["../../../secret.npz", "../00000.npz", "/etc/passwd"])
def test_names_of_stored_files_lead_nowhere_else(two: Path, name: str) -> None:
    cell = sorted((two / "2" / "examples").iterdir())[0].name
    secret = two / "secret.npz"
    np.savez(secret, example_id=np.arange(6, 12), inputs=np.full((6, 1, 4, 4), 7.0, np.float32))

    def change(record: dict[str, Any]) -> None:
        record["shard"]["stored"].append(f"examples/{cell}/{name}")

    rewrite(two / "2", change)
    merge_runs(two)
    kept = [np.load(each)["inputs"] for each in (two / "run" / "examples" / cell).iterdir()]
    assert kept
    assert all(each.max() < 7 for each in kept)


@pytest.mark.parametrize(("index", "count"), [(3, 2), (0, 2), (-1, 2), (1, 10**15), (1, 0)])
def test_a_card_of_no_shard_names_its_record(two: Path, index: int, count: int) -> None:
    rewrite(two / "2", lambda record: record["shard"].update(index=index, count=count))
    assert str(two / "2" / "run.json") in refusal(two)


def test_a_shard_twice_and_one_of_another_run(two: Path) -> None:
    shutil.rmtree(two / "2")
    shutil.copytree(two / "1", two / "2")
    assert "shard 1/2 is in two folders" in refusal(two)
    rewrite(two / "2", lambda record: record["shard"].update(index=2))
    assert "is damaged" in refusal(two) or "other examples" in refusal(two)


# Rows


@pytest.mark.parametrize("digest", ["../../secret", "/etc/passwd", "a\0b", "a" * 300, "..", "a\n"])
def test_a_digest_that_is_no_name_of_a_file(tmp_path: Path, digest: str) -> None:
    record = made_up.made_up_record()
    rows = [row.model_copy(update={"digest": digest}) for row in record.evaluations]
    record.model_copy(update={"evaluations": tuple(rows)}).write(tmp_path)
    with pytest.raises(RecordError, match="is no name of a file of results"):
        RunExamples(RunRecord.read(tmp_path), tmp_path)


def test_cells_of_csv_files_are_no_formulas_and_control_nothing() -> None:
    record = made_up.made_up_record()
    hostile = "=HYPERLINK(1)\x1b[31m\u202e"
    rows = [
        row.model_copy(update={"model": hostile, "flags": "@sum", "parameters": "-1+1"})
        for row in record.evaluations
    ]
    text = table_files(record.model_copy(update={"evaluations": tuple(rows)}))["evaluations.csv"]
    assert "'=HYPERLINK(1)?[31m?," in text
    assert ",'@sum" in text
    assert ",'-1+1," in text
    assert "\x1b" not in text
