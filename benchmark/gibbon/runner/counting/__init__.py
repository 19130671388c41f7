"""Counting: outcomes become rows, flags, tests of claims and the record of the run."""
