"""Arguments and options that several commands share, and what they are read as."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gibbon.cli.defaults import RUNS, environment_data_folder
from gibbon.cli.options import (
    BY_FLAG,
    MERGE_OPTIONS,
    OF_OWN,
    RUN_OPTIONS,
    VERDICT_OPTIONS,
    Option,
    run_settings,
)
from gibbon.core.errors import SpecError
from gibbon.core.reading import expanded
from gibbon.core.threat import Norm
from gibbon.records.stores import LocalStore, Store, is_url, open_store

if TYPE_CHECKING:
    from gibbon.records.acceptance import Acceptance
    from gibbon.runner.settings import RunSettings


ACCEPT = "--accept"


def parsed_norm(text: str) -> Norm:
    """Returns the norm of a name or another spelling of it.  Raises `typer.BadParameter`."""
    try:
        return Norm(text)
    except ValueError:
        raise typer.BadParameter(f"expected {', '.join(Norm)}, got {text!r}") from None


def path(text: str) -> Path:
    """Returns a path given on the command line; an empty one would be the current folder.

    A shell leaves the ``~`` of ``--output=~/runs`` as it is.
    """
    if not text.strip():
        raise typer.BadParameter(f"expected a path, got {text!r}")
    if is_url(text):
        found = open_store(text)
        if not isinstance(found, LocalStore):
            raise typer.BadParameter(f"expected a path of this machine, got the URL {text!r}")
        return found.path
    return expanded(text, SpecError)


def place(text: str) -> Store:
    """Returns the store of a path or URL given on the command line."""
    return open_store(text) if is_url(text) else LocalStore(path(text))


RunOutput = Annotated[
    Store | None,
    typer.Option(
        parser=place,
        metavar="DIR",
        help="Folder for the results, or its URL, such as s3://bucket/run. "
        "[default: results/runs/SUITE]",
    ),
]


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the keyword arguments of a command by the run settings of the option table."""
    options = {option.name: option for option in (*RUN_OPTIONS, *VERDICT_OPTIONS)}
    return with_parameters(command, options)


def with_merge_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the keyword arguments of a command by the settings that concern this machine."""
    options = {option.name: option for option in (*MERGE_OPTIONS, *VERDICT_OPTIONS)}
    return with_parameters(command, options)


def with_own_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the keyword arguments of a command by the options of a user's own model."""
    return with_parameters(command, {own_name(option): option for option in OF_OWN})


def own_name(option: Option) -> str:
    """Returns the argument of `train` that an option of a user's own model is passed as."""
    return f"own{option.flag[1:]}".replace("-", "_")


def with_parameters(
    command: Callable[..., None], options: Mapping[str, Option]
) -> Callable[..., None]:
    """Replaces the keyword arguments of a command by options."""
    signature = inspect.signature(command, eval_str=True)
    parameters = [
        *(each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD),
        *(_parameter(name, option) for name, option in options.items()),
    ]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _parameter(name: str, option: Option) -> inspect.Parameter:
    """Returns an option as a parameter that typer reads; None if it is not given."""
    annotation: Any = bool | None
    keys: dict[str, Any] = {}
    flags = [option.flag, *([option.formerly] if option.formerly else [])]
    if option.many:
        annotation, keys = list[str] | None, {"metavar": option.value}
    elif option.value:
        annotation, keys = Any, {"metavar": option.value, "parser": option.parse}
    elif option.negative:
        flags = [f"{option.flag.replace('--no-', '--')}/{option.flag}"]
    annotation = Annotated[annotation, typer.Option(*flags, help=option.full_help, **keys)]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=None, annotation=annotation)


@contextmanager
def stored_run(word: str) -> Iterator[Path]:
    """Yields the folder of a run, given its path, its URL, or its name in the folder of runs."""
    from gibbon.report.documents import run_folder

    store = open_store(word) if is_url(word) else None
    if store is None:
        yield run_folder(word, runs=RUNS)
        return
    with store.reading() as folder:
        yield run_folder(str(folder), runs=RUNS)


def accepted_kinds(texts: list[str] | None) -> tuple[Acceptance, ...]:
    """Returns the acceptances of ``--accept``.  Raises `SpecError` for an unknown kind."""
    from gibbon.records.acceptance import acceptances

    kinds = [kind for text in texts or () for kind in BY_FLAG[ACCEPT].parse(text)]
    return acceptances(kinds, where=ACCEPT)


def chosen_settings(settings: Mapping[str, Any], options: Iterable[Option]) -> RunSettings:
    """Returns the run settings of the options that were given."""
    given = {
        each.name: settings[each.name] if each.value or each.negative else each.constant
        for each in options
        if settings[each.name] is not None
    }
    return run_settings(given, data_folder=environment_data_folder())
