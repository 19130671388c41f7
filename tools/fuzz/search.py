"""Searches findings of a target: Hypothesis draws cases and makes those that fail smaller."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from tools.fuzz.cases import CORPUS, Case, Corpus, Files, write_files
from tools.fuzz.fuzz_targets import TARGETS
from tools.fuzz.judging import CaseLimits, Finding, judge

ROUND = 500  # cases of one run of Hypothesis
MOST_MUTATIONS = 4
NOT_REPEATED = ("too slow", "too much memory", "crash")  # not made smaller: it would take too long


@dataclass(frozen=True)
class Found:
    """A finding and the smallest case that shows it."""

    case: Case
    files: Files
    finding: Finding


@dataclass
class Search:
    """A search of one target.

    Args:
        target: its name.
        scratch: folder that each case is written to.
        limits: limits of a case.
        known: keys of findings that are passed over.
        corpus: folder of the corpora.
    """

    target: str
    scratch: Path
    limits: CaseLimits = field(default_factory=CaseLimits)
    known: set[str] = field(default_factory=set)
    corpus: Path = CORPUS
    tried: int = 0
    refused: int = 0

    def __post_init__(self) -> None:
        self._target = TARGETS[self.target]
        self._corpus = Corpus.read(
            self.corpus / (self._target.corpus or self.target), self._target.mutable
        )

    def run(
        self,
        *,
        cases: int,
        seconds: float,
        first_seed: int,
        report: Callable[[Found], None],
        progress: Callable[[int], None] = lambda tried: None,
    ) -> None:
        """Tries cases until there were so many, or the time is over.

        ``report`` is called with each finding, and ``progress`` with the number of cases tried.
        """
        end, number = time.monotonic() + seconds, first_seed
        self.tried = 0
        while self.tried < cases and time.monotonic() < end:
            found = self._round(number, end, min(ROUND, cases - self.tried))
            if found is not None:
                self.known.add(found.finding.key)
                report(found)
            number += 1
            progress(self.tried)

    def files(self, case: Case) -> Files:
        """Returns the files of a case."""
        return self._corpus.files(case)

    def judge(self, case: Case) -> Finding | None:
        """Returns the finding of a case, or None."""
        finding = self._judge(case)
        if finding is not None and finding.kind == "too slow":
            return self._judge(case)  # the machine may have been busy
        return finding

    def _judge(self, case: Case) -> Finding | None:
        write_files(self.files(case), self.scratch)
        return judge(self._target.read, self.scratch, self.limits)

    def corpus_case(self, entry: str) -> Case:
        """Returns an entry of the corpus as it is."""
        return Case(entry, ())

    @property
    def entries(self) -> list[str]:
        """Names of the entries of the corpus."""
        return list(self._corpus.entries)

    def _round(self, number: int, end: float, count: int) -> Found | None:
        last: list[Found] = []
        cases = st.builds(
            Case,
            st.sampled_from(self.entries),
            st.lists(st.integers(0, 2**48), min_size=1, max_size=MOST_MUTATIONS).map(tuple),
        )

        @seed(number)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        @given(cases)
        def check(case: Case) -> None:
            if time.monotonic() > end:
                raise _OverError
            if not last:
                self.tried += 1
            finding = self.judge(case)
            if finding is None or finding.key in self.known:
                return
            if last and finding.key != last[0].finding.key:
                return  # another finding, which later rounds meet
            last.append(Found(case, self.files(case), finding))
            if finding.kind in NOT_REPEATED:
                raise _OverError
            raise _FoundError

        # Flaky: a finding that does not come again is reported all the same.
        with contextlib.suppress(_OverError, _FoundError, Flaky):
            check()
        return last[-1] if last else None


class _OverError(BaseException):
    """Ends a round at once."""


class _FoundError(Exception):
    """Makes Hypothesis look for a smaller case."""
