"""Counts the processes of a run that share the memory of this machine, or of a device."""

from __future__ import annotations

import os
import sys

import torch

from gibbon.runner.settings import RunSettings


def cores() -> int:
    """Returns the number of processors that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def local_workers(settings: RunSettings, device: torch.device) -> int:
    """Returns the number of worker processes on this machine; 0 without the executor for them."""
    if settings.execution != "processes":
        return 0
    if settings.workers is not None:
        return settings.workers
    return torch.cuda.device_count() if device.type == "cuda" else cores()


def sharing(settings: RunSettings, device: torch.device) -> int:
    """Returns the number of processes that share the memory that models are in."""
    workers = local_workers(settings, device)
    if device.type == "cuda" and device.index is None:
        workers = -(-workers // max(1, torch.cuda.device_count()))
    return max(1, workers)
