"""Datasets in memory: what is refused, what batches hold, what the digest covers, the sample."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gibbon.core.errors import DatasetError, SpecError
from gibbon.core.threat import Bounds
from gibbon.datasets import DataRequest
from gibbon.datasets.base import SAMPLE_KEY, ArrayDataset, sample_ids


def made_up(labels=(0, 1, 2, 1), *, classes=("a", "b", "c"), **parts) -> ArrayDataset:
    count = len(labels)
    pixels = np.arange(count * 4, dtype=np.uint8).reshape(count, 1, 2, 2)
    given = {"pixels": pixels, "targets": np.array(labels, dtype=np.int64), "classes": classes}
    return ArrayDataset(**{"name": "made-up", **given, **parts})


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ({"pixels": np.zeros((0, 1, 2, 2), np.uint8), "targets": np.zeros(0, np.int64)}, "empty"),
        ({"targets": np.array([0, 1, 2])}, "has 4 inputs but 3 labels"),
        ({"targets": np.array([0, 1, 2, 3])}, "labels from 0 to 3, expected 0 to 2"),
        ({"targets": np.array([0, 1, 2, -1])}, "labels from -1 to 2, expected 0 to 2"),
        ({"targets": np.zeros(4)}, r"integer labels of shape \(N,\), got float64 and \(4,\)"),
        ({"targets": np.zeros((4, 1), np.int64)}, r"got int64 and \(4, 1\)"),
        ({"pixels": np.zeros((4, 1, 2, 2))}, r"dtype uint8 .* got float64 and \(4, 1, 2, 2\)"),
        ({"pixels": np.zeros(4, np.uint8)}, r"shape \(N, ...\), got uint8 and \(4,\)"),
        ({"bounds": Bounds(0.0, 0.5)}, r"inputs in \[0, 1\] but bounds \[0, 0.5\]"),
        ({"bounds": Bounds(0.5, 2.0)}, r"inputs in \[0, 1\] but bounds \[0.5, 2\]"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, fault):
    with pytest.raises(DatasetError, match=f"'made-up' .*{fault}"):
        made_up(**parts)


def test_a_dataset_says_what_it_holds():
    dataset = made_up(bounds=Bounds(-1.0, 1.0))
    assert (dataset.name, dataset.classes, len(dataset)) == ("made-up", ("a", "b", "c"), 4)
    assert (dataset.input_shape, dataset.bounds) == ((1, 2, 2), Bounds(-1.0, 1.0))
    assert made_up().bounds == Bounds(0.0, 1.0)
    np.testing.assert_array_equal(dataset.labels, [0, 1, 2, 1])
    assert dataset.labels.dtype == np.int64


def test_narrow_labels_become_int64():
    dataset = made_up(targets=np.array([0, 1, 2, 1], dtype=np.uint8))
    assert dataset.labels.dtype == np.int64
    assert dataset.batch(np.array([2])).labels.dtype == torch.int64
    assert dataset.digest == made_up().digest


@given(st.lists(st.integers(0, 3)))
def test_a_batch_holds_the_examples_asked_for_in_their_order(asked):
    ids = np.array(asked, dtype=np.int64)
    batch = made_up().batch(ids)
    assert batch.ids.tolist() == asked
    assert batch.labels.tolist() == [(0, 1, 2, 1)[i] for i in asked]
    assert batch.inputs.shape == (len(asked), 1, 2, 2)
    assert batch.inputs.dtype == torch.float32
    for row, example in zip(batch.inputs, asked, strict=True):
        expected = [np.float32(4 * example + k) / np.float32(255) for k in range(4)]
        assert row.flatten().tolist() == expected


def test_every_byte_becomes_its_255th_within_the_unit_interval():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    inputs = made_up(labels=(0,), pixels=pixels).batch(np.array([0])).inputs.flatten()
    exact = torch.arange(256, dtype=torch.float64) / 255
    assert torch.equal(inputs, exact.to(torch.float32))
    assert (inputs[0], inputs[255]) == (0.0, 1.0)


def test_a_batch_is_a_copy():
    dataset = made_up()
    ids = np.array([1])
    before = dataset.digest
    batch = dataset.batch(ids)
    for part in (batch.ids, batch.inputs, batch.labels):
        part.zero_()
    assert ids.tolist() == [1]
    assert dataset.batch(ids).labels.tolist() == [1]
    assert made_up().digest == before


@pytest.mark.parametrize("ids", [[4], [-1], [0, 7]])
def test_ids_that_do_not_exist_are_refused(ids):
    with pytest.raises(DatasetError, match=r"ids from 0 to 3, got"):
        made_up().batch(np.array(ids))


def test_a_batch_moves_whole():
    batch = made_up().batch(np.array([0, 3])).to(torch.device("meta"))
    assert {part.device.type for part in (batch.ids, batch.inputs, batch.labels)} == {"meta"}


def test_content_can_not_be_changed_through_the_dataset():
    dataset = made_up()
    for array in (dataset.pixels, dataset.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@given(st.integers(0, 15), st.integers(1, 255))
def test_the_digest_changes_with_any_pixel(position, change):
    pixels = made_up().pixels.copy()
    pixels.reshape(-1)[position] ^= change
    assert made_up(pixels=pixels).digest != made_up().digest


@pytest.mark.parametrize(
    "parts",
    [
        {"targets": np.array([0, 1, 2, 2])},
        {"classes": ("a", "b", "c", "d")},
        {"pixels": made_up().pixels.reshape(4, 1, 4, 1)},
        {"pixels": made_up().pixels[::-1], "targets": made_up().labels[::-1]},
    ],
)
def test_the_digest_changes_with_labels_classes_shape_and_order(parts):
    assert made_up(**parts).digest != made_up().digest


def test_the_digest_does_not_depend_on_layout_in_memory():
    pixels = np.asfortranarray(made_up().pixels)
    assert made_up(pixels=pixels).digest == made_up().digest


labels_and_limits = st.lists(st.integers(0, 4), min_size=1, max_size=60).flatmap(
    lambda labels: st.tuples(
        st.just(labels), st.integers(1, len(labels) + 5), st.integers(1, len(labels) + 5)
    )
)


@given(labels_and_limits)
def test_samples_are_nested_sorted_and_hold_every_class(case):
    labels, *limits = case
    dataset = made_up(labels=labels, classes=tuple("abcde"))
    small, large = (sample_ids(dataset, limit) for limit in sorted(limits))
    assert set(small.tolist()) <= set(large.tolist())
    for limit, ids in zip(sorted(limits), (small, large), strict=True):
        assert len(ids) == min(limit, len(labels))
        assert (np.diff(ids) > 0).all()
        held = {labels[i] for i in ids}
        assert len(held) == min(limit, len(set(labels)))
        np.testing.assert_array_equal(ids, sample_ids(dataset, limit))


@pytest.mark.parametrize("limit", [None, 4, 5, 10**12])
def test_no_limit_or_a_large_one_takes_all_in_order(limit):
    assert sample_ids(made_up(), limit).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(SpecError, match=rf"at least 1 example, got {limit}; .* all 4 of 'made-up'"):
        sample_ids(made_up(), limit)


def test_samples_follow_splitmix64_counted_by_hand():
    """The shuffle sorts examples by one SplitMix64 number each, here in plain integers."""
    count, word = 200, (1 << 64) - 1

    def key(example: int) -> int:
        state = (SAMPLE_KEY + (example + 1) * 0x9E3779B97F4A7C15) & word
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & word
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & word
        state ^= state >> 31
        return state - (1 << 64) if state >> 63 else state

    order = sorted(range(count), key=key)
    one_class = made_up(labels=[0] * count, pixels=np.zeros((count, 1, 2, 2), np.uint8))
    for limit in (1, 7, 150):
        assert sample_ids(one_class, limit).tolist() == sorted(order[:limit])


def test_a_request_names_a_split_that_exists():
    with pytest.raises(SpecError, match="'train' or 'test', got 'validation'"):
        DataRequest(split="validation")
