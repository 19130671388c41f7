"""Texts of an attack's parameters, different for different values.

``repr`` does not serve: that of a tensor omits most of its numbers, and that of a plain object
holds an address and not its state.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gibbon.attacks.base import Attack, parameters_of
from gibbon.core.errors import SpecError
from gibbon.models.weights import state_digest

ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
MANY = (list, tuple, set, frozenset)


def parameter_texts(attack: Attack) -> dict[str, str]:
    """Returns the `parameter_text` of each parameter of an attack, sorted by name.

    Raises `SpecError` for a parameter without such a text.
    """
    texts = {}
    for name, value in sorted(parameters_of(attack).items()):
        try:
            texts[name] = parameter_text(value)
        except SpecError as error:
            raise SpecError(
                f"parameter {name!r} of attack {type(attack).__name__} {error}"
            ) from None
    return texts


def parameter_text(value: object) -> str:
    """Returns the ``repr`` of a parameter, with a digest of all bytes for tensors and arrays.

    Tensors and arrays may be on any device and inside lists, mappings, dataclasses and modules.
    A function is named; its code has its own part in the digest of a cell.
    Raises `SpecError` if the ``repr`` holds a memory address.

    >>> parameter_text(("a", 1.5))
    "('a', 1.5)"
    >>> parameter_text([torch.zeros(2)])
    '[tensor(float32, (2,), sha256:af5570f5a1810b7af78caf4bc70a660f)]'
    """
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, FunctionType):
        return f"function {value.__qualname__}"
    if isinstance(value, MethodType):
        return f"method {value.__func__.__qualname__} of {parameter_text(value.__self__)}"
    if isinstance(value, partial):
        given = ", ".join(map(parameter_text, (value.func, value.args, value.keywords)))
        return f"partial({given})"
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, nn.Module):
        return f"{_checked(repr(value))} sha256:{state_digest(value)}"
    if not holds_arrays(value):
        for each in _leaves(value):
            _checked(each)
        return repr(value)
    kind = type(value).__name__
    if isinstance(value, Mapping):
        pairs = (f"{parameter_text(key)}: {parameter_text(each)}" for key, each in value.items())
        inside = f"{{{', '.join(pairs)}}}"
        return inside if type(value) is dict else f"{kind}({inside})"
    if isinstance(value, MANY):
        texts = [parameter_text(each) for each in value]
        inside = ", ".join(texts if isinstance(value, list | tuple) else sorted(texts))
        return f"[{inside}]" if type(value) is list else f"{kind}({inside})"
    return f"{kind}({', '.join(f'{name}={parameter_text(each)}' for name, each in _fields(value))})"


def holds_arrays(value: object) -> bool:
    """Returns whether a value is, or holds, tensors, arrays, modules or functions."""
    if isinstance(value, Tensor | np.ndarray | nn.Module | FunctionType | MethodType | partial):
        return True
    if isinstance(value, Mapping):
        return any(holds_arrays(each) for pair in value.items() for each in pair)
    if isinstance(value, MANY):
        return any(map(holds_arrays, value))
    return any(holds_arrays(each) for _, each in _fields(value))


def _leaves(value: object) -> Iterator[str]:
    """Yields the ``repr`` of all values in containers, except strings, which may hold anything."""
    if isinstance(value, Mapping):
        yield from (text for pair in value.items() for each in pair for text in _leaves(each))
    elif isinstance(value, MANY):
        yield from (text for each in value for text in _leaves(each))
    elif not isinstance(value, str):
        yield repr(value)


def _fields(value: object) -> Iterable[tuple[str, object]]:
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return ()
    fields = dataclasses.fields(value)
    return [(field.name, getattr(value, field.name)) for field in fields if field.repr]


def _tensor(value: Tensor) -> str:
    dense = value.detach().cpu().to_dense() if value.is_sparse else value.detach().cpu()
    content = dense.resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8).numpy()
    kind = str(value.dtype).removeprefix("torch.")
    return f"tensor({kind}, {tuple(value.shape)}, sha256:{_digest(content.tobytes())})"


def _array(value: NDArray[np.generic]) -> str:
    if value.dtype.hasobject:
        content = parameter_text(value.tolist()).encode()
    else:
        content = np.ascontiguousarray(value).tobytes()
    return f"array({value.dtype}, {value.shape}, sha256:{_digest(content)})"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _checked(text: str) -> str:
    if ADDRESS.search(text):
        raise SpecError(
            f"is {text}: a memory address does not say what it is, so that results could not be "
            "filed under it; make its class a dataclass, or give it a __repr__ that says all"
        )
    return text
