"""Frames of a traceback: whose code they run, and the layer of a model that raised an exception."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import FrameType
from typing import Final

from torch import nn

OURS = Path(__file__).parents[1]
STANDARD = str(Path(traceback.__file__).parent)
REPORT: Final = "Gibbon itself: please report it"


def in_gibbon(frame: FrameType) -> bool:
    """Returns whether a frame is of this package."""
    return Path(frame.f_code.co_filename).is_relative_to(OURS)


def in_library(frame: FrameType) -> bool:
    """Returns whether a frame is another library's, or sets ``__tracebackhide__``."""
    if frame.f_locals.get("__tracebackhide__") is True:
        return True
    name = frame.f_code.co_filename
    return "site-packages" in name or name.startswith(("<frozen", STANDARD))


def is_authors_file(name: str) -> bool:
    """Returns whether a file of code is of a user: of no library, and not of this package.

    Names such as ``"<stdin>"`` are those of code that was typed into a console or a notebook.
    """
    library = "site-packages" in name or "dist-packages" in name
    return not library and not name.startswith(("<frozen", STANDARD, str(OURS)))


def raised_in(error: BaseException) -> str:
    """Returns the layer that raised an exception in a pass of a model, with its file and line.

    If no layer was at work, it is `REPORT`.

    >>> class Broken(nn.Module):
    ...     def forward(self, inputs):
    ...         raise KeyError("no table")
    >>> try:
    ...     nn.Sequential(Broken())(None)
    ... except KeyError as error:
    ...     print(raised_in(error).partition(",")[0])
    the model's part Broken
    """
    own = library = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        this = frame.f_locals.get("self")
        if isinstance(this, nn.Module) and not in_gibbon(frame):
            text = f"the model's part {type(this).__name__}"
            if in_library(frame):
                library = text
            else:
                own = f"{text}, {Path(frame.f_code.co_filename).name}:{line}"
    return own or library or REPORT
