"""Imports optional libraries of models, and restricts their downloads and pickles."""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gibbon.core.errors import ModelError, WeightsError
from gibbon.models.sources.error_text import gist

# torch's variables that restrict every torch.load to tensors, or allow any pickle.
SAFE, UNSAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
WEB = ("urllib", "http", "requests", "httpx", "httpcore", "huggingface_hub", "gdown")


def check_library(name: str, *, package: str, scheme: str) -> None:
    """Raises a `ModelError` with the package to install if a library is not installed."""
    try:
        there = importlib.util.find_spec(name) is not None
    except ValueError:  # put into sys.modules by hand, as tests do
        there = True
    if not there:
        raise ModelError(
            f"{scheme} models need the package {package!r}, which is not installed: "
            f"pip install {package}"
        )


def library(name: str, *, package: str, scheme: str) -> Any:
    """Imports and returns a library.  Raises `ModelError` if it is not installed or broken."""
    check_library(name, package=package, scheme=scheme)
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ModelError(
            f"{scheme} models need the package {package!r}, which can't be imported here: "
            f"{type(error).__name__}: {error}"
        ) from error


@contextmanager
def fetching(what: str) -> Iterator[None]:
    """Turns failed downloads of weights into a `WeightsError`, for a ``with`` block."""
    try:
        with _no_waiting():
            yield
    except Exception as error:
        if not any(_is_of_the_web(each) for each in _chain(error)):
            raise
        raise WeightsError(
            f"the weights of {what} are not on this machine and can't be downloaded "
            f"({type(error).__name__}: {gist(error)}): give a file that is here, --weights FILE, "
            "or --weights random for none"
        ) from error


@contextmanager
def without_pickles(*, trusted: bool = False) -> Iterator[None]:
    """Restricts ``torch.load`` to tensors, also in libraries, for a ``with`` block.

    With ``trusted`` it loads any pickle.
    """
    before = {name: os.environ.get(name) for name in (SAFE, UNSAFE)}
    try:
        os.environ.pop(SAFE if trusted else UNSAFE, None)
        os.environ[UNSAFE if trusted else SAFE] = "1"
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Sets Hugging Face's hub offline if its name can't be resolved, for a ``with`` block.

    Otherwise it retries for most of a minute before it looks for local files.
    """
    try:
        constants: Any = importlib.import_module("huggingface_hub.constants")
    except ImportError:
        yield
        return
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline or not _is_known(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def _is_known(address: str) -> bool:
    if urllib.request.getproxies():  # the proxy resolves names
        return True
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(address).hostname, None)
    except OSError:
        return False
    return True


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_of_the_web(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in WEB or isinstance(error, ConnectionError)
