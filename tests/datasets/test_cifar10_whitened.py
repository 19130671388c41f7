"""Re-compressed CIFAR-10 from made-up pictures, and whitening against its definition."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gibbon.core.errors import DatasetError
from gibbon.core.threat import Bounds
from gibbon.datasets import DATASETS, DataRequest
from gibbon.datasets.registered import cifar10_whitened
from gibbon.datasets.registered.whitening import (
    FILTER_BIAS,
    SCALE,
    contrast_normalised,
    learn_whitening,
)

SIDE = 32


def picture(seed: int, *, side: int = SIDE) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "jpeg")
    return content.getvalue()


def collection(names: tuple[str, ...] = ("truck/b.jpg", "airplane/z.jpg", "truck/a.jpg")):
    return {
        f"{split}/{name}": picture(k) for split in ("train", "test") for k, name in enumerate(names)
    }


def zipped(folder: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(folder / "cifar10-jpeg.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def unpacked(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / "cifar10-jpeg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def load(folder: Path, name: str = "cifar10-jpeg", *, split="test"):
    return DATASETS.load(name)(DataRequest(split=split, folder=folder, download=False))


@pytest.mark.parametrize("put", [zipped, unpacked])
def test_pictures_come_in_the_order_of_class_and_name_and_say_what_they_are(
    tmp_path: Path, put
) -> None:
    put(tmp_path, collection())
    dataset = load(tmp_path)
    assert dataset.labels.tolist() == [0, 9, 9]
    assert dataset.name == "cifar10-jpeg"
    assert dataset.input_shape == (3, 32, 32)
    assert "compressed again" in dataset.notes[0]
    with Image.open(io.BytesIO(picture(2))) as second:
        expected = np.asarray(second).transpose(2, 0, 1)
    np.testing.assert_array_equal(dataset.pixels[1], expected)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, r"no pictures in test/<class>/"),
        ({"test/truck/a.jpg": b"text"}, r"test/truck/a\.jpg: damaged picture"),
        ({"test/truck/a.jpg": picture(0, side=16)}, "expected 32 x 32 pixels, got 16 x 16"),
        ({"test/lorry/a.jpg": picture(0)}, "unknown class; expected one of airplane"),
    ],
)
def test_what_is_no_cifar10_is_told(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    zipped(tmp_path, files)
    with pytest.raises(DatasetError, match=says):
        load(tmp_path)


def test_a_missing_or_damaged_collection_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cifar10-jpeg\.zip nor .*--data-dir"):
        load(tmp_path)
    (tmp_path / "cifar10-jpeg.zip").write_bytes(b"no archive")
    with pytest.raises(DatasetError, match="damaged archive"):
        load(tmp_path)


def test_a_member_that_unpacks_to_more_than_a_picture_is_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cifar10-jpeg.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("test/cat/a.jpg", bytes(2 << 20))
    with pytest.raises(DatasetError, match=r"test/cat/a\.jpg: unpacked it takes 2097152 bytes"):
        load(tmp_path)


def test_a_large_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("1", (8000, 8000)).convert("L").save(content, "jpeg", quality=1)
    unpacked(tmp_path, {"test/cat/a.jpg": content.getvalue()[:1000]})  # no pixels follow the head
    with pytest.raises(DatasetError, match="expected 32 x 32 pixels, got 8000 x 8000"):
        load(tmp_path)


def test_another_format_under_the_name_of_a_jpeg_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(content, "eps")
    unpacked(tmp_path, {"test/cat/a.jpg": content.getvalue()})
    with pytest.raises(DatasetError, match=r"a\.jpg: damaged picture"):
        load(tmp_path)


@pytest.mark.parametrize("place", ["content", "method", "encrypted"])
def test_a_damaged_member_is_told(tmp_path: Path, place: str) -> None:
    path = tmp_path / "cifar10-jpeg.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("test/cat/a.jpg", picture(0))
    content = bytearray(path.read_bytes())
    local, central = content.find(b"PK\x03\x04"), content.find(b"PK\x01\x02")
    if place == "content":
        content[60:90] = bytes(each ^ 0x5A for each in content[60:90])
    elif place == "method":
        content[local + 8] = content[central + 10] = 97
    else:
        content[local + 6] |= 1
        content[central + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"cifar10-jpeg\.zip: damaged archive"):
        load(tmp_path)


def test_contrast_normalised_rows_have_mean_zero_and_one_length() -> None:
    rows = torch.rand(5, 30, generator=torch.Generator().manual_seed(0))
    normal = contrast_normalised(rows)
    torch.testing.assert_close(normal.mean(1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.norm(dim=1), torch.full((5,), SCALE))
    torch.testing.assert_close(contrast_normalised(255 * rows), normal, atol=1e-3, rtol=0)
    assert bool((contrast_normalised(torch.full((1, 30), 0.5)) == 0).all())


def test_whitening_gives_each_direction_the_variance_that_its_bias_leaves() -> None:
    random = torch.Generator().manual_seed(0)
    mix = torch.randn(12, 12, generator=random)
    inputs = torch.randn(400, 12, generator=random) @ mix
    whitening = learn_whitening(torch.split(inputs, 150))
    torch.testing.assert_close(whitening.matrix, whitening.matrix.T)
    rows = contrast_normalised(inputs).double()
    variances, vectors = torch.linalg.eigh(torch.cov(rows.T, correction=0))
    white = whitening(inputs).double()
    torch.testing.assert_close(white.mean(0), torch.zeros(12).double(), atol=1e-3, rtol=0)
    # In the directions of the covariance, variance v becomes v / (v + bias), and nothing turns.
    expected = variances.clamp(min=0) / (variances.clamp(min=0) + FILTER_BIAS)
    found = torch.cov((white @ vectors).T, correction=0)
    torch.testing.assert_close(found, torch.diag(expected), atol=2e-3, rtol=0)
    cosine = torch.nn.functional.cosine_similarity(white @ vectors, (rows - rows.mean(0)) @ vectors)
    assert float(cosine.min()) > 0


def test_the_whitening_is_learnt_once_from_the_training_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10_whitened, "learn_whitening", counted := Counted())
    monkeypatch.setattr(cifar10_whitened, "BOUNDS", Bounds(-1000.0, 1000.0))
    zipped(tmp_path, collection())
    test, training = (
        load(tmp_path, "cifar10-jpeg-whitened", split=split) for split in ("test", "train")
    )
    assert counted.calls == 1
    assert test.notes == training.notes != ()
    assert test.labels.tolist() == [0, 9, 9]
    ids = np.array([2, 0])
    raw = load(tmp_path).batch(ids).inputs
    expected = 2 * (contrast_normalised(raw.flatten(1)) - 1)
    torch.testing.assert_close(test.batch(ids).inputs.flatten(1), expected)
    assert test.batch(np.array([], dtype=np.int64)).inputs.shape == (0, 3, 32, 32)
    assert test.digest == training.digest  # made-up splits hold the same pictures
    assert test.digest != load(tmp_path).digest

    (kept,) = tmp_path.glob("whitening-*.npy")
    whole = kept.read_bytes()
    damaged = (whole[:100], b"PK\x03\x04", whole.replace(b"}", b" ", 1))
    for calls, content in enumerate(damaged, start=2):
        kept.write_bytes(content)
        load(tmp_path, "cifar10-jpeg-whitened")
        assert counted.calls == calls
        assert kept.read_bytes() == whole


def test_what_leaves_the_bounds_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10_whitened, "learn_whitening", Counted())
    monkeypatch.setattr(cifar10_whitened, "BOUNDS", Bounds(-0.1, 0.1))
    zipped(tmp_path, collection())
    with pytest.raises(DatasetError, match="its pictures are not CIFAR-10"):
        load(tmp_path, "cifar10-jpeg-whitened").batch(np.array([0]))


class Counted:
    """A whitening that doubles what is above 1, and counts how often it is learnt."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, batches):
        self.calls += 1
        assert sum(len(batch) for batch in batches) == 3
        width = 3 * SIDE * SIDE
        return cifar10_whitened.Whitening(torch.ones(width), 2 * torch.eye(width))
