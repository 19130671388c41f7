"""Illustrations: what was computed once survives storage, and damaged files are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stored_pictures import EVERY

from gibbon.core.errors import RecordError, RunFolderError
from gibbon.records.illustration import (
    FOLDER,
    Illustration,
    Sweep,
    illustrations,
    save_illustration,
)


@pytest.mark.parametrize("made", EVERY, ids=lambda each: each.kind)
def test_it_survives_storage(made: Illustration, tmp_path: Path) -> None:
    save_illustration(made, tmp_path / FOLDER)
    (read,) = illustrations(tmp_path)
    assert type(read) is type(made)
    for name, value in vars(made).items():
        again = getattr(read, name)
        if isinstance(value, np.ndarray):
            assert again.dtype == value.dtype
            np.testing.assert_array_equal(again, value)
        else:
            assert again == value


def test_the_same_illustration_gives_the_same_bytes(tmp_path: Path) -> None:
    first = save_illustration(EVERY[0], tmp_path / "one").read_bytes()
    assert save_illustration(EVERY[0], tmp_path / "two").read_bytes() == first


def test_they_come_in_the_order_of_the_paper(tmp_path: Path) -> None:
    for made in reversed(EVERY):
        save_illustration(made, tmp_path / FOLDER)
    assert [each.kind for each in illustrations(tmp_path)] == [each.kind for each in EVERY]
    assert list(illustrations(tmp_path / "elsewhere")) == []


def test_correct_is_where_its_class_is_largest() -> None:
    sweep = EVERY[3]
    assert isinstance(sweep, Sweep)
    assert sweep.correct.tolist() == [False, True, True, False, True]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"\x80\x04K\x01."])
def test_a_damaged_file_is_told(content: bytes, tmp_path: Path) -> None:
    path = save_illustration(EVERY[0], tmp_path / FOLDER)
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"addition\.npz.*make it again"):
        list(illustrations(tmp_path))


def test_a_flipped_byte_is_told_wherever_it_is(tmp_path: Path) -> None:
    path = save_illustration(EVERY[0], tmp_path / FOLDER)
    content = path.read_bytes()
    told = 0
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x5A]) + content[place + 1 :])
        try:
            list(illustrations(tmp_path))
        except RecordError:
            told += 1
    assert told > len(content) / 6  # not all: a time stamp, say, may be anything


def test_a_file_of_another_kind_is_told(tmp_path: Path) -> None:
    path = save_illustration(EVERY[1], tmp_path / FOLDER)
    path.rename(path.with_name("sweep.npz"))
    with pytest.raises(RecordError, match="no illustration of this version"):
        list(illustrations(tmp_path))


def test_where_it_cant_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFolderError, match="can't be written"):
        save_illustration(EVERY[0], tmp_path / "file")
