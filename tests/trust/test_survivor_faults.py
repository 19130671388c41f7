"""Results that a short attack on their survivors contradicts are flagged; sound ones are not.

The attacks and models are as people write them, each with one fault; their numbers alone look like
robustness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from gibbon import evaluate
from gibbon.attacks.base import STRICT, Attack, SearchMethod
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import ThreatModel
from gibbon.models.classifier import Classifier
from gibbon.records.flags import Flag
from gibbon.records.survivor_check import SurvivorCheck

KIND = "survivors-misclassified"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Own(Attack):
    """PGD as people write it; the methods below are where faults are planted."""

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        points = inputs.clone()
        for _ in range(10):
            leaf = points.clone().requires_grad_()
            loss = nn.functional.cross_entropy(self.scaled(classifier(leaf)), self.goal(labels))
            (gradient,) = torch.autograd.grad(loss, leaf)
            step = 0.25 * threat.radius * self.part(gradient.sign())
            points = inputs + (points + step - inputs).clamp(-threat.radius, threat.radius)
            points = points.clamp(0, 1)
            if self.stops(classifier(points).argmax(1) != labels):
                break
        yield points

    def goal(self, labels: Tensor) -> Tensor:
        return labels

    def scaled(self, outputs: Tensor) -> Tensor:
        return outputs

    def part(self, step: Tensor) -> Tensor:
        return step

    def stops(self, wrong: Tensor) -> bool:
        return False


class GoesToAClassButClimbs(Own):
    """It lowers the probability of the next class, which is no way to a wrong class."""

    def goal(self, labels: Tensor) -> Tensor:
        return (labels + 1) % 10


class StopsAtTheFirst(Own):
    """It stops the whole batch once one example is misclassified."""

    def stops(self, wrong: Tensor) -> bool:
        return bool(wrong.any())


class MovesACorner(Own):
    """It moves the upper left quarter of a picture only."""

    def part(self, step: Tensor) -> Tensor:
        mask = torch.zeros_like(step)
        mask[..., :14, :14] = 1
        return step * mask


class Oracle(Own):
    """It moves away from a surrogate's loss: a constant, so that steps are at random."""

    search_method: ClassVar[SearchMethod] = SearchMethod.ITERATIVE

    def part(self, step: Tensor) -> Tensor:
        pattern = torch.arange(step.numel(), device=step.device).reshape(step.shape) % 2 * 2 - 1
        return pattern.to(step.dtype)


class Quantised(nn.Module):
    """A network whose input goes through a rounding, so that the gradient's sign is arbitrary."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        levels = inputs + 1 / 40 * torch.sin(40 * torch.pi * inputs)
        return self.net(levels)


Raised = Callable[..., tuple[tuple[Flag, ...], tuple[SurvivorCheck, ...]]]


@pytest.fixture
def raised() -> Raised:
    """Returns the flags and the checks of survivors of an evaluation on MNIST.

    A run of one step on 64 examples is too small for a check in a tenth of its passes.
    """

    def run(model: nn.Module, *, limit: int = 64, **arguments: Any) -> tuple[Any, Any]:
        given = {"epsilon": 0.1, "limit": limit, **arguments}
        record = evaluate(model, "mnist", **given).record
        return record.flags, record.survivors

    return run


def found(flags: tuple[Flag, ...]) -> list[Flag]:
    """Returns the flags about survivors."""
    return [each for each in flags if each.kind == KIND]


@pytest.mark.parametrize("fault", [GoesToAClassButClimbs, MovesACorner, Oracle])
def test_a_broken_attack_is_flagged(fault: type[Own], raised: Raised, honest: Any) -> None:
    flags, checks = raised(honest("maxout-label-leaking"), attack=fault(), epsilon=0.2, limit=200)
    assert found(flags), checks
    assert all(each.severity == "serious" for each in found(flags))


def test_an_attack_that_stops_at_the_first_success_is_flagged(raised: Raised, honest: Any) -> None:
    flags, _ = raised(
        honest("maxout-label-leaking"), attack=StopsAtTheFirst(), epsilon=0.2, limit=200
    )
    assert found(flags)


def test_a_single_step_alone_is_a_warning(raised: Raised, honest: Any) -> None:
    flags, _ = raised(honest("maxout-label-leaking"), attack="fgsm", epsilon=0.25, limit=400)
    assert [each.severity for each in found(flags)] == ["warning"]


def test_few_queries_are_flagged(raised: Raised, honest: Any) -> None:
    flags, _ = raised(honest("maxout"), attack="square", queries=40, epsilon=0.15)
    assert [each.severity for each in found(flags)] == ["warning"]


def test_a_tiny_step_is_flagged(raised: Raised, honest: Any) -> None:
    flags, _ = raised(
        honest("maxout-label-leaking"), attack="pgd", steps=20, step_size=1e-4, random_start=False
    )
    assert found(flags)


def test_a_shattered_gradient_is_flagged(raised: Raised, honest: Any) -> None:
    flags, _ = raised(Quantised(honest("maxout")), attack="pgd", steps=20, epsilon=0.15)
    assert [each.severity for each in found(flags)] == ["serious"]


@pytest.mark.parametrize("model", ["softmax", "maxout", "maxout-label-leaking"])
@pytest.mark.parametrize("epsilon", [0.05, 0.1])
def test_a_sound_attack_is_not_flagged(
    model: str, epsilon: float, raised: Raised, honest: Any
) -> None:
    flags, _ = raised(honest(model), attack="pgd", steps=20, epsilon=epsilon)
    assert not found(flags)


def test_one_step_of_a_linear_model_is_not_flagged(raised: Raised, honest: Any) -> None:
    """The direction of a linear model's loss is nearly exact: one step is nearly the optimum."""
    flags, _ = raised(honest("softmax"), attack="fgsm", epsilon=[0.05, 0.1], limit=400)
    assert not found(flags)


def test_own_attack_without_a_fault_is_not_flagged(raised: Raised, honest: Any) -> None:
    flags, checks = raised(honest("maxout"), attack=Own(), epsilon=0.05)
    assert not found(flags)
    assert any(each.tried for each in checks)


def test_a_targeted_attack_makes_no_claim(raised: Raised, honest: Any) -> None:
    flags, checks = raised(
        honest("maxout-label-leaking"), attack="bim", target="least-likely", steps=4, epsilon=0.1
    )
    assert not checks
    assert not found(flags)


def test_noise_makes_no_claim(raised: Raised, honest: Any) -> None:
    flags, _ = raised(honest("maxout"), attack="noise-sign", epsilon=0.25)
    assert not found(flags)


def test_passes_stay_within_a_tenth(mnist: tuple[Tensor, Tensor], honest: Any) -> None:
    record = evaluate(
        honest("maxout-label-leaking"), mnist, attack="pgd", steps=20, epsilon=0.1
    ).record
    made = sum(row.forward_passes + row.backward_passes for row in record.evaluations)
    spent = sum(each.passes for each in record.examinations)
    spent += sum(each.passes for each in record.survivors)
    assert 0 < spent <= made / 10


def test_the_check_is_stored(mnist: tuple[Tensor, Tensor], honest: Any, tmp_path: Any) -> None:
    arguments = {"attack": "pgd", "steps": 20, "epsilon": 0.1, "output": tmp_path / "run"}
    model = honest("maxout-label-leaking")
    first = evaluate(model, mnist, **arguments).record
    file = next((tmp_path / "run" / "examinations").glob("survivors-*.json"))
    file.write_text(file.read_text().replace('"passes"', '"passes" '))  # its content stays
    before = file.stat().st_mtime_ns
    again = evaluate(model, mnist, **arguments).record
    assert again.survivors == first.survivors
    assert file.stat().st_mtime_ns == before


def test_no_examination_leaves_it_out(mnist: tuple[Tensor, Tensor], honest: Any) -> None:
    record = evaluate(
        honest("maxout"), mnist, attack="fgsm", epsilon=0.25, examination=False
    ).record
    assert not record.survivors
