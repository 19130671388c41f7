"""Streams: SplitMix64 as published, one stream an example, whatever the batch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gibbon.core.rng import ExampleStreams, derive_key

MASK = (1 << 64) - 1
# Sebastiano Vigna's splitmix64.c gives these numbers for the seed 1234567; they are the usual test
# vector of the generator.
PUBLISHED_SEED = 1234567
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]

keys = st.integers(-(2**63), 2**63 - 1)
shapes = st.lists(st.integers(1, 5), max_size=3).map(tuple)


def mix(state: int) -> int:
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def splitmix64(seed: int, count: int) -> list[int]:
    """Steele, Lea and Flood's generator, one number after the other."""
    numbers = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        numbers.append(mix(seed))
    return numbers


def streams_of(*keys: int) -> ExampleStreams:
    return ExampleStreams(torch.tensor(keys, dtype=torch.int64))


def bits_of(streams: ExampleStreams, count: int) -> list[list[int]]:
    return [[number & MASK for number in row] for row in streams._bits((count,)).tolist()]


def test_the_numbers_are_the_published_ones():
    assert splitmix64(PUBLISHED_SEED, 5) == PUBLISHED
    assert bits_of(streams_of(PUBLISHED_SEED), 5) == [PUBLISHED]


@given(keys, st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_numbers_can_be_drawn_piece_by_piece(seed, counts):
    streams = streams_of(seed)
    pieces, drawn = [], 0
    for count in counts:
        pieces.append(streams.uniform((count,), skip=drawn))
        drawn += count
    assert torch.equal(torch.cat(pieces, dim=1), streams.uniform((drawn,)))


@given(st.lists(keys, min_size=1, max_size=5), st.integers(1, 20))
def test_the_numbers_are_those_of_a_slow_reference(seeds, count):
    expected = [splitmix64(seed & MASK, count) for seed in seeds]
    assert bits_of(streams_of(*seeds), count) == expected


@given(keys, shapes)
def test_uniform_numbers_are_the_top_bits(seed, shape):
    drawn = streams_of(seed).uniform(shape)
    expected = [(each >> 40) / 2**24 for each in splitmix64(seed & MASK, math.prod(shape))]
    assert drawn.shape == (1, *shape)
    assert drawn.dtype == torch.float32
    assert drawn.flatten().tolist() == expected
    assert bool(((drawn >= 0) & (drawn < 1)).all())


@given(keys, shapes)
def test_signs_are_the_top_bit(seed, shape):
    expected = [-1.0 if each >> 63 else 1.0 for each in splitmix64(seed & MASK, math.prod(shape))]
    assert streams_of(seed).signs(shape).flatten().tolist() == expected


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 10**6), min_size=1, unique=True))
def test_what_is_drawn_depends_on_the_example_alone(key, ids):
    whole = ExampleStreams.derive(key, torch.tensor(ids)).uniform((3,))
    backwards = ExampleStreams.derive(key, torch.tensor(ids[::-1])).uniform((3,))
    alone = [ExampleStreams.derive(key, torch.tensor([each])).uniform((3,)) for each in ids]
    assert torch.equal(whole, torch.cat(alone))
    assert torch.equal(whole, backwards.flip(0))


def test_drawing_more_does_not_change_the_first():
    streams = streams_of(1, 2, 3)
    assert torch.equal(streams.uniform((10,))[:, :4], streams.uniform((4,)))
    assert torch.equal(streams.uniform((2, 3)), streams.uniform((6,)).view(3, 2, 3))


def test_the_same_call_gives_the_same_numbers():
    streams = streams_of(1, 2)
    assert torch.equal(streams.normal((5,)), streams.normal((5,)))
    assert torch.equal(streams.child("a").keys, streams.child("a").keys)


def test_taking_some_examples_takes_their_streams():
    streams = streams_of(1, 2, 3)
    chosen = streams.take(torch.tensor([True, False, True]))
    assert torch.equal(chosen.uniform((4,)), streams.uniform((4,))[[0, 2]])


def test_the_keys_are_not_changed():
    streams = streams_of(1, 2)
    streams.uniform((3,))
    streams.child(0).signs((3,))
    assert streams.keys.tolist() == [1, 2]


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    streams_of(1).normal((100,))
    assert torch.equal(before, torch.get_rng_state())


COUNT = 400_000
LARGE = ExampleStreams.derive(derive_key("moments"), torch.arange(400))


def standard_error(deviation: float) -> float:
    return deviation / math.sqrt(COUNT)


@pytest.mark.parametrize(
    ("draw", "mean", "deviation", "fourth"),
    [
        (lambda s: s.uniform((1000,)), 0.5, math.sqrt(1 / 12), 1 / 80),
        (lambda s: s.signs((1000,)), 0.0, 1.0, 1.0),
        (lambda s: s.normal((1000,)), 0.0, 1.0, 3.0),
    ],
    ids=["uniform", "signs", "normal"],
)
def test_moments(draw, mean, deviation, fourth):
    values = draw(LARGE).double().numpy()
    assert abs(values.mean() - mean) < 5 * standard_error(deviation)
    variance_error = math.sqrt((fourth - deviation**4) / COUNT)
    assert abs(values.var() - deviation**2) < 5 * variance_error + 1e-5
    assert abs(((values - mean) ** 4).mean() - fourth) < 0.05 * max(fourth, 0.05)


def test_normal_numbers_follow_the_distribution_into_the_tails():
    values = LARGE.normal((1000,)).flatten()
    assert bool(torch.isfinite(values).all())
    for bound in (-3.0, -1.0, 0.0, 1.0, 3.0):
        expected = 0.5 * (1 + math.erf(bound / math.sqrt(2)))
        error = math.sqrt(expected * (1 - expected) / COUNT)
        assert abs(float((values < bound).double().mean()) - expected) < 5 * error


def test_normal_numbers_are_finite_at_the_ends_of_the_uniform_ones(monkeypatch):
    ends = torch.tensor([[0.0, 1 - 2.0**-24]])
    monkeypatch.setattr(ExampleStreams, "uniform", lambda self, shape: ends.clone())
    low, high = streams_of(0).normal((2,))[0].tolist()
    assert -6 < low < -5
    assert high == -low


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(np.corrcoef(one.flatten().numpy(), other.flatten().numpy())[0, 1])


@pytest.mark.parametrize(
    "other",
    [
        lambda: LARGE.child(0),
        lambda: LARGE.child(0).child(0),
        lambda: ExampleStreams.derive(derive_key("moments", 2), torch.arange(400)),
        lambda: ExampleStreams.derive(derive_key("moments"), torch.arange(1, 401)),
    ],
    ids=["child", "grandchild", "another key", "the next examples"],
)
def test_streams_are_not_correlated(other):
    assert abs(correlation(LARGE.uniform((1000,)), other().uniform((1000,)))) < 5 / COUNT**0.5


def test_children_of_different_labels_differ():
    labels = [0, 1, "0", "radius", "direction"]
    assert len({tuple(LARGE.child(label).keys.tolist()) for label in labels}) == len(labels)


@given(st.lists(st.integers() | st.text(), min_size=1, max_size=4))
def test_a_derived_key_is_a_63_bit_number_and_stable(parts):
    key = derive_key(*parts)
    assert 0 <= key < 2**63
    assert key == derive_key(*parts)


def test_a_derived_key_depends_on_every_part_and_on_their_order():
    seen = [derive_key(*parts) for parts in [(0, 1), (1, 0), ("0", 1), (0,), (0, 1, 1), ("01",)]]
    assert len(set(seen)) == len(seen)
