"""Progress of trainings: a bar for each in a terminal, lines elsewhere, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from gibbon.models.registry import TrainingProgress

QUIET_SECONDS = 15.0  # between two lines of progress without a terminal
ONE = 0  # the key of a training without others


@contextmanager
def training_bar(model: str) -> Iterator[Callable[[TrainingProgress], None]]:
    """Shows the progress of a training, which is reported to the function that it yields."""
    with seeds_bar(model, [ONE]) as report:
        yield lambda progress: report(ONE, progress)


@contextmanager
def seeds_bar(
    model: str, seeds: Sequence[int]
) -> Iterator[Callable[[int, TrainingProgress], None]]:
    """Shows the progress of trainings, which is reported by seed to the function that it yields.

    The estimate of the time left assumes that no training stops early, and says so if one may.
    """
    from rich import progress

    console = Console(stderr=True, emoji=False)
    with progress.Progress(
        progress.TextColumn("{task.description:<44}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[left]}"),
        progress.TextColumn("elapsed"),
        progress.TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as bar:
        yield _Trainings(model, seeds, console=console, bar=bar).report


@dataclass
class _Steps:
    """Steps of one training: at its first report, done by now, and of the whole."""

    first: int
    done: int
    whole: int


@dataclass
class _Trainings:
    model: str
    seeds: Sequence[int]
    console: Console
    bar: Progress
    known: dict[int, _Steps] = field(default_factory=dict)
    tasks: dict[int, TaskID] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.began = self.printed = time.monotonic()

    def report(self, seed: int, progress: TrainingProgress) -> None:
        """Shows the progress of one training; steps of 0 mean that it has ended."""
        if not progress.steps:
            self._end(seed)
            return
        steps = self.known.setdefault(seed, _Steps(progress.step, 0, 0))
        steps.done, steps.whole = progress.step, progress.steps
        of_seed = f" seed {seed}," if len(self.seeds) > 1 else ""
        doing = f"{of_seed} epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.4f}"
        left = self.seconds_left()
        at_most = " at most" if progress.may_stop else ""
        about = "" if left is None else f"about {_in_words(left)} left{at_most}"
        if seed not in self.tasks:
            self.tasks[seed] = self.bar.add_task("", total=None, left="")
        self.bar.update(
            self.tasks[seed],
            total=steps.whole,
            completed=steps.done,
            description=f"{self.model}:{doing}",
            left=about,
        )
        if progress.note:
            text = f"{self.model}:{of_seed} epoch {progress.epoch}: {progress.note}"
            self.bar.console.print(text, highlight=False, soft_wrap=True, markup=False)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.printed > QUIET_SECONDS:
            self.printed = now
            said = ", ".join(part for part in (f"{self.share():.0%} done", about) if part)
            self.console.print(f"{said} ({self.model}:{doing})", highlight=False, soft_wrap=True)

    def _end(self, seed: int) -> None:
        steps = self.known.setdefault(seed, _Steps(0, 0, 0))
        steps.whole = steps.done  # it may have stopped early, or was there already
        if seed in self.tasks:
            self.bar.update(self.tasks[seed], total=steps.done, left="")

    def share(self) -> float:
        """Returns the share of all trainings that is done, in [0, 1]."""
        done = sum(steps.done for steps in self.known.values())
        return done / max(1, self._whole())

    def seconds_left(self) -> float | None:
        """Returns the estimated time until all trainings are done, None before there is one."""
        done = sum(steps.done for steps in self.known.values())
        now = sum(steps.done - steps.first for steps in self.known.values())
        if now <= 0:
            return None
        return (time.monotonic() - self.began) * (self._whole() - done) / now

    def _whole(self) -> int:
        """Returns the steps of all trainings; one without a report has as many as the longest."""
        longest = max((steps.whole for steps in self.known.values()), default=0)
        missing = len(self.seeds) - len(self.known)
        return sum(steps.whole for steps in self.known.values()) + missing * longest


def _in_words(seconds: float) -> str:
    """Returns a duration in seconds, minutes or hours.

    >>> _in_words(50), _in_words(600), _in_words(9000)
    ('50 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
