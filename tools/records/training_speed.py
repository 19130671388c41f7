"""Compares a training's processor time with that of its matrix products, and keeps a record.

    OMP_NUM_THREADS=1 python -m tools.records.training_speed

Both take turns, and the lowest figure of each counts.  The record, `results/training-speed/
record.json`, makes a table of `docs/training.md`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from gibbon.core.files import write_atomically
from gibbon_zoo.maxout import Maxout
from gibbon_zoo.recipe import Recipe, shipped_recipe
from gibbon_zoo.training import fit
from tools.pipe_table import pipe_table
from tools.records.machine import ROOT, processor

RECORD: Final = ROOT / "results" / "training-speed" / "record.json"
MODELS: Final = {"maxout": "plain", "maxout-adv": "adversarial objective"}
STEPS: Final = 100
ROUNDS: Final = 9


def training(recipe: Recipe, inputs: Tensor, labels: Tensor) -> Callable[[], object]:
    """Returns a function that trains a new network for one epoch."""
    short = recipe.model_copy(update={"epochs": 1, "stopping": None})

    def train() -> None:
        with tempfile.TemporaryDirectory() as folder:
            fit(
                Maxout(**recipe.sizes),
                short,
                inputs=inputs,
                labels=labels,
                checkpoint=Path(folder) / "checkpoint.pt",
                report=lambda _: None,
            )

    return train


def products(recipe: Recipe, *, steps: int) -> Callable[[], object]:
    """Returns a function that computes the matrix products of so many steps of a recipe.

    Of each layer: the forward product, the gradient of its weights, and that of its inputs, which
    the first layer needs for the adversarial perturbation alone.
    """
    layers = [each.detach() for each in Maxout(**recipe.sizes).unit_weights()]
    rows = [torch.rand(recipe.batch_size, each.shape[1]) for each in layers]
    deltas = [torch.rand(recipe.batch_size, each.shape[0]) for each in layers]
    adversarial = recipe.adversarial is not None

    def passes(*, to_inputs: bool) -> None:
        for number, (weight, row, delta) in enumerate(zip(layers, rows, deltas, strict=True)):
            row @ weight.T
            delta.T @ row
            if number or to_inputs:
                delta @ weight

    def compute() -> None:
        for _ in range(steps):
            passes(to_inputs=adversarial)
            if adversarial:
                passes(to_inputs=False)

    return compute


def lowest(*works: Callable[[], object], rounds: int) -> list[float]:
    """Returns the lowest processor time of each of several works, in seconds, after one of each."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds + 1):
        for work, taken in zip(works, times, strict=True):
            started = time.process_time()
            work()
            taken.append(time.process_time() - started)
    return [min(taken[1:]) for taken in times]


def measured(model: str, *, steps: int, rounds: int) -> dict[str, Any]:
    """Returns the seconds of a step of a model's recipe, and of its products."""
    recipe = shipped_recipe(model)
    draws = torch.Generator().manual_seed(0)
    inputs = torch.rand(steps * recipe.batch_size, 1, 28, 28, generator=draws)
    labels = torch.randint(10, (len(inputs),), generator=draws)
    least, taken = lowest(
        products(recipe, steps=steps), training(recipe, inputs, labels), rounds=rounds
    )
    return {"model": model, "products": least / steps, "training": taken / steps}


def speed_table(record: Path) -> str:
    """Returns the table of a record in markdown, with the processor below it."""
    content = json.loads(record.read_text(encoding="utf-8"))
    lines = [
        [
            f"{MODELS[row['model']]} (`{row['model']}`)",
            f"{1e3 * row['products']:.1f}",
            f"{1e3 * row['training']:.1f}",
            f"{row['training'] / row['products']:.2f}",
        ]
        for row in content["rows"]
    ]
    table = pipe_table(lines, ["milliseconds a step", "products alone", "training", "ratio"])
    machine = (
        f"{content['processor']}, {content['threads']} thread(s), torch {content['torch']}, "
        f"{content['date']}; the lowest of {content['rounds']} rounds of {content['steps']} steps."
    )
    return f"{table}\n\n{machine}"


def main() -> int:
    """Measures both recipes, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    content = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "rounds": given.rounds,
        "steps": given.steps,
        "rows": [measured(each, steps=given.steps, rounds=given.rounds) for each in MODELS],
    }
    given.record.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(given.record, json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
