"""Checks whether all code of a module is that of torch, torchvision, Gibbon or its zoo.

What such code does in one call it does in every call, as far as inputs and global state are
concerned.  A module of a user may write into its input, or leave global state changed, in some
calls only.
"""

from __future__ import annotations

from types import FunctionType

from torch import nn

from gibbon.models.snapshot import HOOKS, OUR_HOOKS

KNOWN = (
    "torch.nn.modules.",
    "torchvision.models.",
    "torchvision.ops.",
    "gibbon.models.",
    "gibbon_zoo.",
)
KNOWN_FUNCTIONS = (*KNOWN, "torch.")


def is_known(module: nn.Module) -> bool:
    """Returns whether the classes, hooks and functions of all parts of a module are known code.

    >>> is_known(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    True
    >>> layer = nn.Linear(4, 2)
    >>> _ = layer.register_forward_pre_hook(lambda module, inputs: None)
    >>> is_known(nn.Sequential(nn.Flatten(), layer))
    False
    """
    return all(_is_known(part) for part in module.modules())


def _is_known(part: nn.Module) -> bool:
    own = vars(part)
    hooks = (hook for name in HOOKS for hook in own.get(name, {}).values())
    functions = (each for each in own.values() if isinstance(each, FunctionType))
    return (
        f"{type(part).__module__}.".startswith(KNOWN)
        and all(isinstance(hook, OUR_HOOKS) for hook in hooks)
        and all(f"{each.__module__}.".startswith(KNOWN_FUNCTIONS) for each in functions)
    )
