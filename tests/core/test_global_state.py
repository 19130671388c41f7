"""Global state that code leaves changed is put back and named."""

from __future__ import annotations

import asyncio
import copy
import copyreg
import csv
import decimal
import functools
import gc
import locale
import logging
import multiprocessing
import os
import signal
import socket
import ssl
import sys
import tempfile
import threading
import types
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as all_modules
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gibbon.core.global_state import GlobalState, Modes, calculating, importing_code, plain_modes

KEPT: list[object] = []


class Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Dispatches(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def entered(manager) -> Callable[[], None]:
    def enter() -> None:
        KEPT.append(manager())
        KEPT[-1].__enter__()

    return enter


def replaced(place: object, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(place, name, value)


def registered(package: str, name: str) -> torch.library.Library:
    library = torch.library.Library(package, "IMPL" if package == "aten" else "FRAGMENT")
    if package != "aten":
        library.define(f"{name}(Tensor x) -> Tensor")
    library.impl(name, lambda x: x * 0, "CPU")
    return library


class Finder:
    def find_spec(self, *_: object) -> None: ...


class Policy(asyncio.DefaultEventLoopPolicy):
    pass


class Quiet(logging.Logger):
    pass


def replaced_key(table: dict[Any, Any], key: object, value: object) -> None:
    table[key] = value


def refuse(path: str) -> None:
    raise ImportError(path)


SETTINGS = {
    "the grad mode": lambda: torch.set_grad_enabled(False),
    "inference mode": entered(torch.inference_mode),
    "the default dtype": lambda: torch.set_default_dtype(torch.float64),
    "autocast": entered(lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "the number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "flushing of denormal numbers": lambda: torch.set_flush_denormal(True),
    "TF32 of products": lambda: setattr(
        torch.backends.cuda.matmul, "allow_tf32", not torch.backends.cuda.matmul.allow_tf32
    ),
    "the choice of cuDNN's algorithms": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "the precision of products": lambda: torch.set_float32_matmul_precision("medium"),
    "the precision of float32": lambda: torch._C._set_fp32_precision_setter("cuda", "rnn", "ieee"),
    "reduced precision of bfloat16": lambda: setattr(
        torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False
    ),
    "the kernels of attention": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "oneDNN and NNPACK": lambda: torch._C._set_mkldnn_enabled(False),
    "threads of backward passes": lambda: torch._C._set_multithreading_enabled(False),
    "autocast's cache": lambda: torch.set_autocast_cache_enabled(False),
    "hooks on saved tensors": lambda: torch._C._autograd._saved_tensors_hooks_disable("no"),
    "how modules are moved": lambda: torch.__future__.set_swap_module_params_on_conversion(True),
    "the decimal context": lambda: setattr(decimal.getcontext(), "prec", 3),
    "how numbers are printed": lambda: torch.set_printoptions(precision=1),
    "the umask": lambda: os.umask(0o777),
    "the locale": lambda: locale.setlocale(
        locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C"
    ),
    "sys.argv": lambda: sys.argv.append("--fresh"),
    "sys.excepthook": lambda: setattr(sys, "excepthook", lambda *_: None),
    "garbage collection": gc.disable,
    "digits of integers": lambda: sys.set_int_max_str_digits(0),
    "the switch interval": lambda: sys.setswitchinterval(1.0),
    "timeouts of sockets": lambda: socket.setdefaulttimeout(1.0),
    "blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]),
    "timers": lambda: signal.setitimer(signal.ITIMER_PROF, 1000),
    "numpy.errstate": lambda: np.seterr(all="raise"),
    "warnings filters": lambda: warnings.simplefilter("ignore"),
    "logging": lambda: logging.disable(logging.CRITICAL),
    "os.environ": lambda: os.environ.update(GIBBON_TEST="1"),
    "the working folder": lambda: os.chdir(Path(os.getcwd()).parent),  # noqa: PTH109
    "sys.path": lambda: sys.path.insert(0, "elsewhere"),
    "standard streams": lambda: setattr(sys, "stdout", sys.stderr),
    "the recursion limit": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 7),
    "signal handlers": lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
}
HOOKS = {
    "import hooks": [
        lambda: sys.meta_path.insert(0, Finder()),
        lambda: setattr(sys, "meta_path", [Finder(), *sys.meta_path]),
        lambda: sys.path_hooks.insert(0, refuse),
        lambda: setattr(sys, "path_hooks", []),
        lambda: sys.path_importer_cache.update({"/nowhere": Finder()}),
    ],
    "sys.path": [
        lambda: setattr(sys, "path", [*sys.path]),
        lambda: sys.path.insert(0, "/nowhere"),
        lambda: sys.path.clear(),
    ],
    "sys.excepthook": [
        lambda: setattr(sys, "breakpointhook", print),
        lambda: sys.set_coroutine_origin_tracking_depth(5),
        lambda: sys.set_asyncgen_hooks(print, print),
    ],
    "the decimal context": [lambda: setattr(decimal.DefaultContext, "prec", 3)],
    "garbage collection": [
        lambda: gc.set_debug(gc.DEBUG_UNCOLLECTABLE),
        lambda: gc.set_threshold(1, 2, 3),
        gc.freeze,
    ],
    "how objects are copied": [
        lambda: copyreg.pickle(Tensor, lambda each: (torch.zeros, (1,))),
        lambda: copyreg.pickle(type(Path()), lambda each: (Path, ("elsewhere",))),
        lambda: replaced_key(vars(copy)["_deepcopy_dispatch"], float, lambda each, memo: 0.0),
        lambda: replaced_key(vars(copy)["_copy_dispatch"], list, lambda each: []),
    ],
    "asyncio's policy": [lambda: asyncio.set_event_loop_policy(Policy())],
    "how URLs are opened": [
        lambda: urllib.request.install_opener(urllib.request.build_opener()),
        lambda: setattr(ssl, "_create_default_https_context", ssl._create_unverified_context),
        lambda: setattr(socket, "create_connection", refuse),
    ],
    "logging": [
        lambda: logging.setLoggerClass(Quiet),
        lambda: logging.setLogRecordFactory(lambda *_, **__: None),
        lambda: logging.root.addFilter(lambda _: False),
        lambda: setattr(logging, "raiseExceptions", False),
    ],
    "what torch loads": [
        lambda: torch.serialization.add_safe_globals([os.system]),
        lambda: torch.serialization.set_default_load_endianness(
            torch.serialization.LoadEndianness.BIG
        ),
    ],
    "the modules that are loaded": [
        lambda: sys.modules.pop("decimal"),
        lambda: replaced_key(sys.modules, "socket", types.ModuleType("socket")),
    ],
    "checks of distributions": [
        lambda: torch.distributions.Distribution.set_default_validate_args(
            not torch.distributions.Distribution._validate_args
        )
    ],
    "how scripts are optimised": [lambda: torch._C._set_graph_executor_optimize(False)],
    "the size of fields in CSV files": [lambda: csv.field_size_limit(5)],
    "the kernels of attention": [
        lambda: torch.backends.mha.set_fastpath_enabled(False),
        lambda: torch._C._set_sdp_priority_order([*reversed(torch._C._get_sdp_priority_order())]),
        lambda: torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True),
    ],
    "tracing": [
        lambda: sys.setprofile(lambda *_: None),
        lambda: threading.settrace(lambda *_: None),
    ],
    "numpy's buffers": [lambda: np.setbufsize(32)],
    "the order of products in einsum": [
        lambda: setattr(torch.backends.opt_einsum, "strategy", "greedy")
    ],
    "sys.tracebacklimit": [lambda: setattr(sys, "tracebacklimit", 0)],
    "sys.dont_write_bytecode": [
        lambda: setattr(sys, "dont_write_bytecode", not sys.dont_write_bytecode)
    ],
    "the folder of temporary files": [lambda: setattr(tempfile, "tempdir", "/nowhere")],
    "original streams": [lambda: setattr(sys, "__stdout__", None)],
    "the stack size of threads": [lambda: threading.stack_size(1 << 20)],
    "how processes are started": [lambda: multiprocessing.set_start_method("spawn", force=True)],
    "how tensors are shared": [
        lambda: torch.multiprocessing.set_sharing_strategy("file_system"),
    ],
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, at) for name, each in HOOKS.items() for at in range(len(each))]
)
def test_hooks_of_python_are_put_back(name: str, number: int) -> None:
    state = GlobalState.now()
    HOOKS[name][number]()
    assert state.put_back().settings == (name,)
    assert state.put_back().settings == ()
    assert GlobalState.now().settings == state.settings


def test_what_torch_loads_is_kept_in_no_order() -> None:
    classes = [type(f"Class{place}", (), {}) for place in range(50)]
    with torch.serialization.safe_globals(classes):
        state = GlobalState.now()
        torch.serialization.add_safe_globals([Path])
        assert state.put_back().settings == ("what torch loads",)
        assert state.put_back().settings == ()


CODE = {
    "a mode that sees torch's operations": entered(Functions),
    "a mode that sees torch's operations ": entered(Dispatches),
    "a mode that sees torch's operations  ": lambda: torch.set_default_device("meta"),
    "hooks on all saved tensors": entered(
        lambda: torch.autograd.graph.saved_tensors_hooks(lambda each: each, lambda each: each)
    ),
    "a hook on all modules": lambda: all_modules.register_module_forward_hook(lambda *_: None),
    "a hook on all modules ": lambda: all_modules.register_module_full_backward_hook(
        lambda *_: None
    ),
    "torch.Tensor.argmax": replaced(Tensor, "argmax", lambda *_: 0),
    "torch.Tensor.shape": replaced(Tensor, "shape", property(lambda self: (1,))),
    "torch.argmax": replaced(torch, "argmax", lambda *_: 0),
    "torch.isfinite": replaced(torch, "isfinite", torch.isnan),
    "torch.nn.functional.relu": replaced(nn.functional, "relu", nn.functional.gelu),
    "torch.nn.Module.__call__": replaced(nn.Module, "__call__", lambda self, x: x),
    "torch.nn.ReLU.forward": replaced(nn.ReLU, "forward", lambda self, x: x),
    "torch.nn.Conv2d._conv_forward": replaced(nn.Conv2d, "_conv_forward", lambda *_: 0),
    "torch.Tensor.__getattr__": replaced(Tensor, "__getattr__", lambda *_: 0),
    "torch.special.expit": replaced(torch.special, "expit", torch.abs),
    "torch.autograd.Function.apply": replaced(torch.autograd.Function, "apply", lambda *_: 0),
    "numpy.linalg.norm": replaced(np.linalg, "norm", lambda *_: 0.0),
    "functools.partial": replaced(functools, "partial", lambda *_: None),
    "gc.collect": replaced(gc, "collect", lambda *_: 0),
    "os.replace": replaced(os, "replace", lambda *_: None),
    "operations of torch": lambda: KEPT.append(registered("aten", "relu")),
    "torch.autograd.grad": replaced(torch.autograd, "grad", lambda *_: None),
    "numpy.array_equal": replaced(np, "array_equal", lambda *_: True),
    "builtins.float": replaced(
        __builtins__ if isinstance(__builtins__, type(sys)) else sys.modules["builtins"],
        "float",
        lambda *_: 0.0,
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_put_back_and_named(name):
    state = GlobalState.now()
    try:
        SETTINGS[name]()
    finally:
        changes = state.put_back()
    assert name in changes.settings
    assert changes.code == ()
    again = state.put_back()
    assert (again.settings, again.code) == ((), ())


@pytest.mark.parametrize("name", CODE)
def test_code_that_all_calls_run_is_put_back_and_named(name):
    state = GlobalState.now()
    try:
        CODE[name]()
    finally:
        changes = state.put_back()
    assert name.strip() in changes.code
    again = state.put_back()
    assert (again.settings, again.code) == ((), ())


def test_ordinary_work_changes_nothing():
    state = GlobalState.now()
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    net(torch.rand(3, 2)).sum().backward()
    KEPT.append(registered("gibbon_test", "double"))  # as the import of a library does
    decimal.Decimal(1) / 3  # which sets flags of the context
    with (
        torch.autocast("cpu"),
        torch.no_grad(),
        warnings.catch_warnings(),
        np.errstate(all="raise"),
    ):
        warnings.simplefilter("ignore")
        net(torch.rand(3, 2))
    changes = state.put_back()
    assert (changes.settings, changes.code) == ((), ())


def test_an_own_operation_is_computed_as_before():
    state = GlobalState.now()
    KEPT.append(registered("aten", "sigmoid"))
    assert torch.sigmoid(torch.zeros(1)) == 0
    state.put_back()
    assert torch.sigmoid(torch.zeros(1)) == 0.5


def test_functions_of_gibbon_are_among_those_put_back(monkeypatch):
    from gibbon.metrics import rates

    state, other = GlobalState.now(ours=True), GlobalState.now()
    (name, before) = next((k, v) for k, v in vars(rates).items() if callable(v) and k[0] != "_")
    monkeypatch.setattr(rates, name, lambda *_: 0.0)
    assert other.put_back().code == ()
    assert state.put_back().code == (f"gibbon.metrics.rates.{name}",)
    assert getattr(rates, name) is before


def test_the_import_of_a_module_may_extend_the_path_and_nothing_else(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    with importing_code():
        sys.path.append("elsewhere")
        torch.set_default_dtype(torch.float64)
        os.chdir("/")
    assert "elsewhere" in sys.path
    assert torch.get_default_dtype() is torch.float32
    assert os.getcwd() != "/"  # noqa: PTH109


def test_threads_that_are_left_running_are_named():
    state, done = GlobalState.now(), threading.Event()
    thread = threading.Thread(target=done.wait, name="left behind")
    thread.start()
    assert state.new_threads() == ["left behind"]
    done.set()
    thread.join()
    assert state.new_threads() == []


@pytest.mark.parametrize(
    "around",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: torch.device("meta"),
        Functions,
        Dispatches,
    ],
)
def test_plain_modes_are_those_of_a_new_process_and_come_back(around):
    with around():
        before = Modes.now()
        with plain_modes():
            leaf = torch.ones(2, 2, requires_grad=True)
            product = leaf @ leaf
            product.sum().backward()
            assert product.dtype is torch.float32
            assert leaf.grad is not None
            assert Modes.now()._replace(cpu_dtype=before.cpu_dtype) == Modes.now()
        assert Modes.now() == before
    assert Modes.now().gradients


def test_the_callers_generators_and_state_come_back():
    first = torch.rand(1), np.random.rand(), os.getcwd()  # noqa: NPY002, PTH109
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    with calculating():
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        os.chdir("/")
    after = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    assert after == (torch.rand(1), np.random.rand())  # noqa: NPY002
    assert os.getcwd() == first[2]  # noqa: PTH109
