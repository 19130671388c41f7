"""The pages of the documentation say what the code does."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gibbon.attacks import ATTACKS
from gibbon.conformance.laws import LAWS
from gibbon.core.registry import Entry

ATTACKS_PAGE = Path(__file__).parents[1] / "docs" / "attacks.md"
ROOT = ATTACKS_PAGE.parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
ENTRY_POINTS = {"gibbon.attack_sources", "gibbon.trainers"}  # groups that are no modules, too
FOLDERS = r"(?:benchmark|model_zoo|tests|tools|docs|results|\.ci)"
# Files of a user's own repository or run, which the pages name as examples.
EXAMPLES = ("results/runs", "tests/robustness")


def attack_lines() -> list[str]:
    """Returns the table of our own attacks, as it must stand on the page."""
    ours = [entry for entry in ATTACKS.entries() if entry.origin == "gibbon"]
    head = [
        "| attack | description | norms | parameters and defaults |",
        "| --- | --- | --- | --- |",
    ]
    return head + [
        f"| `{entry.name}` | {linked(entry)} | {norms(entry)} | {parameters(entry)} |"
        for entry in ours
    ]


def linked(entry: Entry[Any]) -> str:
    """Returns the line about an attack; its last words lead to the paper that its module names."""
    text = inspect.getdoc(inspect.getmodule(entry.load())) or ""
    found = re.search(r"Sources?: .*?(https://\S+?)[.,;]?(?:\s|$)", text, re.DOTALL)
    place, bracket, words = entry.summary.partition(" (")
    if found is None or not bracket or not any(letter.isdigit() for letter in words):
        return entry.summary
    return f"{place} ([{words.removesuffix(')')}]({found[1]}))"


def norms(entry: Entry[Any]) -> str:
    return ", ".join(norm.symbol for norm in entry.load().norms)


def parameters(entry: Entry[Any]) -> str:
    fields = dataclasses.fields(entry.load())
    return ", ".join(f"`{field.name}`{default(field)}" for field in fields) or "none"


def default(field: dataclasses.Field[Any]) -> str:
    given = field.default
    given = getattr(given, "default", given)  # pydantic keeps its own record of a field
    if given is dataclasses.MISSING or repr(given) == "PydanticUndefined":
        return ""
    words = {True: "true", False: "false", None: "by rule"}
    if given is None or isinstance(given, bool):
        return f" {words[given]}"
    return f" {given:.4g}" if isinstance(given, float) else f" {given}"


def test_the_table_of_attacks_is_what_the_registry_says() -> None:
    page = ATTACKS_PAGE.read_text(encoding="utf-8")
    table = "\n".join(attack_lines())
    assert table in page, f"docs/attacks.md must hold:\n{table}"


def test_the_page_names_every_law() -> None:
    page = ATTACKS_PAGE.read_text(encoding="utf-8")
    for each in LAWS:
        assert f"| `{each.name}` | {each.says} |" in page


def unfenced(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


def dotted_names(text: str) -> Iterator[str]:
    """Yields every name in our packages, also those that the code of a page imports."""
    yield from re.findall(r"(?<![\w./-])(?:gibbon|gibbon_zoo|tools)(?:\.[A-Za-z_]\w*)+", text)
    for module, names in re.findall(r"from ((?:gibbon|gibbon_zoo)[\w.]*) import ([\w, ]+)", text):
        yield from (f"{module}.{name.strip()}" for name in names.split(","))


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", unfenced(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_of_our_code_exist(page: Path) -> None:
    names = set(dotted_names(page.read_text(encoding="utf-8"))) - ENTRY_POINTS
    assert not [name for name in sorted(names) if not resolves(name)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_paths_of_the_repository_exist(page: Path) -> None:
    text = re.sub(r"\]\([^)]*\)", "", unfenced(page.read_text(encoding="utf-8")))
    paths = {path.rstrip("./") for path in re.findall(rf"(?<![\w./-]){FOLDERS}/[\w./-]*", text)}
    missing = [path for path in sorted(paths) if not (ROOT / path).exists()]
    assert not [path for path in missing if not path.startswith(EXAMPLES) and "NAME" not in path]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", unfenced(page.read_text(encoding="utf-8")))
    for link in links:
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
