"""A matrix of transfer by the Python call, which is a whole run: models loaded and looked at,
candidates checked, outcomes on disk, intervals, and the tables as text.

The others have a loop around torchattacks that counts errors and keeps nothing: over pairs of
source and target, as it is often written, and over sources, each one's examples made once.
"""

from __future__ import annotations

import copy

import ours
import pytest
import torch
from ledger import Ledger
from rivals import Torchattacks, TransferLoop
from subjects import digits, shipped
from torch import nn
from turns import Contestant

from gibbon import evaluate
from gibbon.attacks.pgd import PGD
from gibbon.datasets.base import Batch

pytestmark = pytest.mark.filterwarnings("ignore")

MODELS = 5
BATCH_SIZE = 1000
FEW, MANY = 2_000, 5_000
EPSILON = "0.1"
STEPS, STEP = 20, 0.0125
NOISE = 0.02


@pytest.fixture(scope="module")
def modules() -> list[nn.Module]:
    """Networks of one size: the zoo's maxout, its weights times 1 with a deviation of 0.02."""
    made = []
    draws = torch.Generator().manual_seed(0)
    for _ in range(MODELS):
        module = copy.deepcopy(shipped("maxout").bare)
        for parameter in module.parameters():
            parameter.mul_(1 + NOISE * torch.randn(parameter.shape, generator=draws))
        made.append(module)
    return made


def run(modules: list[nn.Module], examples: Batch) -> list[float]:
    """The errors of targets on sources' examples, source by source."""
    named = {f"maxout-{number}": module for number, module in enumerate(modules)}
    found = evaluate(
        named,
        (examples.inputs, examples.labels),
        attack=PGD(steps=STEPS, step_size=STEP, random_start=False),
        epsilon=EPSILON,
        device="cpu",
        batch_size=BATCH_SIZE,
    )
    assert str(found)
    errors = {(row.source, row.target): row.error for row in found.transfers}
    return [errors[source, target] for source in named for target in named]


@pytest.mark.parametrize(
    ("way", "count", "bar", "seconds"),
    [("pairs", FEW, 4.0, 150.0), ("sources", MANY, 1.0, 300.0)],
)
def test_transfer(
    ledger: Ledger, modules: list[nn.Module], way: str, count: int, bar: float, seconds: float
):
    pytest.importorskip("torchattacks")
    examples = digits(count)
    us = Contestant(ours.NAME, lambda: run(modules, examples))
    loop = TransferLoop(
        [Torchattacks(each) for each in modules],
        [_batch(examples, rows) for rows in torch.arange(count).split(BATCH_SIZE)],
        epsilon=float(EPSILON),
        step=STEP,
        steps=STEPS,
    )
    work = loop.by_pairs if way == "pairs" else loop.by_sources
    them = Contestant(f"torchattacks, by {way}", work)
    run(modules, digits(20))  # what is imported on first use is not what is compared
    timings = ledger.hold(
        us,
        [them],
        section="transfer",
        work=f"{MODELS} x {MODELS} transfer, PGD of {STEPS} steps, {count:,} examples",
        seconds=seconds,
        bars={them.who: bar},
    )
    mine, theirs = timings[us.who].errors, timings[them.who].errors
    own = range(0, MODELS * MODELS, MODELS + 1)
    assert all(mine[at] >= theirs[at] for at in own)
    assert sum(mine) >= sum(theirs)


def _batch(examples: Batch, rows: torch.Tensor) -> Batch:
    return Batch(examples.ids[rows], examples.inputs[rows], examples.labels[rows])
