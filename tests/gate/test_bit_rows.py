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
from gibbon.gate.bit_rows import Bits, pack, unpack, unpack_by_position


@st.composite
def many_rows(draw: st.DrawFn) -> list[NDArray[np.bool_]]:
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    size, count = draw(st.integers(1, 1500)), draw(st.integers(0, 5))
    shares = draw(st.lists(st.sampled_from([0, 0.001, 0.3, 1]), min_size=count, max_size=count))
    return [generator.random(size) < share for share in shares]


@given(many_rows(), st.integers(0, 3))
def test_what_is_packed_is_unpacked(rows: list[NDArray[np.bool_]], known: int) -> None:
    named: dict[str, Bits] = {f"row {place}": row for place, row in enumerate(rows)}
    before = dict(list(named.items())[:known])
    after = dict(list(named.items())[known:])
    texts = pack(after, before=before)
    for order in (texts, dict(reversed(texts.items()))):
        read = unpack(order, len(rows[0]) if rows else 0, before=before)
        assert list(read) == list(order)
        assert {key: row.tolist() for key, row in read.items()} == {
            key: row.tolist() for key, row in after.items()
        }


def test_a_row_that_is_like_an_earlier_one_takes_little() -> None:
    noise = np.random.default_rng(0).random(10_000) < 0.5
    changed = noise.copy()
    changed[::500] ^= True
    texts = pack({"first": noise, "second": changed})
    assert len(texts["second"]) < 60 < 1_000 < len(texts["first"])


WHOLE = pack({"row": np.ones(30, dtype=np.bool_)})["row"]
DAMAGED = [
    ":\x00",
    ":abc",
    WHOLE[:-1],
    WHOLE,  # more bits than there are
    ":" + base64.b85encode(zlib.compress(bytes(10**6))).decode(),
    "!",
    "",
]


@pytest.mark.parametrize("text", ["another:0{{", "row:0{{", *DAMAGED])
def test_damage_is_reported(text: str) -> None:
    with pytest.raises(RecordError, match="damaged"):
        unpack({"row": text}, 10)


def test_rows_that_differ_from_each_other_are_damage() -> None:
    with pytest.raises(RecordError, match="damaged: the row 'one' differs from itself"):
        unpack({"one": "two:0{{", "two": "one:0{{"}, 10)


@pytest.mark.parametrize("text", ["3:0{{", "0:0{{", "-1:0{{", *DAMAGED])
def test_damage_of_rows_by_position_is_reported(text: str) -> None:
    with pytest.raises(RecordError, match="damaged"):
        unpack_by_position([text], 10)
