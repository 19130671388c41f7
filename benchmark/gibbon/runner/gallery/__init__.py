"""Pictures of a few examples of each attack: selected, attacked again, and drawn.

They are made after the run, from its outcomes: candidates are not kept.
"""
