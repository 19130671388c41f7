"""A run in a remote store that is killed at its n-th write: ``python remote_run.py URL [N]``.

Prints how many cells it computed.  Without N it runs to its end.
"""

from __future__ import annotations

import os
import signal
import sys

import planted
import pytest

from gibbon.records.run import RunRecord
from gibbon.records.stores import open_store
from gibbon.records.stores.remote_files import RemoteFiles
from gibbon.runner.counting import provenance
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

SUITE = Suite.model_validate(
    {
        "name": "remote",
        "dataset": "squares",
        "models": ["one", "two"],
        "attacks": [
            {"name": "fgsm", "epsilon": ["0.1", "0.2"]},
            {"name": "pgd", "epsilon": "0.1", "steps": 2},
        ],
        "transfer": {"attacks": ["fgsm"]},
    }
)


def plant(patch: pytest.MonkeyPatch) -> None:
    """Plants the models and the dataset of the suite."""
    planting = planted.Plant(patch)
    planting.dataset("squares", lambda request: planted.squares())
    planting.model("one", planted.rows(1))
    planting.model("two", planted.rows(2))
    patch.setattr(provenance, "_commit", lambda: ("", None))


def run_at(url: str, *, isolate: bool = False) -> RunRecord:
    """Runs the suite in a store, without a report."""
    settings = RunSettings(device="cpu", save_every=0, examination=False, isolate=isolate)
    with open_store(url).writing() as folder:
        return run_suite(SUITE, folder, settings=settings)


def dying_at(patch: pytest.MonkeyPatch, moment: int, die: signal.Signals | BaseException) -> None:
    """Ends the process, or raises, in place of the n-th write of a file of the run."""
    write, seen = RemoteFiles.write, [0]

    def write_or_die(files: RemoteFiles, name: str, content: bytes) -> None:
        if "lease" not in name:
            seen[0] += 1
            if seen[0] == moment:
                if isinstance(die, BaseException):
                    raise die
                os.kill(os.getpid(), die)
        write(files, name, content)

    patch.setattr(RemoteFiles, "write", write_or_die)


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as monkeypatch:
        plant(monkeypatch)
        if len(sys.argv) > 2:
            dying_at(monkeypatch, int(sys.argv[2]), signal.SIGKILL)
        sys.stdout.write(f"{run_at(sys.argv[1]).provenance.computed_cells}\n")
