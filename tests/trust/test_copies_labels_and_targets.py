"""Near copies, labels that are wrong at random, and targeted attacks alone are flagged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gibbon
from gibbon.attacks.toolkit.projections import region
from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel
from gibbon.datasets import DataRequest
from gibbon.datasets.base import Batch
from gibbon.datasets.open import open_dataset
from gibbon.diagnostics.data_flags import data_flags
from gibbon.diagnostics.examination.observed import Observed
from gibbon.diagnostics.examination.short_attack import ShortAttack
from gibbon.diagnostics.examination.subject import Subject
from gibbon.diagnostics.gradient_use_flags import single_step_flags, targeted_only_flags
from gibbon.diagnostics.survivor_flags import FEWEST_SERIOUS
from gibbon.models.classifier import Classifier
from gibbon.records.flags import Flag
from gibbon.specs.suite import DatasetSpec

COUNT = 300


@pytest.fixture(scope="module")
def pictures() -> tuple[Tensor, Tensor]:
    """The first inputs of MNIST's test split, and their labels."""
    dataset = open_dataset(DatasetSpec(name="mnist", source="mnist"), DataRequest())
    batch = dataset.batch(np.arange(COUNT))
    return batch.inputs, batch.labels


def copies(inputs: Tensor, labels: Tensor) -> list[Flag]:
    batch = Batch(torch.arange(len(inputs)), inputs, labels)
    names = [str(number) for number in range(10)]
    found = data_flags("data", labels.numpy(), [batch], classes=names)
    return [each for each in found if each.kind == "duplicated-examples"]


def noisy(inputs: Tensor, size: float) -> Tensor:
    noise = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0))
    return (inputs + size * noise).clamp(0, 1)


def stored_again(inputs: Tensor) -> Tensor:
    """Rounds to 32 levels, as a picture of few colours."""
    return (31 * inputs).round() / 31


@pytest.mark.parametrize(
    ("share", "severity"), [(0.5, "serious"), (0.1, "warning")], ids=["half", "a tenth"]
)
@pytest.mark.parametrize(
    "change", [lambda each: noisy(each, 0.01), lambda each: noisy(each, 0.03), stored_again]
)
def test_near_copies_are_named(
    pictures: tuple[Tensor, Tensor], change: Callable[[Tensor], Tensor], share: float, severity: str
) -> None:
    inputs, labels = (each[:200] for each in pictures)
    first = int(200 * (1 - share))
    inputs = torch.cat([inputs[:first], change(inputs[: 200 - first])])
    (flag,) = copies(inputs, torch.cat([labels[:first], labels[: 200 - first]]))
    assert flag.severity == severity
    assert "nearly equal" in flag.sentence
    assert f"example {first} to 0" in flag.sentence


def test_pictures_that_are_alike_are_no_copies(pictures: tuple[Tensor, Tensor]) -> None:
    inputs, labels = pictures
    assert not copies(inputs, labels)
    ones = labels == 1
    assert not copies(inputs[ones], labels[ones])
    shifted = torch.cat([inputs[:100], inputs[:100].roll(1, 3)])
    assert not copies(shifted, torch.cat([labels[:100], labels[:100]]))


def test_data_of_few_degrees_of_freedom_have_no_copies() -> None:
    random = torch.Generator().manual_seed(0)
    levels = torch.rand((200, 1, 1, 1), generator=random).expand(-1, 1, 8, 8)
    inputs = levels + 0.02 * torch.rand((200, 1, 8, 8), generator=random)
    assert not copies(inputs / inputs.max(), torch.arange(200) % 10)


def of_run(model: nn.Module, inputs: Tensor, labels: Tensor, **options: Any) -> dict[str, Flag]:
    given = {"attack": "pgd", "steps": 2, "epsilon": 0.01, "examination": False, **options}
    results = gibbon.evaluate(model, (inputs, labels), device="cpu", **given)
    assert not results.failures
    return {each.kind: each for each in results.flags}


def at_random(labels: Tensor, share: float) -> Tensor:
    random = torch.Generator().manual_seed(1)
    wrong = torch.rand(labels.shape, generator=random) < share
    other = (labels + torch.randint(1, 10, labels.shape, generator=random)) % 10
    return torch.where(wrong, other, labels)


@pytest.mark.parametrize(
    "change",
    [
        lambda labels: at_random(labels, 0.15),
        lambda labels: at_random(labels, 0.4),
        lambda labels: torch.where(labels == 3, 8, torch.where(labels == 8, 3, labels)),
    ],
    ids=["15 % at random", "40 % at random", "two classes exchanged"],
)
def test_errors_as_sure_as_right_answers_are_a_warning(
    pictures: tuple[Tensor, Tensor], honest: Any, change: Callable[[Tensor], Tensor]
) -> None:
    inputs, labels = pictures
    flag = of_run(honest("maxout-label-leaking"), inputs, change(labels))["sure-errors"]
    assert flag.severity == "warning"
    assert flag.model


@pytest.mark.parametrize("model", ["softmax", "rbf", "logistic-like"])
def test_errors_of_weak_models_are_less_sure(
    pictures: tuple[Tensor, Tensor], honest: Any, model: str
) -> None:
    inputs, labels = pictures
    net = honest("softmax" if model == "logistic-like" else model)
    if model == "logistic-like":  # noise makes it wrong on a third
        inputs = noisy(inputs, 1.0)
    assert "sure-errors" not in of_run(net, inputs, labels)


def test_labels_that_follow_a_pattern_have_the_flag_that_says_so(
    pictures: tuple[Tensor, Tensor], honest: Any
) -> None:
    inputs, labels = pictures
    moved = torch.cat([labels[:200], labels[200:].roll(1)])
    found = of_run(honest("maxout-label-leaking"), inputs, moved)
    assert "displaced-labels" in found
    assert "sure-errors" not in found


@pytest.mark.parametrize(
    "attack",
    [
        {"name": "bim", "steps": 4, "target": 3},
        [{"name": "bim", "steps": 4, "target": "least-likely"}, {"name": "noise-sign"}],
        {
            "name": "worst-of",
            "attacks": [{"name": "bim", "target": 3}, {"name": "mi-fgsm", "target": 5}],
        },
    ],
    ids=["a class", "the least likely, and noise", "two classes"],
)
def test_targets_alone_are_a_warning(
    pictures: tuple[Tensor, Tensor], honest: Any, attack: Any
) -> None:
    options = {"attack": attack, "epsilon": 0.05}
    inputs, labels = (each[:60] for each in pictures)
    results = gibbon.evaluate(
        honest("maxout-label-leaking"), (inputs, labels), device="cpu", examination=False, **options
    )
    found = {each.kind: each for each in results.flags}
    assert found["targeted-only"].severity == "warning"
    assert 'name = "pgd"' in found["targeted-only"].suite


@pytest.mark.parametrize(
    "attack",
    [
        [{"name": "bim", "steps": 4, "target": 3}, {"name": "pgd", "steps": 4}],
        {"name": "worst-of", "attacks": [{"name": "bim", "target": 3}, {"name": "mi-fgsm"}]},
        {"name": "apgd-t", "steps": 4},
        "noise-sign",
    ],
    ids=["with pgd", "in a list with another", "to every class", "noise"],
)
def test_targets_beside_other_attacks_are_none(
    pictures: tuple[Tensor, Tensor], honest: Any, attack: Any
) -> None:
    inputs, labels = (each[:60] for each in pictures)
    results = gibbon.evaluate(
        honest("maxout-label-leaking"),
        (inputs, labels),
        device="cpu",
        examination=False,
        attack=attack,
        epsilon=0.05,
    )
    assert "targeted-only" not in {each.kind for each in results.flags}


SUITE = """
name = "published"
dataset = "mnist"
models = ["maxout-label-leaking"]
[[attacks]]
{attack}
epsilon = "0.05"
[[published]]
model = "maxout-label-leaking"
attack = "{label}"
epsilon = "0.05"
measure = "adversarial_error"
value = 0.2
dataset = "mnist"
section = "a paper"
"""


@pytest.mark.parametrize(
    ("attack", "label", "kind"),
    [
        ('name = "fgsm"', "fgsm", "single-step-only"),
        ('name = "bim"\nsteps = 4\ntarget = 3', "bim", "targeted-only"),
    ],
)
@pytest.mark.parametrize("compared", [True, False])
def test_it_is_a_note_beside_a_published_number(
    tmp_path: Any, attack: str, label: str, kind: str, compared: bool
) -> None:
    from gibbon.runner.run_suite import run_suite
    from gibbon.runner.settings import RunSettings
    from gibbon.specs.decoding import parse_suite

    text = SUITE.format(attack=attack, label=label)
    text = text if compared else text.split("[[published]]")[0]
    suite = parse_suite(text, where="suite.toml")
    record = run_suite(
        suite, tmp_path / "run", settings=RunSettings(limit=60, device="cpu", examination=False)
    )
    (flag,) = (each for each in record.flags if each.kind == kind)
    assert flag.severity == ("note" if compared else "warning")


class Clamped(nn.Module):
    """Black and white pixels have no gradient, since inputs are clamped to the middle."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.net((inputs.clamp(0.15, 0.85) - 0.15) / 0.7)
        return outputs


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2, Norm.L1])
@pytest.mark.parametrize("box", [True, False])
def test_the_points_of_a_short_attack_are_within_the_threat_model(
    pictures: tuple[Tensor, Tensor], honest: Any, norm: Norm, box: bool
) -> None:
    inputs, labels = (each[:24] for each in pictures)
    radius = {Norm.LINF: "0.3", Norm.L2: "4", Norm.L1: "60"}[norm]
    threat = ThreatModel(norm, Epsilon.parse(radius), Bounds(0.0, 1.0) if box else None)
    classifier = Classifier(Clamped(honest("maxout")).eval(), classes=10, input_shape=(1, 28, 28))
    batch = Batch(torch.arange(len(inputs)), inputs, labels)
    with classifier.evaluating(), torch.no_grad():
        observed = Observed(batch, classifier(inputs))
        subject = Subject(classifier, observed, torch.device("cpu"), 10_000)
        attack = ShortAttack(subject, batch, threat)
        attack.run()
    assert int(attack.done.sum()) >= FEWEST_SERIOUS
    allowed = region(inputs[attack.done], threat=threat)
    points = attack._best[attack.done]
    torch.testing.assert_close(allowed.project(points.clone()), points, rtol=0, atol=2e-6)
    if box:
        assert float(points.min()) >= 0
        assert float(points.max()) <= 1


def test_inputs_that_a_model_clamps_are_attacked_nevertheless(
    pictures: tuple[Tensor, Tensor], honest: Any
) -> None:
    """Its gradient is right, and zero where a change of more than 0.15 would matter."""
    model = Clamped(honest("maxout"))
    results = gibbon.evaluate(
        model, pictures, attack="pgd", steps=20, epsilon=0.3, random_start=False, limit=200
    )
    found = {each.kind: each for each in results.flags}
    assert found["survivors-misclassified"].severity == "serious"


def test_no_cells_raise_nothing() -> None:
    assert not list(targeted_only_flags([]))
    assert not list(single_step_flags([], proved={}))
