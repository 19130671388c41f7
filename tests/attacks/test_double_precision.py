"""Every attack on a network whose parameters, and so its outputs, are float64."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import gibbon
from gibbon.attacks import ATTACKS

FEW = {"steps": 6, "queries": 20, "iterations": 4, "searches": 3, "restarts": 1}


OWN = [name for name in ATTACKS.names() if ATTACKS.get(name).origin == "gibbon"]


@pytest.mark.parametrize("name", [name for name in OWN if name != "worst-of"])
def test_an_attack_works_on_outputs_of_float64(name: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).double()
    inputs = torch.rand(24, 1, 8, 8)
    with torch.no_grad():
        labels = net(inputs.double()).argmax(1)
    kind = ATTACKS.load(name)
    names = {each.name for each in dataclasses.fields(kind)}
    attack: dict[str, Any] = {"name": name, **{k: v for k, v in FEW.items() if k in names}}
    norm = kind.norms[0].value
    found = gibbon.evaluate(
        net, (inputs, labels), attack=attack, epsilon=0.05 if norm == "linf" else 0.5, norm=norm
    )
    assert found.record.failures == ()
    (attacked,) = [row for row in found.record.evaluations if not row.unattacked]
    assert attacked.examples == 24
