r"""A model whose outputs are no logits: the nearest class mean, as a `Classifier` in full.

Each class has a Gaussian around its mean, and stands for itself:

.. math:: p(y = k \mid x) = \exp\bigl(-\lVert x - \mu_k \rVert^2 / s\bigr)

The outputs are the logarithms of these probabilities, which do not sum to 1: the rule `LOG_SCORES`
says so, and Gibbon takes its confidence and its loss from it.  A model that returns logits needs
no `Classifier`: a factory that returns the module is enough.
"""

import torch
from torch import Tensor, nn

from gibbon import Bounds, Classifier
from gibbon.datasets import DATASETS, DataRequest
from gibbon.models.outputs import LOG_SCORES


class Means(nn.Module):
    """Maps pictures, shape (N, 1, 28, 28), to the log-scores of the classes, shape (N, K)."""

    def __init__(self, means: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("means", means)  # shape (K, 784)
        self.register_buffer("scale", scale)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs.flatten(1)
        squares = (rows[:, None] - self.means).square().sum(2)
        return -squares / self.scale


def build(examples: int = 5000) -> Classifier:
    """Returns the model, from the class means of the first training examples."""
    data = DATASETS.load("mnist")(DataRequest(split="train"))
    batch = data.batch(torch.arange(examples).numpy())
    rows = batch.inputs.flatten(1)
    means = torch.stack([rows[batch.labels == label].mean(0) for label in range(10)])
    scale = (rows - means[batch.labels]).square().sum(1).mean()
    return Classifier(
        Means(means, scale),
        classes=10,
        input_shape=(1, 28, 28),
        outputs=LOG_SCORES,
        bounds=Bounds(0.0, 1.0),
    )
