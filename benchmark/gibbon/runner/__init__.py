"""The runner: plans a suite's cells, computes those that are not there, and counts.

`gibbon.runner.run_suite.run_suite` is the way in.  `gibbon.runner.run_folder` reads what is recorded
and needs no torch, so nothing is imported here.
"""
