"""Prints the packages that an installed Gibbon needs, with the exact versions of this environment.

``python -m tools.release.runtime_requirements [PACKAGE]`` prints one ``name==version`` a line,
the packages that these packages need included, without those of extras.  It is what the software
bill of materials of a release is made from.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

PACKAGE = "gibbon-bench"


def runtime_requirements(package: str = PACKAGE) -> list[str]:
    """Returns ``name==version`` of all packages that a package needs, sorted.

    Raises PackageNotFoundError if one of them is not installed.
    """
    names = sorted(needed_packages(package).keys() - {canonicalize_name(package)})
    # Without the local label of a build of a version, such as +cu130.
    return [f"{name}=={distribution(name).version.partition('+')[0]}" for name in names]


def needed_packages(package: str = PACKAGE) -> dict[str, set[str]]:
    """Returns the packages that a package and all packages that it needs need directly, by name.

    Raises PackageNotFoundError if one of them is not installed.
    """
    found: dict[str, set[str]] = {}
    waiting = [(canonicalize_name(package), frozenset[str]())]
    done: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in done:
            continue
        done.add((name, extras))
        needed = list(_needed(name, extras=extras))
        found.setdefault(name, set()).update(each for each, _ in needed)
        waiting += needed
    return found


def _needed(
    package: str, *, extras: frozenset[str]
) -> Iterator[tuple[NormalizedName, frozenset[str]]]:
    for text in distribution(package).requires or ():
        requirement = Requirement(text)
        chosen = [{"extra": extra} for extra in (*extras, "")]
        marker = requirement.marker
        if marker is None or any(marker.evaluate(each) for each in chosen):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def main() -> int:
    """Prints the requirements; returns the exit code."""
    try:
        lines = runtime_requirements(*sys.argv[1:2])
    except PackageNotFoundError as error:
        sys.stderr.write(f"error: {error} is not installed: run `make test` first\n")
        return 2
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
