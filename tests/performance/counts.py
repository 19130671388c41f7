"""Counts what we and others launch on a device, and read back from it, for docs/performance.md.

    python tests/performance/counts.py results/performance/counts.json

The device is played (`played_device`): the counts are those of a GPU, on any machine.  Operations
are those that torch is given (`operations`), of which views and empty tensors are none.
"""

from __future__ import annotations

import copy
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import astuple, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

from counted_attacks import OURS, SLOW, Counting, Theirs, others  # noqa: E402
from operations import Counted, Operations, count  # noqa: E402
from played_device import played  # noqa: E402
from subjects import digits, shipped  # noqa: E402

from gibbon import evaluate  # noqa: E402
from gibbon.attacks.base import tries_of  # noqa: E402
from gibbon.core.rng import ExampleStreams  # noqa: E402
from gibbon.core.threat import Epsilon, ThreatModel  # noqa: E402
from gibbon.datasets.base import Batch  # noqa: E402
from gibbon.models.classifier import Classifier  # noqa: E402
from gibbon.runner.executors import in_process  # noqa: E402
from gibbon.verify.guard import guarding  # noqa: E402

US = "gibbon"
EXAMPLES = 100
PEERS = {"advlib": "adv-lib"}  # by the name of their package, if it is another


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


@dataclass
class Calls:
    """Counts the calls of a module, forward and backward."""

    forward: int = 0
    backward: int = 0

    @contextmanager
    def of(self, module: nn.Module) -> Iterator[None]:
        def called(part: nn.Module, inputs: object, outputs: Tensor) -> None:
            self.forward += 1
            if outputs.requires_grad:
                outputs.register_hook(went_back)

        def went_back(gradient: Tensor) -> None:
            self.backward += 1

        handle = module.register_forward_hook(called)
        try:
            yield
        finally:
            handle.remove()


@dataclass(frozen=True)
class Done:
    """What a piece of work launched and read, and the calls of the model in it."""

    launches: float
    reads: float
    forward: float
    backward: float

    def minus(self, other: Done, *, each: int) -> Done:
        """Returns the difference, divided."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Done(*((one - two) / each for one, two in pairs))


def done(module: nn.Module, work: Callable[[], object]) -> Done:
    """Returns what a piece of work does on a module."""
    calls = Calls()
    with calls.of(module):
        counted = count(work)
    return Done(counted.launches, counted.reads, calls.forward, calls.backward)


def of_ours(case: Counting, source: Classifier, batch: Batch) -> Done:
    """Returns what a step of our attack does, watched as in a run; without steps, all of it."""

    def run(length: int) -> Done:
        norm, epsilon = case.budget()
        threat = ThreatModel(norm, Epsilon.parse(str(epsilon)), source.bounds)
        streams = ExampleStreams.derive(0, batch.ids)
        attack = case.attack(length)
        with guarding(source, batch, attack=attack) as guarded:
            watch, given = guarded.watch, guarded.batch
            watch.begin(batch.labels, threat, bounds=source.bounds, reach=threat.radius)
            tries = tries_of(
                attack, source, given.inputs, labels=given.labels, threat=threat, streams=streams
            )
            return done(source.module, lambda: list(tries))

    return _step(run, case)


def of_theirs(theirs: Theirs, case: Counting, module: nn.Module) -> Done:
    """Returns what a step of another library's attack does."""
    return _step(lambda length: done(module, lambda: theirs.run(length)), case)


def _step(run: Callable[[int], Done], case: Counting) -> Done:
    if not case.length:
        return run(0)
    few, more = case.lengths
    before = run(few)
    return run(more).minus(before, each=more - few)


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


def counts(*, everything: bool) -> Counts:
    """Counts our attacks; with ``everything`` also slow ones, and those of other libraries."""
    subject, rows = shipped("maxout"), list[Count]()
    # Others index by tensors on the CPU, which CUDA takes.
    playing = played(indices_on_cpu=everything)
    with playing as device, subject.classifier.evaluating(device):
        batch, bare = digits(EXAMPLES).to(device), copy.deepcopy(subject.bare).to(device)
        forward, both = (bare_count(bare, batch, backward=each) for each in (False, True))

        def add(case: Counting, who: str, found: Done) -> None:
            passes = found.forward * forward + found.backward * (both - forward)
            what = f"a step of {case.work}" if case.length else f"{case.work}, candidates alone"
            rows.append(
                Count(work=what, who=who, launches=found.launches, passes=passes, reads=found.reads)
            )

        for case in OURS:
            if case.name in SLOW and not everything:
                continue
            add(case, US, of_ours(case, subject.classifier, batch))
        by_work = {each.work: each for each in OURS}
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            for theirs in others(bare, batch.inputs, batch.labels) if everything else ():
                case = by_work[theirs.work]
                add(case, theirs.who, of_theirs(theirs, case, bare))
    with played() as device:
        for epsilons in (["0.1"], ["0.05", "0.1", "0.15", "0.2", "0.25"]):
            found = batch_count(device, epsilons)
            passes = both + forward * (1 if len(epsilons) * EXAMPLES <= 512 else len(epsilons))
            work = f"a batch of FGSM at {len(epsilons)} epsilon{'s' * (len(epsilons) > 1)}"
            rows.append(
                Count(work=work, who=US, launches=found.launches, passes=passes, reads=found.reads)
            )
    rows.sort(key=lambda each: each.work)
    return Counts(
        torch=str(torch.__version__),
        peers=_releases(sorted({each.who for each in rows} - {US})),
        model="maxout",
        examples=EXAMPLES,
        rows=tuple(rows),
    )


def _releases(names: Sequence[str]) -> dict[str, str]:
    return {name: version(PEERS.get(name, name)) for name in names}


if __name__ == "__main__":
    made = counts(everything=True)
    Path(sys.argv[1]).write_text(made.model_dump_json(indent=1) + "\n", encoding="utf-8")
