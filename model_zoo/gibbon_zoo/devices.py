"""The device of a training."""

from __future__ import annotations

import torch

from gibbon.core.errors import DeviceError


def usable_device(name: str) -> torch.device:
    """Returns the device of a name.  Raises `DeviceError` if it can't be used."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise DeviceError(f"device {name!r} can't be used: {reason}") from error
    return device


def device_name(device: torch.device) -> str:
    """Returns the name of a device for cards."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
