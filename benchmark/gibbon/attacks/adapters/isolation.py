"""What somebody else's code may not change while it runs: generators, settings, the terminal.

The benchmark guards every attack (`gibbon.verify.guarding`).  Here the same is done closer, so
that an adapted attack keeps the laws of `gibbon.conformance` by itself: a library that re-seeds
the global generators, draws from them, prints, draws progress bars, warns, or removes a debugger's
trace function leaves nothing of it behind.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import torch

from gibbon.core.rng import seeded_globals

SEED_BITS = 63


@contextmanager
def isolated(seed: int, *, device: torch.device) -> Iterator[None]:
    """While inside: global generators seeded with ``seed``, gradients on, and silence.

    ``seed`` is any integer; ``device`` is where the model is, so that its generator is kept too.
    All of it is put back afterwards, also after an exception.
    """
    tracer = sys.gettrace()
    with seeded_globals(seed % 2**SEED_BITS, device), silence(), torch.enable_grad():
        try:
            yield
        finally:
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
