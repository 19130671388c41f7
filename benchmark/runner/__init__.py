"""The runner: plans a suite's cells, computes those that are not there, and counts."""

from benchmark.runner.plan import RunSettings
from benchmark.runner.progress import Progress, Silent
from benchmark.runner.run import run_suite

__all__ = ["Progress", "RunSettings", "Silent", "run_suite"]
