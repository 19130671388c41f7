"""A run that dies at its n-th moment: before a batch, and before and after a file gets its name.

``python doomed.py FOLDER MOMENT SIGNAL SAVE_EVERY PLACES``; prints how many moments it lived
through.  PLACES are the models that may be in memory at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import planted
import pytest

from gibbon.report import write_report
from gibbon.runner.counting import provenance
from gibbon.runner.executors import in_process
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

SUITE = Suite.model_validate(
    {
        "name": "doomed",
        "dataset": "squares",
        "models": ["one", "two"],
        "attacks": [
            {"name": "fgsm", "epsilon": ["0.05", "0.1", "0.2"]},
            {"name": "pgd", "epsilon": ["0.1", "0.2"], "steps": 3, "restarts": 2},
            # Its first pass sees clean inputs, and so could give the clean prediction too.
            {"name": "pgd", "label": "straight", "epsilon": "0.1", "random_start": False},
            {"name": "noise-uniform", "epsilon": "0.2"},
            {"name": "fgsm", "label": "carried", "epsilon": ["0.1", "0.05"], "carried": True},
            {"name": "deepfool", "norm": "linf", "epsilon": ["0.05", "0.1"], "steps": 3},
        ],
        "transfer": {"attacks": ["fgsm", "pgd"]},
    }
)
BATCH_SIZE = 25


def plant(patch: pytest.MonkeyPatch) -> planted.Plant:
    planting = planted.Plant(patch)
    planting.dataset("squares", lambda request: planted.squares())
    planting.model("one", planted.rows(1))
    planting.model("two", planted.rows(2))
    # Tables name the commit: the tests must not mind who commits meanwhile.
    patch.setattr(provenance, "_commit", lambda: ("", None))
    return planting


def settings(save_every: float, places: int = 2) -> RunSettings:
    return RunSettings(
        device="cpu",
        batch_size=BATCH_SIZE,
        save_every=save_every,
        models_in_memory=places,
        examination=False,
    )


class Fate:
    """Counts moments, and sends the signal at one of them."""

    def __init__(self, moment: int, number: int) -> None:
        self.moment = moment
        self.number = number
        self.lived = 0

    def tick(self) -> None:
        self.lived += 1
        if self.lived == self.moment:
            os.kill(os.getpid(), self.number)

    def around(self, what: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
        def watched(*args: Any, **options: Any) -> Any:
            self.tick()
            result = what(*args, **options)
            if after:
                self.tick()
            return result

        return watched


def main(folder: str, moment: str, name: str, save_every: str, places: str) -> None:
    patch = pytest.MonkeyPatch()
    plant(patch)
    fate = Fate(int(moment), getattr(signal, name))
    patch.setattr(in_process, "run_batch", fate.around(in_process.run_batch, after=False))
    patch.setattr(Path, "replace", fate.around(Path.replace, after=True))
    try:
        asked = settings(float(save_every), int(places))
        run_suite(SUITE, Path(folder), settings=asked, publish=write_report)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.stdout.write(f"{fate.lived}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
