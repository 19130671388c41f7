"""Computes the outcomes of cells.

`jobs` groups the missing cells into jobs, and `run_jobs` runs each by `run_job`.  `batch_loop` cuts
a job into batches, and `batch` runs one.  `scorer` decides when other models score the candidates.
"""
