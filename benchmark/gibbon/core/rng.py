"""Random numbers that belong to an example, not to a batch.

An `ExampleStreams` holds one 64-bit key for each example of a batch, derived from (suite seed,
cell, example id).  An example's numbers depend on its key alone, so batch size, order, sharding and
device change nothing.  Streams are values: equal calls return equal numbers.
`ExampleStreams.child` returns independent streams, for each restart for example.

The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014, figure 14) in its counter form: the j-th number of the stream with key s
is ``mix(s + (j + 1) * GAMMA)``.  It is computed on whole tensors, on any device.

Third-party code draws from global generators: `seeded_globals` seeds and restores these.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# The golden-ratio increment and the two multipliers of SplitMix64, as signed 64-bit integers.
GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
MULTIPLIER_2 = 0x94D049BB133111EB - (1 << 64)
NUMPY_SEEDS = 2**32
MANTISSA_BITS = 24  # a float32 holds every multiple of 2^-24 in [0, 1) exactly


@dataclass(frozen=True)
class ExampleStreams:
    """One stream of random numbers for each of N examples.

    Args:
        keys: int64, shape (N,): one key an example.

    >>> streams = ExampleStreams.derive(7, torch.tensor([3, 5]))
    >>> bool((streams.uniform((4,))[1] == streams.take(torch.tensor([1])).uniform((4,))[0]).all())
    True
    """

    keys: Tensor

    @classmethod
    def derive(cls, key: int, example_ids: Tensor) -> ExampleStreams:
        """Returns the streams of these examples under a 63-bit ``key`` (see `derive_key`)."""
        ids = example_ids.to(torch.int64)
        return cls(_mix(key + (ids + 1) * GAMMA))

    def child(self, label: int | str) -> ExampleStreams:
        """Returns streams that are independent of these, one set for each label."""
        return ExampleStreams(_mix(self.keys ^ derive_key(label)))

    def children(self, labels: Iterable[int | str]) -> ExampleStreams:
        """Returns the streams of `child` for several labels, those of one label after another.

        >>> streams = ExampleStreams.derive(7, torch.tensor([3, 5]))
        >>> of_both = streams.children(["size", "place"]).uniform((2, 2))
        >>> bool((of_both[2:] == streams.child("place").uniform((2, 2))).all())
        True
        """
        marks = torch.tensor([derive_key(each) for each in labels]).to(self.keys.device)
        return ExampleStreams(_mix(marks.unsqueeze(1) ^ self.keys).flatten())

    def take(self, index: Tensor) -> ExampleStreams:
        """Returns the streams of some of the examples: ``index`` is a mask or positions."""
        return ExampleStreams(self.keys[index])

    def uniform(self, shape: tuple[int, ...] | torch.Size, *, skip: int = 0) -> Tensor:
        """Returns float32, shape (N, *shape), uniform on [0, 1).

        ``skip`` numbers of each stream are passed over, at no cost, so that several calls can draw
        the numbers of one call.

        >>> streams = ExampleStreams.derive(7, torch.tensor([3]))
        >>> bool((streams.uniform((5,))[:, 2:] == streams.uniform((3,), skip=2)).all())
        True
        """
        bits = self._bits(shape, skip=skip).bitwise_right_shift_(64 - MANTISSA_BITS)
        bits.bitwise_and_((1 << MANTISSA_BITS) - 1)
        return bits.to(torch.float32).mul_(2.0**-MANTISSA_BITS)

    def signs(self, shape: tuple[int, ...] | torch.Size) -> Tensor:
        """Returns float32, shape (N, *shape), -1 or +1 with equal probability."""
        negative = self._bits(shape) < 0
        return negative.to(torch.float32).mul_(-2.0).add_(1.0)

    def normal(self, shape: tuple[int, ...] | torch.Size) -> Tensor:
        """Returns float32, shape (N, *shape), standard normal, by inversion of the CDF."""
        centred = self.uniform(shape).mul_(2.0).add_(2.0**-MANTISSA_BITS - 1.0)
        return torch.erfinv(centred).mul_(math.sqrt(2.0))

    def _bits(self, shape: tuple[int, ...] | torch.Size, *, skip: int = 0) -> Tensor:
        first, count = 1 + skip, math.prod(shape)
        steps = torch.arange(first, first + count, dtype=torch.int64, device=self.keys.device)
        state = self.keys.unsqueeze(1) + steps.mul_(GAMMA)
        return _mix(state).reshape(len(self.keys), *shape)


def derive_key(*parts: int | str) -> int:
    """Returns a 63-bit key that depends on every part and on their order.

    >>> derive_key(0, "fgsm") == derive_key(0, "fgsm"), derive_key(0, 1) == derive_key(1, 0)
    (True, False)
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _mix(state: Tensor) -> Tensor:
    """Applies SplitMix64's finaliser to ``state``, in place."""
    state.bitwise_xor_(_shift(state, 30)).mul_(MULTIPLIER_1)
    state.bitwise_xor_(_shift(state, 27)).mul_(MULTIPLIER_2)
    return state.bitwise_xor_(_shift(state, 31))


def _shift(state: Tensor, by: int) -> Tensor:
    """Shifts right logically; torch's own shift is arithmetic on int64."""
    return state.bitwise_right_shift(by).bitwise_and_((1 << (64 - by)) - 1)


@contextmanager
def seeded_globals(seed: int, *devices: torch.device) -> Iterator[None]:
    """Seeds the global generators of torch, numpy and random, for a ``with`` block.

    Afterwards, also after an exception, it restores them, torch's grad mode and default dtype.  Of
    torch's generators, those of the CPU and of ``devices`` are seeded.

    >>> before = torch.get_rng_state()
    >>> with seeded_globals(1):
    ...     first = torch.rand(1)
    >>> with seeded_globals(1):
    ...     torch.rand(1) == first
    tensor([True])
    >>> torch.equal(torch.get_rng_state(), before)
    True
    """
    indices = (each.index for each in devices if each.type == "cuda")
    cuda = sorted({torch.cuda.current_device() if each is None else each for each in indices})
    metal = torch.mps.get_rng_state() if any(each.type == "mps" for each in devices) else None
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    grad_mode, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    with torch.random.fork_rng(devices=cuda):
        # torch.manual_seed would queue a call for CUDA each time, on machines without it too.
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            with torch.cuda.device(index):  # it may be another one than the current
                torch.cuda.manual_seed(seed)
        if metal is not None:
            torch.mps.manual_seed(seed)
        np.random.seed(seed % NUMPY_SEEDS)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            if metal is not None:
                torch.mps.set_rng_state(metal)
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
            torch.set_grad_enabled(grad_mode)
            torch.set_default_dtype(dtype)
