"""Joins the outcomes of one cell that were computed for different examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from gibbon.records.outcomes import Outcome
from gibbon.records.path_evidence import PathEvidence


def joined(parts: Sequence[Outcome]) -> Outcome:
    """Returns the outcome of all examples, in the order of the parts, which must not be empty.

    A part whose examples were all misclassified before was not attacked: it lacks what is known of
    attacked examples, which is filled in as in an outcome of which some examples are attacked.
    """
    zero = any(each.zero_gradient is not None for each in parts)
    changed = any(each.changed_share is not None for each in parts)
    path = any(each.path is not None for each in parts)
    filled = []
    for each in parts:
        count = len(each.example_id)
        if zero and each.zero_gradient is None:
            each = replace(each, zero_gradient=np.zeros(count, dtype=np.bool_))
        if changed and each.changed_share is None:
            each = replace(each, changed_share=np.full(count, np.nan, dtype=np.float32))
        if path and each.path is None:
            each = replace(each, path=PathEvidence.unknown(count))
        filled.append(each)
    return reduce(Outcome.then, filled)
