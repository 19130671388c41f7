"""Divides jobs into shards and has workers compute them: what all executors with workers share.

A shard is given to one worker.  If the worker ends, it is given to another one; if no shard is left
to give and one takes much longer than the others, a second worker computes it, too.  The first
result counts, and no other one.  A shard whose workers end, or that raises, several times makes the
cells of its job ``failed``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np
import torch

from gibbon.core.errors import ProcessEndedError, RequestError
from gibbon.datasets.base import Batch
from gibbon.records.run import Failure
from gibbon.runner.execute.executor import ExamplesLeft, Executor, ShardResult
from gibbon.runner.execute.jobs import Job
from gibbon.runner.execute.scorer import ALL
from gibbon.runner.executors.protocol import (
    CellOfTask,
    Ended,
    Raised,
    Ready,
    Refused,
    ShardReply,
    ShardTask,
    WorkerReply,
)
from gibbon.runner.executors.shard_slices import shard_slices
from gibbon.runner.executors.worker_pool import WorkerPool
from gibbon.runner.failures.boundary import ENDINGS
from gibbon.runner.failures.raised_by import at_work, carry
from gibbon.runner.job_results.job_result import JobResult
from gibbon.runner.run_progress.progress import Progress

TRIES = 3  # of a shard, before it fails
GUARD = 'a Python script that starts workers must do so under if __name__ == "__main__"'
STARTS = 3  # of a worker that ends before it computes anything
LARGEST_REPLY = 64 << 20  # bytes of candidates in a reply
SLOW = 3.0  # times the usual duration of a shard, after which a second worker computes it
SLOW_SECONDS = 5.0  # a shard is never slow before
STALE_SECONDS = 5.0  # for a worker to finish a shard that nobody needs any more
WAIT_SECONDS = 0.2  # for replies, between two looks at the clock
PATIENCE = 60.0  # seconds without any worker, after which a note says so


@dataclass
class _WorkerPlace:
    """A worker: the shard that it computes, and since when."""

    ready: bool = False
    closed: bool = False
    shard: _Shard | None = None
    since: float = 0.0
    starts: int = 0
    loaded: frozenset[str] = frozenset()

    @property
    def idle(self) -> bool:
        return self.ready and self.shard is None and not self.closed


@dataclass(eq=False)
class _Shard:
    """A shard of a job, and its state."""

    number: int
    task: ShardTask
    tries: int = 0
    done: bool = False

    @property
    def examples(self) -> int:
        return len(self.task.ids)


@dataclass
class _JobShards:
    """The shards of a job; ``failures`` holds that of the first shard, by digest of the cell."""

    left: ExamplesLeft
    shards: list[_Shard]
    pending: deque[_Shard]
    failures: dict[str, tuple[int, Failure]] = field(default_factory=dict)
    ready: dict[int, ShardReply] = field(default_factory=dict)
    passed: int = 0  # results that were passed on

    @property
    def needed_until(self) -> int:
        """The number of the first shard that is not needed, since all cells failed before it."""
        if len(self.failures) < len(self.left.job.cells):
            return len(self.shards)
        return max(number for number, _ in self.failures.values()) + 1

    @property
    def unfinished(self) -> bool:
        return any(not each.done for each in self.shards[: self.needed_until])

    def fail(self, shard: _Shard, result: JobResult) -> None:
        """Notes the failures of a shard; those of an earlier one stay."""
        for digest, failure in result.failures.items():
            known = self.failures.get(digest)
            if known is None or shard.number < known[0]:
                self.failures[digest] = shard.number, failure

    def passable(self) -> Iterator[tuple[_Shard, ShardReply]]:
        """Yields the results that can be passed on: in order, if candidates go to files."""
        in_order = not self.left.scorer.resumes
        for number in sorted(self.ready):
            if in_order and number != self.passed:
                return
            self.passed += 1
            yield self.shards[number], self.ready.pop(number)


class Dispatcher(Executor):
    """Has the workers of a pool compute the shards of jobs.

    Args:
        pool: the workers, none of which was started.
        progress: receives notes on workers.
    """

    elsewhere = True

    def __init__(self, pool: WorkerPool, progress: Progress) -> None:
        self._pool = pool
        self._progress = progress
        self._places = [_WorkerPlace() for _ in range(pool.count)]
        self._pace: deque[float] = deque(maxlen=64)  # seconds for one pass of an example
        self._cells = 0  # of earlier jobs
        self._current: _JobShards | None = None
        self._refused: dict[str, None] = {}
        self._heard = time.monotonic()

    def start(self) -> None:
        """Starts all workers, without waiting for them."""
        for number in range(len(self._places)):
            self._start(number)

    def doing(self, job: Job) -> str:
        """Returns the job's name, the shards that are done, and the workers."""
        current = self._current
        if current is None or current.left.job is not job:
            return job.name
        done = sum(each.done for each in current.shards)
        ready = sum(each.ready and not each.closed for each in self._places)
        first, last = self._cells + 1, self._cells + len(job.cells)
        cells = f"cell {first}" if first == last else f"cells {first}-{last}"
        shards = f"shard {done} of {len(current.shards)}"
        return f"{job.name} ({cells}, {shards}, {ready} worker{'s' * (ready != 1)})"

    def results(self, left: ExamplesLeft) -> Generator[ShardResult]:
        """Yields the results of the shards, in any order, unless candidates go to files."""
        current = self._current = self._divided(left)
        try:
            while current.unfinished:
                self._assign(current)
                for number, reply in self._pool.replies(WAIT_SECONDS):
                    self._receive(current, number, reply)
                self._look_at_clock(current)
                yield from self._passed_on(current)
            if current.failures:
                failures = {digest: each for digest, (_, each) in current.failures.items()}
                yield ShardResult(JobResult(failures=failures), 0)
        except (*ENDINGS, RequestError):  # what has come is not lost
            for number, reply in self._pool.replies(0.0):
                self._receive(current, number, reply)
            yield from self._passed_on(current)
            raise
        finally:
            for each in current.shards:
                each.done = True
            self._cells += len(left.job.cells)

    def _divided(self, left: ExamplesLeft) -> _JobShards:
        """Returns the shards of a job."""
        job, experiment = left.job, left.job.experiment
        needs = {each.digest: left.scorer.needs(each) for each in job.cells}
        numbers = int(np.prod(experiment.dataset.input_shape)) * np.float32().nbytes
        sent = sum(each == ALL for each in needs.values())
        slices = shard_slices(
            len(left.ids),
            batch=job.batch_size.now,
            workers=sum(not each.closed for each in self._places),
            most=max(1, LARGEST_REPLY // (numbers * sent)) if sent else len(left.ids),
        )
        whole = _task(left)
        shards = [
            _Shard(number, replace(whole, ids=left.ids[part], keep=_kept(needs, number)))
            for number, part in enumerate(slices)
        ]
        return _JobShards(left, shards, deque(shards))

    def _passed_on(self, current: _JobShards) -> Iterator[ShardResult]:
        left = current.left
        cells = {each.digest: each for each in left.job.cells}
        for shard, reply in current.passable():
            outcomes = {
                digest: each
                for digest, each in reply.result.outcomes.items()
                if digest not in current.failures
            }
            for note in reply.notes:
                left.note(note)
            for digest, candidates in reply.candidates.items():
                ids = shard.task.ids[: len(candidates)]
                labels = left.job.experiment.dataset.labels[ids]
                points = (torch.from_numpy(np.array(each)) for each in (ids, candidates, labels))
                if digest in outcomes:
                    left.scorer.take(cells[digest], Batch(*points))
            yield ShardResult(JobResult(outcomes=outcomes), shard.examples)

    def _start(self, number: int) -> None:
        place = self._places[number]
        place.ready, place.shard, place.loaded = False, None, frozenset()
        place.starts += 1
        place.since = time.monotonic()
        self._pool.start(number)

    def _assign(self, current: _JobShards) -> None:
        """Gives the shards that are left to workers without one."""
        idle = [number for number, place in enumerate(self._places) if place.idle]
        while current.pending and idle:
            shard = current.pending.popleft()
            if shard.done or shard.number >= current.needed_until:
                continue
            wanted = shard.task.models.keys()
            chosen = max(idle, key=lambda each: len(wanted & self._places[each].loaded))
            idle.remove(chosen)
            self._give(chosen, shard)
        if idle and not current.pending:
            for shard in self._slow(current)[: len(idle)]:
                self._give(idle.pop(0), shard)

    def _give(self, number: int, shard: _Shard) -> None:
        place = self._places[number]
        place.shard, place.since = shard, time.monotonic()
        self._pool.send(number, shard.task)

    def _slow(self, current: _JobShards) -> list[_Shard]:
        """Returns the shards that one worker computes, for much longer than is usual."""
        if not self._pace:
            return []
        now, usual = time.monotonic(), median(self._pace)
        at_work = [each for each in self._places if each.shard and not each.shard.done]
        computed = [each.shard for each in at_work]
        return [
            each.shard
            for each in at_work
            if each.shard
            and computed.count(each.shard) == 1
            and now - each.since
            > max(SLOW_SECONDS, SLOW * usual * each.shard.examples * current.left.job.work)
        ]

    def _receive(self, current: _JobShards, number: int, reply: WorkerReply) -> None:
        """Acts on the reply of a worker."""
        place = self._places[number]
        shard, place.shard = place.shard, None
        self._heard = time.monotonic()
        if isinstance(reply, Ready):
            place.ready = True
        elif isinstance(reply, Refused):
            self._refuse(number, reply.reason)
            self._again(current, shard)
        elif isinstance(reply, Ended):
            self._ended(current, number, shard, reply)
        elif isinstance(reply, Raised):
            self._raised(current, shard, reply)
        else:
            place.loaded, place.starts = reply.loaded, 0
            if shard is not None and not shard.done:
                seconds = time.monotonic() - place.since
                work = shard.examples * current.left.job.work
                self._pace.append(seconds / max(1, work))
                current.fail(shard, reply.result)
                current.ready[shard.number] = reply
                shard.done = True

    def _ended(self, current: _JobShards, number: int, shard: _Shard | None, reply: Ended) -> None:
        """Starts another worker, and has the shard of the one that ended computed again."""
        place = self._places[number]
        before = not place.ready
        if shard is not None and not shard.done:
            shard.tries += 1
            if reply.memory and shard.tries > 1:
                shard.task = replace(shard.task, halvings=shard.task.halvings + 1)
            if shard.tries >= TRIES:
                self._give_up(current, shard, reply.reason)
            else:
                self._progress.note(f"{reply.reason}: its shard is computed again")
                self._again(current, shard)
        if before and place.starts >= STARTS:
            reason = f"{reply.reason} while it started, {STARTS} times"
            self._refuse(number, f"{reason} ({GUARD})")
        else:
            self._start(number)

    def _raised(self, current: _JobShards, shard: _Shard | None, reply: Raised) -> None:
        if shard is None or shard.done:
            return
        shard.tries += 1
        if reply.memory:
            shard.task = replace(shard.task, halvings=shard.task.halvings + 1)
        if shard.tries < TRIES:
            self._progress.note(f"a shard raised {reply.error.rstrip(' :')}: it is computed again")
            self._again(current, shard)
            return
        failures = {
            cell.digest: cell.failure(reply.error, traceback=reply.traceback, raised_by=reply.party)
            for cell in current.left.job.cells
        }
        self._fail(current, shard, JobResult(failures=failures))

    def _give_up(self, current: _JobShards, shard: _Shard, reason: str) -> None:
        """Fails the cells of a shard whose workers have ended."""
        job, result = current.left.job, JobResult()
        error = ProcessEndedError(f"{TRIES} workers ended that computed a part of it: {reason}")
        attack = None if job.attack is None else job.attack.attack
        carry(error, at_work(attack, job.source.name))
        result.fail(job.cells, error)
        self._fail(current, shard, result)

    def _fail(self, current: _JobShards, shard: _Shard, result: JobResult) -> None:
        current.fail(shard, result)
        current.ready[shard.number] = ShardReply(result)
        shard.done = True

    def _again(self, current: _JobShards, shard: _Shard | None) -> None:
        """Has a shard computed by another worker, unless one computes it already."""
        if shard is None or shard.done:
            return
        if not any(each.shard is shard for each in self._places):
            current.pending.appendleft(shard)

    def _refuse(self, number: int, reason: str) -> None:
        """Excludes a worker from the run.  Raises `RequestError` if no worker is left."""
        place = self._places[number]
        place.closed, place.ready = True, False
        self._pool.end(number)
        self._refused[reason] = None
        left = sum(not each.closed for each in self._places)
        if not left:
            raise RequestError(f"no worker can compute this run: {'; '.join(self._refused)}")
        self._progress.note(f"a worker is not used: {reason}; {left} left")

    def _look_at_clock(self, current: _JobShards) -> None:
        """Ends workers whose shard is no longer needed, if there is other work for them."""
        now = time.monotonic()
        for number, place in enumerate(self._places):
            stale = place.shard is not None and place.shard.done
            if stale and current.pending and now - place.since > STALE_SECONDS:
                self._pool.end(number)
                self._start(number)
        working = any(each.ready and not each.closed for each in self._places)
        if not working and now - self._heard > PATIENCE:
            self._heard = now
            self._progress.note("waiting for a worker to start")


def _task(left: ExamplesLeft) -> ShardTask:
    """Returns the task of all examples of a job."""
    job = left.job
    return ShardTask(
        dataset=job.experiment.spec.dataset.name,
        attack=None if job.attack is None else job.attack.label,
        cells=tuple(
            CellOfTask(each.digest, each.member, tuple(target.name for target in each.targets))
            for each in job.cells
        ),
        follows=job.follows,
        models={each.name: each.digest for each in job.models},
        ids=left.ids,
        deferred=not left.scorer.resumes,
        keep={},
    )


def _kept(needs: dict[str, int], number: int) -> dict[str, int]:
    """Returns how many candidates a shard sends back: the first ones are those of the first."""
    return {digest: each for digest, each in needs.items() if each == ALL or (each and not number)}
