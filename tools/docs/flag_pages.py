"""Copies the pages about kinds of flags into ``docs/flags``, with a list of all kinds.

    python -m tools.docs.flag_pages [--check]

The pages are those of ``benchmark/gibbon/records/flag_pages``, which ``gibbon explain`` prints and
reports show.  With ``--check`` nothing is written, and the exit code is 1 if a copy is stale.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from gibbon.core.files import write_atomically
from gibbon.records.flag_kinds import KINDS, MEANINGS, PAGES, SEVERITIES, FlagKind

FOLDER = Path(__file__).parents[2] / "docs" / "flags"
INDEX = "README.md"
_HEAD = """\
# Kinds of flags

A flag is a sign that a number is better than the model or the attack behind it. Each has a kind
of the closed list below, a severity, the figure that was seen, and advice. `gibbon explain KIND`
prints the page of a kind; the HTML report contains the pages of the kinds that were raised.

| severity | meaning |
| --- | --- |"""


def pages() -> dict[str, str]:
    """Returns the files of ``docs/flags``, by name."""
    found = {file.name: file.read_text(encoding="utf-8") for file in sorted(PAGES.glob("*.md"))}
    return {INDEX: _index(found.keys()), **found}


def stale(folder: Path) -> list[str]:
    """Returns the names of the files of a folder that are missing, differ or are left over."""
    wanted = pages()
    there = {file.name: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.md"))}
    return sorted(name for name in wanted | there if wanted.get(name) != there.get(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when done or up to date, 1 if a copy is stale."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs.flag_pages", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if stale")
    options = parser.parse_args(arguments)
    names = stale(FOLDER)
    if options.check:
        for name in names:
            sys.stderr.write(f"{FOLDER / name} is stale: run python -m tools.docs.flag_pages\n")
        return 1 if names else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for name in names:
        if name in wanted:
            write_atomically(FOLDER / name, wanted[name])
        else:
            (FOLDER / name).unlink()
    return 0


def _index(files: Collection[str]) -> str:
    lines = [_HEAD, *(f"| {severity} | {MEANINGS[severity]} |" for severity in SEVERITIES), ""]
    lines += ["| kind | severity | what was seen |", "| --- | --- | --- |"]
    lines += [
        f"| {_linked(kind, files)} | {kind.severity} | {kind.title} |"
        for severity in SEVERITIES
        for kind in KINDS.values()
        if kind.severity == severity
    ]
    return "\n".join([*lines, ""])


def _linked(kind: FlagKind, files: Collection[str]) -> str:
    file = f"{kind.name}.md"
    return f"[{kind.name}]({file})" if file in files else kind.name


if __name__ == "__main__":
    raise SystemExit(main())
