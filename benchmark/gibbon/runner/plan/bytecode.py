"""Instructions of functions as text, without what comments, docstrings and layout change."""

from __future__ import annotations

import dis
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from types import CodeType

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


def instructions(code: CodeType) -> list[str]:
    """Returns the instructions of a function, each with its argument, without places in a file.

    Constants are named by their value, not by their position, which a docstring moves, and jumps by
    the number of the instruction that they go to.  A jump to a jump is one to its end: whether the
    compiler makes one of two depends on the lines of the code.
    """
    kept = [each for each in dis.get_instructions(code) if each.opname not in UNIMPORTANT]
    kept = _without_labels(kept)
    offsets = [each.offset for each in kept]
    text = [f"{code.co_argcount},{code.co_posonlyargcount},{code.co_kwonlyargcount}"]
    for each in kept:
        value = each.argval
        if isinstance(value, CodeType):
            text += ["{", *instructions(value), "}"]
        elif _jumps(each):
            name = each.opname.replace("_FORWARD", "").replace("_BACKWARD", "")
            text.append(f"{name} to {_end(each, kept, offsets)}")
        elif isinstance(value, frozenset):
            text.append(f"{each.opname} {sorted(map(repr, value))}")
        else:
            text.append(f"{each.opname} {value!r}")
    return text


def _jumps(instruction: dis.Instruction) -> bool:
    return instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs


def _end(jump: dis.Instruction, kept: list[dis.Instruction], offsets: list[int]) -> int:
    """Returns the number of the instruction that a jump, and those that it goes to, end at."""
    place, seen = bisect_left(offsets, jump.argval), set[int]()
    while place < len(kept) and place not in seen:
        seen.add(place)
        there = kept[place]
        if not (there.opname.startswith("JUMP_") and "IF" not in there.opname and _jumps(there)):
            break
        place = bisect_left(offsets, there.argval)
    return place


def _without_labels(instructions: list[dis.Instruction]) -> list[dis.Instruction]:
    """Returns instructions without the docstring, name and line that the body of a class stores."""
    kept: list[dis.Instruction] = []
    for each in instructions:
        if each.opname == "STORE_NAME" and each.argval in LABELS:
            if kept:
                kept.pop()
        else:
            kept.append(each)
    return kept
