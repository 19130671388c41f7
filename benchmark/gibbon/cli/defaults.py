"""Exit codes, default folders and the environment variable of the data folder."""

from __future__ import annotations

import os
from pathlib import Path

from gibbon.core.errors import SpecError
from gibbon.core.reading import expanded

DONE, FAILED, WRONG_REQUEST, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130
BY_SIGNAL = 128  # plus the number of the signal: 143 for SIGTERM, 129 for SIGHUP
RUNS = Path("results/runs")
DATA_DIR = "GIBBON_DATA"  # in the environment


def environment_data_folder() -> Path | None:
    """Returns the folder of datasets that the environment names, if it does."""
    return expanded(os.environ[DATA_DIR], SpecError) if os.environ.get(DATA_DIR) else None
