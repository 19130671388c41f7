"""Shards of a run: plans of a part of the examples, and how their results are joined."""
