"""Arrays in files: what is taken, what must be declared, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gibbon.core.errors import DatasetError
from gibbon.datasets import array_dataset as held
from gibbon.datasets import array_files as arrays
from gibbon.datasets.array_dataset import HeldDataset
from gibbon.datasets.array_files import open_npy, open_npz

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
FLOATS = BYTES.astype(np.float32) / np.float32(255)
LABELS = np.array([0, 2, 1, 2, 9, 0])


def npz(path, **members):
    np.savez(path / "data.npz", **members)
    return path / "data.npz"


def opened(path, *, inputs=None, labels=None, layout=None):
    return open_npz("mine", path, inputs=inputs, labels=labels, layout=layout)


def refused(path, **options) -> str:
    with pytest.raises(DatasetError) as raised:
        opened(path, **options)
    return str(raised.value)


def test_arrays_are_chosen_by_name_where_several_may_be_meant(tmp_path):
    path = npz(tmp_path, x_train=BYTES[:2], x_test=BYTES, y_train=LABELS[:2], y_test=LABELS)
    listed = (
        "Arrays: x_train uint8 (2, 4, 5, 3); x_test uint8 (6, 4, 5, 3); y_train int64 (2,); "
        "y_test int64 (6,)"
    )
    assert refused(path, layout="NHWC") == (
        f"{path}: several arrays that may be the inputs: name it with inputs.  {listed}"
    )
    assert refused(path, inputs="x_test", layout="NHWC") == (
        f"{path}: several arrays that may be the labels: name it with labels.  {listed}"
    )
    assert refused(path, inputs="xtest") == (
        f"{path}: has no array 'xtest'; did you mean 'x_test'? {listed}"
    )
    dataset = opened(path, inputs="x_test", labels="y_test", layout="NHWC")
    assert dataset.labels.tolist() == LABELS.tolist()
    assert dataset.classes == tuple("0123456789")
    assert dataset.partial


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"x": BYTES}, "no array that may be the labels: name it with labels"),
        ({"y": LABELS}, "no array that may be the inputs: name it with inputs"),
        ({}, "no array that may be the inputs: .*  Arrays: none"),
        ({"x": BYTES, "y": np.array([{}] * 6)}, "no array that may be the labels.* y object"),
    ],
)
def test_files_that_hold_too_little_are_refused(tmp_path, members, fault):
    with pytest.raises(DatasetError, match=fault):
        opened(npz(tmp_path, **members), layout="NHWC")


def test_pickles_are_refused(tmp_path):
    path = npz(tmp_path, x=BYTES, y=np.array([{}] * 6))
    assert refused(path, labels="y", layout="NHWC") == (
        f"{path}: 'y' holds Python objects, a pickle, which can run code when it is loaded: save "
        "plain numbers"
    )


@pytest.mark.parametrize("inputs", [BYTES, BYTES[..., 0]])
def test_the_order_of_axes_is_never_guessed(tmp_path, inputs):
    path = npz(tmp_path, x=inputs, y=LABELS)
    layouts = {3: "NHW", 4: "NCHW or NHWC"}[inputs.ndim]
    assert refused(path) == (
        f"{path}: 'x' has shape {inputs.shape}, and the order of axes is never guessed: declare "
        f"the layout, {layouts}; for inputs that are no pictures declare their bounds instead, "
        "such as --bounds=-1,1"
    )


@pytest.mark.parametrize(
    ("inputs", "layout", "shape"),
    [
        (BYTES, "NHWC", (3, 4, 5)),
        (BYTES.transpose(0, 3, 1, 2), "NCHW", (3, 4, 5)),
        (BYTES[..., 0], "NHW", (1, 4, 5)),
        (BYTES.reshape(6, -1), None, (60,)),
        (np.zeros((6, 13, 9, 9), np.uint8), "NCHW", (13, 9, 9)),
    ],
)
def test_the_layout_says_which_axis_is_which(tmp_path, inputs, layout, shape):
    dataset = opened(npz(tmp_path, x=inputs, y=LABELS), layout=layout)
    assert dataset.input_shape == shape


def test_the_digest_does_not_depend_on_the_layout_in_the_file(tmp_path):
    last = HeldDataset("mine", BYTES, labels=LABELS, layout="NHWC")
    first = HeldDataset("mine", BYTES.transpose(0, 3, 1, 2).copy(), labels=LABELS, layout="NCHW")
    assert last.digest == first.digest


@pytest.mark.parametrize(
    ("inputs", "layout", "message"),
    [
        (BYTES, "NHW", "layout NHW has 3 axes, the inputs have shape (6, 4, 5, 3)"),
        (BYTES[..., 0], "NCHW", "layout NCHW has 4 axes, the inputs have shape (6, 4, 5)"),
        (
            np.zeros((6, 8, 8, 3), np.uint8),
            "NCHW",
            "inputs of shape (6, 8, 8, 3) would have 8 channels in layout NCHW: is it NHWC?",
        ),
        (
            np.zeros((6, 1, 28, 28), np.uint8),
            "NHWC",
            "inputs of shape (6, 1, 28, 28) would have 28 channels in layout NHWC: is it NCHW?",
        ),
    ],
)
def test_a_layout_that_can_not_be_is_refused(inputs, layout, message):
    with pytest.raises(DatasetError) as raised:
        HeldDataset("mine", inputs, labels=LABELS, layout=layout)
    assert str(raised.value) == f"dataset 'mine': {message}"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (FLOATS * 255, "inputs must be in [0, 1], found [0, 255]: divide them by 255, or give "
            "them as uint8"),
        (FLOATS * 2 - 1, "inputs must be in [0, 1], found [-1, 1]: attacks work on pixels: leave "
            "Normalize out of the transform and give mean and std to the model; inputs that are no "
            "pictures: declare bounds, bounds=(-1, 1) (--bounds=-1,1)"),
        (np.where(FLOATS.max() == FLOATS, np.nan, FLOATS), "inputs must be in [0, 1], found NaN"),
        (BYTES.astype(np.int64), "inputs must be uint8, of which 255 stands for 1, or "
            "floating-point in [0, 1], got int64: pictures: convert them to uint8; numbers on a "
            "scale: convert them with .float() and declare their bounds, such as bounds=(0, 100) "
            "(--bounds 0,100); discrete inputs, such as token ids, are not supported: attack the "
            "embeddings. Give the embeddings as inputs, with their bounds, and the network after "
            "the embedding as the model: inputs = network.embedding(ids).detach(), "
            "bounds=(inputs.min().item(), inputs.max().item())"),
        (FLOATS[:, 0, 0, 0], "inputs must have shape (N, ...), got (6,)"),
        (FLOATS[:, :0], "inputs must have shape (N, ...), got (6, 0, 5, 3)"),
    ],
)  # fmt: skip
def test_inputs_that_are_no_pixels_are_refused(inputs, message):
    with pytest.raises(DatasetError) as raised:
        HeldDataset("mine", inputs, labels=LABELS)
    assert str(raised.value) == f"dataset 'mine': {message}"


def test_bounds_are_checked_to_the_last_block(monkeypatch):
    monkeypatch.setattr(held, "BLOCK_BYTES", 100)
    inputs = FLOATS.copy()
    inputs[5, 3, 4, 2] = 1.5
    with pytest.raises(DatasetError, match=r"found \[0, 1.5\]"):
        HeldDataset("mine", inputs, labels=LABELS)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_of_every_width_become_float32(kind):
    dataset = HeldDataset("mine", (BYTES > 99).astype(kind), labels=LABELS)
    batch = dataset.batch(np.array([3, 1]))
    assert batch.inputs.dtype == torch.float32
    np.testing.assert_array_equal(batch.inputs, (BYTES > 99)[[3, 1]])
    single = HeldDataset("mine", (BYTES > 99).astype(np.float32), labels=LABELS)
    assert dataset.digest == single.digest


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:5], "dataset 'mine' has 6 inputs but 5 labels"),
        (LABELS + 0.5, "labels must be integers of shape (N,), got float64 of shape (6,), such as "
            "0.5"),
        (LABELS[:, None], "labels must be integers of shape (N,), got int64 of shape (6, 1): "
            "give labels[:, 0]"),
        (np.array(list("abcdef")), "labels must be integers of shape (N,), got <U1 of shape (6,): "
            "give each the position of its class among the model's, counted from 0"),
        (np.eye(6), "labels must be one class index an example, shape (N,), got shape (6, 6): for "
            "one-hot or soft labels give the index of the largest"),
        (LABELS - 1, "example 0 has label -1: labels are positions among the model's classes, "
            "counted from 0"),
        (LABELS[:0], "dataset 'mine' is empty"),
    ],
)  # fmt: skip
def test_labels_that_are_no_indices_are_refused(labels, message):
    with pytest.raises(DatasetError) as raised:
        HeldDataset("mine", BYTES, labels=labels)
    assert str(raised.value).removeprefix("dataset 'mine': ") == message


def test_the_callers_arrays_are_neither_copied_nor_changed():
    inputs, labels = BYTES.copy(), LABELS.copy()
    dataset = HeldDataset("mine", inputs, labels=labels)
    dataset.batch(np.arange(6)).inputs.zero_()
    np.testing.assert_array_equal(inputs, BYTES)
    labels[0] = 7
    assert labels.flags.writeable
    assert dataset.labels[0] == 0


def test_npy_files_are_mapped(tmp_path):
    np.save(tmp_path / "x.npy", FLOATS)
    np.save(tmp_path / "y.npy", LABELS)
    dataset = open_npy("mine", tmp_path / "x.npy", labels=tmp_path / "y.npy", layout="NHWC")
    np.testing.assert_array_equal(dataset.batch(np.arange(6)).inputs, FLOATS.transpose(0, 3, 1, 2))
    with pytest.raises(DatasetError, match=r"x\.npy has shape .* declare the layout, NCHW or NHWC"):
        open_npy("mine", tmp_path / "x.npy", labels=tmp_path / "y.npy", layout=None)


@pytest.mark.parametrize("name", ["x.npy", "y.npy"])
@pytest.mark.parametrize("content", [b"", b"text", "cut"])
def test_damaged_npy_files_are_named(tmp_path, name, content):
    np.save(tmp_path / "x.npy", FLOATS)
    np.save(tmp_path / "y.npy", LABELS)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-8] if content == "cut" else content)
    with pytest.raises(DatasetError, match=f"{path}: damaged, or not a file of NumPy arrays"):
        open_npy("mine", tmp_path / "x.npy", labels=tmp_path / "y.npy", layout="NHWC")


@pytest.mark.parametrize("limit", [1, arrays.HELD_BYTES])
def test_damaged_npz_files_are_named(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(arrays, "HELD_BYTES", limit)
    path = npz(tmp_path, x=BYTES, y=LABELS)
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"{path}: damaged, or not a file of NumPy .*CRC"):
        opened(path, layout="NHWC")
    path.write_bytes(content[:300])
    with pytest.raises(DatasetError, match=f"{path}: damaged, or not a file of NumPy"):
        opened(path, layout="NHWC")
