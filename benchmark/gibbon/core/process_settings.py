"""Settings of torch, numpy and the process that other people's code may leave changed.

Each `Setting` is read before and after such code, and written back if it differs
(`gibbon.core.global_state`).  Settings that this version of torch or this system does not have are
left out.
"""

from __future__ import annotations

import copy
import copyreg
import csv
import decimal
import faulthandler
import gc
import importlib.machinery
import locale
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
import zipimport
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

with suppress(ImportError):  # Windows has none
    import resource

import numpy as np
import torch

from gibbon.core.standard_streams import read_streams, write_streams

TINY = 1e-40  # a denormal float32, which is read as 0 if denormal numbers are flushed
UNREADABLE = "unreadable"  # in place of a value that can't be read at the moment


@dataclass(frozen=True)
class Setting:
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
    return tuple(warnings.filters), *(getattr(warnings, name) for name in _OF_WARNINGS)


def _set_filters(value: tuple[Any, ...]) -> None:
    warnings.filters[:] = value[0]  # type: ignore[index]  # a list, whatever the stubs say
    changed = getattr(warnings, "_filters_mutated", None)
    if changed is not None:
        changed()
    for name, function in zip(_OF_WARNINGS, value[1:], strict=True):
        setattr(warnings, name, function)


def _set_environment(value: Mapping[str, str]) -> None:
    zone = os.environ.get("TZ")
    for name in os.environ.keys() - value.keys():
        del os.environ[name]
    os.environ.update(value)
    if zone != os.environ.get("TZ") and hasattr(time, "tzset"):
        time.tzset()


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  a string is compared
    except FileNotFoundError:
        return None


def _set_folder(value: str | None) -> None:
    if value is not None:
        os.chdir(value)


def _set_umask(value: int) -> None:
    os.umask(value)


def _set_locale(value: str) -> None:
    locale.setlocale(locale.LC_ALL, value)


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


def _deterministic() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def _set_threads(value: int) -> None:
    if torch.get_num_threads() != value:
        torch.set_num_threads(value)


def _backend(name: str, place: Any, key: str) -> Setting:
    return Setting(name, lambda: getattr(place, key), lambda value: setattr(place, key, value))


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


def _set_deterministic(strict: bool, lenient: bool) -> None:
    torch.use_deterministic_algorithms(strict, warn_only=lenient)


def _set_saved_tensor_hooks(message: str | None) -> None:
    if message is None:
        torch._C._autograd._saved_tensors_hooks_enable()
    else:
        torch._C._autograd._saved_tensors_hooks_disable(message)


def _decimals() -> tuple[Any, ...]:
    return _of_context(decimal.getcontext()), _of_context(decimal.DefaultContext)


def _of_context(context: decimal.Context) -> tuple[Any, ...]:
    traps = tuple(each for each, on in context.traps.items() if on)
    return (*(getattr(context, name) for name in _DECIMALS), traps)


def _set_decimals(value: tuple[Any, ...]) -> None:
    given = dict(zip(_DECIMALS, value[0][:-1], strict=True))
    decimal.setcontext(decimal.Context(**given, traps=list(value[0][-1])))
    for name, each in zip(_DECIMALS, value[1][:-1], strict=True):
        setattr(decimal.DefaultContext, name, each)
    for trap in decimal.DefaultContext.traps:
        decimal.DefaultContext.traps[trap] = trap in value[1][-1]


def _umask() -> int:
    value = os.umask(0o077)
    os.umask(value)
    return value


def _timers() -> tuple[bool, ...]:
    kinds = signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF
    return tuple(any(signal.getitimer(kind)) for kind in kinds)


def _set_timers(value: tuple[bool, ...]) -> None:
    kinds = signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF
    for kind, ran in zip(kinds, value, strict=True):
        if not ran:
            signal.setitimer(kind, 0)


def _blocked() -> frozenset[int]:
    return frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, []))


def _set_blocked(value: frozenset[int]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, value)


def _in_list(name: str, place: Any, key: str) -> Setting:
    """Returns the setting of a list of a module: the list itself, and what is in it."""

    def read() -> tuple[Any, ...]:
        values = getattr(place, key)
        return id(values), values, tuple(values)

    def write(value: tuple[Any, ...]) -> None:
        _, values, held = value
        values[:] = held
        setattr(place, key, values)

    return Setting(name, read, write, numeric=False)


def _import_hooks() -> tuple[Any, ...]:
    """Returns the finders of modules, and the folders whose modules others find."""
    cache = sys.path_importer_cache
    foreign = {key: each for key, each in cache.items() if type(each) not in _FINDERS}
    return sys.meta_path, tuple(sys.meta_path), sys.path_hooks, tuple(sys.path_hooks), foreign


def _set_import_hooks(value: tuple[Any, ...]) -> None:
    sys.meta_path, sys.meta_path[:] = value[0], value[1]
    sys.path_hooks, sys.path_hooks[:] = value[2], value[3]
    sys.path_importer_cache.clear()  # it is made again
    sys.path_importer_cache.update(value[4])


def _hooks_of_system() -> tuple[Any, ...]:
    return (
        sys.excepthook,
        sys.displayhook,
        sys.unraisablehook,
        threading.excepthook,
        sys.breakpointhook,
        tuple(sys.get_asyncgen_hooks()),
        sys.get_coroutine_origin_tracking_depth(),
    )


def _set_hooks_of_system(value: tuple[Any, ...]) -> None:
    sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook = value[:4]
    sys.breakpointhook = value[4]
    sys.set_asyncgen_hooks(*value[5])
    sys.set_coroutine_origin_tracking_depth(value[6])


def _original_streams() -> tuple[Any, ...]:
    return sys.__stdin__, sys.__stdout__, sys.__stderr__


def _set_original_streams(value: tuple[Any, ...]) -> None:
    for name, stream in zip(("__stdin__", "__stdout__", "__stderr__"), value, strict=True):
        setattr(sys, name, stream)


def _attribute(name: str, place: Any, key: str) -> Setting:
    """Returns the setting of an attribute that may be missing."""

    def write(value: tuple[Any, ...]) -> None:
        if value:
            setattr(place, key, value[0])
        else:
            delattr(place, key)

    def read() -> tuple[Any, ...]:
        return (getattr(place, key),) if hasattr(place, key) else ()

    return Setting(name, read, write, numeric=False)


def _monitors() -> tuple[Any, ...]:
    monitoring: Any = getattr(sys, "monitoring", None)  # since Python 3.12
    return () if monitoring is None else tuple(map(monitoring.get_tool, range(_MONITORS)))


def _set_monitors(value: tuple[Any, ...]) -> None:
    monitoring: Any = getattr(sys, "monitoring", None)
    for number, (before, now) in enumerate(zip(value, _monitors(), strict=True)):
        if now is not None and now != before:
            monitoring.free_tool_id(number)


def _set_start_method(value: str | None) -> None:
    multiprocessing.set_start_method(value, force=True)


def _stack_size() -> int:
    value = threading.stack_size()
    threading.stack_size(value)
    return value


def _processors() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(0))  # for Linux alone


def _set_processors(value: frozenset[int]) -> None:
    os.sched_setaffinity(0, value)


def _set_faulthandler(value: bool) -> None:
    (faulthandler.enable if value else faulthandler.disable)()


def _tracing() -> tuple[Any, ...]:
    return sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile()


def _set_tracing(value: tuple[Any, ...]) -> None:
    sys.settrace(value[0])
    sys.setprofile(value[1])
    threading.settrace(value[2])
    threading.setprofile(value[3])


def _printing() -> tuple[Any, ...]:
    return copy.copy(vars(torch._tensor_str.PRINT_OPTS)), np.get_printoptions()


def _set_printing(value: tuple[Any, ...]) -> None:
    vars(torch._tensor_str.PRINT_OPTS).update(value[0])
    np.set_printoptions(**value[1])


def _logging() -> tuple[Any, ...]:
    root = logging.root
    own = tuple(getattr(logging, name) for name in _OF_LOGGING)
    return root.manager.disable, root.level, tuple(root.handlers), tuple(root.filters), own


def _set_logging(value: tuple[Any, ...]) -> None:
    logging.root.manager.disable, logging.root.level = value[:2]
    logging.root.handlers[:], logging.root.filters[:] = value[2:4]
    for name, each in zip(_OF_LOGGING, value[4], strict=True):
        setattr(logging, name, each)
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]


def _copying() -> tuple[Any, ...]:
    """Returns how objects are copied and pickled, but for what a library says of its own classes.

    A library says that when it is imported.
    """
    of_others = {
        kind: function
        for kind, function in copyreg.dispatch_table.items()
        if _home(kind) in _COPIED and _home(function) != _home(kind)
    }
    return of_others, dict(_COPIES), dict(_DEEP_COPIES)


def _set_copying(value: tuple[Any, ...]) -> None:
    for kind in _copying()[0]:
        del copyreg.dispatch_table[kind]
    copyreg.dispatch_table.update(value[0])
    for table, before in zip((_COPIES, _DEEP_COPIES), value[1:], strict=True):
        table.clear()
        table.update(before)


def _home(named: Any) -> str:
    """Returns the package that a class or a function is of."""
    return str(getattr(named, "__module__", "")).partition(".")[0]


def _loop_policy() -> Any:
    """Returns how asyncio makes its loops; None if it is not loaded."""
    events: Any = sys.modules.get("asyncio.events")
    if events is None:
        return None
    # Python 3.14 deprecates the public name.
    return getattr(events, "_get_event_loop_policy", events.get_event_loop_policy)()


def _set_loop_policy(value: Any) -> None:
    if value is not None:
        vars(sys.modules["asyncio.events"])["_event_loop_policy"] = value


def _web() -> tuple[Any, ...]:
    """Returns what URLs and connections are opened by, of the modules that are loaded."""
    return tuple(getattr(sys.modules.get(place), name, None) for place, name in _OF_WEB)


def _set_web(value: tuple[Any, ...]) -> None:
    for (place, name), each in zip(_OF_WEB, value, strict=True):
        if hasattr(sys.modules.get(place), name) and (each is not None or name == "_opener"):
            setattr(sys.modules[place], name, each)


def _drawing() -> dict[str, Any]:
    """Returns matplotlib's parameters, without the backend, which it chooses late."""
    parameters: Any = getattr(sys.modules.get("matplotlib"), "rcParams", {})
    return {key: each for key, each in dict.items(parameters) if key != "backend"}


def _set_drawing(value: dict[str, Any]) -> None:
    if value:
        dict.update(cast(Any, sys.modules["matplotlib"]).rcParams, value)


def _loading() -> tuple[Any, ...]:
    files = torch.serialization
    trusted = {id(each): each for each in files.get_safe_globals()}  # torch keeps them in no order
    return trusted, files.get_default_load_endianness()


def _set_loading(value: tuple[Any, ...]) -> None:
    files: Any = torch.serialization  # in part without types
    files.clear_safe_globals()
    files.add_safe_globals([*value[0].values()])
    files.set_default_load_endianness(value[1])


def _scripts() -> tuple[bool, ...]:
    return torch._C._get_graph_executor_optimize(), torch._C._jit_texpr_fuser_enabled()


def _set_scripts(value: tuple[bool, ...]) -> None:
    torch._C._set_graph_executor_optimize(value[0])
    torch._C._jit_set_texpr_fuser_enabled(value[1])


# Python 3.12 begins with frozen objects of its own.
_FROZEN_AT_FIRST = gc.get_freeze_count()


def _frozen() -> bool:
    return gc.get_freeze_count() > _FROZEN_AT_FIRST


def _garbage() -> tuple[bool, tuple[int, int, int], int, bool]:
    return gc.isenabled(), gc.get_threshold(), gc.get_debug(), _frozen()


def _set_garbage(value: tuple[bool, tuple[int, int, int], int, bool]) -> None:
    enabled, thresholds, debugging, frozen = value
    if frozen != _frozen():
        (gc.freeze if frozen else gc.unfreeze)()
    gc.set_debug(debugging)
    gc.set_threshold(*thresholds)
    (gc.enable if enabled else gc.disable)()


# Kinds of operations whose precision torch stores separately, each with its backend.
_PRECISIONS = tuple(
    (backend, kind)
    for backend, kinds in (
        ("generic", ("all",)),
        ("cuda", ("all", "matmul", "conv", "rnn")),
        ("mkldnn", ("all", "matmul", "conv", "rnn")),
    )
    for kind in kinds
)


def _precisions() -> tuple[Any, ...]:
    get = torch._C._get_fp32_precision_getter
    return tuple(get(*each) for each in _PRECISIONS)


def _set_precisions(value: tuple[Any, ...]) -> None:
    for each, precision in zip(_PRECISIONS, value, strict=True):
        torch._C._set_fp32_precision_setter(*each, precision)


def _set_conversion(value: tuple[bool, bool]) -> None:
    _CONVERSION.set_overwrite_module_params_on_conversion(value[0])
    _CONVERSION.set_swap_module_params_on_conversion(value[1])


def _attention() -> tuple[Any, ...]:
    backends: Any = torch.backends.cuda  # without types
    return (
        backends.flash_sdp_enabled(),
        backends.mem_efficient_sdp_enabled(),
        backends.math_sdp_enabled(),
        backends.cudnn_sdp_enabled(),
        backends.fp16_bf16_reduction_math_sdp_allowed(),
        torch.backends.mha.get_fastpath_enabled(),
        tuple(torch._C._get_sdp_priority_order()),
    )


def _set_attention(value: tuple[Any, ...]) -> None:
    backends: Any = torch.backends.cuda
    backends.enable_flash_sdp(value[0])
    backends.enable_mem_efficient_sdp(value[1])
    backends.enable_math_sdp(value[2])
    backends.enable_cudnn_sdp(value[3])
    backends.allow_fp16_bf16_reduction_math_sdp(value[4])
    torch.backends.mha.set_fastpath_enabled(value[5])
    torch._C._set_sdp_priority_order(list(value[6]))


def _mkldnn() -> tuple[bool, ...]:
    torch_c = torch._C
    return (
        torch_c._get_mkldnn_enabled(),
        torch_c._get_mkldnn_deterministic(),
        torch_c._get_nnpack_enabled(),
    )


def _set_mkldnn(value: tuple[bool, ...]) -> None:
    torch._C._set_mkldnn_enabled(value[0])
    torch._C._set_mkldnn_deterministic(value[1])
    torch._C._set_nnpack_enabled(value[2])


def _limits() -> tuple[tuple[int, int], ...]:
    return tuple(resource.getrlimit(getattr(resource, name)) for name in _LIMITS)


def _set_limits(value: tuple[tuple[int, int], ...]) -> None:
    for name, limit in zip(_LIMITS, value, strict=True):
        if resource.getrlimit(getattr(resource, name)) != limit:
            resource.setrlimit(getattr(resource, name), limit)


_OF_LOGGING = ("_loggerClass", "_logRecordFactory", "lastResort", "raiseExceptions")
# Packages whose classes are copied while results are made.
_COPIED = frozenset({"builtins", "collections", "pathlib", "torch", "numpy", "pandas", "gibbon"})
_COPIES: dict[Any, Any] = vars(copy)["_copy_dispatch"]
_DEEP_COPIES: dict[Any, Any] = vars(copy)["_deepcopy_dispatch"]
_OF_WEB = (
    ("urllib.request", "_opener"),
    ("ssl", "_create_default_https_context"),
    *(("socket", name) for name in ("socket", "create_connection", "getaddrinfo")),
)
_OF_WARNINGS = ("warn", "warn_explicit", "showwarning", "formatwarning")
_DECIMALS = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
_LIMITS = (
    "RLIMIT_AS",
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_NOFILE",
    "RLIMIT_CORE",
    "RLIMIT_STACK",
)
# Finders that Python has for the modules of a folder.
_FINDERS = (importlib.machinery.FileFinder, zipimport.zipimporter, type(None))
_MONITORS = 6  # tools that may see what Python runs
_EINSUM = torch.backends.opt_einsum
_CUDNN, _MATMUL = torch.backends.cudnn, torch.backends.cuda.matmul
_CONVERSION = torch.__future__
_ALL = (
    Setting("deterministic algorithms", _deterministic, lambda value: _set_deterministic(*value)),
    Setting("the number of threads", torch.get_num_threads, _set_threads),
    Setting("the default device", _default_device, _set_default_device),
    Setting("CUDA's device", _cuda_device, _set_cuda_device),
    Setting("anomaly detection", torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    Setting("flushing of denormal numbers", _flushes, torch.set_flush_denormal),
    Setting(
        "the precision of products",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    _backend("TF32 of products", _MATMUL, "allow_tf32"),
    _backend("TF32 of convolutions", _CUDNN, "allow_tf32"),
    _backend("sums in float16", _MATMUL, "allow_fp16_accumulation"),
    _backend("reduced precision of float16", _MATMUL, "allow_fp16_reduced_precision_reduction"),
    _backend("reduced precision of bfloat16", _MATMUL, "allow_bf16_reduced_precision_reduction"),
    Setting("the precision of float32", _precisions, _set_precisions),
    _backend("cuDNN", _CUDNN, "enabled"),
    _backend("the choice of cuDNN's algorithms", _CUDNN, "benchmark"),
    _backend("cuDNN's determinism", _CUDNN, "deterministic"),
    _backend("the number of cuDNN's trials", _CUDNN, "benchmark_limit"),
    Setting("how scripts are optimised", _scripts, _set_scripts),
    Setting("the kernels of attention", _attention, _set_attention),
    Setting("oneDNN and NNPACK", _mkldnn, _set_mkldnn),
    _backend("the engine of quantised layers", torch.backends.quantized, "engine"),
    _backend(
        "filling of uninitialised memory",
        torch.utils.deterministic,
        "fill_uninitialized_memory",
    ),
    Setting(
        "threads of backward passes",
        torch._C._is_multithreading_enabled,
        torch._C._set_multithreading_enabled,
    ),
    Setting(
        "replay of views",
        torch._C._is_view_replay_enabled,
        torch._C._set_view_replay_enabled,
    ),
    Setting("autocast's cache", torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    Setting(
        "hooks on saved tensors",
        torch._C._autograd._saved_tensors_hooks_get_disabled_error_message,
        _set_saved_tensor_hooks,
    ),
    Setting(
        "how modules are moved",
        lambda: (
            _CONVERSION.get_overwrite_module_params_on_conversion(),
            _CONVERSION.get_swap_module_params_on_conversion(),
        ),
        _set_conversion,
    ),
    Setting("numpy.errstate", _numpy_errors, _set_numpy_errors),
    Setting("numpy's buffers", np.getbufsize, np.setbufsize),
    Setting(
        "the library of linear algebra",
        torch._C._get_linalg_preferred_backend,
        torch._C._set_linalg_preferred_backend,
    ),
    Setting(
        "the library of products",
        torch._C._get_blas_preferred_backend,
        torch._C._set_blas_preferred_backend,
    ),
    _backend("the order of products in einsum", _EINSUM, "strategy"),
    _backend("opt_einsum", _EINSUM, "enabled"),
    Setting("the decimal context", _decimals, _set_decimals),
    Setting("warnings filters", _filters, _set_filters, numeric=False),
    Setting("torch's warnings", torch.is_warn_always_enabled, torch.set_warn_always, numeric=False),
    Setting("how numbers are printed", _printing, _set_printing, numeric=False),
    Setting("logging", _logging, _set_logging, numeric=False),
    Setting("os.environ", lambda: dict(os.environ), _set_environment, numeric=False),
    Setting("the working folder", _folder, _set_folder, numeric=False),
    Setting("the umask", _umask, _set_umask, numeric=False),
    Setting("limits of the process", _limits, _set_limits, numeric=False),
    Setting("the locale", partial(locale.setlocale, locale.LC_ALL), _set_locale, numeric=False),
    _in_list("sys.path", sys, "path"),
    _in_list("sys.argv", sys, "argv"),
    _in_list("callbacks of garbage collection", gc, "callbacks"),
    Setting("import hooks", _import_hooks, _set_import_hooks, numeric=False),
    _attribute("sys.dont_write_bytecode", sys, "dont_write_bytecode"),
    _attribute("sys.tracebacklimit", sys, "tracebacklimit"),
    _attribute("the folder of temporary files", tempfile, "tempdir"),
    Setting("original streams", _original_streams, _set_original_streams, numeric=False),
    Setting("the stack size of threads", _stack_size, threading.stack_size, numeric=False),
    Setting(
        "how libraries are loaded",
        lambda: sys.getdlopenflags(),
        lambda value: sys.setdlopenflags(value),
        numeric=False,
    ),
    Setting("faulthandler", faulthandler.is_enabled, _set_faulthandler, numeric=False),
    Setting("monitoring", _monitors, _set_monitors, numeric=False),
    Setting(
        "how processes are started",
        partial(multiprocessing.get_start_method, allow_none=True),
        _set_start_method,
        numeric=False,
    ),
    Setting(
        "how tensors are shared",
        torch.multiprocessing.get_sharing_strategy,
        torch.multiprocessing.set_sharing_strategy,
        numeric=False,
    ),
    Setting("the processors that are used", _processors, _set_processors, numeric=False),
    _attribute("sys.exit", sys, "exit"),
    Setting("standard streams", read_streams, write_streams, numeric=False),
    Setting("sys.excepthook", _hooks_of_system, _set_hooks_of_system, numeric=False),
    Setting("how objects are copied", _copying, _set_copying, numeric=False),
    Setting("asyncio's policy", _loop_policy, _set_loop_policy, numeric=False),
    Setting("how URLs are opened", _web, _set_web, numeric=False),
    Setting("how figures are drawn", _drawing, _set_drawing, numeric=False),
    Setting("what torch loads", _loading, _set_loading, numeric=False),
    _attribute("checks of distributions", torch.distributions.Distribution, "_validate_args"),
    Setting("the size of fields in CSV files", csv.field_size_limit, csv.field_size_limit, False),
    Setting("tracing", _tracing, _set_tracing, numeric=False),
    Setting("garbage collection", _garbage, _set_garbage, numeric=False),
    Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit, numeric=False),
    Setting("digits of integers", sys.get_int_max_str_digits, sys.set_int_max_str_digits, False),
    Setting("the switch interval", sys.getswitchinterval, sys.setswitchinterval, numeric=False),
    Setting("timeouts of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout, False),
    Setting("signal handlers", _handlers, _set_handlers, numeric=False),
    Setting("blocked signals", _blocked, _set_blocked, numeric=False),
    Setting("timers", _timers, _set_timers, numeric=False),
)


def _readable(setting: Setting) -> bool:
    try:
        setting.read()
    except (AttributeError, NameError, RuntimeError, OSError):
        return False
    return True


SETTINGS = tuple(filter(_readable, _ALL))
NUMERIC_SETTINGS = frozenset(each.name for each in SETTINGS if each.numeric)


def read(setting: Setting) -> Any:
    """Returns the present value of a setting; `UNREADABLE` if torch refuses to read it.

    It refuses a precision that was set by one interface and is read by an earlier one.
    """
    try:
        return setting.read()
    except (RuntimeError, OSError):
        return UNREADABLE
