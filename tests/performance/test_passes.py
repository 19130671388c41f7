"""What attacks cost beside the passes of the bare module that they need.

FGSM at k epsilons needs one forward and backward and k forwards; PGD one forward and backward a
step and a forward at the end.  Both are timed in turns with these bare passes, on the same batch,
threads and process.  Ratios are printed, not asserted: a busy machine must not fail a build.
What is asserted is that other libraries, doing the same work, find no more errors.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial

import pytest
from ratios import compare
from work import EPSILONS, PEERS, STEPS, Ours, OursFromRandomStarts, bare_passes, digits, maxout

from benchmark.classifier import Classifier

pytestmark = pytest.mark.filterwarnings("ignore")

BATCH_SIZES = (100, 250, 500, 1000)
DEFAULT = 500
FGSM_WORK = f"FGSM, {len(EPSILONS)} epsilons"
PGD_WORK = f"PGD, {STEPS} steps"


@pytest.fixture(scope="module")
def evaluated() -> Iterator[Classifier]:
    classifier = maxout()
    with classifier.evaluating():
        yield classifier


def rounds(batch_size: int, *, passes: int) -> int:
    """Enough repetitions for a steady median in a few seconds."""
    return max(7, min(60, 250_000 // (batch_size * passes)))


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_fgsm(benchmark, evaluated, batch_size):
    batch = digits(batch_size)
    floor = partial(
        bare_passes, evaluated.module, batch.inputs, gradients=1, forwards=len(EPSILONS)
    )
    ours = Ours(evaluated, batch)
    compare(
        benchmark,
        lambda: ours.fgsm()[-1],
        floor,
        name=FGSM_WORK,
        who=ours.name,
        batch_size=batch_size,
        rounds=rounds(batch_size, passes=7),
    )


@pytest.mark.parametrize("kind", [Ours, OursFromRandomStarts], ids=["still", "random"])
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_pgd(benchmark, evaluated, batch_size, kind):
    batch = digits(batch_size)
    floor = partial(bare_passes, evaluated.module, batch.inputs, gradients=STEPS, forwards=1)
    ours = kind(evaluated, batch)
    compare(
        benchmark,
        lambda: ours.pgd()[-1],
        floor,
        name=PGD_WORK,
        who=ours.name,
        batch_size=batch_size,
        rounds=rounds(batch_size, passes=40),
    )


@pytest.fixture(params=PEERS, ids=[each.name for each in PEERS])
def peer(request, evaluated):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return request.param(evaluated, digits(DEFAULT))
        except ImportError as error:
            pytest.skip(f"not installed: {error.name}")


def test_fgsm_of_others(benchmark, evaluated, peer):
    batch = digits(DEFAULT)
    floor = partial(
        bare_passes, evaluated.module, batch.inputs, gradients=1, forwards=len(EPSILONS)
    )
    compare(
        benchmark,
        lambda: peer.fgsm()[-1],
        floor,
        name=FGSM_WORK,
        who=peer.name,
        batch_size=DEFAULT,
        rounds=rounds(DEFAULT, passes=7),
    )
    pairs = zip(Ours(evaluated, batch).fgsm(), peer.fgsm(), strict=True)
    assert all(ours >= theirs for ours, theirs in pairs)


def test_pgd_of_others(benchmark, evaluated, peer):
    batch = digits(DEFAULT)
    floor = partial(bare_passes, evaluated.module, batch.inputs, gradients=STEPS, forwards=1)
    compare(
        benchmark,
        lambda: peer.pgd()[-1],
        floor,
        name=PGD_WORK,
        who=peer.name,
        batch_size=DEFAULT,
        rounds=rounds(DEFAULT, passes=40),
    )
    assert Ours(evaluated, batch).pgd() >= peer.pgd()
