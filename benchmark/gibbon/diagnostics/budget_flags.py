"""Flags of budgets: as wide as the inputs' bounds, or too small to change a pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from gibbon.core.threat import PIXEL_STEPS, Norm, ThreatModel
from gibbon.records.flags import Flag

LINF_STEPS = 32  # of 255: budgets of so many steps or fewer are usual in L∞
L1_RANGE = 0.5  # of the range of one number: usual budgets in L1 are some of them
HALF_STEP = 0.5 / PIXEL_STEPS  # of the width of the bounds: less is lost in an 8-bit picture


def small_budget_flags(dataset: str, attack: str, threats: Iterable[ThreatModel]) -> Iterator[Flag]:
    """Yields the flags of budgets in L∞ that are less than half a step of an 8-bit picture.

    Such a perturbation disappears when the picture is stored.  The usual reason is a division by
    255 too many.  In L2, a budget of a few steps of 255 is flagged, in L1 one of less than half of
    the range of one number: they are budgets of L∞.
    """
    tiny = partial(Flag, kind="tiny-budget", dataset=dataset, attack=attack)
    for threat in threats:
        bounds = threat.bounds
        steps_of_255 = threat.epsilon.value * PIXEL_STEPS
        few = steps_of_255.denominator == 1 and 0 < steps_of_255 <= LINF_STEPS
        if threat.norm is Norm.L2 and bounds is not None and bounds.width == 1 and few:
            yield tiny(
                epsilon=threat.epsilon,
                figure=f"{steps_of_255} steps of 255 in one number",
                sentence=f"epsilon {threat.epsilon} in L2 allows a change of {steps_of_255} of 255 "
                "steps in one number of an input, or less in each of several: budgets of this size "
                "are usual in L∞",
                advice="Use a budget of L2, such as 0.5 for CIFAR-10, 1.5 to 2 for MNIST and 3 for "
                "ImageNet, or the norm L∞.",
            )
        if threat.norm is Norm.L1 and bounds is not None:
            yield from _small_in_l1(tiny, threat, bounds.width)
        if threat.norm is not Norm.LINF or bounds is None:
            continue
        if 0 < threat.radius < HALF_STEP * bounds.width:
            steps = threat.radius / bounds.width * PIXEL_STEPS
            yield tiny(
                epsilon=threat.epsilon,
                figure=f"{steps:.2g} steps of 255",
                sentence=f"epsilon {threat.epsilon} is {steps:.2g} of the 255 steps of an 8-bit "
                "picture: rounding to pixels removes it",
            )


def _small_in_l1(tiny: Callable[..., Flag], threat: ThreatModel, width: float) -> Iterator[Flag]:
    share = threat.radius / width
    if 0 < share < L1_RANGE:
        yield tiny(
            epsilon=threat.epsilon,
            figure=f"{share:.2g} of the range of one number",
            sentence=f"epsilon {threat.epsilon} in L1 allows a change of {share:.2g} of the range "
            "in one number of an input, or of all numbers together: budgets of this size are usual "
            "in L∞",
            advice="Use a budget of L1, such as 10 to 12 for MNIST and CIFAR-10 and 60 for "
            "ImageNet, or the norm L∞.",
        )


def budget_flags(dataset: str, attack: str, threats: Iterable[ThreatModel]) -> Iterator[Flag]:
    """Yields the flags of an attack's budgets that are as wide as the inputs' bounds."""
    for threat in threats:
        bounds, sentence = threat.bounds, threat.width_note
        if bounds is None or not sentence:
            continue
        yield Flag(
            kind="wide-budget",
            dataset=dataset,
            attack=attack,
            epsilon=threat.epsilon,
            figure=f"{threat.epsilon} in [{bounds.low:g}, {bounds.high:g}]",
            sentence=sentence,
        )
