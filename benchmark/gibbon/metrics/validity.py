"""What is asked of every candidate, whoever asks: its form, its distance, its place in the box.

The trust boundary (`gibbon.verify`) asks for all attacks, and an attack made of others
(`gibbon.attacks.worst_of`) for its members: nobody's claim is believed.
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
    """Candidates and what is wrong with them, if anything.

    Args:
        candidates: shape (N, *input_shape); the clean input stands where one is not valid.
        verdict: int64, shape (N,), a `Verdict` each.
        distance: float32, shape (N,), in the norm of the threat model.
        sound: whether all of them are valid.
    """

    candidates: Tensor
    verdict: Tensor
    distance: Tensor
    sound: bool


def check_form(candidates: object, inputs: Tensor, *, what: str) -> None:
    """Raises `AttackError` where these are no tensor of the inputs' shape and dtype."""
    if not isinstance(candidates, Tensor):
        raise AttackError(f"a {what} must be a tensor, got {type(candidates).__name__}")
    if candidates.shape != inputs.shape or candidates.dtype != inputs.dtype:
        raise AttackError(
            f"a {what} must have shape {tuple(inputs.shape)} and dtype {inputs.dtype}, "
            f"got {tuple(candidates.shape)} and {candidates.dtype}"
        )


def check(candidates: Tensor, inputs: Tensor, *, threat: ThreatModel, bounds: Bounds) -> Checked:
    """Returns which candidates are finite, in the budget and in the box of the threat model.

    Args:
        candidates: shape (N, *input_shape).
        inputs: of the same shape.
        threat: the norm, the budget and the box to stay in.
        bounds: where the model's inputs live; their size says how much may be rounding.
    """
    # One look at the extremes is enough where all is well, as it nearly always is: the comparisons
    # are false for NaN, and an infinite coordinate has an infinite distance.
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
        # Whatever a model says of a point that does not count must not spoil the others.
        valid = verdict == Verdict.VALID
        candidates = torch.where(like(valid, inputs), candidates, inputs)
    return Checked(candidates, verdict, distance, sound)


def tolerance(threat: ThreatModel, *, bounds: Bounds, coordinates: int) -> float:
    """Returns by how much a candidate may overstep epsilon, in the units of the input."""
    if threat.norm is Norm.LINF:
        return LINF_TOLERANCE * bounds.width
    if threat.norm is Norm.L1:
        return L1_TOLERANCE * bounds.width * coordinates
    return L2_TOLERANCE * bounds.width * math.sqrt(coordinates)


def outside(candidates: Tensor, bounds: Bounds, *, slack: float) -> Tensor:
    """Says which candidates leave the box by more than ``slack``, bool, shape (N,)."""
    flat = candidates.flatten(1)
    return (flat.amin(1) < bounds.low - slack) | (flat.amax(1) > bounds.high + slack)
