"""What `make perf` found: rows, the bars that they are held against, and where it was found."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from turns import LEAST_ROUNDS, Clock, Contestant, Spread, Timing, take_turns

# What is not a pass of the model takes at most a tenth of the passes.
FLOOR_BAR = 1.10
PEERS = {
    "foolbox": "foolbox",
    "torchattacks": "torchattacks",
    "ART": "adversarial-robustness-toolbox",
    "advlib": "adv-lib",
    "pyautoattack": "pyautoattack",
}


class Row(BaseModel):
    """One line of the tables.

    ``times_ours`` is how many times as long it took as ours did, and ``times_floor`` as the bare
    passes did, each a median over rounds with its quartiles.  ``bar`` is what ``times_ours`` must
    reach; ``floor_bar`` what ``times_floor`` must not exceed.  ``errors`` are the shares of
    examples misled, the last at the largest epsilon.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    section: str
    work: str
    who: str
    seconds: float
    rounds: int
    errors: tuple[float, ...]
    times_ours: Spread | None = None
    bar: float | None = None
    times_floor: Spread | None = None
    floor_bar: float | None = None
    note: str = ""

    @property
    def ours(self) -> bool:
        """Whether the others of its work are compared with it."""
        return self.times_ours is None

    @property
    def missed(self) -> bool:
        """Whether a bar is missed, by the figures as they are printed."""
        slow = (
            self.times_ours is not None
            and self.bar is not None
            and (round(self.times_ours.median, 2) < self.bar)
        )
        return slow or (
            self.times_floor is not None
            and self.floor_bar is not None
            and round(self.times_floor.median, 2) > self.floor_bar
        )


class Machine(BaseModel):
    """Where and with what it was measured: no name of a machine, no path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: str
    clock: str
    processor: str
    processors: int
    threads: int
    vector_instructions: str
    system: str
    python: str
    torch: str
    peers: dict[str, str | None]

    @classmethod
    def this(cls, *, clock: str) -> Machine:
        return cls(
            clock=clock,
            date=datetime.now(UTC).date().isoformat(),
            processor=_processor(),
            processors=os.cpu_count() or 0,
            threads=torch.get_num_threads(),
            vector_instructions=torch.backends.cpu.get_cpu_capability(),
            system=platform.system(),
            python=platform.python_version(),
            torch=str(torch.__version__),
            peers={name: _version(package) for name, package in PEERS.items()},
        )


class Record(BaseModel):
    """A whole run of `make perf`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: Machine
    rows: tuple[Row, ...]

    @classmethod
    def read(cls, path: Path) -> Record:
        return cls.model_validate_json(path.read_text(encoding="utf-8"))

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


class Ledger:
    """Holds contests, and the rows that came of them.

    Args:
        effort: multiplies the time that is given to each; below 1 one round is enough.
        clock: what each round is timed by.
    """

    def __init__(self, *, effort: float, clock: Clock) -> None:
        self.effort = effort
        self.clock = clock
        self.rows: list[Row] = []

    def hold(
        self,
        ours: Contestant,
        others: Sequence[Contestant],
        *,
        section: str,
        work: str,
        seconds: float,
        bars: Mapping[str, float] | None = None,
        floor: Contestant | None = None,
        floor_bar: float | None = None,
        notes: Mapping[str, str] | None = None,
        least: int = LEAST_ROUNDS,
    ) -> dict[str, Timing]:
        """Lets all of them take turns, notes a row for each, and returns what they took."""
        floors = [floor] if floor is not None else []
        timings = take_turns(
            [ours, *others, *floors],
            seconds=seconds * self.effort,
            least=least if self.effort >= 1 else 1,
            clock=self.clock,
        )
        reference = timings[ours.who]
        for each in [ours, *others]:
            timing = timings[each.who]
            rival = each is not ours
            self.rows.append(
                Row(
                    section=section,
                    work=work,
                    who=each.who,
                    seconds=timing.median,
                    rounds=len(timing.seconds),
                    errors=timing.errors,
                    times_ours=Spread.of(timing, reference) if rival else None,
                    bar=(bars or {}).get(each.who) if rival else None,
                    times_floor=Spread.of(timing, timings[floor.who]) if floor else None,
                    floor_bar=None if rival else floor_bar,
                    note=(notes or {}).get(each.who, ""),
                )
            )
        return timings


def text_table(rows: Sequence[Row]) -> Iterator[str]:
    """Yields the rows as lines of text, with a mark where a bar is missed."""
    head = (
        f"{'by':<26} {'ms':>10} {'x ours':>7} {'bar':>6} {'x floor':>8} {'bar':>7} "
        f"{'error':>7} {'rounds':>6}"
    )
    work = ""
    for row in rows:
        if row.work != work:
            work = row.work
            yield ""
            yield work
            yield head
            yield "-" * len(head)
        yield (
            f"{row.who:<26} {1e3 * row.seconds:>10.1f} {_number(row.times_ours):>7} "
            f"{f'>={row.bar:g}' if row.bar else '':>6} {_number(row.times_floor):>8} "
            f"{f'<={row.floor_bar:g}' if row.floor_bar else '':>7} {row.errors[-1]:>7.1%} "
            f"{row.rounds:>6}{'  MISSED' if row.missed else ''}"
            f"{f'  ({row.note})' if row.note else ''}"
        )


def _number(spread: Spread | None) -> str:
    return f"{spread.median:.2f}" if spread is not None else ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
