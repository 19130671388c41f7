"""Execution of a plan: jobs, batches, scoring and the models held in memory."""
