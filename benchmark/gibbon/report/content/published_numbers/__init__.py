"""Published numbers and claims beside what was measured, with verdicts."""
