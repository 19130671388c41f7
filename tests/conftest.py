"""Small classifiers and a random batch, shared by all tests."""

from __future__ import annotations

import os
import random
import signal
import zlib
from collections.abc import Iterator

import nets
import numpy
import other_kernels
import played_device
import pytest
import torch
from hypothesis import settings

from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier

# The same examples every time, so that a build is red or green for its own changes; look further
# with --hypothesis-profile=explore.  No deadline: machines are shared.
settings.register_profile("reproducible", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("reproducible")

if os.environ.get(played_device.VARIABLE):
    played_device.register()

# A shell's background job ignores Ctrl-C, and the processes that tests start would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Few tests that take long: run last, they would leave other processes without work.
FIRST = {"test_played_devices.py", "test_examples.py", "test_worker_processes.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves tests of a played device to processes of their own, and has long files run first.

    Such processes can't be forked: the backward passes of one that knows another device have
    threads.
    """
    if not os.environ.get(played_device.VARIABLE):
        items[:] = [each for each in items if each.get_closest_marker("played") is None]
    items.sort(key=lambda each: each.path.name not in FIRST)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--other-kernels", action="store_true", help=other_kernels.__doc__)


@pytest.fixture(scope="session", autouse=True)
def _other_kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--other-kernels"):
            other_kernels.replace(patch)
        yield


@pytest.fixture(autouse=True)
def _global_generators(request: pytest.FixtureRequest) -> None:
    """Seeds the global generators by the test's name, so that weights are the same every time."""
    seed = zlib.crc32(request.node.nodeid.encode())
    random.seed(seed)
    numpy.random.seed(seed)  # noqa: NPY002  # the global state is the subject
    torch.manual_seed(seed)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """The command line handles signals in the process that calls it: put back after each test."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [(number, signal.getsignal(number)) for number in numbers]
    yield
    for number, handler in before:
        signal.signal(number, handler)


KINDS = {"linear": nets.linear, "mlp": nets.mlp, "conv": nets.conv}


@pytest.fixture
def linear() -> Classifier:
    return nets.linear()


@pytest.fixture
def mlp() -> Classifier:
    return nets.mlp()


@pytest.fixture
def conv() -> Classifier:
    return nets.conv()


@pytest.fixture(params=KINDS)
def classifier(request: pytest.FixtureRequest) -> Classifier:
    """Each of the small classifiers in turn."""
    return KINDS[request.param]()


@pytest.fixture
def batch() -> Batch:
    return nets.random_batch()
