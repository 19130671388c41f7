"""Runs whose shards are computed by actors of Ray, on a cluster of two nodes on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import failures
import pytest
from failures import OF_PROCESSES
from worker_runs import DOOMED, FGSM, QUICK, LateDeed, assert_same_runs, plug_in, run, suite_of

from gibbon.runner.executors import dispatch

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with a processor each, which are joined by their address."""
    plug_in(tmp_path, monkeypatch)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={**NODE, "include_dashboard": False},
    )
    logging.getLogger("ray").setLevel(logging.ERROR)
    made.add_node(**NODE)
    made.wait_for_nodes()
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def test_two_nodes_give_the_answer_of_one_process(tmp_path: Path, cluster: Any) -> None:
    """Also if a worker is killed."""
    suite = suite_of(FGSM, DOOMED, transfer={"attacks": ["fgsm"]})
    run(suite, tmp_path / "one", **QUICK)
    settings = {"executor": "ray", "address": cluster.address, "workers": 2, **QUICK}
    calm = LateDeed()
    run(suite, tmp_path / "two", progress=calm, **settings)
    assert "2 workers on Ray (2 nodes), 1 thread each" in calm.notes
    assert_same_runs(tmp_path / "two", tmp_path / "one")

    Path("calls").unlink()
    killed = LateDeed(kill=3)
    run(suite, tmp_path / "killed", progress=killed, **settings)
    assert any("its shard is computed again" in each for each in killed.notes), killed.notes
    assert_same_runs(tmp_path / "killed", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [each for each in failures.KINDS if each not in OF_PROCESSES])
def test_troubles_at_random_moments(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(dispatch, "SLOW_SECONDS", failures.SLOW_SECONDS)
    failures.befall(kind, tmp_path, times=20, seed=0, cluster=cluster)
