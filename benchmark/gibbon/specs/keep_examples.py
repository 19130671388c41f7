"""Which adversarial examples a run keeps: all, those misclassified, or some of each cell."""

from __future__ import annotations

import re
from numbers import Integral
from typing import Final, Literal

KeepExamples = Literal["all", "misclassified"] | int
EXPECTED: Final = "all, misclassified, or a whole number of examples"


def parse_keep_examples(written: object) -> KeepExamples:
    """Returns which adversarial examples are kept; 0 keeps none.

    Raises `ValueError` that says what was expected.

    >>> parse_keep_examples("misclassified"), parse_keep_examples("16"), parse_keep_examples(8)
    ('misclassified', 16, 8)
    """
    if isinstance(written, str) and written.strip() == "all":
        return "all"
    if isinstance(written, str) and written.strip() == "misclassified":
        return "misclassified"
    if isinstance(written, str) and re.fullmatch(r"[0-9]{1,9}", written.strip()):
        return int(written)
    if isinstance(written, Integral) and not isinstance(written, bool):
        count = int(written)
        if 0 <= count < 10**9:
            return count
    raise ValueError(EXPECTED)
