"""Flags of models that are computed in another number format than their owner's."""

from __future__ import annotations

from collections.abc import Iterator

from gibbon.records.flag_share import FlagShare
from gibbon.records.flags import Flag
from gibbon.records.run import PredictionChange

MOST_CHANGED = 0.01  # of the predictions: differences of a point between errors are claimed


def changed_prediction_flags(
    dataset: str, model: str, change: PredictionChange | None
) -> Iterator[Flag]:
    """Yields a flag if more than `MOST_CHANGED` of the predictions for clean inputs differ.

    Args:
        dataset: the dataset's name.
        model: the model's name.
        change: the predictions that differ from those in float32; None if it is computed so.
    """
    if change is not None and change.share > MOST_CHANGED:
        yield Flag(
            kind="changed-predictions",
            dataset=dataset,
            model=model,
            share=FlagShare(count=change.changed, of=change.of),
            sentence=f"{change.sentence}: errors are those of another model, by as much or more",
        )
