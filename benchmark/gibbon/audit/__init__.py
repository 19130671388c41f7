"""Audits an evaluation: whether its attacks could have found what they should have found.

`planted` tests attacks on problems with a known answer, made of the model itself.  `checklist` goes
through the record of a run by three published lists, and `suggest` writes the suite that closes the
gaps.
"""
