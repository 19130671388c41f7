"""Global state of the process that other people's code may leave changed.

An attack or a model may enter autocast and not leave it, register a hook on all modules, replace a
method of `torch.Tensor`, set the default dtype, or change the working folder: every later number of
the run would be another.  `GlobalState.now` records that state, `GlobalState.put_back` restores it
and names what was changed.

Python lets code reach everything in its process, so that this is no protection against an attack
that means harm: `gibbon.runner.own_processes.process_limits` is.

`Modes` is the small part of it that decides how torch computes, which costs a microsecond to read
and is checked after each call of a model.
"""

from __future__ import annotations

import atexit
import builtins
import collections
import contextlib
import copy
import copyreg
import csv
import dataclasses
import functools
import gc
import hashlib
import io
import itertools
import json
import math
import operator
import os
import pickle
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as all_modules

from gibbon.core.process_settings import NUMERIC_SETTINGS, SETTINGS, read

_TORCH = str(Path(torch.__file__).parent)
_GIBBON = str(Path(__file__).parents[1])
MODE_NAMES = ("the grad mode", "inference mode", "the default dtype", "autocast")
PACKAGE = __name__.partition(".")[0]

# Guards that undo an inference mode which somebody entered and never left; they must stay alive.
_LEAVING: list[object] = []


# Hooks on all modules, and the other registries of that kind.
_HOOKS: tuple[MutableMapping[Any, Any], ...] = tuple(
    value
    for name, value in vars(all_modules).items()
    if name.startswith("_global_") and isinstance(value, MutableMapping)
)


class Modes(NamedTuple):
    """How torch computes: gradients, autocast, default dtype, modes and hooks that see every call.

    >>> before = Modes.now()
    >>> _ = torch.set_grad_enabled(False)
    >>> before.put_back()
    >>> torch.is_grad_enabled()
    True
    """

    gradients: bool
    inference: bool
    dtype: torch.dtype
    functions: int
    dispatches: int
    cpu: bool
    cpu_dtype: torch.dtype
    cuda: bool
    cuda_dtype: torch.dtype
    hooks: tuple[int, ...]

    @classmethod
    def now(cls) -> Modes:
        """Returns the present modes."""
        return cls(
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch._C._len_torch_function_stack(),
            torch._C._len_torch_dispatch_stack(),
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.is_autocast_enabled("cuda"),
            torch.get_autocast_dtype("cuda"),
            tuple(map(len, _HOOKS)),
        )

    def put_back(self) -> None:
        """Restores these modes; modes that see every operation are left from the last one on."""
        for _ in range(torch._C._len_torch_function_stack() - self.functions):
            torch._C._pop_torch_function_stack()
        for _ in range(torch._C._len_torch_dispatch_stack() - self.dispatches):
            torch._C._pop_torch_dispatch_stack(None)
        if torch.is_inference_mode_enabled() != self.inference:
            _LEAVING.append(torch._C._InferenceMode(self.inference))
        torch.set_grad_enabled(self.gradients)
        torch.set_default_dtype(self.dtype)
        for device, enabled, dtype in (
            ("cpu", self.cpu, self.cpu_dtype),
            ("cuda", self.cuda, self.cuda_dtype),
        ):
            if torch.is_autocast_enabled(device) != enabled:
                torch.clear_autocast_cache()
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)
        for registry, count in zip(_HOOKS, self.hooks, strict=True):
            while len(registry) > count:
                registry.popitem()  # the latest


@contextmanager
def plain_modes() -> Iterator[None]:
    """Computes in the modes that results are defined in, for a ``with`` block.

    That is: gradients are recorded, no inference mode, no autocast, float32 by default, and no mode
    that sees torch's operations.  Afterwards the caller's modes are restored.
    """
    before, stacks = Modes.now(), _stacks()
    plain = before._replace(
        gradients=True,
        inference=False,
        dtype=torch.float32,
        functions=0,
        dispatches=0,
        cpu=False,
        cuda=False,
    )
    with torch.inference_mode(False):
        plain.put_back()
        try:
            yield
        finally:
            _set_stacks(stacks)
            before._replace(inference=False).put_back()
    torch.set_grad_enabled(before.gradients)  # which leaving an inference mode may have changed


_NUMERIC = NUMERIC_SETTINGS | frozenset(MODE_NAMES)

# Modules and classes whose functions decide what a number is, and what is written.
_NAMESPACES: tuple[tuple[str, Any], ...] = (
    ("torch", torch),
    ("torch.Tensor", Tensor),
    ("torch.nn.functional", nn.functional),
    ("torch.nn.init", nn.init),
    ("torch.nn.Module", nn.Module),
    ("torch.nn.Parameter", nn.Parameter),
    ("torch.autograd", torch.autograd),
    ("torch.autograd.Function", torch.autograd.Function),
    ("torch.autograd.graph", torch.autograd.graph),
    ("torch.random", torch.random),
    ("torch.func", torch.func),
    ("torch.linalg", torch.linalg),
    ("torch.special", torch.special),
    ("torch.fft", torch.fft),
    ("torch._C._nn", torch._C._nn),
    ("numpy", np),
    ("numpy.linalg", np.linalg),
    ("numpy.random", np.random),
    ("math", math),
    ("random", random),
    ("builtins", builtins),
    ("copy", copy),
    *((each.__name__, each) for each in (collections, contextlib, copyreg, csv, dataclasses)),
    *((each.__name__, each) for each in (functools, gc, itertools, operator, re, shutil)),
    *((each.__name__, each) for each in (struct, subprocess, zlib)),
    ("hashlib", hashlib),
    ("json", json),
    ("os", os),
    ("io", io),
    ("pickle", pickle),
    ("tempfile", tempfile),
    ("atexit", atexit),
    ("time", time),
    ("pathlib.Path", Path),
    *(
        (f"torch.nn.{name}", value)
        for name, value in vars(nn).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value is not nn.Module
    ),
)


LOADED = "the modules that are loaded"
LIBRARIES = (
    *("pyarrow", "pyarrow.parquet", "pyarrow.compute", "pandas", "safetensors.torch"),
    *("scipy.stats", "scipy.special", "scipy.optimize", "sklearn.metrics"),
)


class Changes(NamedTuple):
    """Names of what was changed.

    Args:
        settings: settings of torch, numpy and the process, of which code often sets one.
        code: functions and methods that were replaced, and hooks and modes that see every call.
    """

    settings: tuple[str, ...] = ()
    code: tuple[str, ...] = ()

    @property
    def numeric(self) -> tuple[str, ...]:
        """The names of changes that may change numbers."""
        return (*(each for each in self.settings if each in _NUMERIC), *self.code)


@dataclass(frozen=True)
class GlobalState:
    """The global state at one moment.

    >>> state = GlobalState.now()
    >>> handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    >>> state.put_back().code
    ('a hook on all modules',)
    >>> state.put_back().code
    ()
    """

    modes: Modes
    nesting: int
    stacks: tuple[tuple[object, ...], tuple[object, ...]]
    saving: object
    settings: tuple[Any, ...]
    hooks: tuple[tuple[tuple[Any, Any], ...], ...]
    places: tuple[tuple[str, Any], ...]
    functions: tuple[tuple[tuple[str, ...], tuple[Any, ...]], ...]
    modules: tuple[tuple[str, ModuleType], ...]
    loaded: dict[str, ModuleType]
    kernels: frozenset[str]
    threads: frozenset[threading.Thread]

    @classmethod
    def now(cls, *, ours: bool = False) -> GlobalState:
        """Returns the present state; ``ours`` is whether it includes functions of Gibbon.

        Then it also includes those of the libraries that results are counted and stored with.
        """
        count = len(sys.modules)
        places = (*_NAMESPACES, *_libraries(count), *_ours(count)) if ours else _NAMESPACES
        return cls(
            Modes.now(),
            _autocast_depth(),
            _stacks(),
            _saved_tensor_hooks(),
            tuple(map(read, SETTINGS)),
            tuple(tuple(each.items()) for each in _HOOKS),
            places,
            tuple((tuple(own), tuple(own.values())) for own in (vars(each) for _, each in places)),
            _imported(places),
            sys.modules.copy(),
            _kernels(),
            frozenset(threading.enumerate()),
        )

    def put_back(self, *, keep: frozenset[str] = frozenset()) -> Changes:
        """Restores this state but for the settings of ``keep``, and returns what was changed."""
        code = [*self._put_stacks_back()]
        for registry, items in zip(_HOOKS, self.hooks, strict=True):
            if len(registry) != len(items) or tuple(registry.items()) != items:
                registry.clear()
                registry.update(items)
                code.append("a hook on all modules")
        code += self._put_functions_back()
        for name, module in self.modules:
            if sys.modules.get(name) is not module:
                sys.modules[name] = module
                code.append(f"sys.modules[{name!r}]")
        if added := _kernels() - self.kernels:
            _remove_kernels(added)
            code.append("operations of torch")
        settings = [*self._put_modes_back()]
        if LOADED not in keep and self._put_modules_back():
            settings.append(LOADED)
        pairs = zip(SETTINGS, self.settings, strict=True)
        changed = [(each, old) for each, old in pairs if read(each) != old]
        for setting, before in changed:  # to write one may change what is read of another
            if setting.name not in keep:
                settings.append(setting.name)
                with suppress(RuntimeError, ValueError, OSError):
                    setting.write(before)
        return Changes(tuple(settings), tuple(dict.fromkeys(code)))

    def _put_functions_back(self) -> Iterator[str]:
        """Restores replaced functions of torch, numpy and Python, and yields their names."""
        for (name, place), (keys, values) in zip(self.places, self.functions, strict=True):
            own = vars(place)
            if len(own) == len(keys) and all(map(operator.is_, own.values(), values)):
                continue
            before = dict(zip(keys, values, strict=True))
            for key, value in before.items():
                now = own.get(key, _ABSENT)
                if now is not value and _decides(place, key, value) and not _lazy(key, now):
                    setattr(place, key, value)
                    yield f"{name}.{key}"
            for key in [key for key in own if key not in before and _hides(place, key)]:
                delattr(place, key)
                yield f"{name}.{key}"

    def new_threads(self) -> list[str]:
        """Returns the names of the threads that were started since and are still running."""
        return sorted(
            each.name
            for each in threading.enumerate()
            if each not in self.threads and each.is_alive() and not each.daemon
        )

    def _put_stacks_back(self) -> Iterator[str]:
        if _stacks() != self.stacks:
            yield "a mode that sees torch's operations"
            _set_stacks(self.stacks)
        if (top := _saved_tensor_hooks()) != self.saving:
            yield "hooks on all saved tensors"
            while top is not None and top != self.saving:
                torch._C._autograd._pop_saved_tensors_default_hooks()
                top = _saved_tensor_hooks()

    def _put_modules_back(self) -> bool:
        """Restores modules that were replaced or removed; returns whether there were any."""
        now = sys.modules.get
        other = {name: each for name, each in self.loaded.items() if now(name) is not each}
        sys.modules.update(other)
        return bool(other)

    def _put_modes_back(self) -> Iterator[str]:
        for _ in range(_autocast_depth() - self.nesting):
            torch.autocast_decrement_nesting()
        now, before = Modes.now(), self.modes
        if now == before:
            return
        before.put_back()
        autocast = (now.cpu, now.cpu_dtype, now.cuda, now.cuda_dtype)
        differs = (
            now.gradients != before.gradients,
            now.inference != before.inference,
            now.dtype != before.dtype,
            autocast != (before.cpu, before.cpu_dtype, before.cuda, before.cuda_dtype),
        )
        yield from compress(MODE_NAMES, differs)


# Settings that a module may change when it is imported, for its own later work.
OF_IMPORTS = frozenset(
    {"sys.path", "import hooks", "os.environ", "warnings filters", "logging", "asyncio's policy"}
    | {LOADED, "how objects are copied", "what torch loads"}
)


@contextmanager
def importing_code() -> Iterator[None]:
    """Restores the global state that a module leaves changed when it is imported.

    It may extend ``sys.path`` and the environment, add import hooks, and say which warnings and
    records are shown.
    """
    state = GlobalState.now()
    try:
        yield
    finally:
        state.put_back(keep=OF_IMPORTS)


@contextmanager
def calculating() -> Iterator[None]:
    """Computes in `plain_modes`, and restores the caller's global state, for a ``with`` block.

    The random generators of torch's CPU, numpy and random are restored, too.
    """
    state = GlobalState.now()
    generators = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with plain_modes():
            yield
    finally:
        torch.set_rng_state(generators[0])
        np.random.set_state(generators[1])  # noqa: NPY002
        random.setstate(generators[2])
        state.put_back()


_ABSENT = object()


@lru_cache(maxsize=1)
def _libraries(modules: int) -> tuple[tuple[str, Any], ...]:
    """Returns the modules of libraries that results are counted and stored with, if loaded."""
    return tuple((name, sys.modules[name]) for name in LIBRARIES if name in sys.modules)


@lru_cache(maxsize=1)
def _ours(modules: int) -> tuple[tuple[str, Any], ...]:
    """Returns Gibbon's modules and classes, by name; ``modules`` is the number of those loaded."""
    loaded = [
        (name, module)
        for name, module in sys.modules.items()
        if name.partition(".")[0] == PACKAGE and module is not None
    ]
    classes = {
        f"{value.__module__}.{value.__qualname__}": value
        for name, module in loaded
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == name
    }
    return (*loaded, *classes.items())


def _imported(places: Iterable[tuple[str, Any]]) -> tuple[tuple[str, ModuleType], ...]:
    """Returns the modules among places that an import would give, by name."""
    return tuple(
        (place.__name__, place)
        for _, place in places
        if type(place) is ModuleType and sys.modules.get(place.__name__) is place
    )


def _kernels() -> frozenset[str]:
    """Returns torch's own operations that Python code computes, but for their shapes alone."""
    names = torch.library._impls
    return frozenset(each for each in names if each[:5] == "aten/" and each[-5:] != "/Meta")


def _remove_kernels(added: frozenset[str]) -> None:
    """Removes operations of torch that were registered since, with those that their owner has."""
    for each in gc.get_objects():
        if type(each) is torch.library.Library and each._op_impls & added:
            cast(Any, each)._destroy()


def _saved_tensor_hooks() -> object:
    return torch._C._autograd._top_saved_tensors_default_hooks(False)


def _decides(place: Any, key: str, value: object) -> bool:
    """Returns whether a name that was replaced is a function or a property, not a counter."""
    ordinary = key.startswith("__") and not callable(value)
    return (callable(value) or isinstance(place, type)) and not ordinary


def _lazy(key: str, value: object) -> bool:
    """Returns whether torch or Gibbon put this function in place of another, as they do lazily."""
    if isinstance(value, type):
        return value.__module__.partition(".")[0] in ("torch", PACKAGE)
    code = getattr(value, "__code__", None)
    return (
        code is not None
        and getattr(value, "__name__", "") == key
        and str(code.co_filename).startswith((_TORCH, _GIBBON))
    )


def _hides(place: Any, key: str) -> bool:
    """Returns whether a new name hides that of a base class or of Python, or is called by it."""
    if not isinstance(place, type):
        return place is not builtins and hasattr(builtins, key) and not key.startswith("__")
    special = key.startswith("__") and callable(vars(place)[key])
    return special or any(key in vars(base) for base in place.__mro__[1:])


def _stacks() -> tuple[tuple[object, ...], tuple[object, ...]]:
    return (
        tuple(
            torch._C._get_function_stack_at(each)
            for each in range(torch._C._len_torch_function_stack())
        ),
        tuple(
            torch._C._get_dispatch_stack_at(each)
            for each in range(torch._C._len_torch_dispatch_stack())
        ),
    )


def _set_stacks(stacks: tuple[tuple[object, ...], tuple[object, ...]]) -> None:
    for _ in range(torch._C._len_torch_function_stack()):
        torch._C._pop_torch_function_stack()
    for _ in range(torch._C._len_torch_dispatch_stack()):
        torch._C._pop_torch_dispatch_stack(None)
    functions, dispatches = stacks
    for each in functions:
        torch._C._push_on_torch_function_stack(each)
    for each in dispatches:
        torch._C._push_on_torch_dispatch_stack(cast("Any", each))


def _autocast_depth() -> int:
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return depth
