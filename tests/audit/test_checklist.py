"""The published lists, answered from records of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gibbon import evaluate
from gibbon.attacks.factory import build_attack
from gibbon.audit.attack_failures import PINTOR
from gibbon.audit.autoattack_checks import AUTOATTACK
from gibbon.audit.carlini import CARLINI
from gibbon.audit.checklist import Audit, ItemAnswer
from gibbon.audit.facts import (
    AUTOGRAD,
    CALLS,
    GRADIENT,
    ORDER,
    OUTPUTS,
    PAIRED,
    PATHS,
    TWICE,
    facts_of,
)
from gibbon.audit.suggest import suggested_suite
from gibbon.cli.suite_writer import suite_toml
from gibbon.core.errors import MissingLibraryError
from gibbon.core.threat import Norm
from gibbon.records.checks import CheckDone
from gibbon.records.flag_kinds import KINDS
from gibbon.records.flags import Flag
from gibbon.records.run import Evaluation, RunRecord
from gibbon.specs.decoding import parse_suite
from gibbon.specs.suite import Suite
from tests.made_up import NOWHERE

RECORDS = sorted(path.parent for path in Path("results").glob("*/run.json"))
LISTS = (CARLINI, AUTOATTACK, PINTOR)
CHECKS = (PATHS, ORDER, PAIRED, GRADIENT, TWICE, OUTPUTS, AUTOGRAD, CALLS)


def row(attack: str, epsilon: str, **columns: Any) -> Evaluation:
    given = {
        "dataset": "data",
        "model": "net",
        "attack": attack,
        "epsilon": epsilon,
        "examples": 100,
        "clean_error": 0.1,
        "adversarial_error": 0.5,
        "norm": Norm.LINF,
        "clip": True,
        "forward_passes": 200,
        "backward_passes": 0 if attack in ("square", "noise-sign") else 4000,
        **columns,
    }
    return Evaluation.model_validate(given)


def record(*attacks: dict[str, Any], flags: tuple[Flag, ...] = (), **suite: Any) -> RunRecord:
    made = Suite.model_validate(
        {"name": "made-up", "dataset": "data", "models": ["net"], "attacks": attacks, **suite}
    )
    (experiment,) = made.experiments
    rows = [
        row(each.label, str(epsilon), algorithm=each.name, norm=each.norm or Norm.LINF)
        for each in experiment.attacks
        for epsilon in each.epsilon
    ]
    unattacked = row("none", "0", norm=None, adversarial_error=None)
    return RunRecord(
        suite=made,
        status="done",
        provenance=NOWHERE,
        evaluations=(unattacked, *rows),
        flags=flags,
        checks=tuple(CheckDone(name=each, looked_at="the run", passed=True) for each in CHECKS),
    )


def answers(of: RunRecord, name: str) -> dict[str, ItemAnswer]:
    audit = Audit.of(LISTS, facts_of(of))
    return {item.name: answer for _, item, answer in audit.answers[name]}


PGD = {"name": "pgd", "epsilon": ["0.1"]}
SQUARE = {"name": "square", "epsilon": ["0.1"]}


@pytest.mark.parametrize("folder", RECORDS, ids=lambda path: path.name)
def test_every_record_gets_an_answer_to_every_item(folder: Path) -> None:
    read = RunRecord.read(folder)
    audit = Audit.of(LISTS, facts_of(read))
    attacked = [each for each in read.suite.experiments if not each.no_class]
    for checklist in LISTS:
        found = audit.answers[checklist.name]
        assert len(found) == len(checklist.items) * len(attacked)
        assert all(answer.evidence for _, _, answer in found)
    assert len(list(audit.tables())) == len(LISTS) * len(attacked)


@pytest.mark.parametrize("folder", RECORDS, ids=lambda path: path.name)
def test_what_is_suggested_is_a_suite_with_more_attacks(folder: Path) -> None:
    read = RunRecord.read(folder)
    better = suggested_suite(read, Audit.of(LISTS, facts_of(read)))
    text = suite_toml(better, folder=Path("results"))
    again = parse_suite(text, where="better.toml", folder=Path("results"))
    for before, after in zip(read.suite.experiments, again.experiments, strict=True):
        labels = [each.label for each in after.attacks]
        assert labels[: len(before.attacks)] == [each.label for each in before.attacks]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_what_is_suggested_can_be_built(norm: str) -> None:
    read = record({"name": "pgd", "epsilon": ["0.1"], "steps": 5, "norm": norm})
    better = suggested_suite(read, Audit.of(LISTS, facts_of(read)))
    for each in better.experiments[0].attacks:
        try:
            build_attack(each)
        except MissingLibraryError:
            assert each.optional


def test_gaps_come_with_the_attacks_that_close_them() -> None:
    found = answers(record(PGD), "carlini")
    assert found["gradient-free"].state == "not done"
    assert [each["name"] for each in found["gradient-free"].attacks] == ["square"]
    assert answers(record(PGD, SQUARE), "carlini")["gradient-free"].state == "done"


def test_a_gap_that_was_closed_is_not_suggested_again() -> None:
    first = record(PGD)
    audit = Audit.of(LISTS, facts_of(first))
    better = suggested_suite(first, audit)
    closed = record(*[each.model_dump() for each in better.experiments[0].attacks])
    again = Audit.of(LISTS, facts_of(closed))
    before = {item.name for _, item, answer in audit.gaps if answer.attacks}
    after = {item.name for _, item, answer in again.gaps if answer.attacks}
    assert before >= {"gradient-free", "unbounded", "budget", "noise", "aims", "square"}
    # The made-up rows have no counts of gradients and no worst cases; the curve's end is made up.
    assert after <= {"curve", "zero-gradients", "worst-case"}


@pytest.mark.parametrize(
    ("kind", "name", "item"),
    [
        ("black-box-stronger", "carlini", "gradient-free"),
        ("black-box-stronger", "autoattack", "square"),
        ("random-answers", "autoattack", "randomized"),
        ("outputs-are-probabilities", "autoattack", "range"),
        ("zero-gradient", "pintor", "unavailable-gradients"),
        ("success-lost", "pintor", "silent-success"),
        ("not-converged", "pintor", "incomplete-optimization"),
        ("not-converged", "carlini", "converged"),
    ],
)
def test_a_flag_makes_its_items_fail(kind: str, name: str, item: str) -> None:
    flag = Flag(kind=kind, dataset="data", model="net", sentence="something was seen")
    counted = {"zero_gradient_share": 0.5}
    base = record(PGD, SQUARE, {"name": "fgsm", "epsilon": ["0.1"]})
    rows = tuple(each.model_copy(update=counted) for each in base.evaluations)
    clean = base.model_copy(update={"evaluations": rows})
    assert answers(clean, name)[item].state == "done"
    failing = answers(clean.model_copy(update={"flags": (flag,)}), name)[item]
    assert failing.state == "fails"
    assert "something was seen" in failing.evidence


def test_a_random_model_needs_draws() -> None:
    flag = Flag(kind="random-answers", dataset="data", model="net", sentence="it is random")
    found = answers(record(PGD, flags=(flag,)), "carlini")
    assert found["randomness"].state == "not done"
    assert found["randomness"].attacks[0]["eot"] == 20
    assert answers(record(PGD), "carlini")["randomness"].state == "not applicable"


def test_an_unexamined_model_is_no_evidence() -> None:
    flag = Flag(kind="not-examined", dataset="data", sentence="the model was not examined")
    found = answers(record(PGD, flags=(flag,)), "autoattack")
    assert found["range"].state == found["dynamic"].state == "not done"


def test_an_absent_flag_is_no_evidence_if_nobody_looked() -> None:
    unchecked = record(PGD, SQUARE).model_copy(update={"checks": ()})
    for name, items in {
        "carlini": ("adaptive", "backward", "randomness", "converged", "gradient-free"),
        "autoattack": ("randomized", "range", "square", "dynamic"),
        "pintor": ("unavailable-gradients", "unstable-predictions", "silent-success"),
    }.items():
        found = answers(unchecked, name)
        assert {found[item].state for item in items} == {"not done"}, name


def test_the_names_of_checks_are_those_of_a_run() -> None:
    inputs, labels = torch.rand(64, 1, 4, 4), torch.arange(64) % 3
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    found = evaluate(net, (inputs, labels), attack=["pgd", "fgsm"], epsilon=0.1)
    assert {each.name for each in found.record.checks} >= set(CHECKS)


# Kinds that need what this record does not have, and those about the record itself.
ELSEWHERE = {"transfer-stronger", "proved-example-attacked", "changed-predictions"}
ABOUT_THE_RECORD = {"earlier-version", "examples-left-out", "not-examined"}


@pytest.mark.parametrize(
    "kind",
    sorted(
        each.name
        for each in KINDS.values()
        if each.severity != "note" and each.name not in ELSEWHERE | ABOUT_THE_RECORD
    ),
)
def test_every_flag_that_puts_a_number_in_doubt_shows_in_a_list(kind: str) -> None:
    attacks = (
        {"name": "fgsm", "epsilon": ["0.1"]},
        {"name": "pgd", "epsilon": ["0.1", "0.2", "1"]},
        SQUARE,
        {"name": "noise-sign", "epsilon": ["0.1"]},
    )
    flag = Flag(kind=kind, dataset="data", model="net", attack="pgd", sentence="made up here")
    plain, flagged = record(*attacks), record(*attacks, flags=(flag,))
    changed = {
        item: answer
        for each in LISTS
        for item, answer in answers(flagged, each.name).items()
        if answer.state in ("fails", "not done") and answer != answers(plain, each.name)[item]
    }
    assert any("made up here" in answer.evidence for answer in changed.values()), changed
