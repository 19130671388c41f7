"""Stored candidates of our attacks on one fixed probe, and the command that stores them.

Results of our attacks are stored under name, version and parameters, without their code.  So that
nobody changes an attack's candidates without raising its version, each attack is held to candidates
that are stored in `golden/`.  To store them again, after the version was raised:

    python tests/attacks/golden_probe.py NAME...

The probe is smooth and in float64, the steps are few: rounding moves no candidate by anything near
`tolerance`, whatever the processor, and a changed constant does.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gibbon.attacks import ATTACKS, registered_name
from gibbon.attacks.base import Attack
from gibbon.attacks.factory import build_attack
from gibbon.core.registry import Entry
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Epsilon, Norm, ThreatModel
from gibbon.models.classifier import PIXELS, Classifier
from gibbon.specs.suite import AttackSpec

FOLDER = Path(__file__).parent / "golden"
COMMAND = "python tests/attacks/golden_probe.py"
TOLERANCE = 1e-6  # of candidates in [0, 1]; seen are 1e-7, from float32 random numbers
DIGITS = 7
SHAPE, CLASSES, HIDDEN, EXAMPLES = (1, 8, 8), 5, 16, 4
EPSILON = {Norm.LINF: "0.08", Norm.L2: "0.5", Norm.L1: "3"}

# Parameters to try each attack with, in each of its norms; the defaults if it is not listed.
LISTED = [{"name": "apgd-ce", "steps": 4}, {"name": "deepfool", "steps": 3}]
CASES: dict[str, list[dict[str, Any]]] = {
    "pgd": [
        {"steps": 5},
        {"steps": 4, "restarts": 2, "loss": "margin", "keep": "best-loss"},
        {"steps": 4, "random_start": False, "step_size": "1/40", "keep": "first-success"},
    ],
    "pgd-l1": [
        {"steps": 5, "sparsity": 0.9},
        {"steps": 4, "restarts": 2, "sparsity": 0.8, "keep": "best-loss"},
    ],
    "bim": [{"steps": 5}, {"steps": 4, "target": "least-likely", "keep": "best-loss"}],
    "mi-fgsm": [{"steps": 5}, {"steps": 4, "target": "second", "keep": "best-loss"}],
    "di-mi-fgsm": [{"steps": 4, "smallest": 0.6, "probability": 0.8}],
    "ti-mi-fgsm": [{"steps": 4, "kernel": 5}],
    "vmi-fgsm": [{"steps": 3, "neighbours": 3}],
    "apgd-ce": [{"steps": 16}, {"steps": 8, "restarts": 2, "keep": "first-success"}],
    "apgd-dlr": [{"steps": 16}],
    "apgd-t": [{"steps": 8, "n_target_classes": 2}],
    "lbfgs": [{"iterations": 4, "searches": 3, "init_constant": 1.0, "target": "second"}],
    "deepfool": [{"steps": 4}, {"steps": 3, "classes": 3, "overshoot": 0.05}],
    "ddn": [{"steps": 12, "gamma": 0.1}],
    "fmn": [{"steps": 10}, {"steps": 8, "target": "second"}],
    "cw": [
        {"steps": 12, "searches": 3, "step_size": 0.05, "init_constant": 1.0},
        {"steps": 12, "searches": 4, "step_size": 0.05, "init_constant": 0.01},
    ],
    "fab": [{"steps": 5}, {"steps": 4, "restarts": 2}],
    "fab-t": [{"steps": 4, "target_classes": 2}],
    "square": [{"queries": 40}, {"queries": 15, "restarts": 2, "schedule": 10_000}],
    "worst-of": [{"attacks": LISTED}],
    "autoattack": [{"steps": 4, "target_classes": 2, "queries": 10}],
    "autoattack-l1": [{"steps": 4, "restarts": 2, "target_classes": 2, "queries": 10}],
}
# Attacks whose windows have heights in float32: the network computes in float64 all the same.
SINGLE = ("square", "autoattack", "autoattack-l1")
# What is left of a budget in L2 is the root of a difference: a rounding of 1e-7 becomes 3e-4.
SINGLE_TOLERANCE = 2e-3

Stored = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Probe:
    """A smooth network with two layers, examples in its box, and labels, the first one wrong."""

    classifier: Classifier
    inputs: Tensor
    labels: Tensor
    streams: ExampleStreams


class Wide(nn.Module):
    """Computes in float64 and returns numbers of the inputs' type."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs.double()).to(inputs.dtype)


def probe(name: str) -> Probe:
    """The probe for an attack.

    Weights and inputs are made of sines, which no generator needs to give alike in years to come.
    """
    hidden, top = nn.Linear(math.prod(SHAPE), HIDDEN), nn.Linear(HIDDEN, CLASSES)
    net = Wide(nn.Sequential(nn.Flatten(), hidden, nn.Tanh(), top))
    with torch.no_grad():
        for place, parameter in enumerate(net.parameters()):
            spread = 3.0 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 0.5
            parameter.copy_(spread * waves(parameter.shape, seed=place + 1))
        top.weight.mul_(
            torch.linspace(0.3, 2.0, CLASSES).unsqueeze(1)
        )  # boundaries unlike in slope
    inputs = (0.5 + 0.55 * waves((EXAMPLES, *SHAPE), seed=8)).clamp(0, 1)
    inputs = inputs.to(torch.float32 if name in SINGLE else torch.float64)
    classifier = Classifier(net, classes=CLASSES, input_shape=SHAPE, bounds=PIXELS)
    with classifier.evaluating():
        labels = classifier.predict(inputs).argmax(1)
    labels[0] = (labels[0] + 1) % CLASSES
    return Probe(classifier, inputs, labels, ExampleStreams.derive(11, torch.arange(EXAMPLES) + 3))


def waves(shape: tuple[int, ...], *, seed: int) -> Tensor:
    """Numbers in [-1, 1] that look random."""
    places = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(places * (places + 37.0 * seed) * 0.7 + seed).reshape(shape)


def names() -> list[str]:
    """The names of our attacks."""
    return [entry.name for entry in ATTACKS.entries() if entry.origin == Entry.origin]


def candidates(name: str, made: Probe | None = None) -> Stored:
    """What an attack proposes, by case: versions, and numbers of shape (tries, N, pixels)."""
    on = made or probe(name)
    found: Stored = {}
    for parameters in CASES.get(name, [{}]):
        for norm, bounds in product(ATTACKS.load(name).norms, (PIXELS, None)):
            if name == "worst-of" and norm is Norm.L1:
                continue  # deepfool can't
            spec = AttackSpec(name=name, epsilon=EPSILON[norm], norm=norm, **parameters)
            attack = build_attack(spec)
            threat = ThreatModel(norm, Epsilon.parse(EPSILON[norm]), bounds)
            with on.classifier.evaluating():
                tries = attack.propose(
                    on.classifier, on.inputs, labels=on.labels, threat=threat, streams=on.streams
                )
                points = torch.stack([each.detach().clone() for each in tries])
            box = "in the box" if bounds else "without a box"
            found[f"{norm} {box} {json.dumps(parameters)}"] = {
                "versions": versions(attack),
                "candidates": points.flatten(2).tolist(),
            }
    return found


def versions(attack: Attack) -> dict[str, int]:
    """The versions of an attack and of those that it is made of."""
    found = {registered_name(type(attack)) or "": type(attack).version}
    for member in attack.made_of:
        found |= versions(member)
    return found


def stored(name: str) -> Stored:
    """What is stored of an attack; empty if nothing is."""
    file = FOLDER / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else {}


def differences(name: str, before: Stored, now: Stored) -> list[str]:
    """What must be done about an attack, in sentences; nothing if all is as stored."""
    again = f"store its candidates: {COMMAND} {name}"
    said = []
    for case in before.keys() | now.keys():
        if case not in before or case not in now:
            said.append(f"{name}, {case}: nothing is stored of this case, or more: {again}")
        elif before[case]["versions"] != now[case]["versions"]:
            said.append(f"{name}, {case}: another version than the stored candidates': {again}")
        elif (apart := distance(before[case], now[case])) > tolerance(name):
            said.append(
                f"{name}, {case}: candidates differ from those stored by {apart:.2g}. If this is "
                "meant, raise the `version` of its class, so that recorded results are computed "
                f"again, then {again}"
            )
    return sorted(said)


def tolerance(name: str) -> float:
    """How far candidates of an attack may be from those stored."""
    return SINGLE_TOLERANCE if name in SINGLE else TOLERANCE


def distance(first: dict[str, Any], second: dict[str, Any]) -> float:
    """The largest difference between two cases' candidates; infinite if shapes differ."""
    one, two = (torch.tensor(each["candidates"], dtype=torch.float64) for each in (first, second))
    return float((one - two).abs().max()) if one.shape == two.shape else math.inf


def store(name: str) -> None:
    """Stores what an attack proposes.  Refuses other candidates under the same version."""
    before, now = stored(name), candidates(name)
    for case in before.keys() & now.keys():
        same = before[case]["versions"] == now[case]["versions"]
        if same and distance(before[case], now[case]) > tolerance(name):
            sys.exit("\n".join(differences(name, before, now)))
    lines = []
    for case, each in now.items():
        rows = ",\n".join(
            f"    [{', '.join(json.dumps([round(x, DIGITS) for x in row]) for row in tried)}]"
            for tried in each["candidates"]
        )
        head = f'"versions": {json.dumps(each["versions"])}'
        lines.append(f'{json.dumps(case)}: {{\n  {head},\n  "candidates": [\n{rows}\n  ]\n}}')
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    for each in sys.argv[1:] or names():
        store(each)
