"""Galleries: pictures come back as they went in, within a byte, and nothing foreign is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from stored_pictures import gallery, write

from gibbon.records.gallery import (
    gallery_file,
    quantised_change,
    read_gallery,
)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_survives_storage(channels: int, tmp_path: Path) -> None:
    made = gallery(channels)
    write(tmp_path, made)
    read = read_gallery(tmp_path, "cell")
    assert read is not None
    for name, value in vars(made).items():
        again = getattr(read, name)
        if isinstance(value, np.ndarray):
            assert again.dtype == value.dtype
            np.testing.assert_array_equal(again, value)
        else:
            assert again == value


@given(
    arrays.arrays(
        np.float32, (2, 1, 3, 3), elements=st.floats(-2, 2, width=32, allow_subnormal=False)
    )
)
def test_a_change_is_kept_within_half_a_step(change: np.ndarray) -> None:
    stored, scale = quantised_change(change)
    again = stored.astype(np.float64) * scale.reshape(-1, 1, 1, 1) / 127
    assert (np.abs(again - change) <= 0.51 * scale.reshape(-1, 1, 1, 1) / 127 + 1e-9).all()


@pytest.mark.parametrize("high", [1.0, 255.0])
def test_the_three_pictures_are_what_they_are_called(high: float) -> None:
    made = gallery(high=high)
    clean, change, total = made.pictures(0)
    np.testing.assert_array_equal(clean, made.clean[0])
    added = made.change[0] * float(made.scale[0]) / 127 / high * 255
    np.testing.assert_allclose(total, np.clip(clean + added, 0, 255), atol=0.51)
    assert change.min() <= 1 or change.max() >= 254  # its largest size is black or white
    _, none, same = made.pictures(2)
    assert (none == 128).all()
    np.testing.assert_array_equal(same, made.clean[2])


def test_what_leaves_the_bounds_is_told_from_rounding() -> None:
    made = gallery()
    assert not made.beyond(2)
    dark = replace(made, clean=np.zeros_like(made.clean))
    assert dark.beyond(0)


def test_smaller_pictures_are_known_to_be() -> None:
    assert not gallery().smaller
    assert replace(gallery(), shape=(600, 500)).smaller


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY"])
def test_a_damaged_file_is_made_again(content: bytes, tmp_path: Path) -> None:
    write(tmp_path, gallery())
    gallery_file(tmp_path, "cell").write_bytes(content)
    assert read_gallery(tmp_path, "cell") is None


def test_a_flipped_byte_is_told_wherever_it_is(tmp_path: Path) -> None:
    write(tmp_path, gallery())
    path = gallery_file(tmp_path, "cell")
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x5A]) + content[place + 1 :])
        read_gallery(tmp_path, "cell")


@pytest.mark.parametrize(
    "changes",
    [
        {"label": np.zeros(2, dtype=np.int32)},
        {"clean": np.zeros((3, 1, 6), dtype=np.uint8)},
        {"clean": np.zeros((3, 2, 6, 5), dtype=np.uint8)},
        {"change": np.zeros((3, 1, 5, 6), dtype=np.int8)},
        {"change": np.zeros((3, 1, 6, 5), dtype=np.float64)},
        {"high": 0.0},
    ],
)
def test_arrays_that_do_not_belong_together_are_not_taken(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    write(tmp_path, replace(gallery(), **changes))
    assert read_gallery(tmp_path, "cell") is None


def test_a_copy_under_another_name_is_not_taken(tmp_path: Path) -> None:
    write(tmp_path, gallery())
    gallery_file(tmp_path, "cell").rename(gallery_file(tmp_path, "another"))
    assert read_gallery(tmp_path, "another") is None
    assert read_gallery(tmp_path, "cell") is None
