"""Our attacks give the candidates that are stored of them, or have another version."""

from __future__ import annotations

import copy

import golden_probe as golden
import pytest
import torch

from gibbon.attacks.mi_fgsm import MIFGSM

NAMES = golden.names()


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_gives_its_stored_candidates(name: str) -> None:
    problems = golden.differences(name, golden.stored(name), golden.candidates(name))
    assert not problems, "\n".join(problems)


def test_nothing_is_stored_of_attacks_that_are_not_registered() -> None:
    assert {each.stem for each in golden.FOLDER.iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_rounding_decides_nothing_on_the_probe(name: str) -> None:
    """With every weight moved by more than rounding does, candidates are those stored."""
    made = golden.probe(name)
    with torch.no_grad():
        for place, parameter in enumerate(made.classifier.module.parameters()):
            parameter.mul_(1 + 1e-9 * golden.waves(parameter.shape, seed=place + 20))
    problems = golden.differences(name, golden.stored(name), golden.candidates(name, made))
    assert not problems, "\n".join(problems)


def test_what_must_be_done_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    now = golden.candidates("mi-fgsm")
    (nothing, *_) = golden.differences("mi-fgsm", {}, now)
    assert nothing.endswith("store its candidates: python tests/attacks/golden_probe.py mi-fgsm")
    changed = copy.deepcopy(now)
    for each in changed.values():
        each["candidates"][0][0][0] += 1e-4
    assert all("raise the `version`" in each for each in golden.differences("x", changed, now))
    monkeypatch.setattr(MIFGSM, "version", 2)
    raised = golden.differences("mi-fgsm", now, golden.candidates("mi-fgsm"))
    assert all("another version" in each for each in raised)
    assert len(raised) == len(now)


def test_other_candidates_under_the_same_version_are_not_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = golden.stored("fgsm")
    for each in changed.values():
        each["candidates"][0][0][0] += 1e-4
    monkeypatch.setattr(golden, "stored", lambda name: changed)
    with pytest.raises(SystemExit, match="raise the `version`"):
        golden.store("fgsm")
