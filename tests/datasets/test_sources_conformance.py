"""The laws that every kind of data source keeps, on the same twelve pictures."""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_pictures import CLASSES, Content, made_up, picture_of, write_csv, write_folder
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from gibbon.datasets import DataRequest
from gibbon.datasets import array_files as arrays
from gibbon.datasets import prefetch as reading
from gibbon.datasets.base import ArrayDataset, Dataset
from gibbon.datasets.open import check_dataset, open_dataset
from gibbon.datasets.wrap import adopt_data
from gibbon.specs.suite import DatasetSpec

CONTENT = made_up()
FACTORY = """
from torch.utils.data import TensorDataset
import numpy as np, torch

def load(folder, batch=None):
    pixels, labels = (torch.from_numpy(np.load(f"{folder}/{name}.npy")) for name in "xy")
    data = TensorDataset(pixels, labels)
    return data if batch is None else torch.utils.data.DataLoader(data, batch_size=batch)
"""
Make = Callable[[Path, Content, int], Dataset]


def opened(folder: Path, workers: int, **spec) -> Dataset:
    asked = DatasetSpec.model_validate({"name": "mine", **spec})
    check_dataset(asked, where="here")
    return open_dataset(asked, DataRequest(folder=folder / "cache", workers=workers))


def in_memory(folder: Path, content: Content, workers: int) -> Dataset:
    return ArrayDataset("mine", content.pixels, targets=content.labels, classes=CLASSES)


def folder_of_classes(folder: Path, content: Content, workers: int) -> Dataset:
    return opened(folder, workers, source=str(write_folder(folder / "photos", content)))


def folder_with_map(folder: Path, content: Content, workers: int) -> Dataset:
    mapped = folder / "classes.json"
    source = str(write_folder(folder / "photos", content))
    mapped.write_text(json.dumps(CLASSES))
    return opened(folder, workers, source=source, class_map=str(mapped))


def listed(folder: Path, content: Content, workers: int) -> Dataset:
    return opened(folder, workers, source=str(write_csv(folder / "photos", content)))


def npz(folder: Path, content: Content, workers: int) -> Dataset:
    folder.mkdir(exist_ok=True)
    np.savez(folder / "data.npz", x=content.pixels, y=content.labels)
    return opened(folder, workers, source=str(folder / "data.npz"), layout="NCHW")


def large_npz(folder: Path, content: Content, workers: int) -> Dataset:
    folder.mkdir(exist_ok=True)
    last = np.asfortranarray(content.pixels.transpose(0, 2, 3, 1))
    np.savez_compressed(folder / "data.npz", x=last, y=content.labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "HELD_BYTES", 16)
        return opened(folder, workers, source=str(folder / "data.npz"), layout="NHWC")


def npy(folder: Path, content: Content, workers: int) -> Dataset:
    folder.mkdir(exist_ok=True)
    np.save(folder / "x.npy", content.pixels.astype(np.float32) / np.float32(255))
    np.save(folder / "y.npy", content.labels.astype(np.int16))
    labels = str(folder / "y.npy")
    return opened(folder, workers, source=str(folder / "x.npy"), labels=labels, layout="NCHW")


def of_torchvision(folder: Path, content: Content, workers: int) -> Dataset:
    write_folder(folder / "cache" / "country211" / "test", content)
    return opened(folder, workers, source="torchvision:Country211")


def factory(folder: Path, content: Content, workers: int, **arguments) -> Dataset:
    folder.mkdir(exist_ok=True)
    np.save(folder / "x.npy", content.pixels)
    np.save(folder / "y.npy", content.labels)
    (folder / "data.py").write_text(FACTORY)
    source = f"{folder}/data.py:load"
    return opened(folder, workers, source=source, arguments={"folder": str(folder), **arguments})


def factory_of_loader(folder: Path, content: Content, workers: int) -> Dataset:
    return factory(folder, content, workers, batch=5)


def pair(folder: Path, content: Content, workers: int) -> Dataset:
    inputs = torch.from_numpy(content.pixels).float() / 255
    return adopt_data((inputs, torch.from_numpy(content.labels)), name="mine")


def pair_of_arrays(folder: Path, content: Content, workers: int) -> Dataset:
    return adopt_data((content.pixels, content.labels.tolist()), name="mine")


class Pictures(TorchDataset):
    """Items are a PIL picture and a number."""

    def __init__(self, content: Content) -> None:
        self.content = content

    def __len__(self) -> int:
        return len(self.content.labels)

    def __getitem__(self, position: int):
        return picture_of(self.content.pixels[position]), int(self.content.labels[position])


class Tensors(Pictures):
    """Items are a tensor of floats and a tensor."""

    def __getitem__(self, position: int):
        inputs = torch.from_numpy(self.content.pixels[position]).float() / 255
        return inputs, torch.tensor(self.content.labels[position])


class Stream(IterableDataset):
    """Pairs that come one after the other."""

    def __init__(self, content: Content) -> None:
        self.items = Tensors(content)

    def __iter__(self):
        return (self.items[position] for position in range(len(self.items)))


def torch_pictures(folder: Path, content: Content, workers: int) -> Dataset:
    return adopt_data(Pictures(content), name="mine", workers=workers)


def loader(folder: Path, content: Content, workers: int) -> Dataset:
    data = DataLoader(Tensors(content), batch_size=5, shuffle=True, num_workers=workers)
    return adopt_data(data, name="mine")


def loader_without_batches(folder: Path, content: Content, workers: int) -> Dataset:
    return adopt_data(
        DataLoader(Tensors(content), batch_size=None, num_workers=workers), name="mine"
    )


def loader_of_tensors(folder: Path, content: Content, workers: int) -> Dataset:
    tensors = TensorDataset(torch.from_numpy(content.pixels), torch.from_numpy(content.labels))
    return adopt_data(DataLoader(tensors, batch_size=5, shuffle=True), name="mine")


def stream(folder: Path, content: Content, workers: int) -> Dataset:
    return adopt_data(Stream(content), name="mine")


def loader_of_stream(folder: Path, content: Content, workers: int) -> Dataset:
    return adopt_data(DataLoader(Stream(content), batch_size=5), name="mine")


WHOLE = (in_memory, folder_of_classes, of_torchvision)
KINDS = (
    *WHOLE,
    folder_with_map,
    listed,
    npz,
    large_npz,
    npy,
    factory,
    factory_of_loader,
    pair,
    pair_of_arrays,
    torch_pictures,
    loader,
    loader_without_batches,
    loader_of_tensors,
    stream,
    loader_of_stream,
)
every_kind = pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)


@every_kind
def test_it_holds_exactly_what_was_written(make: Make, tmp_path):
    dataset = make(tmp_path, CONTENT, 0)
    assert len(dataset) == 12
    assert dataset.labels.dtype == np.int64
    np.testing.assert_array_equal(dataset.labels, CONTENT.labels)
    assert dataset.input_shape == (3, 6, 5)
    assert (dataset.bounds.low, dataset.bounds.high) == (0.0, 1.0)
    assert dataset.partial == (make not in WHOLE)
    assert len(dataset.classes) == 3
    batch = dataset.batch(np.arange(12))
    assert (batch.ids.dtype, batch.inputs.dtype, batch.labels.dtype) == (
        torch.int64,
        torch.float32,
        torch.int64,
    )
    assert torch.equal(batch.inputs, torch.from_numpy(CONTENT.pixels).float() / 255)
    assert batch.labels.tolist() == CONTENT.labels.tolist()


@every_kind
@pytest.mark.parametrize(("workers", "kept"), [(0, 0), (0, 200), (2, 0)])
def test_batches_hold_what_was_asked_for_however_it_is_split(
    make: Make, tmp_path, monkeypatch, workers, kept
):
    monkeypatch.setattr(reading, "KEPT_BYTES", kept)
    dataset = make(tmp_path, CONTENT, workers)
    asked = np.array([7, 0, 11, 7, 3])
    whole = dataset.batch(asked)
    assert whole.ids.tolist() == asked.tolist()
    assert whole.labels.tolist() == CONTENT.labels[asked].tolist()
    assert torch.equal(whole.inputs, torch.from_numpy(CONTENT.pixels[asked]).float() / 255)
    for chunks in ([asked[:2], asked[2:]], [asked[:1], asked[1:1], asked[1:]]):
        parts = list(dataset.batches(chunks))
        assert [part.ids.tolist() for part in parts] == [chunk.tolist() for chunk in chunks]
        for name in ("ids", "inputs", "labels"):
            joined = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(joined, getattr(whole, name))


@every_kind
def test_a_batch_is_the_callers_own(make: Make, tmp_path):
    dataset = make(tmp_path, CONTENT, 0)
    ids = np.array([1, 2])
    for _ in range(2):
        batch = dataset.batch(ids)
        assert torch.equal(batch.inputs, torch.from_numpy(CONTENT.pixels[ids]).float() / 255)
        assert batch.labels.tolist() == CONTENT.labels[ids].tolist()
        for part in (batch.ids, batch.inputs, batch.labels):
            part.zero_()
    assert ids.tolist() == [1, 2]


@every_kind
@pytest.mark.parametrize("ids", [[12], [-1], [0, 40]])
def test_ids_that_do_not_exist_are_refused(make: Make, tmp_path, ids):
    with pytest.raises(Exception, match="example ids from 0 to 11, got"):
        make(tmp_path, CONTENT, 0).batch(np.array(ids))


@every_kind
def test_the_digest_is_the_contents_and_not_the_places(make: Make, tmp_path):
    digest = make(tmp_path / "here", CONTENT, 0).digest
    assert make(tmp_path / "there", CONTENT, 2).digest == digest


@every_kind
@pytest.mark.parametrize(
    "changed",
    [CONTENT.with_pixel(5), CONTENT.with_label(7, 2), CONTENT.swapped(4, 5)],
    ids=["pixel", "label", "order"],
)
def test_the_digest_changes_with_a_pixel_a_label_and_the_order(make: Make, tmp_path, changed):
    digest = make(tmp_path / "here", CONTENT, 0).digest
    assert make(tmp_path / "there", changed, 0).digest != digest


@every_kind
def test_all_can_be_read_and_is_told_to_the_last(make: Make, tmp_path):
    told: list[int] = []
    assert make(tmp_path, CONTENT, 0).unreadable(np.arange(3, 12), progress=told.append) == {}
    assert sum(told) == 9


@every_kind
def test_nothing_is_left_behind_when_it_is_dropped_half_read(make: Make, tmp_path, monkeypatch):
    _drop_half_read(make(tmp_path / "first", CONTENT, 2))  # libraries open files of their own once
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    descriptors = _open_files()
    _drop_half_read(make(tmp_path / "again", CONTENT, 2))
    assert multiprocessing.active_children() == []
    assert list(temporary.iterdir()) == []
    # A queue's thread closes its pipe in its own time.
    until = time.monotonic() + 10
    while _open_files() > descriptors and time.monotonic() < until:
        time.sleep(0.01)
    assert _open_files() <= descriptors


def _drop_half_read(dataset: Dataset) -> None:
    state = torch.get_rng_state()
    batches = dataset.batches([np.array([i]) for i in range(12)])
    assert next(batches).ids.tolist() == [0]
    batches.close()
    assert torch.equal(torch.get_rng_state(), state)


@every_kind
def test_what_it_is_called_is_what_it_was_named(make: Make, tmp_path):
    assert make(tmp_path, CONTENT, 0).name == "mine"


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
