"""The gate: baselines of earlier results, and the comparison of a new run with them."""
