"""Galleries: they show what was measured, whatever the batch, and change no result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import torch
from same_outcomes import TOLERANCE, assert_same, assert_same_records
from torch import Tensor

from gibbon.core.threat import Bounds
from gibbon.datasets.base import ArrayDataset
from gibbon.records.gallery import FOLDER, Gallery, gallery_file, read_gallery
from gibbon.records.outcomes import OUTCOMES, read_outcome
from gibbon.records.run import RunRecord
from gibbon.runner.gallery import recover
from gibbon.runner.gallery.draw import draw_examples
from gibbon.runner.gallery.select import MOST, ROOM, SIDES, Ranks, _size_and_count
from gibbon.runner.run_progress.progress import SilentProgress
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.decoding import parse_suite
from gibbon.specs.suite import Suite
from gibbon.verify.judge import Judged, judge

SUITE = """
name = "pictured"
dataset = "squares"
models = ["one", "two"]
[[attacks]]
name = "fgsm"
epsilon = ["0.02", "0.1"]
[[attacks]]
name = "pgd"
epsilon = "0.05"
steps = 3
"""


def suite(text: str = SUITE) -> Suite:
    return parse_suite(text, where="pictured.toml")


def galleries(record: RunRecord, folder: Path) -> dict[tuple[str, str, str], Gallery]:
    """Returns the galleries of a run by model, attack and epsilon."""
    return {
        (each.model, each.attack, str(each.epsilon)): gallery
        for each in record.evaluations
        if (gallery := read_gallery(folder, each.digest)) is not None
    }


def test_each_attack_has_one_at_its_largest_epsilon(run: planted.Run, tmp_path: Path) -> None:
    found = galleries(run(suite(), pictures=True), tmp_path / "run")
    assert found.keys() == {
        (model, attack, epsilon)
        for model in ("one", "two")
        for attack, epsilon in (("fgsm", "0.1"), ("pgd", "0.05"))
    }
    for (_, _, epsilon), gallery in found.items():
        assert len(gallery.label) == MOST
        assert gallery.scale.max() == pytest.approx(float(epsilon), rel=1e-5)
    assert sum(file.stat().st_size for file in (tmp_path / "run" / FOLDER).iterdir()) < ROOM


def test_they_show_what_was_measured(run: planted.Run, tmp_path: Path) -> None:
    record = run(suite(), pictures=True)
    cards = {card.name: card.digest for card in record.models}
    for each in record.evaluations:
        gallery = read_gallery(tmp_path / "run", each.digest)
        if gallery is None:
            continue
        outcome = read_outcome(tmp_path / "run" / OUTCOMES, each.digest)
        assert outcome is not None
        place = np.searchsorted(outcome.example_id, gallery.example_id)
        said = outcome.scores[cards[each.model]]
        np.testing.assert_array_equal(gallery.after, said.predicted[place])
        np.testing.assert_allclose(gallery.sure_after, said.confidence[place], atol=TOLERANCE)
        np.testing.assert_array_equal(gallery.label, outcome.label[place])


def test_random_examples_are_the_same_and_the_others_chosen(
    run: planted.Run, tmp_path: Path
) -> None:
    found = galleries(run(suite(), pictures=True), tmp_path / "run")
    random = {
        tuple(
            number for number, why in zip(each.example_id, each.why, strict=True) if why == "random"
        )
        for each in found.values()
    }
    assert len(random) == 1
    assert len(next(iter(random))) == MOST // 2
    for gallery in found.values():
        for place, why in enumerate(gallery.why):
            wrong = gallery.after[place] != gallery.label[place]
            if why == "misled":
                assert wrong
                assert gallery.before[place] == gallery.label[place]
            elif why == "withstood":
                assert not wrong


@pytest.mark.parametrize("batch_size", [1, 7])
def test_batches_change_nothing(run: planted.Run, tmp_path: Path, batch_size: int) -> None:
    whole = galleries(run(suite(), "whole", pictures=True), tmp_path / "whole")
    record = run(suite(), "cut", pictures=True, batch_size=batch_size)
    for key, gallery in galleries(record, tmp_path / "cut").items():
        assert_same(whole[key], gallery)


def test_made_again_they_are_the_same(run: planted.Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = galleries(run(suite(), pictures=True), folder)
    for file in (folder / FOLDER).iterdir():
        file.unlink()
    record = run(suite(), pictures=True)
    assert record.provenance.computed_cells == 0
    again = galleries(record, folder)
    assert again.keys() == first.keys()
    for key, gallery in again.items():
        assert_same(first[key], gallery)


def test_they_are_kept_only_where_asked_for_and_change_no_result(
    run: planted.Run, tmp_path: Path
) -> None:
    without = run(suite(), "without")
    assert not (tmp_path / "without" / FOLDER).exists()
    with_pictures = run(suite(), "with", pictures=True)
    assert_same_records(without, with_pictures)


def test_an_interrupted_run_ends_with_the_same(
    run: planted.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SUITE.replace('name = "pgd"', 'name = "interrupts"').replace("steps = 3", "")
    monkeypatch.setattr(planted.INTERRUPTS, "asked", [])
    whole = galleries(run(suite(text), "whole", pictures=True, batch_size=20), tmp_path / "whole")
    monkeypatch.setattr(planted.INTERRUPTS, "asked", [])
    monkeypatch.setattr(planted.INTERRUPTS, "after", 2)
    with pytest.raises(KeyboardInterrupt):
        run(suite(text), pictures=True, batch_size=20)
    monkeypatch.setattr(planted.INTERRUPTS, "after", 0)
    record = run(suite(text), pictures=True, batch_size=20)
    again = galleries(record, tmp_path / "run")
    assert again.keys() == whole.keys()
    for key, gallery in again.items():
        assert_same(whole[key], gallery)


def test_an_invalid_candidate_is_shown_as_such(run: planted.Run, tmp_path: Path) -> None:
    text = SUITE.replace('name = "pgd"', 'name = "returns-nan"').replace("steps = 3", "")
    found = galleries(run(suite(text), pictures=True), tmp_path / "run")
    gallery = found["one", "returns-nan", "0.05"]
    assert not gallery.valid.any()
    assert not gallery.change.any()
    assert "misled" not in gallery.why


def test_a_failed_cell_has_none_and_stale_ones_go(run: planted.Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(suite(), pictures=True)
    stale = gallery_file(folder, "of-another-suite")
    stale.write_bytes(b"old")
    text = SUITE.replace('name = "pgd"', 'name = "raises"').replace("steps = 3", "")
    found = galleries(run(suite(text), pictures=True), folder)
    assert {attack for _, attack, _ in found} == {"fgsm"}
    assert len(list((folder / FOLDER).iterdir())) == len(found) == 2


@pytest.mark.parametrize("name", ["fgsm", "bim"])
def test_what_was_carried_is_shown_as_it_was_measured(
    run: planted.Run, tmp_path: Path, name: str
) -> None:
    """At the epsilon that misled an example first; clean mistakes have no change."""
    epsilons = [0.02, 0.05, 0.1]
    text = f"""
name = "pictured"
dataset = "squares"
models = ["one"]
[[attacks]]
name = "{name}"
epsilon = {[str(each) for each in epsilons]}
carried = true
"""
    record = run(suite(text), pictures=True)
    (gallery,) = galleries(record, tmp_path / "run").values()
    (source,) = {each.digest for each in record.models}
    found = read_outcome(tmp_path / "run" / OUTCOMES, gallery.digest)
    assert found is not None
    places = np.searchsorted(found.example_id, gallery.example_id)
    np.testing.assert_allclose(gallery.scale, found.distance[places], atol=1e-6)
    np.testing.assert_array_equal(gallery.after, found.scores[source].predicted[places])
    confidence = found.scores[source].confidence[places]
    np.testing.assert_allclose(gallery.sure_after, confidence, atol=1e-5)
    assert len(gallery.label) == MOST
    assert len({round(float(each), 3) for each in gallery.scale}) > 1


def test_of_a_model_that_answers_at_random_what_came_out_again_is_shown(
    run: planted.Run, tmp_path: Path, plant: planted.Plant
) -> None:
    class Noisy(planted.Rows):
        def forward(self, inputs: Tensor) -> Tensor:
            outputs = super().forward(inputs)
            return outputs + torch.randn_like(outputs)

    plant.model("one", lambda: planted.classifier(Noisy(1)))
    record = run(suite(SUITE.replace(', "two"', "")), pictures=True)
    (source,) = {each.digest for each in record.models}
    for gallery in galleries(record, tmp_path / "run").values():
        found = read_outcome(tmp_path / "run" / OUTCOMES, gallery.digest)
        assert found is not None
        places = np.searchsorted(found.example_id, gallery.example_id)
        np.testing.assert_array_equal(gallery.after, found.scores[source].predicted[places])
        for why, wrong in zip(gallery.why, gallery.after != gallery.label, strict=True):
            assert why == "random" or (why == "misled") == wrong


def test_candidates_that_do_not_come_out_again_are_reported(
    run: planted.Run, plant: planted.Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listening(SilentProgress):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    def judged(*args: Any, **options: Any) -> Judged:
        found = judge(*args, **options)
        assert found.answers is not None
        other = (found.answers.predicted + 1) % planted.CLASSES
        return replace(found, answers=replace(found.answers, predicted=other))

    monkeypatch.setattr(recover, "judge", judged)
    heard = Listening()
    settings = RunSettings(device="cpu", pictures=True)
    record = run_suite(suite(), tmp_path / "run", settings=settings, progress=heard)
    assert record.status == "done"
    assert not galleries(record, tmp_path / "run")
    assert len(heard.notes) == 4
    assert heard.notes[0].startswith("no pictures of squares, one, fgsm at epsilon 0.1: ")
    assert "are not the recorded ones" in heard.notes[0]


def test_errors_alone_have_none(run: planted.Run, tmp_path: Path) -> None:
    text = SUITE.replace('dataset = "squares"', 'dataset = "squares"\nerror_only = true')
    run(suite(text.replace('models = ["one", "two"]', 'models = ["one"]')), pictures=True)
    assert not (tmp_path / "run" / FOLDER).exists()


@pytest.mark.parametrize(
    ("shape", "cells", "expected"),
    [
        ((1, 28, 28), 34, (SIDES[0], MOST)),
        ((3, 224, 224), 4, (SIDES[0], 4)),
        ((3, 224, 224), 40, (SIDES[-1], 4)),
        ((1, 28, 28), 1000, None),
        ((784,), 1, None),
        ((5, 8, 8), 1, None),
    ],
)
def test_they_never_take_more_than_their_room(
    shape: tuple[int, ...], cells: int, expected: tuple[int, int] | None
) -> None:
    pixels = np.zeros((1, *shape), dtype=np.uint8)
    dataset = ArrayDataset("made", pixels, targets=np.array([0]), classes=("a",))
    found = _size_and_count(dataset, ROOM // cells)
    if expected is None or found is None:
        assert found is expected
        return
    assert found == expected
    side, count = found
    shrink = min(1.0, side / shape[1])
    taken = cells * count * 2 * shape[0] * round(shape[1] * shrink) * round(shape[2] * shrink)
    assert taken <= ROOM


@pytest.mark.parametrize(("size", "narrowed"), [(3.0, True), (30.0, False), (0.0, False)])
def test_pictures_that_take_little_of_wide_bounds_are_drawn_over_what_they_take(
    size: float, narrowed: bool
) -> None:
    ids = np.arange(4)
    clean = np.linspace(-size, size, 4 * 9, dtype=np.float32).reshape(4, 1, 3, 3)
    change = np.full_like(clean, 0.1 if size else 0.0)
    change[::2] *= -1
    kept = Gallery(
        digest="cell",
        why=("random",) * 4,
        example_id=ids,
        **{name: np.zeros(4, dtype=np.int32) for name in ("label", "before", "after")},
        **{name: np.ones(4, dtype=np.float32) for name in ("sure_before", "sure_after")},
        valid=np.ones(4, dtype=bool),
        shape=(3, 3),
        **draw_examples(clean, change, bounds=Bounds(-32.0, 32.0))._asdict(),
    )
    assert kept.narrowed is narrowed
    assert not any(kept.beyond(place) for place in range(4))
    pictures = [kept.pictures(place) for place in range(4)]
    again = np.stack([one for one, _, _ in pictures]) / 255 * (kept.high - kept.low) + kept.low
    np.testing.assert_allclose(again, clean, atol=(kept.high - kept.low) / 255)
    if narrowed:
        assert (kept.low, kept.high) == pytest.approx((-3.1, 3.1))
        assert all((one != total).all() for one, _, total in pictures)


def test_the_surest_come_first_and_clean_mistakes_never() -> None:
    ranks = Ranks(
        np.arange(5),
        misclassified=np.array([True, True, True, False, False]),
        clean_correct=np.array([True, False, True, True, True]),
        confidence=np.array([0.5, 0.99, 0.9, 0.3, 0.8], dtype=np.float32),
    )
    assert ranks.successes.tolist() == [2, 0]
    assert ranks.withstood.tolist() == [4, 3]
