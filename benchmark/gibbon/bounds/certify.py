"""Proofs for examples: a lower bound of the smallest margin on a ball, by each method.

The margin of an example is its true class's output minus the largest other one.  The matrix of
differences is merged into what lies after the last nonlinear operation (Gowal et al. 2018, section
3), so that interval bounds don't lose what the outputs share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gibbon.bounds.balls import Ball, ball_around
from gibbon.bounds.interval_bounds import Enclosure, enclose
from gibbon.bounds.linear_bounds import (
    PASSAGES,
    Functions,
    Passage,
    bound_functions,
    chunk_of,
    crown,
    first_layers,
)
from gibbon.bounds.network import Network
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.records.proofs import ProofMethod

FINAL_RTOL, FINAL_ATOL = 1e-3, 1e-5  # of softmax outputs, whose rounding is not bounded


@dataclass(frozen=True)
class Certificates:
    """Lower bounds of margins.

    Args:
        margin: float64, shape (N,): no point of the ball has a smaller margin; minus infinity if
            nothing is known.
        proved: bool, shape (N,): whether every point of the ball is classified correctly.
        forward_passes, backward_passes: ranges of the whole network that were computed, and linear
            functions that were followed back, by example.
    """

    margin: Tensor
    proved: Tensor
    forward_passes: int = 0
    backward_passes: int = 0

    def or_better(self, other: Certificates) -> Certificates:
        """Returns the larger bound of each example."""
        return Certificates(torch.maximum(self.margin, other.margin), self.proved | other.proved)


def certify(
    network: Network,
    inputs: Tensor,
    labels: Tensor,
    *,
    threat: ThreatModel,
    bounds: Bounds,
    method: ProofMethod,
    tensor_float: bool = False,
) -> Certificates:
    """Returns lower bounds of the margins of examples over all points of a threat model.

    Args:
        network: a traced network, on the inputs' device.
        inputs: shape (N, *input_shape).
        labels: int64, shape (N,).
        threat: norm, epsilon and box.
        bounds: the model's bounds.
        method: ``exact`` for an affine network, whose bound no method can improve beyond rounding;
            ``ibp``, or ``crown``, which is never below ``ibp``.
        tensor_float: whether the model's products may be rounded to TensorFloat-32.

    >>> from torch import nn
    >>> from gibbon.bounds.tracing import trace
    >>> from gibbon.core.threat import Epsilon
    >>> net, inputs = nn.Linear(2, 2, bias=False), torch.tensor([[1.0, 0.0]])
    >>> _ = net.weight.data.copy_(torch.eye(2))
    >>> threat = ThreatModel(Norm.LINF, Epsilon.parse("0.25"), None)
    >>> found = certify(trace(net, inputs), inputs, torch.tensor([0]), threat=threat,
    ...     bounds=Bounds(0, 1), method="exact")
    >>> round(found.margin.item(), 4), found.proved.item()
    (0.5, True)
    """
    ball = ball_around(inputs, threat, bounds=bounds)
    if method == "exact" and not network.is_affine:
        raise ValueError("the network is not affine: its bound is not exact")
    box = ball.norm is Norm.LINF or network.is_affine
    intervals = (enclose if box else first_layers)(network, ball, tensor_float=tensor_float)
    enclosures, found = [intervals], _certificates(intervals, labels, "ranges")
    if method == "crown":
        enclosures.append(crown(network, ball, tensor_float=tensor_float))
        for passage in ("ranges", *PASSAGES):
            found = found.or_better(_certificates(enclosures[1], labels, passage))
    return replace(
        found,
        forward_passes=len(enclosures) * len(labels),
        backward_passes=sum(each.functions for each in enclosures),
    )


def follows(network: Network, inputs: Tensor, outputs: Tensor, *, tensor_float: bool) -> bool:
    """Returns whether a network computes the outputs of the module that it was traced from.

    They must lie within the bounds of float32 rounding of the network's own.

    Args:
        network: the network.
        inputs: shape (N, *input_shape).
        outputs: the module's outputs for them, shape (N, K).
        tensor_float: as in `certify`.
    """
    centre = inputs.double()
    ball = Ball(centre, Norm.LINF, 0.0, centre, centre)
    low, high = enclose(network, ball, tensor_float=tensor_float).ranges[-1]
    if not network.final:
        return bool(((low <= outputs) & (outputs <= high)).all())
    final = torch.softmax if network.final == "softmax" else torch.log_softmax
    made = final((low + high) / 2, 1)
    return bool(torch.isclose(made, outputs.double(), rtol=FINAL_RTOL, atol=FINAL_ATOL).all())


def _certificates(enclosure: Enclosure, labels: Tensor, passage: Passage) -> Certificates:
    """Returns the lower bounds of the margins, from the ranges of all nodes."""
    network, device = enclosure.network, labels.device
    classes, count = network.classes, len(labels)
    others = torch.arange(classes, device=device).expand(count, -1)
    others = others[others != labels.unsqueeze(1)]
    owners = torch.arange(count, device=device).repeat_interleave(classes - 1)
    last, step = len(network.nodes) - 1, chunk_of(network)
    lowest = []
    for start in range(0, len(owners), step):
        owner, other = owners[start : start + step], others[start : start + step]
        pairs = labels[owner] * classes + other
        codes, which = torch.unique(pairs, return_inverse=True)
        unit = torch.zeros(len(codes), classes, dtype=torch.float64, device=device)
        unit.scatter_(1, (codes % classes).unsqueeze(1), -1.0)
        unit.scatter_(1, (codes // classes).unsqueeze(1), 1.0)
        margins = Functions({last: unit}, which, owner)
        lowest.append(bound_functions(enclosure, margins, passage=passage, exact=True)[0])
    margin = torch.cat(lowest).view(count, classes - 1).amin(1)
    margin = torch.where(margin.isnan(), -torch.inf, margin)
    low, high = enclosure.ranges[-1]
    needed = network.output_slack * (1 + torch.maximum(low.abs(), high.abs()).amax(1))
    return Certificates(margin, margin > needed)
