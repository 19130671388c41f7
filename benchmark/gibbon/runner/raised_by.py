"""Says whose code raised an exception: the attack's, the model's, the dataset's or Gibbon's own.

The frames of the traceback are read from the outside in.  The call of a classifier's module is the
model's until a frame of an attack follows, and so on: the innermost party counts.  A model that was
called with inputs of another shape than it declares is not at fault; who called it is.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from types import FrameType

from torch import Tensor, nn

from gibbon.attacks.base import Attack
from gibbon.core.errors import CellError, RequestError
from gibbon.datasets.base import Dataset
from gibbon.models.classifier import Classifier

OURS = Path(__file__).parents[1]
STANDARD = str(Path(traceback.__file__).parent)
REPORT = "Gibbon itself: please report it"
_NAMED = (CellError, RequestError)  # their text says who


def raised_by(error: BaseException) -> str:
    """Returns whose code raised an exception and where, such as ``"the attack Mine, mine.py:3"``.

    Empty for an exception whose own text names the party.
    """
    if isinstance(error, _NAMED):
        return ""
    party = ""
    place: tuple[str, int] | None = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        found = _party(frame)
        if found:
            party = found
        if party and not _is_ours(frame) and not _is_library(frame):
            place = frame.f_code.co_filename, line
    if not party:
        return REPORT
    where = f", {Path(place[0]).name}:{place[1]}" if place else ""
    return f"{party}{where}"


def _party(frame: FrameType) -> str:
    """Returns the party whose code a frame is; empty if it is that of the frame around it."""
    this = frame.f_locals.get("self")
    if isinstance(this, Classifier) and frame.f_code.co_name == "__call__":
        inputs = frame.f_locals.get("inputs")
        if isinstance(inputs, Tensor) and tuple(inputs.shape[1:]) != this.input_shape:
            return ""  # whoever called it gave it other inputs
        return f"the model {type(this.module).__name__}"
    if isinstance(this, Classifier) and frame.f_code.co_name == "_gradient":
        return f"the model {type(this.module).__name__}, in its backward pass"
    if isinstance(this, Attack):
        return f"the attack {type(this).__name__}"
    if isinstance(this, Dataset):
        return f"the dataset {this.name!r}"
    if isinstance(this, nn.Module) and not _is_ours(frame) and not _is_library(frame):
        return f"the model's part {type(this).__name__}"
    return ""


def _is_ours(frame: FrameType) -> bool:
    return Path(frame.f_code.co_filename).is_relative_to(OURS)


def _is_library(frame: FrameType) -> bool:
    """Returns whether a frame is another library's, or asks to be left out as pytest's do."""
    if frame.f_locals.get("__tracebackhide__") is True:
        return True
    name = frame.f_code.co_filename
    return "site-packages" in name or name.startswith(("<frozen", STANDARD))
