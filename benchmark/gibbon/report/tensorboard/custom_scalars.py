"""The layout of TensorBoard's dashboard of custom scalars."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Chart,
    Layout,
    MarginChartContent,
    MultilineChartContent,
)

from gibbon.records.run import RunRecord
from gibbon.report.content.distance_curves import WholeCurves

INTERVAL: Final = "interval"
_CONFIDENCE: Final = ("confidence_on_misclassified", "mean_confidence")


def scalar_layout(record: RunRecord, whole: WholeCurves) -> Any:
    """Returns the layout: error with its interval, confidence, success and worst-case error.

    All models are lines of one chart, since their tags are equal.
    """
    attacks = tuple(
        dict.fromkeys(
            attack.label for experiment in record.suite.experiments for attack in experiment.attacks
        )
    )
    searched = tuple(dict.fromkeys(label for _, _, label in whole))
    categories = [
        Category(
            title="Adversarial error against ε, with its Wilson 95 % interval",
            chart=[_band(attack) for attack in attacks],
        ),
        Category(
            title="Confidence against ε",
            chart=[
                _lines(
                    f"{attack}: on misclassified, and on all examples",
                    [f"{tag}/{attack}" for tag in _CONFIDENCE],
                )
                for attack in attacks
            ],
        ),
        Category(
            title="Success rate and worst-case error",
            chart=[
                _lines(
                    "success rate, all attacks",
                    [f"attack_success_rate/{attack}" for attack in attacks],
                ),
                _lines(
                    "worst-case error, all attacks",
                    [f"worst_case_error/{attack}" for attack in attacks],
                ),
            ],
        ),
    ]
    if searched:
        categories.append(
            Category(
                title="Share of examples with an adversarial example within ε",
                chart=[_lines(attack, [f"error_within/{attack}"]) for attack in searched],
            )
        )
    return Layout(category=[each for each in categories if attacks])


def _band(attack: str) -> Any:
    series = MarginChartContent.Series(
        value=f"adversarial_error/{attack}",
        lower=f"{INTERVAL}_low/{attack}",
        upper=f"{INTERVAL}_high/{attack}",
    )
    return Chart(title=attack, margin=MarginChartContent(series=[series]))


def _lines(title: str, tags: Iterable[str]) -> Any:
    patterns = [f"^{re.escape(tag)}$" for tag in tags]
    return Chart(title=title, multiline=MultilineChartContent(tag=patterns))
