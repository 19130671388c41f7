"""Checks the wheel and the source archive of a release: what must be in them, and what must not.

``python -m tools.release.check_archives dist`` fails if one of them is missing, lacks a file that
the package reads at run time, or holds a pickle or a file of a developer's machine.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path

NEEDED = (
    "gibbon/cli/app.py",
    "gibbon/py.typed",
    "gibbon/suites/smoke.toml",
    "gibbon/report/html/templates/page.html",
    "gibbon_zoo/weights/softmax.safetensors",
)
UNWANTED = (".pkl", ".pickle", ".pt", ".pth", ".pyc", ".env")


def faults(names: list[str], *, where: str) -> list[str]:
    """Returns a sentence for each missing or unwanted file of an archive.

    >>> faults(["a.pt"], where="x")[-1]
    'x: holds a.pt, which does not belong there'
    """
    lacking = [each for each in NEEDED if not any(name.endswith(each) for name in names)]
    held = [each for each in names if each.endswith(UNWANTED) or "/.venv" in each]
    return [
        *(f"{where}: has no {each}" for each in lacking),
        *(f"{where}: holds {each}, which does not belong there" for each in held),
    ]


def broken_links(description: str, *, where: str) -> list[str]:
    """Returns a sentence for each link of a package's description that is not absolute.

    >>> broken_links("[a](https://example.org) [b](docs/b.md)", where="x")
    ['x: the description links to docs/b.md, which leads nowhere on an index of packages']
    """
    links = re.findall(r"\]\(([^)\s]+)\)", description)
    return [
        f"{where}: the description links to {each}, which leads nowhere on an index of packages"
        for each in links
        if not each.startswith("https://")
    ]


def check(folder: Path) -> list[str]:
    """Returns what is wrong with the archives in a folder."""
    wheels, sources = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sources) != 1:
        return [
            f"{folder}: has {len(wheels)} wheels and {len(sources)} source archives, expected 1"
        ]
    with zipfile.ZipFile(wheels[0]) as wheel, tarfile.open(sources[0]) as source:
        (description,) = (each for each in wheel.namelist() if each.endswith("dist-info/METADATA"))
        return [
            *broken_links(wheel.read(description).decode(), where=wheels[0].name),
            *faults(wheel.namelist(), where=wheels[0].name),
            *faults(source.getnames(), where=sources[0].name),
        ]


def main() -> int:
    """Checks a folder; returns the exit code."""
    found = check(Path(sys.argv[1] if len(sys.argv) > 1 else "dist"))
    sys.stderr.write("".join(f"{each}\n" for each in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
