"""Stored results: run records, outcomes of cells, flags and galleries.  No torch is imported."""
