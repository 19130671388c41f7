"""The page: offline, escaped, well-formed, readable without colours, and honest about failures."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from made_up import EXAMPLES, HIGH, attacked, clean, made_up_record, searching_record
from test_report_whole_curves import DIGEST, NEAREST, outcome

from gibbon.records.flags import Flag
from gibbon.records.run import ModelCard, RunRecord
from gibbon.report.content.chart_data.heat_map import colours, contrast
from gibbon.report.html.charts import COLOURS, model_styles
from gibbon.report.html.page import report_html
from gibbon.runner.run_folder import RunFolder
from gibbon.specs.decoding import parse_suite

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&`"
VOID = {"meta", "input", "img", "br", "hr", "link"}
TEMPLATES = Path(__file__).parents[2] / "benchmark" / "gibbon" / "report" / "html" / "templates"


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def elements(self) -> list[Element]:
        return [each for each in self.children if isinstance(each, Element)]

    def every(self, *tags: str) -> list[Element]:
        below = [each for child in self.elements for each in child.every(*tags)]
        return ([self] if self.tag in tags or not tags else []) + below

    @property
    def words(self) -> str:
        return "".join(
            child.words if isinstance(child, Element) else child for child in self.children
        )


class Tree(HTMLParser):
    """Parses a page strictly: what is opened is closed, in that order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(page)
        self.close()
        assert self.open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, names)
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(record: RunRecord, folder: Path) -> Element:
    return Tree(report_html(record, folder)).root


def section(page: Element, ident: str) -> Element:
    return next(each for each in page.every("section") if each.attributes["id"] == ident)


@pytest.fixture
def page(record: RunRecord, tmp_path: Path) -> Element:
    return read(record, tmp_path)


@pytest.fixture
def with_outcomes(tmp_path: Path) -> tuple[RunRecord, Path]:
    before = searching_record()
    row = attacked("mnist", "softmax", "fmn", HIGH, 0, nearest_found=900, digest=DIGEST)
    record = before.model_copy(
        update={
            "models": (before.models[0].model_copy(update={"digest": "softmax"}),),
            "evaluations": (clean("mnist", "softmax", confidence=0.61), row),
            "members": (),
        }
    )
    with RunFolder.open(tmp_path / "run", suite="searches") as opened:
        opened.write(DIGEST, outcome(NEAREST))
    return record, tmp_path / "run"


def test_nothing_is_loaded_from_anywhere(page: Element) -> None:
    for each in page.every():
        for name in {"src", "href", "srcset", "action", "data", "poster"} & each.attributes.keys():
            assert each.attributes[name].startswith(("#", "data:")), each
        assert each.tag not in {"link", "iframe", "object", "base"}
    style = page.every("style")[0].words
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_names_the_one_script_that_runs(page: Element) -> None:
    (script,) = page.every("script")
    digest = base64.b64encode(hashlib.sha256(script.words.encode()).digest()).decode()
    policy = next(
        each.attributes["content"]
        for each in page.every("meta")
        if each.attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_text_of_files_is_never_markup(tmp_path: Path) -> None:
    record = made_up_record()
    failure = record.failures[0].model_copy(update={"error": EVIL, "traceback": EVIL})
    card = record.models[0].model_copy(update={"notes": (EVIL,), "outputs": EVIL, "model": EVIL})
    record = record.model_copy(
        update={
            "suite": record.suite.model_copy(update={"title": EVIL, "description": EVIL}),
            "failures": (failure,),
            "flags": (Flag(kind="zero-gradient", model=EVIL, sentence=EVIL, suite=EVIL),),
            "models": (card, *record.models[1:]),
            "evaluations": tuple(
                each.model_copy(update={"flags": EVIL, "parameters": EVIL, "model": EVIL})
                if each.model == "softmax"
                else each
                for each in record.evaluations
            ),
        }
    )
    text = report_html(record, tmp_path)
    page = Tree(text).root
    assert len(page.every("script")) == 1
    assert not page.every("img")
    assert not any(name.startswith("on") for each in page.every() for name in each.attributes)
    assert EVIL in page.every("h1")[0].words
    assert "<script>alert" not in text


def test_models_are_named_safely_in_pictures(tmp_path: Path) -> None:
    record = made_up_record()
    experiments = tuple(
        each.model_copy(
            update={
                "models": tuple(
                    model.model_copy(update={"name": EVIL}) if model.name == "softmax" else model
                    for model in each.models
                )
            }
        )
        for each in record.suite.experiments
    )
    renamed = record.model_copy(
        update={
            "suite": record.suite.model_copy(update={"experiments": experiments}),
            "evaluations": tuple(
                each.model_copy(update={"model": EVIL}) if each.model == "softmax" else each
                for each in record.evaluations
            ),
        }
    )
    page = read(renamed, tmp_path)
    assert len(page.every("script")) == 1
    assert any(EVIL in each.words for each in section(page, "curves").every("svg"))


def test_pictures_are_xml_and_say_in_words_what_they_show(
    with_outcomes: tuple[RunRecord, Path],
) -> None:
    text = report_html(*with_outcomes)
    page = Tree(text).root
    named = {each.attributes["id"] for each in page.every() if "id" in each.attributes}
    pictures = [each for each in page.every("svg") if each.attributes.get("role") == "img"]
    assert len(pictures) >= 2
    for each in pictures:
        assert set(each.attributes["aria-labelledby"].split()) <= named
        assert [child.tag for child in each.elements[:2]] == ["title", "desc"]
        assert all(child.words.strip() for child in each.elements[:2])
    for written in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(written)  # noqa: S314  ours
    others = [each for each in page.every("svg") if each not in pictures]
    assert all(each.attributes["aria-hidden"] == "true" for each in others)


def test_what_is_named_is_named_once_and_every_link_leads_somewhere(page: Element) -> None:
    named = Counter(each.attributes["id"] for each in page.every() if "id" in each.attributes)
    assert set(named.values()) == {1}
    for each in page.every("a"):
        assert each.attributes["href"].removeprefix("#") in named
    for each in page.every():
        for name in ("aria-labelledby", "for"):
            assert set(each.attributes.get(name, "").split()) <= named.keys()


def test_failures_and_flags_follow_the_headline_and_are_counted_before_it(page: Element) -> None:
    second, first = page.every("section")[:2]
    assert (first.attributes["id"], second.attributes["id"]) == ("trouble", "headline")
    (header,) = page.every("header")
    assert "Don't use these numbers yet" in header.words or "cells failed" in header.words
    assert "4 failed cells" in first.words
    assert "Traceback: not printed" in first.words
    assert "a flag | of one cell" in first.words
    rows = [row.words.split() for row in second.every("tr")]
    broken = next(row for row in rows if row[:1] == ["broken"])
    assert broken.count("failed") == 3  # its robust accuracy, clean error and worst case
    assert not any("%" in word for word in broken)


def test_a_run_that_is_not_complete_says_so(tmp_path: Path) -> None:
    record = made_up_record().model_copy(update={"status": "running", "failures": (), "flags": ()})
    assert "This run is not complete" in section(read(record, tmp_path), "trouble").words


def test_a_good_run_says_what_was_checked(tmp_path: Path) -> None:
    record = made_up_record().model_copy(update={"status": "done", "failures": (), "flags": ()})
    words = section(read(record, tmp_path), "trouble").words
    assert "No cell failed." in words
    assert "passed candidates: 8 attacked cells | of 3 models" in words
    assert "flagged budgets: 5 budgets of the attacks" in words
    assert "nothing was flagged" not in words


def test_the_headline_takes_the_strongest_attack(page: Element) -> None:
    table = section(page, "headline").every("table")[0]
    rows = [[cell.words.strip() for cell in row.every("th", "td")] for row in table.every("tr")]
    found = (dict(zip(rows[0], row, strict=True)) for row in rows[1:])
    softmax = next(
        row for row in found if row["Model"] == "softmax" and "not clipped" in row["Threat"]
    )
    assert softmax["Robust accuracy"].startswith("0.0 %")  # fgsm and fgsm-naive together
    assert softmax["Worst-case error"].startswith("100.0 %")
    assert (softmax["Strongest attack"], softmax["Adversarial error"]) == ("fgsm", "99.9 %")


def test_heat_maps_have_a_number_in_every_cell(page: Element) -> None:
    maps = [
        each
        for each in section(page, "transfer").every("div")
        if "heat" in each.attributes["class"].split()
    ]
    assert len(maps) == 8  # four matrices at two epsilons
    for each in maps:
        assert all(cell.words.strip() for cell in each.every("td"))
    assert [cell.words for cell in maps[4].every("td")][:3] == ["99.9 %", "89.4 %", "not run"]
    assert {"failed"} == {cell.words for cell in maps[4].every("td")[-3:]}


def test_numbers_can_be_read_on_every_colour() -> None:
    for rate in range(101):
        background, ink = colours(rate / 100)
        assert contrast(background, ink) >= 4.5


@pytest.mark.parametrize("theme", [0, 1, 2])
def test_the_colours_of_the_page_stand_out_from_it(theme: int) -> None:
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(blocks) == 3  # light, dark, print
    named = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[theme]))
    for name in ("ink", "soft", "link", "bad", "warn", "well"):
        assert contrast(named[name], named["bg"]) >= 4.5, name
    assert contrast(named["bad"], named["bad-bg"]) >= 4.5
    assert contrast(named["warn"], named["warn-bg"]) >= 4.5
    for name in (*(f"s{place}" for place in range(COLOURS)), "right", "wrong", "bar"):
        assert contrast(named[name], named["bg"]) >= 3, name


def test_no_two_of_many_models_look_the_same() -> None:
    found = model_styles(f"model-{place}" for place in range(28))
    assert len({(each.marker, each.colour) for each in found.values()}) == 28


def test_what_a_phone_is_wide_enough_for_is_narrower_than_its_words() -> None:
    # Tracks of 1fr are as wide as their widest word: histograms' captions made the page scroll.
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    (phone,) = re.findall(r"@media \(max-width.*?\n}", style, re.DOTALL)
    assert "1fr 1fr" not in phone
    assert re.search(r"\.histogram figcaption {[^}]*white-space: normal", phone)


def test_headings_are_printed_on_every_page_of_a_table() -> None:
    # Chromium repeats a head of a table only where it holds no box that can't be broken.
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    printed = style[style.index("@media print") :]
    assert "thead { display: table-header-group; break-inside: avoid; }" in printed
    assert "th button { display: contents; }" in printed


def test_no_landmark_is_called_as_another(page: Element) -> None:
    landmarks = [
        each for each in page.every() if each.attributes.get("role") in {"region", "navigation"}
    ]
    assert not landmarks
    assert {each.attributes["aria-labelledby"] for each in page.every("section")} == {
        f"{each.attributes['id']}-heading" for each in page.every("section")
    }
    groups = [each for each in page.every("div") if each.attributes.get("role") == "group"]
    assert groups
    for each in groups:
        assert {"aria-labelledby", "aria-label"} & each.attributes.keys()
    assert not [each for each in page.every("figure") if "role" in each.attributes]


def test_one_model_without_attacks_or_transfer_is_enough(tmp_path: Path) -> None:
    suite = 'name = "small"\ndataset = "mnist"\nmodels = ["softmax"]\n'
    record = made_up_record().model_copy(
        update={
            "suite": parse_suite(suite, where="small.toml"),
            "status": "done",
            "evaluations": (clean("mnist", "softmax", confidence=0.61),),
            **dict.fromkeys(("transfers", "agreements", "worst_cases", "failures", "flags"), ()),
        }
    )
    page = read(record, tmp_path)
    idents = [each.attributes["id"] for each in page.every("section")]
    assert "transfer" not in idents
    assert "9.60 %" in section(page, "headline").words


def test_hundreds_of_rows_and_models_fit(tmp_path: Path) -> None:
    names = [f"model-{place}" for place in range(120)]
    suite = parse_suite(
        f'name = "many"\ndataset = "mnist"\nmodels = {names}\n'
        '[[attacks]]\nname = "fgsm"\nepsilon = ["8/255", "0.25"]\n',
        where="many.toml",
    )
    row = attacked("mnist", "softmax", "fgsm", HIGH, 300)
    before = made_up_record()
    record = before.model_copy(
        update={
            "suite": suite,
            "evaluations": tuple(row.model_copy(update={"model": name}) for name in names),
            "models": tuple(before.models[0].model_copy(update={"name": name}) for name in names),
            **dict.fromkeys(("transfers", "agreements", "worst_cases", "failures", "flags"), ()),
        }
    )
    page = read(record, tmp_path)
    large = [each for each in page.every("table") if "filtered" in each.attributes.get("class", "")]
    assert large
    assert len(report_html(record, tmp_path)) < 2_000_000


def test_attacks_that_search_have_their_curves_and_distances(
    with_outcomes: tuple[RunRecord, Path], tmp_path: Path
) -> None:
    page = read(*with_outcomes)
    (chart,) = [each for each in section(page, "curves").every("figure") if "fmn" in each.words]
    lines = [each for each in chart.every("path") if each.attributes.get("class") == "line"]
    assert any("V" in each.attributes["d"] for each in lines)  # steps
    page = read(searching_record(), tmp_path)
    assert {"Smallest adversarial distance", "Worst of several attacks"} <= {
        each.words.strip() for each in page.every("h2")
    }


def test_confidences_are_drawn_or_their_absence_told(
    with_outcomes: tuple[RunRecord, Path], page: Element
) -> None:
    assert "there is nothing to draw" in section(page, "confidence").words
    drawn = section(read(*with_outcomes), "confidence")
    (figure,) = drawn.every("figure")
    assert f"right: {EXAMPLES:,}" in figure.words
    assert "wrong: none" in figure.words


def test_the_model_cards_and_the_commit_stand_at_the_end(page: Element) -> None:
    last = page.every("section")[-1]
    assert last.attributes["id"] == "provenance"
    assert "abc1234, with uncommitted changes" in last.words
    assert "softmax-weights" in last.words


def test_a_model_card_without_notes_has_no_list(tmp_path: Path) -> None:
    record = made_up_record()
    card: ModelCard = record.models[0].model_copy(update={"notes": ("prefix stripped",)})
    noted = record.model_copy(update={"models": (card, *record.models[1:])})
    assert "softmax: prefix stripped" in section(read(noted, tmp_path), "provenance").words
