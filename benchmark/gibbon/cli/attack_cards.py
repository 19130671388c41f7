"""Cards of attacks for ``list attacks --long``: norms, parameters, targets and passes."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, Final

from gibbon.attacks.base import Attack, SearchMethod, is_attack
from gibbon.core.errors import RequestError
from gibbon.core.plain_text import shown
from gibbon.runner.estimate.attack_passes import NumberRange, SearchPasses, search_passes

CLASSES: Final = 10  # of the model that passes are counted on
_WIDTH: Final = 76
_METHODS: Final = {
    SearchMethod.UNKNOWN: "not stated, or that of its members",
    SearchMethod.NOISE: "draws points without asking the model",
    SearchMethod.GRADIENT_FREE: "searches by the model's outputs, without gradients",
    SearchMethod.SINGLE_STEP: "one gradient step",
    SearchMethod.ITERATIVE: "climbs the loss by gradients, within the budget",
    SearchMethod.FOR_TRANSFER: "climbs a smoothed loss by gradients, for transfer",
    SearchMethod.MINIMAL_NORM: "minimises the distance by gradients, whatever the budget",
}


def attack_card(kind: type[Attack]) -> str:
    """Returns the card of an attack: a line for each of its properties and parameters."""
    if not is_attack(kind):
        return f"(no card: {shown(kind)} is no attack: a dataclass derived from gibbon.Attack)"
    return "\n".join(_lines(kind))


def _lines(kind: type[Attack]) -> Iterator[str]:
    yield f"norms: {', '.join(norm.symbol for norm in kind.norms)} (the first is the default)"
    method = kind.search_method
    if method is SearchMethod.UNKNOWN and not kind.needs_gradient:
        method = SearchMethod.GRADIENT_FREE
    yield f"search: {_METHODS[method]}"
    fields = _parameters(kind)
    names = {each.name for each in fields}
    yield f"targets: {_targets(names)}"
    yield from textwrap.wrap(f"cost: {_cost(kind)}", _WIDTH, subsequent_indent="  ")
    meanings = _meanings(kind)
    yield "parameters:" if fields else "parameters: none"
    for each in fields:
        meaning = meanings.get(each.name, "")
        text = f"{each.name} = {_default(each)}{f': {meaning}' if meaning else ''}"
        yield from textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _parameters(kind: Any) -> list[dataclasses.Field[Any]]:
    return [each for each in dataclasses.fields(kind) if each.init]


def _targets(names: set[str]) -> str:
    if "target" in names:
        return "any wrong class, or a class or rule (target)"
    if names & {"n_target_classes", "target_classes"}:
        return "several wrong classes, one after another"
    return "any wrong class"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        made = field.default_factory
        return "(required)" if made is dataclasses.MISSING else _shown(made())
    return _shown(field.default)


def _shown(value: object) -> str:
    if value is None:
        return "by rule"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _cost(kind: type[Attack]) -> str:
    """Returns the passes for an example under the defaults, if all parameters have one."""
    missing = dataclasses.MISSING
    if any(each.default is each.default_factory is missing for each in _parameters(kind)):
        return "the sum of its members, each on the examples that the earlier ones left"
    try:
        attack = kind()
    except (RequestError, TypeError, ValueError) as error:
        return f"not known ({error})"
    found = [search_passes(each, CLASSES) for each in attack.made_of or (attack,)]
    return _passes(found, several=bool(attack.made_of))


def _passes(found: list[SearchPasses], *, several: bool) -> str:
    forward = sum((each.forward for each in found), NumberRange.exactly(0))
    backward = sum((each.backward for each in found), NumberRange.exactly(0))
    tries = sum(each.tries for each in found)
    forward += NumberRange.exactly(tries)  # each candidate is judged
    members = ", fewer for examples that an earlier member misclassifies" if several else ""
    return (
        f"{_number(forward)} forward and {_number(backward)} backward passes an example "
        f"(defaults, {CLASSES} classes, not misclassified{members})"
    )


def _number(found: NumberRange) -> str:
    if round(found.low) == round(found.high):
        return f"{found.likely:,.0f}"
    return f"about {found.likely:,.0f} (at most {found.high:,.0f})"


def _meanings(kind: type[Attack]) -> dict[str, str]:
    """Returns the meanings of parameters in the section ``Args`` of a class's docstring."""
    section = (inspect.getdoc(kind) or "").partition("Args:\n")[2]
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        start = re.match(r"    (\w+(?:, \w+)*): (.*)", line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
        else:
            name = ""
    return {
        each.strip(): re.sub(r"`+", "", meaning).rstrip(".")
        for names, meaning in found.items()
        for each in names.split(",")
    }
