"""Trainings with several seeds, one after another and side by side."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from gibbon.core.errors import RunFolderError, SpecError, UnknownNameError
from gibbon.models.registry import TrainingProgress, TrainingRequest, TrainingResult
from gibbon.runner import train_seeds as train_seeds_module
from gibbon.runner.train_seeds import ENDED, parse_seeds, seed_folder, train_seeds


def request(output: Path, **fields: object) -> TrainingRequest:
    return TrainingRequest(output, lambda progress: None, epochs=1, **fields)  # type: ignore[arg-type]


def test_each_seed_is_trained_in_a_folder_of_its_own_and_not_twice(tmp_path: Path) -> None:
    reports: list[tuple[int, TrainingProgress]] = []

    def report(seed: int, progress: TrainingProgress) -> None:
        reports.append((seed, progress))

    results = train_seeds("logistic", request(tmp_path), seeds=[3, 1], report=report)
    assert [result.weights.parent for result in results] == [
        seed_folder(tmp_path, seed) for seed in (3, 1)
    ]
    assert [seed for seed, progress in reports if progress == ENDED] == [3, 1]
    alone = train_seeds("logistic", request(tmp_path / "alone"), seeds=[1])[0]
    assert alone.weights.read_bytes() == results[1].weights.read_bytes()
    assert alone.weights.read_bytes() != results[0].weights.read_bytes()

    reports.clear()
    again = train_seeds("logistic", request(tmp_path), seeds=[3, 1], report=report)
    assert all(result.summary.endswith("it was there already") for result in again)
    assert reports == [(3, ENDED), (1, ENDED)]


def test_side_by_side_gives_the_weights_of_one_thread(tmp_path: Path) -> None:
    reports: list[tuple[int, TrainingProgress]] = []
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = train_seeds("logistic", request(tmp_path / "alone"), seeds=[0, 1])
    finally:
        torch.set_num_threads(threads)
    both = train_seeds(
        "logistic",
        request(tmp_path),
        seeds=[0, 1],
        parallel=2,
        report=lambda seed, progress: reports.append((seed, progress)),
    )
    for one, other in zip(alone, both, strict=True):
        assert one.weights.read_bytes() == other.weights.read_bytes()
    for seed in (0, 1):
        of_seed = [progress for each, progress in reports if each == seed]
        assert of_seed[-1] == ENDED
        assert of_seed[-2].step == of_seed[-2].steps


def test_side_by_side_no_core_is_left_to_decode_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    class Pool:
        def __init__(self, workers: int, **settings: object) -> None:
            assert workers == 2

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *error: object) -> None: ...

        def submit(self, train: object, job: Any) -> Future[TrainingResult]:
            asked.append(job.request.decoders)
            done: Future[TrainingResult] = Future()
            done.set_result(TrainingResult(tmp_path, tmp_path, "trained"))
            return done

    monkeypatch.setattr(train_seeds_module, "ProcessPoolExecutor", Pool)
    train_seeds("logistic", request(tmp_path, decoders=4), seeds=[0, 1], parallel=2)
    assert asked == [0, 0]


@pytest.mark.parametrize("parallel", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_one_that_fails_is_reported_with_its_seed_after_the_others_are_done(
    tmp_path: Path, parallel: int | None
) -> None:
    folder = seed_folder(tmp_path, 0)
    folder.mkdir()
    (folder / "logistic.checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(RunFolderError, match=r"seed 0: .*damaged.*start fresh"):
        train_seeds("logistic", request(tmp_path), seeds=[0, 1], parallel=parallel)
    assert (seed_folder(tmp_path, 1) / "logistic.safetensors").exists()


@pytest.mark.slow
def test_an_interruption_ends_the_trainings_side_by_side(tmp_path: Path) -> None:
    def interrupt(seed: int, progress: TrainingProgress) -> None:
        raise KeyboardInterrupt

    # 10,000 epochs would take hours: it returns as soon as the processes see the request to stop.
    long = TrainingRequest(tmp_path, lambda progress: None, epochs=10_000)
    with pytest.raises(KeyboardInterrupt):
        train_seeds("logistic", long, seeds=[0, 1], parallel=2, report=interrupt)


def test_an_unknown_model_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'logistic'"):
        train_seeds("logistik", request(tmp_path), seeds=[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "seeds"), [("0,1,2", [0, 1, 2]), ("4", [4]), ("0-2, 7", [0, 1, 2, 7]), ("3-3", [3])]
)
def test_seeds_are_numbers_and_ranges(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-1", "1-", "2-1", "0,0-1", "1.5"])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match="--seeds"):
        parse_seeds(text)
