"""Estimates of what a bound costs, in forward passes of the model for one example.

They count multiplications of matrices and convolutions in float32.  Operations on single numbers
in float64 are limited by the memory and count as many of these, as measured on two processors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from gibbon.bounds.linear_bounds import PASSAGES, intervals_are_exact
from gibbon.bounds.network import AffineOperation, Network, NonlinearOperation
from gibbon.core.threat import Norm
from gibbon.records.proofs import ProofMethod

FLOAT64 = 2  # multiplications in float32 that one in float64 takes the time of
RANGE_PASSES = 3  # of an affine operation: middle, half-width, size of the rounding

# Multiplications that the work on one number takes the time of: on the range of a value; on a
# coefficient of a function that passes lines; and of one that ends at the input, by the norm.
RANGE, LINES = 200, 300
END: Final[Mapping[Norm, int]] = {Norm.LINF: 250, Norm.L1: 1000, Norm.L2: 4000}


def bounding_passes(network: Network, method: ProofMethod, norm: Norm) -> float:
    """Returns the estimated cost of bounding one example, in forward passes in float32.

    >>> from torch import nn, ones
    >>> from gibbon.bounds.tracing import trace
    >>> network = trace(nn.Linear(784, 10), ones(1, 784))
    >>> bounding_passes(network, "exact", Norm.LINF) < bounding_passes(network, "exact", Norm.L2)
    True
    """
    upstream = _upstream(network)
    sizes = [math.prod(node.shape) for node in network.nodes]
    inputs, rivals = sizes[0], network.classes - 1
    work = FLOAT64 * RANGE_PASSES * upstream[-1] + RANGE * sum(sizes)
    nonlinear = [
        (position, node)
        for position, node in enumerate(network.nodes)
        if isinstance(node.operation, NonlinearOperation)
    ]
    if not nonlinear:
        together = norm is Norm.LINF  # every pair of classes, by one product
        ends = FLOAT64 * 2 * network.classes if together else END[norm]
        return round((work + rivals * inputs * ends) / max(1, network.work), 1)
    last = nonlinear[-1][0]
    work += rivals * (FLOAT64 * (upstream[-1] - upstream[last]) + LINES * sizes[last])
    through = FLOAT64 * upstream[-1] + END[norm] * inputs
    through += LINES * sum(sizes[position] for position, _ in nonlinear)
    if method == "crown":
        work *= 2  # the ranges are computed again
        work += len(PASSAGES) * rivals * through
    for position, node in nonlinear:
        if intervals_are_exact(network, norm, node.inputs):
            continue
        first = all(network.affine[each] for each in node.inputs)
        passages = (len(PASSAGES) if method == "crown" else 0) if not first else 1
        if first and method == "ibp" and norm is Norm.LINF:
            passages = 0
        before = [each for each, _ in nonlinear if each < position]
        each_function = END[norm] * inputs + LINES * sum(sizes[each] for each in before)
        # The part that is equal for all examples is followed back once for many of them.
        shared = upstream[before[-1]] if before else 0
        work += passages * sizes[position] * (each_function + FLOAT64 * shared)
    return round(work / max(1, network.work), 1)


def _upstream(network: Network) -> Sequence[int]:
    """Returns the multiplications of each node and all before it."""
    found, total = [], 0
    for node in network.nodes:
        if isinstance(node.operation, AffineOperation):
            total += node.operation.work
        found.append(total)
    return found
