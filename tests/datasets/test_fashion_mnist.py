"""Fashion-MNIST from made-up files in every place, and the errors where there are none."""

import gzip
import hashlib
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision

from gibbon.core.errors import DatasetError
from gibbon.datasets import DATASETS, DataRequest
from gibbon.datasets.registered import fashion_mnist

LABELS = {"train": bytes([9, 0, 2, 2, 7, 1]), "test": bytes([3, 9, 0, 5])}


def made_up_files() -> dict[str, bytes]:
    files = {}
    for split, (images, labels) in fashion_mnist.FILES.items():
        count = len(LABELS[split])
        size = count.to_bytes(4, "big")
        pixels = bytes(i % 251 for i in range(count * 784))
        files[images] = b"\0\0\x08\3" + size + b"\0\0\0\x1c" * 2 + pixels
        files[labels] = b"\0\0\x08\1" + size + LABELS[split]
    return files


FILES = made_up_files()


@pytest.fixture(autouse=True)
def made_up_sums(monkeypatch, tmp_path):
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setattr(fashion_mnist, "SHA256", sums)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")


def no_network(folder: Path, *, download: bool) -> None:
    raise URLError(OSError(-2, "Name or service not known"))


def write(folder: Path, *, zipped: bool, only: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        if name.startswith(only):
            place = folder / (f"{name}.gz" if zipped else name)
            place.write_bytes(gzip.compress(content) if zipped else content)


def load(folder: Path, split="test", *, download=False):
    request = DataRequest(split=split, folder=folder, download=download)
    return DATASETS.load("fashion-mnist")(request)


def assert_made_up(dataset, split="test"):
    assert dataset.name == "fashion-mnist"
    assert dataset.input_shape == (1, 28, 28)
    assert dataset.labels.tolist() == list(LABELS[split])
    expected = np.arange(len(dataset) * 784) % 251
    np.testing.assert_array_equal(dataset.pixels.reshape(-1), expected)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("layout", ["mine", "mine/FashionMNIST/raw", "debian"])
def test_files_are_found_in_every_layout(tmp_path, layout, zipped, split):
    write(tmp_path / layout, zipped=zipped)
    assert_made_up(load(tmp_path / "mine", split), split)


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "data", zipped=True)
    assert_made_up(load(Path("~/data")))


def test_a_split_needs_its_own_files_only(tmp_path):
    write(tmp_path, zipped=True, only="t10k")
    assert_made_up(load(tmp_path))
    with pytest.raises(DatasetError, match="train-images-idx3-ubyte and train-labels-idx1-ubyte"):
        load(tmp_path, "train")


def test_half_a_split_is_passed_over(tmp_path):
    write(tmp_path / "mine", zipped=True, only="t10k-images")
    write(tmp_path / "debian", zipped=True)
    assert_made_up(load(tmp_path / "mine"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_named_not_passed_over(tmp_path, zipped):
    write(tmp_path / "debian", zipped=True)
    write(tmp_path / "mine", zipped=zipped)
    path = tmp_path / "mine" / ("t10k-images-idx3-ubyte" + (".gz" if zipped else ""))
    content = bytearray(FILES["t10k-images-idx3-ubyte"])
    content[100] ^= 1
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DatasetError, match=r"damaged: expected SHA-256 .* delete it") as raised:
        load(tmp_path / "mine")
    assert str(raised.value).startswith(f"{path}: ")


def test_without_network_the_error_says_what_was_tried_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", no_network)
    with pytest.raises(DatasetError) as raised:
        load(tmp_path / "mine", download=True)
    message = str(raised.value)
    for part in (
        f"{tmp_path}/mine/FashionMNIST/raw, {tmp_path}/mine, {tmp_path}/debian",
        "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte",
        "URLError: <urlopen error [Errno -2] Name or service not known>",
        f"put t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz from https://github.com/"
        f"zalandoresearch/fashion-mnist into {tmp_path}/mine",
        "Debian package dataset-fashion-mnist",
        "--data-dir",
    ):
        assert part in message
    assert list((tmp_path / "mine").iterdir()) == []


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", no_network)
    with pytest.raises(DatasetError, match=r"downloading is switched off; put .* --data-dir"):
        load(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_download_is_kept_and_found_again(tmp_path, monkeypatch):
    calls = []

    def torchvisions(folder: Path, *, download: bool) -> None:
        calls.append(download)
        write(folder / "FashionMNIST" / "raw", zipped=True)
        write(folder / "FashionMNIST" / "raw", zipped=False)

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", torchvisions)
    for split in ("test", "test", "train"):
        assert_made_up(load(tmp_path / "mine", split, download=True), split)
    assert calls == [True]


def test_a_download_that_brings_nothing_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", lambda folder, download: None)
    with pytest.raises(DatasetError, match="the download did not bring them; put "):
        load(tmp_path, download=True)


def test_class_names_are_torchvisions():
    assert list(fashion_mnist.CLASSES) == torchvision.datasets.FashionMNIST.classes


DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
@pytest.mark.parametrize(("split", "count"), [("train", 6000), ("test", 1000)])
def test_debians_package_holds_the_published_examples(tmp_path, monkeypatch, split, count):
    monkeypatch.undo()
    dataset = load(tmp_path, split)
    assert np.bincount(dataset.labels).tolist() == [count] * 10
    assert dataset.input_shape == (1, 28, 28)
