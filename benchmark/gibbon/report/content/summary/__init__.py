"""The beginning of a report: whether its numbers may be used, verdicts, and the headline."""
