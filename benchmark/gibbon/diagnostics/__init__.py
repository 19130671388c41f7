"""Looks for signs that a measured robustness is not real, and raises flags.

Each module looks at one kind of evidence: `cell_flags` at the outcomes of one cell, `order_flags`
at cells that should be ordered (by `attack_order`), `sample_size_flags` at the number of examples,
`budget_flags` at threat models.
"""
