"""The fixture ``robustness``: what fails a test, what it says, and what becomes of baselines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import earlier_baselines
import numpy as np
import pytest
import torch
import torch._inductor.config  # a run inside a test forgets its imports: triton breaks at a second
from torch import nn

from gibbon import evaluate
from gibbon.core.errors import SpecError
from gibbon.core.threat import ZERO, Epsilon, Norm
from gibbon.gate.baseline import AttackSetup, Content, Key, MeasuredErrors, Side, read_side
from gibbon.gate.model_check import CheckLine, checks_markdown, named_side, update_baseline
from gibbon.metrics.paired_tests import mcnemar
from gibbon.pytest_plugin import LINES, REWRITTEN, Summary

pytest_plugins = ["pytester"]

UPDATE = "--robustness-update-baseline"
# Sixteen grey pixels; the label is whether the left half is brighter.  The model knows by how
# much: FGSM at epsilon misleads it wherever the halves differ by less than twice epsilon.
COMMON = """
import pytest
import torch
from torch import nn


class Halves(nn.Module):
    def __init__(self, shift=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1 / 8] * 8 + [-1 / 8] * 8))
        self.shift = shift

    def forward(self, inputs):
        score = 100 * (inputs.flatten(1) @ self.weight + self.shift)
        return torch.stack([score, -score], 1)


class Masked(Halves):
    def forward(self, inputs):
        return super().forward(inputs).detach() + super().forward(0.0 * inputs)


class Breaks(Halves):
    def forward(self, inputs):
        if inputs.requires_grad:
            raise RuntimeError("planted trouble")
        return super().forward(inputs)


def pictures(count=100, seed=0):
    inputs = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return inputs, (Halves()(inputs)[:, 0] < 0).long()


data = pictures()
"""


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """What a check imports late is there before pytester looks: it throws out what is new."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    results = evaluate(net, (torch.rand(6, 1, 2, 2), torch.arange(6) % 2), attack="fgsm", epsilon=0)
    named_side(results.record, results.outcomes, name="x")
    mcnemar(1, 1)


@pytest.fixture(autouse=True)
def _no_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


# In a checkout this session may have imported Gibbon before the one that is started in it.
STRICT = ("-W", "error", "-W", "ignore::pytest.PytestAssertRewriteWarning")


@pytest.fixture
def run(pytester: pytest.Pytester):
    """Runs tests written as text, with warnings as errors; returns how they ended."""

    def run_tests(text: str, *options: str, file: str = "test_nets") -> pytest.RunResult:
        pytester.makepyfile(**{file: COMMON + text})
        return pytester.runpytest(*STRICT, "-p", "no:cacheprovider", *options)

    return run_tests


def said(result: pytest.RunResult) -> str:
    return "\n".join(result.outlines)


AGAINST = """
def test_robust(robustness):
    robustness.check(Halves({shift}), data, attack="fgsm", epsilon={epsilon}, baseline="b.json")
"""
SAME = AGAINST.format(shift=0, epsilon=0.02)
WORSE = AGAINST.format(shift=0.08, epsilon=0.02)


# Fixed limits


def test_a_robust_model_passes_and_its_results_come_back(run) -> None:
    result = run("""
def test_robust(robustness):
    model = Halves().train()
    results = robustness.check(model, data, attack="pgd", epsilon="8/255", steps=3, max_error=0.9)
    assert results.clean_error == 0 < results.adversarial_error
    assert len(results.examples) == 100
    assert model.training and model.weight.requires_grad
    few = robustness.check(model, data, attack="fgsm", epsilon=0.01, max_error=1, limit=10, seed=3)
    assert len(few.examples) == 10
""")
    result.assert_outcomes(passed=1)
    assert "= robustness =" in said(result)
    assert "test_nets.py::test_robust" in said(result)


def test_an_error_above_its_limit_fails_with_the_table(run) -> None:
    result = run("""
def test_robust(robustness):
    robustness.check(
        Halves(0.05), data, attack=["fgsm", {"name": "pgd", "steps": 2}], epsilon=8 / 255,
        max_error=0.01, max_clean_error=0.02,
    )
""")
    result.assert_outcomes(failed=1)
    text = said(result)
    assert "clean error is " in text
    assert "above the limit of 2.0 %" in text
    assert "adversarial error under fgsm at epsilon 8/255 is " in text
    assert "adversarial error under pgd at epsilon 8/255 is " in text
    assert "above the limit of 1.0 %" in text
    assert "/ 100 examples, 95 % interval [" in text
    assert "95 % interval    wrong" in text
    assert "worst case   all-linf" in text
    assert "Traceback" not in text
    assert "def check" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "nothing is checked: give max_error"),
        ("max_error=40", "max_error is a fraction of 1, such as 0.4 for 40 %, got 40"),
        ("max_clean_error=float('nan')", "max_clean_error is a fraction of 1"),
        ("baseline='b.json', alpha=0", "alpha must be above 0"),
        ("baseline='b.json', max_increase=-1", "max_increase must be 0 to 100"),
        ("max_error=1, stepz=3", "stepz"),
    ],
)
def test_a_check_that_makes_no_sense_says_so_in_the_test_line(run, options, message) -> None:
    result = run(f"""
def test_robust(robustness):
    robustness.check(Halves(), data, attack="fgsm", epsilon=0.1, {options})
""")
    result.assert_outcomes(failed=1)
    assert message in said(result)
    assert "SpecError" in said(result)
    assert "pytest_plugin.py" not in said(result)


def test_several_models_are_several_checks(run) -> None:
    result = run("""
def test_robust(robustness):
    robustness.check({"a": Halves()}, data, attack="fgsm", epsilon=0.1, max_error=1)
""")
    assert "a check is of one model" in said(result)


def test_what_fails_is_not_robust(run, pytester) -> None:
    result = run(
        """
def test_robust(robustness):
    robustness.check(
        Breaks(), data, attack="fgsm", epsilon=0.1, max_error=1.0, baseline="b.json"
    )
""",
        UPDATE,
    )
    result.assert_outcomes(failed=1)
    assert "planted trouble" in said(result)
    assert not (pytester.path / "b.json").exists()


def test_a_failed_cell_names_whose_code_raised(run) -> None:
    result = run(
        """
from dataclasses import dataclass
from gibbon import Attack

@dataclass(frozen=True)
class Mine(Attack):
    def propose(self, classifier, inputs, *, labels, threat, streams):
        raise KeyError("no table")

def test_attack(robustness):
    robustness.check(Halves(), data, attack=Mine(), epsilon=0.01, max_error=1)

def test_model(robustness):
    robustness.check(Breaks(), data, attack="fgsm", epsilon=0.01, max_error=1)

class Data:
    def __len__(self): return 20
    def __getitem__(self, index): raise KeyError("no row")

def test_data(robustness):
    robustness.check(Halves(), Data(), attack="fgsm", epsilon=0.01, max_error=1)
"""
    )
    result.assert_outcomes(failed=3)
    text = result.stdout.str()
    assert "KeyError: 'no table' (raised by the attack Mine, " in text
    assert re.search(r"model.*RuntimeError: planted trouble", text)
    assert "dataset 'Data': item 0 can't be read: KeyError: 'no row'" in text


def test_candidates_out_of_budget_are_not_robustness(run) -> None:
    result = run("""
import planted

def test_robust(robustness):
    robustness.check(Halves(), data, attack=planted.LeavesBudget(), epsilon=0.01, max_error=1.0)
""")
    result.assert_outcomes(failed=1)
    assert "does not count: 100 candidates out of budget" in said(result)


# Serious flags

MASKED = """
def test_robust(robustness):
    robustness.check(Masked(), data, attack="fgsm", epsilon=0.02, {more})
"""
KINDS = re.compile(r"^E? *serious flag: ([a-z-]+): ", re.MULTILINE)


def accepting(result: pytest.RunResult) -> str:
    """The argument that accepts what a failed test named."""
    return f"accept={sorted(set(KINDS.findall(said(result))))!r}"


def test_a_serious_flag_fails_a_check_and_is_said_first(run) -> None:
    result = run(MASKED.format(more="max_error=1.0"))
    result.assert_outcomes(failed=1)
    text = said(result)
    first = next(line for line in result.outlines if "serious flag: " in line)
    assert first.startswith("serious flag: ")  # nothing before it in the message
    assert "zero-gradient: Masked" not in text
    assert "zero-gradient: data, Masked, fgsm at epsilon 0.02: the gradient is zero" in text
    assert "100 of 100 examples" in text
    assert "Attack the outputs before the part that loses the gradient" in text
    assert text.index("serious flag: ") < text.index("95 % interval")
    verdicts = [line for line in result.outlines if "adversarial" in line and "fgsm" in line]
    assert any("serious flag: " in line and "zero-gradient" in line for line in verdicts)
    summary = text.partition("= robustness =")[2]
    assert re.search(r"serious flag: .*zero-gradient", summary)


def test_what_settles_a_flag_is_said_in_the_message(run) -> None:
    result = run("""
from gibbon.records.flags import Flag
from gibbon.records.run import RunRecord

FLAGS = [
    Flag(kind="noise-as-strong", figure="7 of 9", sentence="noise does as well",
         advice="Look at the gradient.", suite='[[attacks]]\\nname = "square"'),
    Flag(kind="not-converged", sentence="the loss still rose"),
    Flag(kind="stopped-early", sentence="it stopped"),
]

def test_robust(robustness, monkeypatch):
    flagged = RunRecord.with_flags
    monkeypatch.setattr(RunRecord, "with_flags", lambda self, _: flagged(self, FLAGS))
    robustness.check(Halves(), data, attack="fgsm", epsilon=0.01, max_error=1.0)
""")
    result.assert_outcomes(failed=1)
    text = said(result)
    lines = ["serious flag: noise-as-strong: noise does as well (7 of 9)"]
    lines += ["    Look at the gradient.", "        [[attacks]]", '        name = "square"']
    assert "\n".join(lines) in text
    assert "\nwarning: not-converged: the loss still rose\n" in text
    assert "\nnote: stopped-early: it stopped\n" in text


def test_an_accepted_flag_passes_and_is_printed(run, tmp_path, monkeypatch) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    accept = accepting(run(MASKED.format(more="max_error=1.0")))
    assert "zero-gradient" in accept
    result = run(MASKED.format(more=f"max_error=1.0, {accept}"))
    result.assert_outcomes(passed=1)
    printed = "accepted: zero-gradient (accept of test_nets.py::test_robust): 2 flags"
    assert printed in said(result)
    assert re.search(r"\| +accepted +\|", summary.read_text())
    assert f"- {printed}" in summary.read_text()
    regressed = run(MASKED.replace("Masked()", "Masked(0.2)").format(more=f"max_error=0, {accept}"))
    regressed.assert_outcomes(failed=1)
    assert "above the limit of 0.0 %" in said(regressed)
    assert "accepted: zero-gradient: data, Masked, fgsm at" in said(regressed)
    assert "serious flag" not in said(regressed)


def test_accepting_another_kind_passes_nothing(run) -> None:
    result = run(MASKED.format(more="max_error=1.0, accept=['wide-budget']"))
    result.assert_outcomes(failed=1)
    assert "accepted: wide-budget (accept of test_nets.py::test_robust): not raised" in said(result)


@pytest.mark.parametrize(
    ("accept", "message"),
    [
        ("['zero-gradent']", "accept[0]: there is no kind of flag 'zero-gradent'; did you mean"),
        ("'zero-gradient'", "accept: must be a list, got 'zero-gradient'"),
        ("[3]", "accept[0]: "),
    ],
)
def test_a_wrong_acceptance_is_a_wrong_request(run, accept, message) -> None:
    result = run(MASKED.format(more=f"max_error=1.0, accept={accept}"))
    result.assert_outcomes(failed=1)
    assert message in said(result)
    assert "SpecError" in said(result)
    assert "wrong request" in said(result)


def test_no_baseline_is_made_of_a_flagged_check(run, pytester) -> None:
    result = run(MASKED.format(more="baseline='b.json'"), UPDATE)
    result.assert_outcomes(failed=1)
    assert "b.json was not written" in said(result)
    assert not (pytester.path / "b.json").exists()
    accept = accepting(result)
    run(MASKED.format(more=f"baseline='b.json', {accept}"), UPDATE).assert_outcomes(passed=1)
    stored = read_side(pytester.path / "b.json")
    kinds = {cell.key.attack: {flag.kind for _, flag in cell.serious()} for cell in stored.cells}
    assert "zero-gradient" in kinds["fgsm"]
    run(MASKED.format(more=f"baseline='b.json', {accept}")).assert_outcomes(passed=1)
    # Whoever no longer accepts it does not pass because the baseline has it.
    run(MASKED.format(more="baseline='b.json'")).assert_outcomes(failed=1)


def test_a_masked_model_is_no_better_than_the_baseline(run) -> None:
    run(SAME, UPDATE).assert_outcomes(passed=1)
    result = run(SAME.replace("Halves", "Masked"))
    result.assert_outcomes(failed=1)
    assert "zero-gradient" in said(result)
    regressed = run(WORSE.replace("Halves", "Masked"))
    assert "regressed" in said(regressed)


def test_a_baseline_of_the_earlier_version_is_still_read(run, pytester) -> None:
    run(SAME, UPDATE).assert_outcomes(passed=1)
    file = pytester.path / "b.json"
    written = file.read_text()
    assert '"flags"' not in written
    earlier_baselines.rewrite(file, 2)
    run(SAME).assert_outcomes(passed=1)
    run(WORSE).assert_outcomes(failed=1)
    other = SAME.replace("test_robust", "test_other")
    run(SAME + other, UPDATE, "-k", "test_other").assert_outcomes(passed=1)
    kept = {cell.key.dataset: cell.flags for cell in read_side(file).cells}
    assert kept["test_nets.py::test_robust"] is None  # they stay unknown
    assert kept["test_nets.py::test_other"] == {}


# Baselines


def test_without_a_baseline_the_failure_says_how_to_make_one(run) -> None:
    result = run(SAME)
    result.assert_outcomes(failed=1)
    assert f"make it with pytest {UPDATE}" in said(result)
    assert "no baseline" in said(result)


def test_a_baseline_is_made_compared_with_and_renewed(run, pytester) -> None:
    run(SAME, UPDATE).assert_outcomes(passed=1)
    written = (pytester.path / "b.json").read_bytes()
    same = run(SAME)
    same.assert_outcomes(passed=1)
    assert "baseline" in said(same)
    worse = run(WORSE)
    worse.assert_outcomes(failed=1)
    assert "clean error went from 0.00 % to " in said(worse)
    assert "points, 1 allowed, adjusted p < 0.0001)" in said(worse)
    assert "regressed" in said(worse)
    assert (pytester.path / "b.json").read_bytes() == written
    renewed = run(WORSE, UPDATE)
    renewed.assert_outcomes(passed=1)
    assert "\nbaseline rewritten: b.json\n" in said(renewed)
    run(WORSE).assert_outcomes(passed=1)
    better = run(SAME)
    better.assert_outcomes(passed=1)


def test_more_is_allowed_where_it_is_said(run) -> None:
    run(SAME, UPDATE)
    loose = WORSE.replace('baseline="b.json"', 'baseline="b.json", max_increase=90')
    run(loose).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("epsilon=0.02", "epsilon=0.03"), "b.json holds no adversarial error under fgsm at"),
        (('attack="fgsm"', 'attack="noise-sign"'), "holds no adversarial error under noise-sign"),
        (("data,", "pictures(seed=1),"), "was made on other data"),
        (("data,", "data, limit=50,"), "only 50 of 100 examples"),
        (("data,", "data, clip=False,"), "made with"),
        (('baseline="b.json"', 'baseline="b.json", name="other"'), "of other: make it with pytest"),
    ],
)
def test_a_check_that_the_baseline_is_not_about_fails(run, change, message) -> None:
    run(SAME, UPDATE)
    result = run(SAME.replace(*change))
    result.assert_outcomes(failed=1)
    assert message in said(result)


TWO = SAME + SAME.replace("test_robust", "test_other")


def test_tests_share_a_file_and_what_is_deselected_stays(run, pytester) -> None:
    run(TWO, UPDATE).assert_outcomes(passed=2)
    names = {"test_nets.py::test_robust", "test_nets.py::test_other"}
    before = read_side(pytester.path / "b.json")
    assert set(before.datasets) == names
    changed = SAME.replace("data,", "pictures(60),")
    run(changed + SAME.replace("test_robust", "test_other"), UPDATE, "-k", "test_robust")
    after = read_side(pytester.path / "b.json")
    assert {name: content.of for name, content in after.datasets.items()} == {
        "test_nets.py::test_robust": 60,
        "test_nets.py::test_other": 100,
    }
    run(TWO).assert_outcomes(passed=1, failed=1)


def test_names_do_not_hang_on_where_pytest_is_started(run, pytester, monkeypatch) -> None:
    run(SAME, UPDATE).assert_outcomes(passed=1)
    (pytester.path / "sub").mkdir()
    monkeypatch.chdir(pytester.path / "sub")
    result = pytester.runpytest("../test_nets.py", "--rootdir", str(pytester.path.parent))
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (SAME, "two checks of this test have the same attack and epsilon"),
        (SAME.replace("data,", "pictures(50),"), "two checks of this test are on different data"),
    ],
)
def test_two_checks_that_would_be_one_are_refused(run, second, message) -> None:
    result = run(SAME + second.replace("\ndef test_robust(robustness):\n", ""), UPDATE)
    result.assert_outcomes(failed=1)
    assert message in said(result)
    named = second.replace("\ndef test_robust(robustness):\n", "").replace(
        'baseline="b.json"', 'baseline="b.json", name="second"'
    )
    run(SAME + named, UPDATE).assert_outcomes(passed=1)


def test_two_tests_of_one_name_are_refused(run) -> None:
    named = TWO.replace('baseline="b.json"', 'baseline="b.json", name="net"')
    result = run(named, UPDATE)
    result.assert_outcomes(passed=1, failed=1)
    assert "test_robust has a check of that name too" in said(result)


def test_several_attacks_of_one_test_share_a_name(run, pytester) -> None:
    text = (
        SAME + '    robustness.check(Halves(), data, attack="pgd", epsilon=0.02, baseline="b.json")'
    )
    run(text, UPDATE).assert_outcomes(passed=1)
    run(text).assert_outcomes(passed=1)
    attacks = {cell.key.attack for cell in read_side(pytester.path / "b.json").cells}
    assert attacks == {"none", "fgsm", "pgd"}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("[]", "neither a run's folder nor a baseline"),
        (
            '{"kind": "gibbon-baseline", "version": 7}',
            "schema version 7, this Gibbon reads 2 to 5",
        ),
        ('{"kind": "gibbon-baseline", "', "damaged, or cut short"),
    ],
)
@pytest.mark.parametrize("option", [[], [UPDATE]])
def test_a_file_that_is_no_baseline_is_named_and_kept(run, pytester, written, message, option):
    (pytester.path / "b.json").write_text(written)
    result = run(SAME, *option)
    result.assert_outcomes(failed=1)
    assert message in said(result)
    assert (pytester.path / "b.json").read_text() == written


def made_side(name: str, *, wrong: int) -> Side:
    ids, bits = np.arange(50), np.arange(50) < wrong
    clean = Key(name, name, "none", ZERO, "clean_error")
    attacked = Key(name, name, "fgsm", Epsilon.parse("0.1"), "adversarial_error")
    fgsm = AttackSetup(algorithm="fgsm", norm=Norm.LINF, clip=True)
    cells = (
        MeasuredErrors(clean, AttackSetup(), 0, ids, bits),
        MeasuredErrors(attacked, fgsm, 0, ids, ~bits),
    )
    return Side(name, "pytest", {name: Content(name, 50)}, cells)


def test_many_writers_lose_nothing_and_their_order_does_not_show(tmp_path: Path) -> None:
    def write(file: Path, order: int) -> bytes:
        sides = [made_side(f"check {number}", wrong=number) for number in range(12)]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda side: update_baseline(file, side, gibbon="0"), sides[::order]))
        return file.read_bytes()

    one, other = write(tmp_path / "a.json", 1), write(tmp_path / "b.json", -1)
    assert one == other
    assert len(read_side(tmp_path / "a.json").cells) == 24
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_other_data_under_a_name_replaces_all_of_it(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    side = made_side("check", wrong=3)
    pgd = replace(side.cells[1], key=replace(side.cells[1].key, attack="pgd"))
    update_baseline(file, replace(side, cells=(*side.cells, pgd)), gibbon="0")
    update_baseline(file, side, gibbon="0")
    assert len(read_side(file).cells) == 3  # another test of this name may have made it
    update_baseline(file, replace(side, datasets={"check": Content("new", 50)}), gibbon="0")
    assert len(read_side(file).cells) == 2


# The end of the session


def test_the_job_summary_holds_the_checks(run, tmp_path, monkeypatch) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run(SAME, UPDATE)
    run(WORSE)
    text = summary.read_text()
    assert text.startswith("## Robustness checks: passed\n\n| check")
    assert "- Baseline rewritten: " in text
    assert "## Robustness checks: failed" in text
    assert "| regressed |" in text


@pytest.mark.parametrize(
    ("attack", "given", "verdict"),
    [
        ("fgms", "data", "wrong request"),
        ("fgsm", "data, max_error=None", "wrong request"),
        ("fgsm", "Raising()", "wrong request"),
        ("fgsm", "data, stepps=3", "wrong request"),
        ("fgsm", "data, output=3", "raised TypeError"),
    ],
)
def test_a_check_that_could_not_be_made_is_not_passed_over(
    run, tmp_path, monkeypatch, attack, given, verdict
) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    limit = "" if "max_error" in given else ", max_error=1.0"
    result = run(
        f"""
class Raising:
    def __len__(self):
        raise ZeroDivisionError

def test_sound(robustness):
    robustness.check(Halves(0), data, attack="fgsm", epsilon=0.02, max_error=1.0)

def test_other(robustness):
    robustness.check(
        Halves(0), {given}, attack="{attack}", epsilon=0.02{limit}
    )
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    text = summary.read_text()
    assert text.startswith("## Robustness checks: failed")
    assert verdict in text
    assert "test_other" in text


def test_a_job_summary_that_cannot_be_written_spoils_nothing(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "nowhere" / "summary.md"))
    result = run(SAME, UPDATE)
    result.assert_outcomes(passed=1)
    assert "the job summary can't be written" in said(result)


def test_a_session_without_checks_says_nothing(run) -> None:
    result = run("def test_nothing(robustness): pass")
    result.assert_outcomes(passed=1)
    assert "robustness" not in said(result)


def line(**change: object) -> CheckLine:
    whole = {"check": "a|b", "error": "adversarial", "attack": "fgsm", "epsilon": "0.1"}
    numbers = {"rate": 0.5, "low": 0.4, "high": 0.6, "wrong": 5, "examples": 10}
    free = {"limit": None, "old": None, "verdict": "ok"}
    return CheckLine(**{**whole, **numbers, **free, **change})


def test_reports_of_other_processes_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    summary = Summary()
    properties = [
        (LINES, json.dumps([vars(line())])),
        (REWRITTEN, json.dumps("b.json")),
        ("another", object()),
    ]
    for when in ("setup", "call", "teardown"):
        summary.pytest_runtest_logreport(
            pytest.TestReport(
                nodeid="test",
                location=("", 0, ""),
                keywords={},
                outcome="passed",
                longrepr=None,
                when=when,
                user_properties=properties,
            )
        )
    assert list(summary._lines.values()) == [line()]
    assert list(summary._rewritten) == ["b.json"]


def test_markdown_says_how_the_checks_ended() -> None:
    assert checks_markdown((line(),), ()).startswith("## Robustness checks: passed")
    failed = checks_markdown((line(), line(verdict="regressed")), ())
    assert failed.startswith("## Robustness checks: failed")
    assert "a\\|b" in failed


def test_a_test_that_is_run_again_keeps_its_name(tmp_path: Path) -> None:
    summary = Summary()
    side, (first, second) = made_side("check", wrong=3), (object(), object())
    summary.claim(tmp_path, side, by=first, test="a")  # type: ignore[arg-type]
    summary.claim(tmp_path, side, by=second, test="a")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="same attack and epsilon"):
        summary.claim(tmp_path, side, by=second, test="a")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="a has a check of that name too"):
        summary.claim(tmp_path, side, by=first, test="b")  # type: ignore[arg-type]


def test_the_tests_of_the_documentation_pass(pytester: pytest.Pytester) -> None:
    page = (Path(__file__).parents[1] / "docs" / "ci.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```python\n(# tests/robustness/.*?)```", page, re.DOTALL)
    pytester.makepyfile(test_nets=text)
    pytester.runpytest(*STRICT, UPDATE).assert_outcomes(passed=2)
    pytester.runpytest(*STRICT).assert_outcomes(passed=2)


# Everybody's pytest


def test_the_option_is_in_the_help(pytester: pytest.Pytester) -> None:
    assert UPDATE in said(pytester.runpytest("--help"))


def test_a_run_without_checks_imports_nothing_of_ours_but_the_plug_in(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text("def test_plain(): pass\n")
    script = """
import sys
import pytest
code = pytest.main(["-q", "-p", "no:cacheprovider", "-W", "error"])
ours = sorted(name for name in sys.modules if name.split(".")[0] in ("gibbon", "gibbon_zoo"))
assert ours == ["gibbon", "gibbon.pytest_plugin"], ours
assert not {"torch", "numpy", "pandas", "pydantic"} & sys.modules.keys()
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PATH": "", "PYTEST_ADDOPTS": "-p no:cov -p no:benchmark -p no:hypothesispytest"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
