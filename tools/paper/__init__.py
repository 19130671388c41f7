"""Measurements of claims of the paper that no suite makes, for `docs/the-paper.md`."""
