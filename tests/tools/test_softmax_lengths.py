from __future__ import annotations

import pytest
import torch

from gibbon.datasets.base import Batch
from tools.zoo.softmax_lengths import RECORD, measured, softmax_table


def digits(count: int, *, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, 1, 28, 28, generator=generator)
    return Batch(torch.arange(count), inputs, inputs.flatten(1)[:, :10].argmax(1))


def test_a_longer_training_is_surer_of_noise() -> None:
    shown, unseen = digits(400, seed=0), digits(100, seed=1)
    short, long = (measured(each, shown, unseen) for each in (1.0, 40.0))
    assert short["noise"] < long["noise"]
    assert short["length"] == 1.0
    assert 0 < long["noise_confidence"] <= 1


def test_the_table_has_the_distance_from_the_published_numbers() -> None:
    lines = softmax_table(RECORD).splitlines()[2:]
    distances = [float(line.strip("|").split("|")[-1]) for line in lines[:-1]]
    assert min(distances) == pytest.approx(2.8, abs=0.5)
    assert "published" in lines[-1]
