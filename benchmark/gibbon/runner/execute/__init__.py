"""Computes the outcomes of cells.

`find_jobs` (`jobs`) groups the missing cells into jobs, and `run_jobs` (`run_jobs`) runs them.  A
job attacks the survivors of an earlier outcome (`run_job`).  Its batches are halved if memory runs
out (`batch_loop`); each gives a part of the outcome of every cell (`batch`).  A `Scorer` (`scorer`)
decides when candidates are scored on the targets other than the source.
"""
