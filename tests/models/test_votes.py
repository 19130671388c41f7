"""Answers over several draws: shares, and a yes or no by majority."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gibbon.core.rng import ExampleStreams
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import LOGITS, margin
from gibbon.models.random_draws import Draws
from gibbon.models.votes import Votes, votes

LABELS = torch.tensor([0])


def of(*answers: int, scale: float = 1.0) -> Votes:
    """Draws with these predicted classes, of three."""
    return Votes(scale * torch.eye(3)[list(answers)].unsqueeze(1), LABELS, LOGITS)


@pytest.mark.parametrize(
    ("answers", "share", "predicted"),
    [
        ((0, 0, 1, 1), 0.5, 0),  # no majority
        ((0, 1, 1), 2 / 3, 1),
        ((0, 0, 0, 1, 2, 2, 2), 4 / 7, 2),
        ((0, 0, 1, 1, 2), 3 / 5, 1),  # the true class is as frequent: wrong by majority
        ((0, 0, 0, 1, 1, 2, 2), 4 / 7, 1),  # and here more frequent than any other
        ((0,), 0.0, 0),
        ((2,), 1.0, 2),
    ],
)
def test_an_example_is_misclassified_by_the_majority_of_draws(
    answers: tuple[int, ...], share: float, predicted: int
) -> None:
    found = of(*answers)
    assert float(found.wrong_share) == pytest.approx(share)
    assert int(found.predicted) == predicted
    assert (float(found.lead) > 0) == (share > 0.5)
    assert (int(found.predicted) != 0) == (share > 0.5)


def test_the_confidence_is_that_of_the_draws_that_agree() -> None:
    drawn = torch.tensor([[[9.0, 0.0]], [[0.0, 1.0]], [[0.0, 2.0]]])
    found = Votes(drawn, LABELS, LOGITS)
    expected = LOGITS.confidence(drawn[1:, 0]).mean()
    assert float(found.confidence) == pytest.approx(float(expected))


def test_more_wrong_draws_lead_whatever_the_margin() -> None:
    ordered = [
        of(0, 0, 0, 0, scale=50),
        of(0, 0, 0, 0),
        of(0, 0, 0, 1, scale=0.1),
        of(0, 0, 1, 1, scale=100),
        of(0, 1, 1, 1, scale=0.01),
        of(1, 1, 1, 1),
        of(1, 1, 1, 1, scale=3),
    ]
    leads = [float(each.lead) for each in ordered]
    assert leads == sorted(leads)
    assert len(set(leads)) == len(leads)


def test_one_draw_is_the_model_s_answer() -> None:
    net = nn.Linear(4, 3)
    model = Classifier(net, classes=3, input_shape=(4,))
    inputs, labels = torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])
    with model.evaluating():
        found = votes(
            model, inputs, labels=labels, streams=ExampleStreams.derive(0, torch.arange(5))
        )
        outputs = model.predict(inputs)
    assert model.passes.forward == 10
    assert torch.equal(found.outputs, outputs)
    assert torch.equal(found.predicted, outputs.argmax(1))
    assert torch.equal(found.lead, margin(outputs, labels))


def test_certain_is_an_example_that_every_draw_is_certain_of() -> None:
    drawn = torch.tensor([[[50.0, 0.0], [50.0, 0.0]], [[50.0, 0.0], [1.0, 0.0]]])
    assert Votes(drawn, torch.tensor([0, 0]), LOGITS).certain.tolist() == [True, False]


class Coin(nn.Module):
    """Answers wrongly with a chance that the input holds."""

    def forward(self, inputs: Tensor) -> Tensor:
        wrong = (torch.rand(len(inputs)) < inputs[:, 0]).float()
        return torch.stack([1 - wrong, wrong], 1)


def test_shares_estimate_the_chance_and_cost_a_pass_each() -> None:
    model = Classifier(Coin(), classes=2, input_shape=(1,), draws=Draws(400, 3))
    inputs, labels = torch.tensor([[0.1], [0.5], [0.8]]), torch.zeros(3, dtype=torch.int64)
    with model.evaluating():
        streams = model.draws.streams(torch.tensor([4, 9, 1]), "here")
        found = votes(model, inputs, labels=labels, streams=streams)
    assert model.passes.forward == 1200  # the passes that look for random numbers are left out
    assert found.wrong_share.tolist() == pytest.approx([0.1, 0.5, 0.8], abs=0.08)


def test_answers_are_put_together_by_example() -> None:
    one, other = of(0, 0), of(1, 2)
    assert one.where(torch.tensor([True]), other).predicted.tolist() == [0]
    assert one.where(torch.tensor([False]), other).wrong_share.tolist() == [1.0]
