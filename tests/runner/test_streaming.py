"""Data that is read while the run goes on, and examples that can't be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import planted
import pytest
import torch
from numpy.typing import NDArray
from planted import Run
from same_outcomes import assert_same_records
from test_execute import MakeSuite, row

from gibbon.core.errors import DatasetError, ModelError
from gibbon.datasets import DataRequest
from gibbon.datasets.base import ArrayDataset, Batch
from gibbon.records.run import RunRecord
from gibbon.runner.plan.planned import Supplied
from gibbon.runner.run_progress.progress import SilentProgress
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings

BAD = {4: "pictures/4.png: cut off", 17: "pictures/17.png: not a picture"}


class Streamed(ArrayDataset):
    """Gives its batches from a stream that must be closed, and can't read some examples."""

    def __init__(self, *, bad: Mapping[int, str] | None = None, examples: int = 60) -> None:
        whole = planted.squares(examples=examples)
        super().__init__("squares", whole.pixels, targets=whole.targets, classes=whole.classes)
        self.bad = dict(bad or {})
        self.opened = self.closed = self.fetched = 0
        self.looked: list[int] = []

    def batch(self, ids: NDArray[np.int64]) -> Batch:
        assert not set(ids.tolist()) & self.bad.keys()
        self.fetched += 1
        return super().batch(ids)

    def batches(self, chunks: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        self.opened += 1
        try:
            for chunk in chunks:
                assert not set(chunk.tolist()) & self.bad.keys()
                yield super().batch(chunk)
        finally:
            self.closed += 1

    def unreadable(
        self, ids: NDArray[np.int64], *, progress: Callable[[int], None]
    ) -> Mapping[int, str]:
        self.looked = ids.tolist()
        for part in np.array_split(ids, 3):
            progress(len(part))
        return {key: reason for key, reason in self.bad.items() if key in ids}


@pytest.fixture
def streamed(plant: planted.Plant) -> Streamed:
    data = Streamed()
    plant.dataset("squares", lambda request: data)
    return data


def test_batches_come_from_the_stream_and_it_is_closed(
    run: Run, suite: MakeSuite, streamed: Streamed
) -> None:
    record = run(suite("fgsm", "brightens"), batch_size=25, certify="none")
    assert record.status == "done"
    assert (streamed.opened, streamed.closed) == (3, 3)  # the first looks for copies
    assert streamed.fetched == 1  # the sample that models are probed on


def test_the_stream_is_closed_where_the_run_is_interrupted(
    run: Run, suite: MakeSuite, streamed: Streamed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planted.INTERRUPTS, "after", 2)
    monkeypatch.setattr(planted.INTERRUPTS, "asked", [])
    with pytest.raises(KeyboardInterrupt):
        run(suite("interrupts"), batch_size=20)
    assert (streamed.opened, streamed.closed) == (2, 2)


def test_the_stream_is_closed_where_every_cell_fails(
    run: Run, suite: MakeSuite, streamed: Streamed, plant: planted.Plant
) -> None:
    class Breaks(planted.Rows):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            if len(inputs) == 7:
                raise RuntimeError("planted trouble")
            return super().forward(inputs)

    plant.model("one", lambda: planted.classifier(Breaks(1)))
    assert run(suite("fgsm"), batch_size=7).status == "failed"
    assert (streamed.opened, streamed.closed) == (2, 2)


def test_a_batch_that_an_attack_spoilt_is_fetched_again(
    run: Run, suite: MakeSuite, streamed: Streamed
) -> None:
    record = run(suite("raises"), batch_size=20)
    assert row(record, "none").status == "done"
    assert row(record, "raises").status == "failed"
    assert streamed.fetched == 2  # the sample, and the first batch; then nothing is attacked


@pytest.mark.parametrize("trouble", ["short", "order"])
def test_a_stream_that_gives_other_examples_fails_its_cells(
    run: Run, suite: MakeSuite, plant: planted.Plant, trouble: str
) -> None:
    class Confused(ArrayDataset):
        def batches(self, chunks: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
            order = chunks[:1] if trouble == "short" else list(reversed(chunks))
            return map(self.batch, order)

    whole = planted.squares()
    data = Confused("squares", whole.pixels, targets=whole.targets, classes=whole.classes)
    plant.dataset("squares", lambda request: data)
    record = run(suite("fgsm"), batch_size=20)
    assert record.status == "failed"
    assert "must give the requested examples" in record.failures[0].error


def test_workers_and_folder_reach_the_dataset(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    asked: list[DataRequest] = []

    def load(request: DataRequest) -> ArrayDataset:
        asked.append(request)
        return planted.squares()

    plant.dataset("squares", load)
    run(suite("fgsm"), decoders=3)
    assert [each.workers for each in asked] == [3]


# Examples that can't be read


def test_unreadable_examples_are_named_before_anything_is_computed(
    run: Run, suite: MakeSuite, streamed: Streamed
) -> None:
    streamed.bad = {each: f"pictures/{each}.png: cut off" for each in range(20, 32)}
    with pytest.raises(DatasetError) as raised:
        run(suite("fgsm"))
    told = str(raised.value)
    assert told.startswith("dataset 'squares': 12 examples can't be read")
    assert "--skip-unreadable" in told
    assert "pictures/20.png: cut off\n" in told
    assert "pictures/29.png" in told
    assert "pictures/30.png" not in told
    assert told.endswith("and 2 more")
    assert streamed.opened == 0


@pytest.mark.parametrize("by_suite", [False, True])
def test_unreadable_examples_are_skipped_counted_and_listed(
    run: Run, suite: MakeSuite, streamed: Streamed, by_suite: bool
) -> None:
    streamed.bad = dict(BAD)
    data = {"name": "squares", "skip_unreadable": by_suite}
    record = run(suite("fgsm", dataset=data), batch_size=7, skip_unreadable=not by_suite)
    (card,) = record.datasets
    assert (card.examples, card.of) == (58, 60)
    assert card.skipped == tuple(BAD.values())
    assert (
        "squares: 2 of 60 examples can't be read and were left out: pictures/4.png: cut off; "
        "pictures/17.png: not a picture"
    ) in map(str, record.flags)
    assert row(record, "fgsm").examples == 58


def test_the_others_keep_their_ids(
    run: Run, suite: MakeSuite, streamed: Streamed, tmp_path: Path
) -> None:
    from gibbon.runner.run_folder import RunFolder

    streamed.bad = dict(BAD)
    record = run(suite("fgsm"), skip_unreadable=True)
    with RunFolder.open(tmp_path / "run", suite="planted") as folder:
        outcome = folder.read(record.evaluations[0].digest)
    assert outcome is not None
    assert outcome.example_id.tolist() == [each for each in range(60) if each not in BAD]


def test_examples_outside_of_the_sample_need_not_be_readable(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    data = Streamed(examples=600)
    plant.dataset("squares", lambda request: data)
    taken = run(suite("fgsm"), limit=5).datasets[0].examples
    wanted = set(data.looked)
    unseen = next(each for each in range(600) if each not in wanted)
    data.bad = {unseen: "cut off"}
    assert run(suite("fgsm"), "again", limit=5).datasets[0].examples == taken == 5


def test_where_nothing_is_left_the_run_is_refused(
    run: Run, suite: MakeSuite, streamed: Streamed
) -> None:
    streamed.bad = dict.fromkeys(range(60), "pictures: gone")
    with pytest.raises(DatasetError, match=r"nothing is left: none of 60 .*: pictures: gone"):
        run(suite("fgsm"), skip_unreadable=True)


def test_the_check_is_shown_while_it_goes_on(
    suite: MakeSuite, streamed: Streamed, tmp_path: Path
) -> None:
    class Shown(SilentProgress):
        def __init__(self) -> None:
            self.seen: list[tuple[int, int, str]] = []

        def checking(self, examples: int, *, of: int, dataset: str) -> None:
            self.seen.append((examples, of, dataset))

    shown = Shown()
    settings = RunSettings(device="cpu")
    run_suite(suite("fgsm"), tmp_path / "run", settings=settings, progress=shown)
    assert shown.seen == [(20, 60, "squares")] * 3


# Labels


class Partial(ArrayDataset):
    """Its labels count among the model's classes, which it does not know."""

    @property
    def partial(self) -> bool:
        return True


def partial(*targets: int) -> Partial:
    whole = planted.squares(examples=len(targets))
    names = tuple(f"class {each}" for each in range(max(targets) + 1))
    return Partial("squares", whole.pixels, targets=np.array(targets), classes=names)


def test_a_partial_dataset_may_lack_classes_of_the_model(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    plant.dataset("squares", lambda request: partial(0, 1, 1, 0))
    assert run(suite("fgsm")).status == "done"


def test_a_label_beyond_the_model_is_named_with_its_example(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    plant.dataset("squares", lambda request: partial(0, 1, 7, 2, 9))
    with pytest.raises(ModelError, match=r"labels go from 0 to 2; .* a label 7 \(example 2\)"):
        run(suite("fgsm"))


# What is there already


def test_what_is_supplied_takes_no_other_way(run: Run, suite: MakeSuite, tmp_path: Path) -> None:
    data = Streamed(bad=BAD)
    supplied = Supplied(datasets={"squares": data})
    results: list[RunRecord] = [
        run_suite(
            suite("fgsm", models=("one", "two"), transfer=("fgsm",)),
            tmp_path / f"run{index}",
            settings=RunSettings(device="cpu", skip_unreadable=True, **settings),
            supplied=supplied,
        )
        for index, settings in enumerate(({}, {"models_in_memory": 1, "batch_size": 13}))
    ]
    assert_same_records(*results)
    assert data.opened == data.closed > 0
    assert results[0].datasets[0].skipped == tuple(BAD.values())
