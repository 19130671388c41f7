from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tools.docs.seeds_table import seeds_table

TRAININGS = Path(__file__).parents[2] / "results" / "trainings"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_each_seed_has_a_row_and_the_last_is_their_mean(tmp_path: Path) -> None:
    shutil.copytree(TRAININGS / "maxout" / "seed-0", tmp_path / "maxout" / "seed-10")
    shutil.copytree(TRAININGS / "maxout" / "seed-2", tmp_path / "maxout" / "seed-9")
    second, first, mean = (
        cells(line) for line in seeds_table(tmp_path / "maxout").splitlines()[2:]
    )
    assert first[:5] == ["0", "392", "1.04", "91.3 / 98.9", "185 epochs"]
    assert second[:5] == ["2", "200", "1.12", "89.5 / 98.4", "79 epochs"]
    assert (first[5], second[5], mean[5]) == ("1.11", "1.12", "1.11")
    assert [mean[place] for place in (0, 1, 4)] == ["mean", "", ""]
    exact = [float(row[7].split("/")[0]) for row in (first, second, mean)]
    assert min(exact) > 99
    assert all(len(row) == 8 for row in (first, second, mean))


def test_a_folder_without_seeds_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no folders seed-N"):
        seeds_table(tmp_path)
