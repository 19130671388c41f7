"""Verdicts read flags: an error that is smaller because of a flaw is no improvement."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import earlier_baselines
import numpy as np
import planted
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from gibbon import compare as public_compare
from gibbon.cli import app as cli
from gibbon.core.errors import FlagError, SpecError
from gibbon.core.threat import ZERO, Epsilon, Norm
from gibbon.gate.baseline import (
    AttackSetup,
    Content,
    MeasuredErrors,
    Side,
    read_side,
    save_baseline,
    write_baseline,
)
from gibbon.gate.compare import Comparison, compare
from gibbon.gate.comparison_text import comparison_markdown, flag_notes, sentences
from gibbon.gate.junit import write_junit
from gibbon.gate.limits import Limit, Limits, read_limits
from gibbon.gate.measures import Key
from gibbon.records.acceptance import Acceptance
from gibbon.records.examination import ExaminedFlag
from gibbon.records.flag_share import FlagShare
from gibbon.records.flags import Flag
from gibbon.records.run import RunRecord
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.decoding import parse_suite

EXAMPLES = 300
TENTH = Epsilon.parse("0.1")
CLEAN = Key("data", "net", "none", ZERO, "clean_error")
FGSM = Key("data", "net", "fgsm", TENTH, "adversarial_error")
PGD = replace(FGSM, attack="pgd")
WORST = replace(FGSM, attack="all-linf", measure="worst_case_error")
TO_OTHER = replace(PGD, measure="transfer_error", target="other")
OF_OTHER = replace(PGD, model="other")
NAMES = {CLEAN: "none", FGSM: "fgsm", PGD: "pgd", TO_OTHER: "pgd", OF_OTHER: "pgd"}
ALL = (CLEAN, FGSM, PGD, WORST, TO_OTHER, OF_OTHER)

Flagged = Mapping[Key, tuple[Flag, ...]]


def zero(
    count: int = 300,
    of: int = 300,
    *,
    attack: str = "pgd",
    model: str = "net",
    **keys: object,
) -> Flag:
    given = {
        "kind": "zero-gradient",
        "sentence": f"the gradient is zero for {count} of {of} examples",
        "share": FlagShare(count=count, of=of),
        "suite": '[[attacks]]\nname = "square"\n',
        **keys,
    }
    return Flag(dataset="data", model=model, attack=attack, **given)


def wrong(share: float) -> NDArray[np.bool_]:
    return np.arange(EXAMPLES) < share * EXAMPLES


def setup(key: Key) -> AttackSetup:
    if key == CLEAN:
        return AttackSetup()
    if key == WORST:
        return AttackSetup(attacks=("fgsm", "pgd"))
    return AttackSetup(algorithm=key.attack, norm=Norm.LINF, clip=True)


def cell(key: Key, share: float, flagged: Flagged, parts: tuple[str, ...]) -> MeasuredErrors:
    bits, ids = wrong(share), np.arange(EXAMPLES)
    if key != WORST:
        by_attack = {key.attack: flagged.get(key, ())}
        return MeasuredErrors(key, setup(key), 0, ids, bits, flags=by_attack)
    by_attack = {each: flagged.get(key_of(each), ()) for each in parts}
    made = AttackSetup(attacks=parts)
    return MeasuredErrors(key, made, 0, ids, bits, dict.fromkeys(("none", *parts), bits), by_attack)


def key_of(attack: str) -> Key:
    return {"fgsm": FGSM, "pgd": PGD}.get(attack, replace(PGD, attack=attack))


def side(
    share: float = 0.5,
    flagged: Flagged | None = None,
    *,
    name: str = "run",
    keys: tuple[Key, ...] = ALL,
    parts: tuple[str, ...] = ("fgsm", "pgd"),
    accepted: tuple[Acceptance, ...] = (),
) -> Side:
    """A run of a net and another one, with an error of ``share`` everywhere."""
    by_key = flagged or {}
    cells = tuple(cell(key, share, by_key, parts) for key in keys)
    flags = tuple(dict.fromkeys(flag for each in by_key.values() for flag in each))
    data = {"data": Content("d", EXAMPLES)}
    return Side(name, "gate", data, cells, flags=flags, accepted=accepted)


def verdicts(comparison: Comparison) -> dict[Key, str]:
    return {each.key: each.verdict for each in comparison.measures}


def doubtful(comparison: Comparison) -> set[Key]:
    return {each.key for each in comparison.measures if each.verdict == "doubtful"}


# What is doubtful


@pytest.mark.parametrize(("share", "otherwise"), [(0.1, "improved"), (0.5, "unchanged")])
def test_a_measure_that_did_not_get_worse_is_doubtful_under_a_new_serious_flag(
    share: float, otherwise: str
) -> None:
    comparison = compare(side(0.5), side(share, {PGD: (zero(),)}))
    assert not comparison.passed
    assert doubtful(comparison) == {PGD, WORST}
    assert verdicts(comparison)[FGSM] == otherwise


def test_a_regression_stays_a_regression_and_its_flag_is_printed() -> None:
    comparison = compare(side(0.2), side(0.6, {PGD: (zero(),)}))
    assert set(verdicts(comparison).values()) == {"regressed"}
    assert any("zero-gradient" in line for line in flag_notes(comparison))


def test_what_is_missing_stays_missing() -> None:
    new = side(0.1, {PGD: (zero(),)})
    cells = tuple(
        replace(each, made_with=FGSM_SETUP) if each.key == PGD else each for each in new.cells
    )
    assert verdicts(compare(side(), replace(new, cells=cells)))[PGD] == "missing"


FGSM_SETUP = AttackSetup(algorithm="fgsm", norm=Norm.LINF, clip=True)


def test_a_new_measure_with_a_serious_flag_does_not_pass() -> None:
    old = side(keys=(CLEAN, FGSM))
    assert compare(old, side(keys=(CLEAN, FGSM, PGD))).passed
    comparison = compare(old, side(0.5, {PGD: (zero(),)}, keys=(CLEAN, FGSM, PGD)))
    assert doubtful(comparison) == {PGD}
    (line,) = sentences(comparison)
    assert "is 50.00 %: not in the baseline: doubtful: zero-gradient" in line


@pytest.mark.parametrize("severity", ["warning", "note"])
def test_only_serious_flags_make_doubtful(severity: str) -> None:
    comparison = compare(side(), side(0.1, {PGD: (zero(severity=severity),)}))
    assert comparison.passed
    assert not doubtful(comparison)


def test_the_clean_error_can_be_doubtful() -> None:
    random = Flag(kind="random-answers", dataset="data", model="net", sentence="it is random")
    comparison = compare(side(), side(0.1, {CLEAN: (random,)}))
    assert doubtful(comparison) == {CLEAN}


def test_a_transfer_is_doubtful_under_its_own_flags() -> None:
    comparison = compare(side(), side(0.5, {TO_OTHER: (zero(),)}))
    assert doubtful(comparison) == {TO_OTHER}


# What the baseline has


def test_a_flag_that_both_runs_have_is_known_and_printed() -> None:
    flagged = {PGD: (zero(),)}
    comparison = compare(side(0.5, flagged, name="b.json"), side(0.1, flagged))
    assert comparison.passed
    assert verdicts(comparison)[PGD] == "improved"
    assert comparison.known == (zero(),)
    notes = "\n".join(flag_notes(comparison))
    assert "serious flag, in b.json too: zero-gradient: data, net, pgd: the gradient is" in notes
    assert "improved (zero-gradient in both runs)" in comparison_markdown(comparison)


def test_a_flag_of_another_kind_is_new() -> None:
    other = Flag(kind="random-answers", dataset="data", model="net", sentence="it is random")
    old, new = side(0.5, {PGD: (zero(),)}), side(0.5, {PGD: (zero(), other)})
    comparison = compare(old, new)
    assert doubtful(comparison) == {PGD, WORST}
    assert (comparison.doubts, comparison.known) == ((other,), (zero(),))


def test_a_warning_of_the_baseline_does_not_excuse_a_serious_flag() -> None:
    old = side(0.5, {PGD: (zero(severity="warning"),)})
    assert doubtful(compare(old, side(0.5, {PGD: (zero(),)}))) == {PGD, WORST}


def test_a_flag_on_another_measure_of_the_baseline_does_not_excuse_it() -> None:
    old = side(0.5, {FGSM: (zero(attack="fgsm"),)})
    new = side(0.5, {FGSM: (zero(attack="fgsm"),), PGD: (zero(),)})
    # The worst case had it through fgsm, and has it now through pgd as well.
    assert doubtful(compare(old, new)) == {PGD, WORST}


@pytest.mark.parametrize(
    ("old", "new", "known"),
    [
        ((9, 300), (9, 300), True),
        ((9, 300), (12, 300), True),
        ((9, 300), (290, 300), False),
        ((1000, 10_000), (900, 10_000), True),
        ((1000, 10_000), (9000, 10_000), False),
    ],
)
def test_a_flag_that_is_about_far_more_examples_is_new(
    old: tuple[int, int], new: tuple[int, int], known: bool, tmp_path: Path
) -> None:
    before = side(0.5, {FGSM: (zero(*old),)})
    after = side(0.1, {FGSM: (zero(*new),)})
    assert compare(before, after).passed is known
    write_baseline(before, tmp_path / "b.json", gibbon="0")
    assert compare(tmp_path / "b.json", after).passed is known
    # An earlier version stored the text of the figure alone.
    earlier_baselines.rewrite(tmp_path / "b.json", 4)
    assert compare(tmp_path / "b.json", after).passed is known


@pytest.mark.parametrize("old", [{"figure": "0.3"}, {"figure": "3 of 0"}, {"figure": "9 of 300"}])
def test_figures_that_count_no_examples_are_not_compared(old: dict[str, object]) -> None:
    before = side(0.5, {FGSM: (zero(share=None, **old),)})
    assert compare(before, side(0.1, {FGSM: (zero(),)})).passed


def test_a_stored_flag_of_an_earlier_version_holds_its_share_as_text() -> None:
    written = {"kind": "zero-gradient", "sentence": "a", "figure": "1,003 of 3,000"}
    read = Flag.model_validate_json(json.dumps(written))
    assert read.share == FlagShare(count=1003, of=3000)
    assert Flag.model_validate_json(read.model_dump_json()) == read
    assert Flag.model_validate_json(json.dumps({**written, "share": None})).share is None
    examined = ExaminedFlag.model_validate_json(json.dumps(written))
    assert examined.of(dataset="data", model="net").share == read.share


def test_a_worst_case_is_about_the_attacks_that_both_runs_have() -> None:
    more = replace(PGD, attack="square")
    parts = ("fgsm", "pgd", "square")
    flagged = {more: (zero(attack="square"),)}
    comparison = compare(side(), side(0.5, flagged, parts=parts))
    assert comparison.passed
    both = compare(side(parts=parts), side(0.5, flagged, parts=parts))
    assert doubtful(both) == {WORST}


def test_a_baseline_file_keeps_the_kinds_of_each_measure(tmp_path: Path) -> None:
    flagged = {PGD: (zero(9),), TO_OTHER: (zero(9),)}
    write_baseline(side(0.5, flagged), tmp_path / "b.json", gibbon="0")
    lines = (tmp_path / "b.json").read_text().splitlines()
    stored = '"zero-gradient": {"count": 9, "of": 300}'
    assert sum(stored in line for line in lines) == 2  # own and transfer
    assert sum('"flags"' in line for line in lines) == 2
    transfers = f'"transfer_flags": {{"other": {{{stored}}}}}'
    assert transfers in "".join(lines)
    assert '"flags"' not in next(line for line in lines if '"none"' in line)
    read = read_side(tmp_path / "b.json")
    known = {each.key: {flag.kind for _, flag in each.serious()} for each in read.cells}
    expected = {PGD, TO_OTHER, WORST}
    assert {key for key, kinds in known.items() if kinds == {"zero-gradient"}} == expected
    assert compare(read, side(0.1, flagged)).passed
    grown = {PGD: (zero(),)}
    assert doubtful(compare(read, side(0.1, grown))) == {PGD, WORST}
    write_baseline(read, tmp_path / "again.json", gibbon="0")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_baseline_may_be_the_new_side(tmp_path: Path) -> None:
    write_baseline(side(0.1, {PGD: (zero(),)}), tmp_path / "b.json", gibbon="0")
    comparison = compare(side(), tmp_path / "b.json")
    assert doubtful(comparison) == {PGD, WORST}
    assert "the input gradient is zero in every coordinate" in "\n".join(sentences(comparison))


def test_a_kind_that_this_version_does_not_know_is_passed_over(tmp_path: Path) -> None:
    write_baseline(side(0.5, {PGD: (zero(),)}), tmp_path / "b.json", gibbon="0")
    earlier_baselines.rewrite(tmp_path / "b.json", 3)
    later = (tmp_path / "b.json").read_text().replace("zero-gradient", "unheard-of")
    (tmp_path / "b.json").write_text(later)
    assert compare(tmp_path / "b.json", side(0.5)).passed


def test_a_baseline_of_the_earlier_version_has_no_flags_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    write_baseline(side(0.5, {PGD: (zero(),)}), file, gibbon="0")
    earlier_baselines.rewrite(file, 2)
    sound = compare(file, side(0.5))
    assert sound.passed
    (said,) = flag_notes(sound)
    assert "b.json was made by an earlier version of Gibbon, which did not record" in said
    comparison = compare(file, side(0.5, {PGD: (zero(),)}))
    assert doubtful(comparison) == {PGD, WORST}
    assert "every serious flag of the new run counts as new" in comparison_markdown(comparison)
    # Written again by this version, it is still not known which flags there were.
    write_baseline(read_side(file), tmp_path / "again.json", gibbon="0")
    assert read_side(tmp_path / "again.json").without_flags


def test_flags_of_an_earlier_version_have_no_kinds_and_it_is_said() -> None:
    old = replace(side(), flags=(Flag.model_validate("a sentence"),))
    assert "did not record the kinds of flags" in "\n".join(flag_notes(compare(old, side())))


# What is accepted


def limits(**table: object) -> Limits:
    return Limits(limits=(Limit.model_validate({"accept": ["zero-gradient"], **table}),))


@pytest.mark.parametrize(
    ("how", "where"),
    [
        ({"accept": ["zero-gradient"]}, "accept"),
        ({"accept": [Acceptance("zero-gradient", "--accept")]}, "--accept"),
        ({"limits": Limits(accept=("zero-gradient",)), "where": "robust.toml"}, "robust.toml"),
        ({"limits": limits(model="net"), "where": "robust.toml"}, "robust.toml: limits[0]"),
        ({"limits": limits(attack="pgd")}, "limits: limits[0]"),
    ],
)
def test_an_accepted_kind_passes_and_is_printed(how: dict[str, object], where: str) -> None:
    comparison = compare(side(), side(0.1, {PGD: (zero(),)}), **how)  # type: ignore[arg-type]
    assert comparison.passed
    assert verdicts(comparison)[PGD] == "improved"
    assert flag_notes(comparison) == [f"accepted: zero-gradient ({where}): 1 flag"]
    text = comparison_markdown(comparison)
    assert "improved (zero-gradient accepted)" in text
    assert f"- accepted: zero-gradient ({where}): 1 flag" in text


def test_what_the_suite_of_the_new_run_accepts_is_accepted_and_of_the_old_run_not() -> None:
    accepted = (Acceptance("zero-gradient", "suite gate"),)
    flag = zero(accepted=True)
    comparison = compare(side(), side(0.1, {PGD: (flag,)}, accepted=accepted))
    assert comparison.passed
    assert flag_notes(comparison) == ["accepted: zero-gradient (suite gate): 1 flag"]
    old = side(accepted=accepted)
    assert not compare(old, side(0.1, {PGD: (zero(),)})).passed


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"attack": "fgsm"}, {PGD, WORST}),
        ({"model": "other"}, {PGD, WORST}),
        ({"attack": "pgd", "measure": "adversarial_error"}, {WORST}),
        ({"measure": "worst_case_error"}, {PGD}),
        ({"dataset": "data"}, set()),
    ],
)
def test_a_table_of_limits_accepts_only_where_it_covers(
    table: dict[str, object], expected: set[Key]
) -> None:
    comparison = compare(side(), side(0.1, {PGD: (zero(),)}), limits=limits(**table))
    assert doubtful(comparison) == expected


def test_a_flag_of_a_target_is_accepted_under_the_name_of_the_target() -> None:
    flag = Flag(kind="random-answers", dataset="data", model="other", sentence="it is random")
    new = side(0.5, {TO_OTHER: (flag,), OF_OTHER: (flag,)})
    table = Limit(model="other", max_increase=None, accept=("random-answers",))
    assert compare(side(), new, limits=Limits(limits=(table,))).passed
    table = Limit(model="net", max_increase=None, accept=("random-answers",))
    assert doubtful(compare(side(), new, limits=Limits(limits=(table,)))) == {OF_OTHER}


def test_another_kind_is_not_accepted() -> None:
    comparison = compare(side(), side(0.1, {PGD: (zero(),)}), accept=["random-answers"])
    assert doubtful(comparison) == {PGD, WORST}
    assert "accepted: random-answers (accept): not raised" in flag_notes(comparison)


def test_accepting_a_warning_changes_nothing_and_is_said() -> None:
    rising = Flag(kind="not-converged", dataset="data", model="net", sentence="it still rose")
    comparison = compare(side(), side(0.1, {PGD: (rising,)}), accept=["not-converged"])
    assert comparison.passed
    (said,) = flag_notes(comparison)
    assert said == (
        "accepted: not-converged (accept): 1 flag, a warning only: no verdict depends on it"
    )


def test_a_table_with_accept_alone_allows_no_more_increase() -> None:
    allowed = Limits(max_increase=2.0, limits=limits(model="net").limits)
    assert allowed.of(PGD) == 2.0
    both = Limits.model_validate(
        {"limits": [{"max_increase": 5, "attack": "pgd", "accept": ["zero-gradient"]}]}
    )
    assert (both.of(PGD), both.of(FGSM)) == (5.0, 1.0)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            'accept = ["zero-gradent"]',
            r"accept\[0\]: there is no kind of flag 'zero-gradent'; did you mean 'zero-gradient'",
        ),
        ('accept = "zero-gradient"', "accept: must be a list, got 'zero-gradient'"),
        ("accept = 3", "accept: must be a list, got 3"),
        ("accept = [3]", r"accept\[0\]: .*got 3"),
        ("acept = []", "acept: unknown key; did you mean 'accept'"),
        (
            '[[limits]]\nmodel = "m"\naccept = ["random-answer"]',
            r"limits\[0\]\.accept\[0\]: .*'random-answer'; did you mean 'random-answers'",
        ),
        ('[[limits]]\naccept = "zero-gradient"', r"limits\[0\]\.accept: must be a list"),
    ],
)
def test_wrong_acceptances_in_limits_are_named(tmp_path: Path, written: str, message: str) -> None:
    (tmp_path / "robust.toml").write_text(written)
    with pytest.raises(SpecError, match=message) as caught:
        read_limits(tmp_path / "robust.toml")
    assert "robust.toml: " in str(caught.value)


@pytest.mark.parametrize(
    ("accept", "message"),
    [
        (["zero-gradent"], r"accept: accept\[0\]: there is no kind .*did you mean 'zero-gradient'"),
        ("zero-gradient", "accept must be a list of kinds of flags, got 'zero-gradient'"),
    ],
)
def test_wrong_acceptances_in_a_call_are_named(accept: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        public_compare(side(), side(), accept=accept)  # type: ignore[arg-type]


def test_a_table_that_accepts_for_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match=r"limits\[0\]: model: no model 'nett'.*did you mean 'net'"):
        compare(side(), side(), limits=limits(model="nett"))


# What it says


def test_sentences_name_kind_sentence_and_advice_of_a_doubt() -> None:
    comparison = compare(side(name="b.json"), side(0.1, {PGD: (zero(),)}))
    said = sentences(comparison)
    assert len(said) == 2
    assert said[0].startswith("data, net: adversarial error under pgd at epsilon 0.1 went from 50")
    assert said[0].endswith("doubtful: zero-gradient: the gradient is zero for 300 of 300 examples")
    notes = flag_notes(comparison)
    assert notes[0].startswith("serious flag, not in b.json: zero-gradient: data, net, pgd: ")
    assert notes[1] == f"    {zero().advice}"
    assert [line.strip() for line in notes[2:]] == ["[[attacks]]", 'name = "square"']


def test_the_sentence_on_a_transfer_names_its_target_if_that_is_flagged() -> None:
    flag = Flag(kind="random-answers", dataset="data", model="other", sentence="it is random")
    (said,) = sentences(compare(side(), side(0.5, {TO_OTHER: (flag,)})))
    assert said.startswith("data, net: transfer error on other under pgd at epsilon 0.1")
    assert said.endswith("doubtful: random-answers: data, other: it is random")


def test_many_flags_of_a_kind_have_one_advice_and_are_cut() -> None:
    flags = tuple(zero(count) for count in range(1, 9))
    notes = flag_notes(compare(side(), side(0.5, {PGD: flags})))
    assert sum("the gradient is zero for" in line for line in notes) == 5
    assert sum(zero().advice in line for line in notes) == 1
    assert "serious flag, not in run: zero-gradient: and 3 more" in notes


def test_markdown_shows_a_doubt_unfolded_with_its_advice_and_suite_lines() -> None:
    text = comparison_markdown(compare(side(), side(0.5, {PGD: (zero(),)})))
    assert text.startswith("## Robustness gate: failed")
    assert "6 measures: 2 doubtful, 4 unchanged" in text
    assert text.index("doubtful (zero-gradient)") < text.index("<details>")
    section = text.partition("### Flags of the new run")[2]
    assert "serious flag, not in run: zero-gradient: " in section
    assert '    ```toml\n    [[attacks]]\n    name = "square"\n    ```' in section


def test_a_junit_report_fails_with_type_sentence_advice_and_suite_lines(tmp_path: Path) -> None:
    note = Flag(kind="stopped-early", dataset="data", sentence="a bell\x07 rang")
    new = side(0.1, {PGD: (zero(),), CLEAN: (note,)})
    write_junit(compare(side(), new), tmp_path / "j.xml")
    root = ElementTree.parse(tmp_path / "j.xml").getroot()  # noqa: S314
    assert root.get("failures") == "2"
    failures = list(root.iter("failure"))
    assert {each.get("type") for each in failures} == {"doubtful"}
    text = failures[0].text or ""
    assert "the gradient is zero for 300 of 300 examples" in text
    assert zero().advice in text
    assert 'name = "square"' in text
    properties = {each.get("name"): each.get("value") for each in root.iter("property")}
    assert properties["flag[0]"].startswith("serious: zero-gradient: data, net, pgd: ")
    assert properties["flag[1]"] == "note: stopped-early: data: a bell rang"
    (suite,) = root
    (output,) = suite.findall("system-out")
    assert "serious flag, not in run: zero-gradient" in (output.text or "")
    assert "note: stopped-early: data: a bell rang" in (output.text or "")


def test_a_junit_report_shows_what_is_known_and_accepted_too(tmp_path: Path) -> None:
    flagged = {PGD: (zero(),)}
    write_junit(compare(side(0.5, flagged), side(0.5, flagged)), tmp_path / "j.xml")
    write_junit(compare(side(), side(0.5, flagged), accept=["zero-gradient"]), tmp_path / "k.xml")
    for name, word in (("j.xml", "serious flag, in both runs: "), ("k.xml", "accepted: ")):
        root = ElementTree.parse(tmp_path / name).getroot()  # noqa: S314
        assert root.get("failures") == "0"
        outputs = [each.text or "" for each in root.iter("system-out")]
        assert any(f"{word}zero-gradient: data, net, pgd" in each for each in outputs)


# Runs, baselines and commands


class Plain(nn.Module):
    """Scores a class by the mean of its row of pixels."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.zeros(planted.CLASSES, planted.COORDINATES)
        for row in range(planted.CLASSES):
            weight[row, 4 * row : 4 * row + 4] = 4.0
        self.weight = nn.Parameter(weight)

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs.flatten(1), self.weight)


class Masked(Plain):
    """Answers as `Plain`, with a gradient of zero."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).detach() + super().forward(0.0 * inputs)


SUITE = """
name = "gate"
dataset = "squares"
models = ["one", "two"]
[[attacks]]
name = "fgsm"
epsilon = "0.2"
[[attacks]]
name = "pgd"
epsilon = "0.2"
steps = 5
[transfer]
attacks = ["pgd"]
"""

Runs = Callable[..., Path]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    """Runs two models, of which the second may be masked; returns the folder."""
    plant = planted.Plant(monkeypatch)
    plant.dataset("squares", lambda request: planted.squares(examples=120))
    plant.model("one", lambda: planted.classifier(Plain()))

    def run(name: str, kind: type[Plain] = Plain, *, text: str = SUITE) -> Path:
        plant.model("two", lambda: planted.classifier(kind()))
        run_suite(parse_suite(text, where=name), tmp_path / name, settings=RunSettings())
        return tmp_path / name

    return run


def command(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(each) for each in words])


def test_a_masked_model_is_no_improvement(runs: Runs, tmp_path: Path) -> None:
    old, new, same = runs("old"), runs("new", Masked), runs("same")
    baseline, junit = tmp_path / "robust.json", tmp_path / "j.xml"
    assert command("baseline", "save", old, baseline).exit_code == 0
    assert command("compare", baseline, same).exit_code == 0
    said = command("compare", baseline, new, "--junit", junit)
    assert said.exit_code == 1
    found = verdicts(compare(baseline, new))
    two = {key: verdict for key, verdict in found.items() if key.model == "two"}
    attacked = {key: verdict for key, verdict in two.items() if key.measure != "clean_error"}
    assert set(attacked.values()) == {"doubtful"}
    assert {key.measure for key in attacked} == {
        "adversarial_error",
        "worst_case_error",
        "transfer_error",
    }
    assert "doubtful" in said.stdout
    assert "serious flag, not in " in said.stderr
    failures = ElementTree.parse(junit).iter("failure")  # noqa: S314
    assert {each.get("type") for each in failures} == {"doubtful"}


def test_a_run_with_the_same_flag_as_the_baseline_passes_and_prints_it(
    runs: Runs, tmp_path: Path
) -> None:
    old, new = runs("old", Masked), runs("new", Masked)
    assert command("compare", old, new).exit_code == 0
    kinds = {each.kind for each in RunRecord.read(old).flags if each.severity == "serious"}
    accepts = [word for kind in sorted(kinds) for word in ("--accept", kind)]
    saved = command("baseline", "save", old, tmp_path / "robust.json", *accepts)
    assert saved.exit_code == 0, saved.stderr
    said = command("compare", tmp_path / "robust.json", new)
    assert said.exit_code == 0, said.stderr
    assert "robust.json too: zero-gradient: squares, two, " in said.stderr
    assert "Attack the outputs before the part that loses the gradient" in said.stderr


def test_no_baseline_is_made_of_a_flagged_run(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = runs("run", Masked), tmp_path / "robust.json"
    with pytest.raises(FlagError, match=r"take responsibility: .*--accept zero-gradient") as raised:
        save_baseline(run, file)
    assert {"zero-gradient"} <= {flag.kind for flag in raised.value.flags}
    monkeypatch.setattr(sys, "argv", ["gibbon", "baseline", "save", str(run), str(file)])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 1
    said = capsys.readouterr().err
    assert "no baseline is made of a run with serious flags" in said
    assert "serious flag: zero-gradient: squares, two, " in said
    assert "Attack the outputs before" in said
    assert not file.exists()


def test_limits_next_to_the_baseline_accept_for_save_and_compare(
    runs: Runs, tmp_path: Path
) -> None:
    old, new, file = runs("old"), runs("new", Masked), tmp_path / "robust.json"
    save_baseline(old, file)
    kinds = {each.kind for each in RunRecord.read(new).flags if each.severity == "serious"}
    table = f'[[limits]]\nmodel = "two"\naccept = {json.dumps(sorted(kinds))}\n'
    (tmp_path / "robust.toml").write_text(table)
    said = command("compare", file, new)
    assert said.exit_code == 0, said.stderr
    assert f"accepted: zero-gradient ({tmp_path / 'robust.toml'}: limits[0])" in said.stderr
    assert command("baseline", "save", new, file).exit_code == 0
    (tmp_path / "robust.toml").write_text(table.replace('"two"', '"one"'))
    assert command("compare", file, new).exit_code == 0  # the baseline has the flags now
    with pytest.raises(FlagError):
        save_baseline(new, file, limits=read_limits(tmp_path / "robust.toml"))


def test_what_the_suite_accepts_is_accepted_by_save_and_compare(runs: Runs, tmp_path: Path) -> None:
    old, flagged = runs("old"), runs("flagged", Masked)
    kinds = sorted({each.kind for each in RunRecord.read(flagged).flags})
    accepting = f"accept = {json.dumps(kinds)}\n{SUITE}"
    new = runs("new", Masked, text=accepting)
    said = command("compare", old, new)
    assert said.exit_code == 0, said.stderr
    assert "accepted: zero-gradient (suite gate): " in said.stderr
    assert command("baseline", "save", new, tmp_path / "robust.json").exit_code == 0


@pytest.mark.parametrize("words", [("compare", "a", "b"), ("baseline", "save", "a", "b")])
def test_an_unknown_kind_on_the_command_line_is_refused(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gibbon", *words, "--accept", "zero-gradent"])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "--accept: there is no kind of flag 'zero-gradent'; did you mean 'zero-gradient'?" in said
    )


def test_comparing_flagged_runs_imports_no_torch(runs: Runs) -> None:
    old, new = runs("old"), runs("new", Masked)
    script = f"""
import sys
from gibbon.cli.app import main
sys.argv = ["gibbon", "compare", {str(old)!r}, {str(new)!r}]
try:
    main()
except SystemExit as leaving:
    assert leaving.code == 1
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "doubtful" in done.stdout
