"""Failures: exceptions fail one cell, are attributed, and a shortage of memory halves the batch."""
