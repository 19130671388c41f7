"""The Python interface: `evaluate` and the results that it returns."""
