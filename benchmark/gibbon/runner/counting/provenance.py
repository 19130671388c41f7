"""Collects the provenance of a run: commit, versions, machine, time."""

from __future__ import annotations

import platform
import subprocess
import time
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from gibbon.core.package_digest import PACKAGE
from gibbon.records.run import Provenance
from gibbon.runner.plan.planned import Plan

LIBRARIES = ("torch", "torchvision", "numpy", "pandas", "pyarrow", "safetensors")
DISTRIBUTION = "gibbon-bench"
GIT_SECONDS = 5.0


def provenance(plan: Plan) -> Provenance:
    """Returns the provenance of a run that is about to start."""
    commit, dirty = _commit()
    return Provenance(
        gibbon=_version(DISTRIBUTION),
        commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        libraries={name: _version(name) for name in LIBRARIES},
        platform=f"{platform.system()} {platform.machine()}",
        device=_device(plan.device),
        threads=torch.get_num_threads(),
        batch_size=max(
            size.now for each in plan.all_experiments for size in each.batch_sizes.values()
        ),
        limit=plan.settings.limit,
        started=now(),
    )


def ended(origin: Provenance, *, started: float, computed: int, reused: int) -> Provenance:
    """Returns the provenance of a run that ends now.

    Args:
        origin: provenance of its start; what it took before, as in shards, is added to its seconds.
        started: when it started, by `time.monotonic`.
        computed: number of cells that it computed.
        reused: number of cells that were recorded already.
    """
    figures = {
        "finished": now(),
        "seconds": origin.seconds + time.monotonic() - started,
        "computed_cells": computed,
        "reused_cells": reused,
    }
    return origin.model_copy(update=figures)


def now() -> str:
    """Returns the current time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return device.type


@cache
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def _commit() -> tuple[str, bool | None]:
    """Returns the commit of Gibbon's checkout and whether it is dirty; empty without a checkout."""
    root = PACKAGE.resolve().parents[1]
    if not (root / ".git").exists():
        return "", None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "", None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(  # noqa: S603
        # Without a lock of the index, which would stay if this process were killed.
        ["git", "--no-optional-locks", "-C", str(root), *words],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=GIT_SECONDS,
        check=True,
    )
    return done.stdout.strip()
