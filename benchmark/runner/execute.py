"""Computes the cells of a job, batch by batch, and saves what it has from time to time.

Whatever a cell raises is caught at its boundary: the cell is recorded as failed, the others go on.
Ctrl-C saves what is there and goes up.  A batch counts as a whole or not at all: where memory runs
out it is tried again by halves, and nothing is counted twice.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.attacks.base import Attack, DirectionAttack, parameters_of
from benchmark.classifier import Classifier, Watch
from benchmark.datasets.base import Batch, Dataset
from benchmark.errors import AttackError, DatasetError, MemoryShortageError
from benchmark.memory import give_back, is_shortage
from benchmark.records import Failure, Verdict
from benchmark.rng import ExampleStreams, derive_key
from benchmark.runner.loading import LoadedModel
from benchmark.runner.picking import Frame, Picked, frames, gallery, pick, unattacked
from benchmark.runner.plan import (
    SHARING,
    Cell,
    Plan,
    PlannedAttack,
    PlannedExperiment,
    goes_by_member,
)
from benchmark.runner.progress import Progress
from benchmark.runner.store import Outcome, OutcomeMeta, RunFolder, TargetOutcome
from benchmark.verify import (
    Answers,
    Guarded,
    Judged,
    ask,
    clean_answers,
    guarding,
    judge,
    judge_clean,
    propose,
)

Scalar = TypeVar("Scalar", bound=np.generic)

SAME_SHARE = 0.95
NOT_REPEATED = (
    "the attack did not make the same candidates again, so that a new target can't be scored on "
    "them: run again with --fresh"
)

NOTHING_TO_FOLLOW = (
    "what succeeds unattacked, or at a smaller epsilon, is carried over to this one: that failed"
)


@dataclass(frozen=True)
class CellWork:
    """A cell and the targets whose answers are not recorded yet."""

    cell: Cell
    targets: tuple[LoadedModel, ...]
    recorded: Outcome | None

    @property
    def asks_source(self) -> bool:
        """Whether the source's own answers are among what is missing."""
        return any(each.digest == self.cell.source.digest for each in self.targets)

    @property
    def others(self) -> tuple[LoadedModel, ...]:
        """The missing targets other than the source."""
        return tuple(each for each in self.targets if each.digest != self.cell.source.digest)


@dataclass(frozen=True)
class Chain:
    """What a job goes on from: the outcome of an earlier one, whose misled examples it leaves out.

    So the examples that are left fill whole batches again, whatever batches they were in before.

    Args:
        follows: the digest that the earlier outcome is filed under.
        member: where the job is one attack of a list, its position there.
        of: the digest of the cell of the whole list; empty where the job is no part of one.
        last: whether the cell is finished with this job.
    """

    follows: str
    member: int | None = None
    of: str = ""
    last: bool = True

    def left(self, before: Outcome) -> NDArray[np.int64]:
        """Returns the positions of the examples that the job is about."""
        return np.flatnonzero(~before.any_misclassified)

    def joined(self, before: Outcome, found: Outcome | None, *, meta: OutcomeMeta) -> Outcome:
        """Returns the outcome of all examples; ``meta`` is for where none was left."""
        if found is None:  # what earlier members of the list took was spent all the same
            spent = meta.after(before.meta) if self.member else meta
            return replace(before, saturated=None, meta=spent)
        if self.member is not None:
            by = np.where(found.any_misclassified, self.member, -1).astype(np.int16)
            found = replace(found, misled_by=by)
        joined = before.at(self.left(before), found, only_misled=bool(self.member))
        return replace(joined, meta=joined.meta.after(before.meta)) if self.member else joined


def prefix(cell: str, member: int) -> str:
    """Returns what the outcome of a list of attacks is filed under until the list is through."""
    return f"{cell}-{member}.partial"


@dataclass(frozen=True)
class Job:
    """Cells of one source and attack that are computed together.

    ``clean`` is the unattacked cell where that is missing too: it rides along, because the
    attack's first forward pass is often the clean prediction.  ``chain`` is there where the job
    takes over what an earlier one misled.  It has several cells then, as without, only for attacks
    along one direction: each takes over what the one before it misled, batch by batch.
    """

    experiment: PlannedExperiment
    source: LoadedModel
    attack: PlannedAttack | None
    cells: tuple[CellWork, ...]
    clean: CellWork | None
    chain: Chain | None = None

    @property
    def name(self) -> str:
        """What progress bars call it."""
        label = self.attack.label if self.attack is not None else "unattacked"
        return f"{self.source.name}, {label}"

    @property
    def work(self) -> int:
        """Estimated passes for one example."""
        steps, tries = 1, 1
        if self.attack is not None:
            steps, tries = _steps_and_tries(self.attack.attack)
        shared = self.attack is not None and isinstance(self.attack.attack, SHARING)
        searches = min(1, len(self.cells)) if shared else len(self.cells)
        gradients = searches * steps
        answers = tries * len(self.cells) + self.others
        return 2 * gradients + answers + (self.clean is not None)

    @property
    def finishes(self) -> bool:
        """Whether its cells are done when it is: not so for all attacks of a list but the last."""
        return self.chain is None or self.chain.last

    @property
    def others(self) -> int:
        """How many answers of other models than the source it needs for one example."""
        return sum(len(each.others) for each in self.cells)

    def effort(self, keeper: Keeper | None) -> int:
        """Estimated passes for one example, those that are left for later not counted."""
        return self.work if keeper is None else self.work - self.others

    @property
    def models(self) -> tuple[LoadedModel, ...]:
        """The source and all models that are asked."""
        asked = (other for each in self.cells for other in each.others)
        return (self.source, *dict.fromkeys(asked))

    @property
    def digest(self) -> str:
        """Names what the job saves while it is under way."""
        parts = [
            f"{each.cell.digest}:{','.join(target.digest for target in each.targets)}"
            for each in self.all_cells
        ]
        return f"{derive_key(*parts):016x}"

    @property
    def all_cells(self) -> tuple[CellWork, ...]:
        """The attacked cells and the unattacked one."""
        return self.cells + ((self.clean,) if self.clean is not None else ())


@dataclass
class Findings:
    """What a job has found so far, by cell digest, and which of its cells failed.

    ``candidates`` are those of one batch, until they are put away; ``pictures`` the examples that
    galleries may show.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    candidates: dict[str, Tensor] = field(default_factory=dict)
    pictures: dict[str, Picked] = field(default_factory=dict)

    def absorb(self, batch: Findings) -> None:
        """Appends all that came of one batch."""
        for digest, failure in batch.failures.items():
            self.outcomes.pop(digest, None)
            self.failures[digest] = failure
        for digest, chunk in batch.outcomes.items():
            sofar = self.outcomes.get(digest)
            self.outcomes[digest] = chunk if sofar is None else sofar.then(chunk)
        for digest, picked in batch.pictures.items():
            before = self.pictures.get(digest)
            self.pictures[digest] = picked if before is None else before.then(picked)

    def fail_all(self, works: Iterable[CellWork], error: BaseException) -> None:
        """Marks those of these cells as failed that did not fail before."""
        for work in works:
            if work.cell.digest not in self.failures:
                self.fail(work.cell, error)

    def fail(self, cell: Cell, error: BaseException) -> None:
        """Marks a cell as failed and forgets what it had found."""
        self.outcomes.pop(cell.digest, None)
        self.candidates.pop(cell.digest, None)
        self.pictures.pop(cell.digest, None)
        self.failures[cell.digest] = Failure(
            dataset=cell.dataset,
            model=cell.source.name,
            attack=cell.label,
            epsilon=cell.epsilon,
            error=f"{type(error).__name__}: {error}",
            traceback="".join(traceback.format_exception(error)),
        )


def find_jobs(plan: Plan, folder: RunFolder) -> list[Job]:
    """Returns the jobs that are left to do, in the order of the suite.

    Cells of one digest (a model under two names, say) are one piece of work.  The unattacked cell
    rides with the first attack of the suite or alone, never with a later one: so the passes that
    are booked on an attack don't depend on where an earlier run was interrupted.
    """
    wanted: dict[str, dict[str, LoadedModel]] = {}
    for experiment in plan.experiments:
        for cell in experiment.cells:
            targets = wanted.setdefault(cell.digest, {})
            for target in cell.targets:
                targets.setdefault(target.digest, target)
    jobs = []
    for experiment in plan.experiments:
        for source in experiment.models:
            missing = [
                work
                for cell in experiment.cells
                if cell.source is source
                and (targets := wanted.pop(cell.digest, {}))
                and (work := _missing(cell, tuple(targets.values()), folder)).targets
            ]
            clean = next((work for work in missing if work.cell.attack is None), None)
            for attack in experiment.attacks:
                works = tuple(work for work in missing if work.cell.attack is attack)
                later: list[tuple[CellWork, ...]] = []
                if attack.spec.carried or goes_by_member(experiment.spec, attack):
                    works, later = _sweeps(experiment, attack, works)
                if works:
                    rider = clean if attack is experiment.attacks[0] else None
                    jobs.append(Job(experiment, source, attack, works, rider))
                    clean = None if rider is not None else clean
                if later and clean is not None:
                    jobs.append(Job(experiment, source, None, (), clean))
                    clean = None
                for sweep in later:
                    jobs.extend(_chained(experiment, sweep, folder))
            if clean is not None:
                jobs.append(Job(experiment, source, None, (), clean))
    return jobs


def _sweeps(
    experiment: PlannedExperiment, planned: PlannedAttack, works: Iterable[CellWork]
) -> tuple[tuple[CellWork, ...], list[tuple[CellWork, ...]]]:
    """Returns the cells that are computed of all examples, and those that go on from recorded ones.

    Along one direction cells that follow each other are computed together: from the smallest
    epsilon on of all examples, where asking for the direction gives the clean prediction too.
    Every other cell goes on by itself.
    """
    together = _along(planned) and not goes_by_member(experiment.spec, planned)
    sweeps: list[tuple[CellWork, ...]] = []
    for work in sorted(works, key=lambda each: each.cell.epsilon):
        if together and sweeps and work.cell.follows == sweeps[-1][-1].cell.digest:
            sweeps[-1] += (work,)
        else:
            sweeps.append((work,))
    smallest = min(each.epsilon for each in planned.threats)
    if not (together and sweeps and sweeps[0][0].cell.epsilon == smallest):
        return (), sweeps
    return (sweeps[0], sweeps[1:]) if planned.attack.needs_gradient else ((), sweeps)


def _along(planned: PlannedAttack) -> bool:
    return planned.spec.carried and isinstance(planned.attack, DirectionAttack)


def _chained(
    experiment: PlannedExperiment, works: tuple[CellWork, ...], folder: RunFolder
) -> Iterator[Job]:
    """Yields the jobs of cells that take over what an earlier one misled, one after the other."""
    work = works[0]
    cell, planned = work.cell, work.cell.attack
    if planned is None or cell.threat is None:
        return
    follows = cell.follows or next(
        each.digest
        for each in experiment.cells
        if each.attack is None and each.source is cell.source
    )
    if not goes_by_member(experiment.spec, planned):
        yield Job(experiment, cell.source, planned, works, None, Chain(follows))
        return
    members = planned.attack.made_of
    for number, member in enumerate(members):
        digest = cell.digest if number == len(members) - 1 else prefix(cell.digest, number)
        if digest == cell.digest or folder.read(digest) is None:
            attack = replace(planned, attack=member.for_one(cell.threat))
            yield Job(
                experiment,
                cell.source,
                attack,
                (replace(work, cell=replace(cell, attack=attack, digest=digest)),),
                None,
                Chain(follows, number, cell.digest, last=digest == cell.digest),
            )
        follows = digest


class BatchSizes:
    """How many examples each source is given at once: less from where memory ran out on.

    ``asked`` is what the user wants; None leaves it to what fits.
    """

    def __init__(self, asked: int | None) -> None:
        self._asked = asked
        self._fitting: dict[str, int] = {}

    def of(self, job: Job) -> int:
        """Returns the size of a job's batches."""
        fitting = self._fitting.get(job.source.digest)
        return fitting or job.experiment.batch_sizes[job.source.name]

    def may_halve(self, count: int) -> bool:
        """Says whether a batch of this size that is too large may be tried by halves."""
        return self._asked is None and count > 1

    def halve(self, job: Job, *, tried: int) -> int:
        """Returns the size to go on with after a batch was too large."""
        self._fitting[job.source.digest] = max(1, tried // 2)
        return self._fitting[job.source.digest]

    def begin_again(self, job: Job) -> None:
        """Forgets that memory ran out: a single example was too large for one attack alone."""
        self._fitting.pop(job.source.digest, None)


class Keeper(Protocol):
    """Takes the candidates of a job, to have other models asked later."""

    def keep(self, cell: str, candidates: Tensor) -> None:
        """Takes the candidates of a cell's next examples."""


def execute(
    job: Job,
    plan: Plan,
    folder: RunFolder,
    *,
    sizes: BatchSizes,
    progress: Progress,
    keeper: Keeper | None = None,
) -> Mapping[str, Failure]:
    """Computes a job's cells, writes their outcomes, and returns the failures by cell digest.

    With a keeper the source alone is asked; the candidates go to the keeper, and a job that is
    interrupted begins again, since they are not there any more.
    """
    cells = {work.cell.digest: work for work in job.all_cells}
    findings = Findings(folder.read_partial(job.digest, cells) if keeper is None else {})
    ids = job.experiment.ids
    before = None
    if job.chain is not None:
        before = folder.read(job.chain.follows)
        if before is None:
            return _nothing_to_follow(job, progress)
        ids = ids[job.chain.left(before)]
        progress.advance((len(job.experiment.ids) - len(ids)) * job.work, doing=job.name)
    position = min((len(each.example_id) for each in findings.outcomes.values()), default=0)
    # Of a job that goes on, the examples of its earlier batches are gone: see `pictures`.
    picker = _picker(job, plan, folder) if position == 0 else None
    effort = job.effort(keeper)
    progress.advance(position * effort, doing=job.name)
    saved = time.monotonic()
    try:
        while position < len(ids) and set(findings.failures) < set(cells):
            size = sizes.of(job)
            batches = _batches(job, ids[position:], plan.device, findings, sizes, keeper, picker)
            with closing(batches):
                for found in batches:
                    findings.absorb(found.findings)
                    if keeper is not None:
                        for digest, candidates in found.findings.candidates.items():
                            keeper.keep(digest, candidates)
                    position += found.count
                    progress.advance(found.count * effort, doing=job.name)
                    if set(findings.failures) >= set(cells):
                        break
                    if keeper is None and time.monotonic() - saved > plan.settings.save_every:
                        _save(job, findings, folder)
                        saved = time.monotonic()
            if position < len(ids) and set(findings.failures) < set(cells):
                tried = min(size, len(ids) - position)
                size = sizes.halve(job, tried=tried)
                give_back(plan.device)
                progress.note(
                    f"{job.name}: out of memory with {tried} examples at a time, "
                    f"going on with {size}"
                )
    except KeyboardInterrupt:
        if keeper is None:
            _save(job, findings, folder)
        raise
    progress.advance((len(ids) - position) * effort, doing=job.name)
    # The cell that the shared passes are booked on comes last but for the unattacked one: a run
    # that is killed between two of these books them on the same cell when it goes on.
    for digest in dict.fromkeys([*reversed([work.cell.digest for work in job.cells]), *cells]):
        outcome = findings.outcomes.pop(digest, None)
        if job.chain is not None and before is not None and digest not in findings.failures:
            spent = _Spent(0, 0, 0.0)
            meta = _meta(cells[digest], [cells[digest].cell.source.digest], {}, spent)
            outcome = job.chain.joined(before, outcome, meta=meta)
        if outcome is None:
            continue
        recorded = cells[digest].recorded
        if recorded is None:
            folder.write(digest, outcome)
            if digest in findings.pictures:
                folder.write_gallery(gallery(findings.pictures[digest], digest=digest))
        elif not _same_candidates(recorded, outcome):
            findings.fail(cells[digest].cell, AttackError(NOT_REPEATED))
        elif keeper is None:
            folder.write(digest, recorded.with_targets(outcome))
    folder.drop_partial(job.digest)
    if job.chain is not None and job.chain.last:
        folder.drop_prefixes(job.chain.of)
    if findings.failures:
        sizes.begin_again(job)
    tell_failures(findings.failures.values(), progress)
    return findings.failures


@dataclass(frozen=True)
class _Picker:
    """Of which cells of a job examples are picked, and what is recorded of the clean inputs."""

    frame: Frame
    digests: frozenset[str]
    clean: Outcome | None


def _picker(job: Job, plan: Plan, folder: RunFolder) -> _Picker | None:
    if not plan.settings.pictures or job.chain is not None:
        return None
    frame = frames(plan).get(job.experiment.spec.dataset.name)
    new = {each.cell.digest for each in job.cells if each.recorded is None}
    if frame is None or not new & frame.digests:
        return None
    clean = None if job.clean else folder.read(unattacked(job.experiment, job.source).digest)
    return _Picker(frame, frame.digests & new, clean)


def _nothing_to_follow(job: Job, progress: Progress) -> Mapping[str, Failure]:
    """Returns the failures of a job whose earlier one failed; of a list the earlier one's do."""
    progress.advance(len(job.experiment.ids) * job.work, doing=job.name)
    findings = Findings()
    if job.chain is not None and not job.chain.member:
        findings.fail_all(job.all_cells, AttackError(NOTHING_TO_FOLLOW))
    tell_failures(findings.failures.values(), progress)
    return findings.failures


def tell_failures(failures: Iterable[Failure], progress: Progress) -> None:
    """Says which cells failed."""
    for failure in failures:
        name = f"{failure.dataset}, {failure.model}, {failure.attack} at epsilon {failure.epsilon}"
        progress.failed(name, error=failure.error)


@dataclass(frozen=True)
class _Found:
    """What came of one batch, and how many examples it had."""

    findings: Findings
    count: int


def _batches(
    job: Job,
    ids: NDArray[np.int64],
    device: torch.device,
    findings: Findings,
    sizes: BatchSizes,
    keeper: Keeper | None,
    picker: _Picker | None,
) -> Generator[_Found]:
    """Yields what came of each batch; ends early where memory ran out and less may be tried."""
    size = sizes.of(job)
    chunks = [ids[start : start + size] for start in range(0, len(ids), size)]
    with closing(_stream(job.experiment.dataset, chunks)) as stream:
        for chunk in chunks:
            # What is found counts once the whole batch is known to have fitted.
            found = Findings(failures=dict(findings.failures))
            try:
                retry = sizes.may_halve(len(chunk))
                with boundary(
                    lambda error, found=found: found.fail_all(job.all_cells, error),  # type: ignore[misc]
                    retry=retry,
                    count=len(chunk),
                ):
                    batch = _next(stream, chunk, job.experiment.dataset)
                    _run_batch(
                        job,
                        batch,
                        device,
                        found,
                        retry=retry,
                        keep=keeper is not None,
                        room=size,
                        picker=picker,
                    )
            except TooLargeError:
                return
            yield _Found(found, len(chunk))


def _stream(dataset: Dataset, chunks: Sequence[NDArray[np.int64]]) -> Generator[Batch]:
    yield from dataset.batches(chunks)  # whose own stream is closed with this one


def _next(stream: Iterator[Batch], ids: NDArray[np.int64], dataset: Dataset) -> Batch:
    batch = next(stream, None)
    if batch is None or not np.array_equal(batch.ids.numpy(), ids):
        raise DatasetError(
            f"dataset {dataset.name!r}: batches() must give the examples that were asked for, in "
            "that order"
        )
    return batch


class TooLargeError(Exception):
    """Memory ran out, and half the batch may be tried."""


@contextmanager
def boundary(
    on_error: Callable[[BaseException], None], *, retry: bool, count: int
) -> Iterator[None]:
    """The boundary of a cell: whatever is raised inside is handed over and goes no further.

    But where memory ran out on a batch of ``count`` examples that may be tried by halves: that goes
    up to where the batch is cut, with nothing that would hold on to its tensors.
    """
    try:
        yield
    except TooLargeError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  the one place where all is caught
        if not is_shortage(error):
            on_error(error)
            return
        if not retry:
            on_error(_explained(error, count))
            return
    else:
        return
    raise TooLargeError


def _explained(error: BaseException, count: int) -> MemoryShortageError:
    cure = (
        "there is nothing left to halve" if count == 1 else "--batch-size auto tries smaller ones"
    )
    shortage = MemoryShortageError(
        f"out of memory with {count} example{'s' * (count > 1)} at a time: {cure} ({error})"
    )
    shortage.__cause__ = error
    return shortage


def _same_candidates(recorded: Outcome, again: Outcome) -> bool:
    """Says whether candidates that were made again lie where the recorded ones did.

    Rounding may move a few; another random number moves nearly all.
    """
    near = np.isclose(again.distance, recorded.distance, rtol=1e-3, atol=1e-6, equal_nan=True)
    same = near & (again.verdict == recorded.verdict)
    return bool(np.mean(same) >= SAME_SHARE)


def _missing(cell: Cell, targets: tuple[LoadedModel, ...], folder: RunFolder) -> CellWork:
    recorded = folder.read(cell.digest)
    if recorded is None or cell.source.digest not in recorded.scores:
        return CellWork(cell, targets, None)
    missing = tuple(each for each in targets if each.digest not in recorded.scores)
    replaced = {each.name for each in missing}  # a model that changed leaves its old answers
    kept = [
        digest
        for digest, name in recorded.meta.targets.items()
        if digest == cell.source.digest or name not in replaced
    ]
    return CellWork(cell, missing, recorded.only(kept))


def _run_batch(
    job: Job,
    given: Batch,
    device: torch.device,
    found: Findings,
    *,
    retry: bool,
    keep: bool,
    room: int,
    picker: _Picker | None = None,
) -> None:
    """Puts what came of one batch, for every cell of a job that has not failed, into ``found``.

    ``retry`` says that the batch may be tried again by halves; ``keep`` that candidates are kept
    and no other model is asked.  A full batch has ``room`` examples.  ``picker``, where there
    is one, says of which cells examples are picked for a gallery.
    """
    source = job.source.classifier
    batch, count = given.to(device), len(given.ids)
    live = [work for work in job.cells if work.cell.digest not in found.failures]
    watch: Watch | None = None
    shown: dict[str, Judged] = {}
    free = False
    if job.attack is not None and live:
        # Chunks count only once the attack is known to have left inputs and model alone.
        chunks: dict[str, Outcome] = {}

        def fail_all(error: BaseException) -> None:
            chunks.clear()
            found.fail_all(live, error)

        first_id = int(given.ids[0])
        seed = derive_key(job.attack.stream_key, first_id)
        with (
            boundary(fail_all, retry=retry, count=count),
            guarding(source, batch, seed=seed, room=room) as guarded,
        ):
            watch = guarded.watch
            for work, chunk, judged in _attack_batch(
                job.attack,
                live,
                guarded,
                batch,
                found,
                retry=retry,
                keep=keep,
                chained=job.chain is not None,
            ):
                chunks[work.cell.digest] = chunk
                if picker is not None and work.cell.digest in picker.digests:
                    shown[work.cell.digest] = judged
        intact = bool(chunks)
        free = intact and watch is not None and watch.outputs is not None
        if not intact:  # the attack may have spoilt them
            watch = None
            batch = job.experiment.dataset.batch(given.ids.cpu().numpy()).to(device)
        first = live[0].cell.digest  # where the shared passes are booked
        if free and job.clean is not None and first in chunks:
            chunks[first] = _fewer_forward(chunks[first], count)
        for work in live:
            if work.cell.digest in chunks and work.cell.digest not in found.failures:
                found.outcomes[work.cell.digest] = chunks[work.cell.digest]
    if job.clean is not None and job.clean.cell.digest not in found.failures:
        clean = job.clean.cell
        with boundary(lambda error: found.fail(clean, error), retry=retry, count=count):
            found.outcomes[clean.digest] = _clean_batch(job.clean, batch, watch)
    if picker is not None and shown:
        with boundary(lambda _: None, retry=False, count=count):  # without pictures, then
            _pick(picker, job, batch, shown, found)


def _pick(
    picker: _Picker, job: Job, batch: Batch, judged: Mapping[str, Judged], found: Findings
) -> None:
    """Picks examples of the cells that are to be shown; the model is not asked again."""
    rider = job.clean
    outcome = picker.clean if rider is None else found.outcomes.get(rider.cell.digest)
    if outcome is None or job.source.digest not in outcome.scores:
        return
    answers = outcome.scores[job.source.digest]
    places = np.searchsorted(outcome.example_id, _array(batch.ids, np.int64))
    clean = TargetOutcome(answers.predicted[places], answers.confidence[places])
    for digest in judged.keys() & found.outcomes.keys():
        picked = pick(picker.frame, batch, judged[digest], clean=clean)
        if picked is not None:
            found.pictures[digest] = picked


def _attack_batch(
    planned: PlannedAttack,
    works: list[CellWork],
    guarded: Guarded,
    batch: Batch,
    found: Findings,
    *,
    retry: bool,
    keep: bool,
    chained: bool,
) -> Iterator[tuple[CellWork, Outcome, Judged]]:
    """Yields what came of one batch, cell by cell; a cell that raises is marked as failed.

    Where the epsilons are carried along one direction, each cell takes over what the one before it
    misled, and the first one the clean mistakes; those of a ``chained`` job are left out already.
    """
    source = works[0].cell.source
    classifier = source.classifier
    streams = ExampleStreams.derive(planned.stream_key, batch.ids)
    threats = [threat for work in works if (threat := work.cell.threat) is not None]
    meter = _Meter(classifier)
    watch = guarded.watch
    proposals = propose(planned.attack, classifier, guarded.batch, threats=threats, streams=streams)
    before: Judged | None = None
    for work, threat in zip(works, threats, strict=True):
        if not isinstance(planned.attack, SHARING):
            watch.zero_gradient = None
        tries = next(proposals)
        cell = work.cell
        with boundary(
            lambda error, cell=cell: found.fail(cell, error),  # type: ignore[misc]
            retry=retry,
            count=len(batch.ids),
        ):
            if _along(planned) and any(each.cell.digest in found.failures for each in works):
                raise AttackError(NOTHING_TO_FOLLOW)
            if _along(planned) and before is None and not chained:
                before = judge_clean(classifier, batch, watch=watch)
            judged = judge(
                classifier,
                batch,
                proposed=tries,
                threat=threat,
                ask_source=work.asks_source,
                watch=watch,
                before=before,
            )
            before = judged if _along(planned) else None
            spent = meter.read()
            others = () if keep else work.others
            scores, errors = _score_targets(work, judged, others, retry=retry)
            if keep and work.others:
                found.candidates[cell.digest] = judged.candidates
            yield work, _chunk(work, batch, judged, watch, scores, errors, spent), judged
        meter.skip()


def _score_targets(
    work: CellWork, judged: Judged, others: Sequence[LoadedModel], *, retry: bool
) -> tuple[dict[str, TargetOutcome], dict[str, str]]:
    scores: dict[str, TargetOutcome] = {}
    errors: dict[str, str] = {}
    if judged.answers is not None and work.asks_source:
        scores[work.cell.source.digest] = target_outcome(judged.answers)
    for target in others:

        def note(error: BaseException, digest: str = target.digest) -> None:
            errors[digest] = described(error)

        with boundary(note, retry=retry, count=len(judged.candidates)):
            scores[target.digest] = target_outcome(ask(target.classifier, judged.candidates))
    return scores, errors


def described(error: BaseException) -> str:
    """Returns what is recorded of an exception of a model that was scored."""
    return f"{type(error).__name__}: {error}"


def _chunk(
    work: CellWork,
    batch: Batch,
    judged: Judged,
    watch: Watch,
    scores: Mapping[str, TargetOutcome],
    errors: Mapping[str, str],
    spent: _Spent,
) -> Outcome:
    return Outcome(
        example_id=_array(batch.ids, np.int64),
        label=_array(batch.labels, np.int32),
        verdict=_array(judged.verdict, np.int8),
        distance=_array(judged.distance, np.float32),
        any_misclassified=_array(judged.any_misled, np.bool_),
        saturated=None,
        zero_gradient=_maybe(watch.zero_gradient, np.bool_),
        scores=scores,
        meta=_meta(work, scores, errors, spent),
        nearest=_maybe(judged.nearest, np.float32),
        misled_by=_maybe(judged.misled_by, np.int16),
    )


def _clean_batch(work: CellWork, batch: Batch, watch: Watch | None) -> Outcome:
    started = time.perf_counter()
    source = work.cell.source
    clean = clean_answers(source.classifier, batch, watch=watch)
    count = len(batch.labels)
    answers = target_outcome(clean.answers)
    labels = _array(batch.labels, np.int32)
    spent = _Spent(count, 0, time.perf_counter() - started)
    return Outcome(
        example_id=_array(batch.ids, np.int64),
        label=labels,
        verdict=np.full(count, Verdict.VALID, dtype=np.int8),
        distance=np.zeros(count, dtype=np.float32),
        any_misclassified=answers.predicted != labels,
        saturated=_array(clean.saturated, np.bool_),
        zero_gradient=None,
        scores={source.digest: answers},
        meta=_meta(work, [source.digest], {}, spent),
    )


def _meta(
    work: CellWork, answered: Collection[str], errors: Mapping[str, str], spent: _Spent
) -> OutcomeMeta:
    return OutcomeMeta(
        cell=str(work.cell),
        forward_passes=spent.forward,
        backward_passes=spent.backward,
        seconds=spent.seconds,
        targets={each.digest: each.name for each in work.targets if each.digest in answered},
        target_errors=dict(errors),
    )


def _fewer_forward(chunk: Outcome, count: int) -> Outcome:
    """The clean prediction came with the attack's first pass: it is counted there, not here."""
    passes = chunk.meta.forward_passes - count
    meta = chunk.meta.model_copy(update={"forward_passes": passes})
    return replace(chunk, meta=meta)


def _save(job: Job, findings: Findings, folder: RunFolder) -> None:
    cells = [work.cell.digest for work in job.all_cells]
    outcomes = findings.outcomes.values()
    lengths = {len(outcome.example_id) for outcome in outcomes}
    answered = all(outcome.scores for outcome in outcomes)
    if set(findings.outcomes) == set(cells) and len(lengths) == 1 and answered:
        folder.write_partial(job.digest, findings.outcomes)


@dataclass(frozen=True)
class _Spent:
    forward: int
    backward: int
    seconds: float


class _Meter:
    """Reads what was spent on a classifier since the last reading."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.skip()

    def skip(self) -> None:
        passes = self.classifier.passes
        self.before = _Spent(passes.forward, passes.backward, time.perf_counter())

    def read(self) -> _Spent:
        before = self.before
        self.skip()
        now = self.before
        return _Spent(
            now.forward - before.forward,
            now.backward - before.backward,
            now.seconds - before.seconds,
        )


def target_outcome(answers: Answers) -> TargetOutcome:
    """Returns a model's answers as they are stored."""
    return TargetOutcome(
        _array(answers.predicted, np.int32), _array(answers.confidence, np.float32)
    )


def _array(values: Tensor, kind: type[Scalar]) -> NDArray[Scalar]:
    return values.detach().cpu().numpy().astype(kind)


def _maybe(values: Tensor | None, kind: type[Scalar]) -> NDArray[Scalar] | None:
    return None if values is None else _array(values, kind)


def _steps_and_tries(attack: Attack) -> tuple[int, int]:
    """Returns how many gradients and how many tries an attack may take, members added up."""
    if attack.made_of:
        return sum(_steps_and_tries(each)[0] for each in attack.made_of), len(attack.made_of)
    parameters = parameters_of(attack)
    restarts = _positive(parameters.get("restarts"))
    return _positive(parameters.get("steps")) * restarts, restarts


def _positive(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 1
