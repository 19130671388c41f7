"""Trains what recipes were chosen by, and measures it, with the shipped networks beside it.

    python -m tools.zoo.trials [--data-dir FOLDER] [--scratch FOLDER] [TABLE...]

`tools/zoo/trials.toml` lists tables of trials.  A trial is a shipped recipe with other fields,
trained on the training examples but a sixth, the last of one seeded shuffle, and measured on these;
or a shipped network, measured on the test examples.  PGD is measured on 1,000 of the examples.
Figures are written to `results/the-paper/trials.json` after each trial, and a trial whose figures
it holds is not repeated; `docs/training.md` has its tables from there.  An interrupted training
continues from its checkpoint if the folder of these is given (``--scratch``).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

import gibbon
from gibbon.core.files import write_atomically
from gibbon.datasets import Split
from gibbon.datasets.base import Batch, sample_ids
from gibbon.models.classifier import Classifier
from gibbon_zoo.card import read_card
from gibbon_zoo.early_stopping import validation_split
from gibbon_zoo.learner import HeldExamples
from gibbon_zoo.measurement import clean_error, measure
from gibbon_zoo.recipe import TEXTS, Recipe, shipped_recipe, validated
from gibbon_zoo.weights_folder import WEIGHTS
from gibbon_zoo.zoo import EPSILONS, build
from tools.records.machine import ROOT, processor
from tools.zoo.networks import load_split, trained_classifier

LIST: Final = Path(__file__).with_suffix(".toml")
RECORD: Final = ROOT / "results" / "the-paper" / "trials.json"
SHARE: Final = 6  # one of so many training examples is held out
SAMPLE: Final = 1_000  # examples under PGD
UNIT_SAMPLE: Final = 3_000  # training examples that units are measured on
EPSILON: Final = 0.25


@dataclass(frozen=True)
class Trial:
    """A network that is trained or taken, and measured.

    Args:
        table: name of its table.
        label: first cell of its row.
        columns: names of the other cells.
        recipe: of the training, or the shipped network's.
        shipped: name of the shipped network that is measured; None for a training.
    """

    table: str
    label: str
    columns: tuple[str, ...]
    recipe: Recipe
    shipped: str | None = None

    @property
    def split(self) -> Split:
        """The split that it is measured on, or on the held-out part of."""
        return "train" if self.shipped is None else "test"

    def key(self) -> dict[str, Any]:
        """Returns what must be equal in a record for its figures to be this trial's."""
        if self.shipped is None:
            made: dict[str, Any] = {"recipe": self.recipe.model_dump(mode="json", exclude={*TEXTS})}
        else:
            made = {"weights": read_card(WEIGHTS / f"{self.shipped}.json").sha256}
        return {"table": self.table, "label": self.label, "columns": [*self.columns], **made}


@dataclass(frozen=True)
class TrialTable:
    """Trials that are compared.

    Args:
        name: as in the list.
        heading: head of the first column.
        columns: names of the others.
        trials: its rows.
    """

    name: str
    heading: str
    columns: tuple[str, ...]
    trials: tuple[Trial, ...]


def tables(file: Path = LIST) -> list[TrialTable]:
    """Returns the tables of a list.  Raises `SpecError` if a recipe is not valid."""
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    return [_table(each) for each in content["table"]]


def _table(given: Mapping[str, Any]) -> TrialTable:
    columns = tuple(given["columns"])
    trials = tuple(
        Trial(given["name"], row["label"], columns, _recipe(given, row), row.get("shipped"))
        for row in given["trials"]
    )
    return TrialTable(given["name"], given["heading"], columns, trials)


def _recipe(table: Mapping[str, Any], row: Mapping[str, Any]) -> Recipe:
    name = row.get("shipped") or row.get("recipe") or table["recipe"]
    fields = merged(shipped_recipe(name).model_dump(), row.get("fields", {}))
    return validated(Recipe, fields, where=f"{table['name']}, {row['label']}")


def merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested fields with some replaced; an empty table replaces a whole one.

    >>> merged({"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 4}}, {"b": {"c": 5}, "e": {}})
    {'a': 1, 'b': {'c': 5, 'd': 3}, 'e': {}}
    """
    found = dict(before)
    for name, value in changes.items():
        inside = found.get(name)
        if isinstance(value, Mapping) and isinstance(inside, Mapping) and value:
            value = merged(inside, value)
        found[name] = value
    return found


def measured(
    trial: Trial, examples: Batch, unseen: Batch, classifier: Classifier
) -> dict[str, float | None]:
    """Returns the figures of a trial's columns.

    Args:
        trial: the trial.
        examples: training examples.
        unseen: the examples that errors are measured on.
        classifier: the network.
    """
    epsilon = float(EPSILONS.get(trial.recipe.dataset, EPSILON))
    inputs, labels = unseen.inputs, unseen.labels
    found = measure(classifier, inputs=inputs, labels=labels, epsilon=epsilon)
    figures: dict[str, float | None] = {
        "clean": found.clean_error,
        "mean confidence": found.mean_clean_confidence,
        "fgsm": found.fgsm_error,
        "fgsm confidence": found.fgsm_confidence,
        "naive": found.fgsm_naive_error,
        "naive confidence": found.fgsm_naive_confidence,
        "clipped": found.fgsm_clipped_error,
    }
    for column in trial.columns:
        if column == "train":
            figures[column] = clean_error(
                classifier, inputs=examples.inputs, labels=examples.labels
            )
        elif column == "weights":
            figures[column] = float(next(classifier.module.parameters()).detach().abs().sum())
        elif column == "units":
            first, second = unit_sizes(classifier.module, examples.inputs[:UNIT_SAMPLE])
            figures |= {"units 1": first, "units 2": second}
        elif column.startswith(("pgd ", "noise-sign ")):
            figures[column] = attack_error(classifier, unseen, column)
    return figures


def attack_error(classifier: Classifier, unseen: Batch, column: str) -> float:
    """Returns the error under an attack: ``pgd STEPS EPSILON`` or ``noise-sign EPSILON``.

    Noise is not clipped, as FGSM is not; PGD is.
    """
    name, *steps, epsilon = column.split()
    attack: dict[str, Any] = {"name": name} | ({"steps": int(steps[0])} if steps else {})
    low, high = classifier.bounds.low, classifier.bounds.high
    count = min(SAMPLE, len(unseen.labels)) if steps else len(unseen.labels)
    results = gibbon.evaluate(
        classifier,
        (unseen.inputs[:count], unseen.labels[:count]),
        attack=attack,
        epsilon=epsilon,
        clip=bool(steps),
        bounds=None if (low, high) == (0, 1) else (low, high),
        error_only=True,
        transfer=False,
        examination=False,
        certify="none",
        device="cpu",
        progress=False,
    )
    return results.adversarial_error


def unit_sizes(module: nn.Module, inputs: Tensor) -> list[float]:
    """Returns the mean absolute output of the units of each hidden layer.

    Args:
        module: a network whose hidden layers are called ``hidden1``, ``hidden2`` and so on.
        inputs: shape (N, ...).
    """
    found: list[float] = []
    layers = [layer for name, layer in module.named_children() if name.startswith("hidden")]
    hooks = [
        layer.register_forward_hook(lambda _, __, out: found.append(float(out.abs().mean())))
        for layer in layers
    ]
    with torch.no_grad():
        module(inputs)
    for hook in hooks:
        hook.remove()
    return found


def carried_out(trial: Trial, *, data_dir: Path | None, scratch: Path) -> dict[str, Any]:
    """Returns the record of a trial.

    Args:
        trial: the trial.
        data_dir: folder of data that do not come with Gibbon.
        scratch: folder of checkpoints.
    """
    started = time.perf_counter()
    examples = _examples(trial, "train", data_dir)
    if trial.shipped is not None:
        unseen, classifier = _examples(trial, "test", data_dir), build(trial.shipped)
    else:
        held_out = len(examples.labels) // SHARE
        kept, left = validation_split(
            len(examples.labels), held_out=held_out, seed=trial.recipe.seed
        )
        examples, unseen = (HeldExamples(examples).take(each).batch for each in (kept, left))
        stem = "".join(each if each.isalnum() else "-" for each in f"{trial.table} {trial.label}")
        classifier = trained_classifier(trial.recipe, examples, stem=scratch / stem)
    figures = measured(trial, examples, unseen, classifier)
    return {
        **trial.key(),
        "split": trial.split,
        "measured_on": len(unseen.labels),
        "figures": figures,
        "seconds": round(time.perf_counter() - started, 1),
        "processor": processor(),
        "torch": str(torch.__version__),
    }


def _examples(trial: Trial, split: Split, data_dir: Path | None) -> Batch:
    """Returns a split's examples; the test split's begin with its fixed sample."""
    dataset = load_split(trial.recipe.dataset, split, data_dir)
    order = np.arange(len(dataset), dtype=np.int64)
    if split == "test":
        sample = sample_ids(dataset, SAMPLE)
        order = np.concatenate([sample, np.setdiff1d(order, sample)])
    return dataset.batch(order)


def missing(trials: Sequence[Trial], record: Sequence[Mapping[str, Any]]) -> list[Trial]:
    """Returns the trials whose figures a record does not hold."""
    return [each for each in trials if found_in(record, each) is None]


def found_in(record: Sequence[Mapping[str, Any]], trial: Trial) -> Mapping[str, Any] | None:
    """Returns the record of a trial, or None."""
    key = trial.key()
    return next((row for row in record if key.items() <= row.items()), None)


def main() -> int:
    """Carries out the trials that the record lacks, and writes it after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "tables", nargs="*", metavar="TABLE", help="tables of the list; all if none"
    )
    parser.add_argument("--data-dir", type=Path, help="folder of data that don't come with Gibbon")
    parser.add_argument("--scratch", type=Path, help="folder of checkpoints")
    parser.add_argument("--record", type=Path, default=RECORD)
    given = parser.parse_args()
    known = tables()
    everything = [trial for table in known for trial in table.trials]
    record = json.loads(given.record.read_text()) if given.record.exists() else []
    wanted = [each for each in everything if not given.tables or each.table in given.tables]
    waiting = missing(wanted, record)
    given_folder = nullcontext(given.scratch) if given.scratch else None
    with given_folder or tempfile.TemporaryDirectory() as scratch:
        for number, trial in enumerate(waiting, 1):
            row = carried_out(trial, data_dir=given.data_dir, scratch=Path(scratch))
            rows = [*record, row]
            # In the order of the list; what no longer stands in it is left out.
            found = (found_in(rows, each) for each in everything)
            record = [each for each in found if each is not None]
            write_atomically(given.record, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
            sys.stderr.write(
                f"{number} of {len(waiting)}: {trial.table}, {trial.label}: {row['seconds']} s\n"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
