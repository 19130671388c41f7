"""Tables of a run, one file a table."""
