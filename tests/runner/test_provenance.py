"""What a run notes about its code changes nothing there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gibbon.runner.counting import provenance

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_index_of_a_repository_is_not_written(tmp_path: Path) -> None:
    """A process that is killed while it writes the index would leave a lock behind."""

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "code.py").write_text("1")
    git("add", "code.py")
    index = tmp_path / ".git" / "index"
    os.utime(tmp_path / "code.py", (1, 1))  # so that git would refresh what it knows of the file
    before = index.read_bytes()
    assert "code.py" in provenance._git(tmp_path, "status", "--porcelain")
    assert index.read_bytes() == before


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.skipif(not (CHECKOUT / ".git").exists(), reason="needs a checkout")
def test_a_run_in_a_checkout_names_the_commit() -> None:
    commit, dirty = provenance._commit()
    assert commit == provenance._git(CHECKOUT, "rev-parse", "HEAD")
    assert dirty is not None
