"""What a report begins with: whether its numbers may be used, verdicts, and the headline."""
