"""The regression gate: what it pairs, what it calls a regression, and how it says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest
from typer.testing import CliRunner

from benchmark.baseline import Content, Key, Side, Wrong, read_side, save_baseline
from benchmark.cli import app
from benchmark.compare import (
    Comparison,
    Limit,
    Limits,
    compare,
    comparison_markdown,
    limits_beside,
    read_limits,
    write_junit,
)
from benchmark.errors import RecordError, SpecError
from benchmark.records import (
    DatasetCard,
    Evaluation,
    ModelCard,
    Provenance,
    RunRecord,
    Verdict,
)
from benchmark.runner.store import Outcome, OutcomeMeta, RunFolder, TargetOutcome
from benchmark.specs import parse_suite
from benchmark.statistics import holm, mcnemar
from benchmark.threat import ZERO, Epsilon

SUITE = """
name = "gate"
dataset = "made-up"
models = ["m"]
[[attacks]]
name = "fgsm"
epsilon = "8/255"
"""
EXAMPLES = 1000


def bits(count: int, *, first: int = 0, size: int = EXAMPLES) -> NDArray[np.bool_]:
    wrong = np.zeros(size, dtype=np.bool_)
    wrong[first : first + count] = True
    return wrong


def side(
    clean: NDArray[np.bool_],
    attacked: NDArray[np.bool_],
    *,
    name: str = "run",
    digest: str = "d",
    model: str = "m",
    ids: NDArray[np.int64] | None = None,
    made: str = "fgsm",
    invalid: int = 0,
) -> Side:
    known = np.arange(len(clean)) if ids is None else ids
    epsilon = Epsilon.parse("8/255")
    unattacked = Key("made-up", model, "none", ZERO, "clean_error")
    under_attack = Key("made-up", model, "fgsm", epsilon, "adversarial_error")
    cells = (
        Wrong(unattacked, "unattacked", 0, known, clean),
        Wrong(under_attack, made, invalid, known, attacked),
    )
    return Side(name, "gate", {"made-up": Content(digest, EXAMPLES)}, cells)


def verdicts(comparison: Comparison) -> list[str]:
    return [each.verdict for each in comparison.measures]


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test_on_what_differs(fixed: int, broken: int) -> None:
    expected = binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    assert mcnemar(fixed, broken) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(fixed, broken) == mcnemar(broken, fixed)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_by_its_definition(p_values: list[float]) -> None:
    count = len(p_values)
    order = sorted(range(count), key=lambda index: p_values[index])
    for place, index in enumerate(order):
        slow = max(min(1.0, (count - rank) * p_values[order[rank]]) for rank in range(place + 1))
        assert holm(p_values)[index] == slow


def test_the_same_run_is_unchanged() -> None:
    one = side(bits(10), bits(400))
    comparison = compare(one, one)
    assert verdicts(comparison) == ["unchanged", "unchanged"]
    assert comparison.passed


def test_significantly_and_much_worse_is_a_regression() -> None:
    comparison = compare(side(bits(10), bits(400)), side(bits(10), bits(440)))
    assert verdicts(comparison) == ["unchanged", "regressed"]
    assert not comparison.passed
    worse = comparison.measures[1]
    assert (worse.fixed, worse.broken, worse.examples) == (0, 40, EXAMPLES)
    assert worse.points == pytest.approx(4.0)


def test_significantly_better_is_improved() -> None:
    comparison = compare(side(bits(10), bits(440)), side(bits(10), bits(400)))
    assert verdicts(comparison) == ["unchanged", "improved"]


def test_worse_within_the_limit_is_unchanged_however_significant() -> None:
    old, new = side(bits(10), bits(400)), side(bits(10), bits(410))
    assert verdicts(compare(old, new)) == ["unchanged", "unchanged"]
    strict = Limits(max_increase=0.9)
    assert verdicts(compare(old, new, limits=strict)) == ["unchanged", "regressed"]


def test_much_worse_by_chance_is_unchanged() -> None:
    old = side(bits(2, size=50), bits(20, size=50))
    new = side(bits(2, size=50), bits(20, first=3, size=50) | bits(2, size=50))
    comparison = compare(old, new)
    assert comparison.measures[1].points == pytest.approx(4.0)
    assert comparison.measures[1].verdict == "unchanged"


def test_p_values_are_adjusted_for_all_measures() -> None:
    comparison = compare(side(bits(10), bits(400)), side(bits(15), bits(440)))
    assert comparison.measures[0].p_value == pytest.approx(mcnemar(0, 5))
    assert comparison.measures[1].p_value == pytest.approx(2 * mcnemar(0, 40))


def test_what_is_gone_is_missing_and_what_came_is_new() -> None:
    old, new = side(bits(1), bits(2)), side(bits(1), bits(2), model="other")
    comparison = compare(old, new)
    assert verdicts(comparison) == ["missing", "missing", "new", "new"]
    assert not comparison.passed


def test_examples_are_paired_by_id() -> None:
    ids = np.arange(0, EXAMPLES, 2)
    old = side(bits(10)[ids], bits(400)[ids], ids=ids)
    comparison = compare(old, side(bits(10), bits(400)))
    assert verdicts(comparison) == ["unchanged", "unchanged"]
    assert [each.examples for each in comparison.measures] == [500, 500]
    assert [each.fixed + each.broken for each in comparison.measures] == [0, 0]


def test_fewer_examples_do_not_pass() -> None:
    ids = np.arange(0, EXAMPLES, 2)
    fewer = side(bits(10)[ids], bits(400)[ids], ids=ids)
    comparison = compare(side(bits(10), bits(400)), fewer)
    assert verdicts(comparison) == ["missing", "missing"]
    assert comparison.measures[0].reason == "only 500 of 1,000 examples"


def test_a_weaker_attack_does_not_pass() -> None:
    comparison = compare(
        side(bits(10), bits(400), made="pgd, 40 steps"),
        side(bits(10), bits(100), made="pgd, 1 step"),
    )
    assert verdicts(comparison) == ["unchanged", "missing"]
    assert "1 step" in comparison.measures[1].reason


def test_candidates_out_of_budget_do_not_pass() -> None:
    comparison = compare(side(bits(10), bits(400)), side(bits(10), bits(0), invalid=400))
    assert verdicts(comparison) == ["unchanged", "missing"]


def test_other_data_is_refused() -> None:
    with pytest.raises(RecordError, match="another content"):
        compare(side(bits(1), bits(1)), side(bits(1), bits(1), digest="other"))


def test_the_last_limit_that_fits_counts() -> None:
    limits = Limits(
        max_increase=1.0,
        limits=(Limit(attack="fgsm", max_increase=5.0), Limit(model="m", max_increase=3.0)),
    )
    cell = side(bits(1), bits(1)).cells[1].key
    assert limits.of(cell) == 3.0
    assert Limits(limits=limits.limits[:1]).of(cell) == 5.0


def test_limits_from_a_file(tmp_path: Path) -> None:
    place = tmp_path / "robust.toml"
    place.write_text('max_increase = 2\n[[limits]]\nmodel = "m"\nmax_increase = 0.5\n')
    assert limits_beside(tmp_path / "robust.json") == place
    assert limits_beside(tmp_path / "other.json") is None
    assert read_limits(place).limits[0].model == "m"
    place.write_text("max_increase = -1")
    with pytest.raises(SpecError, match=r"robust\.toml: max_increase"):
        read_limits(place)


def write_run(folder: Path, clean: NDArray[np.bool_], attacked: NDArray[np.bool_]) -> Path:
    """Writes a run's folder as the runner would, with answers made up."""
    suite = parse_suite(SUITE, where="gate")
    label = np.zeros(len(clean), dtype=np.int32)

    def outcome(wrong: NDArray[np.bool_]) -> Outcome:
        return Outcome(
            example_id=np.arange(len(wrong)),
            label=label,
            verdict=np.full(len(wrong), Verdict.VALID, dtype=np.int8),
            distance=np.zeros(len(wrong), dtype=np.float32),
            any_misclassified=wrong,
            saturated=None,
            zero_gradient=None,
            scores={
                "digest": TargetOutcome(
                    wrong.astype(np.int32), np.ones(len(wrong), dtype=np.float32)
                )
            },
            meta=OutcomeMeta(targets={"digest": "m"}),
        )

    def row(attack: str, epsilon: Epsilon, digest: str) -> Evaluation:
        return Evaluation(
            dataset="made-up",
            model="m",
            attack=attack,
            epsilon=epsilon,
            examples=len(clean),
            digest=digest,
        )

    with RunFolder.open(folder, suite="gate") as run:
        run.write("aaa", outcome(clean))
        run.write("bbb", outcome(attacked))
        card = ModelCard(
            name="m",
            model="m",
            weights_digest="w",
            digest="digest",
            outputs="logits",
            classes=2,
            parameters=1,
        )
        data = DatasetCard(
            name="made-up",
            digest="d",
            examples=len(clean),
            of=len(clean),
            classes=("a", "b"),
            input_shape=(1,),
        )
        origin = Provenance(
            gibbon="0",
            commit="",
            dirty=None,
            python="3",
            libraries={},
            platform="",
            device="cpu",
            threads=1,
            batch_size=1,
            limit=None,
            started="",
        )
        RunRecord(
            suite=suite,
            status="done",
            provenance=origin,
            models=(card,),
            datasets=(data,),
            evaluations=(row("none", ZERO, "aaa"), row("fgsm", Epsilon.parse("8/255"), "bbb")),
        ).write(folder)
    return folder


@given(st.integers(0, 2**64 - 1), st.integers(1, 200))
def test_a_baseline_holds_every_bit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, size: int
) -> None:
    generator = np.random.default_rng(seed)
    clean, attacked = generator.random(size) < 0.1, generator.random(size) < 0.6
    folder = write_run(tmp_path_factory.mktemp("run"), clean, attacked)
    saved = folder / "baseline.json"
    save_baseline(folder, saved)
    read = read_side(saved)
    for cell, original in zip(read.cells, read_side(folder).cells, strict=True):
        assert cell.key == original.key
        assert np.array_equal(cell.wrong, original.wrong)
        assert np.array_equal(cell.example_id, original.example_id)


def test_a_baseline_is_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random(10_000) < 0.5
    folder = write_run(tmp_path / "run", noise, ~noise)
    save_baseline(folder, tmp_path / "b.json")
    assert (tmp_path / "b.json").stat().st_size < 5_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:50], "neither a run's folder nor a baseline"),
        (lambda text: json.dumps({"version": 1}), "neither a run's folder nor a baseline"),
        (
            lambda text: text.replace('"version": 1', '"version": 2'),
            "schema version 2, this Gibbon reads 1",
        ),
        (lambda text: text.replace('"wrong": "', '"wrong": "!'), "damaged"),
        (lambda text: text.replace('"of": 1000', '"of": 900'), "damaged"),
        (lambda text: text.replace('"epsilon": "8/255"', '"epsilon": "x"'), "damaged"),
    ],
)
def test_a_damaged_baseline_is_named(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    folder = write_run(tmp_path / "run", bits(10), bits(400))
    saved = tmp_path / "b.json"
    save_baseline(folder, saved)
    saved.write_text(change(saved.read_text()))
    with pytest.raises(RecordError, match=message) as caught:
        read_side(saved)
    assert "b.json" in str(caught.value)


def test_markdown_and_junit_say_what_is_worse_first(tmp_path: Path) -> None:
    comparison = compare(side(bits(10), bits(400)), side(bits(10), bits(440)))
    text = comparison_markdown(comparison)
    assert text.startswith("## Robustness gate: failed")
    assert text.index("regressed") < text.index("unchanged")
    write_junit(comparison, tmp_path / "j.xml")
    root = ElementTree.parse(tmp_path / "j.xml").getroot()  # noqa: S314
    assert (root.get("tests"), root.get("failures")) == ("2", "1")
    (failure,) = root.iter("failure")
    assert "40.00 % to 44.00 %" in (failure.text or "")


def test_the_command_fails_on_a_regression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write_run(tmp_path / "old", bits(10), bits(400))
    new = write_run(tmp_path / "new", bits(10), bits(440))
    baseline, summary = tmp_path / "b.json", tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run = CliRunner().invoke
    assert run(app, ["baseline", "save", str(old), str(baseline)]).exit_code == 0
    assert run(app, ["compare", str(baseline), str(old)]).exit_code == 0
    worse = run(app, ["compare", str(baseline), str(new)])
    assert worse.exit_code == 1
    assert "regressed" in worse.stdout
    assert "gate: passed" in summary.read_text()
    assert "gate: failed" in summary.read_text()
    loose = run(app, ["compare", str(baseline), str(new), "--max-increase", "5"])
    assert loose.exit_code == 0


def test_the_limits_beside_a_baseline_are_used(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", bits(10), bits(400))
    new = write_run(tmp_path / "new", bits(10), bits(440))
    save_baseline(old, tmp_path / "b.json")
    (tmp_path / "b.toml").write_text('[[limits]]\nattack = "fgsm"\nmax_increase = 4\n')
    result = CliRunner().invoke(app, ["compare", str(tmp_path / "b.json"), str(new)])
    assert result.exit_code == 0, result.stdout
