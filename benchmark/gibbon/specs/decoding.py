"""Decoding of TOML suites into specs, with errors that name the file and the key path."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gibbon.core.errors import SpecError, UnknownNameError
from gibbon.core.plain_text import shortened
from gibbon.core.reading import DEEPEST, check_tree, expanded, read_text_file
from gibbon.specs.base import Spec
from gibbon.specs.naming import suite_name, unlike
from gibbon.specs.paths import resolve, with_attack_paths
from gibbon.specs.problems import key_path, problem_lines, problem_text
from gibbon.specs.published import PublishedRow
from gibbon.specs.suite import (
    AttackSpec,
    DatasetSpec,
    Experiment,
    FoolingSpec,
    ModelSpec,
    Suite,
    TransferSpec,
)

# The keys of specs that may hold a path.
FILE_KEYS: dict[type[Spec], tuple[str, ...]] = {
    ModelSpec: ("model", "weights"),
    DatasetSpec: ("source", "class_map", "labels"),
    PublishedRow: ("proved",),
}

# A dotted key of so many parts that tomllib would take hours, as its time grows with their square.
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
DEEP_KEY = re.compile(rf"(?<![\w-]){_PART}(?:\.[ \t]*+{_PART}){{{DEEPEST}}}")

AGAINST = "against"
WHERE = "evaluate"  # how error messages of `decode_request` name the request


def decode_request(
    written: Mapping[str, Any],
    *,
    transfer: bool,
    precision: str = "float32",
    against: Any = None,
) -> Suite:
    """Returns the suite of a request: one experiment, named after its dataset and its models.

    Args:
        written: keys and values of the experiment and the seed, as in a TOML file; specs that are
            made already are taken as they are.
        transfer: whether several models are scored on each other's adversarial examples, as far as
            the attacks allow it.
        precision: see `suite_name`.
        against: dataset with classes, that the confidences on inputs without a class are compared
            with: the suite then has an experiment with it, unattacked, as its first.

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
    experiments: tuple[Experiment, ...] = (experiment,)
    if against is not None:
        experiments = _compared(experiment, against)
    return suite.model_copy(update={"name": name, "experiments": experiments})


def _compared(experiment: Experiment, against: Any) -> tuple[Experiment, Experiment]:
    """Returns an experiment after one with the dataset that its confidences are compared with."""
    if not experiment.no_class:
        raise SpecError(
            f"{WHERE}: against: is for inputs without a class, and {experiment.dataset.name!r} has "
            'classes: give it classes = "none", or leave out against'
        )
    keys = {"dataset": against, "models": experiment.models, "draws": experiment.draws}
    clean = decode_spec(Experiment, keys, where=AGAINST)
    if clean.no_class:
        raise SpecError(
            f"{WHERE}: against: {clean.dataset.name!r} has no classes itself: name a dataset with "
            "classes"
        )
    _, name = unlike([experiment.dataset.name, clean.dataset.name])
    dataset = clean.dataset.model_copy(update={"name": name})
    clean = clean.model_copy(update={"dataset": dataset})
    return clean, experiment.model_copy(update={"against": name})


AnySpec = TypeVar("AnySpec", bound=Spec)


def read_suite(reference: str) -> Suite:
    """Returns a shipped suite by name, or the suite in a TOML file by path.

    Raises `SpecError` or `UnknownNameError`.
    """
    path = expanded(reference, SpecError)
    if path.suffix == ".toml" or len(path.parts) > 1:
        return parse_suite(read_text(path), where=reference, folder=path.parent)
    shipped = shipped_suites()
    if reference not in shipped:
        raise UnknownNameError("suite", reference, known=shipped)
    return shipped[reference]


def shipped_suites() -> dict[str, Suite]:
    """Returns the suites that come with the package, by name."""
    files = sorted((resources.files("gibbon") / "suites").iterdir(), key=lambda file: file.name)
    toml = (file for file in files if file.name.endswith(".toml"))
    suites = (parse_suite(file.read_text("utf-8"), where=file.name) for file in toml)
    return {suite.name: suite for suite in suites}


def parse_suite(text: str, *, where: str, folder: Path = Path()) -> Suite:
    r"""Returns the suite in a TOML text; paths are relative to ``folder``.

    Raises `SpecError`.

    >>> text = 'name = "x"\ndataset = "mnist"\nmodels = ["rbf"]\nsede = 1'
    >>> parse_suite(text, where="x.toml")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    gibbon.core.errors.SpecError: x.toml: sede: unknown key; did you mean 'seed'? Valid keys: ...
    """
    return decode_suite(parse_toml(text, where=where), where=where, folder=folder)


def decode_suite(written: dict[str, Any], *, where: str, folder: Path = Path()) -> Suite:
    """Returns the suite of decoded TOML.

    Raises `SpecError`, with a line for each invalid key: ``where``, the key path, and the reason.
    """
    return _with_files(decode_spec(Suite, written, where=where), folder)


def decode_spec(
    kind: type[AnySpec], written: dict[str, Any], *, where: str, at: Sequence[str | int] = ()
) -> AnySpec:
    """Returns a spec of a kind, made of keys and values, which may be specs themselves.

    ``at`` is the key path of the spec in what ``where`` names.

    Raises `SpecError`, a line for each key that is wrong: ``where``, the key path, and why.
    """
    try:
        check_tree(written)
    except ValueError as error:
        raise SpecError(str(error), where=where) from error
    try:
        return kind.model_validate(written)
    except ValidationError as error:
        short = "experiments" not in written

        def line(problem: ErrorDetails) -> str:
            location = [*at, *problem["loc"]]
            if short and location[:2] == ["experiments", 0]:
                location = location[2:]
            path = key_path(location)
            message = problem_text(problem, _known_keys(location, short=short))
            return f"{where}: {path}: {message}" if path else f"{where}: {message}"

        raise SpecError(problem_lines(error, line, where=where)) from error


def read_text(path: Path) -> str:
    """Returns the text of a file without a byte-order mark.  Raises `SpecError`."""
    return read_text_file(path, SpecError)


def parse_toml(text: str, *, where: str, problem: str = "malformed TOML") -> dict[str, Any]:
    """Decodes a TOML text.  Raises `SpecError`, which begins with ``problem``, with the place."""
    if DEEP_KEY.search(text):
        raise SpecError(f"{problem}: a key has more than {DEEPEST} parts", where=where)
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        message = f"{problem}: lists or tables are nested too deeply"
        raise SpecError(message, where=where) from error
    except tomllib.TOMLDecodeError as error:
        lines = text.splitlines() or [""]
        end = f"at line {len(lines)}, column {len(lines[-1]) + 1}, the end of the document"
        message = str(error).replace("at end of document", end)
        raise SpecError(f"{problem}: {shortened(message)}", where=where) from error
    except ValueError as error:  # of a number or a date; tomllib lets Python's own pass
        reason = str(error).partition("; use sys.")[0]  # advice for the author of a program
        raise SpecError(f"{problem}: {reason}", where=where) from error


def _with_files(spec: AnySpec, folder: Path) -> AnySpec:
    """Returns a spec with paths relative to the working folder, not to its own file."""

    def resolved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(resolved, value))
        return _with_files(value, folder) if isinstance(value, Spec) else value

    update = {key: resolved(value) for key, value in spec}
    if isinstance(spec, AttackSpec):
        keys = {key: update[key] for key in ("name", "backward", "attacks") if key in update}
        update |= with_attack_paths(keys, lambda each: resolve(each, folder))
    for key in FILE_KEYS.get(type(spec), ()):
        update[key] = update[key] and resolve(update[key], folder)
    return spec.model_copy(update=update)


def _known_keys(location: list[str | int], *, short: bool) -> list[str]:
    parents = [part for part in location[:-1] if isinstance(part, str)]
    owners: dict[str, type[Spec]] = {
        "experiments": Experiment,
        "models": ModelSpec,
        "ensemble": ModelSpec,
        "dataset": DatasetSpec,
        "attacks": AttackSpec,
        "transfer": TransferSpec,
        "fooling": FoolingSpec,
        "published": PublishedRow,
    }
    owner = owners.get(parents[-1], Suite) if parents else Suite
    keys = list(owner.model_fields)
    return keys + list(Experiment.model_fields) if owner is Suite and short else keys
