"""The command `list`: models, attacks, datasets, suites and other sources of them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gibbon.cli.output import print_lines, say
from gibbon.cli.typer_apps import app
from gibbon.core.errors import RequestError, UnknownNameError

if TYPE_CHECKING:
    from gibbon.core.registry import Entry, Registry


class ListedKind(StrEnum):
    """Kinds of things that `list` prints."""

    MODELS = "models"
    ATTACKS = "attacks"
    DATASETS = "datasets"
    SUITES = "suites"


def listed_kind(text: str) -> ListedKind:
    """Returns the kind of that name.  Raises `typer.BadParameter` with the nearest name."""
    try:
        return ListedKind(text)
    except ValueError:
        raise typer.BadParameter(
            str(UnknownNameError("kind", text, known=map(str, ListedKind)))
        ) from None


@app.command("list")
def list_(
    kind: Annotated[
        ListedKind,
        typer.Argument(parser=listed_kind, metavar="KIND", help="Kind of things to list."),
    ],
    long: Annotated[bool, typer.Option("--long", help="Print cards as well.")] = False,
) -> None:
    """List models, attacks, datasets or suites.

    Prints one line for each, and for each other source that they may come from.
    """
    if kind is ListedKind.SUITES:
        from gibbon.specs.decoding import shipped_suites

        suites = shipped_suites().values()
        print_lines([(suite.name, suite.description or suite.title) for suite in suites])
        return
    entries = _registry(kind).entries()
    sources = [("", ""), *_sources(kind)]
    if not long:
        print_lines([*((entry.name, _summary(entry)) for entry in entries), *sources])
        return
    for entry in entries:
        try:
            details = _attack_card(entry) if kind is ListedKind.ATTACKS else entry.details()
        except RequestError as error:  # a missing card must not hide the others
            details = f"(no card: {error})"
        say(f"{entry.name}: {_summary(entry)}")
        say("".join(f"    {line}\n" for line in details.splitlines()))
    print_lines(sources[1:])


def _registry(kind: ListedKind) -> Registry[Any]:
    from gibbon.attacks import ATTACKS
    from gibbon.datasets import DATASETS
    from gibbon.models.registry import MODELS

    if kind is ListedKind.MODELS:
        return MODELS
    return ATTACKS if kind is ListedKind.ATTACKS else DATASETS


def _sources(kind: ListedKind) -> list[tuple[str, str]]:
    """Returns the sources of a kind besides its registry, with one line about each."""
    from gibbon.attacks.adapters import ATTACK_SOURCES
    from gibbon.datasets.open import KINDS
    from gibbon.models.sources import MODEL_SOURCES

    if kind is ListedKind.DATASETS:
        return [(each.example, each.title) for name, each in KINDS.items() if name != "registered"]
    if kind is ListedKind.ATTACKS:
        return [(f"{each.name}:NAME", _summary(each)) for each in ATTACK_SOURCES.entries()]
    ensemble = ("ensemble", "an ensemble of models or sources: ensemble:NAME,NAME")
    return [*((each.name, _summary(each)) for each in MODEL_SOURCES.entries()), ensemble]


def _attack_card(entry: Entry[Any]) -> str:
    """Returns what an entry says of an attack, and the card of its class."""
    from gibbon.cli.attack_cards import attack_card

    return "\n".join(filter(None, (entry.details(), attack_card(entry.load()))))


def _summary(entry: Entry[Any]) -> str:
    ours = entry.origin in ("gibbon", "gibbon-bench")
    there = "" if entry.installed else " [not installed]"
    return f"{entry.summary}{'' if ours else f' [{entry.origin}]'}{there}"
