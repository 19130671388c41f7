"""Plans a suite, computes the cells that have no outcome yet, and counts.

The entry point is `gibbon.runner.run_suite.run_suite`.  `gibbon.runner.run_folder` reads what is
recorded and needs no torch, so nothing is imported here.
"""
