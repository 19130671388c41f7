"""Results in a notebook: progress, pictures and curves, and the report as a page."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from gibbon import Results, evaluate
from gibbon.core.errors import RunFolderError
from gibbon.runner.run_progress.notebook_progress import NotebookProgress, in_notebook

INPUTS = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(30) % 3


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def measured(**more: object) -> Results:
    settings = {"attack": "fgsm", "epsilon": [0.1, 0.2], "examination": False, "certify": "none"}
    return evaluate(net(), (INPUTS, LABELS), **{**settings, **more})  # type: ignore[arg-type]


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """An IPython whose shell has a kernel."""
    shell = SimpleNamespace(kernel=object(), config={})
    module = ModuleType("IPython")
    module.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)


@pytest.mark.usefixtures("notebook")
def test_a_notebook_shows_progress_and_keeps_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    assert in_notebook()
    shown = measured()
    assert "100 %" in capsys.readouterr().err
    assert any(place.startswith("pictures/") for place in shown.files.contents)
    measured(progress=False)
    assert capsys.readouterr().err == ""


def test_elsewhere_there_is_no_progress_and_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert not in_notebook()
    shown = measured()
    assert capsys.readouterr().err == ""
    assert not any(place.startswith("pictures/") for place in shown.files.contents)


def test_results_are_shown_with_curves_and_pictures() -> None:
    plain = measured()._repr_html_()
    assert plain.count("<img") == 1
    assert 'alt="Error against epsilon"' in plain
    found = measured(pictures=True)
    text = found._repr_html_()
    assert text.count("<img") > 3
    assert "fgsm at ε = 0.2" in text
    assert "fgsm at ε = 0.2" in found.select(epsilon=0.2)._repr_html_()


def test_the_report_is_a_page_that_is_shown_and_saved(tmp_path: Path) -> None:
    found = measured(pictures=True)
    page = found.report(tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8") == page.html
    assert "<h2" in page.html
    frame = page._repr_html_()
    assert frame.startswith("<iframe")
    assert 'sandbox="allow-scripts"' in frame
    assert "<h2" not in frame  # the page is escaped
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError):
        page.save(tmp_path / "file" / "report.html")


def test_results_of_a_folder_report_from_it(tmp_path: Path) -> None:
    found = measured(pictures=True, output=tmp_path / "run")
    assert not found.files.contents
    assert "data:image/png" in found.report().html


def test_notes_and_failures_are_printed_above_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with NotebookProgress() as progress:
        progress.checking(2, of=4, dataset="pictures")
        progress.checking(2, of=4, dataset="pictures")
        progress.start(work=10, cells=1, reused=2)
        progress.advance(5, doing="net, fgsm")
        assert (progress.bar.n, progress.bar.desc) == (5, "net, fgsm")
        progress.note("a note\x1b[31m")
        progress.failed("net, pgd", error="no memory")
    said = capsys.readouterr()
    assert "a note" in said.out
    assert "failed: net, pgd: no memory" in said.out
    assert "\x1b[31m" not in said.out
    assert "1 cell, 2 recorded already" in said.err
