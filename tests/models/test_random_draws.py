"""Random numbers of a model's rows belong to the rows' examples."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gibbon.core.rng import ExampleStreams
from gibbon.models.random_draws import draws_by_row, predicted_draws, row_numbers

ROWS, WIDTH = 600, 60


def streams(count: int = ROWS) -> ExampleStreams:
    return ExampleStreams.derive(7, torch.arange(count))


def zeros(count: int) -> Tensor:
    return torch.zeros(count, WIDTH)


# An operation on a batch of this many rows, with the mean and the deviation of its numbers.
OPERATIONS: dict[str, tuple[Callable[[int], Tensor], float, float]] = {
    "rand": (lambda n: torch.rand(n, WIDTH), 0.5, 12**-0.5),
    "rand_like": (lambda n: torch.rand_like(zeros(n)), 0.5, 12**-0.5),
    "randn": (lambda n: torch.randn(n, WIDTH), 0, 1),
    "randn_like, double": (lambda n: torch.randn_like(zeros(n).double()), 0, 1),
    "uniform_": (lambda n: zeros(n).uniform_(-1, 3), 1, 4 * 12**-0.5),
    "normal_": (lambda n: zeros(n).normal_(2, 3), 2, 3),
    "normal": (lambda n: torch.normal(zeros(n) + 1, 2.0), 1, 2),
    "normal of a size": (lambda n: torch.normal(1.0, 2.0, (n, WIDTH)), 1, 2),
    "bernoulli": (lambda n: torch.bernoulli(zeros(n) + 0.25), 0.25, 0.433),
    "bernoulli_": (lambda n: zeros(n).bernoulli_(0.25), 0.25, 0.433),
    "boolean": (lambda n: zeros(n).bool().bernoulli_(0.25).float(), 0.25, 0.433),
    "dropout": (lambda n: functional.dropout(zeros(n) + 1, 0.5), 1, 1),
    "native_dropout": (lambda n: torch.native_dropout(zeros(n) + 1, 0.5, True)[0], 1, 1),
    "randint": (lambda n: torch.randint(0, 4, (n, WIDTH)).float(), 1.5, 1.118),
    "randint, high": (lambda n: torch.randint(4, (n, WIDTH)).float(), 1.5, 1.118),
    "random_": (lambda n: zeros(n).random_(0, 4), 1.5, 1.118),
    "exponential_": (lambda n: zeros(n).exponential_(2.0), 0.5, 0.5),
    "multinomial": (
        lambda n: torch.multinomial(torch.tensor([[0.25, 0.75]]).expand(n, 2), WIDTH, True).float(),
        0.75,
        0.433,
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_numbers_have_their_distribution(name: str) -> None:
    operation, mean, deviation = OPERATIONS[name]
    with row_numbers(streams(), seed=0):
        drawn = operation(ROWS)
    assert drawn.shape == (ROWS, WIDTH)
    error = 5 * deviation / (ROWS * WIDTH) ** 0.5
    assert float(drawn.double().mean()) == pytest.approx(mean, abs=error)
    assert float(drawn.double().std()) == pytest.approx(deviation, rel=0.03)
    assert len({tuple(row) for row in drawn[:20].tolist()}) == 20  # no two rows alike


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_row_keeps_its_numbers_in_any_batch(name: str) -> None:
    operation, _, _ = OPERATIONS[name]
    chosen = torch.tensor([5, 2, 7])
    with row_numbers(streams(9), seed=0):
        whole = [operation(9), operation(9)]
    with row_numbers(streams(9).take(chosen), seed=1):
        part = [operation(3), operation(3)]
    for one, other in zip(whole, part, strict=True):
        assert torch.equal(one[chosen], other)
    assert not torch.equal(whole[0], whole[1])


def test_the_type_and_the_global_state_are_kept() -> None:
    before = torch.get_rng_state()
    with row_numbers(streams(4), seed=0):
        assert torch.rand(4, 2, dtype=torch.float64).dtype == torch.float64
        assert torch.randint(3, (4,)).dtype == torch.int64
        assert torch.rand(4, 2).dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), before)


class Noisy(nn.Module):
    """Adds what ``noise`` draws for a batch of that many rows."""

    def __init__(self, noise: Callable[[int], Tensor | float]) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.noise(len(inputs))


OWN = torch.Generator()
KINDS: dict[str, tuple[Callable[[int], Tensor | float], bool]] = {
    "no numbers": (lambda n: 0.0, True),
    "rows": (lambda n: torch.randn(n, 3), True),
    "rows, a generator of its own": (lambda n: torch.randn(n, 3, generator=OWN), True),
    "one number for the batch": (lambda n: torch.randn(1), False),
    "as many as the test batch has rows": (lambda n: torch.randn(3), False),
    "random": (lambda n: random.random(), False),  # noqa: S311
    "numpy": (lambda n: float(np.random.rand()), False),  # noqa: NPY002
    "the operating system": (lambda n: float(os.urandom(1)[0]), False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_draws_of_an_example_do_not_depend_on_the_batch(kind: str) -> None:
    noise, by_row = KINDS[kind]
    module, inputs = Noisy(noise), torch.rand(6, 3)
    assert draws_by_row(module, inputs) is by_row

    def drawn(rows: list[int]) -> Tensor:
        part = torch.tensor(rows)
        return predicted_draws(
            module, inputs[part], streams=streams(6).take(part), count=4, by_row=by_row
        )

    every = drawn([0, 1, 2, 3, 4, 5])
    assert every.shape == (4, 6, 3)
    if kind != "the operating system":
        assert torch.allclose(drawn([4, 1]), every[:, [4, 1]])
    if kind != "no numbers":
        noise_of = every - inputs
        assert len(set(noise_of[:, 0, 0].tolist())) > 1  # the draws of an example differ
        assert len(set(noise_of[0, :, 0].tolist())) > 1  # and so do examples


def test_numbers_for_the_whole_batch_that_come_late_are_noticed() -> None:
    quiet = Noisy(lambda n: torch.randn(1) if n > 3 else 0.0)
    inputs = torch.zeros(6, 3)
    assert draws_by_row(quiet, inputs)
    found = predicted_draws(quiet, inputs, streams=streams(6), count=2, by_row=True)
    assert (found == 0).all()  # one example at a time, it draws nothing
