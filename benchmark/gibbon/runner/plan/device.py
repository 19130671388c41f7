"""The choice of the device."""

from __future__ import annotations

import torch

from gibbon.core.errors import DeviceError


def choose_device(asked: str, *, where: str = "--device") -> torch.device:
    """Returns the device that was asked for.

    ``where`` is what error messages call the option.  Raises `DeviceError` where it is not there.
    """
    if asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise DeviceError(
            f"{where}: expected auto, cpu, cuda, cuda:1 or mps, got {asked!r}"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{where}: {asked!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"{where}: 'mps' is not there")
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"{where}: expected auto, cpu, cuda, cuda:1 or mps, got {asked!r}")
    return device
