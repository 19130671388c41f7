"""Finds whose code raised an exception: the attack's, the model's, the dataset's or Gibbon's own.

The frames of the traceback are read from the outside in.  The call of a classifier's module is the
model's until a frame of an attack follows, and so on: the innermost party counts.  A model that was
called with inputs of another shape than it declares is not at fault; who called it is.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from torch import Tensor, nn

from gibbon.attacks.base import Attack, is_ours
from gibbon.core.errors import CellError, RequestError
from gibbon.core.frames import REPORT, in_gibbon, in_library
from gibbon.core.registry import their_code
from gibbon.datasets.base import Dataset
from gibbon.models.classifier import Classifier
from gibbon.models.shielding import unshielded
from gibbon.runner.device.precision import unvaried
from gibbon.runner.failures.boundary import described

CARRIED = "_gibbon_raised_by"
_NAMED = (CellError, RequestError)  # their text says who


def raised_by(error: BaseException) -> str:
    """Returns whose code raised an exception and where, such as ``"the attack Mine, mine.py:3"``.

    Empty for an exception whose own text names the party.
    """
    known = vars(error).get(CARRIED)
    if isinstance(known, str):
        return known
    if isinstance(error, _NAMED):
        return ""
    party = part = ""
    misused: FrameType | None = None  # the call of a model with what is no input of it
    place: tuple[str, int] | None = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if misused is not None:
            continue
        misused = frame if _is_misused(frame) else None
        found, part = _party(frame), part or _part_of(frame)
        if found:
            party = found
        if party and not in_gibbon(frame) and not in_library(frame):
            place = frame.f_code.co_filename, line
    if not party and isinstance(error.__cause__, StopIteration):  # in a generator
        return raised_by(error.__cause__)
    if not party and part:
        return part
    if not party:
        return REPORT
    where = f", {Path(place[0]).name}:{place[1]}" if place else ""
    return f"{party}{where}"


def attributed(error: BaseException) -> str:
    """Returns the type and the message of an exception, and whose code raised it."""
    party = raised_by(error)
    return f"{described(error)} (raised by {party})" if party else described(error)


@contextmanager
def carrying_party() -> Iterator[None]:
    """Notes on an exception whose code raised it, for a ``with`` block in another process.

    The traceback, from which it is read, does not survive the way back.
    """
    try:
        yield
    except BaseException as error:
        with suppress(Exception):  # an exception of any library
            vars(error)[CARRIED] = raised_by(error)
        raise


def carry(error: BaseException, party: str) -> None:
    """Notes on an exception whose code raised it, or ended its process."""
    vars(error)[CARRIED] = party


def at_work(attack: Attack | None, model: str) -> str:
    """Returns whose code ran in a process that an attack and a model share.

    An attack of ours ends no process.
    """
    if attack is None or is_ours(attack):
        return f"the model {model}"
    return f"the attack {type(attack).__name__}, or the model {model} that it ran on"


@contextmanager
def blaming(problem: str) -> Iterator[None]:
    """Turns exceptions into a `RequestError` that names whose code raised them, in a block.

    `gibbon.core.registry.their_code` takes for granted that it is the code of others.
    """
    with their_code(problem):
        try:
            yield
        except Exception as error:
            if raised_by(error) != REPORT:
                raise
            raise RequestError(f"{problem}: {attributed(error)}") from error


def _part_of(frame: FrameType) -> str:
    """Returns the name of a layer of a library, to be named if nobody else is found."""
    this = frame.f_locals.get("self")
    return f"the model's part {type(this).__name__}" if isinstance(this, nn.Module) else ""


def _party(frame: FrameType) -> str:
    """Returns the party whose code a frame is; empty if it is that of the frame around it."""
    this = frame.f_locals.get("self")
    if isinstance(this, Classifier) and frame.f_code.co_name == "__call__":
        return "" if _is_misused(frame) else f"the model {_name(this)}"
    if isinstance(this, Classifier) and frame.f_code.co_name == "_gradient":
        return f"the model {_name(this)}, in its backward pass"
    if isinstance(this, Attack):
        return f"the attack {type(this).__name__}"
    if isinstance(this, Dataset):
        return f"the dataset {this.name!r}"
    if isinstance(this, nn.Module) and not in_gibbon(frame) and not in_library(frame):
        return f"the model's part {type(this).__name__}"
    return ""


def _is_misused(frame: FrameType) -> bool:
    """Returns whether a frame is a call of a classifier with what is no input of its model."""
    this = frame.f_locals.get("self")
    if not isinstance(this, Classifier) or frame.f_code.co_name != "__call__":
        return False
    inputs = frame.f_locals.get("inputs")
    if not isinstance(inputs, Tensor):
        return True
    return tuple(inputs.shape[1:]) != this.input_shape or not inputs.is_floating_point()


def _name(model: Classifier) -> str:
    """Returns the name of the user's class, without the modules that Gibbon puts around it."""
    return type(unshielded(unvaried(model.module))).__name__
