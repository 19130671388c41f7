"""Reads weights from safetensors files, which run no code, and copies them into modules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from torch import Tensor, nn

from gibbon.core.errors import WeightsError
from gibbon.core.files import reading
from gibbon.core.plain_text import shortened
from gibbon.core.reading import check_regular

PICKLE_MARKS = (b"\x80", b"PK\x03\x04")  # a bare pickle's protocol byte; torch.save's zip file

# safetensors begins with the header's length, eight bytes of which the first may be any byte, and
# goes on with the header, a JSON object.
HEADER_START = slice(8, 9)
LISTED = 10  # names in an error message


def load_weights(module: nn.Module, path: Path) -> None:
    """Copies the tensors of a safetensors file into a module, which they must fit exactly.

    Tensors are converted to the dtype of the module's own.  Raises `WeightsError` if the file is
    missing, damaged or a pickle, lacks a tensor, has an unknown one or one of another shape, or
    holds a number that is not finite.
    """
    fit_weights(module, read_weights(path), where=str(path))


def fit_weights(
    module: nn.Module, tensors: Mapping[str, Tensor], *, where: str, optional: str = ""
) -> None:
    """Copies tensors into a module, which they must fit exactly; all of them or none.

    ``where`` names them in error messages, such as the path of their file.  Tensors whose name ends
    with ``optional`` may be missing, and so may one that the module shares with a tensor that is
    present.  Raises `WeightsError`.
    """
    own = module.state_dict()
    there = {_place(own[name]) for name in own.keys() & tensors.keys()} - {None}
    missing = [
        name
        for name in sorted(own.keys() - tensors.keys())
        if not (optional and name.endswith(optional)) and _place(own[name]) not in there
    ]
    unexpected = sorted(tensors.keys() - own.keys())
    if missing or unexpected:
        raise WeightsError(
            f"{where}: tensors do not fit the model: "
            f"missing {listed(missing)}, unexpected {listed(unexpected)}"
        )
    others = [name for name, tensor in tensors.items() if tensor.shape != own[name].shape]
    if others:
        name = others[0]
        more = f" (and {len(others) - 1} more do not fit)" if len(others) > 1 else ""
        raise WeightsError(
            f"{where}: tensor {name!r} has shape {tuple(tensors[name].shape)}, "
            f"the model needs {tuple(own[name].shape)}{more}"
        )
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor.float()).all()):
            raise WeightsError(f"{where}: tensor {name!r} holds NaN or infinity")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _place(tensor: Tensor) -> tuple[int, torch.Size, tuple[int, ...]] | None:
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else None


def listed(names: list[str]) -> str:
    """Returns names as text for an error message, at most `LISTED` of them."""
    if len(names) <= LISTED:
        return str(names or "none")
    return f"{names[:LISTED]} and {len(names) - LISTED} more"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file by name.  Raises `WeightsError`."""
    check_regular(path, WeightsError)
    with reading(path, WeightsError):
        content = path.read_bytes()
    if content.startswith(PICKLE_MARKS) and content[HEADER_START] != b"{":
        raise WeightsError(
            f"{path}: this is a pickle (torch.save), which can run code when it is loaded; "
            "save the state dict with safetensors.torch.save_file"
        )
    try:
        return parse(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path}: damaged, or not a safetensors file: {shortened(str(error))}"
        ) from error


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal.  Raises `WeightsError`."""
    check_regular(path, WeightsError)
    with reading(path, WeightsError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_digest(module: nn.Module) -> str:
    """Returns a digest of a module's tensors: names, dtypes, shapes and values, on any device."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        for tensor in _tensors_in(value):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
            whole = tensor.detach().cpu().contiguous().flatten()
            digest.update(whole.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors_in(value: object) -> Iterator[Tensor]:
    """Yields the tensors of an entry of a state dict, which may be a tuple or a packed weight.

    The layers of a quantised network keep weight, bias and scales together.
    """
    if isinstance(value, tuple | list):
        for each in value:
            yield from _tensors_in(each)
    elif isinstance(value, Tensor):
        if value.is_quantized:
            yield value.int_repr()
            value = _scales(value)
        yield value
    elif isinstance(value, bool | int | float):
        yield torch.tensor(value)


def _scales(value: Tensor) -> Tensor:
    """Returns scales and zero points of a quantised tensor, float64."""
    if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return torch.tensor([value.q_scale(), value.q_zero_point()], dtype=torch.float64)
    scales, points = value.q_per_channel_scales(), value.q_per_channel_zero_points()
    return torch.stack([scales.double(), points.double()])
