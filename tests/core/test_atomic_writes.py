"""Files are written atomically, and waited for where they outlive the process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from gibbon import evaluate
from gibbon.core.files import files_of_this_process, write_atomically


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list with an element for each time that a file was waited for."""
    found = list[int]()
    monkeypatch.setattr(os, "fsync", found.append)
    return found


def test_a_file_is_on_the_disk_before_it_is_renamed(tmp_path: Path, waits: list[int]):
    write_atomically(tmp_path / "one", "content")
    assert len(waits) == 1


def test_files_of_this_process_are_not_waited_for(tmp_path: Path, waits: list[int]):
    with files_of_this_process():
        write_atomically(tmp_path / "one", "content")
    assert not waits
    assert (tmp_path / "one").read_text() == "content"
    write_atomically(tmp_path / "two", "content")
    assert len(waits) == 1


@pytest.mark.parametrize("kept", [True, False])
def test_only_runs_that_are_kept_wait_for_the_disk(tmp_path: Path, waits: list[int], kept: bool):
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    data = torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.long)
    evaluate(module, data, attack="fgsm", epsilon=0.1, output=tmp_path / "out" if kept else None)
    assert bool(waits) is kept
