"""Every folder of examples/ runs, as its README says."""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from gibbon.gate.baseline import read_side
from gibbon.records.run import RunRecord
from gibbon.specs.decoding import read_suite

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("notebooks/*.ipynb"))


def python(*words: object, cwd: Path, path: Path | None = None) -> str:
    known = os.environ.get("PYTHONPATH", "")
    paths = os.pathsep.join(each for each in (str(path or ""), known) if each)
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_lists_every_folder() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    folders = {each.name for each in EXAMPLES.iterdir() if each.is_dir()}
    assert {name for name in folders if f"[{name}](" not in page} <= {"__pycache__"}


def test_the_script_writes_tables_and_a_report(tmp_path: Path) -> None:
    script = EXAMPLES / "script" / "measure.py"
    said = python(script, "--limit", 20, "--output", tmp_path / "out", cwd=tmp_path)
    assert "pgd at 0.1: " in said
    assert {"report.html", "evaluations.csv"} <= {
        each.name for each in (tmp_path / "out").iterdir()
    }


def test_the_model_with_scores_is_evaluated_by_the_command_of_the_page(tmp_path: Path) -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    command = page.partition("`gibbon evaluate --model examples/model-plugin")[2].partition("`")[0]
    words = ["evaluate", "--model", f"examples/model-plugin{command.split()[0]}"]
    more = ["--limit", 40, "--no-pictures", "--output", tmp_path / "run"]
    python("-m", "gibbon", *words, *shlex.split(command)[1:], *more, cwd=ROOT)
    rows = RunRecord.read(tmp_path / "run").evaluations
    assert [row.attack for row in rows] == ["none", "pgd"]
    assert rows[0].clean_error is not None
    assert rows[0].clean_error < 0.5


def test_the_tests_of_the_plug_in_pass() -> None:
    folder = EXAMPLES / "plugin"
    said = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=folder, path=folder)
    assert "3 passed" in said


def test_the_entry_points_of_the_plug_in_lead_to_its_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = tomllib.loads((EXAMPLES / "plugin" / "pyproject.toml").read_text())["project"]
    monkeypatch.syspath_prepend(EXAMPLES / "plugin")
    for group in project["entry-points"].values():
        for place in group.values():
            module, _, name = place.partition(":")
            assert hasattr(importlib.import_module(module), name)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the repository with a gate."""
    return Path(shutil.copytree(EXAMPLES / "ci", tmp_path / "ci"))


def test_the_repository_with_a_gate_passes_its_own_gate(repository: Path) -> None:
    suite, run = "robustness/suite.toml", "robustness-run"
    few = ["--limit", 100, "--no-pictures"]
    python("-m", "gibbon", "run", suite, "--output", run, *few, cwd=repository)
    python("-m", "gibbon", "baseline", "save", run, "baseline.json", cwd=repository)
    said = python("-m", "gibbon", "compare", "baseline.json", run, cwd=repository)
    assert "5 unchanged" in said
    said = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=repository)
    assert "1 passed" in said


def test_the_committed_baseline_is_of_the_suite() -> None:
    folder = EXAMPLES / "ci" / "robustness"
    (experiment,) = read_suite(str(folder / "suite.toml")).experiments
    keys = [cell.key for cell in read_side(folder / "baseline.json").cells]
    attacks = {each.label for each in experiment.attacks}
    assert attacks <= {key.attack for key in keys}
    assert {key.model for key in keys} == {"net"}


@pytest.mark.slow
def test_the_whole_run_is_as_the_committed_baseline(repository: Path) -> None:
    run = "robustness-run"
    suite = "robustness/suite.toml"
    python("-m", "gibbon", "run", suite, "--output", run, "--no-pictures", cwd=repository)
    python("-m", "gibbon", "compare", "robustness/baseline.json", run, cwd=repository)


def test_the_workflow_of_the_repository_is_that_of_the_page() -> None:
    here = (EXAMPLES / "ci/.github/workflows/robustness.yml").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "robustness.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(here) == yaml.safe_load(page)


def test_the_suite_of_two_datasets_runs(tmp_path: Path) -> None:
    folder = EXAMPLES / "two-datasets"
    few = ["--limit", 20, "--no-pictures", "--output", tmp_path / "run"]
    python("-m", "gibbon", "run", "suite.toml", *few, cwd=folder)
    record = RunRecord.read(tmp_path / "run")
    assert {row.dataset for row in record.evaluations} == {"mnist", "noisy-mnist"}


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_and_shows_what_is_committed(file: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    said = python(
        "-c", f"{KINDS_OF_OUTPUTS}\nprint(kinds(executed(Path({str(file)!r}))))", cwd=ROOT
    )
    stored = python(
        "-c", f"{KINDS_OF_OUTPUTS}\nprint(kinds(nbformat.read({str(file)!r}, 4)))", cwd=ROOT
    )
    assert said == stored
    assert "text/html" in stored


KINDS_OF_OUTPUTS = """
from pathlib import Path
import nbformat
from tools.docs.notebooks import executed

def kinds(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [[sorted(each.get("data", {"text": ""})) for each in cell.outputs] for cell in cells]
"""


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_small_and_holds_its_outputs(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text) < 400_000
    assert '"text/html"' in text
    assert '"output_type": "error"' not in text
    assert "/site-packages/" not in text
