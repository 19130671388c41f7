"""The pytest plug-in: the fixture ``robustness``, whose checks fail a test.

pytest loads this module in every run in every environment with Gibbon: it imports nothing but
pytest itself, and torch only when a check is made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gibbon.api.request import AttackLike, Budget, Data, Model
    from gibbon.api.results import Results
    from gibbon.gate.baseline import Content, Side
    from gibbon.gate.measures import Key
    from gibbon.gate.model_check import CheckLimits, CheckLine

OPTION = "--robustness-update-baseline"
# Properties of a test's report.
LINES, REWRITTEN, REMARKS = "gibbon.robustness", "gibbon.baseline", "gibbon.remarks"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option that updates baselines."""
    parser.getgroup("robustness", "robustness of models (Gibbon)").addoption(
        OPTION,
        action="store_true",
        default=False,
        help="Write what robustness.check(..., baseline=FILE) measures into FILE, instead of "
        "comparing with it.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the summary of all checks, printed at the end of the session."""
    config.stash[SUMMARY] = Summary()
    config.pluginmanager.register(config.stash[SUMMARY], "gibbon-summary")


@pytest.fixture
def robustness(request: pytest.FixtureRequest) -> Robustness:
    """Check the robustness of a model.

    The test fails if an error is above its limit, or if there is a serious flag.
    """
    return Robustness(request)


class Robustness:
    """Checks of models in one test; made by the fixture ``robustness``."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._item: pytest.Item = request.node
        self._update: bool = request.config.getoption(OPTION)
        self._summary: Summary = request.config.stash[SUMMARY]

    def check(
        self,
        model: Model,
        data: Data,
        *,
        attack: AttackLike | Sequence[AttackLike],
        epsilon: Budget | Sequence[Budget] | None = None,
        max_error: float | None = None,
        max_clean_error: float | None = None,
        baseline: str | Path | None = None,
        max_increase: float = 1.0,
        alpha: float = 0.05,
        limit: int | None = None,
        seed: int = 0,
        name: str | None = None,
        accept: Sequence[str] = (),
        **parameters: Any,
    ) -> Results:
        """Evaluates a model and returns the results; fails the test if an error is too high.

        A serious flag that is not accepted fails the test too, whatever the errors are: its
        sentence, its figure, its advice and the suite lines are the first lines of the message.

        Args:
            model: one model, as `gibbon.evaluate` takes it.
            data: data, as `gibbon.evaluate` takes it.
            attack: an attack's name, or a list of attacks.
            epsilon: perturbation budgets, such as ``8 / 255``.
            max_error: largest adversarial error allowed, a fraction of 1, for each attack and
                epsilon.
            max_clean_error: largest clean error allowed.
            baseline: file to compare with, relative to the test file; made and updated by
                ``pytest --robustness-update-baseline``.
            max_increase: percentage points by which an error may exceed that of the baseline.
            alpha: significance level of such an increase.
            limit: evaluate a fixed sample of this many examples.
            seed: seed of every random number.
            name: name of the check in tables and in the baseline; the test's file and name if None.
            accept: kinds of flags that you take responsibility for, such as ``["zero-gradient"]``;
                they are printed.
            **parameters: the attack's own parameters, such as ``steps=20``, and other arguments of
                `gibbon.evaluate`, such as ``device``, ``mean`` and ``std``.

        Raises a `RequestError` if the request is wrong.
        """
        __tracebackhide__ = True
        from gibbon.core.errors import RequestError, SpecError
        from gibbon.gate.model_check import CheckLimits, CheckLine

        name = name if name is not None else _name_of(self._item)
        chosen = {"attack": attack, "epsilon": epsilon, "limit": limit, "seed": seed}
        chosen |= {"accept": accept, **parameters}
        try:
            if isinstance(model, Mapping):
                raise SpecError("a check is of one model: check each, with a name of its own")
            results, failure = self._measure(
                model,
                data,
                allowed=CheckLimits(max_error, max_clean_error, max_increase, alpha),
                baseline=baseline,
                name=name,
                arguments=chosen,
            )
        except Exception as error:
            wrong = isinstance(error, RequestError)
            verdict = "wrong request" if wrong else f"raised {type(error).__name__}"
            self._report(LINES, [vars(CheckLine(name, verdict=verdict))])
            if wrong:
                raise error.with_traceback(None)  # noqa: B904  # the test's line is what matters
            raise
        if failure:
            pytest.fail(failure, pytrace=False)
        return results

    def _measure(
        self,
        model: Model,
        data: Data,
        *,
        allowed: CheckLimits,
        baseline: str | Path | None,
        name: str,
        arguments: Mapping[str, Any],
    ) -> tuple[Results, str]:
        """Returns the results, and the message of a failed test."""
        from gibbon.core.errors import SpecError
        from gibbon.core.reading import expanded
        from gibbon.gate.model_check import CheckLine, judge_check, named_side, update_baseline

        allowed.check(compared=baseline is not None)
        file = None
        if baseline is not None:
            file = self._item.path.parent / expanded(baseline, SpecError)
        if file is not None and not self._update and not file.exists():
            self._report(LINES, [vars(CheckLine(name, verdict="no baseline"))])
            pytest.fail(
                f"there is no baseline {file} yet: make it with pytest {OPTION}, look at it, and "
                f"commit it ({name})",
                pytrace=False,
            )
        from gibbon import evaluate

        results = evaluate(model, data, **arguments)
        side = named_side(results.record, results.outcomes, name=name)
        if file is not None:
            self._summary.claim(file, side, by=self, test=self._item.nodeid)
        found = judge_check(
            results.record, side, allowed=allowed, baseline=None if self._update else file
        )
        self._report(LINES, [vars(line) for line in found.lines])
        if found.remarks:
            self._report(REMARKS, found.remarks)
        if file is not None and self._update:
            if found.sound:
                update_baseline(file, side, gibbon=results.record.provenance.gibbon)
                root = self._item.config.rootpath
                inside = file.is_relative_to(root)
                self._report(REWRITTEN, str(file.relative_to(root) if inside else file))
            elif found.problems:
                return results, f"{found.message}\n\n{file.name} was not written"
        return results, found.message if found.problems else ""

    def _report(self, name: str, content: object) -> None:
        self._item.user_properties.append((name, json.dumps(content)))


@dataclass
class _Claim:
    """Check that owns one name of a baseline file."""

    by: Robustness
    test: str
    data: tuple[Content, bytes]
    attacked: set[Key]


class Summary:
    """Results of the checks of a session, and which test owns which part of a baseline."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, ...], CheckLine] = {}
        self._rewritten: dict[str, None] = {}
        self._remarks: dict[str, None] = {}
        self._claims: dict[tuple[Path, str], _Claim] = {}

    def claim(self, file: Path, side: Side, *, by: Robustness, test: str) -> None:
        """Reserves the part of a baseline file that a check writes.

        Raises `SpecError` if another check has it: they would overwrite each other.
        """
        from gibbon.core.errors import SpecError

        (name,) = side.datasets
        attacked = {cell.key for cell in side.cells if cell.key.measure == "adversarial_error"}
        data = (side.datasets[name], b"".join(cell.example_id.tobytes() for cell in side.cells[:1]))
        held = self._claims.get((file, name))
        if held is None or (held.test == test and held.by is not by):  # a test that is run again
            self._claims[file, name] = _Claim(by, test, data, attacked)
            return
        if held.test != test:
            problem = f"{held.test} has a check of that name too"
        elif held.data != data:
            problem = "two checks of this test are on different data"
        elif held.attacked & attacked:
            problem = "two checks of this test have the same attack and epsilon"
        else:
            held.attacked |= attacked
            return
        raise SpecError(
            f"{name}: {problem}: in {file.name} they would be one; give each its own name=..."
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collects the lines in a test's report, also from another process."""
        if report.when != "teardown":
            return
        for name, content in report.user_properties:
            if name == LINES:
                self._take(report.nodeid, json.loads(str(content)))
            elif name == REWRITTEN:
                self._rewritten[json.loads(str(content))] = None
            elif name == REMARKS:
                self._remarks |= dict.fromkeys(json.loads(str(content)))

    def _take(self, test: str, found: list[dict[str, Any]]) -> None:
        from gibbon.gate.model_check import CheckLine

        for each in found:
            line = CheckLine(**each)
            self._lines[test, line.check, line.error, line.attack, line.epsilon] = line

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Prints the checks, and which baselines were written."""
        if not self._lines:
            return
        from gibbon.core.errors import RequestError
        from gibbon.gate.model_check import checks_markdown, checks_table
        from gibbon.report.text.github_summary import JOB_SUMMARY, append_summary

        lines = tuple(self._lines.values())
        terminalreporter.section("robustness")
        for row in checks_table(lines).splitlines():
            terminalreporter.write_line(row)
        for remark in self._remarks:
            terminalreporter.write_line(remark)
        for file in self._rewritten:
            terminalreporter.write_line(f"baseline rewritten: {file}")
        try:
            append_summary(
                checks_markdown(lines, tuple(self._rewritten), tuple(self._remarks)),
                os.environ.get(JOB_SUMMARY),
            )
        except RequestError as error:  # the tests' own results must not be lost for it
            terminalreporter.write_line(str(error), red=True)


SUMMARY = pytest.StashKey[Summary]()


def _name_of(item: pytest.Item) -> str:
    """Returns the test's file and name, independent of the folder that pytest is started in."""
    chain = [each.name for each in item.listchain() if isinstance(each, pytest.Class | pytest.Item)]
    return "::".join([item.path.name, *chain])
