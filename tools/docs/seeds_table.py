"""The table of all seeds of a training that early stopping ended."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from gibbon_zoo.card import Card, read_card
from tools.docs.cards_table import pair, percent
from tools.docs.training_table import best_row
from tools.pipe_table import pipe_table

HEADERS = (
    *("seed", "best epoch", "clean there", "naive FGSM / confidence there", "second part"),
    *("clean, test", "naive FGSM / confidence, test", "exact FGSM / confidence, test"),
)


def seeds_table(folder: Path) -> str:
    """Returns a row for each ``seed-N`` in a model's folder, and their mean, in markdown.

    Each seed's folder holds the card and the log, named after the model's folder.  The best epoch
    is the one with the lowest clean error on the held-out examples.

    Raises `FileNotFoundError` if the folder has no such seeds.
    """
    seeds = sorted(folder.glob("seed-*"), key=lambda seed: int(seed.name.removeprefix("seed-")))
    if not seeds:
        raise FileNotFoundError(f"{folder} has no folders seed-N")
    found = [_figures(seed, folder.name) for seed in seeds]
    lines = [_line(*each) for each in found]
    means = [mean(column) for column in zip(*(figures for _, figures in found), strict=True)]
    last = ["mean", "", *_held_out(means[:3]), "", *_tested(means[3:])]
    return pipe_table([*lines, last], HEADERS, left=0)


def _figures(seed: Path, model: str) -> tuple[Card, list[float]]:
    card = read_card(seed / f"{model}.json")
    with (seed / f"{model}.log.csv").open(encoding="utf-8", newline="") as file:
        best = best_row(list(csv.DictReader(file)))
    test = card.training.figures
    held_out = ("clean_error", "adversarial_error", "adversarial_confidence")
    return card, [
        *(float(best[column]) for column in held_out),
        *(test.clean_error, test.fgsm_naive_error, test.fgsm_naive_confidence or 0.0),
        *(test.fgsm_error, test.fgsm_confidence or 0.0),
    ]


def _line(card: Card, figures: Sequence[float]) -> list[str]:
    training = card.training
    second = "" if training.second_epochs is None else f"{training.second_epochs} epochs"
    return [
        *(str(training.seed), str(training.epochs)),
        *(*_held_out(figures[:3]), second, *_tested(figures[3:])),
    ]


def _held_out(figures: Sequence[float]) -> list[str]:
    clean, error, confidence = figures
    return [percent(clean, 2), pair(error, confidence)]


def _tested(figures: Sequence[float]) -> list[str]:
    clean, *attacked = figures
    return [percent(clean, 2), pair(*attacked[:2]), pair(*attacked[2:])]
