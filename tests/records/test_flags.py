"""Flags: said where something is wrong, and only there."""

import numpy as np
import pytest
from made_up import made_up_record

from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel, Verdict
from gibbon.metrics.rates import Share
from gibbon.records.flags import (
    MASKING,
    Flag,
    budget_flags,
    candidate_flags,
    masking_flags,
    read_flags,
)
from gibbon.records.run import Evaluation, Transfer

NAN = float("nan")


def flags(
    verdict=(0, 0, 0, 0), distance=(0.1, 0.1, 0.1, 0.1), *, epsilon=0.1, zero=None, done=None
):
    return list(
        candidate_flags(
            np.array(verdict, dtype=np.int64),
            np.array(distance, dtype=np.float32),
            epsilon=epsilon,
            zero_gradient=None if zero is None else np.array(zero, dtype=bool),
            done=np.array(done or [False] * len(verdict)),
        )
    )


def test_a_sound_cell_has_no_flag():
    assert flags() == []
    assert flags(zero=[False] * 4) == []


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Verdict.NOT_FINITE, "not finite"),
        (Verdict.OUT_OF_BOUNDS, "out of bounds"),
        (Verdict.OUT_OF_BUDGET, "out of budget"),
    ],
)
def test_invalid_candidates_are_counted(verdict, words):
    (flag,) = flags(verdict=[0, verdict, verdict, 0])
    assert flag == f"2 of 4 candidates {words}: not counted as adversarial"


def test_kinds_of_invalid_candidates_are_told_apart():
    assert len(flags(verdict=[1, 2, 3, 3])) == 3


def test_an_attack_that_returned_its_inputs_is_told():
    assert flags(distance=[0, 0, 0, 0]) == ["the attack returned its inputs unchanged"]
    assert flags(distance=[0, 0, 1e-9, 0]) == []
    assert flags(distance=[0, 0, 0, 0], epsilon=0) == []
    assert len(flags(distance=[0, 0, 0, 0], done=[True, True, False, True])) == 1


def test_an_attack_that_had_nothing_to_do_returned_its_inputs_rightly():
    assert flags(distance=[0, 0, 0, 0], done=[True] * 4) == []


def test_nan_distances_are_no_unchanged_inputs():
    (flag,) = flags(verdict=[1] * 4, distance=[NAN] * 4)
    assert "not finite" in flag


def test_zero_gradients_are_told_from_one_percent_on():
    few = [True] + [False] * 100
    assert flags([0] * 101, [0.1] * 101, zero=few) == []
    (flag,) = flags([0] * 100, [0.1] * 100, zero=few[:100])
    assert flag == "the gradient is zero in every coordinate for 1 of 100 examples"


def row(attack: str, count: int, *, total=1000, epsilon="0.1", **parts) -> Evaluation:
    interval = Share(count, total).interval
    assert interval is not None
    fixed = {"dataset": "mnist", "model": "rbf", "norm": Norm.LINF, "clip": True}
    return Evaluation(
        attack=attack,
        algorithm=parts.pop("algorithm", attack),
        epsilon=Epsilon.parse(epsilon),
        examples=total,
        adversarial_error=count / total,
        adversarial_error_low=interval.low,
        adversarial_error_high=interval.high,
        **{**fixed, **parts},
    )


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        ("noise-uniform", "fgsm"),
        ("noise-sign", "fgsm-naive"),
        ("noise-uniform", "pgd"),
        ("fgsm", "pgd"),
        ("fgsm-naive", "pgd"),
    ],
)
def test_a_stronger_attack_that_finds_less_is_a_sign(weaker, stronger):
    (flag,) = masking_flags([row(weaker, 500), row(stronger, 300)], [])
    assert flag == (
        f"mnist, rbf, epsilon 0.1: {weaker} finds more errors than {stronger}, {MASKING}"
    )
    assert list(masking_flags([row(weaker, 300), row(stronger, 500)], [])) == []


def test_attacks_of_one_rank_are_not_compared():
    rows = [row("fgsm", 300), row("fgsm-naive", 600), row("pgd", 700), row("other", 900)]
    assert list(masking_flags(rows, [])) == []


def test_sampling_alone_raises_no_flag():
    assert list(masking_flags([row("fgsm", 510), row("pgd", 490)], [])) == []


@pytest.mark.parametrize(
    "other",
    [
        {"epsilon": "0.2"},
        {"model": "maxout"},
        {"dataset": "mnist-3v7"},
        {"norm": Norm.L2},
        {"status": "failed"},
    ],
)
def test_only_rows_of_one_threat_model_are_compared(other):
    rows = [row("fgsm", 500), row("pgd", 100, **other)]
    assert list(masking_flags(rows, [])) == []


def test_without_bounds_an_attack_should_find_what_it_finds_within_them():
    (flag,) = masking_flags([row("clipped", 500, algorithm="fgsm"), row("fgsm", 9, clip=False)], [])
    assert "clipped finds more errors than fgsm" in flag
    more = [row("clipped", 9, algorithm="fgsm"), row("fgsm", 500, clip=False)]
    assert list(masking_flags(more, [])) == []


def test_a_stronger_attack_that_is_allowed_less_may_find_less():
    assert list(masking_flags([row("fgsm", 500, clip=False), row("pgd", 300)], [])) == []


def test_attacks_of_other_people_are_not_ranked():
    assert list(masking_flags([row("fgsm", 500), row("somebodys-own", 9)], [])) == []


def test_a_label_does_not_hide_the_algorithm():
    rows = [row("one-step", 500, algorithm="fgsm"), row("many", 300, algorithm="pgd")]
    (flag,) = masking_flags(rows, [])
    assert "one-step finds more errors than many" in flag


def transfer(count: int, *, source="maxout", target="rbf", epsilon="0.1", **parts) -> Transfer:
    interval = Share(count, 1000).interval
    assert interval is not None
    return Transfer(
        dataset="mnist",
        source=source,
        target=target,
        attack="fgsm",
        epsilon=Epsilon.parse(epsilon),
        examples=1000,
        error=count / 1000,
        error_low=interval.low,
        error_high=interval.high,
        **parts,
    )


def test_examples_of_another_model_that_find_more_are_a_sign():
    (flag,) = masking_flags([row("fgsm", 300)], [transfer(500)])
    assert flag == (
        "mnist, rbf, fgsm at epsilon 0.1: examples made on maxout find more errors than its own, "
        + MASKING
    )


@pytest.mark.parametrize(
    "harmless",
    [
        transfer(310),
        transfer(500, source="rbf"),
        transfer(500, target="softmax"),
        transfer(500, epsilon="0.2"),
        transfer(500, status="failed"),
    ],
)
def test_other_transfers_are_no_sign(harmless):
    assert list(masking_flags([row("fgsm", 300)], [harmless])) == []


@pytest.mark.parametrize(
    ("epsilon", "bounds", "said"),
    [
        ("8", Bounds(0, 1), "epsilon 8 is as wide as the box [0, 1]: did you mean 8/255?"),
        ("1", Bounds(0, 1), "epsilon 1 is as wide as the box [0, 1]: did you mean 1/255?"),
        ("1.5", Bounds(0, 1), "epsilon 1.5 is as wide as the box [0, 1]"),
        ("300", Bounds(0, 1), "epsilon 300 is as wide as the box [0, 1]"),
        ("2", Bounds(-1, 1), "epsilon 2 is as wide as the box [-1, 1]: did you mean 2/255?"),
    ],
)
def test_a_budget_as_wide_as_the_box_is_flagged(epsilon, bounds, said):
    threat = ThreatModel(Norm.LINF, Epsilon.parse(epsilon), bounds)
    assert list(budget_flags("pgd", [threat])) == [f"pgd: {said}"]


@pytest.mark.parametrize(
    "threat",
    [
        ThreatModel(Norm.LINF, Epsilon.parse("254/255"), Bounds(0, 1)),
        ThreatModel(Norm.LINF, Epsilon.parse("1"), Bounds(-1, 1)),
        ThreatModel(Norm.LINF, Epsilon.parse("8"), None),
        ThreatModel(Norm.L2, Epsilon.parse("8"), Bounds(0, 1)),
    ],
)
def test_a_budget_within_the_box_or_without_one_is_not_flagged(threat):
    assert list(budget_flags("pgd", [threat])) == []


def test_stored_flags_are_read_with_the_model_that_they_are_about():
    record = made_up_record()
    rows = [row("fgsm", 500, model="softmax"), row("pgd", 300, model="softmax")]
    (masking,) = masking_flags(rows, [])
    sentences = (masking, "mnist, maxout: unsteady", "mnist, pgd: any image is in reach")
    assert read_flags(record.model_copy(update={"flags": sentences})) == (
        Flag(masking.removesuffix(f", {MASKING}"), "mnist", "softmax", masking=True),
        Flag("mnist, maxout: unsteady", "mnist", "maxout", masking=False),
        Flag("mnist, pgd: any image is in reach", "", "", masking=False),
    )
