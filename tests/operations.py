"""Lists operations; counts those of a device other than the CPU, and the reads back to the host.

Operations on tensors of the host, such as a list of positions that was read, are not counted: they
cost the device nothing.  `played_device.played` is such a device on any machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as trees
from torch.utils._python_dispatch import TorchDispatchMode

# The host needs their values, or the number of their results, before it can go on.
READING = frozenset(
    f"aten::{name}"
    for name in (
        "_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "unique",
        "_unique", "_unique2", "unique_consecutive", "unique_dim", "bincount", "is_set_to",
    )
)  # fmt: skip
INDEXING = frozenset(
    f"aten::{name}" for name in ("index", "index_put", "index_put_", "_index_put_impl_")
)
# They reserve memory or name it anew, and start nothing.
NOTHING = frozenset(
    f"aten::{name}"
    for name in ("detach", "alias", "lift_fresh", "empty", "empty_like", "empty_strided",
                 "new_empty", "new_empty_strided", "_unsafe_view", "_reshape_alias", "set_")
)  # fmt: skip


@dataclass
class Counted:
    """Operations by name, and the reads back to the host among them."""

    launched: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)

    @property
    def launches(self) -> int:
        return self.launched.total()

    @property
    def reads(self) -> int:
        return self.read.total()


class Calls(TorchDispatchMode):
    """Lists the operations in a ``with`` block, on any device, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(
        self,
        operation: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        self.saw(operation, args, kwargs or {}, result)
        return result

    def saw(
        self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        self.made.append((operation, args, kwargs))


class Operations(Calls):
    """Counts the operations in a ``with`` block, and holds no tensor of them; views are none."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = Counted()

    def saw(
        self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        name = operation._schema.name
        if name in NOTHING or _is_view(operation) or not _is_away(args, kwargs, result):
            return
        self.counted.launched[name] += 1
        if _reads(name, args, result):
            self.counted.read[name] += 1


def count(work: Callable[[], object]) -> Counted:
    """What a piece of work launches and reads."""
    with Operations() as counting:
        work()
    return counting.counted


def _is_view(operation: Any) -> bool:
    return any(
        each.alias_info is not None and not each.alias_info.is_write
        for each in operation._schema.returns
    )


def _is_away(*values: Any) -> bool:
    tensors = (each for each in trees.tree_leaves(values) if isinstance(each, Tensor))
    return any(_device(each) != "cpu" for each in tensors)


def _reads(name: str, args: tuple[Any, ...], result: Any) -> bool:
    if name in READING:
        return True
    if name in INDEXING:
        indices = [each for each in trees.tree_leaves(args[1]) if isinstance(each, Tensor)]
        return any(each.dtype in (torch.bool, torch.uint8) for each in indices)
    if name == "aten::copy_":
        return _device(args[0]) == "cpu" and _device(args[1]) != "cpu"
    return name == "aten::_to_copy" and _device(result) == "cpu" and _device(args[0]) != "cpu"


def _device(tensor: Tensor) -> str:
    return tensor.device.type
