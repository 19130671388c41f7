"""Computes the outcomes of cells.

`jobs` groups the missing cells into jobs, and `run_jobs` runs each by `run_job`, in batches
(`gibbon.runner.batch_loop`).  `batch` runs one batch.  `scorer` decides when other models score the
candidates.
"""
