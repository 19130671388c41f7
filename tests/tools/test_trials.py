from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tools.zoo.trials as module
from gibbon.core.errors import RecordError, SpecError, UnknownNameError
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon_zoo.recipe import shipped_recipe
from gibbon_zoo.softmax import Softmax
from gibbon_zoo.zoo import network_classifier
from tools.docs.trials_table import trials_table
from tools.zoo.trials import RECORD, Trial, attack_error, carried_out, main, measured, tables

ALL = ("train", "weights", "units", "pgd 3 0.1", "noise-sign 0.1")
LIST = """
[[table]]
name = "short"
recipe = "logistic"
heading = "epochs"
columns = ["clean", "fgsm/confidence", "weights"]
trials = [
    { label = "1", fields = { epochs = 1 } },
    { label = "2", fields = { epochs = 2, optimiser.learning_rate = 0.1 } },
]
"""


def digits(count: int, *, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, 1, 28, 28, generator=generator)
    return Batch(torch.arange(count), inputs, inputs.flatten(1)[:, :10].argmax(1))


class Layers(torch.nn.Module):
    """Two hidden layers, whose outputs are twice and six times the input."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden1, self.hidden2 = Times(2.0), Times(-3.0)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        first: torch.Tensor = self.hidden1(inputs.flatten(1))
        return self.hidden2(first)[:, :10]  # type: ignore[no-any-return]


class Times(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.factor * inputs


def trial(**changes: object) -> Trial:
    return replace(Trial("short", "1", ALL, shipped_recipe("softmax")), **changes)  # type: ignore[arg-type]


def test_each_column_is_measured() -> None:
    seen, unseen = digits(20, seed=0), digits(30, seed=1)
    classifier = Classifier(Layers(), classes=10, input_shape=(1, 28, 28))
    figures = measured(trial(), seen, unseen, classifier)
    size = float(seen.inputs.mean())
    assert figures["units 1"] == pytest.approx(2 * size, rel=1e-5)
    assert figures["units 2"] == pytest.approx(6 * size, rel=1e-5)
    assert figures["weights"] == 2.0
    # The class is the largest of the first ten pixels, and the network takes the smallest.
    assert (figures["clean"], figures["train"]) == (1.0, 1.0)
    assert figures["pgd 3 0.1"] == 1.0


def test_errors_under_attacks_are_above_the_clean_one() -> None:
    unseen = digits(200, seed=0)
    network = Softmax()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("weight"):
                parameter.copy_(20 * torch.eye(10, 784))
    classifier = network_classifier(network)
    clean, noise, attacked = (
        attack_error(classifier, unseen, column)
        for column in ("noise-sign 0.000001", "noise-sign 0.3", "pgd 5 0.3")
    )
    assert clean == 0.0
    assert clean < noise < attacked


def test_a_trial_is_carried_out_once_and_its_table_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed, record = tmp_path / "list.toml", tmp_path / "record.json"
    listed.write_text(LIST)
    known = tables(listed)
    monkeypatch.setattr(module, "tables", lambda: known)
    monkeypatch.setattr("tools.docs.trials_table.tables", lambda: known)
    monkeypatch.setattr("sys.argv", ["trials", "--record", str(record)])
    assert main() == 0
    assert capsys.readouterr().err.count(" of 2: short") == 2
    first = json.loads(record.read_text())
    assert main() == 0
    assert capsys.readouterr().err == ""
    assert [row["label"] for row in first] == ["1", "2"]
    assert [row["recipe"]["epochs"] for row in first] == [1, 2]
    assert {row["measured_on"] for row in first} == {2066}  # a sixth of the threes and sevens
    head, _, one, two = trials_table(record, "short").splitlines()
    assert [each.strip() for each in head.strip("|").split("|")] == [
        *("epochs", "clean", "FGSM / confidence", "‖w‖₁")
    ]
    assert one.count("|") == two.count("|") == 5
    assert f"{100 * first[0]['figures']['clean']:.2f}" in one

    listed.write_text(LIST.replace("epochs = 2", "epochs = 3"))
    known = tables(listed)
    with pytest.raises(RecordError, match=r"lacks the trial '2' of short"):
        trials_table(record, "short")
    with pytest.raises(UnknownNameError, match="long"):
        trials_table(record, "long")


def test_a_field_that_no_recipe_has_is_refused(tmp_path: Path) -> None:
    listed = tmp_path / "list.toml"
    listed.write_text(LIST.replace("epochs = 1 ", "epoch = 1 "))
    with pytest.raises(SpecError, match="short, 1"):
        tables(listed)


def test_a_shipped_network_is_measured_on_the_test_examples(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def examples(one: Trial, split: str, data_dir: Path | None) -> Batch:
        asked.append(split)
        return digits(40, seed=len(asked))

    monkeypatch.setattr(module, "_examples", examples)
    shipped = trial(shipped="softmax", columns=("clean",))
    row = carried_out(shipped, data_dir=None, scratch=tmp_path)
    assert (row["split"], row["measured_on"], asked) == ("test", 40, ["train", "test"])
    assert "recipe" not in row
    assert row.items() >= shipped.key().items()


def test_the_record_holds_every_trial_of_the_list() -> None:
    rows = json.loads(RECORD.read_text())
    assert [(row["table"], row["label"]) for row in rows] == [
        (one.table, one.label) for table in tables() for one in table.trials
    ]
    for table in tables():
        assert trials_table(RECORD, table.name).count("\n") == len(table.trials) + 1
