"""Records a torch module as a `Network`, from the operations that it makes.

The module is run once on two inputs that are `Symbol` tensors.  Every operation that torch
dispatches with a symbol among its arguments is recorded, whatever Python code led to it: user
classes, hooks and functions alike.  Operations on other tensors, such as weights, are computed.  A
module is refused, with the reason, if it uses an operation that `gibbon.bounds.supported` has not,
reads a value that depends on the input, or lets one example influence another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gibbon.bounds.network import Network, NoBoundError, Node
from gibbon.bounds.recording import TRACED, Call, Recording, Symbol, plain_values, symbols
from gibbon.bounds.supported import CONSTANT, RECORDED
from gibbon.core.frames import raised_in
from gibbon.core.plain_text import message_of

FLOATS = (torch.float32, torch.float64)


def trace(module: nn.Module, inputs: Tensor) -> Network:
    """Returns the network that a module computes.

    Args:
        module: a module in eval mode, without gradients of its parameters.
        inputs: float32, shape (N, *input_shape): a few examples; two are used.

    Raises `NoBoundError` if it can't be recorded.
    """
    if inputs.device.type == "mps":
        raise NoBoundError("is on a device without float64")
    two = inputs[:1].expand(TRACED, *inputs.shape[1:]).contiguous()
    recorder = Recorder(inputs.device)
    symbol = Symbol(two, recorder, recorder.add_node(Node(None, (), tuple(two.shape[1:]))))
    problem, outputs = "", None
    try:
        with torch.no_grad():
            outputs = module(symbol)
    except NoBoundError as error:
        problem = message_of(error)
    except Exception as error:  # noqa: BLE001  # the user's module: it may raise anything
        problem = f"can't be traced: {type(error).__name__}: {_gist(error)} "
        problem += f"(raised by {raised_in(error)})"
    # The first failure is the reason, also if the module caught it.  An exception that is kept
    # would keep the frames of the module, and with them the module.
    failure, recorder.failure = recorder.failure, None
    if failure is not None:
        problem = str(failure)
        failure.with_traceback(None)
    if problem:
        raise NoBoundError(problem)
    return recorder.network(outputs)


def _gist(error: Exception) -> str:
    lines = message_of(error).strip().splitlines()
    return lines[0] if lines else "no message"


class Recorder(Recording):
    """Records calls by the functions of `gibbon.bounds.supported`."""

    def record(self, call: Call) -> Any:
        """Adds the nodes of a call, and returns its result.  Raises `NoBoundError`."""
        given = list(symbols((call.arguments, call.options)))
        if all(each.node is None for each in given) and not call.in_place:
            return self._by_product(call)
        for each in given:
            if each.stale:
                raise NoBoundError("changes a tensor in place and then uses a view of it")
            if each.final:
                raise NoBoundError(f"continues after its {each.final.replace('_', '-')}")
            if each.node is None:
                raise NoBoundError(f"uses an index that depends on the input ({call.name})")
        if call.in_place:
            return self._record_in_place(call)
        return self._recorded(call, call.name)

    def _by_product(self, call: Call) -> Any:
        """Returns what a call makes of indices alone, which no node of the network may use."""
        result = call.function(*plain_values(call.arguments), **plain_values(call.options))
        if not isinstance(result, Tensor):
            raise NoBoundError(_unsupported(call.name))
        return Symbol(result, self, None)

    def _record_in_place(self, call: Call) -> Symbol:
        target = call.arguments[0] if call.arguments else None
        if not isinstance(target, Symbol) or not call.name.endswith("_"):
            raise NoBoundError(f"writes into a tensor with {call.name}")
        found = self._recorded(call, call.name.removesuffix("_"), value=target.value.clone())
        if not isinstance(found, Symbol) or found.value.shape != target.value.shape:
            raise NoBoundError(f"writes into a tensor with {call.name}")
        for other in target.storage_group:
            other.stale = other is not target
        target.value, target.node = found.value, found.node
        target.storage_group = [target]
        return target

    def _recorded(self, call: Call, name: str, *, value: Tensor | None = None) -> Any:
        arguments, options = plain_values(call.arguments), plain_values(call.options)
        if value is not None:
            arguments = (value, *arguments[1:])
        if name in CONSTANT:
            return call.function(*arguments, **options)
        handler = RECORDED.get(name)
        if handler is None:
            raise NoBoundError(_unsupported(name))
        result = call.function(*arguments, **options)
        found = handler(self, call, result)
        return self._wrapped(call, result, found)

    def _wrapped(self, call: Call, result: Any, found: Any) -> Any:
        if isinstance(result, list | tuple):
            nodes = found if isinstance(found, list) else [found]
            nodes = [*nodes, *[None] * (len(result) - len(nodes))]
            wrapped = [self._wrapped(call, *pair) for pair in zip(result, nodes, strict=True)]
            return type(result)(wrapped) if type(result) in (list, tuple) else tuple(wrapped)
        final = found if isinstance(found, str) else ""
        if final:
            (source,) = symbols(call.arguments)
            found = source.node
        if found is not None and result.dtype not in FLOATS:
            raise NoBoundError(f"computes in {str(result.dtype).removeprefix('torch.')}")
        symbol = Symbol(result, self, found)
        symbol.final = final
        if call.shares_memory:
            for each in symbols(call.arguments):
                each.storage_group.append(symbol)
                symbol.storage_group = each.storage_group
        return symbol

    def network(self, outputs: object) -> Network:
        """Returns the network whose outputs are those of a symbol."""
        if not isinstance(outputs, Symbol):
            raise NoBoundError("returns something that does not depend on its input")
        if outputs.node is None or outputs.stale:
            raise NoBoundError("returns an index, or a view of a tensor that was changed in place")
        if outputs.value.ndim != 2:
            raise NoBoundError("does not return one row of outputs for each example")
        return Network(
            tuple(self._needed(outputs.node)),
            final=outputs.final,  # type: ignore[arg-type]
        )

    def _needed(self, last: int) -> list[Node]:
        """Returns the nodes that a node depends on, in order, with their new positions."""
        needed = {last}
        for position in range(last, 0, -1):
            if position in needed:
                needed.update(self.nodes[position].inputs)
        if 0 not in needed:
            raise NoBoundError("returns something that does not depend on its input")
        order = {old: new for new, old in enumerate(sorted(needed))}
        return [
            Node(node.operation, tuple(order[each] for each in node.inputs), node.shape)
            for node in (self.nodes[each] for each in order)
        ]


def _unsupported(name: str) -> str:
    if name in ("_local_scalar_dense", "equal", "allclose", "is_nonzero"):
        return "decides by a value that depends on the input"
    return f"uses the operation {name}, which has no bounds here"
