"""Commands for this repository's own pages and records, run from its root; not installed."""
