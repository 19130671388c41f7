"""Wrong preprocessing of models that make many errors anyway, and the budget of passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gibbon.datasets.base import Batch
from gibbon.diagnostics.examination.examine import FULL_BUDGET, Candidates, examine
from gibbon.diagnostics.examination.observed import Observed
from gibbon.models.classifier import Classifier
from gibbon.records.examination import Examination

CLASSES, SHAPE, COUNT = 10, (3, 8, 8), 256
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def pictures(spread: float = 0.17) -> tuple[Batch, Tensor]:
    """Noisy pictures of ten colours, and the colours."""
    generator = torch.Generator().manual_seed(0)
    colours = 0.2 + 0.6 * torch.rand(CLASSES, 3, generator=generator)
    labels = torch.arange(COUNT) % CLASSES
    each = colours[labels] + spread * torch.randn(COUNT, 3, generator=generator)
    noise = 0.05 * torch.randn(COUNT, *SHAPE, generator=generator)
    inputs = (each[:, :, None, None] + noise).clamp(0, 1)
    return Batch(torch.arange(COUNT), inputs, labels), colours


class Nearest(nn.Module):
    """Answers the nearest colour, for inputs that ``prepare`` has changed."""

    def __init__(self, colours: Tensor, prepare: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.register_buffer("colours", colours)
        self.prepare = prepare

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.prepare(inputs).mean((2, 3))
        return -20 * (found[:, None] - self.colours).square().sum(2)


def examined(
    prepare: Callable[[Tensor], Tensor], order: Tensor | None = None, spread: float = 0.17
) -> Examination:
    batch, colours = pictures(spread)
    net = Nearest(colours if order is None else colours[order], prepare)
    return examine(Classifier(net, classes=CLASSES, input_shape=SHAPE), batch, budget=FULL_BUDGET)


def clean_error(found: Examination) -> float:
    figures = {check.name: check.figures for check in found.checks}
    return figures["clean error against guessing"]["clean error"] or 0.0


FAULTS = {
    "order BGR": (lambda inputs: inputs.flip(1), "BGR"),
    "not normalised": (lambda inputs: inputs * STD + MEAN, "the normalisation of"),
    "divided by 255": (lambda inputs: inputs / 255, "[0, 255]"),
    "inverted": (lambda inputs: 1 - inputs, "inverted"),
}


def test_the_model_itself_is_wrong_on_every_second_picture() -> None:
    found = examined(lambda inputs: inputs)
    assert 0.5 < clean_error(found) < 0.8
    assert "preprocessing" not in {each.kind for each in found.found}, found.found


@pytest.mark.parametrize("name", FAULTS)
def test_a_repair_is_named_whatever_the_clean_error_is(name: str) -> None:
    prepare, words = FAULTS[name]
    found = examined(prepare)
    named = [each.sentence for each in found.found if each.kind == "preprocessing"]
    assert len(named) == 1, found.found
    assert words in named[0]


def test_an_order_of_classes_is_named_for_a_model_that_is_wrong_on_every_second_picture() -> None:
    order, spread = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7]), 0.14
    assert clean_error(examined(lambda inputs: inputs, spread=spread)) > 0.5
    found = examined(lambda inputs: inputs, order, spread)
    named = [each.sentence for each in found.found if each.kind == "preprocessing"]
    assert any("order of the classes" in each for each in named), found.found


SMALL_BUDGET = 120  # that of FGSM and ten steps of PGD on 50 examples


@pytest.mark.parametrize(("name", "spread"), [("order BGR", 0.1), ("not normalised", 0.17)])
def test_a_repair_is_named_in_a_small_run(name: str, spread: float) -> None:
    """Some of the likeliest kinds are tried, and the ranks of the true classes compared."""
    prepare, words = FAULTS[name]
    batch, colours = pictures(spread)
    classifier = Classifier(Nearest(colours, prepare), classes=CLASSES, input_shape=SHAPE)
    made = examine(classifier, batch, budget=SMALL_BUDGET, observed=known(classifier, batch))
    assert made.passes <= SMALL_BUDGET
    named = [each.sentence for each in made.found if each.kind == "preprocessing"]
    assert len(named) == 1, made.found
    assert words in named[0]


def known(classifier: Classifier, batch: Batch) -> Observed:
    with classifier.evaluating(), torch.no_grad():
        return Observed(batch, classifier(batch.inputs))


WEAK = 0.24  # spread with which the clean error in the right order is near 70 %


def test_the_flag_of_a_model_at_chance_names_an_order_that_repairs_little() -> None:
    assert 0.66 < clean_error(examined(lambda inputs: inputs, spread=WEAK)) < 0.74
    order = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    found = examined(lambda inputs: inputs, order, WEAK)
    (flag,) = found.found
    assert flag.kind == "error-at-chance"
    assert "; with another order of the classes (" in flag.sentence


def test_an_order_of_some_classes_that_repairs_little_is_a_warning() -> None:
    """A network with random weights comes as far, so that weights are named too."""
    order = torch.tensor([1, 2, 3, 4, 0, 5, 6, 7, 8, 9])
    found = examined(lambda inputs: inputs, order, WEAK)
    named = [each for each in found.found if each.kind == "preprocessing"]
    assert [each.severity for each in named] == ["warning"], found.found
    assert "order of the classes" in named[0].sentence
    assert "weights" in named[0].sentence


NEAR_MISSES = {
    "another brightness": lambda inputs: 0.98 * inputs,
    "grey pictures": lambda inputs: inputs.mean(1, keepdim=True).expand(-1, 3, -1, -1),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_a_weak_model_without_a_repair_raises_nothing(name: str) -> None:
    found = examined(NEAR_MISSES[name])
    assert "preprocessing" not in {each.kind for each in found.found}, found.found


class Zero(nn.Module):
    """A network whose last layer is zero, as that of a new vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, CLASSES)
        nn.init.zeros_(self.last.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.first(inputs).relu().mean((2, 3)))
        return outputs


@pytest.mark.parametrize(
    "build", [Zero, lambda: Nearest(pictures()[1], lambda inputs: inputs / 255)]
)
def test_no_check_makes_more_passes_than_are_left(build: Callable[[], nn.Module]) -> None:
    batch, _ = pictures()
    classifier = Classifier(build(), classes=CLASSES, input_shape=SHAPE)
    some = Batch(batch.ids[:16], batch.inputs[:16], batch.labels[:16])
    candidates = Candidates(some.inputs[:8], some.ids[:8], some.labels[:8])
    for budget in [*range(60, 180, 3), 400]:
        before = classifier.passes.forward + classifier.passes.backward
        found = examine(classifier, some, budget=budget, candidates=candidates)
        made = classifier.passes.forward + classifier.passes.backward - before
        assert made == found.passes <= budget
        assert "failed" not in {check.result for check in found.checks}, found.checks


@pytest.mark.parametrize(("one", "severity"), [(True, "warning"), (False, None)])
def test_a_clean_error_at_chance_on_one_class_is_a_warning(one: bool, severity: str | None) -> None:
    """The model may be right on the classes that it was not given."""
    batch, colours = pictures()
    order = torch.arange(CLASSES).roll(1)
    labels = torch.full_like(batch.labels, 3) if one else order[batch.labels]
    rows = batch.labels == 4 if one else torch.ones(COUNT, dtype=torch.bool)
    some = Batch(batch.ids[rows], batch.inputs[rows], labels[rows])
    net = Nearest(colours, lambda inputs: inputs)
    found = examine(
        Classifier(net, classes=CLASSES, input_shape=SHAPE), some, budget=FULL_BUDGET
    ).found
    (flag,) = [each for each in found if each.kind == "error-at-chance"]
    assert flag.severity == severity
    assert (" of one class," in flag.sentence) == one
