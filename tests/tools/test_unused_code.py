"""Unused code is found, and a class that is registered by its name is not unused."""

from __future__ import annotations

import fnmatch
import tomllib
from pathlib import Path

import pytest
from vulture import Vulture

from tools.unused_code import find_unused_code

SETTINGS = """
[tool.vulture]
paths = ["package"]
min_confidence = 60
ignore_names = ["version"]
ignore_decorators = ["@*.command"]
"""
ATTACK = """
class Swirl:
    version = 2
    def propose(self): return self.propose
"""


def checkout(folder: Path, **modules: str) -> Path:
    (folder / "pyproject.toml").write_text(SETTINGS, encoding="utf-8")
    (folder / "package").mkdir()
    for name, source in modules.items():
        (folder / "package" / f"{name}.py").write_text(source, encoding="utf-8")
    return folder


@pytest.mark.parametrize("reference", ["swirl:Swirl", "package.swirl:Swirl"])
def test_a_registered_class_is_used(tmp_path: Path, reference: str) -> None:
    root = checkout(tmp_path, swirl=ATTACK, names=f"print([('swirl', {reference!r}, 'turns')])")
    assert find_unused_code(root) == 0


@pytest.mark.parametrize("mention", ["Swirl", "a text on swirl:Swirl and more", "swirl:Other"])
def test_a_class_that_nothing_refers_to_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mention: str
) -> None:
    root = checkout(tmp_path, swirl=ATTACK, names=f"print({mention!r})")
    assert find_unused_code(root) != 0
    assert "unused class 'Swirl'" in capsys.readouterr().out


def test_every_exception_is_needed() -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    settings = project["tool"]["vulture"]
    finder = Vulture(ignore_decorators=settings["ignore_decorators"])
    finder.scavenge([root / each for each in settings["paths"]])
    unused = {each.name for each in finder.get_unused_code(settings["min_confidence"])}
    assert not [each for each in settings["ignore_names"] if not fnmatch.filter(unused, each)]
