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
from gibbon.report.content.chart_data.distance_curves import WholeCurves

INTERVAL: Final = "interval"
_TOGETHER: Final = {"success rate": "attack_success_rate", "worst-case error": "worst_case_error"}
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
    charts = {
        "Adversarial error against ε, with its Wilson 95 % interval": map(_band, attacks),
        "Confidence against ε": (
            _lines(
                f"{attack}: on misclassified, and on all examples",
                [f"{tag}/{attack}" for tag in _CONFIDENCE],
            )
            for attack in attacks
        ),
        "Success rate and worst-case error": (
            _lines(f"{title}, all attacks", [f"{tag}/{attack}" for attack in attacks])
            for title, tag in _TOGETHER.items()
        ),
        "Share of examples with an adversarial example within ε": (
            _lines(attack, [f"error_within/{attack}"])
            for attack in dict.fromkeys(label for _, _, label in whole)
        ),
    }
    categories = (Category(title=title, chart=list(each)) for title, each in charts.items())
    return Layout(category=[each for each in categories if attacks and each.chart])


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
