"""What a run and its report do for many cells grows with their number, and no faster.

Times would depend on the machine: calls are counted, for each function, in a small and in a larger
suite.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import planted
import pytest

import gibbon
from gibbon.records.run import RunRecord
from gibbon.report import table_files
from gibbon.report.documents import Document, document
from gibbon.runner.folder_state.finished import INPUTS_FILE
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

HOME = str(Path(gibbon.__file__).parent)
FEW, MANY = 4, 16  # epsilons
MODELS, ATTACKS = ("one", "two"), ("fgsm", "noise-uniform", "pgd")
LEAST = 1_500  # calls of a function that are worth a look
ABOVE = 1.5  # times the ratio of the numbers of cells
# Two epsilons of an attack are compared in a test, every two of them.
PAIRS = ("paired_flags.py", "paired_tests.py")


@contextmanager
def counted(calls: Counter[tuple[str, str, int]]) -> Iterator[None]:
    """Counts the calls of each function of Gibbon, and the steps of each generator."""

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(HOME):
            code = frame.f_code
            calls[code.co_filename.removeprefix(HOME), code.co_name, code.co_firstlineno] += 1

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


@pytest.mark.slow
def test_no_function_is_called_for_every_two_cells(plant: planted.Plant, tmp_path: Path) -> None:
    plant.dataset("squares", lambda request: planted.squares(examples=12))
    for seed, name in enumerate(MODELS):
        plant.model(name, planted.rows(seed))
    few, many = (_calls(number, tmp_path / str(number)) for number in (FEW, MANY))
    ratio = MANY / FEW
    found = {
        name: (few[name], count)
        for name, count in many.items()
        if count >= LEAST and count > ABOVE * ratio * few[name] and not name[0].endswith(PAIRS)
    }
    assert not found


def _calls(epsilons: int, folder: Path) -> Counter[tuple[str, str, int]]:
    """Returns the calls of a resumed run, in which all is counted again, and of its report."""
    budgets = [f"{number + 1}/200" for number in range(epsilons)]
    suite = Suite.model_validate(
        {
            "name": "many",
            "dataset": "squares",
            "models": list(MODELS),
            "attacks": [{"name": each, "epsilon": budgets} for each in ATTACKS],
            "transfer": {"attacks": ["fgsm"]},
        }
    )
    settings = RunSettings(device="cpu", examination=False, certify="none")
    run: Callable[[], RunRecord] = lambda: run_suite(suite, folder, settings=settings)  # noqa: E731
    run()
    (folder / INPUTS_FILE).unlink()
    calls: Counter[tuple[str, str, int]] = Counter()
    with counted(calls):
        record = run()
        table_files(record)
        document(record, folder, Document.HTML)
        document(record, folder, Document.LATEX)
    assert record.provenance.computed_cells == 0
    return calls
