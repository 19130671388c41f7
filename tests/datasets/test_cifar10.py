"""CIFAR-10 from made-up files of both versions; nothing unverified is ever unpickled."""

import hashlib
import io
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision

from gibbon.core.errors import DatasetError
from gibbon.datasets import DATASETS, DataRequest
from gibbon.datasets.registered import cifar10

RECORDS = 3  # a file; the published ones hold 10,000
NAMES = (*cifar10.FILES["train"], *cifar10.FILES["test"])
PIXELS = {
    name: np.random.default_rng(k).integers(0, 256, (RECORDS, 3072), dtype=np.uint8)
    for k, name in enumerate(NAMES)
}
LABELS = {name: [k, 9, (2 * k) % 10] for k, name in enumerate(NAMES)}


def binary(name: str) -> bytes:
    rows = zip(LABELS[name], PIXELS[name], strict=True)
    return b"".join(bytes([label]) + row.tobytes() for label, row in rows)


def pickled(name: str) -> bytes:
    return pickle.dumps({"labels": LABELS[name], "data": PIXELS[name]}, protocol=2)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def with_sums_of(version: cifar10.Version, content) -> cifar10.Version:
    return replace(version, md5={name: md5(content(name)) for name in NAMES})


BINARY, PYTHON = with_sums_of(cifar10.BINARY, binary), with_sums_of(cifar10.PYTHON, pickled)
both_versions = pytest.mark.parametrize(
    ("version", "content"), [(BINARY, binary), (PYTHON, pickled)], ids=["binary", "python"]
)


@pytest.fixture(autouse=True)
def made_up_sums(monkeypatch):
    monkeypatch.setattr(cifar10, "VERSIONS", (BINARY, PYTHON))


def no_network(folder: Path, *, download: bool) -> None:
    raise URLError(OSError(-2, "Name or service not known"))


def write(folder: Path, version: cifar10.Version, content, names=NAMES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}{version.suffix}").write_bytes(content(name))


def write_archive(folder: Path, version: cifar10.Version, content, names=NAMES) -> Path:
    with tarfile.open(folder / version.archive, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(f"{version.folder}/{name}{version.suffix}")
            member.size = len(content(name))
            tar.addfile(member, io.BytesIO(content(name)))
    return folder / version.archive


def load(folder: Path, split="test", *, download=False):
    request = DataRequest(split=split, folder=folder, download=download)
    return DATASETS.load("cifar10")(request)


def assert_made_up(dataset, split):
    names = cifar10.FILES[split]
    assert (dataset.name, dataset.input_shape) == ("cifar10", (3, 32, 32))
    assert dataset.labels.tolist() == [label for name in names for label in LABELS[name]]
    expected = np.concatenate([PIXELS[name] for name in names])
    np.testing.assert_array_equal(dataset.pixels.reshape(len(dataset), 3072), expected)


@both_versions
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("place", ["sub-folder", "bare", "archive"])
def test_both_versions_are_found_in_every_place(tmp_path, place, version, content, split):
    if place == "archive":
        write_archive(tmp_path, version, content)
    else:
        write(tmp_path / version.folder if place == "sub-folder" else tmp_path, version, content)
    assert_made_up(load(tmp_path, split), split)


def test_both_versions_have_one_digest(tmp_path):
    write(tmp_path / "binary", BINARY, binary)
    write(tmp_path / "python", PYTHON, pickled)
    assert load(tmp_path / "binary").digest == load(tmp_path / "python").digest


@pytest.mark.parametrize("split", ["train", "test"])
def test_examples_and_ids_are_torchvisions(tmp_path, split):
    write(tmp_path / PYTHON.folder, PYTHON, pickled)
    names = pickle.dumps({"label_names": list(cifar10.CLASSES)})
    (tmp_path / PYTHON.folder / "batches.meta").write_bytes(names)

    class MadeUp(torchvision.datasets.CIFAR10):
        train_list = tuple((name, PYTHON.md5[name]) for name in cifar10.FILES["train"])
        test_list = tuple((name, PYTHON.md5[name]) for name in cifar10.FILES["test"])
        meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(names)}  # noqa: RUF012

    theirs, ours = MadeUp(tmp_path, train=split == "train"), load(tmp_path, split)
    assert tuple(theirs.classes) == ours.classes
    assert list(theirs.targets) == ours.labels.tolist()
    np.testing.assert_array_equal(theirs.data.transpose(0, 3, 1, 2), ours.pixels)


def test_published_sums_are_torchvisions():
    theirs = torchvision.datasets.CIFAR10
    assert dict(theirs.train_list + theirs.test_list) == cifar10.PYTHON.md5


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("place", ["sub-folder", "archive"])
def test_a_foreign_pickle_is_refused_before_it_runs(tmp_path, place):
    trap, sprung = pickle.dumps(Trap(tmp_path / "sprung")), tmp_path / "sprung"
    folder = tmp_path / "data"
    if place == "archive":
        folder.mkdir()
        write_archive(folder, PYTHON, lambda _: trap, names=["test_batch"])
    else:
        write(folder / PYTHON.folder, PYTHON, lambda _: trap, names=["test_batch"])
    with pytest.raises(DatasetError, match=f"test_batch: damaged: expected MD5 .* {md5(trap)}"):
        load(folder)
    assert not sprung.exists()
    pickle.loads(trap)  # noqa: S301
    assert sprung.exists()  # the trap works


@both_versions
def test_a_damaged_file_is_named(tmp_path, version, content):
    write(tmp_path / version.folder, version, content)
    path = tmp_path / version.folder / f"data_batch_4{version.suffix}"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"damaged: expected MD5 .* found .* delete") as raised:
        load(tmp_path, "train")
    assert str(raised.value).startswith(f"{path}: ")
    assert_made_up(load(tmp_path, "test"), "test")


@both_versions
def test_a_damaged_archive_is_named(tmp_path, version, content):
    archive = write_archive(tmp_path, version, content)
    whole = archive.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not an archive", whole[:-2000] + b"0" * 2000):
        archive.write_bytes(damaged)
        with pytest.raises(DatasetError, match="damaged") as raised:
            load(tmp_path)
        assert str(raised.value).startswith(str(archive))


def test_an_archive_without_the_file_is_named(tmp_path):
    archive = write_archive(tmp_path, BINARY, binary, names=["data_batch_1"])
    with pytest.raises(DatasetError, match=r"cifar-10-batches-bin/test_batch.bin") as raised:
        load(tmp_path)
    assert str(raised.value).startswith(f"{archive}: damaged archive")


def test_a_folder_in_the_place_of_a_file_in_an_archive_is_refused(tmp_path):
    with tarfile.open(tmp_path / BINARY.archive, "w:gz") as tar:
        member = tarfile.TarInfo(f"{BINARY.folder}/test_batch.bin")
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
    with pytest.raises(DatasetError, match="is not a file in it"):
        load(tmp_path)


def test_part_of_a_split_is_passed_over(tmp_path):
    write(tmp_path / BINARY.folder, BINARY, binary, names=NAMES[:3])
    write(tmp_path / PYTHON.folder, PYTHON, pickled)
    assert_made_up(load(tmp_path, "train"), "train")


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "data", BINARY, binary)
    assert_made_up(load(Path("~/data")), "test")


def test_without_network_the_error_says_what_was_tried_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", no_network)
    with pytest.raises(DatasetError) as raised:
        load(tmp_path, download=True)
    message = str(raised.value)
    for part in (
        "cifar10: test_batch",
        f"{tmp_path}/cifar-10-batches-bin, {tmp_path}, {tmp_path}/cifar-10-binary.tar.gz, "
        f"{tmp_path}/cifar-10-batches-py, {tmp_path}/cifar-10-python.tar.gz",
        "URLError: <urlopen error [Errno -2] Name or service not known>",
        "put cifar-10-binary.tar.gz or cifar-10-python.tar.gz from "
        f"https://www.cs.toronto.edu/~kriz/cifar.html into {tmp_path}",
        "--data-dir",
    ):
        assert part in message


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", no_network)
    with pytest.raises(DatasetError, match=r"downloading is switched off; put .* --data-dir"):
        load(tmp_path)


def test_a_download_is_kept_without_its_archive_and_found_again(tmp_path, monkeypatch):
    calls = []

    def torchvisions(folder: Path, *, download: bool) -> None:
        calls.append(download)
        write(folder / PYTHON.folder, PYTHON, pickled)
        write_archive(folder, PYTHON, pickled)

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", torchvisions)
    for split in ("test", "train"):
        assert_made_up(load(tmp_path, split, download=True), split)
    assert calls == [True]
    assert [path.name for path in tmp_path.iterdir()] == [PYTHON.folder]


def test_a_download_that_brings_nothing_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", lambda folder, download: None)
    with pytest.raises(DatasetError, match="the download did not bring them; put "):
        load(tmp_path, download=True)
