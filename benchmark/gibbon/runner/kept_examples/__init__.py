"""Keeps adversarial examples in the folder of a run: ``keep_examples``.

They are taken while the cells are computed (`take`); what is missing afterwards, because it was
computed before or a run was killed, is completed (`complete`).  Which are kept is in `choice`.
"""
