"""Checks of candidates: shape and dtype, finiteness, distance and bounds.

The trust boundary (`gibbon.verify.judge`) checks every attack's candidates, and a list of attacks
(`gibbon.attacks.worst_of`) those of its members.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon.core.errors import AttackError
from gibbon.core.threat import Bounds, Norm, ThreatModel, Verdict
from gibbon.metrics.distances import distances, like

# How far a candidate may overstep by rounding.  Adding epsilon to a float32 of the size of the
# bounds errs by at most 2^-24 of that size, once a step; a Euclidean norm over d coordinates adds
# up the errors of all of them, and so does the sum of their absolute values.
LINF_TOLERANCE = 1e-6
L2_TOLERANCE = 2.0**-23
L1_TOLERANCE = 2.0**-23


@dataclass(frozen=True)
class Checked:
    """Candidates with a verdict on each.

    Args:
        candidates: shape (N, *input_shape); the clean input in place of an invalid one.
        verdict: int64, shape (N,), a `Verdict` each.
        distance: float32, shape (N,), in the norm of the threat model.
        sound: whether all are valid.
    """

    candidates: Tensor
    verdict: Tensor
    distance: Tensor
    sound: bool


def check_form(candidates: object, inputs: Tensor, *, what: str) -> None:
    """Raises `AttackError` unless these are a tensor of the inputs' shape and dtype."""
    if not isinstance(candidates, Tensor):
        raise AttackError(f"a {what} must be a tensor, got {type(candidates).__name__}")
    if candidates.shape != inputs.shape or candidates.dtype != inputs.dtype:
        raise AttackError(
            f"a {what} must have shape {tuple(inputs.shape)} and dtype {inputs.dtype}, "
            f"got {tuple(candidates.shape)} and {candidates.dtype}"
        )


def check(candidates: Tensor, inputs: Tensor, *, threat: ThreatModel, bounds: Bounds) -> Checked:
    """Checks that candidates are finite, within the budget and within the threat model's box.

    Args:
        candidates: shape (N, *input_shape).
        inputs: of the same shape.
        threat: the norm, the budget and the box.
        bounds: the model's bounds, whose width scales the tolerance for rounding.
    """
    # Reading the extremes suffices if all candidates are valid, as they nearly always are: the
    # comparisons are false for NaN, and an infinite coordinate has an infinite distance.
    distance = distances(candidates, inputs, norm=threat.norm)
    reach = threat.radius + tolerance(threat, bounds=bounds, coordinates=inputs[0].numel())
    box, slack = threat.bounds, LINF_TOLERANCE * bounds.width
    extremes = [distance.amax()] if box is None else [distance.amax(), *torch.aminmax(candidates)]
    farthest, *ends = torch.stack(extremes).tolist()
    within = box is None or (ends[0] >= box.low - slack and ends[1] <= box.high + slack)
    verdict = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
    sound = farthest <= reach and within
    if not sound:
        finite = torch.isfinite(distance)
        verdict[distance > reach] = Verdict.OUT_OF_BUDGET
        if box is not None:
            verdict[outside(candidates, box, slack=slack)] = Verdict.OUT_OF_BOUNDS
        verdict[~finite] = Verdict.NOT_FINITE
        # The model's outputs for an invalid point must not fail the others.
        valid = verdict == Verdict.VALID
        candidates = torch.where(like(valid, inputs), candidates, inputs)
    return Checked(candidates, verdict, distance, sound)


def tolerance(threat: ThreatModel, *, bounds: Bounds, coordinates: int) -> float:
    """Returns the tolerance by which a candidate may exceed epsilon, in units of the input."""
    if threat.norm is Norm.LINF:
        return LINF_TOLERANCE * bounds.width
    if threat.norm is Norm.L1:
        return L1_TOLERANCE * bounds.width * coordinates
    return L2_TOLERANCE * bounds.width * math.sqrt(coordinates)


def outside(candidates: Tensor, bounds: Bounds, *, slack: float) -> Tensor:
    """Returns which candidates leave the box by more than ``slack``, bool, shape (N,)."""
    flat = candidates.flatten(1)
    return (flat.amin(1) < bounds.low - slack) | (flat.amax(1) > bounds.high + slack)
