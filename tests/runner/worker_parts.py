"""Models, a dataset and attacks for runs with workers, which load them from this file.

A deed is a file of the current folder, named after the deed: the first process that is about to do
it takes the file away, and does it.  ``at`` in the file is the number of the call of the attack at
which it is done; calls are counted over all processes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import numpy as np
import planted
import torch
from pydantic.dataclasses import dataclass as checked
from torch import Tensor

from gibbon.attacks.base import STRICT, DirectionAttack
from gibbon.core.rng import ExampleStreams
from gibbon.models.classifier import Classifier

CALLS = Path("calls")


def taken(deed: str, *, call: int = 0) -> bool:
    """Returns whether this process is to do a deed now."""
    place, mine = Path(deed), Path(f"{deed}-{os.getpid()}")
    try:
        if int(place.read_text() or 0) > call:
            return False
        place.rename(mine)
    except (OSError, ValueError):
        return False
    return True


def one() -> Classifier:
    if taken("raise"):
        raise OSError("planted trouble while a model is loaded")
    return planted.classifier(planted.Rows(1))


def two() -> Classifier:
    return planted.classifier(planted.Rows(2))


def squares() -> tuple[Tensor, Tensor]:
    """The planted dataset; another one under the same name as a deed."""
    found = planted.squares(seed=int(taken("other-data"))).batch(np.arange(planted.EXAMPLES))
    return found.inputs, found.labels


@checked(frozen=True, kw_only=True, config=STRICT)
class Doomed(DirectionAttack):
    """The sign of the gradient, and deeds."""

    #: Seconds of each call.
    seconds: float = 0.0

    def direction(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        streams: ExampleStreams,
    ) -> Tensor:
        with CALLS.open("ab") as file:
            file.write(b".")
        do_deeds(CALLS.stat().st_size)
        time.sleep(self.seconds)
        rule = classifier.outputs
        _, gradient = classifier.ascend(inputs, lambda outputs: rule.ascent(outputs, labels))
        return gradient.sign()


def do_deeds(call: int) -> None:
    if taken("kill", call=call):
        os.kill(os.getpid(), signal.SIGKILL)
    if taken("exit", call=call):
        os._exit(3)
    if taken("hang", call=call):
        time.sleep(3600)
    if taken("memory", call=call):
        torch.empty(1 << 50)


@checked(frozen=True, kw_only=True, config=STRICT)
class EndsIt(DirectionAttack):
    """Ends its process, each time."""

    def direction(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        streams: ExampleStreams,
    ) -> Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return inputs
