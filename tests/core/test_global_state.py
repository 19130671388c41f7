"""Global state that code leaves changed is put back and named."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as all_modules
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gibbon.core.global_state import GlobalState, Modes, calculating, plain_modes

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
