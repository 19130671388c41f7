"""Small networks, and the exact smallest margin of a ReLU network on a box by a MILP."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn

from gibbon.core.threat import Bounds as Box
from gibbon.core.threat import Epsilon, Norm, ThreatModel

PIXELS = Box(0.0, 1.0)


def drawn(net: nn.Module, *, seed: int, spread: float = 1.0) -> nn.Module:
    """The network in eval mode with normal weights of this spread, and batch norm that was used."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            scale = spread / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        for part in net.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                size = part.num_features
                part.running_mean = torch.randn(size, generator=generator) * 0.2
                part.running_var = torch.rand(size, generator=generator) + 0.5
    return net.eval().requires_grad_(False)


def threat(norm: Norm, epsilon: float, *, clip: bool = True) -> ThreatModel:
    return ThreatModel(norm, Epsilon.parse(epsilon), PIXELS if clip else None)


def images(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def margins(outputs: Tensor, labels: Tensor) -> Tensor:
    """The true class's output minus the largest other one."""
    others = outputs.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
    return outputs.gather(1, labels.unsqueeze(1)).squeeze(1) - others


def smallest_margin(net: nn.Sequential, inputs: Tensor, label: int, model: ThreatModel) -> float:
    """The smallest margin of a network of linear layers and ReLUs on a box, exactly, by a MILP.

    Each ReLU has a binary variable that says whether it is on (V. Tjeng, K. Xiao and R. Tedrake,
    Evaluating robustness of neural networks with mixed integer programming, ICLR 2019).
    """
    layers = [each for each in net if isinstance(each, nn.Linear)]
    values = inputs.double().flatten().numpy()
    low, high = values - model.radius, values + model.radius
    if model.bounds is not None:
        low, high = np.maximum(low, model.bounds.low), np.minimum(high, model.bounds.high)
    lows, highs, whole = list(low), list(high), [0] * len(low)
    rows: list[tuple[dict[int, float], float, float]] = []
    previous = list(range(len(low)))
    for layer in layers[:-1]:
        weight, bias = (each.detach().double().numpy() for each in (layer.weight, layer.bias))
        least, most = np.array(lows)[previous], np.array(highs)[previous]
        up, down = np.maximum(weight, 0), np.minimum(weight, 0)
        pre_low, pre_high = up @ least + down @ most + bias, up @ most + down @ least + bias
        hidden = []
        for unit in range(len(weight)):
            position, switch = len(lows), len(lows) + 1
            lows += [0.0, 0.0]
            highs += [max(0.0, pre_high[unit]), 1.0]
            whole += [0, 1]
            line = dict(zip(previous, weight[unit], strict=True))
            minus = {place: -number for place, number in line.items()}
            # z >= Wx + b, z <= Wx + b - l (1 - s), z <= u s
            rows.append(({position: 1.0, **minus}, bias[unit], np.inf))
            rows.append(
                (
                    {position: 1.0, switch: -min(0.0, pre_low[unit]), **minus},
                    -np.inf,
                    bias[unit] - min(0.0, pre_low[unit]),
                )
            )
            rows.append(({position: 1.0, switch: -max(0.0, pre_high[unit])}, -np.inf, 0.0))
            hidden.append(position)
        previous = hidden
    matrix = np.zeros((len(rows), len(lows)))
    for number, (line, _, _) in enumerate(rows):
        for place, value in line.items():
            matrix[number, place] += value
    limits = LinearConstraint(matrix, [each[1] for each in rows], [each[2] for each in rows])
    weight, bias = (each.detach().double().numpy() for each in (layers[-1].weight, layers[-1].bias))
    found = []
    for other in range(len(weight)):
        if other == label:
            continue
        cost = np.zeros(len(lows))
        cost[previous] = weight[label] - weight[other]
        given: dict[str, Any] = {"constraints": limits} if rows else {}
        solved = milp(cost, integrality=whole, bounds=Bounds(lows, highs), **given)
        assert solved.success
        found.append(solved.fun + bias[label] - bias[other])
    return float(min(found))


def sampled(
    inputs: Tensor, model: ThreatModel, *, count: int, seed: int = 0, corners: bool = True
) -> Tensor:
    """Points of a threat model around each input, shape (count, N, ...); many on its surface."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, *inputs.shape, generator=generator)
    flat = noise.flatten(2)
    if model.norm is Norm.LINF:
        step = flat.sign() if corners else flat.clamp(-1, 1)
    elif model.norm is Norm.L2:
        step = flat / flat.norm(dim=2, keepdim=True)
    else:
        few = torch.where(torch.rand(flat.shape, generator=generator) < 0.2, flat, 0.0)
        step = few / few.abs().sum(2, keepdim=True).clamp(min=1e-9)
    points = inputs + (step * model.radius).view_as(noise)
    return points if model.bounds is None else points.clamp(model.bounds.low, model.bounds.high)
