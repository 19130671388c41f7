"""Flags of attacks that change a few coordinates where the model's gradient is in many more.

In L∞ every coordinate may move by epsilon at no cost, and in L2 the best step is along the whole
gradient.  An attack that leaves most of the gradient unused, such as one that works in a corner,
is weaker than its norm allows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch

from gibbon.attacks.base import Attack, parameters_of
from gibbon.core.threat import Bounds, Norm
from gibbon.diagnostics.attack_advice import library_of
from gibbon.diagnostics.attacked_cell import AttackedCell
from gibbon.diagnostics.examination.observed import Observed
from gibbon.records.flags import Flag

NEARLY_ALL = 0.99  # of the sum of a gradient's sizes
PARTIAL = 0.3  # of the coordinates with a gradient; sound attacks changed 0.8 of them and more
LEAST = 5  # examples that moved
LOOKED_AT = 64  # first examples of a run, whose changed coordinates are counted
# Names of libraries' attacks, and of parameters, that say that few coordinates change by design.
ATTACKS = re.compile(
    r"sparse|jsma|saliency|pixel|pixle|patch|salt|pointwise|simba|zoo", re.IGNORECASE
)
PARAMETERS = re.compile(r"sparse|sparsity|pixels|patch|mask|region", re.IGNORECASE)


def gradient_share(observed: Observed, bounds: Bounds) -> float | None:
    """Returns the share of coordinates that hold nearly all of the gradient: a median.

    A coordinate at a bound which the gradient points out of does not count, since it can't move.
    None if the gradient of no example is known and not zero.
    """
    nearby = observed.nearby
    if nearby is None or nearby.gradient is None:
        return None
    gradient = nearby.gradient.float().flatten(1)
    inputs = observed.sample.inputs[: len(gradient)].cpu().flatten(1)
    stuck = ((inputs <= bounds.low) & (gradient < 0)) | ((inputs >= bounds.high) & (gradient > 0))
    sizes = gradient.abs().masked_fill(stuck, 0.0).double()
    sizes = sizes[sizes.isfinite().all(1) & (sizes.sum(1) > 0)]
    if not len(sizes):
        return None
    order = sizes.sort(dim=1, descending=True).values.cumsum(1)
    counts = (order < NEARLY_ALL * order[:, -1:]).sum(1) + 1
    return float(torch.median(counts)) / sizes.shape[1]


def is_partial_by_design(attack: Attack) -> bool:
    """Returns whether an attack, or a member of a list, declares that it changes few coordinates.

    It does by ``sparse = True`` or by the name of a parameter that is set; another library's attack
    by its own name.
    """
    if attack.made_of:
        return any(is_partial_by_design(each) for each in attack.made_of)
    if attack.sparse or (library_of(attack) and ATTACKS.search(type(attack).__name__)):
        return True
    given = (name for name, value in parameters_of(attack).items() if value is not None)
    return any(PARAMETERS.search(each) for each in given)


def partial_flags(cell: AttackedCell) -> Iterator[Flag]:
    """Yields the flag of an attack that changed few of the coordinates with a gradient."""
    changed, reach = cell.outcome.changed_share, cell.gradient_share
    if changed is None or reach is None or cell.attack is None or not cell.epsilon:
        return
    if cell.row.norm not in (Norm.LINF, Norm.L2) or is_partial_by_design(cell.attack):
        return
    # More may be counted, as the first of each batch; how many depends on the size of batches.
    first = np.arange(len(changed)) < LOOKED_AT
    moved = np.isfinite(changed) & (cell.outcome.distance > 0) & (cell.outcome.verdict == 0) & first
    count = int(moved.sum())
    if count < LEAST:
        return
    share = float(np.median(changed[moved]))
    if share >= PARTIAL * reach:
        return
    yield cell.flag(
        "partial-perturbation",
        figure=f"{share:.1%} against {reach:.1%}",
        sentence=f"the attack changed {share:.1%} of the coordinates of an input (median of "
        f"{count} examples), where {reach:.1%} of them hold {NEARLY_ALL:.0%} of the model's "
        "gradient and can move",
    )
