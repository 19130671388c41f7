"""Computes the outcomes of cells.

`jobs` groups the missing cells into jobs, and `run_job` runs one, in batches
(`gibbon.runner.failures.batch_loop`); `gibbon.runner.run_jobs` runs all.  `batch` runs one batch.
`scorer` decides when other models score the candidates.
"""
