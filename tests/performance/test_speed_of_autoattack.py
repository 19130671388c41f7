"""AutoAttack's standard version beside its authors' code, where few examples survive and many do.

Both run APGD on the cross-entropy and on nine targets, FAB on nine targets and the square attack,
with 100 steps and 5,000 queries, on the whole batch at once.
"""

from __future__ import annotations

import ours
import pytest
from ledger import Ledger
from rivals import autoattack
from subjects import Subject, convolutional, digits, shipped

from gibbon.attacks.autoattack import AutoAttack

pytestmark = pytest.mark.filterwarnings("ignore")

EXAMPLES = 100
# The bars where fewer than half of the examples survive, and where most do.
FEW, MANY = 2.0, 1.0
CASES = [
    ("maxout-label-leaking", "0.25", FEW),
    ("maxout-label-leaking", "0.15", FEW),
    ("maxout-label-leaking", "0.05", MANY),
    ("convolutional", "0.25", FEW),
    ("convolutional", "0.1", MANY),
]
# Both draw random numbers, and each from its own generator: how far apart one may be.
SAMPLING = 0.01


def subject(name: str) -> Subject:
    return convolutional() if name == "convolutional" else shipped(name)


@pytest.mark.parametrize(("name", "epsilon", "bar"), CASES)
def test_autoattack(ledger: Ledger, name: str, epsilon: str, bar: float):
    pyautoattack = pytest.importorskip("pyautoattack")
    on, batch = subject(name), digits(EXAMPLES)
    us = ours.contestant(AutoAttack(), on, batch, epsilons=[epsilon])
    them = autoattack(pyautoattack, on.bare, batch, epsilon=float(epsilon))
    with on.classifier.evaluating():
        timings = ledger.hold(
            us,
            [them],
            section="autoattack",
            work=f"autoattack on {name}, epsilon {epsilon}, {len(batch.ids)} examples",
            seconds=60.0,
            least=2,
            bars={them.who: bar},
        )
    mine, theirs = timings[us.who].errors[-1], timings[them.who].errors[-1]
    assert mine >= theirs - SAMPLING
    assert (mine > 0.5) == (bar == FEW)
