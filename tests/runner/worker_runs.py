"""Runs of one suite on several executors, and what must be equal between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import planted
import pytest
import worker_parts
from same_outcomes import assert_same_folders

from gibbon.records.run import RunRecord
from gibbon.report import write_report
from gibbon.runner.counting import provenance
from gibbon.runner.run_progress.progress import SILENT, Progress, SilentProgress
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

PARTS = Path(__file__).with_name("worker_parts.py")
ROWS = (
    *("evaluations", "transfers", "agreements", "worst_cases", "members", "comparisons", "seeds"),
    *("no_class", "fooling", "failures", "flags", "checks", "examinations", "survivors"),
)
TABLES = ("evaluations.csv", "transfer.csv", "worst_case.csv", "agreement.csv", "tables.md")
OWN = {"doomed": worker_parts.Doomed, "ends-it": worker_parts.EndsIt}
QUICK: dict[str, Any] = {"examination": False, "certify": "none"}


FGSM = {"name": "fgsm", "epsilon": ["0.1", "0.2"]}
MEMBERS = [{"name": "noise-sign"}, {"name": "pgd", "steps": 2}, {"name": "bim", "steps": 3}]
ALL_KINDS: list[dict[str, Any]] = [
    {"name": "fgsm", "epsilon": ["0.05", "0.1", "0.2"]},
    {"name": "pgd", "epsilon": ["0.1", "0.2"], "steps": 3, "restarts": 2},
    {"name": "fgsm", "label": "along", "epsilon": ["0.1", "0.05", "0.3"], "carried": True},
    {"name": "pgd", "label": "carried", "epsilon": ["0.05", "0.3"], "steps": 2, "carried": True},
    {"name": "worst-of", "label": "list", "epsilon": ["0.02", "0.1"], "attacks": MEMBERS},
    {"name": "deepfool", "norm": "linf", "epsilon": ["0.05", "0.1"], "steps": 3},
    {"name": "square", "epsilon": "0.1", "queries": 5},
]
DOOMED = {"name": "doomed", "label": "own", "epsilon": ["0.05", "0.1"]}


class LateDeed(SilentProgress):
    """Leaves deeds to be done once the run is planned, each at a call of the attack."""

    def __init__(self, **deeds: int) -> None:
        self.deeds = {deed.replace("_", "-"): call for deed, call in deeds.items()}
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def start(self, *, work: int, cells: int, reused: int) -> None:
        for deed, call in self.deeds.items():
            Path(deed).write_text(str(call))

    @property
    def undone(self) -> list[str]:
        return [each for each in self.deeds if Path(each).exists()]


def suite_of(*attacks: dict[str, Any], **more: Any) -> Suite:
    """Returns a suite on the planted parts."""
    return Suite.model_validate(
        {
            "name": "workers",
            "dataset": {"name": "squares", "source": f"{PARTS}:squares"},
            "models": [
                {"name": "one", "model": f"{PARTS}:one"},
                {"name": "two", "model": f"{PARTS}:two"},
            ],
            "attacks": list(attacks),
            **more,
        }
    )


def plug_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Makes the attacks of the parts a plug-in, of this process and of its workers."""
    about = folder / "plugin" / "worker_parts-1.0.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: worker-parts\nVersion: 1.0\n")
    lines = "".join(f"{name} = worker_parts:{each.__name__}\n" for name, each in OWN.items())
    (about / "entry_points.txt").write_text(f"[gibbon.attacks]\n{lines}")
    planting = planted.Plant(patch)
    for name, kind in OWN.items():
        planting.attack(name, kind)  # plug-ins may have been read before
    patch.syspath_prepend(str(about.parent))
    patch.chdir(folder)
    # Tables name the commit: the tests must not mind who commits meanwhile.
    patch.setattr(provenance, "_commit", lambda: ("", None))


def run(suite: Suite, folder: Path, *, progress: Progress = SILENT, **more: Any) -> RunRecord:
    settings = RunSettings(**{"device": "cpu", "batch_size": 5, **more})
    return run_suite(suite, folder, settings=settings, progress=progress, publish=write_report)


def assert_same_runs(one: Path, other: Path) -> None:
    assert_same_folders(one, other, rows=ROWS, tables=TABLES)
