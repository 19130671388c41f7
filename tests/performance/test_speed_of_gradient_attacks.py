"""FGSM and PGD beside other libraries: the same model, batch, epsilons, steps and step size.

What passes of the bare module are needed at least is timed in the same rounds: for FGSM at k
epsilons one forward and backward and k forwards, the clean prediction among them; for PGD one
forward and backward a step and a forward at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import ours
import pytest
from ledger import FLOOR_BAR, Ledger
from rivals import FGSMRival, Rival, rivals
from subjects import Subject, digits, shipped
from turns import Contestant, Timing

from gibbon.attacks.fgsm import FGSM
from gibbon.attacks.pgd import PGD
from gibbon.datasets.base import Batch

pytestmark = pytest.mark.filterwarnings("ignore")

BATCH_SIZES = (100, 1000)
EPSILONS = ("0.05", "0.1", "0.15", "0.2", "0.25")
RADII = tuple(float(each) for each in EPSILONS)
FGSM_BARS = {"torchattacks": 2.0, "foolbox": 2.5, "ART": 2.0}
STEPS = 20
PGD_BARS = {"torchattacks": 1.0, "foolbox": 1.0, "ART": 1.0, "advlib": 1.0}
ERROR_ONLY_BARS = dict.fromkeys(PGD_BARS, 5.0)
# The path is 2.5 epsilon long, as when no step size is given.
STEP_SHARE = 2.5 / STEPS


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    subject = shipped("maxout")
    with subject.classifier.evaluating():
        yield subject


@pytest.fixture(scope="module")
def others(subject: Subject) -> list[Rival]:
    return rivals(subject.bare)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_fgsm(ledger: Ledger, subject: Subject, others: list[Rival], batch_size: int):
    batch = digits(batch_size)
    us = ours.contestant(FGSM(), subject, batch, epsilons=EPSILONS, clean=True)
    them = [
        Contestant(each.name, lambda each=each: each.fgsm(batch, epsilons=RADII))
        for each in others
        if isinstance(each, FGSMRival)
    ]
    floor = ours.bare_passes(subject.bare, batch.inputs, gradients=1, forwards=len(EPSILONS))
    timings = ledger.hold(
        us,
        them,
        section="fgsm",
        work=f"FGSM at {len(EPSILONS)} epsilons, batch {batch_size:,}",
        seconds=20.0,
        bars=FGSM_BARS,
        floor=floor,
        floor_bar=FLOOR_BAR,
    )
    _no_fewer_errors(timings, us, them)
    asked = ours.threats(EPSILONS, subject.classifier)
    sweep = partial(ours.carried_errors, FGSM(), subject.classifier, batch, asked=asked)
    us = Contestant(ours.NAME, sweep)
    timings = ledger.hold(
        us,
        them,
        section="fgsm",
        work=f"FGSM at {len(EPSILONS)} rising epsilons, carried, batch {batch_size:,}",
        seconds=20.0,
        bars=FGSM_BARS,
    )
    _no_fewer_errors(timings, us, them)


@pytest.mark.parametrize("epsilon", ["0.1", "0.25"])
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_pgd(ledger: Ledger, subject: Subject, others: list[Rival], batch_size: int, epsilon: str):
    batch, step = digits(batch_size), STEP_SHARE * float(epsilon)
    us = ours.contestant(
        PGD(steps=STEPS, step_size=step, random_start=False), subject, batch, epsilons=[epsilon]
    )
    them = _pgd(others, batch, epsilon=float(epsilon), step=step)
    floor = ours.bare_passes(subject.bare, batch.inputs, gradients=STEPS, forwards=1)
    timings = ledger.hold(
        us,
        them,
        section="pgd",
        work=f"PGD, {STEPS} steps, the last iterate, epsilon {epsilon}, batch {batch_size:,}",
        seconds=40.0,
        bars=PGD_BARS,
        floor=floor,
        floor_bar=FLOOR_BAR,
    )
    for each in them:
        assert timings[us.who].errors >= timings[each.who].errors, each.who


@pytest.mark.parametrize("random", [True, False], ids=["random", "still"])
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_pgd_for_error_only(
    ledger: Ledger, subject: Subject, others: list[Rival], batch_size: int, random: bool
):
    epsilon, batch = "0.25", digits(batch_size)
    step = STEP_SHARE * float(epsilon)
    attack = PGD(steps=STEPS, step_size=step, random_start=random, keep="first-success")
    us = ours.contestant(attack, subject, batch, epsilons=[epsilon])
    them = _pgd(others, batch, epsilon=float(epsilon), step=step, random=random)
    start = "a random point" if random else "the input"
    timings = ledger.hold(
        us,
        them,
        section="error-only",
        work=f"PGD, {STEPS} steps from {start}, for the error alone, epsilon {epsilon}, "
        f"batch {batch_size:,}",
        seconds=30.0,
        bars=ERROR_ONLY_BARS,
    )
    _no_fewer_errors(timings, us, them)


def _no_fewer_errors(timings: dict[str, Timing], us: Contestant, them: list[Contestant]) -> None:
    for each in them:
        pairs = zip(timings[us.who].errors, timings[each.who].errors, strict=True)
        assert all(mine >= theirs for mine, theirs in pairs), each.who


def _pgd(
    others: list[Rival], batch: Batch, *, epsilon: float, step: float, random: bool = False
) -> list[Contestant]:
    return [
        Contestant(
            each.name,
            lambda each=each: each.pgd(
                batch, epsilon=epsilon, step=step, steps=STEPS, random=random
            ),
        )
        for each in others
    ]
