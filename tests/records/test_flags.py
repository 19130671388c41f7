"""Flags as records: complete by their kind, in the rows that they affect, and there alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import HIGH, LOW, made_up_record
from pydantic import ValidationError

from gibbon.core.threat import Epsilon, Norm
from gibbon.records.checks import check_done
from gibbon.records.flag_kinds import KINDS, SEVERITIES
from gibbon.records.flags import Flag, FlagIndex, kinds_text, sorted_flags, with_accepted
from gibbon.records.run import (
    Agreement,
    Evaluation,
    MemberEvaluation,
    RunRecord,
    Transfer,
    WorstCase,
    flags_of,
)

NAMES = st.sampled_from(["", "a", "b"])
EPSILONS = st.sampled_from([None, LOW, HIGH, Epsilon.parse("0.250")])


@st.composite
def some_flags(draw: st.DrawFn) -> Flag:
    return Flag(
        kind=draw(st.sampled_from(sorted(KINDS))),
        dataset=draw(NAMES),
        model=draw(NAMES),
        attack=draw(NAMES),
        epsilon=draw(EPSILONS),
        sentence=draw(st.text(min_size=1, max_size=3)),
    )


def flag(**parts: Any) -> Flag:
    return Flag(**{"kind": "zero-gradient", "sentence": "it is zero", **parts})


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_flag_is_completed_by_its_kind(kind: str) -> None:
    made = Flag(kind=kind, sentence="seen")
    assert (made.severity, made.advice) == (KINDS[kind].severity, KINDS[kind].advice)
    assert made.source == KINDS[kind].source
    assert Flag(kind=kind, sentence="seen", severity="note", advice="b").advice == "b"
    assert Flag(kind=kind, sentence="seen", severity="note").severity == "note"
    assert Flag.model_validate_json(made.model_dump_json()) == made


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValidationError, match="did you mean 'zero-gradient'"):
        Flag(kind="zero-gradint", severity="serious", sentence="it is zero")


def test_a_sentence_of_an_earlier_version_is_kept_as_a_warning() -> None:
    old = RunRecord.model_validate(
        {**made_up_record().model_dump(mode="json"), "flags": ["mnist, rbf: something"]}
    )
    (found,) = old.flags
    assert (found.kind, found.severity) == ("earlier-version", "warning")
    assert str(found) == "mnist, rbf: something"


@pytest.mark.parametrize(
    ("parts", "subject"),
    [
        ({}, ""),
        ({"dataset": "d", "model": "m"}, "d, m"),
        (
            {"dataset": "d", "model": "m", "attack": "a", "epsilon": "8/255"},
            "d, m, a at epsilon 8/255",
        ),
        ({"epsilon": "0.1"}, "at epsilon 0.1"),
    ],
)
def test_the_subject_says_what_a_flag_is_about(parts: dict[str, str], subject: str) -> None:
    assert flag(**parts).subject == subject


def test_the_serious_come_first_and_each_once() -> None:
    note, warning = flag(kind="target-only"), flag(kind="wide-budget")
    found = sorted_flags([note, warning, flag(), flag(model="a"), flag()])
    assert found == (flag(), flag(model="a"), warning, note)
    assert [each.severity for each in found] == sorted(
        (each.severity for each in found), key=SEVERITIES.index
    )
    assert kinds_text(found) == "zero-gradient;wide-budget;target-only"


def test_accepted_kinds_count_no_longer() -> None:
    first, second = with_accepted([flag(), flag(kind="inputs-unchanged")], ["zero-gradient"])
    assert (first.counts, second.counts) == (False, True)
    assert not flag(kind="wide-budget").counts


@given(st.lists(some_flags(), max_size=12), NAMES, NAMES, NAMES, EPSILONS)
def test_the_index_finds_what_each_flag_says_of_itself(
    flags: list[Flag], dataset: str, model: str, attack: str, epsilon: Epsilon | None
) -> None:
    index = FlagIndex(flags)
    found = sorted(index.places(dataset, model, attack, epsilon))
    about = {"dataset": dataset, "model": model, "attack": attack, "epsilon": epsilon}
    assert found == [place for place, each in enumerate(flags) if each.is_about(**about)]


WHERE = {"dataset": "mnist", "epsilon": HIGH}
EVALUATION = Evaluation(model="a", attack="fgsm", examples=1, **WHERE)
MEMBER = MemberEvaluation(model="a", attack="fgsm", member="m", examples=1, **WHERE)
TRANSFER = Transfer(source="a", target="b", attack="fgsm", examples=1, **WHERE)
AGREEMENT = Agreement(source="a", first="b", second="c", attack="fgsm", examples=1, **WHERE)
WORST = WorstCase(
    model="a", norm=Norm.LINF, clip=True, attacks=("fgsm", "pgd"), examples=1, misclassified=0,
    worst_case_error=0.0, worst_case_error_low=0.0, worst_case_error_high=0.1, **WHERE,
)  # fmt: skip
ROWS = {"e": EVALUATION, "m": MEMBER, "t": TRANSFER, "a": AGREEMENT, "w": WORST}


@pytest.mark.parametrize(
    ("parts", "affected"),
    [
        ({}, "emtaw"),
        ({"dataset": "mnist"}, "emtaw"),
        ({"dataset": "cifar10"}, ""),
        ({"model": "a"}, "emtaw"),
        ({"model": "b"}, "ta"),  # scored on it: its answers are in the row
        ({"model": "c"}, "a"),
        ({"model": "b", "attack": "fgsm"}, ""),  # about the examples that are made on it
        ({"model": "a", "attack": "fgsm"}, "emtaw"),
        ({"model": "a", "attack": "pgd"}, "w"),
        ({"attack": "fgsm", "epsilon": "0.25"}, "emtaw"),
        ({"attack": "fgsm", "epsilon": "0.1"}, ""),
        ({"model": "a", "attack": "fgsm", "epsilon": "1/4", "dataset": "mnist"}, "emtaw"),
    ],
)
def test_a_flag_affects_the_rows_of_its_subject(parts: dict[str, str], affected: str) -> None:
    found = {name for name, row in ROWS.items() if flags_of(row, [flag(**parts)])}
    assert found == set(affected)


def test_every_row_of_a_record_names_the_kinds_that_affect_it() -> None:
    whole = made_up_record().model_copy(update={"members": (MEMBER,)})
    about = flag(dataset="mnist", attack="fgsm", epsilon=HIGH)
    record = whole.with_flags([about, flag(kind="target-only", model="maxout")])
    assert record.flags == (about, flag(kind="target-only", model="maxout"))
    rows = (
        *record.evaluations,
        *record.transfers,
        *record.agreements,
        *record.worst_cases,
        *record.members,
    )
    assert len({type(each) for each in rows}) == 5
    for each in rows:
        assert each.flags == kinds_text(flags_of(each, record.flags))
    assert {each.flags for each in record.worst_cases} == {
        *("zero-gradient", "", "zero-gradient;target-only"),
    }


def test_the_kinds_that_the_suite_accepts_are_marked() -> None:
    record = made_up_record()
    suite = record.suite.model_copy(update={"accept": ("zero-gradient",)})
    marked = record.model_copy(update={"suite": suite}).with_flags(
        [flag(), flag(kind="wide-budget")]
    )
    assert [each.accepted for each in marked.flags] == [True, False]
    assert marked.evaluations[0].flags == "zero-gradient;wide-budget"


def test_a_check_passes_if_it_raised_no_more_than_notes() -> None:
    assert check_done("a", "b", []).passed
    assert check_done("a", "b", [flag(kind="target-only")]).passed
    assert not check_done("a", "b", [flag(kind="wide-budget")]).passed
    assert not check_done("a", "b", [flag(accepted=True)]).passed
