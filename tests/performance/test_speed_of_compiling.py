"""Models through `torch.compile`, as ``--compile`` has them: the same numbers, in less time.

What compiling itself takes is told in a note: the first run less a later one, with an empty cache.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ours
import pytest
import torch
from ledger import Ledger
from subjects import Subject, convolutional, digits, shipped

from gibbon.attacks.base import Attack
from gibbon.attacks.pgd import PGD
from gibbon.core.threat import Epsilon
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.runner.device.precision import Variant, vary

pytestmark = pytest.mark.filterwarnings("ignore")

COMPILED = f"{ours.NAME} --compile"
# Sums in another order: a step's sign may turn where a gradient is as good as zero.
ROUNDING = 0.002
PICTURES = 8


@dataclass(frozen=True)
class Job:
    """What is run with and without."""

    subject: Subject
    batch: Batch
    epsilon: str
    steps: int


def maxout() -> Job:
    return Job(shipped("maxout"), digits(1000), "0.1", 20)


def small() -> Job:
    return Job(convolutional(), digits(1000), "0.15", 20)


def efficientnet() -> Job:
    """EfficientNet-lite0 with random weights, on random pictures of its own predictions."""
    timm = pytest.importorskip("timm")
    shape = (3, 224, 224)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        inputs = torch.rand(PICTURES, *shape)
    subject = Subject.of(Classifier(net, classes=1000, input_shape=shape))
    with torch.no_grad():
        labels = subject.bare(inputs).argmax(1)
    return Job(subject, Batch(torch.arange(PICTURES), inputs, labels), "4/255", 10)


JOBS: dict[str, Callable[[], Job]] = {
    "maxout": maxout,
    "convolutional": small,
    "efficientnet-lite0": efficientnet,
}


@pytest.fixture
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_no_cache")
@pytest.mark.parametrize("name", JOBS)
def test_compiling(ledger: Ledger, name: str):
    job = JOBS[name]()
    step = 2.5 * float(Epsilon.parse(job.epsilon)) / job.steps
    attack: Attack = PGD(steps=job.steps, step_size=step, random_start=False)
    plain = job.subject.classifier
    # A module of its own: the hooks of the other evaluation would be compiled too.
    alone = copy.deepcopy(plain)
    compiled = Subject(vary(alone, Variant(compiled=True), padded=True), job.subject.bare)
    us = ours.contestant(attack, compiled, job.batch, epsilons=[job.epsilon], who=COMPILED)
    without = ours.contestant(attack, job.subject, job.batch, epsilons=[job.epsilon])
    with compiled.classifier.evaluating(), plain.evaluating():
        started = time.perf_counter()
        us.work()
        first = time.perf_counter() - started
        started = time.perf_counter()
        us.work()
        again = time.perf_counter() - started
        timings = ledger.hold(
            us,
            [without],
            section="compile",
            work=f"PGD, {job.steps} steps, on {name}, batch {len(job.batch.ids):,}",
            seconds=40.0,
            bars={without.who: 1.0},
            notes={us.who: f"compiling took {first - again:.0f} s"},
        )
    (mine,), (before,) = timings[us.who].errors, timings[without.who].errors
    assert mine == pytest.approx(before, abs=ROUNDING)
