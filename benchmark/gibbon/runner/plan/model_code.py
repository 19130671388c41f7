"""Digests of the code that a model's answers and gradients come from."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules import module as torch_module

from gibbon.models.snapshot import HOOKS, OUR_HOOKS
from gibbon.runner.plan.reach import Reach


def model_code(module: nn.Module) -> str | None:
    """Returns a digest of the code of a module and of its parts, but for that of torch and Gibbon.

    It also covers the numbers and words that parts hold, such as a stride or the sign of a custom
    gradient, unless a method other than ``__init__`` writes them, as it does a counter of calls.
    None if there is too much code to be followed.

    >>> class Scaled(nn.Module):
    ...     def __init__(self, factor):
    ...         super().__init__()
    ...         self.factor = factor
    ...     def forward(self, inputs):
    ...         return self.factor * inputs
    >>> model_code(Scaled(2.0)) == model_code(Scaled(2.0)) != model_code(Scaled(3.0))
    True
    """
    reach = Reach(
        packages=frozenset(type(part).__module__.partition(".")[0] for part in module.modules()),
        registered=frozenset(map(id, module.modules())),
    )
    parts = [f"{name}={reach.of(part)}" for name, part in module.named_modules()]
    parts += [f"all {name}={reach.of(hook)}" for name, hook in _hooks_of_all()]
    digest = reach.digest(*parts)
    return None if reach.is_full else digest


def _hooks_of_all() -> Iterator[tuple[str, object]]:
    """Yields the hooks that are registered for all modules at once."""
    for name in HOOKS:
        for hook in getattr(torch_module, f"_global{name}", {}).values():
            if not isinstance(hook, OUR_HOOKS):
                yield name, hook
