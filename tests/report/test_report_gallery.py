"""Galleries on the page and in TensorBoard: pictures, answers in words, and what is odd."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up import HIGH, made_up_record
from PIL import Image
from stored_pictures import gallery, write
from test_report_page import EVIL, Tree, section
from test_report_tensorboard import read_back

from gibbon.records.gallery import gallery_file
from gibbon.records.run import RunRecord
from gibbon.report.content.chart_data.gallery import gallery_sheet, gallery_view
from gibbon.report.content.parts.lookup import Condition
from gibbon.report.html.page import report_html
from gibbon.report.tensorboard.writer import write_tensorboard

CUT = Condition("mnist", "fgsm", HIGH)
CLASSES = ("zero", "one")


@pytest.fixture
def pictured(tmp_path: Path) -> tuple[RunRecord, Path]:
    record = made_up_record()
    evaluations = tuple(
        each.model_copy(update={"digest": "the-cell"})
        if (each.model, each.attack, each.epsilon) == ("maxout", "fgsm", HIGH)
        else each
        for each in record.evaluations
    )
    write(tmp_path, replace(gallery(), digest="the-cell"))
    return record.model_copy(update={"evaluations": evaluations}), tmp_path


def decoded(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_pictures_are_those_of_the_gallery() -> None:
    made = gallery(3)
    view = gallery_view("maxout", CUT, made, CLASSES)
    (first, *_) = view.rows[0].examples
    for address, picture in zip(first.pictures, made.pictures(0), strict=True):
        np.testing.assert_array_equal(decoded(address), picture.transpose(1, 2, 0))


def test_random_and_chosen_examples_stand_apart_with_their_answers() -> None:
    view = gallery_view("maxout", CUT, gallery(), CLASSES)
    assert [strip.title for strip in view.rows] == ["Random examples", "Chosen examples"]
    random, chosen = (strip.examples for strip in view.rows)
    assert [each.title for each in random] == ["#3: zero"]
    assert [each.notes[0] for each in chosen] == [
        "misclassified with the greatest confidence",
        "withstood",
    ]
    assert (str(random[0].before), str(random[0].after)) == (
        "zero, 90.0 % (right)",
        "one, 60.0 % (wrong)",
    )
    assert "unchanged" in chosen[1].notes
    assert "Adversarial: one, 60.0 % (wrong)." in random[0].words


def test_a_damaged_one_is_named(pictured: tuple[RunRecord, Path]) -> None:
    record, folder = pictured
    assert "can't be read" not in report_html(record, folder)
    gallery_file(folder, "the-cell").write_bytes(b"PK")
    page = report_html(record, folder)
    assert "pictures/the-cell.npz, of maxout, can't be read and is left out" in page
    assert "holds no pictures" not in page


def test_what_is_odd_is_said() -> None:
    made = gallery()
    invalid = replace(made, valid=np.zeros(3, dtype=bool), shape=(600, 500))
    view = gallery_view("maxout", CUT, invalid, ())
    (example,) = view.rows[0].examples
    assert "out of the threat model: not counted" in example.notes
    assert example.title == "#3: class 0"
    assert any("Pictures of 600 × 500 shown at 6 × 5" in note for note in view.notes)
    narrow = gallery_view("maxout", CUT, replace(made, low=-3.1, high=2.0, narrowed=True), ())
    assert any("drawn from −3.1, black, to 2, white" in note for note in narrow.notes)


def test_the_page_shows_them_and_says_where_there_are_none(
    pictured: tuple[RunRecord, Path], tmp_path: Path
) -> None:
    page = Tree(report_html(*pictured)).root
    shown = section(page, "pictures")
    assert len(shown.every("img")) == 9
    assert all(each.attributes["alt"] for each in shown.every("img"))
    assert "maxout, fgsm, ε = 0.25, on mnist" in shown.words
    none = section(Tree(report_html(made_up_record(), tmp_path / "nowhere")).root, "pictures")
    assert "holds no pictures" in none.words


def test_class_names_are_never_markup(pictured: tuple[RunRecord, Path]) -> None:
    record, folder = pictured
    cards = tuple(
        each.model_copy(update={"classes": (EVIL, *each.classes[1:])}) for each in record.datasets
    )
    page = Tree(report_html(record.model_copy(update={"datasets": cards}), folder)).root
    assert len(page.every("script")) == 1
    assert EVIL in section(page, "pictures").words


def test_tensorboard_has_a_sheet_of_each(pictured: tuple[RunRecord, Path]) -> None:
    record, folder = pictured
    write_tensorboard(record, folder / "tensorboard", pictures=folder)
    summary, event = read_back(folder / "tensorboard")["mnist/maxout"]["gallery/fgsm"]
    assert summary.plugin_data.plugin_name == "images"
    assert event.step == 250
    sheet = np.asarray(Image.open(io.BytesIO(event.tensor_proto.string_val[2])))
    assert sheet.shape[0] > 3 * 84
    assert (sheet != 255).any()


def test_a_sheet_copes_with_any_text() -> None:
    assert gallery_sheet(gallery(), ("犬", "ñandú")).startswith(b"\x89PNG")


def test_classes_are_named_where_the_suite_calls_the_dataset_something_else(
    pictured: tuple[RunRecord, Path],
) -> None:
    record, folder = pictured
    names = tuple(f"class-{place}" for place in range(10))
    cards = tuple(
        each.model_copy(update={"name": f"source-of-{each.name}", "classes": names})
        for each in record.datasets
    )
    assert len(cards) == len(record.suite.experiments)
    page = Tree(report_html(record.model_copy(update={"datasets": cards}), folder)).root
    assert "class-" in section(page, "pictures").words
    assert "mnist (source-of-mnist)" in section(page, "provenance").words
