"""The two controls: noise of the right size and distribution, and no pass through a model."""

import nets
import pytest
import torch
from torch import Tensor

from gibbon.attacks.noise_sign import NoiseSign
from gibbon.attacks.noise_uniform import NoiseUniform
from gibbon.core.rng import ExampleStreams
from gibbon.datasets.base import Batch
from gibbon.models.pass_count import PassCount

KINDS = {"uniform": NoiseUniform(), "sign": NoiseSign()}
LARGE = nets.random_batch(2_000)


def direction(attack, batch: Batch, *, key: int = 0, kind=nets.mlp) -> Tensor:
    streams = ExampleStreams.derive(key, batch.ids)
    return attack.direction(kind(), batch.inputs, labels=batch.labels, streams=streams)


def test_sign_noise_is_plus_or_minus_epsilon_with_equal_probability():
    noise = direction(KINDS["sign"], LARGE)
    assert set(noise.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(noise.mean())) < 5 / noise.numel() ** 0.5


def test_uniform_noise_fills_the_box_evenly():
    noise = direction(KINDS["uniform"], LARGE).double()
    assert float(noise.min()) >= -1
    assert float(noise.max()) < 1
    assert abs(float(noise.mean())) < 5 * (1 / 3 / noise.numel()) ** 0.5
    assert float(noise.var()) == pytest.approx(1 / 3, rel=0.02)
    shares = torch.histc(noise, bins=10, min=-1, max=1) / noise.numel()
    assert float((shares - 0.1).abs().max()) < 5 * (0.09 / noise.numel()) ** 0.5


@pytest.mark.parametrize("attack", KINDS.values(), ids=KINDS)
def test_noise_asks_no_model(attack, batch):
    mlp = nets.mlp()
    direction(attack, batch, kind=lambda: mlp)
    assert mlp.passes == PassCount()
    assert torch.equal(direction(attack, batch), direction(attack, batch, kind=nets.linear))


@pytest.mark.parametrize("attack", KINDS.values(), ids=KINDS)
def test_noise_belongs_to_the_example_and_the_key(attack, batch):
    noise = direction(attack, batch)
    assert torch.equal(noise, direction(attack, batch))
    assert not torch.equal(noise, direction(attack, batch, key=1))
    rows = noise.flatten(1)
    assert len(rows.unique(dim=0)) == len(rows)


def test_the_two_noises_differ(batch):
    assert not torch.equal(
        direction(KINDS["uniform"], batch).sign(), direction(KINDS["sign"], batch)
    )
