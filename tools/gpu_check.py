"""Checks a GPU against the CPU, and compares our speed on it with other libraries, in minutes.

    python -m tools.gpu_check gpu.json                      # cuda, a network of ResNet-50's size
    python -m tools.gpu_check cpu.json --device cpu --small # tries the script itself

The record holds, for each attack, how many predictions differ from the CPU's and by how much a
confidence does, and for PGD with 20 steps and AutoAttack the time of torchattacks and pyautoattack
relative to ours: medians over rounds in which everybody works once.  Results are compared, and
AutoAttack is timed, on some of the pictures, so that ten minutes suffice.  Our time is that of a
whole call of `gibbon.evaluate`, without the examination.  Weights are random and labels are the
network's own predictions.  Ends with exit code 1 if more than `MOST_CHANGED` of the predictions
differ.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gibbon import Results, evaluate

MOST_CHANGED = 0.02  # of predictions: rounding turns ties, and signs of gradients near zero
ATTACKS: tuple[dict[str, Any], ...] = (
    {"name": "fgsm"},
    {"name": "pgd", "steps": 5},
    {"name": "pgd", "steps": 5, "keep": "first-success"},
    {"name": "apgd-ce", "steps": 10},
    {"name": "square", "queries": 50},
)
EPSILON = "1/255"


@dataclass(frozen=True)
class NetworkSize:
    """A network and its pictures.

    Args:
        network: makes the network, with random weights.
        shape: of one picture.
        examples: number of pictures.
        few: how many of them are compared with the CPU, and attacked by AutoAttack.
        seconds: time for the rounds of one comparison, of which there is one at least.
    """

    network: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    examples: int
    few: int
    seconds: float


def resnet50() -> nn.Module:
    """Returns torchvision's ResNet-50 with random weights."""
    network: nn.Module = importlib.import_module("torchvision.models").resnet50(weights=None)
    return network


def small() -> nn.Module:
    """Returns a network that a CPU computes in no time."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(392, 10)
    )


SIZES = {
    "resnet50": NetworkSize(resnet50, (3, 224, 224), 128, 32, 90.0),
    "tiny": NetworkSize(small, (3, 16, 16), 8, 8, 0.0),
}


@dataclass(frozen=True)
class Equality:
    """How results on a device differ from the CPU's.

    Args:
        attack: the attack and its parameters.
        changed: share of the predictions that differ, the larger one of unattacked and attacked.
        confidence: largest difference of a confidence where predictions agree.
    """

    attack: str
    changed: float
    confidence: float


@dataclass(frozen=True)
class Ratio:
    """The time of another library for equal work, relative to ours."""

    work: str
    who: str
    ours_seconds: float
    times_ours: float
    rounds: int


@dataclass(frozen=True)
class CheckedNetwork:
    """A network with pictures and its predictions for them."""

    network: nn.Module
    inputs: Tensor
    labels: Tensor

    def some(self, count: int) -> CheckedNetwork:
        """Returns the network with its first pictures."""
        return CheckedNetwork(self.network, self.inputs[:count], self.labels[:count])


def subject(size: NetworkSize) -> CheckedNetwork:
    """Returns the network and its pictures, the same in every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = size.network().eval().requires_grad_(False)
        inputs = torch.rand(size.examples, *size.shape)
    with torch.no_grad():
        labels = torch.cat([network(each).argmax(1) for each in torch.split(inputs, 16)])
    return CheckedNetwork(network, inputs, labels)


def run(on: CheckedNetwork, attack: Any, *, device: str) -> Results:
    """Returns our results for one or several attacks."""
    return evaluate(
        on.network,
        (on.inputs, on.labels),
        attack=attack,
        epsilon=EPSILON,
        device=device,
        examination=False,
        certify="none",
    )


def equalities(on: CheckedNetwork, *, device: str) -> list[Equality]:
    """Returns the differences between a device and the CPU for each attack."""
    found = []
    for attack in ATTACKS:
        here, there = (run(on, attack, device=each).examples for each in ("cpu", device))
        changed = here.predicted != there.predicted
        apart = np.abs(here.confidence - there.confidence)[~changed]
        text = " ".join(str(each) for each in attack.values())
        clean = float((here.clean_predicted != there.clean_predicted).mean())
        attacked, furthest = float(changed.mean()), float(apart.max(initial=0.0))
        found.append(Equality(text, max(clean, attacked), furthest))
    return found


def compare(
    work: str,
    ours: Callable[[], object],
    others: dict[str, Callable[[], object]],
    size: NetworkSize,
) -> list[Ratio]:
    """Returns the time of each other library relative to ours, over rounds in turns."""
    everybody = {"gibbon": ours, **others}
    times: dict[str, list[float]] = {who: [] for who in everybody}
    started, rounds = time.monotonic(), 0
    while not rounds or time.monotonic() - started < size.seconds:
        for who, do in everybody.items():
            begun = time.perf_counter()
            do()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[who].append(time.perf_counter() - begun)
        rounds += 1
    if rounds > 1:  # the first round warms up
        times = {who: each[1:] for who, each in times.items()}
    mine = times["gibbon"]
    return [
        Ratio(
            work,
            who,
            statistics.median(mine),
            statistics.median(b / a for a, b in zip(mine, times[who], strict=True)),
            len(mine),
        )
        for who in others
    ]


def ratios(on: CheckedNetwork, size: NetworkSize, *, device: str) -> list[Ratio]:
    """Returns the times of other libraries that are installed, relative to ours."""
    module, epsilon = on.network.to(device), number(EPSILON)
    inputs, labels = on.inputs.to(device), on.labels.to(device)
    few, some, of_some = on.some(size.few), inputs[: size.few], labels[: size.few]
    step = 2.5 * epsilon / 20
    found = []
    pgd = {"name": "pgd", "steps": 20, "step_size": step, "random_start": False}
    works: list[tuple[str, str, dict[str, Any], Callable[[Any], Callable[[], object]]]] = [
        (
            "PGD, 20 steps",
            "torchattacks",
            pgd,
            lambda library: (
                lambda: library.PGD(module, eps=epsilon, alpha=step, steps=20, random_start=False)(
                    inputs, labels
                )
            ),
        ),
        (
            "AutoAttack",
            "pyautoattack",
            {"name": "autoattack"},
            lambda library: (
                lambda: library.AutoAttack(
                    module, norm="Linf", eps=epsilon, seed=0, device=device
                ).run_standard_evaluation(some, of_some, batch_size=len(some))
            ),
        ),
    ]
    for work, who, attack, make in works:
        try:
            library = importlib.import_module(who)
        except ImportError:
            continue
        whole = who == "torchattacks"
        ours = run_on_device(on if whole else few, attack, device=device)
        found += compare(work, ours, {who: make(library)}, size)
    return found


def run_on_device(
    on: CheckedNetwork, attack: dict[str, Any], *, device: str
) -> Callable[[], object]:
    """Returns our work: a whole call, whose data come from the host."""
    return lambda: run(on, attack, device=device)


def number(text: str) -> float:
    """Returns the number of a fraction such as ``1/255``."""
    numerator, _, denominator = text.partition("/")
    return float(numerator) / float(denominator or 1)


def main(arguments: Sequence[str]) -> int:
    """Runs all checks, writes the record, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check")
    parser.add_argument("record", type=Path, help="file to write")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--tiny", "--small", action="store_true", help="a network for a try on the CPU"
    )
    given = parser.parse_args(arguments)
    name = "tiny" if given.tiny else "resnet50"
    size = SIZES[name]
    warnings.simplefilter("ignore")
    equal = equalities(subject(size).some(size.few), device=given.device)
    timed = ratios(subject(size), size, device=given.device)
    cuda = given.device.startswith("cuda")
    record = {
        "device": torch.cuda.get_device_name(given.device) if cuda else given.device,
        "network": name,
        "examples": {"PGD": size.examples, "others": size.few},
        "torch": str(torch.__version__),
        "libraries": {each.who: version(each.who) for each in timed},
        "equality": [asdict(each) for each in equal],
        "ratios": [asdict(each) for each in timed],
    }
    given.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    lines = [
        f"{one.attack}: {one.changed:.2%} changed, confidences within {one.confidence:.2g}"
        for one in equal
    ]
    lines += [
        f"{each.work}: {each.who} takes {each.times_ours:.2f} times our {each.ours_seconds:.2f} s"
        for each in timed
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(any(each.changed > MOST_CHANGED for each in equal))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
