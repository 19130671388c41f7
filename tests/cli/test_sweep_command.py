"""The command `sweep`: a linear model is a line, and the files agree with each other."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from gibbon.cli.app import app
from gibbon.core.errors import RequestError
from gibbon.core.threat import Epsilon
from gibbon.records.swept_outputs import SweepRecord
from gibbon_zoo.zoo import build

DATA = ["--dataset", "mnist", "--attack", "fgsm"]


def sweep(*words: str) -> str:
    result = CliRunner().invoke(app, ["sweep", *words], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result.output


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "here"
    models = ["--model", "softmax", "--model", "rbf"]
    words = ["--epsilon", "1", "--points", "21", "--limit", "6", "--logits-of", "2"]
    sweep(*models, *DATA, *words, "--output", str(folder))
    return folder


def test_a_linear_model_is_a_line_and_an_rbf_network_is_none(swept: Path) -> None:
    linear, rbf = SweepRecord.read(swept).models
    assert (linear.model, rbf.model, linear.examples, linear.points) == ("softmax", "rbf", 6, 21)
    assert (linear.lowest, linear.highest) == (-1.0, 1.0)
    assert min(linear.linear_down, linear.linear_up) > 0.999999
    assert rbf.linear_up < 0.99
    assert linear.fooled > 0
    assert linear.first_error_median is not None
    assert 0 < linear.first_error_median <= 0.25
    # Once a linear model is wrong along its worst direction, it stays wrong.
    assert linear.wrong_after == 1.0


def test_the_outputs_are_those_of_the_model_on_the_line(swept: Path) -> None:
    rows = [row for row in rows_of(swept / "logits.csv") if row["model"] == "softmax"]
    assert len(rows) == 2 * 21
    first = [row for row in rows if row["example_id"] == rows[0]["example_id"]]
    at = {float(row["epsilon"]): [float(row[f"output_{k}"]) for k in range(10)] for row in first}
    module = build("softmax").module
    weight = next(each for each in module.parameters() if each.ndim == 2)
    weight = weight if weight.shape[0] == 10 else weight.T
    label = int(first[0]["label"])
    start, up = (torch.tensor(at[epsilon], dtype=torch.float64) for epsilon in (0.0, 1.0))
    others = torch.softmax(start.index_fill(0, torch.tensor([label]), -torch.inf), 0)
    gradient = (others[:, None] * weight.double()).sum(0) - weight[label].double()
    expected = start + weight.double() @ gradient.sign()
    assert up.numpy() == pytest.approx(expected.detach().numpy(), abs=1e-2)
    assert set(at) == {float(e) for e in np.round(np.linspace(-1, 1, 21), 10)}


def test_the_files_of_a_sweep(swept: Path) -> None:
    names = {file.name for file in swept.iterdir()}
    assert names == {"sweep.json", "sweep.csv", "logits.csv", "logits.svg", "logits.png"}
    rows = rows_of(swept / "sweep.csv")
    assert len(rows) == 12
    summary = SweepRecord.read(swept).models[0]
    own = [float(row["linear_up"]) for row in rows if row["model"] == "softmax"]
    assert np.mean(own) == pytest.approx(summary.linear_up)
    assert "softmax, rbf" in (swept / "logits.svg").read_text()


def test_one_side_alone_and_a_random_direction(tmp_path: Path) -> None:
    words = ["--model", "softmax", "--dataset", "mnist", "--attack", "noise-sign", "--limit", "3"]
    output = sweep(*words, "--epsilon", "1/2", "--from", "0", "--output", str(tmp_path))
    (found,) = SweepRecord.read(tmp_path).models
    assert (found.lowest, found.highest) == (0.0, float(Epsilon.parse("1/2")))
    assert "noise-sign" in output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--attack", "pgd", "--epsilon", "1"], "follows no single direction.*fgsm"),
        (["--attack", "fgsm", "--epsilon", "0.1,0.2"], "one epsilon, got 2"),
        (["--attack", "fgsm", "--epsilon", "1", "--points", "2"], "--points"),
        (["--attack", "fgsm", "--epsilon", "1", "--from", "0.5"], "zero or less"),
        (["--attack", "fgsm", "--epsilon", "1", "--limit", "5000"], "at most 1,000"),
        (["--attack", "fgsm", "--epsilon", "1", "--attack", "pgd", "--epsilon", "1"], "one"),
    ],
)
def test_wrong_requests_are_named(words: list[str], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        sweep("--model", "softmax", "--dataset", "mnist", *words)
