"""Mutations of decoded files: tables, lists, texts and numbers."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

Slot = tuple[Any, Any]  # a table and a key in it, or a list and a position

MOST_COPIES = 3_000  # of an item of a list
DEPTH = 150

TEXTS = (
    *("", " ", "a", "none", "nan", "inf", "-1", "0", "1", "1.5", "8/255", "1/0", "1e999999"),
    *("../x", "/dev/zero", "~nosuchuser/x", "a\0b", "\ud800", "ε·", "\x1b[31m", "[red]x[/]"),
    *("```", "![x](http://x/y.png)", "| a | b |", "<script>", "</script>", "ensemble:a,b", ":x:"),
    *(
        "x" * 300,
        "x" * 5000,
        "9" * 5000,
        "[" * 5000,
        "2026-01-01",
        "fgsm",
        "pgd",
        "mnist",
        "linf",
        "l2",
    ),
)
NUMBERS = (
    *(0, 1, -1, 2, 7, 255, 65_536, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400),
    *(0.0, -0.0, 0.5, 1.0, 1e-320, 1e308, -1e308, float("inf"), float("-inf"), float("nan")),
)
OTHERS: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [{}],
    {"": ""},
    datetime.date(2026, 1, 1),
)


def mutated(tree: Any, random: Random, *, spare: Sequence[Any] = ()) -> Any:
    """Returns a copy of decoded data with at most one change.

    Args:
        tree: tables (dict), lists, texts, numbers.
        random: source of the choice.
        spare: decoded files whose keys and values are put in other places.

    >>> changed = [mutated({"a": [1, 2]}, Random(seed)) for seed in range(9)]
    >>> any(each != {"a": [1, 2]} for each in changed)
    True
    """
    root = [copy.deepcopy(tree)]
    slots = list(_slots(root))
    # The root itself is changed as often as any other value of a small file, but not of a large.
    change = random.choice(_CHANGES)
    container, key = slots[random.randrange(len(slots))]
    values = [value for each in spare for value in _values(each)]
    change(container, key, random, values)
    return root[0] if root else None


def _slots(root: list[Any]) -> Iterator[Slot]:
    waiting: list[Any] = [root]
    while waiting:
        container = waiting.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            yield container, key
            if isinstance(container[key], dict | list):
                waiting.append(container[key])


def _values(tree: Any) -> Iterator[tuple[Any, Any]]:
    yield from ((key, container[key]) for container, key in _slots([tree]))


def _replace(container: Any, key: Any, random: Random, _: Any) -> None:
    container[key] = copy.deepcopy(random.choice(random.choice((TEXTS, NUMBERS, OTHERS))))


def _splice(container: Any, key: Any, random: Random, values: Any) -> None:
    """Puts a value of any place in, or adds a key with its value."""
    if not values:
        return
    name, value = random.choice(values)
    where = key
    if isinstance(container, dict) and isinstance(name, str) and random.random() < 0.5:
        where = name
    container[where] = copy.deepcopy(value)


def _delete(container: Any, key: Any, random: Random, _: Any) -> None:
    del container[key]


def _rename(container: Any, key: Any, random: Random, values: Any) -> None:
    if not isinstance(container, dict):
        return
    names = [name for name, _ in values if isinstance(name, str)] or [""]
    text = str(key)
    new = random.choice((random.choice(TEXTS), random.choice(names), text + "x", text[:-1]))
    container[new] = container.pop(key)


def _swap(container: Any, key: Any, random: Random, _: Any) -> None:
    keys = list(container) if isinstance(container, dict) else range(len(container))
    other = random.choice(keys)
    container[key], container[other] = container[other], container[key]


def _repeat(container: Any, key: Any, random: Random, _: Any) -> None:
    count = random.choice((1, 1, 1, 2, 50, MOST_COPIES))
    if isinstance(container, list):
        container[key:key] = [container[key]] * count
    elif isinstance(container[key], list):
        container[key] = container[key] * (1 + count)
    else:
        container[key] = [container[key]] * count


def _nest(container: Any, key: Any, random: Random, _: Any) -> None:
    for _ in range(random.choice((1, 1, 2, DEPTH))):
        container[key] = random.choice((lambda x: [x], lambda x: {"a": x}))(container[key])


def _unnest(container: Any, key: Any, random: Random, _: Any) -> None:
    value = container[key]
    if isinstance(value, dict) and value:
        value = list(value.values())
    if isinstance(value, list) and value:
        container[key] = random.choice(value)


def _perturb(container: Any, key: Any, random: Random, _: Any) -> None:
    value = container[key]
    if isinstance(value, bool):
        container[key] = not value
    elif isinstance(value, int):
        container[key] = random.choice((value + 1, value - 1, -value, value * 1000, float(value)))
    elif isinstance(value, float):
        container[key] = random.choice(
            (-value, value * 1e3, value + 1, int(value * 10), str(value))
        )
    elif isinstance(value, str):
        at = random.randrange(len(value) + 1)
        added = random.choice((*TEXTS, "", "9", "-", ".", ":", "/", ","))
        container[key] = value[:at] + added + value[at + random.choice((0, 1, 3)) :]
    elif isinstance(value, list):
        container[key] = random.sample(value, len(value))


_CHANGES = (
    *(_replace, _replace, _splice, _splice, _perturb, _perturb, _delete),
    *(_rename, _swap, _repeat, _nest, _unnest),
)
