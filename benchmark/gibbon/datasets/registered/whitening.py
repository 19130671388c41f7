r"""Contrast normalisation and ZCA whitening of pictures, as of maxout networks on CIFAR-10.

Of a picture's coordinates x, in any unit:

.. math::
    g = s \frac{x - \bar x}{\lVert x - \bar x \rVert_2}, \qquad
    w = U (\Lambda + b I)^{-1/2} U^\top (g - \mu),

where :math:`\mu` and :math:`U \Lambda U^\top` are mean and covariance of g over the training
split.  With s = 55 and b = 0.1 the whitened coordinates of CIFAR-10 have a standard deviation of
roughly 0.5, which Goodfellow et al. (2015) name in a footnote.

Sources: A. Coates, H. Lee and A. Ng, "An analysis of single-layer networks in unsupervised feature
learning", AISTATS 2011, section 3.1, https://proceedings.mlr.press/v15/coates11a.html; I. J.
Goodfellow et al., "Maxout networks", ICML 2013, section 5.2, https://arxiv.org/abs/1302.4389, and
the numbers of its authors' script.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

SCALE = 55.0  # the length of a picture after contrast normalisation
FILTER_BIAS = 0.1  # added to each variance
FLAT = 1e-8  # a picture of one colour has no contrast, and stays at zero


@dataclass(frozen=True)
class Whitening:
    """A whitening transform, computed from the training split.

    Args:
        mean: float32, shape (D,).
        matrix: float32, shape (D, D), symmetric.
    """

    mean: Tensor
    matrix: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        """Returns whitened pictures, of the shape (N, ...) of the inputs, float32."""
        rows = contrast_normalised(inputs.flatten(1))
        return ((rows - self.mean) @ self.matrix).view_as(inputs)


def contrast_normalised(rows: Tensor) -> Tensor:
    """Returns rows with mean 0 and length `SCALE`, shape (N, D).

    >>> contrast_normalised(torch.tensor([[0.0, 2.0], [3.0, 3.0]]))
    tensor([[-38.8909,  38.8909],
            [  0.0000,   0.0000]])
    """
    centred = rows - rows.mean(1, keepdim=True)
    lengths = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    return SCALE * centred / torch.where(lengths < FLAT, 1.0, lengths)


def learn_whitening(batches: Iterable[Tensor]) -> Whitening:
    """Returns the whitening of pictures that come in batches of shape (N, ...), float32.

    The covariance is summed, and its eigenvectors are found, in float64.
    """
    count = 0
    total = square = torch.zeros((), dtype=torch.float64)
    for batch in batches:
        rows = contrast_normalised(batch.flatten(1))
        count += len(rows)
        total = total + rows.sum(0, dtype=torch.float64)
        square = square + (rows.T @ rows).double()
    mean = total / count
    variances, vectors = torch.linalg.eigh(square / count - torch.outer(mean, mean))
    # The smallest variances may round to below zero.
    scales = (variances.clamp(min=0.0) + FILTER_BIAS).rsqrt()
    return Whitening(mean.float(), ((vectors * scales) @ vectors.T).float())
