"""What may befall a run with workers, at random moments: its tables must be those of a calm run.

``python tests/runner/failures.py [--times 20] [--seed 0] [--executor processes] [KIND...]`` has
each kind of trouble happen so many times, and ends with an error at the first number that changed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

import pytest
from worker_runs import DOOMED, QUICK, LateDeed, assert_same_runs, plug_in, run, suite_of

from gibbon.runner.executors import dispatch
from gibbon.runner.executors.processes import LocalProcesses

SUITE = suite_of({**DOOMED, "seconds": 0.02}, DOOMED | {"label": "again", "carried": True})
CALLS = 16  # of the attack in a calm run, about
SLOW_SECONDS = 0.5
OTHER = "0" * 64  # digest of the code of no version


class Scene:
    """A folder, the settings of an executor, and the random numbers of one trouble."""

    def __init__(
        self, folder: Path, chance: random.Random, cluster: Any = None, address: str | None = None
    ) -> None:
        self.folder, self.chance, self.cluster = folder, chance, cluster
        self.address = address if cluster is None else cluster.address
        # A batch size that is chosen is halved if memory runs out.
        self.settings: dict[str, Any] = {
            "workers": 2,
            "batch_size": None,
            "save_every": 0.1,
            **QUICK,
        }
        if self.address is not None:
            self.settings |= {"executor": "ray", "address": self.address}

    def run(self, **deeds: int) -> LateDeed:
        Path("calls").write_bytes(b"")
        progress = LateDeed(**deeds)
        run(SUITE, self.folder, progress=progress, **self.settings)
        return progress


def does(deed: str, *, loading: bool = False) -> Callable[[Scene], None]:
    """Returns a trouble that a worker makes at a random call of the attack, or as it loads."""

    def trouble(scene: Scene) -> None:
        call = 0 if loading else scene.chance.randint(1, CALLS // 2)
        progress = scene.run(**{deed: call})
        assert not progress.undone, progress.notes

    return trouble


def worker_is_killed(scene: Scene) -> None:
    """From outside, at any moment: while it starts, loads, computes or sends its reply."""
    pools: list[LocalProcesses] = []
    start = LocalProcesses.start
    over = threading.Event()

    def started(pool: LocalProcesses, place: int) -> None:
        start(pool, place)
        pools.append(pool)

    def kill() -> None:
        while not pools and not over.wait(0.01):
            pass
        if over.wait(scene.chance.uniform(0, 6)) or not pools:
            return
        alive = [*pools[0]._workers.values()]  # none if the run is about to end
        if alive and (pid := scene.chance.choice(alive).process.pid) is not None:
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalProcesses, "start", started)
        scene.run()
    over.set()
    thread.join()


def run_is_killed(scene: Scene) -> None:
    """The process of the command, which is then started again until it is done."""
    command = [sys.executable, __file__, "--child", str(scene.folder)]
    if scene.address is not None:
        command += ["--address", scene.address]
    limit: float | None = scene.chance.uniform(3, 12)
    for _ in range(3):
        with subprocess.Popen(command) as process:
            try:
                assert process.wait(limit) == 0
            except subprocess.TimeoutExpired:
                process.kill()
                limit = scene.chance.uniform(3, 12)
                continue
        break
    else:
        subprocess.run(command, check=True)


def node_is_killed(scene: Scene) -> None:
    """A node of the cluster; another one joins for the next time."""
    over = threading.Event()

    def kill() -> None:
        if not over.wait(scene.chance.uniform(0, 8)):
            (node,) = scene.cluster.worker_nodes
            scene.cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    scene.run()
    over.set()
    thread.join()
    if not scene.cluster.worker_nodes:
        scene.cluster.add_node(num_cpus=1)


def one_worker_is_of_another_version(scene: Scene) -> None:
    """The first or the second that starts refuses."""
    chosen, place = scene.chance.randrange(2), "_request" if scene.cluster is None else "_code"
    kind: Any = LocalProcesses
    if scene.cluster is not None:
        from gibbon.runner.executors.ray import RayActors

        kind = RayActors
    start = kind.start

    def started(pool: Any, number: int) -> None:
        before = getattr(pool, place)
        if number == chosen:
            other = OTHER if place == "_code" else replace(before, code=OTHER)
            setattr(pool, place, other)
        start(pool, number)
        setattr(pool, place, before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "start", started)
        progress = scene.run()
    assert any("another version of Gibbon" in each for each in progress.notes), progress.notes


KINDS: dict[str, Callable[[Scene], None]] = {
    "killed": does("kill"),
    "exits": does("exit"),
    "raises": does("raise", loading=True),
    "hangs": does("hang"),
    "memory": does("memory"),
    "other-data": does("other-data", loading=True),
    "other-version": one_worker_is_of_another_version,
    "killed-from-outside": worker_is_killed,
    "run-killed": run_is_killed,
    "node-killed": node_is_killed,
}
OF_PROCESSES, OF_RAY = ("killed-from-outside",), ("node-killed",)


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def befall(kind: str, folder: Path, *, times: int, seed: int, cluster: Any = None) -> None:
    """Has a kind of trouble happen so many times, and compares each run with a calm one."""
    calm = folder / "calm"
    if not calm.exists():
        run(SUITE, calm, **QUICK)
    for number in range(times):
        chance = random.Random(f"{seed} {kind} {number}")  # noqa: S311  to be repeated
        scene = Scene(folder / f"{kind}-{number}", chance, cluster)
        started = time.monotonic()
        KINDS[kind](scene)
        assert_same_runs(scene.folder, calm)
        seconds = time.monotonic() - started
        sys.stdout.write(f"{kind} {number + 1}: the same, {seconds:.1f} s\n")
        sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--executor", choices=["processes", "ray"], default="processes")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    given = parser.parse_args()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "SLOW_SECONDS", SLOW_SECONDS)
        if given.child:
            plug_in(given.child.parent, patch)
            unused = random.Random(0)  # noqa: S311  a child draws nothing
            Scene(given.child, unused, address=given.address).run()
            return 0
        on_ray = given.executor == "ray"
        others = OF_PROCESSES if on_ray else OF_RAY
        kinds = given.kinds or [each for each in KINDS if each not in others]
        with tempfile.TemporaryDirectory() as folder:
            plug_in(Path(folder), patch)
            with two_nodes() if on_ray else nullcontext() as cluster:
                for kind in kinds:
                    befall(kind, Path(folder), times=given.times, seed=given.seed, cluster=cluster)
    return 0


if __name__ == "__main__":
    sys.exit(main())
