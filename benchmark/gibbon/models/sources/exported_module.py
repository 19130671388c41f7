"""Wraps modules of torch.export, so that their mode can be set and batches have any size."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from gibbon.core.errors import ModelError
from gibbon.models.sources.fixed_batch import AcceptedInputs, AnyBatch

TRAINING_FLAGS = ("train", "training")  # arguments of torch's operators


def is_program(module: nn.Module) -> bool:
    """Returns whether a module was made from an exported program."""
    return isinstance(module, GraphModule) and "train" in vars(module) and "eval" in vars(module)


class Program(nn.Module):
    """A wrapper of the module of an exported program, which keeps its mode of export.

    ``train`` and ``eval`` raise on the module itself; here they only set ``training``.
    Raises `ModelError` if it was exported in training mode, or takes more than one input.
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        graph: torch.fx.Graph = program.graph  # type: ignore[assignment]
        _check_mode(graph)
        self.program = AnyBatch(program, _accepted(graph))
        for part in program.modules():
            part.training = False
        self.train(False)
        # torch.compile would unroll a batch that is run in parts.
        self._run = torch.compiler.disable(_run)  # type: ignore[no-untyped-call]

    @classmethod
    def around(cls, program: nn.Module, *, own: bool) -> Self:
        """Wraps a program, or a copy of it if it belongs to the caller (``own`` is False)."""
        return cls(program if own else copy.deepcopy(program))

    def train(self, mode: bool = True) -> Self:
        """Sets ``training`` and changes nothing else."""
        self.training = self.program.training = mode
        return self

    def forward(self, inputs: Tensor) -> Any:
        """Returns the program's outputs."""
        return self._run(self.program, inputs)


def _run(program: nn.Module, inputs: Tensor) -> Any:
    return program(inputs)


def _check_mode(graph: torch.fx.Graph) -> None:
    for node in graph.nodes:
        if any(name in TRAINING_FLAGS and value is True for name, value in _settings(node)):
            raise ModelError(
                f"it was exported in training mode ({node.target} is in training mode): export it "
                "again after model.eval()"
            )


def _settings(node: Node) -> Iterator[tuple[str, object]]:
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        yield from zip((each.name for each in schema.arguments), node.args, strict=False)
        yield from node.kwargs.items()


def _accepted(graph: torch.fx.Graph) -> AcceptedInputs:
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        raise ModelError(
            f"it takes {len(inputs)} inputs ({', '.join(node.name for node in inputs)}), expected "
            "one: the pictures"
        )
    example = inputs[0].meta.get("val")
    if not isinstance(example, Tensor) or example.ndim == 0:
        return AcceptedInputs()
    batch = example.shape[0]
    shape = tuple(side if isinstance(side, int) else None for side in example.shape[1:])
    if isinstance(batch, int):
        return AcceptedInputs(shape, least=batch, most=batch)
    least, most = _range(batch)
    return AcceptedInputs(shape, least=least, most=most)


def _range(size: torch.SymInt) -> tuple[int, int | None]:
    node = size.node
    limits = node.shape_env.bound_sympy(node.expr) if node.shape_env is not None else None
    if limits is None:
        return 1, None
    most = int(limits.upper) if limits.upper.is_Integer else None
    return max(1, int(limits.lower)) if limits.lower.is_Integer else 1, most
