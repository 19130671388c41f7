"""Isolation of library code: global generators, settings and the terminal are restored.

The benchmark guards every attack (`gibbon.verify.guard.guarding`).  This guard is closer to the
library, so that an adapted attack keeps the laws of `gibbon.conformance` by itself, although
libraries re-seed the global generators, draw from them, print, draw progress bars, warn, or remove
a debugger's trace function.
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
    """Context: global generators seeded with ``seed``, gradients on, and no output.

    ``seed`` is any integer; ``device`` is the model's, whose generator is kept too.  Everything is
    restored afterwards, also after an exception.
    """
    tracer = sys.gettrace()
    with seeded_globals(seed % 2**SEED_BITS, device), silence(), torch.enable_grad():
        try:
            yield
        finally:
            sys.settrace(tracer)


@contextmanager
def silence() -> Iterator[None]:
    """Context in which nothing is printed, logged or warned about."""
    nowhere, disabled = io.StringIO(), logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
