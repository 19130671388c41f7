"""Draws of a model that answers at random, seeded for each example.

A model draws from global generators, one sequence for a whole batch: an example's numbers then
depend on the examples beside it.  Here, while a model runs, each random operation whose first axis
is the batch (noise on the inputs, dropout) takes the numbers of row i from a stream of the example
in row i (`gibbon.core.rng.ExampleStreams`), so that batch size, order and sharding change nothing.

Numbers that are drawn for the whole batch, such as one size for all pictures, are seeded too, but
cannot belong to an example.  `draws_by_row` tells the two kinds of models apart, by two short
batches of unlike size.  A model of the second kind is judged one example at a time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gibbon.core.rng import ExampleStreams, derive_key, seeded_globals

DEFAULT_DRAWS = 20  # of a model whose answers differ from call to call
SEED_BITS = 63
EXACT_SPAN = 2**24  # whole numbers below this are drawn from a float32 without gaps
SIZES = (2, 3)  # of the batches that show which numbers belong to rows
STEADY = 1e-4  # share of the largest output by which equal seeds may differ, on a GPU


@dataclass(frozen=True)
class Draws:
    """The draws of a model's random numbers that a judgement of an input is made from.

    Args:
        count: number of draws; 1 for a model that answers equal inputs alike.
        key: key of the random streams.
        by_row: whether all random numbers belong to rows (`draws_by_row`); None if unknown.
    """

    count: int = 1
    key: int = 0
    by_row: bool | None = None

    def streams(self, ids: Tensor, purpose: str) -> ExampleStreams:
        """Returns the streams of examples, independent for each purpose."""
        return ExampleStreams.derive(self.key, ids).child(purpose)


ONE_DRAW = Draws()


class _NotByRow(Exception):  # noqa: N818  # no error: the caller runs the model in another way
    """A random operation draws for the whole batch."""


class RowNumbers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Replaces random numbers of a batch's rows by numbers from the rows' streams.

    Args:
        streams: one stream for each row of the batch.
        strict: whether to raise an exception at numbers that are drawn for the whole batch, which
            otherwise come from the global generators.

    Attributes:
        shared: whether such numbers were drawn.
    """

    def __init__(self, streams: ExampleStreams, *, strict: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shared = False
        self._streams, self._strict, self._calls = streams, strict, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Runs one operation of torch."""
        named = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in function.tags:
            return function(*args, **named)
        if named.get("generator") is not None:
            named["generator"] = None  # a generator that the model keeps is not seeded
        rows = len(self._streams.keys)
        if _leading(args) == rows:
            self._calls += 1
            streams = self._streams.child(self._calls)
            drawn = _drawn(function, args, named, streams)
            return _one_by_one(function, args, named, streams) if drawn is None else drawn
        self.shared = True
        if self._strict:
            raise _NotByRow
        return function(*args, **named)


@contextmanager
def row_numbers(
    streams: ExampleStreams, *, seed: int, strict: bool = False
) -> Iterator[RowNumbers]:
    """Seeds the random numbers of a forward pass, for a ``with`` block.

    Args:
        streams: one stream for each row of the batch.
        seed: seeds the global generators, for numbers that are drawn for the whole batch.
        strict: as in `RowNumbers`.

    >>> streams = ExampleStreams.derive(7, torch.tensor([3, 5]))
    >>> with row_numbers(streams, seed=0):
    ...     both = torch.rand(2, 4)
    >>> with row_numbers(streams.take(torch.tensor([1])), seed=0):
    ...     bool((torch.rand(1, 4) == both[1]).all())
    True
    """
    mode = RowNumbers(streams, strict=strict)
    with seeded_globals(seed, streams.keys.device), mode:
        yield mode


def draws_by_row(module: nn.Module, inputs: Tensor) -> bool:
    """Returns whether all random numbers of a module belong to rows of its batch.

    It is found by running the module on a few copies of the first input, shape (N, *input_shape).
    True for a module without random numbers; False if they can't be seeded.
    """
    return all(_repeats(module, inputs[:1], size) for size in SIZES)


@torch.no_grad()
def _repeats(module: nn.Module, one: Tensor, size: int) -> bool:
    """Returns whether a batch draws by row only, and alike from equal seeds."""
    rows = one.detach().expand(size, *one.shape[1:]).clone()
    streams = ExampleStreams.derive(0, torch.arange(size, device=one.device))
    outputs = []
    for _ in range(2):
        with row_numbers(streams, seed=0) as mode:
            before = _python_states()
            outputs.append(module(rows))
            if mode.shared or _python_states() != before:
                return False
    first, second = outputs
    return bool((first - second).abs().max() <= STEADY * first.abs().max())


def predicted_draws(
    predict: Callable[[Tensor], Tensor],
    inputs: Tensor,
    *,
    streams: ExampleStreams,
    count: int,
    by_row: bool,
) -> Tensor:
    """Returns the outputs of a number of draws, shape (draws, N, K).

    The draws of an example are independent of each other and of the other examples' draws.  They
    depend on its stream alone, if the model's random numbers come from torch, numpy or random.

    Args:
        predict: returns a model's outputs, shape (N, K).
        inputs: shape (N, *input_shape).
        streams: one stream for each example.
        count: the number of draws.
        by_row: see `draws_by_row`; if False, each example is a batch of its own.
    """
    numbers = range(count)
    if by_row:
        with suppress(_NotByRow):  # it draws for the whole batch after all
            return torch.stack(
                [_together(predict, inputs, streams.child(each)) for each in numbers]
            )
    return torch.stack([_alone(predict, inputs, streams.child(each)) for each in numbers])


def _together(
    predict: Callable[[Tensor], Tensor], inputs: Tensor, streams: ExampleStreams
) -> Tensor:
    """Returns the outputs of one draw, shape (N, K), from one batch."""
    with row_numbers(streams, seed=0, strict=True):
        return predict(inputs)


def _alone(predict: Callable[[Tensor], Tensor], inputs: Tensor, streams: ExampleStreams) -> Tensor:
    """Returns the outputs of one draw, shape (N, K), with each example in a batch of its own."""
    outputs = []
    for row, seed in enumerate(seeds_of(streams)):
        with seeded_globals(seed, inputs.device):
            outputs.append(predict(inputs[row : row + 1]))
    return torch.cat(outputs)


def seeds_of(streams: ExampleStreams) -> list[int]:
    """Returns a seed for the global generators from each stream."""
    return [key % 2**SEED_BITS for key in streams.keys.tolist()]


def shared_seed(key: int, *parts: int) -> int:
    """Returns the seed of numbers that are drawn for a whole batch."""
    return derive_key(key, "numbers of a whole batch", *parts)


def _python_states() -> tuple[object, ...]:
    kind, keys, position, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), kind, np.asarray(keys).tobytes(), position, *rest


def _leading(args: Any) -> int | None:
    """Returns the first axis of the result of a random operation."""
    for each in args:
        if isinstance(each, Tensor):
            return each.shape[0] if each.ndim else None
        if isinstance(each, list | tuple | torch.Size):
            return each[0] if each else None
    return None


def _drawn(function: Any, args: Any, named: Any, streams: ExampleStreams) -> Any:
    """Returns the result of a common operation for all rows at once; None for any other."""
    name = function.overloadpacket.__name__
    place = _place(name, args, named)
    if place is None or not (place.is_floating_point() or name in WHOLE):
        return None
    shape, given = place.shape[1:], args[1:]
    values: Tensor | None = None
    if name in ("rand", "rand_like"):
        values = streams.uniform(shape)
    elif name in ("randn", "randn_like"):
        values = streams.normal(shape)
    elif name == "uniform_":
        low, high = _pair(given)
        values = streams.uniform(shape) * (high - low) + low
    elif name == "normal_":
        mean, std = _pair(given)
        values = streams.normal(shape) * std + mean
    elif name == "normal" and isinstance(args[0], Tensor):
        values = args[0] + streams.normal(shape) * (given[0] if given else 1.0)
    elif name in ("bernoulli", "bernoulli_"):
        chance = given[0] if given else args[0] if name == "bernoulli" else 0.5
        values = streams.uniform(shape) < chance
    elif name == "randint":
        low, high = (0, args[0]) if isinstance(args[1], list) else args[:2]
        if high - low <= EXACT_SPAN:
            values = (streams.uniform(shape) * (high - low)).floor() + low
    elif name == "native_dropout" and args[2] is not False and args[1] < 1:
        kept = streams.uniform(shape) >= args[1]
        return args[0] * kept / (1 - args[1]), kept
    if values is None:
        return None
    return args[0].copy_(values) if name.endswith("_") else values.to(place.dtype)


def _pair(given: Sequence[Any]) -> tuple[Any, Any]:
    """Returns two numbers, which are 0 and 1 as far as they are not given."""
    return given[0] if given else 0.0, given[1] if len(given) > 1 else 1.0


WHOLE = ("randint", "bernoulli_", "bernoulli")  # whose results need not be floating-point numbers


def _place(name: str, args: Any, named: Any) -> Tensor | None:
    """Returns a tensor, never read, of the shape, dtype and device of an operation's result."""
    first = args[0] if args else None
    if isinstance(first, Tensor):
        kind, device = named.get("dtype") or first.dtype, named.get("device") or first.device
        return torch.empty(first.shape, dtype=kind, device=device)
    size = next((each for each in args if isinstance(each, list | tuple)), None)
    if size is None or name not in ("rand", "randn", "randint"):
        return None
    kind = named.get("dtype") or (torch.int64 if name == "randint" else None)
    return torch.empty(size, dtype=kind, device=named.get("device"))


def _one_by_one(function: Any, args: Any, named: Any, streams: ExampleStreams) -> Any:
    """Returns the result of an operation that is run for each row, from a seeded generator."""
    rows, device = len(streams.keys), streams.keys.device

    def part(value: Any, row: int) -> Any:
        if isinstance(value, Tensor) and value.ndim and len(value) == rows:
            return value[row : row + 1]
        if isinstance(value, list | tuple) and value and value[0] == rows:
            return [1, *value[1:]]
        return value

    results = []
    for row, seed in enumerate(seeds_of(streams)):
        with seeded_globals(seed, device):
            own = {key: part(value, row) for key, value in named.items()}
            results.append(function(*(part(each, row) for each in args), **own))
    if function.overloadpacket.__name__.endswith("_"):
        return args[0]  # each row was written in place
    if isinstance(results[0], Tensor):
        return torch.cat(results)
    return tuple(torch.cat(each) for each in zip(*results, strict=True))
