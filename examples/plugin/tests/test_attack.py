"""The laws that every attack of Gibbon keeps, and the closed form on a linear model."""

import pytest
import torch
from gibbon_nesterov.attack import NesterovFGSM
from torch import nn

from gibbon import check_attack, evaluate


def test_it_keeps_the_laws() -> None:
    report = check_attack(NesterovFGSM(steps=4))
    assert not report.broken, str(report)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_it_finds_the_corner_of_a_linear_model(decay: float) -> None:
    """The error is that of the worst point of the ball, which lies in a corner."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    inputs = torch.rand(50, 1, 4, 4)
    scores = net(inputs).detach()
    labels = scores.argmax(1)
    slope = (net[1].weight[0] - net[1].weight[1]).abs().sum()
    worst = (scores[:, 0] - scores[:, 1]).abs() < 0.05 * slope
    results = evaluate(
        net, (inputs, labels), attack=NesterovFGSM(decay=decay), epsilon=0.05, clip=False
    )
    assert results.adversarial_error == pytest.approx(float(worst.double().mean().detach()))
