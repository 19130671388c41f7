"""Global state of the process that other people's code may leave changed.

An attack or a model may enter autocast and not leave it, register a hook on all modules, replace a
method of `torch.Tensor`, set the default dtype, or change the working folder: every later number of
the run would be another.  `GlobalState.now` records that state, `GlobalState.put_back` restores it
and names what was changed.

Python lets code reach everything in its process, so that this is no protection against an attack
that means harm: `gibbon.runner.process_limits` is.

`Modes` is the small part of it that decides how torch computes, which costs a microsecond to read
and is checked after each call of a model.
"""

from __future__ import annotations

import builtins
import logging
import math
import operator
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as all_modules

_TORCH = str(Path(torch.__file__).parent)
MODE_NAMES = ("the grad mode", "inference mode", "the default dtype", "autocast")
TINY = 1e-40  # a denormal float32, which is read as 0 if denormal numbers are flushed

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


@dataclass(frozen=True)
class _Setting:
    """A setting of the process: its name, and how it is read and written.

    ``numeric`` says whether it may change what torch or numpy compute.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    numeric: bool = True


def _numpy_errors() -> tuple[Any, ...]:
    return (*np.geterr().items(), np.geterrcall())


def _set_numpy_errors(value: tuple[Any, ...]) -> None:
    np.seterr(**dict(value[:-1]))
    np.seterrcall(value[-1])


def _filters() -> tuple[Any, ...]:
    return tuple(warnings.filters), warnings.showwarning


def _set_filters(value: tuple[Any, ...]) -> None:
    filters, show = value
    warnings.filters[:] = filters  # type: ignore[index]  # a list, whatever the stubs say
    changed = getattr(warnings, "_filters_mutated", None)
    if changed is not None:
        changed()
    warnings.showwarning = show


def _set_environment(value: Mapping[str, str]) -> None:
    for name in os.environ.keys() - value.keys():
        del os.environ[name]
    os.environ.update(value)


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  a string is compared
    except FileNotFoundError:
        return None


def _set_folder(value: str | None) -> None:
    if value is not None:
        os.chdir(value)


def _set_path(value: tuple[str, ...]) -> None:
    sys.path[:] = value


def _streams() -> tuple[Any, Any, Any]:
    return sys.stdin, sys.stdout, sys.stderr


def _set_streams(value: tuple[Any, Any, Any]) -> None:
    sys.stdin, sys.stdout, sys.stderr = value


def _handlers() -> tuple[Any, ...]:
    return tuple(map(signal.getsignal, _signals()))


@cache
def _signals() -> tuple[signal.Signals, ...]:
    fixed = {getattr(signal, name, None) for name in ("SIGKILL", "SIGSTOP")}
    return tuple(sorted(signal.valid_signals() & set(signal.Signals) - fixed))


def _set_handlers(value: tuple[Any, ...]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for number, handler in zip(_signals(), value, strict=True):
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _flushes() -> bool:
    return bool(torch.tensor(TINY).mul_(1.0).item() == 0)


def _saved_tensor_hooks() -> object:
    return torch._C._autograd._top_saved_tensors_default_hooks(False)


def _deterministic() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def _set_threads(value: int) -> None:
    if torch.get_num_threads() != value:
        torch.set_num_threads(value)


def _backend(name: str, place: Any, key: str) -> _Setting:
    return _Setting(name, lambda: getattr(place, key), lambda value: setattr(place, key, value))


def _default_device() -> str:
    return str(torch.get_default_device())


def _set_default_device(value: str) -> None:
    torch.set_default_device(None if value == "cpu" else value)


def _cuda_device() -> int | None:
    ready = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.current_device() if ready else None


def _set_cuda_device(value: int | None) -> None:
    if value is not None:
        torch.cuda.set_device(value)


_CUDNN, _MATMUL = torch.backends.cudnn, torch.backends.cuda.matmul
_SETTINGS = (
    _Setting("deterministic algorithms", _deterministic, lambda value: _set_deterministic(*value)),
    _Setting("the number of threads", torch.get_num_threads, _set_threads),
    _Setting("the default device", _default_device, _set_default_device),
    _Setting("CUDA's device", _cuda_device, _set_cuda_device),
    _Setting("anomaly detection", torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    _Setting("flushing of denormal numbers", _flushes, torch.set_flush_denormal),
    _backend("TF32 of products", _MATMUL, "allow_tf32"),
    _backend("TF32 of convolutions", _CUDNN, "allow_tf32"),
    _backend("cuDNN", _CUDNN, "enabled"),
    _backend("the choice of cuDNN's algorithms", _CUDNN, "benchmark"),
    _backend("cuDNN's determinism", _CUDNN, "deterministic"),
    _Setting("numpy.errstate", _numpy_errors, _set_numpy_errors),
    _Setting("warnings filters", _filters, _set_filters, numeric=False),
    _Setting("logging", lambda: logging.root.manager.disable, logging.disable, numeric=False),
    _Setting("os.environ", lambda: dict(os.environ), _set_environment, numeric=False),
    _Setting("the working folder", _folder, _set_folder, numeric=False),
    _Setting("sys.path", lambda: tuple(sys.path), _set_path, numeric=False),
    _Setting("standard streams", _streams, _set_streams, numeric=False),
    _Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit, numeric=False),
    _Setting("signal handlers", _handlers, _set_handlers, numeric=False),
)
_NUMERIC = frozenset(each.name for each in _SETTINGS if each.numeric) | frozenset(MODE_NAMES)


def _set_deterministic(strict: bool, lenient: bool) -> None:
    torch.use_deterministic_algorithms(strict, warn_only=lenient)


# Modules and classes whose functions decide what a number is.
_NAMESPACES: tuple[tuple[str, Any], ...] = (
    ("torch", torch),
    ("torch.Tensor", Tensor),
    ("torch.nn.functional", nn.functional),
    ("torch.nn.Module", nn.Module),
    ("torch.autograd", torch.autograd),
    ("torch.linalg", torch.linalg),
    ("numpy", np),
    ("math", math),
    ("random", random),
    ("builtins", builtins),
)
_LAYERS = tuple(
    (f"torch.nn.{name}", value)
    for name, value in vars(nn).items()
    if isinstance(value, type) and issubclass(value, nn.Module) and value is not nn.Module
)
_CALLS = ("forward", "__call__")  # of layers


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
    functions: tuple[tuple[tuple[str, ...], tuple[Any, ...]], ...]
    layers: tuple[Any, ...]
    threads: frozenset[threading.Thread]

    @classmethod
    def now(cls) -> GlobalState:
        """Returns the present state."""
        return cls(
            Modes.now(),
            _autocast_depth(),
            _stacks(),
            _saved_tensor_hooks(),
            tuple(each.read() for each in _SETTINGS),
            tuple(tuple(each.items()) for each in _HOOKS),
            tuple((tuple(vars(place)), tuple(vars(place).values())) for _, place in _NAMESPACES),
            _layers(),
            frozenset(threading.enumerate()),
        )

    def put_back(self) -> Changes:
        """Restores this state, and returns what was changed."""
        code = [*self._put_stacks_back()]
        for registry, items in zip(_HOOKS, self.hooks, strict=True):
            if len(registry) != len(items) or tuple(registry.items()) != items:
                registry.clear()
                registry.update(items)
                code.append("a hook on all modules")
        code += self._put_functions_back()
        settings = [*self._put_modes_back()]
        for setting, before in zip(_SETTINGS, self.settings, strict=True):
            if setting.read() != before:
                settings.append(setting.name)
                with suppress(RuntimeError, ValueError, OSError):
                    setting.write(before)
        return Changes(tuple(settings), tuple(dict.fromkeys(code)))

    def _put_functions_back(self) -> Iterator[str]:
        """Restores replaced functions of torch, numpy and Python, and yields their names."""
        for (name, place), (keys, values) in zip(_NAMESPACES, self.functions, strict=True):
            own = vars(place)
            if len(own) == len(keys) and all(map(operator.is_, own.values(), values)):
                continue
            before = dict(zip(keys, values, strict=True))
            for key, value in before.items():
                now = own.get(key, _ABSENT)
                if now is not value and _decides(place, key, value) and not _of_torch(key, now):
                    setattr(place, key, value)
                    yield f"{name}.{key}"
            for key in [key for key in own if key not in before and _hides(place, key)]:
                delattr(place, key)
                yield f"{name}.{key}"
        if not all(map(operator.is_, _layers(), self.layers)):
            calls = [(name, kind, key) for name, kind in _LAYERS for key in _CALLS]
            for (name, kind, key), value in zip(calls, self.layers, strict=True):
                if vars(kind).get(key, _ABSENT) is value:
                    continue
                if value is _ABSENT:
                    delattr(kind, key)
                else:
                    setattr(kind, key, value)
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


def _layers() -> tuple[Any, ...]:
    return tuple(vars(kind).get(key, _ABSENT) for _, kind in _LAYERS for key in _CALLS)


def _decides(place: Any, key: str, value: object) -> bool:
    """Returns whether a name that was replaced is a function or a property, not a counter."""
    ordinary = key.startswith("__") and not callable(value)
    return (callable(value) or isinstance(place, type)) and not ordinary


def _of_torch(key: str, value: object) -> bool:
    """Returns whether torch itself put this function in place of another: it does so lazily."""
    if isinstance(value, type):
        return value.__module__.partition(".")[0] == "torch"
    code = getattr(value, "__code__", None)
    return (
        code is not None
        and getattr(value, "__name__", "") == key
        and str(code.co_filename).startswith(_TORCH)
    )


def _hides(place: Any, key: str) -> bool:
    """Returns whether an attribute of a class hides that of a base class."""
    return isinstance(place, type) and any(key in vars(base) for base in place.__mro__[1:])


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
