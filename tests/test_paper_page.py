"""docs/the-paper.md: its commands run as they are written, and its parts say what they are."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gibbon.cli.app import main
from gibbon.core.errors import UnknownNameError
from gibbon.records.run import RunRecord
from gibbon.records.swept_outputs import SweepRecord
from gibbon.specs.decoding import shipped_suites
from tools.docs.paper_page import chosen_claims, chosen_rows, filters_table, judged_sweep, tally
from tools.paper.filters import main as filters

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "the-paper.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").strip().splitlines()]
EVALUATIONS = [line for line in LINES if "run_benchmark.py evaluate" in line]
SUITES = [line for line in LINES if "run_benchmark.py run " in line]
RECORD = RunRecord.read(ROOT / "results" / "goodfellow2015")


def gibbon(line: str, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    words = [*shlex.split(line)[2:], *more]
    monkeypatch.setattr(sys, "argv", ["gibbon", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0, line


def named(kind: str) -> set[str]:
    """Returns the ids that the regions of a kind name."""
    lines = re.findall(rf"<!-- gibbon:{kind} \S+ (.*?) -->", PAGE)
    return {name for line in lines for name in line.split()}


def test_the_page_has_every_claim_and_every_published_number_of_the_suite() -> None:
    suite = shipped_suites()["goodfellow2015"]
    assert {claim.id for claim in suite.claims} <= named("claims")
    assert {row.id for row in suite.published} == named("rows")


def test_commands_are_those_that_the_tests_below_run() -> None:
    others = [line for line in LINES if line not in (*EVALUATIONS, *SUITES)]
    assert [re.split(r" (?=--)", line)[0].strip() for line in others] == [
        "python run_benchmark.py train softmax",
        "python -m tools.paper.filters maxout maxout-adv",
        "python run_benchmark.py sweep",
        "python -m tools.paper.halves results/training-halves/data",
        "cd results/training-halves && sh train.sh && gibbon run suite.toml",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("line", EVALUATIONS)
def test_an_evaluation_runs(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    gibbon(line, monkeypatch, "--output", str(tmp_path), "--device", "cpu", "--no-pictures")


@pytest.mark.slow
def test_all_trainings_of_a_folder_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (train,) = (line for line in LINES if " train softmax" in line)
    gibbon(train, monkeypatch, "--epochs", "1")
    first, over = SUITES
    assert first == "python run_benchmark.py run goodfellow2015"
    gibbon(over, monkeypatch, "--limit", "100", "--no-pictures", "--output", "found")
    record = RunRecord.read(tmp_path / "found")
    trained = [each.name for each in record.suite.experiments[0].models if each.seeds_of]
    assert trained == ["softmax", "softmax-seed-1", "softmax-seed-2"]
    (fooled,) = (each for each in record.claims if each.id == "softmax-is-fooled")
    assert (fooled.first_trainings, fooled.holds) == (3, True)


def test_a_sweep_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = (each for each in LINES if " sweep " in each)
    monkeypatch.chdir(ROOT)
    short = line.replace("--limit 100", "--limit 3 --points 41")
    assert short != line
    gibbon(short, monkeypatch, "--output", str(tmp_path), "--device", "cpu")
    table = judged_sweep(tmp_path)
    place = [column.header for column in table.columns].index("Linear")
    found = {str(row[0]): str(row[place]) for row in table.rows}
    assert found["softmax"] == "yes"
    assert found.keys() == {"softmax", "maxout", "maxout-adv", "rbf"}
    assert len(SweepRecord.read(tmp_path).models) == 4


def test_filters_are_compared_and_judged(tmp_path: Path) -> None:
    (line,) = (each for each in LINES if "tools.paper.filters" in each)
    words = shlex.split(line)[3:]
    words[words.index("--output") + 1] = str(tmp_path)
    assert filters(words) == 0
    content = json.loads((tmp_path / "filters.json").read_text())
    assert (content["first"], content["second"]) == ("maxout", "maxout-adv")
    assert 0 < content["spread"]["second"] < 1
    content["smoothness"] |= {"difference": 0.1, "low": 0.05, "high": 0.15}
    content["spread"] |= {"difference": 0.1, "low": 0.05, "high": 0.15}
    file = tmp_path / "changed.json"
    file.write_text(json.dumps(content))
    assert [str(row[-1]) for row in filters_table(file).rows] == ["reproduced", "refuted"]
    content["spread"] |= {"low": -0.05}
    file.write_text(json.dumps(content))
    assert [str(row[-1]) for row in filters_table(file).rows] == ["reproduced", "undecided"]


@pytest.mark.slow
def test_the_halves_are_disjoint_trained_and_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "results" / "training-halves"
    shutil.copytree(
        ROOT / "results" / "training-halves", place, ignore=shutil.ignore_patterns("data")
    )
    command = [sys.executable, "-m", "tools.paper.halves", str(place / "data")]
    subprocess.run(command, cwd=ROOT, check=True)
    parts = {each.stem: np.load(each) for each in (place / "data").glob("*.npz")}
    assert {name: len(part["labels"]) for name, part in parts.items()} == {
        "half-a": 29_000,
        "half-b": 29_000,
        "validation": 2_000,
    }
    rows = np.concatenate([part["inputs"].reshape(-1, 784) for part in parts.values()])
    assert len(np.unique(rows, axis=0)) > 59_990  # all 60,000, with few equal pictures
    environment = {"EPOCHS": "1", "GIBBON": f"{sys.executable} -m gibbon", "OMP_NUM_THREADS": "1"}
    script = ["/bin/sh", "train.sh"]
    subprocess.run(script, cwd=place, env=environment, check=True)
    monkeypatch.chdir(place)
    gibbon("gibbon - run suite.toml --limit 200 --output found", monkeypatch, "--no-pictures")
    found = {each.id: each for each in RunRecord.read(place / "found").claims}
    assert found["transfer-across-halves"].holds is True


def test_parts_of_the_page_that_are_not_there_are_named() -> None:
    with pytest.raises(UnknownNameError, match="softmax-is-fooled"):
        chosen_claims(RECORD, ["softmax-is-fooledd"])
    with pytest.raises(UnknownNameError, match="rbf-fgsm-error"):
        chosen_rows(RECORD, ["rbf-fgsm-eror"])
    table = tally(RECORD)
    counted = [
        sum(int(str(cell)) for cell in row[1:] if cell.value is not None) for row in table.rows[:3]
    ]
    assert counted == [len(RECORD.suite.published)] * 3
    both, exact, naive = (int(str(row[1])) for row in table.rows[:3])
    assert max(exact, naive) < both <= exact + naive
    assert [str(row[0]) for row in table.rows[1:3]] == [
        f"published numbers, along {name} alone" for name in ("fgsm", "fgsm-naive")
    ]
