"""The table of the figures on models' cards, with all trainings of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gibbon_zoo.card import Card, Figures, read_card
from tools.pipe_table import pipe_table

HEADERS = (
    *("model", "seeds", "clean", "FGSM / confidence", "naive FGSM / confidence"),
    "clipped FGSM",
)


def cards_table(folder: Path, models: Sequence[str]) -> str:
    """Returns a row for each model, with the figures of its seeds in the order of the card."""
    lines = [_line(read_card(folder / f"{model}.json")) for model in models]
    return pipe_table(lines, HEADERS, left=len(HEADERS))


def _line(card: Card) -> list[str]:
    trainings = [card.training, *card.other_trainings]

    def of_all(text: Callable[[Figures], str]) -> str:
        return " · ".join(text(each.figures) for each in trainings)

    return [
        card.model,
        ", ".join(str(each.seed) for each in trainings),
        of_all(lambda found: percent(found.clean_error, 2)),
        of_all(lambda found: pair(found.fgsm_error, found.fgsm_confidence)),
        of_all(lambda found: pair(found.fgsm_naive_error, found.fgsm_naive_confidence)),
        of_all(lambda found: percent(found.fgsm_clipped_error, 1)),
    ]


def pair(error: float, confidence: float | None) -> str:
    """Returns an error and a confidence in per cent, with a dash for one that is not known."""
    return f"{percent(error, 1)} / {percent(confidence, 1)}"


def percent(share: float | None, digits: int) -> str:
    """Returns a share in per cent, with a dash for one that is not known."""
    return "\N{EN DASH}" if share is None else f"{100 * share:.{digits}f}"
