"""Suites as the user writes them: their specs, decoding, names and paths.  No torch is imported."""
