"""A seeded simulation: runs on a disk that fails, killed, damaged, renamed, changed and merged.

Hypothesis draws the steps, so that a failure is replayed; other seeds are tried
with ``--hypothesis-profile=explore --hypothesis-seed=N``.  The clock is simulated.  After each run
that ends well the record and the outcomes are those of an undisturbed run, and nothing that was
whole has been computed again.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import planted
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from same_outcomes import assert_same

from gibbon.core.errors import RequestError
from gibbon.gate.baseline import read_side, save_baseline
from gibbon.gate.compare import compare
from gibbon.records.outcomes import OUTCOMES, read_outcome
from gibbon.records.run import RUN_FILE, RunRecord
from gibbon.report import table_files
from gibbon.report.documents import Document, document
from gibbon.runner import run_suite as runs
from gibbon.runner.counting import provenance
from gibbon.runner.execute import batch, run_job
from gibbon.runner.proofs import prove
from gibbon.runner.run_folder import DAMAGED_FILE
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

pytestmark = pytest.mark.slow

STEPS, RUNS = 40, 50  # of each history, and histories: 2,000 steps
BATCH_SIZE = 25
ACCEPTED = ("preprocessing", "error-at-chance", "not-examined", "too-few-examples")
ATTACKS: dict[str, dict[str, Any]] = {
    "fgsm": {"name": "fgsm", "epsilon": ["0.05", "0.1", "0.2"]},
    "carried": {"name": "fgsm", "label": "carried", "epsilon": ["0.1", "0.05"], "carried": True},
    "pgd": {"name": "pgd", "epsilon": ["0.1", "0.2"], "steps": 2},
    "search": {"name": "deepfool", "label": "search", "epsilon": ["0.05", "0.1"], "steps": 2},
}
MODELS: dict[str, Any] = {"one": "one", "two": "two", "uno": {"model": "one", "name": "uno"}}
ROWS = ("evaluations", "transfers", "agreements", "worst_cases", "members", "failures")
PASSES = frozenset({"forward_passes", "backward_passes"})
Fault = Literal["killed", "torn", "lost", "full", "unreadable"]
# Of a file among all, and of a byte in it: what is drawn must not depend on what is there.
PLACES = st.integers(0, 2**20)
FAULTS: tuple[Fault, ...] = ("killed", "torn", "lost", "full", "unreadable")


class Killed(KeyboardInterrupt):
    """The process is killed: nothing reaches the disk after it."""


@dataclass
class Clock:
    """A clock that advances by a step each time that it is read."""

    step: float = 0.0
    now: float = 0.0

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


@dataclass
class Disk:
    """A disk that fails at its n-th operation: a write, a rename or a read.

    ``killed`` ends the process at a rename; ``torn`` in the middle of a write; ``lost`` renames a
    file whose second half never reaches the disk, as a power failure may; ``full`` has no space
    left from then on, and ``unreadable`` fails to read once.
    """

    folder: Path
    fault: Fault | None = None
    left: int = 0
    dead: bool = field(default=False, init=False)

    def fails(self, *faults: Fault) -> bool:
        if self.fault not in faults:
            return False
        self.left -= 1
        return self.left == 0 or (self.fault == "full" and self.left < 0)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        fsync, replace, read = os.fsync, Path.replace, Path.read_bytes

        def failing_fsync(descriptor: int) -> None:
            self._alive()
            if self.fails("torn"):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
                self._kill()
            if self.fails("full"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        def failing_replace(path: Path, target: Path) -> Path:
            self._alive()
            if self.fails("killed"):
                self._kill()
            if self.fails("lost"):
                os.truncate(path, path.stat().st_size // 2)
                replace(path, target)
                self._kill()
            return replace(path, target)

        def failing_read(path: Path) -> bytes:
            if path.is_relative_to(self.folder) and self.fails("unreadable"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return read(path)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", failing_fsync)
            patch.setattr(Path, "replace", failing_replace)
            patch.setattr(Path, "read_bytes", failing_read)
            yield

    def _alive(self) -> None:
        if self.dead:
            raise Killed

    def _kill(self) -> None:
        self.dead = True
        raise Killed


@dataclass(frozen=True)
class Variant:
    """A suite: its attacks in their order, and its models."""

    attacks: tuple[str, ...]
    models: tuple[str, ...]

    @property
    def suite(self) -> Suite:
        written = {
            "name": "simulated",
            "dataset": "squares",
            "models": [MODELS[each] for each in self.models],
            "attacks": [ATTACKS[each] for each in self.attacks],
            "accept": list(ACCEPTED),
        }
        if transferred := [each for each in self.attacks if each in ("fgsm", "pgd")]:
            written["transfer"] = {"attacks": transferred}
        return Suite.model_validate(written)


VARIANTS = st.builds(
    Variant,
    st.lists(st.sampled_from(list(ATTACKS)), min_size=1, max_size=3, unique=True).map(tuple),
    st.lists(st.sampled_from(list(MODELS)), min_size=1, max_size=2, unique=True).map(tuple),
)


def carry_out(suite: Suite, folder: Path, *, repair: bool = False) -> RunRecord:
    chosen = RunSettings(
        device="cpu",
        batch_size=BATCH_SIZE,
        save_every=50.0,
        examination=False,
        certify="cheap",
        repair=repair,
    )
    return run_suite(suite, folder, settings=chosen, publish=_publish)


def _publish(record: RunRecord, folder: Path) -> None:
    """Writes the tables: drawing figures would take most of the time."""
    for name, content in table_files(record).items():
        (folder / name).write_text(content, encoding="utf-8")


class Simulation(RuleBasedStateMachine):
    """Histories of one folder."""

    undisturbed: dict[Variant, Path] = {}  # noqa: RUF012  shared: each is run once
    root = Path()

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir=self.root))
        self.folder = self.place / "run"
        self.variant = Variant(("fgsm",), ("one",))
        self.clock = Clock()
        self.steady = False  # the passes are those of an undisturbed run of the variant

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    # What is right

    def expected(self, variant: Variant) -> Path:
        if variant not in self.undisturbed:
            folder = self.root / f"undisturbed-{len(self.undisturbed)}"
            carry_out(variant.suite, folder)
            self.undisturbed[variant] = folder
        return self.undisturbed[variant]

    def unusable(self) -> int:
        """The number of cells of the suite whose outcome is missing, damaged or lacks a target."""
        record = RunRecord.read(self.expected(self.variant))
        digests = {card.name: card.digest for card in record.models}
        targets = {
            (row.source, row.attack, row.epsilon): {digests[each] for each in self.variant.models}
            for row in record.transfers
        }
        count = 0
        for row in record.evaluations:
            outcome = read_outcome(self.folder / OUTCOMES, row.digest)
            key = (row.model, row.attack, row.epsilon)
            wanted = targets.get(key, set()) | {digests[row.model]}
            count += outcome is None or not wanted <= outcome.scores.keys()
        same = {"one", "uno"} <= set(self.variant.models)  # equal cells are computed once
        return count // 2 if same else count

    def judge(self, record: RunRecord) -> None:
        expected = RunRecord.read(self.expected(self.variant))
        but = frozenset() if self.steady else PASSES
        for name in ROWS:
            assert_same(getattr(record, name), getattr(expected, name), but=but, where=name)
        assert record.status == "done"
        assert RunRecord.read(self.folder) == record

    def refused(self, error: RequestError, *words: str) -> None:
        assert any(word in str(error) for word in words), error

    # Steps

    @rule(step=st.sampled_from([0.0, 100.0]))
    def run(self, step: float) -> None:
        """Runs the suite to its end, and repairs the folder first if that is necessary."""
        self.clock.step = step
        unusable, new = self.unusable(), not self.folder.exists()
        try:
            record = carry_out(self.variant.suite, self.folder)
        except RequestError as error:
            self.refused(error, "--repair")
            self.steady = False
            record = carry_out(self.variant.suite, self.folder, repair=True)
        self.steady = self.steady or new
        self.judge(record)
        assert record.provenance.computed_cells == unusable
        assert self.unusable() == 0

    @rule(
        fault=st.sampled_from(FAULTS),
        at=st.integers(1, 25),
        step=st.sampled_from([0.0, 100.0]),
    )
    def run_on_a_failing_disk(self, fault: Fault, at: int, step: float) -> None:
        """Runs the suite until the disk fails: with an error that names it, or not at all."""
        self.clock.step = step
        disk = Disk(self.folder, fault, at)
        self.steady = False
        try:
            with disk.mounted():
                record = carry_out(self.variant.suite, self.folder)
        except Killed:
            assert disk.dead
        except RequestError as error:
            self.refused(error, "--repair", "can't be")
        else:
            if record.failures:  # an outcome could not be read back
                assert fault == "unreadable"
                assert record.status == "failed"
            else:
                self.judge(record)

    @precondition(lambda self: self.folder.exists())
    @rule(which=PLACES, place=PLACES, bit=st.integers(0, 7))
    def damage(self, which: int, place: int, bit: int) -> None:
        """Flips a bit of a file."""
        file = self._file(which)
        content = bytearray(file.read_bytes())
        if content:
            content[place % len(content)] ^= 1 << bit
            file.write_bytes(content)
        self._touched(file)

    @precondition(lambda self: self.folder.exists())
    @rule(which=PLACES, share=st.sampled_from([0.0, 0.5, 0.99, None]))
    def lose(self, which: int, share: float | None) -> None:
        """Removes a file, or its end."""
        file = self._file(which)
        if share is None:
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
        self._touched(file)

    @rule(variant=VARIANTS)
    def change_the_suite(self, variant: Variant) -> None:
        self.steady = self.steady and variant == self.variant
        self.variant = variant

    @rule(name=st.sampled_from(["run", "another run", "naïve", "a=b"]))
    def rename_the_folder(self, name: str) -> None:
        target = self.place / name
        if self.folder.exists() and not target.exists():
            self.folder.rename(target)
            self.folder = target

    @precondition(lambda self: (self.folder / RUN_FILE).exists())
    @rule(variant=VARIANTS)
    def merge(self, variant: Variant) -> None:
        """Copies the outcomes of another run into the folder."""
        (self.folder / OUTCOMES).mkdir(exist_ok=True)
        for file in (self.expected(variant) / OUTCOMES).iterdir():
            shutil.copy(file, self.folder / OUTCOMES)
        self.steady = False

    @precondition(lambda self: self.folder.exists())
    @rule()
    def compare_and_report(self) -> None:
        """Reads the folder in every way: what is read is right, or an error is raised."""
        baseline = self.place / "baseline.json"
        whole = self.expected(self.variant)
        for read in (
            lambda: compare(whole, self.folder),
            lambda: save_baseline(self.folder, baseline) and compare(baseline, self.folder),
            lambda: document(RunRecord.read(self.folder), self.folder, Document.MARKDOWN),
            lambda: document(RunRecord.read(self.folder), self.folder, Document.HTML),
        ):
            try:
                result = read()
            except RequestError:
                continue
            for each in getattr(result, "measures", ()):
                assert each.verdict not in ("regressed", "doubtful", "improved"), each

    @precondition(lambda self: (self.place / "baseline.json").exists())
    @rule(place=PLACES, bit=st.integers(0, 6))
    def damage_the_baseline(self, place: int, bit: int) -> None:
        file = self.place / "baseline.json"
        content = file.read_bytes()
        before = read_side(file)
        damaged = bytearray(content)
        damaged[place % len(content)] ^= 1 << bit
        file.write_bytes(damaged)
        try:
            after = read_side(file)
        except RequestError:
            pass
        else:
            assert_same(after.cells, before.cells)
        file.write_bytes(content)

    @invariant()
    def nothing_is_left_under_a_false_name(self) -> None:
        """A record that can be read is of a run that is marked, done or failed."""
        if (self.folder / RUN_FILE).exists():
            try:
                record = RunRecord.read(self.folder)
            except RequestError:
                return
            assert record.status in ("running", "done", "failed")
            assert not (record.status == "done" and record.failures)

    def _file(self, which: int) -> Path:
        files = sorted(each for each in self.folder.rglob("*") if each.is_file())
        return files[which % len(files)]

    def _touched(self, file: Path) -> None:
        if file.name in (RUN_FILE, DAMAGED_FILE):
            self.steady = False  # what was lost besides is not known any more


def test_nothing_is_lost_or_wrong_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    planting = planted.Plant(monkeypatch)
    planting.dataset("squares", lambda request: planted.squares())
    for name, seed in (("one", 1), ("two", 2)):
        planting.model(name, planted.rows(seed))
    monkeypatch.setattr(provenance, "_commit", lambda: ("", None))
    clocks: list[Clock] = []

    class Timed(Simulation):
        root = tmp_path_factory.mktemp("simulation")

        def __init__(self) -> None:
            super().__init__()
            clocks.append(self.clock)

    class Time:
        @staticmethod
        def monotonic() -> float:
            return clocks[-1].monotonic()

        perf_counter = monotonic

    for module in (run_job, batch, prove, runs):
        monkeypatch.setattr(module, "time", Time)
    monkeypatch.setattr(provenance, "now", lambda: "2026-01-01T00:00:00+00:00")
    Timed.undisturbed = {}
    run_state_machine_as_test(
        Timed,
        settings=settings(
            max_examples=int(os.environ.get("SIMULATED", RUNS)),
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.reuse, Phase.generate),  # making it smaller takes hours
        ),
    )
