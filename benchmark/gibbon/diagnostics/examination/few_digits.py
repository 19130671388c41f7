"""Watches a pass for numbers with fewer digits than float32's, such as those of bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FEW = (torch.bfloat16, torch.float16)


class FewDigits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records whether an operation returned such numbers, for a ``with`` block.

    >>> with FewDigits() as watch:
    ...     _ = torch.ones(2).bfloat16() + 1
    >>> watch.seen
    True
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise the first call imports all of torch._dynamo, which takes a second.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Calls the operation."""
        result = func(*args, **(kwargs or {}))
        if not self.seen:
            leaves = tree_leaves(result)
            self.seen = any(isinstance(each, Tensor) and each.dtype in FEW for each in leaves)
        return result


def has_few_digits(run: Any, inputs: Tensor) -> tuple[bool, Tensor]:
    """Returns whether a model computes with few digits, and its outputs for these inputs.

    Operations that can't be watched, such as compiled ones, count as those of float32.
    """
    try:
        with FewDigits() as watch:
            outputs = run(inputs)
    except Exception:  # noqa: BLE001  the call itself may raise: then it does so again
        return False, run(inputs)
    return watch.seen, outputs
