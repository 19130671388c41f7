"""Reading ahead: order, errors from a worker, workers that die, and how many there are."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import time
import warnings

import numpy as np
import pytest

from gibbon.core.errors import DatasetError, SpecError
from gibbon.datasets import DataRequest
from gibbon.datasets import prefetch as reading
from gibbon.datasets.prefetch import ExampleCache, choose_workers, grouped, read_ahead

GROUPS = [np.array([k, k + 1]) for k in range(0, 40, 2)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_groups_come_in_order(workers):
    found = list(read_ahead(np.sum, GROUPS, workers=workers))
    assert [group.tolist() for group, _ in found] == [group.tolist() for group in GROUPS]
    assert [total for _, total in found] == [group.sum() for group in GROUPS]
    assert multiprocessing.active_children() == []


def test_more_workers_than_processors_are_no_warning():
    assert len(list(read_ahead(np.sum, GROUPS, workers=(os.cpu_count() or 1) + 1))) == 20


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_out_as_it_went_in(workers):
    def read(group):
        if 6 in group:
            raise DatasetError("a.jpg: truncated")
        return group

    found = read_ahead(read, GROUPS, workers=workers)
    with pytest.raises(DatasetError, match=r"^a\.jpg: truncated$"):
        list(found)
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_is_told():
    def read(group):
        if 6 in group:
            os.kill(os.getpid(), signal.SIGKILL)
        return group

    with pytest.raises(DatasetError, match=r"ended unexpectedly .* --decoders 0 reads in the main"):
        list(read_ahead(read, GROUPS, workers=2))
    assert multiprocessing.active_children() == []


def test_workers_leave_interruptions_to_the_main_process():
    found = read_ahead(lambda group: signal.getsignal(signal.SIGINT), GROUPS, workers=1)
    assert {handler for _, handler in found} == {signal.SIG_IGN}


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("numbers", [1, 1 << 20])  # what the pipes hold, and what fills them
def test_workers_end_with_the_process_that_started_them(ending, numbers):
    reading_end, writing_end = os.pipe()

    def main() -> None:
        found = read_ahead(lambda group: np.zeros(numbers), GROUPS, workers=2)
        next(found)
        pids = " ".join(str(worker.pid) for worker in multiprocessing.active_children())
        os.write(writing_end, pids.encode())
        time.sleep(120)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork where there are threads
        process = multiprocessing.get_context("fork").Process(target=main)
        process.start()
    os.close(writing_end)
    with os.fdopen(reading_end, "rb", buffering=0) as pipe:
        workers = [int(pid) for pid in pipe.read(100).split()]
        assert len(workers) == 2
        os.kill(process.pid, ending)
        process.join()
        # It ends when nobody holds the other end, which the workers inherited.
        ended, _, _ = select.select([pipe], [], [], 20)
        if not ended:
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
        assert ended
        assert pipe.read(1) == b""


@pytest.mark.parametrize(
    ("processors", "asked", "count", "expected"),
    [(4, None, 1000, 4), (64, None, 1000, 8), (4, None, 31, 0), (1, None, 1000, 0), (4, 3, 5, 3),
     (4, 0, 1000, 0), (4, 3, 0, 0)],
)  # fmt: skip
def test_workers_follow_the_machine_unless_they_are_given(
    monkeypatch, processors, asked, count, expected
):
    monkeypatch.setattr(reading.os, "sched_getaffinity", lambda pid: range(processors))
    assert choose_workers(asked, count) == expected


def test_a_negative_number_of_workers_is_refused():
    with pytest.raises(SpecError, match="workers must be 0 or more, got -1"):
        DataRequest(workers=-1)


@pytest.mark.parametrize("count", [0, 1, 31, 1000])
@pytest.mark.parametrize("size", [0, 784, 3 << 20])
@pytest.mark.parametrize("workers", [0, 1, 8])
def test_groups_hold_every_id_once_in_order_and_not_too_much(count, size, workers):
    groups = grouped(np.arange(count), size=size, workers=workers)
    assert [i for group in groups for i in group] == list(range(count))
    for group in groups:
        assert 1 <= len(group) <= reading.LARGEST_GROUP
        assert len(group) == 1 or len(group) * size <= reading.GROUP_BYTES


def test_what_came_first_is_kept_up_to_the_limit(monkeypatch):
    monkeypatch.setattr(reading, "KEPT_BYTES", 35)
    kept = ExampleCache(8, (2, 2), dtype=np.dtype(np.float32))
    assert not kept.holds_all
    for number, example in enumerate([3, 1, 3, 2]):
        kept.add(example, np.full((2, 2), number, np.float32))
    assert kept.examples() == {3, 1}
    assert kept[3].tolist() == [[0, 0], [0, 0]]
    assert kept[1].tolist() == [[1, 1], [1, 1]]
    assert ExampleCache(2, (2, 2), dtype=np.dtype(np.float32)).holds_all


def test_what_has_another_shape_is_not_kept():
    kept = ExampleCache(8, (2, 2), dtype=np.dtype(np.uint8))
    kept.add(0, np.zeros((1, 2), np.uint8))
    assert kept.examples() == set()
