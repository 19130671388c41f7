"""Execution stays small: its files together, each function, and each list of arguments."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from gibbon.runner import execute

FILES = sorted(Path(execute.__file__).parent.glob("*.py"))
LINES, FUNCTION_LINES, ARGUMENTS = 800, 50, 6


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.stem}.{node.name}", node


FUNCTIONS = list(functions())


def arguments(function: ast.FunctionDef) -> list[str]:
    given = function.args
    named = [each.arg for each in [*given.posonlyargs, *given.args, *given.kwonlyargs]]
    return [each for each in named if each not in ("self", "cls")]


def test_the_room_is_found() -> None:
    assert len(FILES) > 5
    (found,) = [function for name, function in FUNCTIONS if name == "run_job.run_job"]
    assert arguments(found) == ["job", "run", "scorer"]


def test_all_files_together_stay_under_800_lines() -> None:
    assert sum(len(path.read_text().splitlines()) for path in FILES) < LINES


@pytest.mark.parametrize(
    "function", [pytest.param(function, id=name) for name, function in FUNCTIONS]
)
def test_no_function_is_long_or_takes_many_arguments(function: ast.FunctionDef) -> None:
    assert function.end_lineno is not None
    assert function.end_lineno - function.lineno + 1 <= FUNCTION_LINES
    assert len(arguments(function)) <= ARGUMENTS
