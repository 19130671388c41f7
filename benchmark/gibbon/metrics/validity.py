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
from gibbon.metrics.distances import lengths_, like

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


@dataclass(frozen=True)
class CandidateDistances:
    """Distances of candidates from their inputs, and the extremes that decide if all are valid.

    Args:
        distance: float32, shape (N,), in the requested norm.
        farthest: the largest distance.
        lowest: the smallest coordinate of all candidates.
        highest: the largest one.
    """

    distance: Tensor
    farthest: float
    lowest: float
    highest: float


def measure_candidates(groups: Tensor, inputs: Tensor, *, norm: Norm) -> list[CandidateDistances]:
    """Measures groups of candidates for the same inputs, with one read from the device.

    Args:
        groups: shape (groups, N, *input_shape).
        inputs: shape (N, *input_shape).
        norm: the norm of the distances.
    """
    count, flat = len(groups), groups.flatten(1)
    distance = lengths_((groups - inputs).view(count * len(inputs), -1), norm=norm).view(count, -1)
    # One pass over large groups; over a dimension it takes twenty times as long on a CPU.
    ends = torch.aminmax(flat) if count == 1 else (flat.amin(1), flat.amax(1))
    extremes = torch.stack([distance.amax(1), *(each.view(count) for each in ends)], 1).tolist()
    return [
        CandidateDistances(one, *ends)
        for one, ends in zip(distance.unbind(), extremes, strict=True)
    ]


def check_form(candidates: object, inputs: Tensor, *, what: str) -> None:
    """Raises `AttackError` unless these are a tensor of the inputs' shape and dtype."""
    if not isinstance(candidates, Tensor):
        raise AttackError(f"a {what} must be a tensor, got {type(candidates).__name__}")
    if candidates.shape != inputs.shape or candidates.dtype != inputs.dtype:
        raise AttackError(
            f"a {what} must have shape {tuple(inputs.shape)} and dtype {inputs.dtype}, "
            f"got {tuple(candidates.shape)} and {candidates.dtype}"
        )


def check(
    candidates: Tensor,
    inputs: Tensor,
    *,
    threat: ThreatModel,
    bounds: Bounds,
    measured: CandidateDistances | None = None,
) -> Checked:
    """Checks that candidates are finite, within the budget and within the threat model's box.

    Args:
        candidates: shape (N, *input_shape).
        inputs: of the same shape.
        threat: the norm, the budget and the box.
        bounds: the model's bounds, whose width scales the tolerance for rounding.
        measured: the candidates in the norm, if they were measured with others.
    """
    # Reading the extremes suffices if all candidates are valid, as they nearly always are: the
    # comparisons are false for NaN, and an infinite coordinate has an infinite distance.
    if measured is None:
        (measured,) = measure_candidates(candidates.unsqueeze(0), inputs, norm=threat.norm)
    distance = measured.distance
    reach = threat.radius + tolerance(threat, bounds=bounds, coordinates=inputs[0].numel())
    box, slack = threat.bounds, LINF_TOLERANCE * bounds.width
    within = box is None or (
        measured.lowest >= box.low - slack and measured.highest <= box.high + slack
    )
    verdict = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
    sound = measured.farthest <= reach and within
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
