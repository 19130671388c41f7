"""Makes the records under `results/` again and compares them."""
