"""The contracts of import-linter say what their names say."""

from __future__ import annotations

import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
CONTRACTS = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def contract(start: str) -> dict[str, list[str]]:
    (found,) = [each for each in CONTRACTS if each["name"].startswith(start)]
    return found


def floors() -> list[list[str]]:
    """The packages of each floor, the lowest first."""
    layers = contract("Floors")["layers"]
    return [[f"gibbon.{name.strip()}" for name in layer.split("|")] for layer in reversed(layers)]


def test_the_zoo_may_import_no_package_above_floor_4() -> None:
    above = [name for floor in floors()[4:] for name in floor]
    assert len(above) > 8
    assert sorted(contract("The zoo imports floors 1 to 4 only")["forbidden_modules"]) == sorted(
        above
    )


def test_every_package_is_on_a_floor() -> None:
    house = PROJECT.parent / "benchmark" / "gibbon"
    packages = {f"gibbon.{each.parent.name}" for each in house.glob("*/__init__.py")}
    modules = {f"gibbon.{each.stem}" for each in house.glob("*.py") if each.stem != "__init__"}
    assert packages | modules == {name for floor in floors() for name in floor}
