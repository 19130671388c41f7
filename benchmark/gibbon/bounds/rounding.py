r"""Error bounds of floating-point arithmetic.

A sum of n products, computed in any order with unit roundoff u, differs from the exact one by at
most :math:`\gamma_n = n u / (1 - n u)` times the sum of the products' sizes (N. J. Higham, Accuracy
and stability of numerical algorithms, 2002, section 3.1).  The bounds of this package add this
error to every operation as a perturbation of its own.
"""

from __future__ import annotations

import torch

FLOAT32 = 2.0**-24
# A GPU may round the factors of a product to TensorFloat-32, of which 10 bits are stored, before
# it sums in float32.
TENSOR_FLOAT = 2.0**-11
# Smallest normal float32: what is below may be flushed to zero.
TINY = 2.0**-126
# Our own float64 arithmetic errs by 2^-29 of a float32's: doubling the bound covers it.
OWN_SHARE = 2.0
# Of a sum or a product of a few float64 numbers, relative to the sizes of what is summed.
FLOAT64_SLACK = 2.0**-40
# Functions such as exp, in units of the last place of their result, with room to spare: their
# libraries promise at most 4.
FUNCTION_ULPS = 16


def rounding_factor(roundings: int, *, products: bool, tensor_float: bool) -> float:
    """Returns the largest error of a sum, as a share of the sum of its terms' sizes.

    Args:
        roundings: number of roundings that a term goes through; 0 for an operation without
            arithmetic.
        products: whether the terms are products that a matrix unit may compute.
        tensor_float: whether matrix units may round factors to TensorFloat-32.

    >>> rounding_factor(0, products=False, tensor_float=False)
    0.0
    >>> 1e-6 < rounding_factor(10, products=True, tensor_float=False) < 2e-6
    True
    """
    if roundings == 0:
        return 0.0
    total = roundings * FLOAT32
    if products and tensor_float:
        total += 3 * TENSOR_FLOAT  # both factors, and the product of their errors
    if total >= 1:
        return float("inf")
    return OWN_SHARE * total / (1 - total)


def uses_tensor_float(device: torch.device) -> bool:
    """Returns whether products may be rounded to TensorFloat-32 on a device."""
    if device.type == "cpu":
        # oneDNN and the Arm compute library may, if the user allows it.
        return torch.get_float32_matmul_precision() != "highest"
    return (
        torch.backends.cuda.matmul.allow_tf32
        or torch.backends.cudnn.allow_tf32
        or torch.get_float32_matmul_precision() != "highest"
    )
