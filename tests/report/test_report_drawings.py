"""Drawings of illustrations: the same bytes each time, in both formats, and in words."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from made_up import made_up_record
from stored_pictures import EVERY
from test_report_page import Tree, section

from gibbon.records.illustration import FOLDER, Addition, Filters, Illustration, save_illustration
from gibbon.report.documents import write_figures
from gibbon.report.figures import figure_files
from gibbon.report.figures.illustrations import draw
from gibbon.report.html.page import report_html


@pytest.mark.parametrize("illustration", EVERY, ids=lambda each: each.kind)
def test_both_formats_are_drawn_and_the_same_each_time(illustration: Illustration) -> None:
    drawing = draw(illustration)
    read = ElementTree.fromstring(drawing.svg)  # noqa: S314  ours
    assert (
        read.findtext("{http://www.w3.org/2000/svg}title")
        == f"{drawing.title}. {drawing.description}"
    )
    assert drawing.png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", drawing.png[16:24])
    assert width > height > 100
    with mpl.rc_context({"svg.hashsalt": "another", "font.size": 22}):
        again = draw(illustration)
    assert (again.svg, again.png) == (drawing.svg, drawing.png)


def test_dollar_signs_are_text() -> None:
    (addition,) = (each for each in EVERY if isinstance(each, Addition))
    drawing = draw(replace(addition, source=r"from the shop $\nosuch$ for $5"))
    assert r"$\nosuch$ for $5" in drawing.svg.decode()


def test_the_words_say_the_numbers() -> None:
    addition, linear, _, sweep = (draw(each).description for each in EVERY)
    assert "“espresso” with a confidence of 95.0 % (right)" in addition
    assert "“<consomme>” with a confidence of 19.0 % (wrong)" in addition
    assert "1.60 % are misclassified clean, 99.0 % attacked" in linear
    assert "of these 3 are then misclassified" in linear
    assert "as one, for ε from -1 to 0, from 2 to 2" in sweep
    assert "at the ends as zero and one" in sweep


def test_smoother_filters_are_said_to_be_smoother() -> None:
    slope = np.broadcast_to(np.arange(8.0), (9, 8, 8))
    noise = np.random.default_rng(1).normal(size=(9, 8, 8))
    both = np.stack([slope, noise]).astype(np.float16)
    words = draw(Filters(title="t", models=("slope", "noise"), filters=both)).description
    said = {name: float(words.split(f"{name} ")[-1].split(",")[0].split(";")[0])
            for name in ("slope", "noise")}  # fmt: skip
    assert said["slope"] < 0.5 < said["noise"]


def test_the_page_shows_them_with_their_words(tmp_path: Path) -> None:
    for each in EVERY:
        save_illustration(each, tmp_path / FOLDER)
    page = Tree(report_html(made_up_record(), tmp_path)).root
    pictures = section(page, "illustrations").every("img")
    assert [each.attributes["alt"] for each in pictures] == [
        draw(each).description for each in EVERY
    ]
    assert all(each.attributes["src"].startswith("data:image/") for each in pictures)


def test_figures_are_written_in_both_formats(tmp_path: Path) -> None:
    (addition,) = (each for each in EVERY if isinstance(each, Addition))
    save_illustration(addition, tmp_path / FOLDER)
    written = write_figures(made_up_record(), tmp_path, tmp_path / "new" / "folder")
    names = {path.name for path in written}
    assert {"addition.svg", "addition.png", "error-against-epsilon.svg"} <= names
    assert {"transfer-mnist-fgsm-error.svg", "transfer-mnist-fgsm-error.png"} <= names
    assert len(names) == len(written) == 2 * (1 + 1 + 4)
    assert all(path.stat().st_size > 1000 for path in written)


def test_names_that_differ_in_signs_alone_have_figures_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for drawing in ("rendered", "transfer_heat_map", "error_curves"):
        monkeypatch.setattr(figure_files, drawing, lambda *_: b"drawn")
    record = made_up_record()
    first = record.suite.experiments[0]
    experiments = tuple(
        first.model_copy(update={"dataset": first.dataset.model_copy(update={"name": name})})
        for name in ("a.b", "a-b", "A-B")
    )
    suite = record.suite.model_copy(update={"experiments": experiments})
    named = figure_files.figure_files(record.model_copy(update={"suite": suite}), tmp_path)
    names = [name for name, _ in named]
    assert len(names) == len(set(names))
    assert {f"transfer-a-b-fgsm-error{end}.svg" for end in ("", "-2", "-3")} <= set(names)
