"""Finds unused code by vulture, which does not see classes that a registry loads by name.

The settings are in ``[tool.vulture]`` of ``pyproject.toml``.  In addition, a name that a string
refers to as ``"module:name"`` counts as used, as in ``("fgsm", "fgsm:FGSM", …)``: attacks, model
sources, architectures and dataset loaders are registered by such strings and loaded when needed.

    python -m tools.unused_code
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vulture import Vulture

from gibbon.attacks.adapters import ATTACK_SOURCES

PROJECT = Path("pyproject.toml")
REFERENCE = re.compile(r"[a-z_][\w.]*:([A-Za-z_]\w*)")


def registered_names(source: str) -> Iterator[str]:
    """Yields the names that strings of a module refer to as ``"module:name"``.

    >>> list(registered_names('ATTACKS = [("fgsm", "fgsm:FGSM", "one step: fast")]'))
    ['FGSM']
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = REFERENCE.fullmatch(node.value)
            if found:
                yield found[1]


def find_unused_code(root: Path) -> int:
    """Prints the unused code of a checkout, one line each, and returns vulture's exit code."""
    settings: dict[str, Any] = tomllib.loads((root / PROJECT).read_text(encoding="utf-8"))["tool"]
    vulture = settings["vulture"]
    folders = [root / each for each in vulture["paths"]]
    finder = Vulture(
        ignore_names=vulture["ignore_names"], ignore_decorators=vulture["ignore_decorators"]
    )
    finder.scavenge(folders)
    files = (file for folder in folders for file in sorted(folder.rglob("*.py")))
    used = {name for file in files for name in registered_names(file.read_text(encoding="utf-8"))}
    adapters = {name.upper() for name in ATTACK_SOURCES.names()}
    finder.used_names.update(used | adapters)
    return int(finder.report(min_confidence=vulture["min_confidence"]))


if __name__ == "__main__":
    sys.exit(find_unused_code(Path.cwd()))
