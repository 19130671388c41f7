"""Decoding of TOML suites into specs, with errors that name the file and the key path."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gibbon.core.errors import SpecError, UnknownNameError, suggest
from gibbon.specs.base import Spec
from gibbon.specs.paths import resolve
from gibbon.specs.published import PublishedRow
from gibbon.specs.suite import AttackSpec, DatasetSpec, Experiment, ModelSpec, Suite, TransferSpec

# pydantic's messages about Python values, reworded for TOML.
WORDS = {
    "missing": "is missing",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "model_type": "must be a table",
    "path_type": "must be a path",
    "string_pattern_mismatch": "must be made of letters, digits and . _ + - and start with a "
    "letter or a digit",
}


def read_suite(reference: str) -> Suite:
    """Returns a shipped suite by name, or the suite in a TOML file by path.

    Raises `SpecError` or `UnknownNameError`.
    """
    path = Path(reference)
    if path.suffix == ".toml" or len(path.parts) > 1:
        return parse_suite(read_text(path), where=reference, folder=path.parent)
    shipped = shipped_suites()
    if reference not in shipped:
        raise UnknownNameError("suite", reference, known=shipped)
    return shipped[reference]


def shipped_suites() -> dict[str, Suite]:
    """Returns the suites that come with the package, by name."""
    folder = resources.files("gibbon") / "suites"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda f: f.name
    )
    suites = (parse_suite(file.read_text("utf-8"), where=file.name) for file in files)
    return {suite.name: suite for suite in suites}


def parse_suite(text: str, *, where: str, folder: Path = Path()) -> Suite:
    r"""Returns the suite in a TOML text; paths are relative to ``folder``.

    Raises `SpecError`.

    >>> parse_suite('name = "x"\ndataset = "mnist"\nmodels = ["rbf"]\nsede = 1', where="x.toml")
    Traceback (most recent call last):
    gibbon.core.errors.SpecError: x.toml: sede: unknown key; did you mean 'seed'?
    """
    return decode_suite(parse_toml(text, where=where), where=where, folder=folder)


def decode_suite(written: dict[str, Any], *, where: str, folder: Path = Path()) -> Suite:
    """Returns the suite of decoded TOML.

    Raises `SpecError`, with a line for each invalid key: ``where``, the key path, and the reason.
    """
    try:
        suite = Suite.model_validate(written)
    except ValidationError as error:
        raise SpecError("\n".join(_explain(error, written, where=where))) from error
    return _resolve_files(suite, folder)


def read_text(path: Path) -> str:
    """Returns the text of a file without a byte-order mark.  Raises `SpecError`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"can't be read: {reason}", where=str(path)) from error


def parse_toml(text: str, *, where: str) -> dict[str, Any]:
    """Decodes a TOML text.  Raises `SpecError` with the line and the column."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        lines = text.splitlines() or [""]
        end = f"at line {len(lines)}, column {len(lines[-1]) + 1}, the end of the document"
        message = str(error).replace("at end of document", end)
        raise SpecError(f"malformed TOML: {message}", where=where) from error


def _resolve_files(suite: Suite, folder: Path) -> Suite:
    """Returns the suite with paths relative to the working folder, not to its own file."""

    def resolved(experiment: Experiment) -> Experiment:
        data = experiment.dataset
        files = {key: getattr(data, key) for key in ("source", "class_map", "labels")}
        update = {key: value and resolve(value, folder) for key, value in files.items()}
        models = tuple(_with_files(each, folder) for each in experiment.models)
        data = data.model_copy(update=update)
        return experiment.model_copy(update={"models": models, "dataset": data})

    experiments = tuple(map(resolved, suite.experiments))
    return suite.model_copy(update={"experiments": experiments})


def _with_files(model: ModelSpec, folder: Path) -> ModelSpec:
    return model.model_copy(
        update={
            "model": resolve(model.model, folder),
            "weights": model.weights and resolve(model.weights, folder),
            "ensemble": tuple(_with_files(each, folder) for each in model.ensemble),
        }
    )


def _explain(error: ValidationError, written: dict[str, Any], *, where: str) -> Iterator[str]:
    short = "experiments" not in written
    for problem in error.errors():
        if problem["type"] == "too_short" and problem["input"]:
            continue  # the items themselves were wrong: each has its own line
        location = list(problem["loc"])
        if short and location[:2] == ["experiments", 0]:
            location = location[2:]
        path = key_path(location)
        if problem["type"] == "extra_forbidden":
            known = _known_keys(location, short=short)
            message = "unknown key" + suggest(str(location[-1]), known)
        else:
            message = WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
            if isinstance(problem["input"], str | int | float | bool):
                came = repr(problem["input"])
                message += "" if came in message else f", got {came}"
        yield f"{where}: {path}: {message}" if path else f"{where}: {message}"


def key_path(location: list[str | int]) -> str:
    """Returns a key path as text: ``attacks[2].steps``.

    >>> key_path(["attacks", 2, "steps"])
    'attacks[2].steps'
    """
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).lstrip(".")


def _known_keys(location: list[str | int], *, short: bool) -> list[str]:
    parents = [part for part in location[:-1] if isinstance(part, str)]
    owners: dict[str, type[Spec]] = {
        "experiments": Experiment,
        "models": ModelSpec,
        "ensemble": ModelSpec,
        "dataset": DatasetSpec,
        "attacks": AttackSpec,
        "transfer": TransferSpec,
        "published": PublishedRow,
    }
    owner = owners.get(parents[-1], Suite) if parents else Suite
    keys = list(owner.model_fields)
    return keys + list(Experiment.model_fields) if owner is Suite and short else keys
