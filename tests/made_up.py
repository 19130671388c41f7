"""A made-up run that holds every case a report must cope with, and the golden files made from it.

To write the golden files again after a change that is meant: python tests/made_up.py
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

from gibbon.core.threat import Epsilon, Norm
from gibbon.metrics.intervals import wilson_interval
from gibbon.records.checks import CheckDone
from gibbon.records.flags import Flag
from gibbon.records.run import (
    Agreement,
    DatasetCard,
    Evaluation,
    Failure,
    MemberEvaluation,
    ModelCard,
    ModelComparison,
    Provenance,
    RunRecord,
    SeedStatistics,
    Transfer,
    WorstCase,
)
from gibbon.records.tested_claims import ClaimTest
from gibbon.specs.decoding import parse_suite

GOLDEN = Path(__file__).parent / "report" / "golden"

# For records of which nobody asks where they come from.
NOWHERE = Provenance(
    gibbon="1", commit="", dirty=None, python="3", libraries={}, platform="", device="cpu",
    threads=1, batch_size=1, limit=None, started="",
)  # fmt: skip

SUITE = """
name = "made-up"
title = "A made-up | run"
description = "Every case that a report must cope with."
source = "Nobody (2026), made up"

[[experiments]]
dataset = "mnist"
models = ["softmax", "maxout", "broken"]
[[experiments.attacks]]
name = "fgsm"
epsilon = ["8/255", "0.25"]
clip = false
[[experiments.attacks]]
name = "fgsm-naive"
epsilon = "0.25"
clip = false
[[experiments.attacks]]
name = "pgd"
epsilon = "0.25"
steps = 5
[experiments.transfer]
attacks = ["fgsm"]

[[experiments]]
dataset = "mnist-3v7"
models = ["logistic"]
[[experiments.attacks]]
name = "fgsm"
epsilon = "0.25"
clip = false

[[claims]]
id = "maxout-errs-less"
section = "4"
text = "a deep network | errs less than a linear one"
order = "lower"
note = "of another size"
[claims.first]
dataset = "mnist"
model = "maxout"
measure = "adversarial_error"
attack = "fgsm"
epsilon = "0.25"
[claims.second]
dataset = "mnist"
model = "softmax"
measure = "adversarial_error"
attack = "fgsm"
epsilon = "0.25"

[[claims]]
id = "maxout-is-better-than-nothing"
section = "4"
text = "a deep network errs less than half of the time"
order = "lower"
constant = 0.5
[claims.first]
dataset = "mnist"
model = "maxout"
measure = "adversarial_error"
attack = "fgsm"
epsilon = "0.25"

[[claims]]
id = "broken-is-sure"
section = "6"
text = "a broken network is sure of itself"
order = "higher"
constant = 0.5
needs = "a network that works"
[claims.first]
dataset = "mnist"
model = "broken"
measure = "confidence_on_misclassified"
attack = "fgsm"
epsilon = "0.25"

[[published]]
section = "4"
dataset = "mnist"
model = "softmax"
attack = ["fgsm", "fgsm-naive"]
epsilon = "0.25"
measure = "adversarial_error"
value = 0.999

[[published]]
section = "4"
dataset = "mnist"
model = "maxout"
attack = ["fgsm", "fgsm-naive"]
epsilon = "0.25"
measure = "confidence_on_misclassified"
value = 0.976

[[published]]
section = "5"
dataset = "mnist-3v7"
model = "logistic"
measure = "clean_error"
value = 0.016

[[published]]
section = "5"
dataset = "mnist-3v7"
model = "logistic"
attack = "fgsm"
epsilon = "0.25"
measure = "confidence_on_misclassified"
value = 0.5

[[published]]
section = "6"
dataset = "mnist"
model = "broken"
attack = ["fgsm", "fgsm-naive"]
epsilon = "0.25"
measure = "adversarial_error"
value = 0.179
note = "published for another size"

[[published]]
section = "6"
dataset = "mnist"
model = "broken"
target = "maxout"
attack = ["fgsm"]
epsilon = "0.25"
measure = "transfer_error"
value = 0.409
note = "published for another size"

[[published]]
section = "6"
dataset = "mnist"
model = "maxout"
target = "softmax"
attack = ["fgsm"]
epsilon = "0.25"
measure = "transfer_error"
value = 0.196

[[published]]
section = "7"
dataset = "mnist"
model = "rbf"
attack = ["fgsm"]
epsilon = "0.25"
measure = "adversarial_error"
value = 0.554

[[published]]
section = "7"
dataset = "mnist"
model = "softmax"
measure = "mean_confidence"
value = 0.606

[[published]]
section = "8"
dataset = "mnist"
model = "maxout"
target = "softmax"
attack = ["fgsm"]
epsilon = "0.25"
measure = "same_class_given_source_misclassified"
value = 0.546

[[published]]
section = "8"
dataset = "mnist"
model = "maxout"
target = "softmax"
attack = ["fgsm"]
epsilon = "0.25"
measure = "same_class_given_both_misclassified"
value = 0.846

[[published]]
section = "8"
dataset = "mnist"
model = "softmax"
target = "maxout"
compared_with = "softmax"
attack = ["fgsm"]
epsilon = "0.25"
measure = "same_class_given_both_misclassified"
value = 0.536
"""

EXAMPLES = 1000
LOW, HIGH = Epsilon.parse("8/255"), Epsilon.parse("0.25")
CLEAN = {"softmax": 96, "maxout": 11, "logistic": 16}


def rate(name: str, part: int, whole: int) -> dict[str, Any]:
    """Returns a rate and its interval, as the fields of a record."""
    if whole == 0:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    ends = wilson_interval(part, whole)
    return {name: part / whole, f"{name}_low": ends.low, f"{name}_high": ends.high}


def clean(dataset: str, model: str, *, confidence: float) -> Evaluation:
    """Returns an unattacked row."""
    wrong = CLEAN[model]
    return Evaluation(
        dataset=dataset,
        model=model,
        attack="none",
        epsilon=Epsilon.parse("0"),
        examples=EXAMPLES,
        clean_correct=EXAMPLES - wrong,
        mean_confidence=confidence,
        forward_passes=EXAMPLES,
        seconds=0.5,
        misclassified=wrong,
        confidence_on_misclassified=0.5,
        algorithm="none",
        **rate("clean_error", wrong, EXAMPLES),
        **rate("adversarial_error", wrong, EXAMPLES),
        **rate("worst_case_error", wrong, EXAMPLES),
    )


def attacked(
    dataset: str, model: str, attack: str, epsilon: Epsilon, wrong: int, **more: Any
) -> Evaluation:
    """Returns an attacked row; clean mistakes are among ``wrong`` where there is room."""
    correct = EXAMPLES - CLEAN[model]
    beaten = max(wrong - CLEAN[model], 0)
    fields: dict[str, Any] = {
        **rate("clean_error", CLEAN[model], EXAMPLES),
        **rate("adversarial_error", wrong, EXAMPLES),
        **rate("attack_success_rate", beaten, correct),
        **rate("worst_case_error", beaten + CLEAN[model], EXAMPLES),
        "confidence_on_misclassified": 0.793 if wrong else None,
        "confidence_on_misclassified_low": 0.781 if wrong else None,
        "confidence_on_misclassified_high": 0.804 if wrong else None,
        "mean_confidence": 0.81,
        "mean_confidence_low": 0.8,
        "mean_confidence_high": 0.819,
        "misclassified": wrong,
        "clean_correct": correct,
        "saturated_share": 0.125,
        "zero_gradient_share": 0.0,
        "invalid_candidates": 0,
        "mean_distance": float(epsilon),
        "max_distance": float(epsilon),
        "algorithm": attack,
        "norm": Norm.LINF,
        "clip": attack == "pgd",
        "iterate": "last",
        "parameters": '{"steps": 5, "step_size": null, "random_start": true, "keep": "last"}'
        if attack == "pgd"
        else "{}",
        "forward_passes": 3 * EXAMPLES,
        "backward_passes": EXAMPLES,
        "seconds": 1.25,
        "digest": "0123abcd",
    }
    return Evaluation(
        dataset=dataset, model=model, attack=attack, epsilon=epsilon, examples=EXAMPLES,
        **(fields | more),
    )  # fmt: skip


def failed(attack: str, epsilon: Epsilon) -> Evaluation:
    """Returns the row of a failed cell."""
    return Evaluation(
        dataset="mnist",
        model="broken",
        attack=attack,
        epsilon=epsilon,
        examples=EXAMPLES,
        status="failed",
    )


def transfer(source: str, target: str, epsilon: Epsilon, counts: tuple[int, ...]) -> Transfer:
    """Returns a transfer row: of ``wrong, misled, both, same`` examples."""
    wrong, misled, both, same = counts
    fields: dict[str, Any] = {
        **rate("error", wrong, EXAMPLES),
        **rate("error_given_source_misclassified", both, misled),
        **rate("same_class_given_source_misclassified", same, misled),
        **rate("same_class_given_both_misclassified", same, both),
    }
    return Transfer(
        dataset="mnist",
        source=source,
        target=target,
        attack="fgsm",
        epsilon=epsilon,
        examples=EXAMPLES,
        source_misclassified=misled,
        both_misclassified=both,
        target_clean_error=CLEAN[target] / EXAMPLES if target in CLEAN else None,
        **fields,
    )


def transfers() -> tuple[Transfer, ...]:
    """Returns all pairs of the two models that work; ``broken`` failed as a source."""
    found = []
    for epsilon in (LOW, HIGH):
        wrong = {"softmax": 300, "maxout": 200} if epsilon == LOW else {
            "softmax": 999, "maxout": 894}  # fmt: skip
        for source in wrong:
            for target in wrong:
                misled = wrong[source]
                both = misled if source == target else misled // 2
                same = both if source == target else both // 3
                found.append(transfer(source, target, epsilon, (wrong[target], misled, both, same)))
    return tuple(found)


def agreements() -> tuple[Agreement, ...]:
    """Returns the agreement of the two models that work, on each one's examples."""
    return tuple(
        Agreement(
            dataset="mnist",
            source=source,
            first=first,
            second=second,
            attack="fgsm",
            epsilon=epsilon,
            examples=EXAMPLES,
            both_misclassified=0 if epsilon == LOW else 450,
            **rate("same_class_given_both_misclassified", 240, 0 if epsilon == LOW else 450),
        )
        for epsilon in (LOW, HIGH)
        for source in ("softmax", "maxout")
        for first, second in combinations(("softmax", "maxout"), 2)
    )


def worst_case(model: str, *, clip: bool, attacks: tuple[str, ...], wrong: int) -> WorstCase:
    """Returns a worst case over attacks."""
    fields: dict[str, Any] = rate("worst_case_error", wrong, EXAMPLES)
    return WorstCase(
        dataset="mnist",
        model=model,
        norm=Norm.LINF,
        epsilon=HIGH,
        clip=clip,
        attacks=attacks,
        examples=EXAMPLES,
        misclassified=wrong,
        **fields,
    )


def comparison(*, clip: bool, only: tuple[int, int], p_value: float) -> ModelComparison:
    """Returns a comparison of the two models that work."""
    return ModelComparison(
        dataset="mnist",
        first="softmax",
        second="maxout",
        norm=Norm.LINF,
        epsilon=HIGH,
        clip=clip,
        examples=EXAMPLES,
        first_error=0.9,
        second_error=0.9 + (only[1] - only[0]) / EXAMPLES,
        only_first=only[0],
        only_second=only[1],
        p_value=p_value,
        more_robust="" if p_value >= 0.05 else "maxout",
        examples_needed=3923 if p_value >= 0.05 else None,
    )


def claim_tests() -> tuple[ClaimTest, ...]:
    """Returns a claim that holds and one that is the other way round."""
    fixed = {"order": "lower", "examples": 1000, "first": 0.894, "first_trainings": 1}
    mcnemar, binomial = "McNemar's exact test", "exact binomial test"
    lower = {"difference": -0.105, "difference_low": -0.124, "difference_high": -0.086}
    higher = {"difference": 0.394, "difference_low": 0.375, "difference_high": 0.413}
    return (
        ClaimTest.model_validate(
            {
                **fixed,
                **lower,
                "id": "maxout-errs-less",
                "second": 0.999,
                "second_trainings": 1,
                "test": mcnemar,
                "p_value": 0.00012,
                "models": ("maxout", "softmax"),
            }
        ),
        ClaimTest.model_validate(
            {
                **fixed,
                **higher,
                "id": "maxout-is-better-than-nothing",
                "second": 0.5,
                "second_trainings": 0,
                "test": binomial,
                "p_value": 0.0214,
                "models": ("maxout",),
            }
        ),
    )


def seed_statistics() -> tuple[SeedStatistics, ...]:
    """Returns the spread over two seeds, of which one has no confidence under attack."""
    fixed = {"dataset": "mnist", "seeds_of": "maxout", "n": 2, "models": ("maxout", "softmax")}
    error = {"adversarial_error_mean": 0.0535, "adversarial_error_sd": 0.0601}
    return (
        SeedStatistics(attack="none", epsilon=Epsilon.parse("0"), **fixed, **error),
        SeedStatistics(attack="fgsm", epsilon=HIGH, **fixed, **error, mean_confidence_mean=0.8),
    )


def made_up_record() -> RunRecord:
    """Returns the made-up run."""
    epsilons = (("fgsm", LOW), ("fgsm", HIGH), ("fgsm-naive", HIGH))
    return RunRecord(
        suite=parse_suite(SUITE, where="made-up.toml"),
        status="failed",
        provenance=Provenance(
            gibbon="0.1.0",
            commit="abc1234",
            dirty=True,
            python="3.11.7",
            libraries={"torch": "2.15.0", "numpy": "2.4.6"},
            platform="a platform that is not printed",
            device="cpu",
            threads=2,
            batch_size=500,
            limit=EXAMPLES,
            started="2026-11-21T12:00:00+00:00",
            finished="2026-11-21T12:01:00+00:00",
            seconds=60.0,
            computed_cells=7,
            reused_cells=3,
        ),
        models=tuple(
            ModelCard(
                name=name,
                model="maxout" if name == "broken" else name,
                weights_digest=f"{name}-weights",
                digest=f"{name}-predictions",
                outputs="logits",
                classes=2 if name == "logistic" else 10,
                parameters=7850,
            )
            for name in ("softmax", "maxout", "broken", "logistic")
        ),
        datasets=tuple(
            DatasetCard(
                name=name,
                digest=f"{name}-digest",
                examples=EXAMPLES,
                of=of,
                classes=classes,
                input_shape=(1, 28, 28),
            )
            for name, of, classes in (
                ("mnist", 10000, tuple("0123456789")),
                ("mnist-3v7", 2038, ("3", "7")),
            )
        ),
        evaluations=(
            clean("mnist", "softmax", confidence=0.61),
            attacked("mnist", "softmax", "fgsm", LOW, 300),
            attacked("mnist", "softmax", "fgsm", HIGH, 999),
            attacked("mnist", "softmax", "fgsm-naive", HIGH, 999),
            attacked("mnist", "softmax", "pgd", HIGH, 1000),
            clean("mnist", "maxout", confidence=0.99),
            attacked("mnist", "maxout", "fgsm", LOW, 200),
            attacked("mnist", "maxout", "fgsm", HIGH, 894),
            attacked("mnist", "maxout", "fgsm-naive", HIGH, 850, confidence_on_misclassified=0.9),
            attacked("mnist", "maxout", "pgd", HIGH, 990),
            failed("none", Epsilon.parse("0")),
            *(failed(attack, epsilon) for attack, epsilon in epsilons),
            clean("mnist-3v7", "logistic", confidence=0.97),
            attacked("mnist-3v7", "logistic", "fgsm", HIGH, 0),
        ),
        transfers=transfers(),
        agreements=agreements(),
        worst_cases=(
            worst_case("softmax", clip=False, attacks=("fgsm", "fgsm-naive"), wrong=1000),
            worst_case("softmax", clip=True, attacks=("pgd",), wrong=1000),
            worst_case("maxout", clip=False, attacks=("fgsm", "fgsm-naive"), wrong=912),
        ),
        comparisons=(
            comparison(clip=False, only=(97, 9), p_value=1e-19),
            comparison(clip=True, only=(30, 20), p_value=0.2),
        ),
        seeds=seed_statistics(),
        claims=claim_tests(),
        failures=tuple(
            Failure(
                dataset="mnist",
                model="broken",
                attack=attack,
                epsilon=epsilon,
                error="ValueError: a|b in <lambda>\nand more",
                traceback="Traceback: not printed",
            )
            for attack, epsilon in (("none", Epsilon.parse("0")), *epsilons)
        ),
        checks=(
            CheckDone(name="budgets", looked_at="5 budgets of the attacks", passed=False),
            CheckDone(name="candidates", looked_at="8 attacked cells | of 3 models", passed=True),
        ),
    ).with_flags(made_up_flags())


def made_up_flags() -> tuple[Flag, ...]:
    """Returns flags of every severity, one of which names lines for the suite."""
    cell = {"dataset": "mnist", "model": "maxout", "attack": "fgsm", "epsilon": HIGH}
    return (
        Flag(
            kind="departs-from-paper",
            dataset="mnist-3v7",
            model="logistic",
            attack="fgsm",
            sentence="the ratio needs 4 classes, the model has 2",
        ),
        Flag(
            kind="wide-budget",
            dataset="mnist",
            attack="pgd",
            epsilon=HIGH,
            figure="0.25 in [0, 1]",
            sentence="a budget of | made-up width",
        ),
        Flag(
            kind="inputs-unchanged",
            figure="9 of 1,000",
            sentence="a flag | of one cell",
            suite='[[attacks]]\nname = "square"\nepsilon = "0.25"',
            **cell,
        ),
        Flag(
            kind="weaker-attack-stronger",
            figure="95.0 % against 89.4 %",
            sentence="noise finds more errors than fgsm",
            **cell,
        ),
    )


SEARCHES = """
name = "searches"

[[experiments]]
dataset = "mnist"
models = ["softmax", "maxout", "broken"]
[[experiments.attacks]]
name = "fmn"
norm = "l2"
epsilon = ["8/255", "0.25"]
[[experiments.attacks]]
name = "deepfool"
epsilon = "0.25"
clip = false
[[experiments.attacks]]
name = "worst-of"
epsilon = "0.25"
attacks = ["fgsm", "apgd-ce", "square"]
"""


def searched(model: str, attack: str, epsilon: Epsilon, wrong: int, **more: Any) -> Evaluation:
    """Returns a row of an attack that looks for the nearest example."""
    norm, clip = (Norm.L2, True) if attack == "fmn" else (Norm.LINF, False)
    return attacked("mnist", model, attack, epsilon, wrong, norm=norm, clip=clip, **more)


def members(model: str, misled: tuple[int, ...]) -> list[MemberEvaluation]:
    """Returns the rows of the list of three attacks, which misled so many each."""
    rows = []
    before = CLEAN[model]
    for name, count in zip(("fgsm", "apgd-ce", "square"), misled, strict=True):
        rows.append(
            MemberEvaluation(
                dataset="mnist",
                model=model,
                attack="worst-of",
                epsilon=HIGH,
                member=name,
                examples=EXAMPLES,
                given=EXAMPLES - before,
                misled=count,
                **rate("error_after", before + count, EXAMPLES),
            )
        )
        before += count
    return rows


def searching_record() -> RunRecord:
    """Returns a made-up run of attacks that look for the nearest example, and of a list."""
    before = made_up_record()
    all_found = {"nearest_found": 1000, "nearest_q10": 0.0, "nearest_median": 0.0823529}
    all_found |= {"nearest_median_low": 0.0801, "nearest_median_high": 0.0849}
    some_found = {"nearest_found": 600, "nearest_q10": 0.000012, "nearest_median": 12.5}
    some_found |= {"nearest_median_low": 10.25}  # the other end is infinite
    lost = {"dataset": "mnist", "model": "broken", "attack": "worst-of", "epsilon": HIGH}
    none = {"examples": EXAMPLES, "status": "failed"}
    return before.model_copy(
        update={
            "suite": parse_suite(SEARCHES, where="searches.toml"),
            "models": before.models[:3],
            "datasets": before.datasets[:1],
            "evaluations": (
                clean("mnist", "softmax", confidence=0.61),
                searched("softmax", "fmn", LOW, 300, **all_found, nearest_q90=1.5),
                searched("softmax", "fmn", HIGH, 700, **all_found, nearest_q90=1.5),
                searched("softmax", "deepfool", HIGH, 96, nearest_found=96, nearest_q10=None),
                attacked("mnist", "softmax", "worst-of", HIGH, 996),
                clean("mnist", "maxout", confidence=0.99),
                failed("fmn", LOW).model_copy(update={"model": "maxout"}),
                searched("maxout", "fmn", HIGH, 600, **some_found),
                attacked("mnist", "maxout", "worst-of", HIGH, 911),
                failed("none", Epsilon.parse("0")),
                failed("fmn", LOW),
                failed("fmn", HIGH),
                failed("worst-of", HIGH),
            ),
            "members": (
                *members("softmax", (700, 200, 0)),
                *members("maxout", (850, 0, 50)),
                *(
                    MemberEvaluation.model_validate({**lost, **none, "member": name})
                    for name in ("fgsm", "apgd-ce", "square")
                ),
            ),
            "transfers": (),
            "agreements": (),
            "worst_cases": (),
            "comparisons": (),
            "seeds": (),
            "claims": (),
            "failures": (),
            "flags": (),
            "checks": before.checks[1:],
        }
    )


def golden_files() -> dict[str, str]:
    """Returns what the golden files hold, as it is made now."""
    from gibbon.report.text.csv import csv_files
    from gibbon.report.text.markdown import tables_markdown

    record = made_up_record()
    searching = searching_record()
    return {
        **csv_files(record),
        "tables.md": tables_markdown(record),
        "searching-members.csv": csv_files(searching)["members.csv"],
        "searching-tables.md": tables_markdown(searching),
    }


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, content in golden_files().items():
        (GOLDEN / name).write_text(content, encoding="utf-8")
