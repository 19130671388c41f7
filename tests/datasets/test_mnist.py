"""Embedded MNIST: the published examples, verified, with ids and samples that never change."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from gibbon.core.errors import DatasetError
from gibbon.core.threat import Bounds
from gibbon.datasets import DATASETS, DataRequest
from gibbon.datasets.base import sample_ids
from gibbon.datasets.registered import mnist, mnist_3v7

# Examples by digit, counted from the published label files.
COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
# The first labels of the published files.
FIRST_LABELS = {"train": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "test": [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]}


@pytest.mark.parametrize("split", ["train", "test"])
def test_sizes_and_counts_are_the_published_ones(split):
    dataset = DATASETS.load("mnist")(DataRequest(split=split))
    assert dataset.name == "mnist"
    assert dataset.classes == tuple("0123456789")
    assert dataset.input_shape == (1, 28, 28)
    assert dataset.bounds == Bounds(0.0, 1.0)
    assert len(dataset) == sum(COUNTS[split])
    assert np.bincount(dataset.labels).tolist() == COUNTS[split]
    assert dataset.labels[:10].tolist() == FIRST_LABELS[split]


def test_mean_and_deviation_are_the_well_known_ones():
    parts = np.array_split(mnist.load(DataRequest(split="train")).pixels.reshape(-1), 20)
    counts = sum(np.bincount(part, minlength=256) for part in parts)
    values = np.arange(256) / 255
    mean = np.average(values, weights=counts)
    deviation = np.average((values - mean) ** 2, weights=counts) ** 0.5
    assert (round(mean, 4), round(deviation, 4)) == (0.1307, 0.3081)


def test_inputs_are_float32_in_the_unit_interval():
    dataset = mnist.load(DataRequest())
    batch = dataset.batch(np.arange(500))
    assert batch.inputs.dtype == torch.float32
    assert batch.inputs.shape == (500, 1, 28, 28)
    assert (batch.inputs.min(), batch.inputs.max()) == (0.0, 1.0)


def test_an_example_is_the_same_in_every_batch():
    dataset = mnist.load(DataRequest())
    alone = dataset.batch(np.array([1234]))
    among = dataset.batch(np.array([9999, 1234, 0]))
    assert torch.equal(alone.inputs[0], among.inputs[1])
    assert alone.labels[0] == among.labels[1]


def test_content_is_pinned():
    assert mnist.load(DataRequest()).digest == (
        "cdc21148af41d32c134c1ae2d2c9ba0f5b4405825e1528c4444e05cff9f88f26"
    )


# Golden: a sample that changed would change every limited result that was ever published.
# Derivation: test_array_dataset.py, test_samples_follow_splitmix64_counted_by_hand.
@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("mnist", [1054, 2776, 3095, 4632, 5342, 5894, 6256, 7415, 7921, 9864]),
        ("mnist-3v7", [39, 479, 512, 742, 855, 857, 1054, 1107, 1265, 1560]),
    ],
)
def test_the_sample_of_ten_is_pinned(name, ids):
    dataset = DATASETS.load(name)(DataRequest())
    assert sample_ids(dataset, 10).tolist() == ids
    assert set(dataset.labels[ids]) == set(range(len(dataset.classes)))


def test_the_test_split_reads_no_training_file(tmp_path, monkeypatch):
    for path in mnist.FOLDER.glob("t10k-*"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(mnist, "FOLDER", tmp_path)
    assert len(mnist.load(DataRequest(split="test"))) == 10_000
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte.gz: missing"):
        mnist.load(DataRequest(split="train"))


@pytest.mark.parametrize("name", sorted(mnist.SHA256))
def test_one_flipped_bit_is_found_and_the_file_named(tmp_path, monkeypatch, name):
    folder = tmp_path / "mnist"
    shutil.copytree(mnist.FOLDER, folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    monkeypatch.setattr(mnist, "FOLDER", folder)
    with pytest.raises(DatasetError) as raised:
        mnist.load(DataRequest(split="train" if name.startswith("train") else "test"))
    message = str(raised.value)
    assert message.startswith(f"{folder / name}: damaged: expected SHA-256 {mnist.SHA256[name]}")
    assert ", found " in message
    assert message.endswith(mnist.REMEDY)


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_a_missing_file_is_named(tmp_path, monkeypatch, name):
    folder = tmp_path / "mnist"
    shutil.copytree(mnist.FOLDER, folder)
    (folder / name).unlink()
    monkeypatch.setattr(mnist, "FOLDER", folder)
    with pytest.raises(DatasetError, match="missing: expected a file with SHA-256") as raised:
        mnist.load(DataRequest())
    assert str(folder / name) in str(raised.value)


def test_sums_beside_the_files_are_those_in_the_code():
    lines = (mnist.FOLDER / "SHA256SUMS").read_text().splitlines()
    assert {name: sum_ for sum_, name in map(str.split, lines)} == mnist.SHA256


@pytest.mark.parametrize("split", ["train", "test"])
def test_threes_and_sevens_are_mnists_in_mnists_order(split):
    dataset = DATASETS.load("mnist-3v7")(DataRequest(split=split))
    assert (dataset.name, dataset.classes) == ("mnist-3v7", ("3", "7"))
    assert np.bincount(dataset.labels).tolist() == [COUNTS[split][3], COUNTS[split][7]]
    digits = mnist.load(DataRequest(split=split))
    originals = [i for i in range(2000) if digits.labels[i] in (3, 7)]
    for example, original in enumerate(originals):
        assert dataset.classes[dataset.labels[example]] == str(digits.labels[original])
        assert np.array_equal(dataset.pixels[example], digits.pixels[original])


def test_threes_and_sevens_share_no_digest_with_mnist():
    assert mnist_3v7.load(DataRequest()).digest != mnist.load(DataRequest()).digest


def test_listing_datasets_imports_no_torch():
    code = (
        "import sys; from gibbon.datasets import DATASETS; "
        "print([entry.name for entry in DATASETS.entries()], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("['mnist', 'mnist-3v7', 'fashion-mnist', 'cifar10'")
    assert done.stdout.endswith("False\n")
