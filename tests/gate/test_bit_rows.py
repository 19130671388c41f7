"""Rows of bits as text: nothing is lost, and damage is reported."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gibbon.core.errors import RecordError
from gibbon.gate.bit_rows import pack, unpack


@st.composite
def many_rows(draw: st.DrawFn) -> list[NDArray[np.bool_]]:
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    size, count = draw(st.integers(1, 1500)), draw(st.integers(0, 5))
    shares = draw(st.lists(st.sampled_from([0, 0.001, 0.3, 1]), min_size=count, max_size=count))
    return [generator.random(size) < share for share in shares]


@given(many_rows(), st.integers(0, 3))
def test_what_is_packed_is_unpacked(rows: list[NDArray[np.bool_]], known: int) -> None:
    before, after = rows[:known], rows[known:]
    read = unpack(pack(after, before=before), len(rows[0]) if rows else 0, before=before)
    assert [row.tolist() for row in read] == [row.tolist() for row in after]


def test_a_row_that_is_like_an_earlier_one_takes_little() -> None:
    noise = np.random.default_rng(0).random(10_000) < 0.5
    changed = noise.copy()
    changed[::500] ^= True
    first, second = pack([noise, changed])
    assert len(second) < 60 < 1_000 < len(first)


@pytest.mark.parametrize(
    "text",
    [
        "3:0{{",  # differs from a row that is not there
        "0:0{{",  # from itself
        "-1:0{{",
        ":\x00",
        ":abc",
        pack([np.ones(30, dtype=np.bool_)])[0][:-1],
        pack([np.ones(30, dtype=np.bool_)])[0],  # more bits than there are
        ":" + base64.b85encode(zlib.compress(bytes(10**6))).decode(),
        "!",
        "",
    ],
)
def test_damage_is_reported(text: str) -> None:
    with pytest.raises(RecordError, match="damaged"):
        unpack([text], 10)
