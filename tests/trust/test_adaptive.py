"""Random models and adapted attacks on MNIST: from the flagged figure to the true one.

`random-answers`: planted faults raise it, near misses do not; and it is a note once gradients and
answers are averaged over draws.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gibbon import evaluate
from gibbon.records.flag_kinds import KINDS
from gibbon.records.flags import Flag

Honest = Callable[[str], nn.Module]
FEW = {"limit": 12, "steps": 3, "attack": "pgd", "epsilon": 0.1}


class Before(nn.Module):
    """Changes the inputs of a network."""

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.network(self.change(inputs))
        return outputs


def noise(inputs: Tensor) -> Tensor:
    return inputs + 0.2 * torch.randn_like(inputs)


def dropout(inputs: Tensor) -> Tensor:
    return functional.dropout(inputs, 0.2)  # always on


def moved(inputs: Tensor) -> Tensor:
    return inputs.roll(int(torch.randint(-1, 2, (1,))), dims=3)  # all pictures alike


def fixed(inputs: Tensor) -> Tensor:
    generator = torch.Generator(inputs.device).manual_seed(0)
    return inputs + 0.1 * torch.randn(inputs.shape[1:], generator=generator)


def switched_off(inputs: Tensor) -> Tensor:
    return functional.dropout(inputs, 0.2, training=False)


def kind(found: tuple[Flag, ...]) -> set[tuple[str, str]]:
    return {(each.attack, each.severity) for each in found if each.kind == "random-answers"}


@pytest.mark.parametrize("fault", [noise, dropout, moved])
def test_random_answers_are_flagged(
    honest: Honest, mnist: tuple[Tensor, Tensor], fault: Callable[[Tensor], Tensor]
) -> None:
    model = Before(honest("softmax"), fault)
    naive = evaluate(model, mnist, draws=4, **FEW).record
    assert kind(naive.flags) == {("", "note"), ("pgd", "serious")}
    advice = next(each for each in naive.flags if each.attack == "pgd")
    assert "eot = 20" in advice.advice
    assert advice.suite == "eot = 20"
    averaged = evaluate(model, mnist, draws=4, eot=3, **FEW).record
    assert kind(averaged.flags) == {("", "note")}
    once = evaluate(model, mnist, draws=1, eot=3, **FEW).record
    assert kind(once.flags) == {("", "serious")}


def test_a_search_of_the_nearest_example_is_flagged_on_a_random_model(
    honest: Honest, mnist: tuple[Tensor, Tensor]
) -> None:
    """It ends where half of the draws are wrong, however large the budget is."""
    model = Before(honest("softmax"), noise)
    keys = {"attack": "ddn", "epsilon": 2, "steps": 5, "limit": 24, "eot": 2}
    found = evaluate(model, mnist, draws=4, **keys).record.flags
    assert kind(found) == {("", "note"), ("ddn", "warning")}
    steady = evaluate(honest("softmax"), mnist, **keys | {"eot": None}).record.flags
    assert kind(steady) == set()


@pytest.mark.parametrize("change", [fixed, switched_off])
def test_answers_that_repeat_are_not(
    honest: Honest, mnist: tuple[Tensor, Tensor], change: Callable[[Tensor], Tensor]
) -> None:
    record = evaluate(Before(honest("softmax"), change), mnist, **FEW).record
    assert kind(record.flags) == set()
    assert all(row.draws == 1 for row in record.evaluations)


def test_the_expected_gradient_finds_what_one_draw_misses(
    honest: Honest, mnist: tuple[Tensor, Tensor]
) -> None:
    """Noise as strong as the budget: a single gradient is mostly noise."""

    def strong(inputs: Tensor) -> Tensor:
        return inputs + 0.7 * torch.randn_like(inputs)

    model = Before(honest("maxout"), strong)
    keys = {"attack": "fgsm", "epsilon": 0.1, "limit": 48}
    once = evaluate(model, mnist, **keys)
    several = evaluate(model, mnist, eot=20, **keys)
    assert once.clean_error == several.clean_error
    assert several.adversarial_error > once.adversarial_error + 0.02
    row = several.evaluations[1]
    assert row.adversarial_error_low < several.adversarial_error < row.adversarial_error_high


class Cut(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs * 8).round() / 8


class Rounded(nn.Module):
    def __init__(self, network: nn.Module, factor: float = 1.0) -> None:
        super().__init__()
        self.rounding, self.network, self.softmax = Cut(), network, nn.Softmax(1)
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.softmax(self.network(self.rounding(inputs)) * self.factor)
        return outputs


def test_the_true_figure_is_that_of_the_network_without_its_defences(
    honest: Honest, mnist: tuple[Tensor, Tensor]
) -> None:
    model = Rounded(honest("softmax"), factor=500)
    keys = {"attack": "pgd", "epsilon": 0.125, "steps": 10, "limit": 48}
    naive = evaluate(model, mnist, outputs="probabilities", **keys)
    assert "zero-gradient" in {each.kind for each in naive.record.flags if each.counts}
    adapted = evaluate(
        model,
        mnist,
        outputs="probabilities",
        backward={"rounding": "identity"},
        before="softmax",
        **keys,
    )
    assert not [each for each in adapted.record.flags if each.counts]
    plain = evaluate(honest("softmax"), mnist, **keys)
    assert adapted.adversarial_error == pytest.approx(plain.adversarial_error, abs=0.1)
    assert adapted.adversarial_error > naive.adversarial_error + 0.5
    assert adapted.clean_error == naive.clean_error


def test_advice_names_the_keys_as_suites_have_them() -> None:
    texts = {name: KINDS[name].advice for name in KINDS}
    assert "eot = 20" in texts["random-answers"]
    for name in ("gradient-mismatch", "rounded-inputs", "zero-gradient"):
        assert 'backward = { "module.path" = "identity" }' in texts[name]
    for name in ("zero-gradient", "outputs-are-probabilities", "tiny-outputs"):
        assert 'before = "module.path"' in texts[name]
