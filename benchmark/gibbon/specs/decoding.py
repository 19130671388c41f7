"""Decoding of TOML suites into specs, with errors that name the file and the key path."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from gibbon.core.errors import SpecError, UnknownNameError, suggest
from gibbon.specs.base import Spec
from gibbon.specs.naming import suite_name
from gibbon.specs.paths import resolve
from gibbon.specs.published import PublishedRow
from gibbon.specs.suite import AttackSpec, DatasetSpec, Experiment, ModelSpec, Suite, TransferSpec

WHERE = "evaluate"  # how error messages of `decode_request` name the request


def decode_request(
    written: Mapping[str, Any], *, transfer: bool, precision: str = "float32"
) -> Suite:
    """Returns the suite of a request: one experiment, named after its dataset and its models.

    Args:
        written: keys and values of the experiment and the seed, as in a TOML file; specs that are
            made already are taken as they are.
        transfer: whether several models are scored on each other's adversarial examples, as far as
            the attacks allow it.
        precision: see `suite_name`.

    Raises `SpecError`, a line for each key that is wrong.
    """
    suite = decode_suite({"name": WHERE, **written}, where=WHERE)
    (experiment,) = suite.experiments
    labels = tuple(each.label for each in experiment.attacks if not each.carried)
    if transfer and labels and len(experiment.models) > 1 and not experiment.error_only:
        crossed = TransferSpec(attacks=labels)
        experiment = experiment.model_copy(update={"transfer": crossed})
    models = [each.name for each in experiment.models]
    name = suite_name(experiment.dataset.name, models, precision=precision)
    return suite.model_copy(update={"name": name, "experiments": (experiment,)})


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

AnySpec = TypeVar("AnySpec", bound=Spec)


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
    return _resolve_files(decode_spec(Suite, written, where=where), folder)


def decode_spec(
    kind: type[AnySpec], written: dict[str, Any], *, where: str, at: Sequence[str | int] = ()
) -> AnySpec:
    """Returns a spec of a kind, made of keys and values, which may be specs themselves.

    ``at`` is the key path of the spec in what ``where`` names.

    Raises `SpecError`, a line for each key that is wrong: ``where``, the key path, and why.
    """
    try:
        return kind.model_validate(written)
    except ValidationError as error:
        lines = _explain(error, written, where=where, at=at)
        raise SpecError("\n".join(lines)) from error


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


def _explain(
    error: ValidationError, written: dict[str, Any], *, where: str, at: Sequence[str | int]
) -> Iterator[str]:
    short = "experiments" not in written
    for problem in error.errors():
        if problem["type"] == "too_short" and problem["input"]:
            continue  # the items themselves were wrong: each has its own line
        location = [*at, *problem["loc"]]
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
