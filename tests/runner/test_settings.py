"""Run settings: what they refuse by themselves, and that they need no torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from gibbon.core.errors import SpecError
from gibbon.runner.settings import RunSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size: must be at least 1, got 0"),
        ({"batch_size": "big"}, "batch_size: must be a whole number, got 'big'"),
        ({"models_in_memory": -1}, "models_in_memory: must be at least 1, got -1"),
        ({"decoders": -1}, "decoders: must be at least 0, got -1"),
        ({"workers": 0}, "workers: must be at least 1, got 0"),
        ({"executor": "dask"}, "executor: must be in-process or processes or ray, got 'dask'"),
        (
            {"executor": "in-process", "workers": 2},
            "workers: is for the executor ray or processes, not in-process",
        ),
        ({"address": "auto"}, "address: is for the executor ray, not in-process"),
        (
            {"workers": 2, "gpus_per_worker": 1},
            "gpus_per_worker: is for the executor ray, not processes",
        ),
        (
            {"executor": "ray", "gpus_per_worker": -1},
            "gpus_per_worker: must be a number of GPUs, got -1",
        ),
        ({"executor": "ray", "address": " "}, "address: must be an address, or auto, got nothing"),
        ({"limit": 0}, "limit: must be at least 1, got 0"),
        ({"limit": 1.5}, "limit: must be a whole number, got 1.5"),
        ({"limit": True}, "limit: must be a whole number, got True"),
        ({"precision": "half"}, "precision: must be float32 or bfloat16, got 'half'"),
    ],
)
def test_an_impossible_value_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        RunSettings(**values)
    assert str(caught.value) == message


def test_the_least_values_are_accepted() -> None:
    settings = RunSettings(batch_size=1, models_in_memory=1, decoders=0, limit=np.int64(1))
    assert (settings.batch_size, settings.decoders, settings.limit) == (1, 0, 1)


def test_they_need_no_torch() -> None:
    script = "import sys, gibbon.runner.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
