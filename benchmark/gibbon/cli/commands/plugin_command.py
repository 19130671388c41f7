"""The command ``plugin new``: writes a package with an attack and a model for Gibbon."""

from __future__ import annotations

import keyword
import re
import sys
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import typer

from gibbon.cli.arguments import path
from gibbon.cli.output import say
from gibbon.cli.typer_apps import plugin_app
from gibbon.core.errors import RunFolderError, SpecError

_NAME: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9._-]{0,58}[A-Za-z0-9])?")
# Where each template goes; @NAME@ and @PACKAGE@ are replaced in paths and texts.
_FILES: Final = {
    "pyproject.toml.in": "pyproject.toml",
    "README.md.in": "README.md",
    "gitignore.in": ".gitignore",
    "init.py.in": "src/@PACKAGE@/__init__.py",
    "attacks.py.in": "src/@PACKAGE@/attacks.py",
    "models.py.in": "src/@PACKAGE@/models.py",
    "test_plugin.py.in": "tests/test_plugin.py",
    "tests.yml.in": ".github/workflows/tests.yml",
}


def new_plugin(name: str, folder: Path) -> str:
    """Writes a package of that name into a new folder, and returns what to do next.

    Raises `SpecError` if the name can't be that of a package, or the folder holds something.
    """
    package = package_name(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SpecError(f"{folder}: is there already, and nothing is overwritten: name another")
    templates = resources.files("gibbon.cli") / "plugin_template"
    try:
        for template, place in _FILES.items():
            file = folder / _filled(place, name, package)
            file.parent.mkdir(parents=True, exist_ok=True)
            text = (templates / template).read_text("utf-8")
            file.write_text(_filled(text, name, package), encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{folder}: can't be written: {error.strerror or error}") from error
    return (
        f"{folder}: attack {name}-ascent in src/{package}/attacks.py, model {name}-net in "
        f"src/{package}/models.py\n"
        f'test it: cd {folder} && pip install --editable ".[test]" && pytest'
    )


def package_name(name: str) -> str:
    """Returns the name of the Python package of a distribution.

    Raises `SpecError` if the name can't be one.

    >>> package_name("my-attacks")
    'my_attacks'
    """
    if not _NAME.fullmatch(name):
        raise SpecError(
            f"NAME: expected letters, digits and . _ - with a letter first, got {name!r}"
        )
    package = re.sub(r"[._-]+", "_", name.lower())
    taken = {*sys.stdlib_module_names, "gibbon", "gibbon_zoo", "gibbon_bench", "torch", "tests"}
    if package in taken or keyword.iskeyword(package):
        raise SpecError(f"NAME: {package!r} is the name of another module: choose another")
    return package


def _filled(text: str, name: str, package: str) -> str:
    return text.replace("@NAME@", name).replace("@PACKAGE@", package)


@plugin_app.command("new")
def plugin_new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the package, such as my-attacks.")
    ],
    output: Annotated[
        Path | None, typer.Option(parser=path, help="Folder for it. [default: NAME]")
    ] = None,
) -> None:
    """Write a package with an attack and a model that Gibbon finds by name.

    It holds entry points, the laws of attacks as a test, and a workflow for CI.  Nothing is
    overwritten.
    """
    say(new_plugin(name, output or Path(name)))
