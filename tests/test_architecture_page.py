"""The page on the architecture: each function and class that it links to stands in that file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
LINK = re.compile(r"\[`([^`]+)`\]\(([^)#]+\.py)\)")


def names_in(file: Path) -> set[str]:
    """The names that a file defines at its top level, and the methods of its classes."""
    found = {file.stem, file.name}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {each.id for each in node.targets if isinstance(each, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        if isinstance(node, ast.ClassDef):
            methods = [each.name for each in node.body if isinstance(each, ast.FunctionDef)]
            found |= {f"{node.name}.{method}" for method in methods}
    return found


@pytest.mark.parametrize(("name", "place"), sorted(set(LINK.findall(PAGE.read_text("utf-8")))))
def test_a_linked_name_stands_in_its_file(name: str, place: str) -> None:
    file = PAGE.parent / place
    assert file.is_file()
    assert name in names_in(file)


def test_every_floor_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for package in ("cli", "api", "runner", "verify", "attacks", "report", "models", "datasets"):
        assert f"benchmark/gibbon/{package}/" in text
