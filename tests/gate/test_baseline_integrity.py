"""Baselines: nothing that a merge, an editor or a disk changes in one is believed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import earlier_baselines
import numpy as np
import pytest
from typer.testing import CliRunner

from gibbon.cli.app import app
from gibbon.core.errors import RecordError
from gibbon.core.threat import ZERO, Epsilon, Norm
from gibbon.gate.baseline import (
    AttackSetup,
    Content,
    MeasuredErrors,
    Side,
    read_side,
    write_baseline,
)
from gibbon.gate.measures import Key
from gibbon.records.checksums import with_checksum
from gibbon.records.flag_share import FlagShare
from gibbon.records.flags import Flag

SIZE = 200
FGSM = AttackSetup(algorithm="fgsm", norm=Norm.LINF, clip=True)
EPSILONS = ("0.1", "2/255", "8/255")
FLAG = Flag(
    kind="zero-gradient",
    severity="serious",
    dataset="d",
    model="one",
    attack="fgsm",
    epsilon=Epsilon.parse("0.1"),
    share=FlagShare(count=3, of=200),
    sentence="The gradient is zero.",
)


def made_up(*models: str) -> Side:
    """Errors that grow with epsilon, so that rows are stored as differences, and transfers."""
    ids, cells = np.arange(SIZE), []
    for number, model in enumerate(models):
        noise = np.random.default_rng(number).random(SIZE)
        clean = Key("d", model, "none", ZERO, "clean_error")
        cells.append(MeasuredErrors(clean, AttackSetup(), 0, ids, noise < 0.1))
        for place, epsilon in enumerate(EPSILONS):
            key = Key("d", model, "fgsm", Epsilon.parse(epsilon), "adversarial_error")
            flags = {"fgsm": (FLAG,)} if (model, epsilon) == ("one", "0.1") else {}
            wrong = noise < 0.4 + 0.02 * place
            cells.append(MeasuredErrors(key, FGSM, 0, ids, wrong, flags=flags))
            for target in models:
                if target != model:
                    other = Key(*list(vars(key).values())[:4], "transfer_error", target)
                    cells.append(MeasuredErrors(other, FGSM, 0, ids, noise < 0.38 + 0.02 * place))
    return Side("made up", "suite", {"d": Content("digest", SIZE)}, tuple(cells))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_baseline(made_up("one", "two"), tmp_path / "b.json", gibbon="0")
    return tmp_path / "b.json"


def content(side: Side) -> list[object]:
    return [
        side.suite,
        side.datasets,
        *((each.key, each.made_with, each.invalid, each.wrong.tolist()) for each in side.cells),
        [(each.kind, each.figure, each.share, each.attack) for each in side.flags],
    ]


def refused(file: Path, text: str) -> str:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecordError) as caught:
        read_side(file)
    assert str(caught.value).startswith(f"{file}: ")
    return str(caught.value)


def test_no_changed_character_is_believed(file: Path) -> None:
    """Every character is changed in turn, to each of a few others; harmless ones change nothing."""
    whole, text = content(read_side(file)), file.read_text()
    draw = random.Random(0)  # noqa: S311
    for place in range(len(text)):
        new = chr(ord(text[place]) ^ 1 << draw.randrange(7))
        file.write_text(text[:place] + new + text[place + 1 :], encoding="utf-8")
        try:
            read = read_side(file)
        except RecordError:
            continue
        assert content(read) == whole, (place, text[place - 20 : place + 20], new)


def test_no_removed_or_doubled_line_is_believed(file: Path) -> None:
    whole = content(read_side(file))
    lines = file.read_text().splitlines(keepends=True)
    for place in range(len(lines)):
        for left in (
            [*lines[:place], *lines[place + 1 :]],
            [*lines[: place + 1], *lines[place:]],
        ):
            file.write_text("".join(left), encoding="utf-8")
            try:
                read = read_side(file)
            except RecordError:
                continue
            assert content(read) == whole  # the opening line of a list, on a line of its own


def test_a_row_that_is_gone_is_noticed_although_the_json_is_valid(file: Path) -> None:
    stored = json.loads(file.read_text())
    assert "differ" in refused(file, json.dumps(stored | {"cells": stored["cells"][1:]}))
    alone = json.dumps(stored | {"cells": stored["cells"][:-1]})
    assert "they are not the rows that were saved together" in refused(file, alone)


def test_a_row_of_another_version_is_named(file: Path) -> None:
    """As a merge would take it, together with a file's checksum that fits."""
    stored = json.loads(file.read_text())
    write_baseline(made_up("two", "one"), file, gibbon="0")  # other noise for each of the models
    other = json.loads(file.read_text())
    stored.pop("checksum")
    rows = {row["attack"] + row["epsilon"]: row for row in other["cells"] if row["model"] == "one"}
    stored["cells"][1] = rows["fgsm0.1"]
    message = refused(file, with_checksum(json.dumps(stored)))
    assert "damaged, or merged: the row of d, one, fgsm at epsilon" in message
    assert "save it again with `baseline save`" in message


def test_the_order_of_rows_does_not_matter(file: Path) -> None:
    stored = json.loads(file.read_text())
    before = content(read_side(file))
    stored.pop("checksum")
    stored["cells"].reverse()
    file.write_text(with_checksum(json.dumps(stored)))
    assert sorted(map(str, content(read_side(file)))) == sorted(map(str, before))


def test_line_endings_and_indentation_do_not_matter(file: Path) -> None:
    before, text = content(read_side(file)), file.read_text()
    file.write_bytes(text.replace("\n", "\r\n").encode())
    assert content(read_side(file)) == before
    file.write_text(json.dumps(json.loads(text), indent=4))
    assert content(read_side(file)) == before


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_merge_conflict_is_named_as_such(file: Path, ending: str) -> None:
    lines = file.read_text().splitlines()
    conflict = ["<<<<<<< HEAD", lines[6], "=======", lines[7], ">>>>>>> other"]
    text = ending.join([*lines[:6], *conflict, *lines[8:]])
    file.write_bytes(text.encode())
    with pytest.raises(RecordError, match="line 7: a merge has left its conflict markers"):
        read_side(file)
    done = CliRunner().invoke(app, ["compare", str(file), str(file)])
    assert isinstance(done.exception, RecordError)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_earlier_versions_are_read(file: Path, version: int) -> None:
    before = content(read_side(file))
    earlier_baselines.rewrite(file, version)
    read = content(read_side(file))
    assert read[:-1] == before[:-1]
    assert read[-1] == ([] if version == 2 else before[-1])


@pytest.mark.parametrize("version", [2, 3, 4])
def test_a_version_that_lost_its_number_is_not_taken_for_an_earlier_one(
    file: Path, version: int
) -> None:
    text = file.read_text().replace('"version": 5', f'"version": {version}')
    assert "damaged" in refused(file, text)
