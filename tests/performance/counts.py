"""Counts what we and others launch on a device, and read back from it, for docs/performance.md.

    python tests/performance/counts.py results/performance/counts.json

The device is played (`played_device`): the counts are those of a GPU, on any machine.  Operations
are those that torch is given (`operations`), of which views and empty tensors are none.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

from operations import Counted, Operations, count  # noqa: E402
from played_device import played  # noqa: E402
from subjects import digits, shipped  # noqa: E402

from gibbon import evaluate  # noqa: E402
from gibbon.attacks.apgd import APGDCE  # noqa: E402
from gibbon.attacks.base import Attack, tries_of  # noqa: E402
from gibbon.attacks.bim import BIM  # noqa: E402
from gibbon.attacks.pgd import PGD  # noqa: E402
from gibbon.core.rng import ExampleStreams  # noqa: E402
from gibbon.core.threat import Epsilon, Norm, ThreatModel  # noqa: E402
from gibbon.datasets.base import Batch  # noqa: E402
from gibbon.models.classifier import Classifier  # noqa: E402
from gibbon.runner.executors import in_process  # noqa: E402
from gibbon.verify.guard import guarding  # noqa: E402

US = "gibbon"
EPSILON, STEP = 0.1, 0.0125
# A step that moves nothing over a boundary: no example leaves the batch between the two lengths.
SMALL = 1e-6
FEW, MORE = 6, 10  # steps; the difference belongs to steps alone
EXAMPLES = 100


class Count(BaseModel):
    """Operations and reads of one step, or of one batch, beside the passes of the bare model.

    Args:
        work: what is done.
        who: whose code does it.
        launches: operations in all.
        passes: those of the bare model's passes among them.
        reads: reads back to the host.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    work: str
    who: str
    launches: float
    passes: float
    reads: float


class Counts(BaseModel):
    """A record of counts, with the releases that they were made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    torch: str
    peers: dict[str, str]
    model: str
    examples: int
    rows: tuple[Count, ...]


Work = Callable[[int], Counted]


def per_step(work: Work) -> tuple[float, float]:
    """What one more step launches and reads."""
    few, more = work(FEW), work(MORE)
    steps = MORE - FEW
    return (more.launches - few.launches) / steps, (more.reads - few.reads) / steps


def attack_count(attack: Attack, source: Classifier, batch: Batch) -> Counted:
    """What an attack launches and reads, watched as in a run."""
    threat = ThreatModel(Norm.LINF, Epsilon.parse(str(EPSILON)), source.bounds)
    streams = ExampleStreams.derive(0, batch.ids)
    with guarding(source, batch, attack=attack) as guarded:
        watch, given = guarded.watch, guarded.batch
        watch.begin(batch.labels, threat, bounds=source.bounds, reach=threat.radius)
        tries = tries_of(
            attack, source, given.inputs, labels=given.labels, threat=threat, streams=streams
        )
        return count(lambda: list(tries))


def steps_of_ours(source: Classifier, batch: Batch) -> Iterator[tuple[str, Work]]:
    """Our iterative attacks, by the name of the work."""

    def made(make: Callable[[int], Attack]) -> Work:
        return lambda steps: attack_count(make(steps), source, batch)

    yield "PGD, the last iterate", made(lambda n: PGD(steps=n, step_size=STEP))
    yield "PGD, the best loss", made(lambda n: PGD(steps=n, step_size=STEP, keep="best-loss"))
    yield (
        "PGD, the first success",
        made(lambda n: PGD(steps=n, step_size=SMALL, random_start=False, keep="first-success")),
    )
    yield "BIM, the last iterate", made(lambda n: BIM(steps=n, step_size=STEP))
    yield "APGD, the best loss", made(lambda n: APGDCE(steps=n))


def steps_of_others(module: nn.Module, batch: Batch) -> Iterator[tuple[str, str, Work]]:
    """Others' iterative attacks that are installed: whose, the work, and how it is done."""
    device = batch.inputs.device
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchattacks

            yield (
                "torchattacks",
                "PGD, the last iterate",
                lambda n: count(
                    lambda: torchattacks.PGD(module, eps=EPSILON, alpha=STEP, steps=n)(
                        batch.inputs, batch.labels
                    )
                ),
            )
        except ImportError:
            pass
        try:
            import foolbox

            model = foolbox.PyTorchModel(module, bounds=(0, 1), device=device)
            yield (
                "foolbox",
                "PGD, the last iterate",
                lambda n: count(
                    lambda: foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=n)(
                        model, batch.inputs, batch.labels, epsilons=[EPSILON]
                    )
                ),
            )
        except ImportError:
            pass
        try:
            from pyautoattack.autopgd_base import APGDAttack

            yield (
                "pyautoattack",
                "APGD, the best loss",
                lambda n: count(
                    lambda: APGDAttack(
                        module, n_iter=n, norm="Linf", n_restarts=1, eps=EPSILON, seed=0,
                        loss="ce", device=device,
                    ).perturb(batch.inputs, batch.labels)
                ),
            )  # fmt: skip
        except ImportError:
            pass


def batch_count(device: torch.device, epsilons: Sequence[str]) -> Counted:
    """What a batch of a run of FGSM launches and reads, the unattacked cell included."""
    found: list[Counted] = []
    plain = in_process.run_batch

    def counted(task: Any) -> None:
        with Operations() as counting:
            plain(task)
        found.append(counting.counted)

    examples = digits(EXAMPLES)
    in_process.run_batch = counted
    try:
        evaluate(
            "maxout",
            (examples.inputs, examples.labels),
            attack="fgsm",
            epsilon=list(epsilons),
            device=str(device),
            batch_size=EXAMPLES,
            examination=False,
            certify="none",
        )
    finally:
        in_process.run_batch = plain
    (only,) = found
    return only


def bare_count(module: nn.Module, batch: Batch, *, backward: bool) -> int:
    """Operations of a forward pass of the bare module, or of a forward and a backward pass."""

    def work() -> None:
        leaf = batch.inputs.detach().requires_grad_(backward)
        outputs = module(leaf)
        if backward:
            torch.autograd.grad(outputs, leaf, upstream)

    with torch.no_grad():
        upstream = torch.ones_like(module(batch.inputs))
    with torch.set_grad_enabled(backward):
        return count(work).launches


def counts() -> Counts:
    """Counts everything."""
    subject, rows = shipped("maxout"), list[Count]()
    with played() as device, subject.classifier.evaluating(device):
        batch, bare = digits(EXAMPLES).to(device), copy.deepcopy(subject.bare).to(device)
        forward, both = (bare_count(bare, batch, backward=each) for each in (False, True))
        every = [(US, *each) for each in steps_of_ours(subject.classifier, batch)]
        for who, work, done in [*every, *steps_of_others(bare, batch)]:
            launches, reads = per_step(done)
            rows.append(
                Count(
                    work=f"a step of {work}", who=who, launches=launches, passes=both, reads=reads
                )
            )
    with played() as device:
        for epsilons in (["0.1"], ["0.05", "0.1", "0.15", "0.2", "0.25"]):
            found = batch_count(device, epsilons)
            passes = both + forward * (1 if len(epsilons) * EXAMPLES <= 512 else len(epsilons))
            work = f"a batch of FGSM at {len(epsilons)} epsilon{'s' * (len(epsilons) > 1)}"
            rows.append(
                Count(work=work, who=US, launches=found.launches, passes=passes, reads=found.reads)
            )
    rows.sort(key=lambda each: each.work)
    peers = {
        name: version(name)
        for name in ("foolbox", "torchattacks", "pyautoattack")
        if _installed(name)
    }
    release = str(torch.__version__)
    return Counts(torch=release, peers=peers, model="maxout", examples=EXAMPLES, rows=tuple(rows))


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    made = counts()
    Path(sys.argv[1]).write_text(made.model_dump_json(indent=1) + "\n", encoding="utf-8")
