"""Instructions of functions as text, without what comments, docstrings and layout change."""

from __future__ import annotations

import dis
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any

UNIMPORTANT = frozenset({"NOP", "CACHE", "RESUME", "EXTENDED_ARG", "PRECALL", "COPY_FREE_VARS"})
# What the body of a class stores that is no code of its author.
LABELS = frozenset({"__module__", "__qualname__", "__doc__", "__firstlineno__"})


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """Yields a function's code and that of the functions inside of it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


def arguments_of(code: CodeType, operations: Iterable[str]) -> Iterator[str]:
    """Yields the arguments of the instructions of some names."""
    names = frozenset(operations)
    return (str(each.argval) for each in dis.get_instructions(code) if each.opname in names)


# From Python 3.13 on two instructions are one if they are on one line.
PAIRS = {
    "LOAD_FAST_LOAD_FAST": ("LOAD_FAST", "LOAD_FAST"),
    "STORE_FAST_LOAD_FAST": ("STORE_FAST", "LOAD_FAST"),
    "STORE_FAST_STORE_FAST": ("STORE_FAST", "STORE_FAST"),
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": ("LOAD_FAST_BORROW", "LOAD_FAST_BORROW"),
}
OPPOSITES = {
    "POP_JUMP_IF_TRUE": "POP_JUMP_IF_FALSE",
    "POP_JUMP_IF_FALSE": "POP_JUMP_IF_TRUE",
    "POP_JUMP_IF_NONE": "POP_JUMP_IF_NOT_NONE",
    "POP_JUMP_IF_NOT_NONE": "POP_JUMP_IF_NONE",
}


@dataclass(frozen=True)
class _Step:
    """An instruction: its name without a direction, its argument, and where it is."""

    name: str
    value: Any
    offset: int
    jumps: bool

    @property
    def always_jumps(self) -> bool:
        return self.jumps and self.name.startswith("JUMP") and "IF" not in self.name


def instructions(code: CodeType) -> list[str]:
    """Returns the instructions of a function, each with its argument, without places in a file.

    Constants are named by their value, not by their position, which a docstring moves, and jumps by
    the number of the instruction that they go to.  Whether the compiler makes one instruction of
    two, one jump of a jump to a jump, or no exchange of values that are stored, depends on the
    lines of the code; here it does not.
    """
    steps = [part for each in dis.get_instructions(code) for part in _parts(each)]
    steps = _with_short_branches(_without_swaps(_without_labels(steps)))
    offsets = [each.offset for each in steps]
    text = [f"{code.co_argcount},{code.co_posonlyargcount},{code.co_kwonlyargcount}"]
    for each in steps:
        if isinstance(each.value, CodeType):
            text += ["{", *instructions(each.value), "}"]
        elif each.jumps:
            text.append(f"{each.name} to {_end(each, steps, offsets)}")
        elif isinstance(each.value, frozenset):
            text.append(f"{each.name} {sorted(map(repr, each.value))}")
        else:
            text.append(f"{each.name} {each.value!r}")
    return text


def _parts(instruction: dis.Instruction) -> Iterator[_Step]:
    name, value, offset = instruction.opname, instruction.argval, instruction.offset
    if name in PAIRS:
        for part, argument in zip(PAIRS[name], value, strict=True):
            yield _Step(part, argument, offset, jumps=False)
    elif name not in UNIMPORTANT:
        jumps = instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs
        if jumps:
            name = name.replace("_FORWARD", "").replace("_BACKWARD", "")
        yield _Step(name, value, offset, jumps)


def _without_swaps(steps: list[_Step]) -> list[_Step]:
    """Returns steps in which values are stored in the other order, instead of exchanged first."""
    kept: list[_Step] = []
    place = 0
    while place < len(steps):
        each = steps[place]
        stores = steps[place + 1 : place + 1 + each.value] if each.name == "SWAP" else []
        names = {store.value for store in stores if store.name == "STORE_FAST"}
        if stores and len(names) == each.value:
            kept += [stores[-1], *stores[1:-1], stores[0]]
            place += each.value
        else:
            kept.append(each)
        place += 1
    return kept


def _with_short_branches(steps: list[_Step]) -> list[_Step]:
    """Returns steps in which no branch only skips a jump: the opposite branch jumps itself."""
    offsets = [each.offset for each in steps]
    kept: list[_Step] = []
    for place, each in enumerate(steps):
        before = kept[-1] if kept and each.always_jumps else None
        if (
            before is not None
            and before.name in OPPOSITES
            and bisect_left(offsets, before.value) == place + 1
        ):
            kept[-1] = replace(before, name=OPPOSITES[before.name], value=each.value)
        else:
            kept.append(each)
    return kept


def _end(jump: _Step, steps: list[_Step], offsets: list[int]) -> int:
    """Returns the number of the instruction that a jump, and those that it goes to, end at."""
    place, seen = bisect_left(offsets, jump.value), set[int]()
    while place < len(steps) and place not in seen:
        seen.add(place)
        if not steps[place].always_jumps:
            break
        place = bisect_left(offsets, steps[place].value)
    return place


def _without_labels(steps: list[_Step]) -> list[_Step]:
    """Returns steps without the docstring, name and line that the body of a class stores."""
    kept: list[_Step] = []
    for each in steps:
        if each.name == "STORE_NAME" and each.value in LABELS:
            if kept:
                kept.pop()
        else:
            kept.append(each)
    return kept
