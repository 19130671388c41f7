"""Finds the key of an attack that adapts it to a part of a model without a useful gradient."""

from __future__ import annotations

from dataclasses import dataclass

from gibbon.diagnostics.examination.module_search import call_of
from gibbon.diagnostics.examination.subject import Subject

OR_ELSE = "; and add an attack without gradients, such as square"


@dataclass(frozen=True)
class AdaptingKeys:
    """Keys that adapt an attack to a part, and advice.

    Args:
        suite: the line of a suite, ``""`` if it needs a function that the user has to write.
        advice: one line of advice; ``""`` if that of the flag's kind fits.
    """

    suite: str = ""
    advice: str = ""


def adaptation_to(subject: Subject, path: str) -> AdaptingKeys:
    """Returns the key that fits the shapes of a part's inputs and outputs.

    ``before`` fits a part that takes logits, ``backward`` with the identity one that keeps the
    shape of its inputs, and ``backward`` with a function any other.  Nothing fits if ``path`` is
    empty, or if no pass is left to see the shapes.
    """
    call = call_of(subject, path) if path else None
    if call is None:
        return AdaptingKeys()
    classes = subject.observed.outputs.shape[1]
    if call.inputs.ndim == 2 and call.inputs.shape[1] == classes:
        return AdaptingKeys(f'before = "{path}"')
    if call.inputs.shape == call.outputs.shape:
        line = f'backward = {{ "{path}" = "identity" }}'
        return AdaptingKeys(line, f"Pass the gradient unchanged through {path}: {line}{OR_ELSE}.")
    line = f'backward = {{ "{path}" = "path/to/file.py:function" }}'
    shapes = f"{_shape(call.inputs.shape)} to {_shape(call.outputs.shape)}"
    return AdaptingKeys(
        advice=f"Write a function from shape {shapes} that is near {path} and has a slope "
        f"everywhere: {line}{OR_ELSE}."
    )


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['N', *map(str, shape[1:])])})"
