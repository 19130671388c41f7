"""From cells to outcomes.

`find_jobs` (`jobs`) groups the missing cells into jobs, and `run_jobs` (`run_jobs`) runs them.  A
job attacks the examples that an earlier outcome leaves (`run_job`).  Its batches are halved when
memory runs out (`batch_loop`); each gives a part of the outcome of every cell (`batch`).  A
`Scorer` (`scorer`) decides when the targets other than the source are asked.
"""
