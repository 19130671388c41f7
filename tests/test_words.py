"""Names and prose use plain words: CONTRIBUTING.md's table, and the dictionary of codespell."""

from __future__ import annotations

import ast
import dataclasses
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gibbon.attacks import ATTACKS

ROOT = Path(__file__).parents[1]
DICTIONARY = ROOT / "tools" / "words" / "dictionary.txt"
SOURCES = ("benchmark/gibbon", "model_zoo/gibbon_zoo", "tools")

# Words that name no idea of the field, alone or as part of the name of a module, class or function.
UNCLEAR = frozenset(
    [
        *("abreast", "ahead", "asked", "asking", "beside", "findings", "fitting", "keeping"),
        *(
            "habits",
            "paces",
            "picking",
            "saving",
            "showing",
            "spool",
            "told",
            "turns",
            "worded",
            "wording",
        ),
    ]
)
# The usual word for reading before the content is needed.
USUAL = frozenset({"read_ahead"})

# A parameter of an attack is part of stored digests, and of users' suites: `square` keeps this name
# of the number of queries that are computed speculatively (CONTRIBUTING.md, "Plain words").
STORED_PARAMETERS = {"Square": "ahead"}


def phrases() -> list[str]:
    lines = DICTIONARY.read_text(encoding="utf-8").splitlines()
    return [line.partition("->")[0] for line in lines]


def parts(name: str) -> set[str]:
    return {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def names(file: Path) -> Iterator[str]:
    yield file.stem
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


@pytest.mark.parametrize("folder", SOURCES)
def test_modules_classes_and_functions_have_clear_names(folder: str) -> None:
    unclear = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for name in names(file)
        if name not in USUAL and parts(name) & UNCLEAR
    }
    assert not unclear, "\n".join(sorted(unclear))


def test_parameters_of_our_attacks_have_clear_names_but_for_stored_ones() -> None:
    own = [name for name in ATTACKS.names() if ATTACKS.get(name).origin == "gibbon"]
    unclear = {
        kind.__name__: field.name
        for kind in map(ATTACKS.load, own)
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if parts(field.name) & UNCLEAR
    }
    assert unclear == STORED_PARAMETERS


@pytest.mark.parametrize("phrase", phrases())
def test_codespell_finds_each_phrase(phrase: str) -> None:
    found = codespell_regex().finditer(f"if {phrase} examples")
    assert phrase in [each[0] for each in found]


def codespell_regex() -> re.Pattern[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    return re.compile(settings["codespell"]["regex"])


@pytest.mark.parametrize("folder", SOURCES)
def test_no_text_hides_a_phrase_in_a_line_break(folder: str) -> None:
    """Codespell reads lines; a phrase may be divided among lines, or among literals."""
    regex, avoided = codespell_regex(), frozenset(phrases())
    found = {
        f"{file.relative_to(ROOT)}:{node.lineno}: {match[0]}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for match in regex.finditer(" ".join(node.value.split()))
        if match[0].lower() in avoided
    }
    assert not found, "\n".join(sorted(found))


def test_the_dictionary_is_sorted_and_says_what_to_write() -> None:
    lines = DICTIONARY.read_text(encoding="utf-8").splitlines()
    assert lines == sorted(lines)
    assert all(re.fullmatch(r"[^A-Z]+->\S.*", line) for line in lines)
