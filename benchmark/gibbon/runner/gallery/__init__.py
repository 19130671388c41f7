"""Makes pictures of a few examples of each attack.

After the run the examples are selected by their outcomes (`select`), attacked again, since
candidates are not stored (`recover`), and drawn (`draw`).
"""
