"""Selects the device that models are evaluated on."""

from __future__ import annotations

import torch

from gibbon.core.errors import DeviceError


def choose_device(name: str, *, where: str = "--device") -> torch.device:
    """Returns the device of this name: one of these, or of another backend of torch, such as xpu.

    ``where`` is the name of the option in error messages.  Raises `DeviceError` if the name is
    wrong or there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(
            f"{where}: expected auto, cpu, cuda, cuda:1 or mps, got {name!r}"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{where}: {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"{where}: 'mps' is not there")
    if device.type not in ("cpu", "cuda", "mps"):
        available = getattr(getattr(torch, device.type, None), "is_available", None)
        if not callable(available):
            raise DeviceError(f"{where}: expected auto, cpu, cuda, cuda:1 or mps, got {name!r}")
        if not available():
            raise DeviceError(f"{where}: {name!r} is not there")
    return device
