"""Files, paths and texts from outside: a sentence, exit code 2, and nothing is allocated first."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import planted
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from gibbon.cli import app as cli
from gibbon.core.errors import DatasetError, ModelError, RecordError, RequestError, WeightsError
from gibbon.core.reading import MOST_VALUES, TEXT_BYTES
from gibbon.datasets.array_files import open_npy, open_npz
from gibbon.datasets.class_map import read_class_map
from gibbon.gate.compare import compare
from gibbon.gate.junit import write_junit
from gibbon.models.sources.checkpoint import read_checkpoint
from gibbon.models.sources.onnx import digest_of
from gibbon.models.sources.torchscript import TorchScript
from gibbon.records import outcomes
from gibbon.records.checksums import with_checksum
from gibbon.records.run import RunRecord
from gibbon.report.text.markdown import tables_markdown
from gibbon.report.text.terminal import print_record
from gibbon.specs.decoding import parse_suite
from gibbon.specs.suite import ModelSpec

HEAD = 'name = "s"\ndataset = "squares"\nmodels = ["one"]\n'
FGSM = '[[attacks]]\nname = "fgsm"\nepsilon = "0.1"\n'
LONG = "9" * 5000
DEEP = "[" * 100_000


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a command that must end with exit code 2, and returns its sentence."""
    planting = planted.Plant(monkeypatch)
    planting.dataset("squares", lambda request: planted.squares())
    planting.model("one", planted.rows(1))

    def command(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["gibbon", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        assert left.value.code == 2, said
        assert "Traceback" not in said.err
        assert 10 < len(said.err) < 10_000
        assert all(sign.isprintable() or sign == "\n" for sign in said.err)
        return said.err

    return command


# Suites

SUITES = {
    "deep-list": (f"x = {DEEP}", "nested too deeply"),
    "deep-table": ("x = " + "{a=" * 5000, "nested too deeply"),
    "deep-values": (HEAD + "x = " + "[" * 150 + "]" * 150, "nested too deeply"),
    "deep-key": (".".join("a" * 50_000) + " = 1", "more than 100 parts"),
    "deep-quoted-key": (" . ".join(['"a"'] * 50_000) + " = 1", "more than 100 parts"),
    "deep-header": ("[" + ".".join("a" * 50_000) + "]", "more than 100 parts"),
    "long-integer": (f"{HEAD}seed = {LONG}", "4300 digits"),
    "long-hexadecimal": (f"{HEAD}seed = 0x{'f' * 5000}", "an integer of more than"),
    "long-parameter": (f"{HEAD}{FGSM}steps = {LONG}", "4300 digits"),
    "long-epsilon": (HEAD + FGSM.replace("0.1", LONG), "epsilon must be a number"),
    "huge-exponent": (HEAD + FGSM.replace("0.1", "1e99999999"), "epsilon must be a number"),
    "nul": (HEAD.replace('"one"', '"a\\u0000b"'), "NUL"),
    "nul-key": (f'{HEAD}{FGSM}"a\\u0000" = 1', "NUL"),
    "nul-dataset": (HEAD.replace('"squares"', '"./a\\u0000b"'), "NUL"),
    "long-file": (HEAD.replace('"one"', f'"{"a" * 300}.pt"') + FGSM, "File name too long"),
    "long-folder": (HEAD.replace('"squares"', f'"./{"a" * 300}"') + FGSM, "File name too long"),
    "no-user": (HEAD.replace('"one"', '"~nosuchuser/x.pt"') + FGSM, "no user of this name"),
    "no-user-data": (HEAD.replace('"squares"', '"~nosuchuser/x"') + FGSM, "no user of this name"),
    "many-keys": (HEAD + "".join(f"k{n} = 1\n" for n in range(2000)) + FGSM, "and 1,980 more"),
    "too-many-keys": (
        HEAD + "".join(f"k{n} = 1\n" for n in range(MOST_VALUES)) + FGSM,
        f"more than {MOST_VALUES:,} keys",
    ),
    "too-large": ("#" * (TEXT_BYTES + 1), "bytes, at most"),
    "long-key": (f"{HEAD}{'k' * 100_000} = 1\n{FGSM}", "unknown key"),
    "latin": (b"\xff\xfe", "is not UTF-8"),
}


@pytest.mark.parametrize("content", SUITES.values(), ids=SUITES)
def test_a_suite_that_can_not_be_read_is_refused(
    refused: Callable[..., str], content: tuple[Any, str]
) -> None:
    text, reason = content
    Path("s.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert reason in refused("run", "s.toml")


PATHS = {
    "long": ("a" * 300, "File name too long"),
    "long-file": ("a" * 300 + ".pt2", "File name too long"),
    "very-long": ("/" + "a/" * 3000, "File name too long"),
    "no-user": ("~nosuchuser/x.pt", "no user of this name"),
    "no-user-code": ("~nosuchuser/x.py:f", "no user of this name"),
    "nul": ("a\0b", "NUL"),
    "surrogate": ("\ud800.pt", "unpaired surrogate"),
    "not-utf8": ("\udcff.pt", "unpaired surrogate"),
}
DOORS: dict[str, Callable[[str], tuple[str, ...]]] = {
    "model": lambda path: ("evaluate", "--model", path, "--dataset", "squares"),
    "weights": lambda path: (
        *("evaluate", "--model", "one", "--weights", path, "--dataset", "squares"),
    ),
    "dataset": lambda path: ("evaluate", "--model", "one", "--dataset", path),
    "suite": lambda path: ("run", path),
    "report": lambda path: ("report", path),
    "compare": lambda path: ("compare", path, path),
    "audit": lambda path: ("audit", path),
    "output": lambda path: (
        *("evaluate", "--model", "one", "--dataset", "squares", "--output", path),
    ),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("door", DOORS)
def test_a_path_that_is_none_is_refused(
    refused: Callable[..., str], door: str, path: tuple[str, str]
) -> None:
    words = DOORS[door](path[0])
    if words[0] == "evaluate":
        words = (*words, "--attack", "fgsm", "--epsilon", "0.1")
    said = refused(*words)
    if door in ("model", "dataset"):
        assert path[1] in said


@pytest.mark.parametrize("place", ["pipe", "/dev/zero"])
def test_a_pipe_and_a_device_are_no_files(refused: Callable[..., str], place: str) -> None:
    os.mkfifo("pipe")
    for words in (
        ("run", place if place != "pipe" else "./pipe.toml"),
        ("compare", place, place),
        ("report", place),
    ):
        if words[0] == "run" and place == "pipe":
            os.mkfifo("pipe.toml")
        refused(*words)
    attack = ("--attack", "fgsm", "--epsilon", "0.1")
    for scheme in ("torchscript", "onnx", "checkpoint"):
        said = refused("evaluate", "--model", f"{scheme}:{place}", "--dataset", "squares", *attack)
        assert "is a pipe or a device" in said


# Class maps and lists of pictures

MAPS = {
    "deep.json": (DEEP, "nested too deeply"),
    "index.json": ('{"a": 0, "b": 1000000000}', "index 1,000,000,000 .* at most 1,000,000"),
    "digits.json": (f'{{"a": {LONG}}}', "a number that is too long"),
    "key.json": (f'{{"{LONG}": ["a"]}}', "at most 1,000,000 classes"),
    "surrogate.json": ('{"\\ud800": 1}', "unpaired surrogate"),
    "nul.json": ('{"\\u0000": 1}', "NUL"),
    "index.csv": ("class,index\na,1000000000\n", "at most 1,000,000"),
    "digits.csv": (f"class,index\na,{LONG}\n", "at most 1,000,000"),
    "field.csv": (f"class,index\n{'a' * 200_000},1\n", "not a CSV file"),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_class_map_that_can_not_be_used_is_refused(name: str) -> None:
    text, reason = MAPS[name]
    Path(name).write_text(text)
    with pytest.raises(DatasetError, match=reason):
        read_class_map(name)


def pictures(folder: str = "photos") -> Path:
    draws = np.random.default_rng(0)
    for name in "ab":
        Path(folder, name).mkdir(parents=True)
        for number in range(2):
            pixels = draws.integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder, name, f"{number}.png"))
    return Path(folder)


def on(data: str, *more: str) -> tuple[str, ...]:
    return (
        "evaluate",
        "--model",
        "one",
        "--dataset",
        data,
        "--attack",
        "fgsm",
        "--epsilon",
        "0.1",
        *more,
    )


LISTS = {
    "label": ("photos/a/0.png,0\nphotos/b/0.png,1000000000", "at most 1,000,000 classes"),
    "digits": (f"photos/a/0.png,0\nphotos/b/0.png,{LONG}", "at most 1,000,000 classes"),
    "signs": ("photos/a/0.png,0\nphotos/b/0.png,+-1", "has a number for a label"),
    "nul": ("photos/a\0,0", "NUL"),
    "long": (f"{'a' * 300}.png,0", "File name too long"),
    "no-user": ("~nosuchuser/a.png,0", "no user of this name"),
    "device": (
        "photos/a/0.png,0\n/dev/zero,1",
        "/dev/zero: is no file, but a folder, a pipe or a device",
    ),
}


@pytest.mark.parametrize("rows", LISTS.values(), ids=LISTS)
def test_a_list_that_can_not_be_used_is_refused(
    refused: Callable[..., str], rows: tuple[str, str]
) -> None:
    pictures()
    Path("list.csv").write_text(f"path,label\n{rows[0]}\n")
    assert rows[1] in refused(*on("list.csv"))


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_among_pictures_is_named(refused: Callable[..., str], kind: str) -> None:
    place = pictures() / "a" / "z.png"
    os.mkfifo(place) if kind == "pipe" else place.symlink_to("/dev/zero")
    assert "z.png: is a pipe or a device, not a file" in refused(*on("photos"))


@pytest.mark.parametrize("more", [(), ("--skip-unreadable",)], ids=["all", "skip"])
def test_a_class_folder_that_is_not_utf8_is_refused(
    refused: Callable[..., str], more: tuple[str, ...]
) -> None:
    pictures()
    Path("photos/b").rename(os.fsdecode(b"photos/\xff\xfe"))
    assert "the name of the class folder" in refused(*on("photos", *more))


def test_a_picture_whose_name_is_not_utf8_is_one_that_can_not_be_read(
    refused: Callable[..., str],
) -> None:
    pictures()
    Path("photos/b/0.png").rename(os.fsdecode(b"photos/b/\xff.png"))
    assert "its name is not UTF-8" in refused(*on("photos"))


# Archives and arrays that would fill the memory


def deflated(path: str, entries: dict[str, int], **texts: bytes) -> Path:
    """A zip file whose entries unpack to so many zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in texts.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
        for name, size in entries.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(bytes(size))
    return Path(path)


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of a thousandth, so that the tests' bombs are small."""
    monkeypatch.setattr("gibbon.core.archives.SPARE", (256 << 20) // 1000)


def test_an_archive_that_unpacks_to_gigabytes_is_not_unpacked(
    small_bounds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
    bomb = {"net/data/0": 5_000_000, "net/code/__torch__.py": 5_000_000}
    script = deflated("net.ts", bomb, net__constants_dot_pkl=b"\x80\x02).")
    spec = ModelSpec(name="net", model=str(script), trust_code=True)
    with pytest.raises(ModelError, match=r"would unpack to .* it is not unpacked"):
        TorchScript().open(spec)
    weights = deflated("w.pt", {"w/data/0": 5_000_000}, w__data_dot_pkl=b"\x80\x02}.")
    with pytest.raises(WeightsError, match="would unpack to"):
        read_checkpoint(weights)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (5000, 1000)}
    )
    arrays = deflated("x.npz", {"y.npy": 5_000_000}, x_dot_npy=header.getvalue())
    with pytest.raises(DatasetError, match="would unpack to"):
        open_npz("x", arrays, inputs=None, labels=None, layout=None)


def test_entries_that_overlap_are_refused(tmp_path: Path) -> None:
    path = deflated("net.ts", {"net/data/0": 10}, net__constants_dot_pkl=b"\x80\x02).")
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    content[place + 20 : place + 24] = (1 << 20).to_bytes(4, "little")  # the packed size
    path.write_bytes(content)
    with pytest.raises(ModelError, match="they overlap"):
        TorchScript().open(ModelSpec(name="net", model=str(path)))


def test_a_header_that_promises_more_than_there_is_allocates_nothing() -> None:
    header = io.BytesIO()
    shape = (10**9, 28, 28)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    np.save("y.npy", np.arange(8))
    with zipfile.ZipFile("x.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"abc")
        archive.write("y.npy")
    Path("x.npy").write_bytes(header.getvalue())
    with pytest.raises(DatasetError, match="its header is of 6,272,000,000,000 bytes"):
        open_npz("x", Path("x.npz"), inputs=None, labels=None, layout="NHW")
    with pytest.raises(DatasetError, match="its header is of 6,272,000,000,000 bytes"):
        open_npy("x", Path("x.npy"), labels=Path("y.npy"), layout="NHW")


def test_a_label_of_a_billion_makes_no_billion_classes() -> None:
    labels = np.array([0, 10**9])
    np.savez("x.npz", x=np.zeros((2, 4), dtype=np.float32), y=labels)
    with pytest.raises(DatasetError, match="at most 1,000,000 classes"):
        open_npz("x", Path("x.npz"), inputs=None, labels=None, layout=None)


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/passwd", "a/../../outside.bin"])
def test_tensors_of_an_onnx_file_are_read_from_its_folder_alone(name: str) -> None:
    Path("folder").mkdir()
    Path("outside.bin").write_bytes(b"secret")
    location = name.encode()
    entry = b"\x0a\x08location\x12" + bytes([len(location)]) + location
    Path("folder/net.onnx").write_bytes(b"\x08\x08" + entry)
    with pytest.raises(ModelError, match="outside its folder"):
        digest_of(Path("folder/net.onnx"))


def test_memory_that_runs_out_in_a_parquet_file_makes_it_unusable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise pa.ArrowMemoryError("malloc of size 1099511627776 failed")

    monkeypatch.setattr(outcomes, "read_table", fails)
    assert outcomes.read_outcome(Path(), "digest") is None


def test_memory_that_runs_out_elsewhere_ends_with_a_sentence(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise pa.ArrowMemoryError("malloc of size 1099511627776 failed")

    monkeypatch.setattr(RunRecord, "read", fails)
    Path("run").mkdir()
    Path("run/run.json").touch()
    assert "memory ran out" in refused("report", "run")


# Records


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run."""
    import gibbon

    inputs, labels = torch.rand(12, 1, 2, 2), torch.arange(12) % 3
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    folder = tmp_path_factory.mktemp("runs") / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gibbon.evaluate(
            {"net": net},
            (inputs, labels),
            attack=["fgsm", "noise-sign"],
            epsilon=[0.1, 0.2],
            output=folder,
        )
    return folder


def changed(run: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a run with another record, in this folder."""
    import shutil

    shutil.copytree(run, "changed")
    written = json.loads((run / "run.json").read_text())
    del written["checksum"]
    change(written)
    Path("changed/run.json").write_text(with_checksum(json.dumps(written, indent=1)))
    return Path("changed")


COMMANDS = (
    ("report", "changed"),
    ("report", "changed", "--markdown"),
    ("audit", "changed"),
    ("compare", "changed", "changed"),
    ("baseline", "save", "changed", "b.json"),
)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_record_without_its_unattacked_row_is_damaged(
    refused: Callable[..., str], run: Path, words: tuple[str, ...]
) -> None:
    def change(record: dict[str, Any]) -> None:
        record["evaluations"] = [e for e in record["evaluations"] if e["attack"] != "none"]

    changed(run, change)
    assert "has no unattacked row" in refused(*words)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["evaluations"].pop(),
        lambda record: record["datasets"].clear(),
    ],
    ids=["an-attack", "the-dataset"],
)
def test_rows_that_do_not_belong_together_are_a_damaged_record(
    refused: Callable[..., str], run: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    changed(run, change)
    said = refused("baseline", "save", "changed", "b.json")
    assert "its rows do not belong together" in said


def test_a_record_that_is_nested_too_deeply_is_refused(refused: Callable[..., str]) -> None:
    Path("changed").mkdir()
    texts = {
        DEEP: "damaged: not JSON",
        f'{{"format": {LONG}}}': "damaged: not JSON",
        "\0": "damaged: not JSON",
        '{"a": "\\ud800"}': "not a run of this version",
    }
    for text, reason in texts.items():
        Path("changed/run.json").write_text(text)
        Path("b.json").write_text(text)
        assert reason in refused("report", "changed")
        assert "b.json" in refused("compare", "b.json", "changed")


# Texts that reach a terminal, a page, or a report

ESCAPE, BELL, HIDDEN = "\x1b[2J\x1b]0;owned\x07", "\x07", "\u202e\x9b31m"
HOSTILE = (
    f"{ESCAPE}{BELL}{HIDDEN} ![x](https://tracker.example/t.png) <img src=https://t.example/u.png> "
    "[y](https://z.example) ``` ~~~ </script>"
)


def hostile(record: dict[str, Any]) -> None:
    suite = record["suite"]
    suite |= {"title": f"``` {HOSTILE}", "description": f"```\n{HOSTILE}"}
    record["models"][0] |= {"notes": [f"``` {HOSTILE}"], "model": f"` {HOSTILE}"}
    record["datasets"][0] |= {"notes": [f"~~~ {HOSTILE}"], "skipped": [HOSTILE]}
    for row in record["evaluations"]:
        row["attack_text"] = HOSTILE if "attack_text" in row else None
        row.pop("attack_text") if row["attack_text"] is None else None
    row = record["evaluations"][0]
    cell = {key: row[key] for key in ("dataset", "model", "attack", "epsilon")}
    record["failures"] = [{**cell, "error": HOSTILE, "traceback": HOSTILE}]


def readable(text: str) -> bool:
    return all(sign.isprintable() or sign in "\n\t" for sign in text)


def test_no_text_of_a_record_is_markup_or_controls_a_terminal(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(run, hostile)
    record = RunRecord.read(folder)
    text = tables_markdown(record)
    assert readable(text)
    assert not [
        line for line in text.splitlines() if line.lstrip("#> -").startswith(("```", "~~~"))
    ]
    outside_code = [part for each in text.splitlines() for part in each.split("`")[::2]]
    assert not any("![" in part or "](" in part for part in outside_code)
    assert r"\<img" in text
    from rich.console import Console

    print_record(record, Console(width=100))
    monkeypatch.setattr(sys, "argv", ["gibbon", "report", "changed", "--output", "-"])
    said = capsys.readouterr()
    assert readable(said.out)
    with pytest.raises(SystemExit):
        cli.main()
    page = capsys.readouterr()
    assert readable(page.err)
    assert "<img src=https" not in page.out
    assert "img-src data:;" in page.out  # and the page may load no picture from elsewhere
    assert page.out.count("</script>") == 1


@pytest.mark.parametrize("sign", ["\0", "\x0b", "\x1b", "\x7f", "\x9b", "\ufffe", "\ud800"])
def test_a_junit_report_is_xml_whatever_is_in_a_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    comparison = compare(run, run)
    (measure, *others) = comparison.measures
    from dataclasses import replace

    key = replace(measure.key, model=f"net{sign}", attack=f"fgsm{sign}")
    odd = replace(comparison, measures=(replace(measure, key=key), *others))
    write_junit(odd, tmp_path / "j.xml")
    root = ElementTree.parse(tmp_path / "j.xml").getroot()  # noqa: S314  our own file
    assert len(root.findall("testsuite/testcase")) == len(comparison.measures)


def test_an_error_is_shown_without_what_controls_a_terminal(refused: Callable[..., str]) -> None:
    Path("s.toml").write_text(HEAD + f'"\\u001b[31mred" = 1\n{FGSM}', encoding="utf-8")
    assert "\x1b" not in refused("run", "s.toml")


def test_the_python_call_raises_the_same_errors(run: Path) -> None:
    with pytest.raises(RequestError, match="nested too deeply"):
        parse_suite(f"x = {DEEP}", where="s.toml")
    with pytest.raises(RecordError, match="can't be read"):
        RunRecord.read(Path("a" * 300))


def test_a_name_of_many_classes_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(json.dumps(["cat"] * 10_000))
    with pytest.raises(DatasetError, match="0 and 1 and 2 and 3 and 4 and 9,995 more") as refused:
        read_class_map(str(tmp_path / "map.json")).index("cat", where="here")
    assert len(str(refused.value)) < 1000


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    from gibbon.records.illustration import illustrations
    from gibbon_zoo.card import read_card
    from gibbon_zoo.recipe import shipped_recipe
    from gibbon_zoo.training_checkpoint import read_training_checkpoint

    pipe = tmp_path / "figures" / "sweep.npz"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    with pytest.raises(RequestError, match="is a pipe"):
        read_card(pipe)
    with pytest.raises(RequestError, match="not a file"):
        read_training_checkpoint(pipe, shipped_recipe("softmax"))
    with pytest.raises(RequestError, match="not a file"):
        list(illustrations(tmp_path))


def test_what_was_written_down_of_files_may_be_of_any_type(tmp_path: Path) -> None:
    from gibbon.report.written_files import WRITTEN_FILE, is_damaged, is_up_to_date

    place = tmp_path / WRITTEN_FILE
    place.parent.mkdir()
    for files in ([], None, {"a": 1}, "x"):
        place.write_text(with_checksum(json.dumps({"made_from": "x", "files": files}, indent=1)))
        assert not is_up_to_date(tmp_path, "x", now=[tmp_path / "a"])
        assert not is_damaged(tmp_path / "a")


@pytest.mark.parametrize(
    "figure", [f"{LONG} of {LONG}", "9 of 0", "9" * 25 + " of 3"], ids=["long", "zero", "digits"]
)
def test_a_share_in_a_flag_may_be_any_text(figure: str) -> None:
    from gibbon.records.flag_share import share_of_earlier_version

    assert share_of_earlier_version(figure) is None


@pytest.mark.parametrize("share", [{"count": 9, "of": 3}, {"count": 0, "of": 0}, {"of": 10**400}])
def test_a_share_of_a_flag_is_a_part_of_examples(share: dict[str, int]) -> None:
    from gibbon.records.flag_share import FlagShare

    with pytest.raises(ValidationError):
        FlagShare.model_validate_json(json.dumps({"count": 0, **share}))


@pytest.mark.parametrize(
    ("header", "usable"),
    [
        ([5, 4, "RGB", False, False, False], True),
        ([5, 4, "RGB", False, False, {}], False),
        ([True, 4, "RGB", False, False, False], False),
        ([5, 0, "RGB", False, False, False], False),
        ([10**6, 10**6, "RGB", False, False, False], False),
        ([5, 4, "no mode", False, False, False], False),
        ([5, 4], False),
    ],
)
def test_a_cache_of_pictures_holds_what_pictures_can_be(
    tmp_path: Path, header: list[Any], usable: bool
) -> None:
    from gibbon.datasets.decode_cache import DecodeCache

    path = tmp_path / "cache.json"
    path.write_text(json.dumps({"format": 2, "pictures": {"a": [header, True]}}))
    assert (DecodeCache(path).of("a").header is not None) == usable
