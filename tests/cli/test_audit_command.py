"""The command `audit`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gibbon.attacks.base import Attack
from gibbon.attacks.fgsm import FGSM
from gibbon.audit.checklist import Audit
from gibbon.audit.facts import facts_of
from gibbon.audit.suggest import suggested_suite
from gibbon.cli.app import app
from gibbon.core.errors import RequestError
from gibbon.records.run import RunRecord
from gibbon.specs.decoding import read_suite
from gibbon.specs.suite import ModelSpec
from gibbon.specs.vouches import vouches

RUN = "results/mnist-linf"
MODEL = ["audit", "softmax", "--unit-test", "--dataset", "mnist", "--limit", "2"]


def audit(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*words], env={"COLUMNS": "160"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_a_run_is_audited_and_the_gaps_come_with_suite_lines() -> None:
    _, output = audit("audit", RUN)
    for title in ("Carlini et al. (2019)", "AutoAttack", "indicators of attack failure"):
        assert title in output
    assert '[[attacks]]\nname = "square"' in output
    assert "not done" in output


def test_the_suggested_suite_is_the_run_with_more_attacks(tmp_path: Path) -> None:
    file = tmp_path / "better.toml"
    audit("audit", RUN, "--suggest", str(file))
    better, run = read_suite(str(file)), RunRecord.read(Path(RUN))
    assert better.name == run.suite.name
    first, before = better.experiments[0], run.suite.experiments[0]
    assert {each.label for each in before.attacks} < {each.label for each in first.attacks}
    assert "square" in {each.name for each in first.attacks}


@pytest.mark.parametrize("key", ["trust_code", "trust_pickle"])
def test_a_suggested_suite_vouches_for_no_file(tmp_path: Path, key: str) -> None:
    run = RunRecord.read(Path(RUN))
    first = run.suite.experiments[0]
    trusted = first.models[0].model_copy(update={key: True})
    around = ModelSpec(name="both", model="ensemble:a,b", ensemble=(trusted, first.models[1]))
    models = (trusted, around, *first.models[1:])
    suite = run.suite.model_copy(
        update={"experiments": (first.model_copy(update={"models": models}),)}
    )
    record, audited = run.model_copy(update={"suite": suite}), Audit.of((), facts_of(run))
    assert vouches(record.suite) == (trusted.name, "both")
    suggested = suggested_suite(record, audited)
    assert not vouches(suggested)
    assert [each.name for each in suggested.experiments[0].models] == [each.name for each in models]


def test_an_attack_that_raises_in_a_unit_test_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def direction(self: Attack, *_: object, **__: object) -> None:
        raise KeyError("no table")

    monkeypatch.setattr(FGSM, "direction", direction)
    words = [*MODEL, "--attack", "fgsm", "--epsilon", "0.1"]
    with pytest.raises(RequestError, match=r"unit test of fgsm at epsilon 0\.1 .*KeyError.*line"):
        audit(*words)
    monkeypatch.undo()

    def audited(*_: object, **__: object) -> None:
        raise KeyError("no table")

    monkeypatch.setattr("gibbon.audit.planted.audit_attack", audited)
    with pytest.raises(RequestError, match="raised by Gibbon itself"):
        audit(*words)


def test_a_sound_attack_passes_and_a_blind_one_fails() -> None:
    code, output = audit(*MODEL, "--attack", "pgd", "--epsilon", "0.1", "--steps", "20")
    assert code == 0
    assert "passes" in output
    code, output = audit(*MODEL, "--attack", "noise-uniform", "--epsilon", "0.1")
    assert code == 1
    assert "would have missed 2 of 2" in output


def test_the_attacks_of_a_suite_are_tested_on_one_of_its_models() -> None:
    code, output = audit("audit", "softmax", "--unit-test", "--suite", "smoke", "--limit", "1")
    assert "softmax on mnist" in output
    assert code in (0, 1)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["audit", RUN, "--attack", "pgd"], "goes with --unit-test"),
        ([*MODEL, "--suggest", "x.toml"], "--suggest is for a run"),
        ([*MODEL, "--attack", "pgd", "--epsilon", "0"], "no attack has an epsilon above 0"),
        (["audit", "softmax", "--unit-test"], "missing: --dataset, --attack"),
        (["audit", "softmax", "--unit-test", "--suite", "smoke", "--limt", "1"], "--limit"),
        (["audit", "results/nowhere"], "results/nowhere"),
    ],
)
def test_wrong_requests_are_named(words: list[str], problem: str) -> None:
    with pytest.raises(RequestError, match=re.escape(problem)):
        audit(*words)
