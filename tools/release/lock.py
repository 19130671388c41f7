"""Writes the exact versions with the hashes of all their files: ``requirements-locked.txt``.

``python -m tools.release.lock [--index URL] [--more URL]... [--output FILE]`` reads the versions of
``constraints.txt``, and the hashes of every file that the index lists for them, of each platform
and version of Python, so that ``make install-locked`` accepts those files and no others.  A package
that some systems do not need gets a marker; which do is read from the metadata of the packages that
are installed here.

The index is a "simple" one that answers in JSON (PEP 691); without ``--index`` it is that of pip's
settings.  ``--more`` names indexes that serve other builds of some of the versions, such as torch's
own index of builds for the CPU: their hashes are added.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, distribution
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError

from packaging.requirements import Requirement
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    NormalizedName,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

ROOT: Final = Path(__file__).parents[2]
CONSTRAINTS: Final = ROOT / "constraints.txt"
LOCKED: Final = ROOT / "requirements-locked.txt"
PACKAGE: Final = "gibbon-bench"
EXTRAS: Final = frozenset({"dev", "docs"})
JSON: Final = "application/vnd.pypi.simple.v1+json"
SECONDS: Final = 120
SHA256: Final = re.compile(r"[0-9a-f]{64}")

# Systems and versions of Python that packages may need others for.
SYSTEMS: Final = {
    "linux": {"platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
    "darwin": {"platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
    "win32": {"platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
}
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")

HEAD: Final = """\
# The versions of constraints.txt with the hashes of all their files on the Python Package Index, of
# each platform and version of Python, for make install-locked; made by python -m tools.release.lock
"""


class IndexPlace(NamedTuple):
    """A system, as ``sys_platform`` names it, and a version of Python."""

    system: str
    python: str

    def environment(self) -> dict[str, str]:
        """Returns the values of markers in this place."""
        return {
            "sys_platform": self.system,
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_version": "",
            **SYSTEMS[self.system],
        }


PLACES: Final = tuple(IndexPlace(*each) for each in product(SYSTEMS, PYTHONS))


class LockError(Exception):
    """The file can't be written: the message says why."""


def versions(text: str) -> dict[str, Version]:
    r"""Returns the exact versions of a file of constraints, by name as it is written there.

    >>> versions("# exact\nJinja2==3.1.6\n")
    {'Jinja2': <Version('3.1.6')>}
    """
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    pairs = (line.partition("==") for line in lines if line)
    return {name: Version(version) for name, _, version in pairs}


def hashes(page: Any, version: Version) -> list[str]:
    """Returns the SHA-256 hashes of the files of a version on a project's page, sorted.

    The label of a local build, as in ``2.15.0+cpu``, makes no other version.

    Raises `LockError` if a file of the version has no such hash.
    """
    found = set()
    for file in page["files"]:
        if _version_of(file["filename"]) == version.public:
            digest = str(file["hashes"].get("sha256", ""))
            if not SHA256.fullmatch(digest):
                raise LockError(f"{file['filename']}: the index gives no SHA-256 of it")
            found.add(digest)
    return sorted(found)


def _version_of(file: str) -> str | None:
    try:
        parse = parse_wheel_filename if file.endswith(".whl") else parse_sdist_filename
        return parse(file)[1].public
    except (InvalidSdistFilename, InvalidWheelFilename, InvalidVersion):
        return None  # an archive of an earlier kind


def needed_in(
    package: str = PACKAGE, *, extras: frozenset[str] = EXTRAS
) -> dict[NormalizedName, set[IndexPlace]]:
    """Returns the places in which a package needs others, by their names, from what is installed.

    A package that is not installed here is taken to need nothing else.
    """
    found: dict[NormalizedName, set[IndexPlace]] = {}
    for place in PLACES:
        waiting = [(canonicalize_name(package), extras)]
        done = set()
        while waiting:
            name, wanted = waiting.pop()
            if (name, wanted) not in done:
                done.add((name, wanted))
                found.setdefault(name, set()).add(place)
                waiting += _needed(name, wanted, place)
    del found[canonicalize_name(package)]
    return found


def _needed(
    name: str, extras: frozenset[str], place: IndexPlace
) -> Iterator[tuple[NormalizedName, frozenset[str]]]:
    try:
        texts = distribution(name).requires or ()
    except PackageNotFoundError:
        return
    environments: list[dict[str, str]] = [
        {**place.environment(), "extra": each} for each in (*extras, "")
    ]
    for text in texts:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate(each) for each in environments):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def marker(systems: Iterable[str]) -> str:
    """Returns the marker of some systems, empty if they are all.

    >>> marker(["linux", "darwin"])
    'sys_platform == "darwin" or sys_platform == "linux"'
    >>> marker(SYSTEMS)
    ''
    """
    chosen = sorted(set(systems))
    return (
        ""
        if len(chosen) == len(SYSTEMS)
        else " or ".join(f'sys_platform == "{each}"' for each in chosen)
    )


def locked(
    wanted: Mapping[str, Version],
    pages: Mapping[str, Sequence[Any]],
    systems: Mapping[NormalizedName, set[str]],
) -> str:
    """Returns the text of a locked file.

    Args:
        wanted: exact versions by name.
        pages: the pages of each project on all indexes, the first one's first.
        systems: those that need a package; one that is not there is installed on all.

    Raises `LockError` if the first index has no file of a version, or if a package is needed that
    has no exact version.
    """
    known = {canonicalize_name(each) for each in wanted}
    if lost := sorted(systems.keys() - known):
        where = "; ".join(f"{each} ({', '.join(sorted(systems[each]))})" for each in lost)
        raise LockError(f"{CONSTRAINTS.name}: has no exact version of {where}")
    lines = [HEAD.rstrip()]
    for name, version in wanted.items():
        first, *others = pages[name]
        found = hashes(first, version)
        if not found:
            raise LockError(f"{name}=={version}: the index has no file of this version")
        found = sorted({*found, *(each for page in others for each in hashes(page, version))})
        condition = marker(systems.get(canonicalize_name(name), SYSTEMS))
        head = f"{name}=={version}" + (f" ; {condition}" if condition else "")
        lines.append(" \\\n    ".join([head, *(f"--hash=sha256:{each}" for each in found)]))
    return "\n".join(lines) + "\n"


def read_page(index: str, name: str) -> Any:
    """Returns the page of a project on an index; one without files if the index lacks it.

    Raises `LockError` if the index does not answer in JSON.
    """
    url = f"{index.rstrip('/')}/{canonicalize_name(name)}/"
    request = urllib.request.Request(url, headers={"Accept": JSON})  # noqa: S310  of the caller
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            return json.load(answer)
    except HTTPError as error:
        if error.code == 404:
            return {"files": []}
        raise LockError(f"{url}: {error}") from error
    except (OSError, ValueError) as error:
        raise LockError(f"{url}: gives no page in JSON ({error})") from error


def _index_of_pip() -> str:
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if not done.stdout.strip():
        raise LockError("pip's settings name no index: give its URL with --index")
    return done.stdout.strip()


def main(words: Sequence[str] | None = None) -> int:
    """Writes the file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.release.lock", description=__doc__)
    parser.add_argument("--index", help="URL of a simple index")
    parser.add_argument("--more", action="append", default=[], help="URL of one with other builds")
    parser.add_argument("--output", type=Path, default=LOCKED)
    given = parser.parse_args(words)
    try:
        indexes = [given.index or _index_of_pip(), *given.more]
        wanted = versions(CONSTRAINTS.read_text(encoding="utf-8"))
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda pair: read_page(*pair), product(indexes, wanted))
            each_page = list(found)
        count = len(wanted)
        by_index = [each_page[at : at + count] for at in range(0, len(each_page), count)]
        pages = dict(zip(wanted, zip(*by_index, strict=True), strict=True))
        systems = {name: {each.system for each in places} for name, places in needed_in().items()}
        given.output.write_text(locked(wanted, pages, systems), encoding="utf-8")
    except (LockError, PackageNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{given.output}: {len(wanted)} packages\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
