"""Shares of a Ray cluster, and a Ray that is not installed: no Ray is needed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from gibbon.core.errors import MissingLibraryError, RequestError
from gibbon.runner.executors import ray as ray_executor
from gibbon.runner.executors.ray import ClusterShares, shares_of
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.decoding import decode_suite


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "cpu_only", "expected"),
    [
        ([(1, 0), (1, 0)], 2, None, False, ClusterShares(2, 1, 0.0, 1)),
        ([(1, 0), (7, 0)], 2, None, False, ClusterShares(2, 3, 0.0, 2)),
        ([(2, 0)], None, None, False, ClusterShares(2, 1, 0.0, 2)),
        ([(2, 0)], 8, None, False, ClusterShares(8, 1, 0.0, 2)),
        ([(16, 4)], None, 0.5, False, ClusterShares(8, 2, 0.5, 2)),
        ([(16, 4)], 2, None, False, ClusterShares(2, 8, 1.0, 1)),
        ([(16, 4)], 2, None, True, ClusterShares(2, 8, 0.0, 2)),
        ([(16, 0), (8, 1)], None, None, False, ClusterShares(1, 8, 1.0, 1)),
    ],
)
def test_shares(
    nodes: Any, workers: Any, gpus: Any, cpu_only: bool, expected: ClusterShares
) -> None:
    assert shares_of(nodes, workers=workers, gpus=gpus, cpu_only=cpu_only) == expected


def test_gpus_that_no_node_has() -> None:
    for nodes, gpus in (([(8, 0)], 1.0), ([(8, 1), (8, 1)], 2.0), ([(8, 0.25)], 0.5)):
        with pytest.raises(RequestError, match=f"each worker needs {gpus:g} GPUs, and no node"):
            shares_of(nodes, workers=2, gpus=gpus, cpu_only=False)
    with pytest.raises(RequestError, match=r"whole number of GPUs above 1, got 1\.5"):
        shares_of([(8, 4)], workers=2, gpus=1.5, cpu_only=False)


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingLibraryError, match=r"executor: .*'gibbon-bench\[ray\]'"):
        ray_executor._library()


def test_a_cluster_that_is_not_there() -> None:
    with pytest.raises(RequestError, match=r"address: Ray can't be joined at '127.0.0.1:1': noth"):
        ray_executor._check_reachable("127.0.0.1:1")
    with pytest.raises(RequestError, match="address: expected auto or HOST:PORT, got ':6379'"):
        ray_executor._check_reachable(":6379")
    ray_executor._check_reachable("auto")


@pytest.mark.parametrize(("address", "hinted"), [("auto", True), (None, False)])
def test_a_cluster_that_refuses_may_need_a_token(
    address: str | None, hinted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        @staticmethod
        def is_initialized() -> bool:
            return False

        @staticmethod
        def init(**options: Any) -> None:
            raise RuntimeError("unauthenticated")

    monkeypatch.setenv(ray_executor.USAGE, "0")
    with pytest.raises(RequestError, match=r"address: Ray can't be .*unauthenticated") as caught:
        ray_executor._join(Refusing, address)
    assert ("RAY_AUTH_TOKEN" in str(caught.value)) == hinted


def test_ray_is_looked_for_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Any:
        raise MissingLibraryError("no Ray", where="executor")

    monkeypatch.setattr(ray_executor, "_library", missing)
    suite = decode_suite(
        {
            "name": "any",
            "dataset": "mnist",
            "models": ["softmax"],
            "attacks": [{"name": "fgsm", "epsilon": "0.1"}],
        },
        where="any",
    )
    with pytest.raises(MissingLibraryError, match="no Ray"):
        run_suite(suite, tmp_path / "run", settings=RunSettings(executor="ray"))
    assert not (tmp_path / "run").exists()
