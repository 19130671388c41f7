"""The check of attacks that need inputs to be pictures."""

from __future__ import annotations

from torch import Tensor

from gibbon.core.errors import AttackError


def check_pictures(inputs: Tensor, *, attack: str) -> None:
    """Raises `AttackError` unless inputs are pictures, shape (N, channels, height, width)."""
    if inputs.ndim != 4:
        raise AttackError(
            f"{attack} works on pictures of shape (channels, height, width), "
            f"got inputs of shape {tuple(inputs.shape[1:])}"
        )
