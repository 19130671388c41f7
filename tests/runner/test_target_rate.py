"""Targeted attacks: the share that reached the target, and a fixed class as target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gibbon import evaluate
from gibbon.core.errors import RequestError
from gibbon.metrics.intervals import wilson_interval
from gibbon.records.outcomes import read_outcome
from gibbon.records.run import RunRecord
from gibbon.report.text.markdown import tables_markdown

CLASSES, COUNT = 5, 40
QUICK: dict[str, Any] = {"examination": False, "certify": "none"}
TARGETED = {
    "bim": {"steps": 5},
    "mi-fgsm": {"steps": 5},
    "square": {"queries": 30},
    "cw": {"steps": 5, "searches": 2},
    "ddn": {"steps": 5},
    "fmn": {"steps": 5},
    "lbfgs": {"iterations": 5, "searches": 3},
}


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(COUNT) % CLASSES
    inputs = 0.5 * torch.rand(COUNT, 1, 4, 4, generator=generator)
    inputs[torch.arange(COUNT), 0, 0, labels % 4] += 0.3
    return inputs, labels


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, CLASSES))


def row(results: Any) -> Any:
    return results.record.evaluations[-1]


@pytest.mark.parametrize("rule", ["least-likely", "second", 2])
def test_the_share_that_reached_the_target_is_that_of_the_recorded_predictions(rule: Any) -> None:
    inputs, labels = data()
    net = network()
    attack = {"name": "bim", "target": rule, "steps": 8, "step_size": 0.2}
    results = evaluate(net, (inputs, labels), attack=attack, epsilon=0.9, **QUICK)
    outputs = net(inputs).detach()
    own = outputs.clone()
    own[torch.arange(COUNT), labels] = {"least-likely": torch.inf}.get(rule, -torch.inf)
    targets = own.argmin(1) if rule == "least-likely" else own.argmax(1)
    aimed = torch.ones(COUNT, dtype=torch.bool)
    if rule == 2:
        targets, aimed = torch.full((COUNT,), 2), labels != 2
    predicted = torch.as_tensor(np.asarray(results.examples.predicted))
    reached = int(((predicted == targets) & aimed).sum())
    found = row(results)
    assert found.targeted == int(aimed.sum())
    assert found.target_rate == reached / found.targeted
    interval = wilson_interval(reached, found.targeted)
    assert (found.target_rate_low, found.target_rate_high) == (interval.low, interval.high)
    assert found.target_rate > 0 or rule == "least-likely"
    assert found.target_rate <= found.misclassified / found.targeted


@pytest.mark.parametrize("attack", TARGETED)
def test_every_targeted_attack_reports_its_targets(attack: str) -> None:
    for target in ("random", 1):
        more = {**TARGETED[attack], "target": target}
        found = row(evaluate(network(), data(), attack=attack, epsilon=0.3, **more, **QUICK))
        assert found.targeted == (COUNT if target == "random" else COUNT - COUNT // CLASSES)
        assert found.target_rate is not None


def test_untargeted_attacks_have_no_share() -> None:
    results = evaluate(network(), data(), attack=["fgsm", "bim"], epsilon=0.1, **QUICK)
    assert {each.target_rate for each in results.record.evaluations} == {None}
    assert "Reached target" not in tables_markdown(results.record)


def test_the_tables_and_files_have_the_share(tmp_path: Path) -> None:
    attacks = [{"name": "bim", "target": 2}, "fgsm"]
    evaluate(network(), data(), attack=attacks, epsilon=0.2, output=tmp_path, **QUICK)
    record = RunRecord.read(tmp_path)
    text = tables_markdown(record)
    assert "Reached target" in text
    assert "Reached target: of the examples that a targeted attack gave a target class" in text
    assert (
        "target_rate,target_rate_low,target_rate_high,targeted"
        in (tmp_path / "evaluations.csv").read_text().replace("\r", "").partition("\n")[0]
    )
    digest = next(each.digest for each in record.evaluations if each.attack == "bim")
    outcome = read_outcome(tmp_path / "outcomes", digest)
    assert outcome is not None
    assert outcome.target_class is not None
    assert set(outcome.target_class.tolist()) == {-1, 2}
    assert np.array_equal(outcome.target_class == -1, outcome.label == 2)
    again = evaluate(network(), data(), attack=attacks, epsilon=0.2, output=tmp_path, **QUICK)
    assert [each.target_rate for each in again.record.evaluations] == [
        each.target_rate for each in record.evaluations
    ]


def test_batches_and_epsilons_change_no_target() -> None:
    attack = {"name": "bim", "target": "least-likely", "steps": 4}
    whole = evaluate(network(), data(), attack=attack, epsilon=[0.1, 0.2], **QUICK)
    parts = evaluate(network(), data(), attack=attack, epsilon=[0.1, 0.2], batch_size=7, **QUICK)
    assert [each.target_rate for each in whole.record.evaluations] == [
        each.target_rate for each in parts.record.evaluations
    ]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (CLASSES, r"class 5 is no class of model 'Sequential', whose classes are 0 to 4"),
        (-1, "target"),
        (True, "target"),
        ("third", "target"),
    ],
)
def test_a_target_that_is_no_class_is_refused(target: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        evaluate(network(), data(), attack={"name": "bim", "target": target}, epsilon=0.1, **QUICK)


def test_a_list_that_aims_at_several_classes_has_no_share() -> None:
    members = [
        {"name": "bim", "target": "second", "label": "one"},
        {"name": "bim", "target": "least-likely", "label": "two"},
    ]
    results = evaluate(
        network(), data(), attack={"name": "worst-of", "attacks": members}, epsilon=0.2, **QUICK
    )
    assert row(results).target_rate is None
