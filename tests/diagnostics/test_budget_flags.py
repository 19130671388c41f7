"""Budgets that are as wide as the box are flagged, and no others."""

from __future__ import annotations

import pytest

from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel
from gibbon.diagnostics.budget_flags import budget_flags, small_budget_flags


@pytest.mark.parametrize(
    ("epsilon", "bounds", "sentence"),
    [
        ("8", Bounds(0, 1), "epsilon 8 is as wide as the box [0, 1]: did you mean 8/255?"),
        ("1", Bounds(0, 1), "epsilon 1 is as wide as the box [0, 1]: did you mean 1/255?"),
        ("1.5", Bounds(0, 1), "epsilon 1.5 is as wide as the box [0, 1]"),
        ("300", Bounds(0, 1), "epsilon 300 is as wide as the box [0, 1]"),
        ("2", Bounds(-1, 1), "epsilon 2 is as wide as the box [-1, 1]: did you mean 2/255?"),
    ],
)
def test_a_budget_as_wide_as_the_box_is_flagged(
    epsilon: str, bounds: Bounds, sentence: str
) -> None:
    threat = ThreatModel(Norm.LINF, Epsilon.parse(epsilon), bounds)
    (flag,) = budget_flags("mnist", "pgd", [threat])
    assert (flag.kind, flag.sentence) == ("wide-budget", sentence)
    assert flag.subject == f"mnist, pgd at epsilon {epsilon}"


@pytest.mark.parametrize(
    "threat",
    [
        ThreatModel(Norm.LINF, Epsilon.parse("254/255"), Bounds(0, 1)),
        ThreatModel(Norm.LINF, Epsilon.parse("1"), Bounds(-1, 1)),
        ThreatModel(Norm.LINF, Epsilon.parse("8"), None),
        ThreatModel(Norm.L2, Epsilon.parse("8"), Bounds(0, 1)),
    ],
)
def test_a_budget_within_the_box_or_without_one_is_not_flagged(threat: ThreatModel) -> None:
    assert list(budget_flags("mnist", "pgd", [threat])) == []


@pytest.mark.parametrize(
    ("norm", "epsilon", "flagged"),
    [
        (Norm.L1, "0.3", True),
        (Norm.L1, "8/255", True),
        (Norm.L1, "0.5", False),
        (Norm.L1, "12", False),
        (Norm.L2, "8/255", True),
        (Norm.L2, "36/255", False),
        (Norm.L2, "0.5", False),
        (Norm.LINF, "0.001", True),
        (Norm.LINF, "1/255", False),
    ],
)
def test_a_budget_of_another_norm_is_flagged(norm: Norm, epsilon: str, flagged: bool) -> None:
    threat = ThreatModel(norm, Epsilon.parse(epsilon), Bounds(0, 1))
    found = [each.kind for each in small_budget_flags("mnist", "pgd", [threat])]
    assert found == ["tiny-budget"] * flagged
