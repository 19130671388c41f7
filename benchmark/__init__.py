"""Gibbon: an adversarial-robustness benchmark harness for PyTorch.

``evaluate`` is the way in from Python; it is imported, and torch with it, when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.evaluation import Results, evaluate

__all__ = ["Results", "evaluate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from benchmark import evaluation

    return getattr(evaluation, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
