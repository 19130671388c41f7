"""Progress of runs and checks: a bar in a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from gibbon.core.plain_text import without_controls

if TYPE_CHECKING:
    from rich.progress import TaskID

QUIET_SECONDS = 15.0  # between two lines of progress without a terminal


class RunProgress:
    """Shows the progress of a run: a bar in a terminal, elsewhere a line every few seconds.

    ``ready`` is called after all checks, before anything is computed.
    """

    def __init__(self, console: Console, *, ready: Callable[[], None] | None = None) -> None:
        from rich import progress

        self.console = console
        self.ready = ready
        self.bar = progress.Progress(
            progress.TextColumn("{task.description:<28}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("elapsed"),
            progress.TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            speed_estimate_period=60.0,
        )
        self.task: TaskID | None = None
        self.check: TaskID | None = None
        self.work = self.done = 0
        self.began = self.printed = time.monotonic()

    def __enter__(self) -> RunProgress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the terminal may be closed
            self.bar.stop()

    def note(self, text: str) -> None:
        """Prints a note to the user."""
        self.console.print(escape(without_controls(text)), highlight=False, soft_wrap=True)

    def checking(self, examples: int, *, of: int, dataset: str) -> None:
        """Advances the bar of images that are read and checked."""
        if self.check is None:
            self.check = self.bar.add_task(f"reading {dataset}", total=of)
        self.bar.update(self.check, advance=examples)
        if self.bar.tasks[self.bar.task_ids.index(self.check)].finished:
            self.bar.remove_task(self.check)
            self.check = None

    def start(self, *, work: int, cells: int, reused: int) -> None:
        """Prints the number of cells and starts the bar."""
        if self.ready is not None:
            self.ready()
        self.work, self.began = work, time.monotonic()
        noun = "cell" if cells == 1 else "cells"
        self.console.print(f"{cells} {noun} to compute, {reused} recorded already", highlight=False)
        if cells:
            self.task = self.bar.add_task("starting", total=work)

    def advance(self, work: int, *, doing: str) -> None:
        """Advances the bar, or prints a line if the last one was some time ago.

        What follows the planned work, such as certified bounds, says itself how long it takes.
        """
        self.done += work
        if self.task is not None:
            self.bar.update(self.task, advance=work, description=doing)
        now = time.monotonic()
        if self.console.is_terminal or now - self.printed <= QUIET_SECONDS:
            return
        if self.done >= self.work:
            line = doing
        elif self.done:
            left = (now - self.began) * (self.work - self.done) / self.done
            line = f"{self.done / self.work:.0%} done, about {left:.0f} s left ({doing})"
        else:
            return
        self.printed = now
        self.console.print(escape(line), highlight=False, soft_wrap=True)

    def reach(self, done: int, *, of: int, task: str, doing: str) -> None:
        """Advances the bar to ``done``; the whole, ``of``, may change on the way."""
        if self.task is None:
            self.task = self.bar.add_task(task)
        self.work = of
        self.bar.update(self.task, total=of)
        self.advance(done - self.done, doing=doing)

    def failed(self, cell: str, *, error: str) -> None:
        """Prints a failure as soon as it happens."""
        self.console.print(
            f"[bold red]failed:[/] {escape(without_controls(f'{cell}: {error}'))}", soft_wrap=True
        )


@contextmanager
def checking_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Shows the progress of a check, which is reported to the function that it yields."""
    with RunProgress(Console(stderr=True, emoji=False)) as shown:

        def report(doing: str, done: int, of: int) -> None:
            shown.reach(done, of=of, task=doing, doing=doing)

        yield report
