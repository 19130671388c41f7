"""The IDX reader: a round trip for every type, and every way for a file to be malformed."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gibbon.core.errors import DatasetError
from gibbon.datasets.registered.idx import ITEM_TYPES, parse_idx, read_file, unzipped

PATH = Path("some-file")
DTYPES = {code: np.dtype(text) for code, text in ITEM_TYPES.items()}
SMALL = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(6))


def read_idx(path: Path) -> np.ndarray:
    return parse_idx(unzipped(read_file(path), path), path)


def written(array: np.ndarray, code: int) -> bytes:
    """An IDX file as its published description says, item by item."""
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    letter = {0x08: "B", 0x09: "b", 0x0B: "h", 0x0C: "i", 0x0D: "f", 0x0E: "d"}[code]
    return header + b"".join(struct.pack(f">{letter}", item) for item in array.ravel().tolist())


@st.composite
def coded_arrays(draw):
    code = draw(st.sampled_from(sorted(ITEM_TYPES)))
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4))
    dtype = DTYPES[code].newbyteorder("=")
    finite = {"allow_nan": False} if dtype.kind == "f" else {}
    return code, draw(arrays.arrays(dtype, shape, elements=finite or None))


@given(coded_arrays())
def test_what_was_written_is_read(coded):
    code, array = coded
    read = parse_idx(written(array, code), PATH)
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    assert read.shape == array.shape
    np.testing.assert_array_equal(read, array)


@given(st.binary(max_size=64))
def test_any_bytes_give_an_array_or_a_dataset_error(content):
    try:
        array = parse_idx(content, PATH)
    except DatasetError:
        return
    header = 4 + 4 * array.ndim
    assert written(array, content[2])[:header] == content[:header]


@given(st.integers(0, len(SMALL) - 1))
def test_every_truncation_is_refused(length):
    with pytest.raises(DatasetError, match=r"some-file: truncated"):
        parse_idx(SMALL[:length], PATH)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (SMALL + b"\0", "trailing bytes: .* holds 6 bytes after its header, found 7"),
        (b"\0\1" + SMALL[2:], "not an IDX file: .* found 00 01 08 02"),
        (b"\0\0\x0a" + SMALL[3:], "not an IDX file: .* found 00 00 0a 02"),
        (b"\0\0\x08\0", "1 to 32 dimensions, found 0"),
        (b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"\7", "1 to 32 dimensions, found 255"),
        (b"\0\0\x08\4" + b"\0\0\0\0" + b"\xff\xff\xff\xff" * 3, "can't be held"),
        (b"\x89PNG\r\n", "not an IDX file"),
        (b"", "truncated: 0 bytes"),
    ],
)
def test_malformed_content_says_what_is_wrong(content, fault):
    with pytest.raises(DatasetError, match=rf"^some-file: .*{fault}"):
        parse_idx(content, PATH)


@pytest.mark.parametrize("name", ["plain", "zipped.gz", "zipped-without-suffix"])
def test_a_file_is_read_plain_or_zipped(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(SMALL if name == "plain" else gzip.compress(SMALL, mtime=0))
    np.testing.assert_array_equal(read_idx(path), np.arange(6).reshape(2, 3))


def flip_last_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (SMALL, "is not gzip: expected to start with 1f8b, found 0000"),
        (b"", "is not gzip: .* found an empty file"),
        (gzip.compress(SMALL, mtime=0)[:-9], "damaged gzip file"),
        (gzip.compress(SMALL, mtime=0) + b"more", "damaged gzip file"),
        (flip_last_byte(gzip.compress(SMALL, mtime=0)), "damaged gzip file"),
        (gzip.compress(SMALL, mtime=0)[:12] + b"\xff" * 8, "damaged gzip file"),
        (gzip.compress(SMALL[:-1], mtime=0), "truncated"),
    ],
)
def test_a_damaged_zipped_file_is_named(tmp_path, content, fault):
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=fault) as raised:
        read_idx(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_a_file_that_is_not_there_or_is_a_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match="absent: no such file"):
        read_idx(tmp_path / "absent")
    with pytest.raises(DatasetError, match=f"{tmp_path}: can't be read: Is a directory"):
        read_idx(tmp_path)
