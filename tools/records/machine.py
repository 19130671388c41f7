"""The machine that a record is made on, and the clocks that it is measured by."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CLOCKS: Final = {"wall": time.perf_counter, "processor": time.process_time}


def processor() -> str:
    """Returns the name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    named = (each.partition(":")[2].strip() for each in lines if each.startswith("model name"))
    return next(named, "unknown")
