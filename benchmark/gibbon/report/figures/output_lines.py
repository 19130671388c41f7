"""The figure of a sweep: the outputs of each model for one example, against epsilon.

Source: Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015,
figure 4, https://arxiv.org/abs/1412.6572.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gibbon.records.swept_outputs import SweptOutputs
from gibbon.report.figures.plots import house_style, rendered

_LEGEND = 10  # classes that a legend names
_PANELS_A_ROW = 2


def sweep_figure(swept: Sequence[SweptOutputs], suffix: str) -> bytes:
    """Returns the figure of the first example as ``.svg`` or ``.png``, one panel a model."""
    digest = hashlib.sha256()
    for each in swept:
        digest.update(each.outputs[0].tobytes())
    columns = min(len(swept), _PANELS_A_ROW)
    rows = -(-len(swept) // columns)
    with house_style():
        figure = Figure(figsize=(4.6 * columns, 3.3 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for each, axis in zip(swept, axes, strict=False):
            _draw(axis, each)
        for axis in axes[len(swept) :]:
            axis.set_axis_off()
        if swept[0].outputs.shape[2] <= _LEGEND:
            handles, names = axes[0].get_legend_handles_labels()
            figure.legend(handles, names, loc="outside right center", title="class", frameon=False)
        first = swept[0]
        figure.set_label(
            f"Outputs of {', '.join(each.model for each in swept)} for example {first.ids[0]} of "
            f"{first.dataset}, of class {first.labels[0]}, from ε = {first.epsilons[0]:g} to "
            f"{first.epsilons[-1]:g} along the direction of {first.attack}"
        )
        return rendered(figure, suffix, digest.hexdigest())


def _draw(axis: Axes, swept: SweptOutputs) -> None:
    classes = swept.outputs.shape[2]
    colours = colormaps["tab10" if classes <= _LEGEND else "viridis"]
    for index in range(classes):
        true = index == swept.labels[0]
        axis.plot(
            swept.epsilons,
            swept.outputs[0, :, index],
            color=colours(index if classes <= _LEGEND else index / classes),
            linewidth=2.6 if true else 1.1,
            label=f"{index} (true)" if true else str(index),
        )
    axis.axvline(0, color="0.6", linewidth=0.8)
    axis.set_title(swept.model, fontsize=10)
    axis.set_xlabel("ε")
    axis.set_ylabel("log score" if swept.rule == "log-scores" else "logit")
