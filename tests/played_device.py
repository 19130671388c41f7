"""A device named ``played`` in the processor's memory, for tests of the code for GPUs without one.

Its tensors are ordinary tensors of another device: an operation on tensors of both devices fails as
on a GPU, numpy can't read them, and values come back by a copy only.  Stricter than CUDA, an index
tensor on the CPU fails, too, since that is a transfer.  A number of no dimensions may be anywhere.

Torch's backend for devices of others, ``PrivateUse1``, gets a kernel for every operation, which
runs that of the CPU on the same memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as trees
from torch.utils.backend_registration import (
    _get_privateuse1_backend_name,
    _setup_privateuseone_for_python_backend,
)

NAME = "played"
VARIABLE = "GIBBON_TESTS_PLAYED_DEVICE"  # set in processes for tests of the marker `played`
CPU, OTHER = 1, 12  # kDLCPU and kDLExtDev of DLPack
MIXING = ("aten::copy_", "aten::_to_copy")
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
# C++ has them for every device, and a parameter must be made from what C++ made.
ALIASES = ("aten::detach", "aten::alias")
# C++ changes the shape of the tensor itself.
RESHAPING = (
    "aten::as_strided_",
    "aten::squeeze_",
    "aten::unsqueeze_",
    "aten::transpose_",
    "aten::t_",
)


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("index", ctypes.c_int32))


class _Head(ctypes.Structure):
    """The first fields of DLPack's ``DLTensor``."""

    _fields_ = (("data", ctypes.c_void_p), ("device", _Device))


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def register() -> None:
    """Makes the device known to the process, before its first backward pass.

    The threads for backward passes are started with the first one, for the devices known then.
    """
    if _get_privateuse1_backend_name() != NAME:
        _setup_privateuseone_for_python_backend(NAME, _Backend())


class _Backend:
    """What torch asks the module of a device for; it has no random numbers of its own."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        """Does nothing."""

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        """Does nothing."""


@contextmanager
def played(*, indices_on_cpu: bool = False) -> Iterator[torch.device]:
    """Makes the device work for a ``with`` block; with index tensors on the CPU, as CUDA takes."""
    register()
    library = torch.library.Library("aten", "IMPL")
    mixing = (*MIXING, *INDEXING) if indices_on_cpu else MIXING
    try:
        for name, operation in _operations():
            library.impl(name, _kernel(operation, mixing), "PrivateUse1")
        yield torch.device(NAME, 0)
    finally:
        library._destroy()


def _operations() -> Iterator[tuple[str, Any]]:
    for full in torch._C._dispatch_get_all_op_names():
        namespace, _, name = full.partition("::")
        if namespace != "aten" or full in ALIASES or full.partition(".")[0] in RESHAPING:
            continue
        if torch._C._dispatch_has_kernel_for_dispatch_key(full, "CompositeImplicitAutograd"):
            continue  # it is made of others
        packet, _, overload = name.partition(".")
        found = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
        if found is not None:
            yield name, found


def _kernel(operation: Any, mixing: Sequence[str]) -> Callable[..., Any]:
    name = operation._schema.name

    def run(*args: Any, **kwargs: Any) -> Any:
        values, structure = trees.tree_flatten((args, kwargs))
        found = [each for each in values if isinstance(each, Tensor)]
        if name not in mixing and any(each.device.type == "cpu" and each.ndim for each in found):
            raise RuntimeError(
                f"{operation}: expected all tensors to be on the same device, got {NAME} and cpu"
            )
        here: list[tuple[Tensor, Tensor]] = []
        for at, value in enumerate(values):
            if isinstance(value, Tensor) and value.device.type == NAME:
                values[at] = _view(value, CPU)
                here.append((values[at], value))
            elif isinstance(value, torch.device):
                values[at] = torch.device("cpu")
        given, named = trees.tree_unflatten(values, structure)
        result = operation(*given, **named)
        target = kwargs.get("device")
        if name == "aten::_to_copy" and target is not None and torch.device(target).type == "cpu":
            return result

        def there(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            same = (other for own, other in here if own is value)
            return next(same, None) if any(own is value for own, _ in here) else _view(value, OTHER)

        return trees.tree_map(there, result)

    return run


def _view(tensor: Tensor, kind: int) -> Tensor:
    """The memory of a tensor as one of the other device."""
    capsule = torch._C._to_dlpack(tensor)
    head = _Head.from_address(_pointer(capsule, b"dltensor"))
    head.device.type, head.device.index = kind, 0
    return torch._C._from_dlpack(capsule)
