"""Calls that wait leave the evidence of calls that are evaluated one by one."""

from dataclasses import fields

import nets
import pytest
import torch
from test_trajectory import run

from gibbon.attacks.apgd import APGDCE, APGDT
from gibbon.attacks.bim import BIM
from gibbon.attacks.pgd import PGD
from gibbon.attacks.square import Square
from gibbon.models.pending_calls import PendingCalls
from gibbon.models.trajectory import _Examples

BATCH = nets.random_batch(24)
ATTACKS = {
    "pgd": PGD(steps=9, restarts=2),
    "pgd, many steps": PGD(steps=150, step_size=0.01),
    "best loss": PGD(steps=5, keep="best-loss"),
    "early stop": PGD(steps=9, restarts=2, keep="first-success"),
    "bim": BIM(steps=4),
    "apgd": APGDCE(steps=12),
    "apgd, early stop": APGDCE(steps=12, restarts=2, keep="first-success"),
    "targets in one batch": APGDT(steps=5, n_target_classes=2, keep="first-success"),
    "no gradients": Square(queries=20),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
def test_evidence_does_not_depend_on_where_the_numbers_are(mlp, monkeypatch, attack):
    _, here = run(attack, mlp, BATCH, room=48)
    monkeypatch.setattr("gibbon.models.trajectory.HOST", ())
    _, there = run(attack, mlp, BATCH, room=48)
    for each in fields(here):
        one, other = getattr(here, each.name), getattr(there, each.name)
        torch.testing.assert_close(one, other, equal_nan=True, msg=each.name)
    assert bool((here.success_at >= 0).any())


def test_a_call_that_waits_keeps_outputs_that_are_changed_later(mlp, monkeypatch):
    monkeypatch.setattr("gibbon.models.trajectory.HOST", ())
    best = []
    for change in (False, True):
        original = BATCH.inputs.clone()  # an attack that is not trusted
        with mlp.evaluating(), mlp.watching(BATCH.inputs, original=original) as watch:
            watch.begin(BATCH.labels, nets.threat("0.1"), bounds=mlp.bounds, reach=0.1)
            outputs = mlp(BATCH.inputs)
            if change:
                outputs.zero_()
            best.append(watch.path.evidence.best_margin)
    assert torch.equal(*best)


def test_marks_that_are_no_progression_are_filled_one_by_one():
    pending = PendingCalls[int]()
    for call, lead in enumerate((0.0, 3.0, 1.0, 5.0)):
        pending.mark(call * call)
        outputs = torch.tensor([[0.0, lead]])
        pending.add(call, outputs, clock=2 * call, away=torch.zeros(1), extremes=None)
    found = pending.evaluate(torch.tensor([0]), best=torch.tensor([torch.nan]))
    snapshots = torch.full((10, 1), -1.0)
    found.fill(snapshots)
    assert snapshots[[1, 4, 9]].flatten().tolist() == [0.0, 3.0, 3.0]
    assert snapshots[0].isnan()
    met = torch.tensor([[False], [False], [True], [True]])
    assert found.first(met, before=torch.tensor([-1])).tolist() == [4]
    assert found.first(met, before=torch.tensor([2])).tolist() == [2]


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
def test_a_first_run_on_all_examples_leaves_the_evidence_of_any_run(mlp, monkeypatch, attack):
    _, here = run(attack, mlp, BATCH, room=48)
    monkeypatch.setattr(_Examples, "set_first", _Examples.add)
    _, there = run(attack, mlp, BATCH, room=48)
    for each in fields(here):
        one, other = getattr(here, each.name), getattr(there, each.name)
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True, msg=each.name)
