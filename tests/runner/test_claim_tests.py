"""Claims of a suite, tested on stored outcomes: each measure against the rows of the tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest

from gibbon.metrics.order_tests import BINOMIAL, MCNEMAR, OVER_TRAININGS
from gibbon.metrics.paired_tests import holm, mcnemar
from gibbon.records.outcomes import read_outcome
from gibbon.specs.suite import Suite

MakeSuite = Callable[..., Suite]
FGSM = {"name": "fgsm", "epsilon": "0.2"}
UNDER = {"attack": "fgsm", "epsilon": "0.2"}


def side(model: str, measure: str, **more: Any) -> dict[str, Any]:
    return {"dataset": "squares", "model": model, "measure": measure, **more}


def claim(name: str, first: dict[str, Any], second: dict[str, Any] | float) -> dict[str, Any]:
    other = {"constant": second} if isinstance(second, float) else {"second": second}
    return {"id": name, "section": "1", "text": name, "order": "lower", "first": first, **other}


def test_errors_are_compared_by_mcnemar_and_corrected_together(
    run: planted.Run, suite: MakeSuite, tmp_path: Path
) -> None:
    claims = [
        claim("rises", side("one", "clean_error"), side("one", "adversarial_error", **UNDER)),
        claim("same", side("one", "clean_error"), side("one", "clean_error")),
        claim("constant", side("two", "adversarial_error", **UNDER), 0.5),
        claim("not-run", side("rbf", "clean_error"), 0.5),
    ]
    record = run(suite(FGSM, models=("one", "two"), claims=claims))
    assert [each.id for each in record.claims] == ["rises", "same", "constant"]
    rows = {(each.model, each.attack): each for each in record.evaluations}
    wrong = {}
    for attack in ("none", "fgsm"):
        outcome = read_outcome(tmp_path / "run" / "outcomes", rows["one", attack].digest)
        assert outcome is not None
        wrong[attack] = outcome.any_misclassified
    only_clean = int(np.count_nonzero(wrong["none"] & ~wrong["fgsm"]))
    only_attacked = int(np.count_nonzero(wrong["fgsm"] & ~wrong["none"]))
    rises, same, constant = record.claims
    assert (rises.test, same.test, constant.test) == (MCNEMAR, MCNEMAR, BINOMIAL)
    assert (rises.first, rises.second) == (
        rows["one", "none"].clean_error,
        rows["one", "fgsm"].adversarial_error,
    )
    assert (same.difference, same.p_value, same.holds) == (0.0, 1.0, None)
    raw = mcnemar(only_clean, only_attacked)
    assert rises.p_value in {min(1.0, factor * raw) for factor in (1, 2, 3)}
    assert rises.p_value >= holm([raw])[0]
    assert (rises.first_trainings, rises.second_trainings) == (1, 1)
    assert (constant.second_trainings, constant.models) == (0, ("two",))


@pytest.mark.parametrize(
    ("measure", "more"),
    [
        ("clean_error", {}),
        ("adversarial_error", UNDER),
        ("worst_case_error", UNDER),
        ("mean_confidence", UNDER),
        ("mean_confidence", {}),
        ("confidence_on_misclassified", UNDER),
        ("transfer_error", {"target": "two", **UNDER}),
        ("same_class_given_source_misclassified", {"target": "two", **UNDER}),
        ("same_class_given_both_misclassified", {"target": "two", **UNDER}),
        ("same_class_given_both_misclassified", {"target": "two", "compared_with": "three"}),
    ],
)
def test_a_measure_of_a_claim_is_that_of_the_tables(
    run: planted.Run, suite: MakeSuite, measure: str, more: dict[str, Any]
) -> None:
    if "compared_with" in more:
        more = {**more, **UNDER}
    claims = [claim("it", side("one", measure, **more), 0.0)]
    record = run(
        suite(FGSM, models=("one", "two", "three"), transfer=("fgsm",), claims=claims),
        pictures=False,
    )
    found = {each.id: each.first for each in record.claims}
    attack = more.get("attack", "none")
    expected: float | None
    if "compared_with" in more:
        (agreed,) = [e for e in record.agreements if e.source == "one" and e.attack == attack]
        expected = agreed.same_class_given_both_misclassified
    elif "target" in more:
        (moved,) = [e for e in record.transfers if (e.source, e.target) == ("one", "two")]
        expected = getattr(moved, "error" if measure == "transfer_error" else measure)
    else:
        (row,) = [e for e in record.evaluations if (e.model, e.attack) == ("one", attack)]
        expected = getattr(row, measure)
    assert found.get("it") == (None if expected is None else pytest.approx(expected))


def test_trainings_of_a_model_are_one_measure(run: planted.Run, suite: MakeSuite) -> None:
    models = [{"name": name, "model": name, "seeds_of": "net"} for name in ("one", "two")]
    claims = [
        claim("mean", side("net", "clean_error"), side("three", "clean_error")),
        claim("missing", side("nets", "clean_error"), 0.5),
        claim("each", side("net", "transfer_error", target="three", **UNDER), 0.5),
    ]
    record = run(
        suite(FGSM, models=(*models, "three"), transfer=("fgsm",), claims=claims), pictures=False
    )
    mean, each = record.claims
    clean = {e.model: e.clean_error for e in record.evaluations if e.unattacked}
    assert mean.first == pytest.approx((clean["one"] + clean["two"]) / 2)  # type: ignore[operator]
    assert (mean.first_trainings, mean.second_trainings) == (2, 1)
    assert mean.test.endswith(OVER_TRAININGS)
    assert mean.models == ("one", "two", "three")
    moved = {e.source: e.error for e in record.transfers if e.target == "three"}
    assert each.first == pytest.approx((moved["one"] + moved["two"]) / 2)  # type: ignore[operator]
    assert (each.id, each.second_trainings) == ("each", 0)


def test_inputs_without_a_class_are_compared_too(run: planted.Run, suite: MakeSuite) -> None:
    noise = {"name": "noise", "source": "rubbish:uniform", "count": 40}
    experiments = [
        {"dataset": "squares", "models": ["one", "two"], "attacks": [FGSM]},
        {"dataset": noise, "models": ["one", "two"], "threshold": 0.3},
    ]
    rate, sure = "false_positive_rate", "confidence_on_false_positives"
    claims = [
        claim(
            "fewer",
            {"dataset": "noise", "model": "one", "measure": rate},
            {"dataset": "noise", "model": "two", "measure": rate},
        ),
        claim("sure", {"dataset": "noise", "model": "one", "measure": sure}, 0.5),
        claim("with-classes", side("one", rate), 0.5),
    ]
    written = {"name": "planted", "experiments": experiments, "claims": claims}
    record = run(Suite.model_validate(written), pictures=False)
    found = {each.id: each for each in record.claims}
    rows = {each.model: each for each in record.no_class}
    assert found["fewer"].test == MCNEMAR
    assert (found["fewer"].first, found["fewer"].second) == (
        rows["one"].false_positive_rate,
        rows["two"].false_positive_rate,
    )
    expected = rows["one"].confidence_on_false_positives
    assert ("sure" in found) == (expected is not None)
    if expected is not None:
        assert found["sure"].first == pytest.approx(expected)
    assert "with-classes" not in found


def test_a_claim_that_is_changed_is_tested_again_without_a_new_cell(
    run: planted.Run, suite: MakeSuite
) -> None:
    before = run(suite(FGSM), pictures=False)
    claims = [claim("it", side("one", "clean_error"), 0.25)]
    after = run(suite(FGSM, claims=claims), pictures=False)
    assert before.claims == ()
    assert [each.id for each in after.claims] == ["it"]
    assert after.provenance.computed_cells == 0
