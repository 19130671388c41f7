"""Each kind of flag has a page; its examples are suites that can be read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gibbon.core.errors import SpecError
from gibbon.records.flag_kinds import ABOUT_ANSWERS, KINDS, PAGES, flag_page
from gibbon.report.html.kind_pages import blocks, kind_page
from gibbon.specs.decoding import parse_suite
from tools.docs import flag_pages

FILES = sorted(PAGES.glob("*.md"))
SECTIONS = ["What was seen", "Why it matters", "What to do", "Source"]
HEAD = 'name = "example"\ndataset = "mnist"\nmodels = ["softmax"]\n'


def test_every_kind_has_a_page_and_every_page_a_kind() -> None:
    assert {file.stem for file in FILES} == KINDS.keys()
    assert KINDS.keys() >= ABOUT_ANSWERS


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_page_has_its_sections_and_few_lines(file: Path) -> None:
    text = flag_page(file.stem)
    lines = text.splitlines()
    assert re.match(rf"# {file.stem}: \S", lines[0])
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert 15 <= len(lines) <= 45
    assert max(map(len, lines)) <= 125
    # A page is read in a terminal and inside a report, where a relative link leads nowhere.
    assert not re.search(r"\]\((?!https://)", text)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_suite_lines_of_a_page_can_be_read(file: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```", flag_page(file.stem), re.DOTALL | re.MULTILINE):
        found: dict[str, Any] = tomllib.loads(block)
        if "attacks" in found and "experiments" not in found:
            own = HEAD if "models" not in found else HEAD.splitlines()[0] + '\ndataset = "mnist"\n'
            assert parse_suite(own + block, where=file.name).experiments[0].attacks


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_page_becomes_blocks_without_losing_words(file: Path) -> None:
    page = kind_page(file.stem)
    assert page.title.startswith(f"{file.stem}: ")
    assert [each.lines[0] for each in page.blocks if each.tag == "heading"] == SECTIONS
    shown = " ".join(line for each in page.blocks for line in each.lines)
    _, _, rest = flag_page(file.stem).partition("\n")
    written = re.sub(r"^```\w*$|[#*`\[\]()<>-]|^ *\d+\. ", " ", rest, flags=re.MULTILINE)
    assert re.findall(r"\w+", re.sub(r"[*`\[\]()<>-]", " ", shown)) == re.findall(r"\w+", written)


def test_blocks_of_markdown() -> None:
    text = (
        "One\ntwo [a](https://b) **c**.\n\n1. first\n   more\n2. second\n```toml\nx = 1\n```\nEnd"
    )
    found = [(each.tag, each.lines) for each in blocks(text)]
    assert found == [
        ("paragraph", ("One two a (https://b) c.",)),
        ("list", ("first more", "second")),
        ("code", ("x = 1",)),
        ("paragraph", ("End",)),
    ]


def test_the_page_of_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'wide-budget'"):
        flag_page("wide-budgets")


def test_the_documentation_holds_the_pages_of_the_package() -> None:
    assert flag_pages.stale(flag_pages.FOLDER) == []


def test_stale_pages_are_named(tmp_path: Path) -> None:
    for name, text in flag_pages.pages().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert flag_pages.stale(tmp_path) == []
    (tmp_path / "gone.md").write_text("")
    (tmp_path / "wide-budget.md").write_text("else")
    (tmp_path / "README.md").unlink()
    assert flag_pages.stale(tmp_path) == ["README.md", "gone.md", "wide-budget.md"]
