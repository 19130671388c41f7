"""Executors: where the examples of jobs are attacked, one file each."""
