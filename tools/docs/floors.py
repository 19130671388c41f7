"""The drawings of the floors and of the packages inside packages.

The floors are those of the contract that import-linter holds.

>>> print(floors_text(["cli | api", "core"], {"cli": "commands", "api": "calls", "core": "types"}))
2  cli   commands
   api   calls
1  core  types
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gibbon.core.errors import SpecError

PACKAGES = Path("benchmark") / "gibbon"


def draw_floors(project: Path) -> str:
    """Returns the floors of the layers contract in a ``pyproject.toml``, one line for each package.

    Beside each stands the summary of its docstring.

    Raises `SpecError` if the file has no layers contract, or something on it has no docstring.
    """
    settings = tomllib.loads(project.read_text(encoding="utf-8"))
    contracts: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    layers = next((each["layers"] for each in contracts if each["type"] == "layers"), None)
    if layers is None:
        raise SpecError("there is no contract of type layers", where=str(project))
    folder = project.parent / PACKAGES
    names = [name for layer in layers for name in _packages(layer)]
    return floors_text(layers, {name: _summary(folder / name) for name in names})


def floors_text(layers: Sequence[str], summaries: Mapping[str, str]) -> str:
    """Returns numbered floors, the highest first, each package with its summary.

    Args:
        layers: the layers of the contract, the highest first; siblings are separated by ``|``.
        summaries: a sentence on each package.
    """
    width = max(len(name) for layer in layers for name in _packages(layer))
    lines = []
    for floor, layer in zip(range(len(layers), 0, -1), layers, strict=True):
        for place, name in enumerate(_packages(layer)):
            number = f"{floor}" if place == 0 else " "
            lines.append(f"{number}  {name:<{width}}  {summaries[name]}")
    return "\n".join(lines)


def draw_rooms(folder: Path) -> str:
    """Returns the packages that hold packages, and under each what it holds, with summaries.

    Raises `SpecError` if one of them has no docstring.
    """
    rows: list[tuple[str, str]] = []
    for package in _inner_packages(folder):
        if _inner_packages(package):
            rows.append((package.name, ""))
            rows += _rooms(package, "  ")
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {summary}".rstrip() for name, summary in rows)


def _rooms(package: Path, indent: str) -> Iterator[tuple[str, str]]:
    for inner in _inner_packages(package):
        yield f"{indent}{inner.name}", _summary(inner)
        yield from _rooms(inner, f"{indent}  ")


def _inner_packages(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob("*/__init__.py"))


def _packages(layer: str) -> list[str]:
    return [name.strip() for name in layer.split("|")]


def _summary(place: Path) -> str:
    package = place / "__init__.py"
    file = package if package.exists() else place.with_suffix(".py")
    source = file.read_text(encoding="utf-8") if file.exists() else ""
    docstring = ast.get_docstring(ast.parse(source))
    if not docstring:
        raise SpecError("must begin with a docstring on its content", where=str(file))
    return docstring.split("\n\n")[0].replace("\n", " ").removesuffix(".")
