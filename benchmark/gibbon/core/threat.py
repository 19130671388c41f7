"""Threat models: a norm, a budget epsilon such as ``8/255``, and bounds of the inputs.

Imports no torch, since suites and records use these types too.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from fractions import Fraction

from gibbon.core.errors import SpecError
from gibbon.core.plain_text import shown

LARGEST_EXPONENT = 400  # beyond any float; exact arithmetic would not end on 1e999999999
PIXEL_STEPS = 255  # of an 8-bit picture, in whose steps budgets are often computed: 8 / 255
DECIMAL_STEPS = 51  # every 51st of these steps is a short decimal such as 0.2, and no other is


class Norm(StrEnum):
    """The norm that a perturbation is measured in."""

    LINF = "linf"
    L2 = "l2"
    L1 = "l1"

    @classmethod
    def _missing_(cls, value: object) -> Norm | None:
        """Returns the norm of another spelling, such as ``"Linf"``, ``"l-inf"``, ``"L2"``."""
        if not isinstance(value, str):
            return None
        word = re.sub(r"[\s_-]", "", value.lower()).replace("∞", "inf").replace("infinity", "inf")
        spelling = word if word.startswith("l") else f"l{word}"
        return next((each for each in cls if each.value == spelling), None)

    @property
    def symbol(self) -> str:
        """The norm's symbol in tables."""
        return {"linf": "L∞", "l2": "L2", "l1": "L1"}[self.value]


@dataclass(frozen=True, order=True)
class Epsilon:
    """A perturbation budget, exact, and printed as it was written.

    >>> Epsilon.parse("8/255") == Epsilon.parse("16/510")
    True
    >>> str(Epsilon.parse("8/255")), float(Epsilon.parse("0.25")), str(Epsilon.parse(0.1))
    ('8/255', 0.25, '0.1')

    A float that equals a number of steps of an 8-bit pixel is printed as that fraction:

    >>> str(Epsilon.parse(8 / 255)), Epsilon.parse(8 / 255) == Epsilon.parse("8/255")
    ('8/255', True)
    """

    value: Fraction
    text: str = field(compare=False)

    @classmethod
    def parse(cls, written: object, *, where: str = "") -> Epsilon:
        """Returns the budget written as a number, a decimal or a fraction.

        An epsilon is returned as it is.

        Raises `SpecError` if it is not a finite number, or is negative.
        """
        if isinstance(written, Epsilon):
            return written
        accepted = isinstance(written, str | int | float) and not isinstance(written, bool)
        try:
            text = _in_pixel_steps(written) or str(written).strip()
            _, _, exponent = text.lower().partition("e")
            if not accepted or (exponent and abs(int(exponent)) > LARGEST_EXPONENT):
                raise ValueError(text)
            value = Fraction("/".join(part.strip() for part in text.split("/")))
            finite = math.isfinite(float(value))
        except (ValueError, ZeroDivisionError, OverflowError):
            finite = False
        if not finite:
            raise SpecError(
                f'epsilon must be a number such as 0.25 or "8/255", got {shown(written)}',
                where=where,
            )
        if value < 0:
            raise SpecError(f"epsilon must not be negative, got {shown(written)}", where=where)
        return cls(value, text)

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        return self.text


def _in_pixel_steps(written: object) -> str:
    """Returns ``"8/255"`` for the float 8 / 255, and an empty text for any other number."""
    if not isinstance(written, float) or not 0 < written < PIXEL_STEPS:
        return ""
    steps = round(written * PIXEL_STEPS)
    meant = steps / PIXEL_STEPS == written and steps % DECIMAL_STEPS != 0
    return f"{steps}/{PIXEL_STEPS}" if meant else ""


ZERO = Epsilon(Fraction(0), "0")


@dataclass(frozen=True)
class Bounds:
    """Bounds of a model's inputs: every coordinate is in ``[low, high]``.

    >>> Bounds(0.0, 1.0).width
    1.0
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise SpecError(f"bounds must be finite and low < high, got {self.low}, {self.high}")

    @property
    def width(self) -> float:
        """``high - low``."""
        return self.high - self.low


PIXEL_BOUNDS = Bounds(0.0, 1.0)  # of a picture's inputs, and of inputs that declare nothing else


@dataclass(frozen=True)
class ThreatModel:
    """All points within ``epsilon`` of an input in ``norm``, inside ``bounds`` if there are any.

    Goodfellow et al. (2015) do not clip: their adversarial examples leave the pixel range.  That
    is ``bounds=None``.
    """

    norm: Norm
    epsilon: Epsilon
    bounds: Bounds | None

    @property
    def radius(self) -> float:
        """Epsilon as a float, in the units of the model's input."""
        return float(self.epsilon)

    @property
    def width_note(self) -> str:
        """A sentence if the budget is as wide as the bounds, else an empty text.

        Under such a budget in L∞ every input is within reach of every other.  The usual reason is a
        number of pixel steps written without the 255.
        """
        bounds = self.bounds
        if self.norm is not Norm.LINF or bounds is None or self.radius < bounds.width:
            return ""
        steps = self.epsilon.value
        meant = (
            f": did you mean {steps}/{PIXEL_STEPS}?"
            if steps.denominator == 1 and steps <= PIXEL_STEPS
            else ""
        )
        box = f"[{bounds.low:g}, {bounds.high:g}]"
        return f"epsilon {self.epsilon} is as wide as the box {box}{meant}"


class Verdict(IntEnum):
    """The result of the checks of a candidate."""

    VALID = 0
    NOT_FINITE = 1
    OUT_OF_BOUNDS = 2
    OUT_OF_BUDGET = 3
