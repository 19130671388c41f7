"""The Python call: what it takes, what it gives back, and that the caller's model comes back."""

from __future__ import annotations

import csv
import dataclasses
import gc
import math
import pickle
import re
import subprocess
import sys
import warnings
import weakref
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import planted
import pytest
import torch
from pydantic.dataclasses import dataclass as checked
from same_outcomes import TOLERANCE, assert_same
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gibbon
from gibbon import Results, evaluate
from gibbon.attacks.base import STRICT, DirectionAttack
from gibbon.attacks.fgsm import FGSM
from gibbon.attacks.pgd import PGD
from gibbon.core.errors import (
    CellError,
    DatasetError,
    FlagError,
    ModelError,
    RequestError,
    SpecError,
    UnknownNameError,
)
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Epsilon, Norm
from gibbon.gate.baseline import made_with
from gibbon.models.outputs import PROBABILITIES
from gibbon.records.run import RunRecord
from gibbon.specs.suite import DatasetSpec, ModelSpec

SQUARES = planted.squares()
INPUTS = SQUARES.batch(np.arange(planted.EXAMPLES)).inputs
LABELS = torch.from_numpy(SQUARES.labels.copy())
PAIR = (INPUTS, LABELS)


@checked(frozen=True, kw_only=True, config=STRICT)
class StrongNoise(planted.Brightens):
    """An attack that is registered nowhere."""

    amount: float = 0.5


@pytest.fixture(scope="module")
def results() -> Results:
    """Two models, two attacks, two epsilons."""
    return evaluate(
        {"one": planted.Rows(1), "two": planted.Rows(2)},
        PAIR,
        attack=["fgsm", {"name": "pgd", "steps": 3}],
        epsilon=[8 / 255, "0.1"],
        examination=False,  # they are untrained
    )


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> planted.Plant:
    planting = planted.Plant(monkeypatch)
    planting.dataset("squares", lambda request: planted.squares())
    planting.model("one", planted.rows(1))
    planting.attack("raises", planted.Raises)
    planting.attack("raises-at-tenth", planted.RaisesAtTenth)
    return planting


# What it takes


def shuffled() -> DataLoader[Any]:
    return DataLoader(TensorDataset(*PAIR), batch_size=7, shuffle=True)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (PAIR, "data"),
        ((INPUTS.numpy(), LABELS.numpy()), "data"),
        (TensorDataset(*PAIR), "TensorDataset"),
        (DataLoader(TensorDataset(*PAIR), batch_size=7), "TensorDataset"),
        (shuffled(), "TensorDataset"),
        (SQUARES, "squares"),
        ("squares", "squares"),
        (DatasetSpec(name="mine", source="squares"), "mine"),
    ],
    ids=["tensors", "arrays", "dataset", "loader", "shuffled", "ours", "source", "spec"],
)
def test_all_kinds_of_data_give_the_same(plant: planted.Plant, data: Any, name: str) -> None:
    found = evaluate(planted.Rows(1), data, attack="fgsm", epsilon="0.1")
    (expected,) = {
        (each.adversarial_error, each.clean_error)
        for each in [evaluate(planted.Rows(1), PAIR, attack="fgsm", epsilon="0.1")]
    }
    assert (found.adversarial_error, found.clean_error) == expected
    assert 0 < found.clean_error < found.adversarial_error < 1
    assert {row.dataset for row in found.evaluations} == {name}
    np.testing.assert_array_equal(found.examples.label, LABELS.numpy())


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (planted.Rows(1), "Rows"),
        (planted.classifier(planted.Rows(1)), "Rows"),
        ("one", "one"),
        (ModelSpec(name="mine", model="one"), "mine"),
        ({"mine": planted.Rows(1)}, "mine"),
        ({"mine": "one"}, "mine"),
        ({"mine": ModelSpec(name="other", model="one")}, "mine"),
    ],
)
def test_all_kinds_of_models_give_the_same(plant: planted.Plant, model: Any, name: str) -> None:
    found = evaluate(model, SQUARES, attack="fgsm", epsilon="0.1")
    same = evaluate(planted.Rows(1), SQUARES, attack="fgsm", epsilon="0.1")
    assert found.adversarial_error == same.adversarial_error
    assert {row.model for row in found.evaluations} == {name}


def test_sources_alone_are_run_as_a_suite_would(plant: planted.Plant, tmp_path: Path) -> None:
    found = evaluate("one", "squares", attack="fgsm", epsilon="0.1", output=tmp_path / "out")
    assert found.record == RunRecord.read(tmp_path / "out")
    for name in ("evaluations.csv", "transfer.csv", "tables.md", "outcomes"):
        assert (tmp_path / "out" / name).exists()
    again = evaluate("one", "squares", attack="fgsm", epsilon="0.1", output=str(tmp_path / "out"))
    assert (again.record.provenance.computed_cells, again.record.provenance.reused_cells) == (0, 2)
    assert again.to_frame().equals(found.to_frame())


@pytest.mark.parametrize(
    ("attack", "more", "label"),
    [
        ("pgd", {"steps": 3, "restarts": 2}, "pgd"),
        ({"name": "pgd", "steps": 3, "restarts": 2}, {}, "pgd"),
        ([{"name": "pgd", "steps": 3}], {"restarts": 2}, "pgd"),
        ({"name": "pgd", "epsilon": "0.1", "label": "mine"}, {"steps": 3, "restarts": 2}, "mine"),
        (PGD(steps=3, restarts=2), {}, "pgd"),
    ],
)
def test_all_ways_to_say_an_attack_give_the_same(attack: Any, more: Any, label: str) -> None:
    found = evaluate(planted.Rows(1), PAIR, attack=attack, epsilon=0.1, **more)
    same = evaluate(
        planted.Rows(1), PAIR, attack={"name": "pgd", "steps": 3, "restarts": 2}, epsilon="1/10"
    )
    (row,) = [row for row in found.evaluations if not row.unattacked]
    (expected,) = [row for row in same.evaluations if not row.unattacked]
    assert (row.attack, row.digest) == (label, expected.digest)
    assert row.parameters == expected.parameters


def test_an_attack_that_is_registered_nowhere_is_measured() -> None:
    found = evaluate(
        planted.Rows(1), PAIR, attack=[StrongNoise(amount=0.25), FGSM(), "fgsm"], epsilon="0.3"
    )
    labels = [row.attack for row in found.evaluations]
    assert labels == ["none", "strong-noise", "fgsm", "fgsm-2"]
    (spec, *_) = found.record.suite.experiments[0].attacks
    assert spec.parameters == {"amount": 0.25}
    assert (
        found.select(attack="fgsm").adversarial_error
        == found.select(attack="fgsm-2").adversarial_error
    )


@pytest.mark.parametrize(
    ("epsilon", "texts"),
    [
        (8 / 255, ["8/255"]),
        (0.25, ["0.25"]),
        (1, ["1"]),
        ("2/255", ["2/255"]),
        (Epsilon.parse("0.10"), ["0.10"]),
        ([0.1, "8/255"], ["0.1", "8/255"]),
        ((0.1,), ["0.1"]),
        (np.float64(8 / 255), ["8/255"]),
    ],
)
def test_a_budget_is_printed_as_it_is_meant(epsilon: Any, texts: list[str]) -> None:
    found = evaluate(planted.Rows(1), PAIR, attack="fgsm", epsilon=epsilon)
    assert [str(row.epsilon) for row in found.evaluations if not row.unattacked] == texts


def test_normalisation_and_the_meaning_of_outputs_are_declared() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = planted.Rows(1)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.rows(inputs * 0.25 + 0.5).softmax(1)

    plain = evaluate(planted.Rows(1), PAIR, attack="fgsm", epsilon="0.1")
    found = evaluate(
        Shifted(),
        PAIR,
        attack="fgsm",
        epsilon="0.1",
        mean=[0.5],
        std=[0.25],
        outputs=PROBABILITIES.name,
    )
    assert found.adversarial_error == plain.adversarial_error
    assert found.record.models[0].outputs == "probabilities"


def test_how_it_is_run_is_obeyed_and_changes_nothing() -> None:
    words: dict[str, Any] = {"attack": "pgd", "epsilon": "0.1", "steps": 2}
    plain = evaluate(planted.Rows(1), PAIR, **words)
    small = evaluate(planted.Rows(1), PAIR, **words, batch_size=7, device=torch.device("cpu"))
    assert_same(plain.examples, small.examples)
    some = evaluate(planted.Rows(1), PAIR, **words, limit=9, seed=3)
    assert len(some.examples) == 9
    assert (some.record.provenance.limit, some.record.suite.seed) == (9, 3)
    loose = evaluate(planted.Rows(1), PAIR, **words, clip=False, norm="l2")
    (row,) = [row for row in loose.evaluations if not row.unattacked]
    assert (row.clip, row.norm) == (False, "l2")


def test_progress_is_told(plant: planted.Plant) -> None:
    class Told:
        def __init__(self) -> None:
            self.heard: list[str] = []

        def note(self, text: str) -> None:
            self.heard.append("note")

        def checking(self, examples: int, *, of: int, dataset: str) -> None:
            self.heard.append("checking")

        def start(self, *, work: int, cells: int, reused: int) -> None:
            self.heard.append(f"start {cells}")

        def advance(self, work: int, *, doing: str) -> None:
            self.heard.append("advance")

        def failed(self, cell: str, *, error: str) -> None:
            self.heard.append("failed")

    told = Told()
    evaluate(planted.Rows(1), PAIR, attack=["fgsm", "raises"], epsilon="0.1", progress=told)
    assert "start 3" in told.heard
    assert {"advance", "failed"} <= set(told.heard)


def test_progress_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(planted.Rows(1), PAIR, attack="fgsm", epsilon="0.1", progress=True)
    said = capsys.readouterr()
    assert "2 cells to compute, 0 recorded already" in said.err
    evaluate(planted.Rows(1), PAIR, attack="fgsm", epsilon="0.1")
    assert (said.out, capsys.readouterr()) == ("", ("", ""))


# What is refused


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"attack": "fgms"}, UnknownNameError, "did you mean 'fgsm'?"),
        ({"attack": "pgd", "stepz": 3}, SpecError, r"stepz: attack 'pgd' has no parameter 'stepz'"),
        ({"attack": "pgd", "steps": 0}, SpecError, "greater than or equal to 1, got 0"),
        ({"attack": ["pgd", "fgsm"], "steps": 3}, SpecError, "steps: parameters belong to one"),
        ({"attack": FGSM(), "steps": 3}, SpecError, "steps: parameters belong to one attack"),
        ({"attacks": ["pgd"]}, SpecError, "there is no such argument: give attack, which may be a"),
        ({"attack": {"steps": 3}}, SpecError, "an attack as a mapping needs its name"),
        ({"attack": FGSM(), "norm": "l2"}, SpecError, "'fgsm' works in linf, not in l2"),
        ({"attack": "fgsm", "norm": "l7"}, SpecError, "norm"),
        ({"epsilon": None}, SpecError, "attack 'fgsm': epsilon is missing"),
        ({"epsilon": []}, SpecError, "attack 'fgsm': epsilon is missing"),
        ({"epsilon": "big"}, SpecError, "epsilon must be a number such as 0.25"),
        ({"epsilon": [0.1, "1/10"]}, SpecError, "are the same"),
        ({"epsilon": -0.1}, SpecError, "must not be negative"),
        ({"model": planted.Rows, "data": PAIR}, ModelError, "expected a torch.nn.Module"),
        ({"model": nn.Linear(7, 3)}, ModelError, "model 'Linear': it can't be run on inputs of"),
        ({"model": "non-such"}, RequestError, "unknown model 'non-such'"),
        ({"model": {"a b": planted.Rows(1)}}, SpecError, "must be made of letters"),
        ({"model": {}}, SpecError, "models: must not be empty"),
        ({"mean": [0.5]}, SpecError, "mean is given without std"),
        ({"mean": [0.5, 0.5], "std": [1, 1]}, ModelError, "2 numbers, the inputs have 1 channel"),
        ({"data": "non-such"}, RequestError, "unknown dataset 'non-such'"),
        ({"data": (INPUTS * 255, LABELS)}, DatasetError, r"\[0, 1\]"),
        ({"data": (INPUTS, LABELS[:-1])}, DatasetError, "labels"),
        ({"data": (INPUTS, LABELS + 5)}, RequestError, "3 classes"),
        ({"data": 3}, DatasetError, "expected a pair"),
        ({"batch_size": 0}, SpecError, "at least 1"),
        ({"limit": 0}, SpecError, "at least 1"),
        ({"device": "gpu"}, RequestError, "expected auto, cpu"),
        ({"seed": -1}, SpecError, "seed: "),
        ({"accept": ["zero-gradent"]}, SpecError, r"accept\[0\]: .*did you mean 'zero-gradient'"),
        ({"accept": ["a", "b"]}, SpecError, r"accept\[0\]: (.|\n)*accept\[1\]: there is no kind"),
        ({"accept": "zero-gradient"}, SpecError, "accept: must be a list, got 'zero-gradient'"),
        ({"accept": [3]}, SpecError, r"accept\[0\]: .*string, got 3"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_computed(
    arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    given: dict[str, Any] = {
        "model": planted.Rows(1),
        "data": PAIR,
        "attack": "fgsm",
        "epsilon": "0.1",
        **arguments,
    }
    with pytest.raises(kind, match=message):
        evaluate(given.pop("model"), given.pop("data"), **given)


# What it gives back


def test_one_number_of_several_has_to_be_chosen(results: Results) -> None:
    with pytest.raises(SpecError, match="several models, attacks or epsilons; choose one with"):
        _ = results.adversarial_error
    with pytest.raises(SpecError, match="several models; choose one"):
        _ = results.clean_error
    with pytest.raises(SpecError, match=r"one, fgsm at 8/255; .*; and 3 more$"):
        _ = results.examples
    chosen = results.select(model="one", attack="pgd", epsilon=0.1)
    (row,) = [
        row
        for row in results.evaluations
        if (row.model, row.attack, str(row.epsilon)) == ("one", "pgd", "0.1")
    ]
    assert chosen.adversarial_error == row.adversarial_error
    assert chosen.confidence_on_misclassified == row.confidence_on_misclassified
    assert chosen.clean_error == row.clean_error
    assert results.select(model="one", attack="pgd", epsilon="16/510").evaluations[1].epsilon == (
        Epsilon.parse("8/255")
    )


def test_what_is_not_there_can_not_be_chosen(results: Results) -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'on'; did you mean 'one'"):
        results.select(model="on")
    with pytest.raises(UnknownNameError, match="unknown attack 'pgdd'; did you mean 'pgd'"):
        results.select(attack="pgdd")
    with pytest.raises(SpecError, match=r"nothing was measured at epsilon 0.3; there are 8/255, 0"):
        results.select(epsilon=0.3)


def test_a_choice_narrows_rows_and_tables(results: Results) -> None:
    one = results.select(model="one")
    assert {row.model for row in one.evaluations} == {"one"}
    assert {row.source for row in one.transfers} == {"one"}
    assert len(one.transfers) == 8
    assert {each.model for each in one.record.worst_cases} == {"one"}
    pgd = results.select(attack="pgd")
    assert {row.attack for row in pgd.evaluations} == {"none", "pgd"}
    assert {row.attack for row in pgd.transfers} == {"pgd"}
    assert "fgsm" not in str(pgd)
    assert "Transfer" in str(pgd)
    tenth = results.select(epsilon=0.1)
    assert {str(row.epsilon) for row in tenth.evaluations} == {"0", "0.1"}
    assert "8/255" not in str(tenth)
    assert results.select().record == results.record


def test_examples_are_what_the_rates_count(results: Results) -> None:
    chosen = results.select(model="two", attack="fgsm", epsilon="0.1")
    examples = chosen.examples
    assert len(examples) == planted.EXAMPLES
    np.testing.assert_array_equal(examples.example_id, np.arange(planted.EXAMPLES))
    np.testing.assert_array_equal(examples.label, LABELS.numpy())
    assert examples.misclassified.mean() == chosen.adversarial_error
    assert (examples.clean_predicted != examples.label).mean() == chosen.clean_error
    with torch.no_grad():
        own = planted.Rows(2)(INPUTS).argmax(1).numpy()
    np.testing.assert_array_equal(examples.clean_predicted, own)
    np.testing.assert_array_equal(examples.misclassified, examples.predicted != examples.label)
    assert examples.confidence[examples.misclassified].mean() == pytest.approx(
        chosen.confidence_on_misclassified, abs=TOLERANCE
    )
    assert 0 < examples.distance.max() <= 0.1 + 1e-6
    frame = examples.to_frame()
    assert list(frame) == [field.name for field in dataclasses.fields(examples)]
    assert len(frame) == planted.EXAMPLES


def test_several_models_are_scored_on_each_other(results: Results) -> None:
    frame = results.transfer_frame()
    assert len(frame) == 16
    assert set(zip(frame["source"], frame["target"], strict=True)) == {
        (source, target) for source in ("one", "two") for target in ("one", "two")
    }
    models = {"one": planted.Rows(1), "two": planted.Rows(2)}
    alone = evaluate(models, PAIR, attack="fgsm", epsilon="0.1", transfer=False)
    assert alone.transfers == ()
    assert alone.transfer_frame().empty


def test_errors_alone_have_no_confidence_and_no_transfer() -> None:
    models = {"one": planted.Rows(1), "two": planted.Rows(2)}
    attack = {"name": "pgd", "steps": 3, "carried": True}
    budgets = ["0.02", "0.1"]
    usual = evaluate(models, PAIR, attack="pgd", steps=3, epsilon=budgets)
    alone = evaluate(models, PAIR, attack=attack, epsilon=budgets, error_only=True)
    assert alone.transfers == ()
    for one, other in zip(usual.evaluations, alone.evaluations, strict=True):
        assert one.adversarial_error is not None
        assert other.adversarial_error is not None
        assert one.adversarial_error <= other.adversarial_error
        if not one.unattacked:
            assert one.mean_confidence is not None
            assert (other.mean_confidence, other.iterate) == (None, "first-success, carried")
            assert other.forward_passes < one.forward_passes


class Hidden(planted.Rows):
    """Noisy scores before a softmax."""

    def __init__(self) -> None:
        super().__init__(1)
        self.softmax = torch.nn.Softmax(1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(inputs)
        return self.softmax(outputs + 0.4 * torch.randn_like(outputs))


def test_attacks_are_adapted_by_arguments_and_by_keys() -> None:
    keys = {"eot": 3, "before": "softmax"}
    pgd = {"name": "pgd", "steps": 2}
    given = {"epsilon": 0.1, "outputs": "probabilities", "draws": 4}
    argument = evaluate(Hidden(), PAIR, attack="pgd", steps=2, **keys, **given)
    mapping = evaluate(Hidden(), PAIR, attack={**pgd, **keys}, **given)
    assert argument.adversarial_error == mapping.adversarial_error
    row = argument.evaluations[1]
    assert {key: row.parameter_values[key] for key in keys} == keys
    assert row.draws == 4
    share = argument.examples.wrong_share
    assert argument.adversarial_error == pytest.approx(share.mean())
    assert ((share > 0.5) == argument.examples.misclassified).all()
    both = evaluate(
        Hidden(), PAIR, attack=[pgd, {**pgd, "label": "own", "eot": 5}], **keys, **given
    )
    assert [row.parameter_values["eot"] for row in both.evaluations[1:]] == [3, 5]
    parts = {"backward": {"softmax": "identity"}}
    found = evaluate(Hidden(), PAIR, attack=PGD(steps=2), **parts, **given)
    assert found.evaluations[1].parameter_values["backward"] == parts["backward"]
    with pytest.raises(SpecError, match="takes no gradients, which eot is about"):
        evaluate(Hidden(), PAIR, attack=["pgd", "noise-sign"], **keys, **given)


def in_csv(value: Any, text: str) -> str:
    """A value as the file has it: what is not known is empty, a count has no decimals."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    same = isinstance(value, float) and float(text or "nan") == value
    return text if same else str(value)


def test_frames_are_the_csv_files(tmp_path: Path) -> None:
    found = evaluate(
        {"one": planted.Rows(1), "NA": planted.Rows(2)},
        PAIR,
        attack=["fgsm", {"name": "fgsm-naive"}],
        epsilon=[8 / 255, 0.25],
        output=tmp_path,
    )
    for frame, name in (
        (found.to_frame(), "evaluations.csv"),
        (found.transfer_frame(), "transfer.csv"),
    ):
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            columns, *rows = csv.reader(file)
        assert list(frame) == columns
        for mine, theirs in zip(frame.itertuples(index=False), rows, strict=True):
            assert [in_csv(value, text) for value, text in zip(mine, theirs, strict=True)] == theirs
        assert frame["examples"].dtype.kind == "i"
    assert found.to_frame()["adversarial_error"].dtype.kind == "f"


def test_printed_it_is_the_tables_of_the_terminal(results: Results) -> None:
    text = str(results)
    assert "Evaluations on data\n" in text
    assert "checks passed" in text or "use these numbers yet" in text
    assert "Transfer on data, pgd, ε = 8/255: error" in text
    assert "tables.md" not in text
    assert repr(results).startswith("<Results 'data-one+two': 10 rows")


class Page(HTMLParser):
    """Reads HTML strictly: what is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: list[dict[str, Any]] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "br":  # which is never closed
            self.open.append(tag)
        self.seen.add(tag)
        if tag == "table":
            self.tables.append({"caption": "", "rows": []})
        if tag == "tr":
            self.tables[-1]["rows"].append([])
        if tag in ("td", "th"):
            self.tables[-1]["rows"][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "caption":
            self.tables[-1]["caption"] += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1]["rows"][-1][-1] += data


def parsed(found: Results) -> Page:
    page = Page()
    page.feed(found._repr_html_())
    page.close()
    assert page.open == []
    return page


def test_a_notebook_shows_tables_with_captions(results: Results) -> None:
    page = parsed(results)
    evaluations, *transfers = page.tables
    assert evaluations["caption"] == "Evaluations on data"
    assert transfers[0]["caption"] == "Transfer on data, fgsm, ε = 8/255: error"
    head, *rows = evaluations["rows"]
    assert head[:3] == ["Model", "Attack", "ε"]
    assert all(len(row) == len(head) for row in rows)
    assert [row[:3] for row in rows][:2] == [["one", "none", "–"], ["one", "fgsm", "8/255"]]
    chosen = results.select(model="one", attack="fgsm", epsilon=8 / 255)
    error = rows[1][head.index("Adversarial error")]
    assert error in [f"{100 * chosen.adversarial_error:.1f} %{mark}" for mark in ("", " ‡")]


def test_html_is_escaped_where_somebody_named_a_thing_badly(plant: planted.Plant) -> None:
    class Bad(planted.Raises):
        def change(self, inputs: Tensor, threat: Any) -> Tensor:
            raise RuntimeError("<script>alert('1')</script> & <b>")

    found = evaluate(planted.Rows(1), PAIR, attack=["fgsm", Bad()], epsilon="0.1")
    page = parsed(found)
    assert not {"script", "b"} & page.seen
    assert "<script>alert('1')</script> & <b>" in page.tables[-1]["rows"][-1][-1]


# Failures


def test_a_failure_is_carried_and_its_numbers_raise(plant: planted.Plant) -> None:
    found = evaluate(planted.Rows(1), PAIR, attack="raises", epsilon="0.1", examination=False)
    (failure,) = found.failures
    assert failure.traceback.startswith("Traceback")
    for name in ("adversarial_error", "confidence_on_misclassified", "examples"):
        with pytest.raises(CellError, match=r"raises at epsilon 0.1 failed: RuntimeError: planted"):
            getattr(found, name)
    assert 0 < found.clean_error < 1
    assert "failed" in str(found)
    assert repr(found).endswith("1 failed>")
    assert list(found.to_frame()["status"]) == ["done", "failed"]
    assert math.isnan(found.to_frame()["adversarial_error"][1])


def test_a_failure_hides_no_other_number(plant: planted.Plant) -> None:
    found = evaluate(planted.Rows(1), PAIR, attack=["fgsm", "raises-at-tenth"], epsilon=[0.1, 0.2])
    assert found.select(attack="fgsm", epsilon=0.1).adversarial_error > 0
    assert found.select(attack="raises-at-tenth", epsilon=0.2).adversarial_error > 0
    with pytest.raises(CellError, match=r"raises-at-tenth at epsilon 0.1 failed"):
        _ = found.select(attack="raises-at-tenth", epsilon=0.1).adversarial_error
    assert found.select(attack="fgsm").failures == ()


def test_without_attacks_there_is_the_clean_error() -> None:
    found = evaluate(planted.Rows(1), PAIR, attack=[])
    assert 0 < found.clean_error < 1
    with pytest.raises(SpecError, match="no attack among these results"):
        _ = found.adversarial_error


# The caller's model


class Living(nn.Module):
    """With batch normalisation, dropout and a hook of its own, partly frozen and in mixed modes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.drop = nn.Dropout(0.5)
        self.rows = planted.Rows(1)
        self.counted = 0
        self.register_forward_hook(self.count)
        self.norm.eval()
        self.rows.weight.requires_grad_(False)
        self.rows.weight.grad = torch.ones_like(self.rows.weight)

    def count(self, *_: Any) -> None:
        self.counted += 1

    def forward(self, inputs: Tensor) -> Tensor:
        return self.rows(self.drop(self.norm(inputs)))


def state(module: nn.Module) -> dict[str, Any]:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {
        "modes": {name: each.training for name, each in module.named_modules()},
        "gradients": {name: each.requires_grad for name, each in module.named_parameters()},
        "tensors": {name: each.detach().clone().tolist() for name, each in tensors.items()},
        "homes": {name: (each.data_ptr(), each.device) for name, each in tensors.items()},
        "grads": {
            name: each.grad if each.grad is None else each.grad.clone().tolist()
            for name, each in module.named_parameters()
        },
        "hooks": {
            name: [
                list(hooks)
                for hooks in (
                    each._forward_hooks,
                    each._forward_pre_hooks,
                    each._backward_hooks,
                    each._backward_pre_hooks,
                )
            ]
            for name, each in module.named_modules()
        },
        "names": [name for name, _ in module.named_modules()],
    }


@checked(frozen=True, kw_only=True, config=STRICT)
class Interrupting(planted.Brightens):
    """Raises what Ctrl-C raises."""

    def direction(self, *_: Any, **__: Any) -> Tensor:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("attack", "more", "raised"),
    [
        ("pgd", {}, None),
        ("pgd", {"mean": [0.1], "std": [0.5]}, None),
        ("pgd", {"precision": "bfloat16"}, None),
        ("pgd", {"stepz": 1}, SpecError),
        ("pgd", {"device": "gpu"}, RequestError),
        ("pgd", {"limit": 0}, RequestError),
        ("raises", {}, None),
        (Interrupting(), {}, KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True], ids=["module", "classifier"])
def test_the_model_comes_back_as_it_was(
    plant: planted.Plant, attack: Any, more: dict[str, Any], raised: Any, wrapped: bool
) -> None:
    module = Living()
    model = planted.classifier(module) if wrapped else module
    if wrapped and "mean" in more:
        raised = RequestError
    before = state(module)
    random = torch.get_rng_state()
    if raised is None:
        evaluate(model, PAIR, attack=attack, epsilon="0.1", **more)
    else:
        with pytest.raises(raised):
            evaluate(model, PAIR, attack=attack, epsilon="0.1", **more)
    assert state(module) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()


def test_the_inputs_are_not_changed_and_the_model_is_let_go() -> None:
    module = planted.Rows(1)
    there, before = weakref.ref(module), INPUTS.clone()
    found = evaluate(module, PAIR, attack="pgd", epsilon="0.1", steps=2)
    assert torch.equal(INPUTS, before)
    del module
    gc.collect()
    assert there() is None
    assert found.evaluations


def test_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    evaluate(planted.Rows(1), PAIR, attack="fgsm", epsilon="0.1")
    with pytest.raises(KeyboardInterrupt):
        evaluate(planted.Rows(1), PAIR, attack=Interrupting(), epsilon="0.1")
    assert list(tmp_path.iterdir()) == []


class Noisy(planted.Rows):
    """How strong its noise is stands in a plain number."""

    def __init__(self, sigma: float) -> None:
        super().__init__(1)
        self.sigma = sigma

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs + self.sigma * torch.randn_like(inputs))


def test_two_models_that_answer_at_random_have_each_their_own_numbers() -> None:
    found = evaluate({"s0.01": Noisy(0.01), "s3": Noisy(3.0)}, PAIR, attack="fgsm", epsilon="0.1")
    weak, strong = (found.select(model=name).examples for name in ("s0.01", "s3"))
    assert len({card.digest for card in found.record.models}) == 2
    assert not np.array_equal(weak.clean_predicted, strong.clean_predicted)


@dataclasses.dataclass(frozen=True)
class Along(DirectionAttack):
    """Moves along the number in the middle of many."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)

    amounts: Any

    def direction(
        self, classifier: Any, inputs: Tensor, *, labels: Tensor, streams: ExampleStreams
    ) -> Tensor:
        middle = np.asarray(self.amounts)[..., 2500].ravel()[0]
        return torch.full_like(inputs, float(middle))


@pytest.mark.parametrize(
    "held", [lambda tensor: tensor, lambda tensor: tensor.numpy(), lambda tensor: [tensor.numpy()]]
)
def test_attacks_that_differ_in_a_tensor_have_each_their_own_numbers(
    held: Any, tmp_path: Path
) -> None:
    """A tensor's repr leaves out what stands in the middle of many numbers."""
    one, other = torch.zeros(5000), torch.zeros(5000)
    other[2500] = 1.0
    attacks = [Along(held(one)), Along(held(other))]
    found = evaluate(planted.Rows(1), PAIR, attack=attacks, epsilon="0.1", output=tmp_path)
    assert not found.failures, found.failures
    _, still, moved = found.evaluations
    assert len({row.digest for row in found.evaluations}) == 3
    assert (still.mean_distance, moved.mean_distance) == (0, pytest.approx(0.1))
    assert made_with(still) != made_with(moved)
    specs = found.record.suite.experiments[0].attacks
    assert specs[0].parameters != specs[1].parameters


def test_an_attack_that_cannot_be_told_apart_is_refused() -> None:
    refusal = r"parameter 'amounts' of attack Along is <object object at 0x.*make its class a data"
    with pytest.raises(SpecError, match=refusal):
        evaluate(planted.Rows(1), PAIR, attack=Along(object()), epsilon="0.1")


def test_an_epsilon_that_lacks_its_255_is_flagged() -> None:
    said = "data, fgsm at epsilon 8: epsilon 8 is as wide as the box [0, 1]: did you mean 8/255?"
    found = evaluate(planted.Rows(1), PAIR, attack="fgsm", epsilon=[8, 8 / 255])
    flags = [str(flag) for flag in found.record.flags if flag.kind == "wide-budget"]
    assert flags == [said]


def test_a_path_is_taken_wherever_its_text_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, script = tmp_path / "data.npz", tmp_path / "net.torchscript"
    np.savez(data, inputs=INPUTS.numpy(), labels=LABELS.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated
        torch.jit.save(torch.jit.trace(planted.Rows(1), INPUTS[:2]), script)
    source = DatasetSpec(name="data", source=data, layout="NCHW")
    asked = {"attack": "fgsm", "epsilon": "0.1"}
    found = evaluate(script, source, output=tmp_path / "out", **asked)
    assert results_of(found) == results_of(evaluate(str(script), source, **asked))
    assert results_of(found) == results_of(evaluate({"net": script}, PAIR, **asked))
    with pytest.raises(DatasetError, match=r"data\.npz.*layout"):
        evaluate(script, data, **asked)


def results_of(found: Results) -> list[tuple[str, float | None]]:
    return [(row.model, row.adversarial_error) for row in found.evaluations]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"batch_size": 0}, "batch_size: must be at least 1, got 0"),
        ({"device": "cuda:99"}, "device: 'cuda:99' is not there"),
        ({"device": "gpu"}, "device: expected auto, cpu, cuda, cuda:1 or mps, got 'gpu'"),
    ],
)
def test_what_is_wrong_is_called_as_the_call_does(more: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError) as raised:
        evaluate(planted.Rows(1), PAIR, attack="fgsm", epsilon="0.1", **more)
    assert str(raised.value).startswith(said)


# Flags


class Masked(planted.Rows):
    """Answers as `Rows`, with a gradient of zero."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).detach() + super().forward(0.0 * inputs)


MASKED = {"attack": "pgd", "epsilon": "0.1", "steps": 3}


def test_flags_are_in_the_results_and_change_nothing_unless_it_is_strict() -> None:
    found = evaluate(Masked(1), PAIR, **MASKED)
    assert found.flags == found.record.flags
    assert "zero-gradient" in {flag.kind for flag in found.serious_flags}
    assert all(flag.counts for flag in found.serious_flags)
    assert re.search(r"2 rows, \d serious flags?>", repr(found))


def test_strict_raises_once_everything_is_stored_and_holds_the_results(tmp_path: Path) -> None:
    with pytest.raises(FlagError) as raised:
        evaluate(Masked(1), PAIR, **MASKED, strict=True, output=tmp_path / "out")
    error = raised.value
    assert not isinstance(error, RequestError)
    assert error.flags == error.results.serious_flags
    assert error.results.adversarial_error >= 0
    flag = next(each for each in error.flags if each.kind == "zero-gradient" and each.attack)
    for part in ("serious flag: zero-gradient: data, Masked, pgd at", flag.sentence, flag.advice):
        assert part in str(error)
    record = RunRecord.read(tmp_path / "out")
    assert record.flags == error.results.flags
    assert (tmp_path / "out" / "tables.md").exists()
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301  # it crosses processes
    assert (str(copied), len(copied.flags)) == (str(error), len(error.flags))


def test_strict_passes_what_is_accepted_and_the_flag_stays(tmp_path: Path) -> None:
    free = evaluate(Masked(1), PAIR, **MASKED, output=tmp_path)
    kinds = [flag.kind for flag in free.serious_flags]
    found = evaluate(Masked(1), PAIR, **MASKED, output=tmp_path, strict=True, accept=kinds)
    assert found.serious_flags == ()
    accepted = {flag.kind for flag in found.flags if flag.accepted}
    assert accepted == set(kinds)
    assert "zero-gradient" in found.evaluations[1].flags
    assert found.record.suite.accept == tuple(kinds)
    assert (found.record.provenance.computed_cells, found.record.provenance.reused_cells) == (0, 2)
    with pytest.raises(FlagError):
        evaluate(Masked(1), PAIR, **MASKED, output=tmp_path, strict=True, accept=["wide-budget"])


def test_strict_is_silent_about_warnings() -> None:
    chance = ["error-at-chance"]  # the labels are made up
    found = evaluate(planted.Rows(1), PAIR, attack=[], strict=True, accept=chance)
    assert found.clean_error > 0
    wide = {"attack": "fgsm", "epsilon": 1, "accept": ["unbounded-attack-fails"]}
    assert "wide-budget" in {each.kind for each in evaluate(planted.Rows(1), PAIR, **wide).flags}


def test_a_choice_narrows_flags_to_what_affects_its_rows() -> None:
    found = evaluate(
        {"one": Masked(1), "two": planted.Rows(2)},
        PAIR,
        attack=["fgsm", {"name": "pgd", "steps": 3}],
        epsilon=["0.1", "0.2"],
    )

    def zeros(results: Results) -> set[tuple[str, str, str]]:
        flags = (each for each in results.flags if each.kind == "zero-gradient" and each.attack)
        return {(each.model, each.attack, str(each.epsilon)) for each in flags}

    assert zeros(found) >= {("one", "fgsm", "0.1"), ("one", "pgd", "0.2")}
    assert zeros(found.select(model="two")) == set()
    assert zeros(found.select(model="one", attack="pgd", epsilon="0.1")) == {("one", "pgd", "0.1")}
    assert {each[2] for each in zeros(found.select(epsilon="0.2"))} == {"0.2"}
    assert found.select(attack="fgsm").select(model="one").serious_flags


# The package


def run_script(*lines: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_is_quick_because_it_imports_no_other() -> None:
    """50 ms are kept by what is imported; no clock is read, which would depend on the machine."""
    run_script(
        "import sys",
        "before = set(sys.modules)",
        "import gibbon",
        "tops = {name.partition('.')[0] for name in set(sys.modules) - before}",
        "assert tops <= {'gibbon', *sys.stdlib_module_names}, tops",
        "assert 'evaluate' in dir(gibbon)",
    )


def test_comparing_and_reporting_need_no_torch() -> None:
    run_script(
        "import sys",
        "from gibbon import Norm, compare, report",
        "assert Norm('l2') and callable(compare) and callable(report.write_report)",
        "assert 'torch' not in sys.modules",
    )


def test_the_package_has_no_other_names() -> None:
    assert gibbon.evaluate is evaluate
    assert gibbon.__all__ == [
        "Attack",
        "AttackError",
        "AttackSpec",
        "Batch",
        "Bounds",
        "CellError",
        "Classifier",
        "Dataset",
        "DatasetError",
        "DatasetSpec",
        "DeviceError",
        "DirectionAttack",
        "Epsilon",
        "ExampleStreams",
        "Examples",
        "FlagError",
        "GibbonError",
        "IncompleteError",
        "MemoryShortageError",
        "MinimalNormAttack",
        "MissingLibraryError",
        "ModelError",
        "ModelSpec",
        "Norm",
        "OutputError",
        "ProcessEndedError",
        "RecordError",
        "RequestError",
        "Results",
        "RunFolderError",
        "RunRecord",
        "SpecError",
        "Suite",
        "ThreatModel",
        "TrainingResult",
        "UnknownNameError",
        "WeightsError",
        "check_attack",
        "compare",
        "evaluate",
        "report",
        "train",
    ]
    assert all(getattr(gibbon, name) is not None for name in gibbon.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'evalute'"):
        _ = gibbon.evalute  # type: ignore[attr-defined]
