"""The runner: plans a suite's cells, computes those that are not there, and counts.

`benchmark.runner.run.run_suite` is the way in.  `benchmark.runner.store` reads what is recorded
and needs no torch, so nothing is imported here.
"""
