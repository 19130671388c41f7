"""Symbols and calls: the parts of a recording of a torch module.

A `Symbol` is a tensor; torch gives every operation that has one among its arguments to the
symbol's `Recording`, as a `Call`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gibbon.bounds.network import NoBoundError, Node, Operation, Shape
from gibbon.core.plain_tensors import STAND_INS

TRACED = 2  # examples: enough to see whether one influences another


@dataclass
class Recording(ABC):
    """Collects the nodes of a network.

    Attributes:
        device: device of the inputs.
        nodes: the nodes so far.
        failure: the first reason why the module can't be recorded.
    """

    device: torch.device
    nodes: list[Node] = field(default_factory=list)
    failure: NoBoundError | None = None

    @abstractmethod
    def record(self, call: Call) -> Any:
        """Adds the nodes of a call, and returns its result.  Raises `NoBoundError`."""

    def add(self, operation: Operation, *inputs: int) -> int:
        """Adds a node and returns its position."""
        return self.add_node(Node(operation, inputs, operation.shape))

    def add_node(self, node: Node) -> int:
        """Adds a node and returns its position."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def shape(self, position: int) -> Shape:
        """Returns the shape of a node for one example."""
        return self.nodes[position].shape


class Symbol(Tensor):
    """A tensor whose operations are recorded.

    Attributes:
        value: its value for the traced inputs.
        node: position of its node; None if it is an index or another by-product.
        recorder: the recording that it belongs to.
        storage_group: all symbols that share its memory.
        stale: whether an operation in place has changed its memory by another name.
        final: name of the function applied to the scores of a classifier, after which nothing
            may follow.
    """

    value: Tensor
    node: int | None
    recorder: Recording
    storage_group: list[Symbol]
    stale: bool
    final: str

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, value: Tensor, recorder: Recording, node: int | None) -> Symbol:
        """Returns a symbol with this value, without a storage."""
        made: Symbol = torch.Tensor._make_wrapper_subclass(
            cls, value.shape, strides=value.stride(), dtype=value.dtype, device=value.device
        )
        made.value, made.recorder, made.node = value, recorder, node
        made.storage_group, made.stale, made.final = [made], False, ""
        return made

    def __init__(self, *_: object) -> None:
        """Does nothing: `__new__` has set all there is."""

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"<symbol of node {self.node}>"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Records an operation."""
        recorder = next(each.recorder for each in symbols((args, kwargs)))
        try:
            return recorder.record(Call(func, args, kwargs or {}))
        except NoBoundError as error:
            recorder.failure = recorder.failure or error
            raise


STAND_INS.add(Symbol)


def symbols(nested: object) -> Iterator[Symbol]:
    """Yields the symbols in nested arguments."""
    if isinstance(nested, Symbol):
        yield nested
    elif isinstance(nested, list | tuple):
        for each in nested:
            yield from symbols(each)
    elif isinstance(nested, dict):
        yield from symbols(list(nested.values()))


def plain_values(nested: Any) -> Any:
    """Returns arguments with the values of symbols in their places."""
    if isinstance(nested, Symbol):
        return nested.value
    if isinstance(nested, list | tuple):
        return type(nested)(map(plain_values, nested))
    if isinstance(nested, dict):
        return {key: plain_values(each) for key, each in nested.items()}
    return nested


@dataclass(frozen=True)
class Call:
    """A call of one of torch's operations, with symbols among its arguments."""

    function: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the operation without its namespace, such as ``relu`` or ``relu_``."""
        return str(self.function._schema.name).removeprefix("aten::")

    @property
    def in_place(self) -> bool:
        """Whether the operation changes one of its arguments."""
        return bool(self.function._schema.is_mutable)

    @property
    def shares_memory(self) -> bool:
        """Whether a result is a view of an argument."""
        return any(each.alias_info is not None for each in self.function._schema.returns)

    def argument(self, name: str, default: Any = None) -> Any:
        """Returns an argument by its name in the operation's schema."""
        for place, declared in enumerate(self.function._schema.arguments):
            if declared.name == name:
                if place < len(self.arguments):
                    return self.arguments[place]
                if name in self.options:
                    return self.options[name]
                return declared.default_value if declared.has_default_value() else default
        return default
