"""An extension of griffe, which reads docstrings for mkdocstrings: converts them to markdown."""

from __future__ import annotations

from typing import Any

import griffe

from tools.docs.site_text import to_markdown


def convert(_: Any, *, obj: Any, **__: Any) -> None:
    """Converts the docstring of an object, if it has one."""
    if obj.docstring is not None:
        obj.docstring.value = to_markdown(obj.docstring.value)


# Not a class statement: where griffe is not installed, its base would be of no known type.
PlainMarkdown = type("PlainMarkdown", (griffe.Extension,), {"on_object": convert})
