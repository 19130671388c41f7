"""A dataset from a factory: MNIST's first test pictures under Gaussian noise."""

import torch
from torch import Tensor

from gibbon.datasets import DATASETS, DataRequest


def load(deviation: float = 0.1, count: int = 1000) -> tuple[Tensor, Tensor]:
    """Returns pictures, float32, shape (N, 1, 28, 28), in [0, 1], and labels, int64, shape (N,)."""
    data = DATASETS.load("mnist")(DataRequest())
    batch = data.batch(torch.arange(count).numpy())
    generator = torch.Generator().manual_seed(0)
    noise = deviation * torch.randn(batch.inputs.shape, generator=generator)
    return (batch.inputs + noise).clamp(0.0, 1.0), batch.labels
