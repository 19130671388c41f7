"""Runs the tests of the marker `played`, a folder at a time, in a process that plays a device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import played_device
import pytest

ROOT = Path(__file__).parents[1]
TESTS = ("runner/test_played_device.py", "performance/test_counts.py", "tools/test_gpu_check.py")


@pytest.mark.parametrize(
    ("name", "speed"),
    [
        *((name, "not slow") for name in TESTS),
        pytest.param(TESTS[0], "slow", marks=pytest.mark.slow),
    ],
)
def test_in_a_process_that_plays_a_device(name: str, speed: str):
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-m", f"played and {speed}", f"tests/{name}"],
        cwd=ROOT,
        env={**os.environ, played_device.VARIABLE: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_every_test_of_a_played_device_is_run_here():
    using = {
        str(file.relative_to(ROOT / "tests"))
        for file in (ROOT / "tests").rglob("test_*.py")
        if "mark.played" in file.read_text(encoding="utf-8") and file.name != Path(__file__).name
    }
    assert using == set(TESTS)
