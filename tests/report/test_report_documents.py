"""The command `report`: which run is meant, what is written where, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from made_up import made_up_record

from gibbon.cli import app as cli
from gibbon.core.errors import RunFolderError, UnknownNameError
from gibbon.report.documents import run_folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "runs"
    for name, status in (("made-up", "failed"), ("good", "done")):
        (folder / name).mkdir(parents=True)
        record = made_up_record().model_copy(update={"status": status})
        if status == "done":
            record = record.model_copy(update={"failures": ()})
        record.write(folder / name)
    return folder


def ended(*words: str) -> int | str | None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gibbon", "report", *words])
        with pytest.raises(SystemExit) as leaving:
            cli.main()
    return leaving.value.code


def test_a_run_is_a_folder_or_a_name(runs: Path) -> None:
    assert run_folder("good", runs=runs) == runs / "good"
    assert run_folder(str(runs / "good"), runs=runs) == runs / "good"
    assert run_folder(str(runs / "good" / "run.json"), runs=runs) == runs / "good"


def test_what_is_no_run_is_told(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'good'"):
        run_folder("goood", runs=runs)
    with pytest.raises(RunFolderError, match=r"with a run\.json in it"):
        run_folder(str(tmp_path), runs=runs)
    with pytest.raises(RunFolderError, match="holds no run"):
        run_folder("good", runs=tmp_path / "nowhere")


def test_it_is_written_beside_the_run_or_where_one_says(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ended("good") == 0
    assert (runs / "good" / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert ended("good", "--latex") == 0
    assert "\\toprule" in (runs / "good" / "report.tex").read_text()
    assert ended("good", "--markdown", "--output", "new/folder/page.md") == 0
    page = (tmp_path / "new" / "folder" / "page.md").read_text()
    assert page.index("## Failures and flags") < page.index("## Headline")
    capsys.readouterr()
    assert ended("good", "--markdown", "--output", "-") == 0
    assert capsys.readouterr().out == page


def test_a_run_with_failed_cells_is_written_and_ends_with_1(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(str(runs / "made-up")) == 1
    assert (runs / "made-up" / "report.html").exists()
    assert "failed: mnist, broken, fgsm" in capsys.readouterr().err


def test_a_wrong_request_ends_with_2(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ended("nothing-of-that-name") == 2
    assert "unknown run 'nothing-of-that-name'" in " ".join(capsys.readouterr().err.split())
    assert ended("good", "--latex", "--markdown") == 2
    assert ended("good", "--output", str(runs / "good" / "run.json" / "page.html")) == 2


def test_no_torch_and_no_matplotlib_is_needed(runs: Path) -> None:
    script = (
        "import sys\n"
        "from gibbon.cli import app as cli\n"
        f"sys.argv = ['gibbon', 'report', {str(runs / 'good')!r}]\n"
        "try:\n    cli.main()\n"
        "finally:\n"
        "    print(sorted({'torch', 'torchvision', 'matplotlib'} & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
