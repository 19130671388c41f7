"""Pictures in files: prepared as torchvision does, checked by their headers, read ahead."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from made_up_pictures import CLASSES, made_up, picture_of, write_folder
from PIL import Image
from torchvision.transforms import v2

from gibbon.core.errors import DatasetError
from gibbon.datasets import DataRequest
from gibbon.datasets import image_dataset as pictures
from gibbon.datasets import prefetch as reading
from gibbon.datasets.image_dataset import ImageDataset
from gibbon.datasets.image_resize import prepare
from gibbon.datasets.image_transforms import Preparation, read_header
from gibbon.datasets.open import open_dataset
from gibbon.specs.suite import DatasetSpec

RNG = np.random.default_rng(0)


def smooth(height: int, width: int, *, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write(root: Path, files: dict[str, Image.Image], **options) -> Path:
    """Pictures in class folders a and b; a second class is added where there is one only."""
    for name, picture in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, **options)
    return root


def opened(root: Path, *, workers: int | None = 0, **spec) -> ImageDataset:
    request = DataRequest(folder=root.parent / "cache", workers=workers)
    dataset = open_dataset(DatasetSpec(name="photos", source=str(root), **spec), request)
    assert isinstance(dataset, ImageDataset)
    return dataset


def everything(dataset) -> torch.Tensor:
    return dataset.batch(np.arange(len(dataset))).inputs


# How torchvision's own pipelines make inputs.


@pytest.mark.parametrize(
    ("options", "transforms"),
    [
        ({"resize": 64, "crop": 56}, [v2.Resize(64), v2.CenterCrop(56)]),
        ({"resize": (50, 41), "crop": (31, 40)}, [v2.Resize((50, 41)), v2.CenterCrop((31, 40))]),
        ({"resize": (40, 30)}, [v2.Resize((40, 30))]),
        ({"crop": 57}, [v2.CenterCrop(57)]),
        *(
            (
                {"resize": 150, "crop": 113, "interpolation": how},
                [v2.Resize(150, interpolation=v2.InterpolationMode(how)), v2.CenterCrop(113)],
            )
            for how in ("nearest", "bilinear", "bicubic", "lanczos")
        ),
    ],
)
def test_inputs_are_what_torchvisions_own_pipeline_makes(tmp_path, options, transforms):
    sizes = [(75, 101), (101, 75), (80, 80), (97, 60)]
    files = {f"{'ab'[k % 2]}/{k}.jpg": smooth(*size, seed=k) for k, size in enumerate(sizes)}
    root = write(tmp_path / "photos", files, quality=90)
    theirs = v2.Compose([*transforms, v2.ToImage()])
    expected = [theirs(picture) for picture, _ in torchvision.datasets.ImageFolder(root)]
    inputs = everything(opened(root, **options))
    assert torch.equal(inputs, torch.stack(expected).float() / 255)
    # ToDtype multiplies by the rounded 1 / 255 where we divide by 255: a unit in the last place.
    scaled = torch.stack([v2.ToDtype(torch.float32, scale=True)(each) for each in expected])
    torch.testing.assert_close(inputs, scaled, rtol=2e-7, atol=0)


def test_labels_and_order_are_those_of_torchvisions_image_folder(tmp_path):
    root = write_folder(tmp_path / "photos", made_up(20))
    theirs = torchvision.datasets.ImageFolder(root)
    dataset = opened(root)
    assert dataset.labels.tolist() == theirs.targets
    assert list(dataset.classes) == theirs.classes == list(CLASSES)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "PNG", "webp", "jpeg"])
def test_every_kind_of_picture_is_read(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    root = write(tmp_path / "photos", {f"{c}/x.{suffix}": smooth(9, 8) for c in "ab"}, **options)
    theirs = [np.asarray(picture) for picture, _ in torchvision.datasets.ImageFolder(root)]
    ours = (everything(opened(root)) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(ours.numpy(), np.stack(theirs))


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    resize=st.one_of(
        st.none(), st.integers(1, 60), st.tuples(st.integers(1, 60), st.integers(1, 60))
    ),
)
def test_the_size_told_from_the_header_is_the_size_that_comes_out(height, width, resize):
    picture = Image.new("RGB", (width, height))
    preparation = Preparation(resize=resize)
    assert prepare(picture, preparation).shape == (3, *preparation.size(read_header(picture)))


# Colour.

GREY = Image.fromarray(RNG.integers(0, 256, (6, 5), dtype=np.uint8))
COLOUR = picture_of(made_up(1).pixels[0])


def test_grey_pictures_have_one_channel(tmp_path):
    dataset = opened(write(tmp_path / "photos", {f"{c}/x.png": GREY for c in "ab"}))
    assert dataset.input_shape == (1, 6, 5)
    np.testing.assert_array_equal(everything(dataset)[0, 0] * 255, np.asarray(GREY))


def test_grey_among_colour_is_an_error_that_names_one_of_each(tmp_path):
    root = write(tmp_path / "photos", {"a/c.png": COLOUR, "b/g.png": GREY})
    with pytest.raises(DatasetError) as raised:
        opened(root)
    assert str(raised.value) == (
        "dataset 'photos': a/c.png is in colour (RGB), b/g.png is grey (L): choose a conversion, "
        "--colour rgb or --colour grey"
    )


@pytest.mark.parametrize(("colour", "mode", "channels"), [("rgb", "RGB", 3), ("grey", "L", 1)])
def test_a_declared_colour_converts_all(tmp_path, colour, mode, channels):
    root = write(tmp_path / "photos", {"a/c.png": COLOUR, "b/g.png": GREY})
    dataset = opened(root, colour=colour)
    assert dataset.input_shape == (channels, 6, 5)
    for picture, inputs in zip((COLOUR, GREY), everything(dataset), strict=True):
        pixels = np.asarray(picture.convert(mode)).reshape(6, 5, channels)
        np.testing.assert_array_equal(inputs * 255, pixels.transpose(2, 0, 1))
    other = {"rgb": "L converted to RGB", "grey": "RGB converted to L"}[colour]
    assert dataset.notes == (f"1 picture: {other}.",)


def test_palettes_and_cmyk_become_rgb_and_are_noted(tmp_path):
    files = {"a/p.png": COLOUR.quantize(), "b/c.jpg": COLOUR.convert("CMYK"), "b/d.png": COLOUR}
    dataset = opened(write(tmp_path / "photos", files))
    assert dataset.input_shape == (3, 6, 5)
    assert dataset.notes == (
        "1 picture: CMYK converted to RGB.",
        "1 picture: P converted to RGB.",
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_must_be_dropped_by_declaration(tmp_path, mode):
    root = write(tmp_path / "photos", {"a/c.png": COLOUR, "b/t.png": COLOUR.convert(mode)})
    with pytest.raises(DatasetError, match=rf"b/t.png has transparency \({mode}\), a/c.png is in"):
        opened(root)
    dataset = opened(root, colour="rgb")
    note = f"1 picture: {mode} converted to RGB, its transparency dropped."
    assert dataset.notes == (note,)
    expected = np.asarray(COLOUR.convert(mode).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(everything(dataset)[1] * 255, expected)


def test_a_palette_with_transparency_is_converted_without_a_warning(tmp_path):
    picture = COLOUR.quantize(4)
    picture.info["transparency"] = b"\x00\x80\xff\xff"
    root = write(tmp_path / "photos", {"a/c.png": COLOUR, "b/t.png": picture})
    expected = np.asarray(COLOUR.quantize(4).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(everything(opened(root, colour="rgb"))[1] * 255, expected)


@pytest.mark.parametrize("name", ["d.png", "d.tif"])
def test_more_than_eight_bits_a_channel_are_refused(tmp_path, name):
    deep = Image.fromarray(RNG.integers(0, 65536, (6, 5), dtype=np.uint16))
    root = write(tmp_path / "photos", {"a/c.png": COLOUR, f"b/{name}": deep})
    with pytest.raises(DatasetError, match=rf"b/{name} has more than 8 bits a channel .*convert"):
        opened(root, colour="rgb")


@pytest.mark.parametrize("kind", ["P3", "P6"])
def test_a_wide_range_in_a_ppm_file_is_refused(tmp_path, kind):
    root = write(tmp_path / "photos", {"a/c.png": COLOUR, "b/c.png": COLOUR})
    rows = b"1000 2000 3000\n" * 30 if kind == "P3" else bytes(180)
    (root / "b" / "d.ppm").write_bytes(f"{kind}\n5 6\n65535\n".encode() + rows)
    with pytest.raises(DatasetError, match=r"b/d\.ppm has more than 8 bits a channel \(RGB\)"):
        opened(root)


@pytest.mark.parametrize("suffix", ["bmp", "png", "tif", "ppm"])
def test_no_width_is_taken_for_a_depth(tmp_path, suffix):
    files = {f"{c}/{width}.{suffix}": smooth(4, width) for c in "ab" for width in (16, 53, 160)}
    assert opened(write(tmp_path / "photos", files), crop=4).input_shape == (3, 4, 4)


def test_sixteen_bits_in_colour_are_refused_though_pillow_would_cut_them_off(tmp_path):
    root = write(tmp_path / "photos", {"a/c.png": COLOUR, "b/c.png": COLOUR})
    from struct import pack
    from zlib import compress, crc32

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", crc32(kind + data))

    header = pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(5 * 6) for _ in range(6))
    content = chunk(b"IHDR", header) + chunk(b"IDAT", compress(rows)) + chunk(b"IEND", b"")
    (root / "b" / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(DatasetError, match=r"b/deep\.png has more than 8 bits a channel"):
        opened(root)


def test_an_exif_orientation_is_not_applied_and_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    root = write(tmp_path / "photos", {f"{c}/x.jpg": smooth(9, 7) for c in "ab"}, exif=exif)
    dataset = opened(root)
    assert dataset.input_shape == (3, 9, 7)
    assert dataset.notes == (
        "2 pictures with an EXIF orientation, which is not applied, as in torchvision.",
    )


# Sizes.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            "dataset 'photos': pictures of several sizes: a/x.png is 20 x 30 (height x width), "
            "b/y.png is 24 x 30: give one size for all, such as --resize 256 --crop 224",
        ),
        (
            {"resize": 16},
            "dataset 'photos': pictures of several sizes: a/x.png is 16 x 24 (height x width), "
            "b/y.png is 16 x 20, both with the shorter side resized to 16: add a crop, such as "
            "--crop 16, or resize both sides, --resize HxW",
        ),
        (
            {"crop": (22, 30)},
            "dataset 'photos': a/x.png is 20 x 30, smaller than the crop of 22 x 30: resize to "
            "more (--resize 30) or crop to less",
        ),
        (
            {"resize": 20, "crop": 24},
            "dataset 'photos': a/x.png is 20 x 30 once it is resized, smaller than the crop of "
            "24 x 24: resize to more (--resize 24) or crop to less",
        ),
    ],
)
def test_sizes_that_do_not_go_together_are_told_without_decoding(
    tmp_path, monkeypatch, options, message
):
    root = write(tmp_path / "photos", {"a/x.png": smooth(20, 30), "b/y.png": smooth(24, 30)})
    monkeypatch.setattr(pictures, "prepare", None)
    with pytest.raises(DatasetError) as raised:
        opened(root, **options)
    assert str(raised.value) == message


# Pictures that can't be read.


def damaged(root: Path) -> Path:
    """Four of seven pictures: cut off, no picture at all, empty, and a link to nowhere."""
    for k in range(7):
        write(root, {f"{'ab'[k % 2]}/{k}.jpg": smooth(40, 40, seed=k)})
    cut = root / "a" / "2.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    (root / "a" / "4.jpg").write_text("not a picture")
    (root / "b" / "3.jpg").write_bytes(b"")
    (root / "b" / "5.jpg").unlink()
    (root / "b" / "5.jpg").symlink_to(root / "nowhere.jpg")
    return root


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_what_can_not_be_read_is_named_with_the_reason(tmp_path, monkeypatch, workers, kept):
    monkeypatch.setattr(reading, "KEPT_BYTES", kept)
    root = damaged(tmp_path / "photos")
    dataset = opened(root, workers=workers)
    assert len(dataset) == 7
    told: list[int] = []
    found = dataset.unreadable(np.arange(7), progress=told.append)
    assert sum(told) == 7
    assert sorted(found) == [1, 2, 5, 6]  # a: 0 2 4 6, b: 1 3 5
    assert found[1].startswith(f"{root}/a/2.jpg: image file is truncated")
    assert found[2] == f"{root}/a/4.jpg: not a picture that can be decoded"
    assert found[5] == f"{root}/b/3.jpg: not a picture that can be decoded"
    assert found[6] == f"{root}/b/5.jpg: no such file"
    assert dataset.unreadable(np.array([0, 5]), progress=told.append).keys() == {5}
    rest = np.array([0, 3, 4])
    assert dataset.batch(rest).ids.tolist() == [0, 3, 4]
    for bad in found:
        with pytest.raises(DatasetError, match=r"photos/./\d.jpg: .* --skip-unreadable"):
            dataset.batch(np.array([0, bad]))


def test_a_folder_of_nothing_readable_is_refused(tmp_path):
    root = write(tmp_path / "photos", {f"{c}/x.jpg": smooth(9, 9) for c in "ab"})
    for path in root.glob("*/*.jpg"):
        path.write_text("not a picture")
    with pytest.raises(DatasetError, match="has no picture that can be read: not a picture"):
        opened(root)


# What is remembered.


def test_findings_are_kept_and_pictures_are_not_decoded_again(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "photos", made_up())
    first = opened(root)
    digest, found = first.digest, first.unreadable(np.arange(12), progress=lambda count: None)
    monkeypatch.setattr(pictures, "prepare", None)
    monkeypatch.setattr(pictures, "read_header", None)
    again = opened(root)
    assert again.digest == digest
    assert again.unreadable(np.arange(12), progress=lambda count: None) == found == {}


def test_findings_are_not_written_again_where_nothing_is_new(tmp_path):
    root = write_folder(tmp_path / "photos", made_up())
    for _ in range(2):
        opened(root).unreadable(np.arange(12), progress=lambda count: None)
        (remembered,) = (tmp_path / "cache" / "pictures").glob("*.json")
        written = remembered.stat().st_ino  # a file is written by renaming a new one
        opened(root).unreadable(np.arange(12), progress=lambda count: None)
        assert remembered.stat().st_ino == written
        os.utime(root / "ant" / "0001.png", ns=(0, 0))


def alike(tmp_path: Path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """Two folders whose files differ in nothing but pixels: not in size nor in time of change."""
    contents = made_up(seed=1), made_up(seed=2)
    roots = [tmp_path / name for name in ("v1", "v2")]
    for root, content in zip(roots, contents, strict=True):
        for name in CLASSES:
            (root / name).mkdir(parents=True)
        for k, (pixels, label) in enumerate(zip(content.pixels, content.labels, strict=True)):
            path = root / CLASSES[label] / f"{k:04}.bmp"
            picture_of(pixels).save(path)
            os.utime(path, ns=(10**18, 10**18))
    first, second = (sorted(root.glob("*/*.bmp")) for root in roots)
    for one, other in zip(first, second, strict=True):
        assert (one.stat().st_size, one.stat().st_mtime_ns) == (
            other.stat().st_size,
            other.stat().st_mtime_ns,
        )
    return (*roots, contents[0].pixels, contents[1].pixels)


def seen(root: Path) -> tuple[str, torch.Tensor]:
    """What a run makes of a folder: its digest, and the inputs that it evaluates."""
    dataset = opened(root)
    assert dataset.unreadable(np.arange(12), progress=lambda count: None) == {}
    return dataset.digest, (everything(dataset) * 255).round().to(torch.uint8)


def replaced_link(cur: Path, v2: Path) -> None:
    cur.unlink()
    cur.symlink_to(v2)


def replaced_folder(cur: Path, v2: Path) -> None:
    cur.unlink()
    shutil.copytree(v2, cur)  # keeps times


def rewritten_in_place(cur: Path, v2: Path) -> None:
    for path in v2.glob("*/*.bmp"):
        target = cur / path.relative_to(v2)
        with target.open("r+b") as file:
            file.write(path.read_bytes())
        os.utime(target, ns=(10**18, 10**18))


def replaced_links_of_pictures(cur: Path, v2: Path) -> None:
    for path in v2.glob("*/*.bmp"):
        target = cur / path.relative_to(v2)
        target.unlink()
        target.symlink_to(path)


@pytest.mark.parametrize(
    "change", [replaced_link, replaced_folder, rewritten_in_place, replaced_links_of_pictures]
)
def test_the_digest_is_of_the_pictures_that_are_evaluated(tmp_path, change):
    v1, v2, first, second = alike(tmp_path)
    cur = tmp_path / "cur"
    cur.symlink_to(v1)
    digest, inputs = seen(cur)
    np.testing.assert_array_equal(inputs, first)
    change(cur, v2)
    after, inputs = seen(cur)
    np.testing.assert_array_equal(inputs, second)
    assert after != digest
    assert after == seen(v2)[0]


def test_what_a_header_says_is_not_taken_from_another_picture(tmp_path):
    v1, v2, _, _ = alike(tmp_path)
    cur = tmp_path / "cur"
    cur.symlink_to(v1)
    seen(cur)
    for path in v2.glob("*/*.bmp"):
        size = path.stat().st_size
        picture = picture_of(made_up(1, height=4, width=3).pixels[0])
        picture.save(path)
        path.write_bytes(path.read_bytes().ljust(size, b"-"))
        os.utime(path, ns=(10**18, 10**18))
    replaced_link(cur, v2)
    assert opened(cur).input_shape == (3, 4, 3)


@pytest.mark.parametrize("failing", ["file_digest", "read_header", "prepare"])
def test_a_passing_fault_is_forgotten(tmp_path, monkeypatch, failing):
    root = write_folder(tmp_path / "photos", made_up())
    for path in root.glob("*/*.png"):
        os.utime(path, ns=(10**18, 10**18))
    expected = opened(root).digest
    calls: list[object] = []

    def failing_once(*args):
        calls.append(args)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        return original(*args)

    owner = pictures.hashlib if failing == "file_digest" else pictures
    original = getattr(owner, failing)
    with monkeypatch.context() as patch:
        patch.setattr(owner, failing, failing_once)
        if failing == "read_header":
            (remembered,) = (tmp_path / "cache" / "pictures").glob("*.json")
            remembered.unlink()
        (reason,) = opened(root).unreadable(np.arange(12), progress=lambda count: None).values()
    assert reason.endswith("Input/output error")
    again = opened(root)
    assert again.unreadable(np.arange(12), progress=lambda count: None) == {}
    assert again.digest == expected


def test_a_fault_is_found_again(tmp_path):
    root = damaged(tmp_path / "photos")
    found = [opened(root).unreadable(np.arange(7), progress=lambda count: None) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].keys() == {1, 2, 5, 6}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 0, "pictures": {}}', "null"])
def test_damaged_findings_are_as_none(tmp_path, content):
    root = write_folder(tmp_path / "photos", made_up())
    digest = opened(root).digest
    (remembered,) = (tmp_path / "cache" / "pictures").glob("*.json")
    remembered.write_text(content)
    assert opened(root).digest == digest


def test_findings_that_can_not_be_written_are_gone_without(tmp_path):
    root = write_folder(tmp_path / "photos", made_up())
    (tmp_path / "cache").write_text("a file in the way")
    assert len(opened(root).digest) == 64


def test_the_second_pass_reads_nothing(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "photos", made_up())
    dataset = opened(root, workers=2)
    dataset.unreadable(np.arange(12), progress=lambda count: None)
    monkeypatch.setattr(pictures, "prepare", None)
    assert everything(dataset).shape == (12, 3, 6, 5)


# The digest.


def test_the_digest_covers_names_of_classes_and_declared_preparation(tmp_path):
    content = made_up()
    root = write_folder(tmp_path / "photos", content)
    other = write_folder(tmp_path / "others", content, classes=("ant", "bee", "dog"))
    digests = [
        opened(root).digest,
        opened(other).digest,
        opened(root, resize=5).digest,
        opened(root, resize=5, interpolation="bicubic").digest,
        opened(root, crop=5).digest,
        opened(root, colour="rgb").digest,
    ]
    assert len(set(digests)) == len(digests)


# Worker processes.


def test_an_interrupted_reader_leaves_no_process(tmp_path):
    root = write_folder(tmp_path / "photos", made_up(60))
    dataset = opened(root, workers=2)

    def interrupted() -> None:
        for batch in dataset.batches([np.array([i]) for i in range(60)]):
            if batch.ids.item() == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert multiprocessing.active_children() == []


SPAWNED = """
import multiprocessing, sys
import numpy as np
from pathlib import Path
from gibbon.datasets import DataRequest
from gibbon.datasets.open import open_dataset
from gibbon.specs.suite import DatasetSpec

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    root, cache = sys.argv[1:]
    request = DataRequest(folder=Path(cache), workers=1)
    dataset = open_dataset(DatasetSpec(name="x", source=root), request)
    print(sum(len(batch.ids) for batch in dataset.batches([np.arange(5), np.arange(5, 12)])))
"""


@pytest.mark.slow
def test_workers_need_not_be_forked(tmp_path):
    root = write_folder(tmp_path / "photos", made_up())
    script = tmp_path / "script.py"
    script.write_text(SPAWNED)
    command = [sys.executable, "-W", "error", str(script), str(root), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert (done.stdout, done.stderr, done.returncode) == ("12\n", "", 0)


MEASURED = """
import resource, sys
import numpy as np
from pathlib import Path
from gibbon.datasets import DataRequest, prefetch as reading
from gibbon.datasets.open import open_dataset
from gibbon.specs.suite import DatasetSpec

reading.KEPT_BYTES = 64 << 20
root, cache, workers = sys.argv[1:]
request = DataRequest(folder=Path(cache), workers=int(workers))
dataset = open_dataset(DatasetSpec(name="x", source=root), request)
ids = np.arange(len(dataset))
assert not dataset.unreadable(ids[:64], progress=lambda count: None)
next(dataset.batches([ids[:64]]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dataset.unreadable(ids, progress=lambda count: None)
total = sum(len(batch.ids) for batch in dataset.batches(np.array_split(ids, len(ids) // 16)))
assert total == len(ids)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resource counts in other units")
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_large_folder_never_sits_in_memory(tmp_path, workers):
    content = made_up(30, height=200, width=200)
    root = write_folder(tmp_path / "photos", content)
    for path in sorted(root.glob("*/*.png")):
        for copy in range(100):
            path.with_name(f"{path.stem}-{copy}.png").hardlink_to(path)
    command = [sys.executable, "-c", MEASURED, str(root), str(tmp_path / "cache"), workers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    grown, decoded = int(done.stdout) << 10, 3030 * 3 * 200 * 200
    assert grown < decoded / 2
