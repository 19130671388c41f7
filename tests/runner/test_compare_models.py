"""Models compared in pairs and over training seeds, from stored outcomes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import planted
import pytest

from gibbon.core.errors import SpecError
from gibbon.metrics.paired_tests import holm, mcnemar
from gibbon.records.outcomes import read_outcome
from gibbon.records.run import RunRecord
from gibbon.runner.counting.compare_models import MEASURES, mean_and_spread, model_comparisons
from gibbon.runner.plan.make_plan import make_plan
from gibbon.runner.settings import RunSettings
from gibbon.specs.decoding import parse_suite
from gibbon.specs.suite import ModelSpec, Suite

MODELS = ("one", "two", "three")
MakeSuite = Callable[..., Suite]


def wrong_of(record: RunRecord, folder: Path, model: str, attack: str) -> np.ndarray:
    """The examples that a model misclassifies clean or under an attack, from the outcomes."""
    found = np.zeros(0, dtype=bool)
    for row in record.evaluations:
        if row.model == model and row.attack in ("none", attack):
            outcome = read_outcome(folder / "outcomes", row.digest)
            assert outcome is not None
            wrong = outcome.any_misclassified
            found = wrong if not len(found) else found | wrong
    return found


def test_pairs_are_compared_on_the_same_examples(
    run: planted.Run, suite: MakeSuite, tmp_path: Path
) -> None:
    record = run(suite({"name": "fgsm", "epsilon": "0.2"}, models=MODELS))
    wrong = {name: wrong_of(record, tmp_path / "run", name, "fgsm") for name in MODELS}
    assert len(record.comparisons) == 3
    p_values = []
    for row in record.comparisons:
        first, second = wrong[row.first], wrong[row.second]
        assert row.only_first == np.count_nonzero(first & ~second)
        assert row.only_second == np.count_nonzero(second & ~first)
        assert (row.first_error, row.second_error) == (first.mean(), second.mean())
        assert (row.examples, str(row.epsilon), row.clip) == (len(first), "0.2", True)
        p_values.append(mcnemar(row.only_first, row.only_second))
        fewer = row.first if row.only_first < row.only_second else row.second
        assert row.more_robust == (fewer if row.p_value < 0.05 else "")
        assert row.examples_needed is None or not row.more_robust
    assert [row.p_value for row in record.comparisons] == holm(p_values)


def test_models_under_different_attacks_are_not_compared(
    run: planted.Run, suite: MakeSuite, tmp_path: Path
) -> None:
    written = suite("fgsm", "noise-sign", models=("one", "two"))
    record = run(written)
    (experiment,) = make_plan(written, RunSettings(device="cpu")).experiments
    outcomes = {
        row.digest: outcome
        for row in record.evaluations
        if (outcome := read_outcome(tmp_path / "run" / "outcomes", row.digest)) is not None
    }
    assert len(list(model_comparisons(experiment, outcomes))) == 1
    lost = next(row for row in record.evaluations if (row.model, row.attack) == ("two", "fgsm"))
    del outcomes[lost.digest]  # as if that cell had failed: a worst case over fewer attacks
    assert list(model_comparisons(experiment, outcomes)) == []


def test_one_model_is_compared_with_nothing(run: planted.Run, suite: MakeSuite) -> None:
    assert run(suite("fgsm")).comparisons == ()


def test_seeds_have_mean_spread_and_number(run: planted.Run, suite: MakeSuite) -> None:
    models = ({"model": "one", "seeds_of": "net"}, {"model": "two", "seeds_of": "net"}, "three")
    record = run(suite("fgsm", models=models))
    assert [(row.seeds_of, row.attack, row.n) for row in record.seeds] == [
        ("net", "none", 2),
        ("net", "fgsm", 2),
    ]
    for row in record.seeds:
        own = [
            each
            for each in record.evaluations
            if each.attack == row.attack and each.model in ("one", "two")
        ]
        for measure in MEASURES:
            values = [getattr(each, measure) for each in own]
            if None in values:
                assert getattr(row, f"{measure}_mean") is None
                continue
            assert math.isclose(getattr(row, f"{measure}_mean"), mean(values), abs_tol=1e-12)
            assert math.isclose(getattr(row, f"{measure}_sd"), stdev(values), abs_tol=1e-12)


def test_a_group_of_which_a_model_failed_has_no_mean(run: planted.Run, suite: MakeSuite) -> None:
    models = ({"model": "one", "seeds_of": "net"}, {"model": "two", "seeds_of": "net"})
    record = run(suite("raises", models=models))
    assert [row.attack for row in record.seeds] == ["none"]


def test_one_model_has_no_spread() -> None:
    assert mean_and_spread([0.25]) == (0.25, None)


def test_seeds_of_is_a_key_of_a_model_and_not_of_its_identity(
    run: planted.Run, suite: MakeSuite
) -> None:
    plain = run(suite("fgsm", models=("one",)))
    grouped = run(suite("fgsm", models=({"model": "one", "seeds_of": "net"},)))
    assert grouped.provenance.reused_cells == len(plain.evaluations)
    assert ModelSpec(name="one", model="one").model_dump() == {
        "name": "one",
        "model": "one",
        "weights": None,
    }


def test_a_misspelt_key_names_the_right_one() -> None:
    text = 'name = "a"\ndataset = "mnist"\n[[models]]\nmodel = "softmax"\nseed_of = "net"\n'
    with pytest.raises(SpecError, match="seeds_of"):
        parse_suite(text, where="a.toml")


def test_means_have_intervals_and_errors_alone_have_none(
    run: planted.Run, suite: MakeSuite
) -> None:
    record = run(suite("fgsm"))
    for row in record.evaluations:
        low, high = row.mean_confidence_low, row.mean_confidence_high
        assert row.mean_confidence is not None
        assert low is not None
        assert high is not None
        assert low <= row.mean_confidence <= high
    alone = run(suite("fgsm", error_only=True), "alone")
    (row,) = [each for each in alone.evaluations if not each.unattacked]
    assert (row.mean_confidence, row.mean_confidence_low, row.mean_confidence_high) == (None,) * 3


def test_the_record_and_its_tables_hold_comparisons_and_seeds(
    run: planted.Run, suite: MakeSuite, tmp_path: Path
) -> None:
    from gibbon.report import write_report

    models = ({"model": "one", "seeds_of": "net"}, {"model": "two", "seeds_of": "net"})
    run(suite("fgsm", models=models), publish=write_report)
    folder = tmp_path / "run"
    stored: dict[str, Any] = json.loads((folder / "run.json").read_text())
    assert len(stored["comparisons"]) == 1
    assert len((folder / "training_seeds.csv").read_text().splitlines()) == 3
    assert len((folder / "model_comparisons.csv").read_text().splitlines()) == 2
    assert "## Over training seeds" in (folder / "tables.md").read_text()
    run(suite("fgsm"), publish=write_report)
    assert not (folder / "training_seeds.csv").exists()
    assert not (folder / "model_comparisons.csv").exists()
