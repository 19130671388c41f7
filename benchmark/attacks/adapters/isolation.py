"""What somebody else's code may not change while it runs: generators, settings, the terminal.

The benchmark guards every attack (`benchmark.verify.guarding`).  Here the same is done closer, so
that an adapted attack keeps the laws of `benchmark.conformance` by itself: a library that re-seeds
the global generators, draws from them, prints, draws progress bars, warns, or removes a debugger's
trace function leaves nothing of it behind.
"""

from __future__ import annotations

import io
import logging
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import numpy as np
import torch

SEED_BITS = 63
NUMPY_SEEDS = 2**32


@contextmanager
def isolated(seed: int, *, device: torch.device) -> Iterator[None]:
    """While inside: global generators seeded with ``seed``, gradients on, and silence.

    ``seed`` is any integer; ``device`` is where the model is, so that its generator is kept too.
    All of it is put back afterwards, also after an exception.
    """
    seed %= 2**SEED_BITS
    cuda = [device] if device.type == "cuda" else []
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    dtype, grad_mode, tracer = torch.get_default_dtype(), torch.is_grad_enabled(), sys.gettrace()
    with torch.random.fork_rng(devices=cuda), silence():
        # torch.manual_seed would queue a call for CUDA each time, on machines without it too.
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        np.random.seed(seed % NUMPY_SEEDS)  # noqa: NPY002
        random.seed(seed)
        torch.set_grad_enabled(True)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
            torch.set_grad_enabled(grad_mode)
            torch.set_default_dtype(dtype)
            sys.settrace(tracer)


@contextmanager
def silence() -> Iterator[None]:
    """While inside, nothing is printed, logged or warned about."""
    nowhere, disabled = io.StringIO(), logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
