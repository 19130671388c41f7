"""Compares the estimates of `run --dry-run` with the runs themselves, and keeps a record.

Each suite of `SUITES` is first estimated and then run, each in a process of its own::

    OMP_NUM_THREADS=1 python -m tools.records.estimates [NAME...] [--clock processor]

On a busy machine the clock of the processor is steadier than that on the wall; with one thread the
two agree on an idle one.  The record, `results/estimates/record.json`, makes the table of
`docs/clusters.md`; suites that are not named keep their rows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch

from gibbon.report import write_report
from gibbon.runner.estimate import timing
from gibbon.runner.estimate.dry_run import dry_run
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite
from tools.pipe_table import pipe_table
from tools.records.machine import CLOCKS, ROOT, processor

RECORD: Final = ROOT / "results" / "estimates" / "record.json"
UNIT: Final = 1 if sys.platform == "darwin" else 1024  # of the kernel's largest resident size
BAR: Final = 0.25  # of the difference between estimate and run

MEMBERS: Final = [{"name": "pgd", "steps": 20}, {"name": "apgd-dlr", "steps": 50}]
SUITES: Final[dict[str, dict[str, Any]]] = {
    "five epsilons": {
        "words": "FGSM at five ε and their transfer, four networks, 10,000 examples",
        "limit": 10_000,
        "models": ["softmax", "maxout", "maxout-adv", "rbf"],
        "attacks": [{"name": "fgsm", "epsilon": ["0.05", "0.1", "0.15", "0.2", "0.25"]}],
        "transfer": {"attacks": ["fgsm"]},
    },
    "steps": {
        "words": "PGD with 40 steps at two ε, two networks, 1,000 examples",
        "limit": 1_000,
        "models": ["maxout", "maxout-adv"],
        "attacks": [{"name": "pgd", "epsilon": ["0.1", "0.25"], "steps": 40}],
    },
    "list": {
        "words": "errors alone under a list of two attacks, carried over three ε, 2,000 examples",
        "limit": 2_000,
        "models": ["maxout-label-leaking"],
        "error_only": True,
        "attacks": [
            {
                "name": "worst-of",
                "epsilon": ["0.05", "0.1", "0.15"],
                "attacks": MEMBERS,
                "carried": True,
            }
        ],
    },
    "nearest": {
        "words": "the nearest adversarial examples by DDN and FMN with 100 steps, 500 examples",
        "limit": 500,
        "models": ["maxout"],
        "attacks": [
            {"name": "ddn", "epsilon": ["1", "2"], "norm": "l2"},
            {"name": "fmn", "epsilon": ["0.1", "0.2"], "norm": "linf"},
        ],
    },
    "restarts": {
        "words": "APGD-CE with 100 steps and APGD-T, one network, 300 examples",
        "limit": 300,
        "models": ["maxout"],
        "attacks": [
            {"name": "apgd-ce", "epsilon": "0.1"},
            {"name": "apgd-t", "epsilon": "0.1", "steps": 20},
        ],
    },
}


def estimated(name: str, clock: str) -> dict[str, Any]:
    """Returns the estimate of a suite."""
    timing.CLOCK = CLOCKS[clock]
    with tempfile.TemporaryDirectory() as folder:
        found = dry_run(suite_of(name), Path(folder) / "run", settings=settings_of(name)).estimate
    seconds = found.seconds
    return {
        "cells": found.cells,
        "passes": round(found.forward.likely + found.backward.likely),
        "passes_low": round(found.forward.low + found.backward.low),
        "passes_high": round(found.forward.high + found.backward.high),
        "seconds": seconds.likely,
        "seconds_low": seconds.low,
        "seconds_high": seconds.high,
        "memory": found.memory,
        "disk": found.disk,
    }


def measured(name: str, clock: str) -> dict[str, Any]:
    """Returns what the run of a suite took, without its plan."""
    now = CLOCKS[clock]
    began: list[float] = []

    class Started:
        """Takes the time when the plan is made and the work starts."""

        def note(self, text: str) -> None: ...
        def checking(self, examples: int, *, of: int, dataset: str) -> None: ...
        def advance(self, work: int, *, doing: str) -> None: ...
        def failed(self, cell: str, *, error: str) -> None: ...
        def start(self, *, work: int, cells: int, reused: int) -> None:
            began.append(now())

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        record = run_suite(
            suite_of(name),
            place,
            settings=settings_of(name),
            progress=Started(),
            publish=write_report,
        )
        seconds = now() - began[0]
        disk = sum(each.stat().st_size for each in place.rglob("*") if each.is_file())
    rows = record.evaluations
    scored = sum(each.examples for each in record.transfers if each.source != each.target)
    return {
        "cells": len(rows),
        "passes": sum(each.forward_passes + each.backward_passes for each in rows) + scored,
        "seconds": seconds,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT,
        "disk": disk,
    }


def suite_of(name: str) -> Suite:
    """Returns a suite of the comparison."""
    written = {key: each for key, each in SUITES[name].items() if key not in ("words", "limit")}
    return Suite.model_validate({"name": "estimates", "dataset": "mnist", **written})


def settings_of(name: str) -> RunSettings:
    """Returns the settings of a suite's run."""
    return RunSettings(device="cpu", limit=SUITES[name]["limit"])


def estimates_table(record: Path) -> str:
    """Returns the table of a record in markdown, with the machine that it was made on."""
    content = json.loads(record.read_text())
    machine = content["machine"]
    rows = []
    for each in content["rows"]:
        guess, real = each["estimated"], each["measured"]
        rows.append(
            [
                each["words"],
                f"{guess['passes']:,} / {real['passes']:,}",
                f"{guess['seconds']:.1f} ({guess['seconds_low']:.1f} to "
                f"{guess['seconds_high']:.1f}) / {real['seconds']:.1f}",
                f"{guess['seconds'] / real['seconds'] - 1:+.0%}".replace("-", "\N{MINUS SIGN}"),
                f"{guess['memory'] / 1e6:,.0f} / {real['memory'] / 1e6:,.0f}",
                f"{guess['disk'] / 1e6:.1f} / {real['disk'] / 1e6:.1f}",
            ]
        )
    head = ["run", "passes", "seconds", "difference", "memory, MB", "disk, MB"]
    table = pipe_table(rows, head)
    clock = "the clock on the wall" if machine["clock"] == "wall" else "the processor's time"
    return (
        f"{table}\n\nEstimate / run, on {machine['date']}: {machine['processor']}, "
        f"{machine['threads']} thread; torch {machine['torch']}; {clock}."
    )


def main() -> int:
    """Estimates and runs the named suites, and writes the record; 1 if a time is off the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(SUITES)}")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--record", type=Path, default=RECORD)
    given = parser.parse_args()
    unknown = [each for each in given.names if each not in SUITES]
    if unknown:
        parser.error(f"no suite {unknown[0]!r}; there are {', '.join(SUITES)}")
    before = json.loads(given.record.read_text())["rows"] if given.record.exists() else []
    rows = {each["name"]: each for each in before if each["name"] in SUITES}
    context = multiprocessing.get_context("spawn")
    for name in given.names or SUITES:
        found = {}
        for what in (estimated, measured):
            with context.Pool(1) as pool:
                found[what.__name__] = pool.apply(what, (name, given.clock))
        rows[name] = {"name": name, "words": SUITES[name]["words"], **found}
        ratio = found["estimated"]["seconds"] / found["measured"]["seconds"]
        sys.stdout.write(f"{name}: {found} {ratio:.2f}\n")
        content = {
            "machine": {
                "date": datetime.now(UTC).date().isoformat(),
                "clock": given.clock,
                "processor": processor(),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            },
            "rows": [rows[each] for each in SUITES if each in rows],
        }
        given.record.parent.mkdir(parents=True, exist_ok=True)
        given.record.write_text(json.dumps(content, indent=1) + "\n")
    off = [
        each["name"]
        for each in rows.values()
        if abs(each["estimated"]["seconds"] / each["measured"]["seconds"] - 1) > BAR
    ]
    if off:
        sys.stdout.write(f"off by more than {BAR:.0%}: {', '.join(off)}\n")
    return int(bool(off))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
