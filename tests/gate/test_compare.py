"""The regression gate: what it pairs, what it calls a regression, and how it says so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest
from typer.testing import CliRunner

from gibbon.cli.app import app
from gibbon.core.errors import RecordError, RunFolderError, SpecError
from gibbon.core.threat import ZERO, Epsilon, Norm, Verdict
from gibbon.gate.baseline import (
    AttackSetup,
    Content,
    Key,
    MeasuredErrors,
    Side,
    read_side,
    save_baseline,
    write_baseline,
)
from gibbon.gate.compare import Comparison, compare
from gibbon.gate.comparison_text import comparison_markdown, conclusion, sentences
from gibbon.gate.junit import write_junit
from gibbon.gate.limits import Limit, Limits, default_limits, read_limits
from gibbon.metrics.paired_tests import holm, mcnemar
from gibbon.records.outcomes import Outcome, OutcomeMeta, TargetOutcome
from gibbon.records.run import DatasetCard, Evaluation, ModelCard, Provenance, RunRecord
from gibbon.report.text.github_summary import append_summary, run_markdown
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.decoding import parse_suite

PAIR = """
name = "pair"
dataset = "squares"
models = ["one", "two"]
[[attacks]]
name = "fgsm"
epsilon = ["0.05", "0.1"]
[[attacks]]
name = "noise-sign"
epsilon = "0.1"
[transfer]
attacks = ["fgsm"]
"""
MORE = """
[[attacks]]
name = "darkens"
epsilon = "0.1"
"""
SUITE = """
name = "gate"
dataset = "made-up"
models = ["m"]
[[attacks]]
name = "fgsm"
epsilon = "8/255"
"""
EXAMPLES = 1000
FGSM = AttackSetup(algorithm="fgsm", norm=Norm.LINF, clip=True)


def bits(count: int, *, first: int = 0, size: int = EXAMPLES) -> NDArray[np.bool_]:
    wrong = np.zeros(size, dtype=np.bool_)
    wrong[first : first + count] = True
    return wrong


def pgd(**parameters: int) -> AttackSetup:
    return FGSM.model_copy(update={"algorithm": "pgd", "parameters": parameters})


def side(
    clean: NDArray[np.bool_],
    attacked: NDArray[np.bool_],
    *,
    name: str = "run",
    digest: str = "d",
    model: str = "m",
    ids: NDArray[np.int64] | None = None,
    made: AttackSetup = FGSM,
    invalid: int = 0,
) -> Side:
    known = np.arange(len(clean)) if ids is None else ids
    epsilon = Epsilon.parse("8/255")
    unattacked = Key("made-up", model, "none", ZERO, "clean_error")
    under_attack = Key("made-up", model, "fgsm", epsilon, "adversarial_error")
    cells = (
        MeasuredErrors(unattacked, AttackSetup(), 0, known, clean),
        MeasuredErrors(under_attack, made, invalid, known, attacked),
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


def test_a_side_may_be_the_path_of_a_baseline_or_of_a_run(tmp_path: Path) -> None:
    folder, saved = write_run(tmp_path / "run", bits(10), bits(400)), tmp_path / "b.json"
    save_baseline(folder, saved)
    expected = compare(read_side(saved), read_side(folder))
    assert expected.measures
    assert compare(saved, folder) == compare(str(saved), str(folder)) == expected
    assert compare(read_side(saved), folder) == compare(saved, read_side(folder)) == expected
    for wrong in (tmp_path, tmp_path / "gone.json", str(tmp_path / "gone.json")):
        with pytest.raises(RecordError, match=re.escape(str(wrong))):
            compare(saved, wrong)


def test_default_limits_a_baseline_hold_only_if_they_are_given(tmp_path: Path) -> None:
    old, new = side(bits(10), bits(400)), side(bits(10), bits(440))
    saved = tmp_path / "b.json"
    write_baseline(old, saved, gibbon="0")
    saved.with_suffix(".toml").write_text("max_increase = 5", "utf-8")
    assert verdicts(compare(saved, new)) == ["unchanged", "regressed"]
    beside = default_limits(saved)
    assert beside is not None
    allowed = read_limits(beside)
    assert verdicts(compare(saved, new, limits=allowed)) == ["unchanged", "unchanged"]


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
        side(bits(10), bits(400), made=pgd(steps=40)),
        side(bits(10), bits(100), made=pgd(steps=1)),
    )
    assert verdicts(comparison) == ["unchanged", "missing"]
    assert comparison.measures[1].reason == "made with steps 1 instead of 40"


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
    assert default_limits(tmp_path / "robust.json") == place
    assert default_limits(tmp_path / "other.json") is None
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


@settings(max_examples=15)
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
        (lambda text: text[:50], "damaged, or cut short: .*save it again"),
        (lambda text: text[:10], "neither a run's folder nor a baseline"),
        (lambda text: json.dumps({"version": 1}), "neither a run's folder nor a baseline"),
        (
            lambda text: text.replace('"version": 5', '"version": 6'),
            "schema version 6, this Gibbon reads 2 to 5",
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


def test_the_default_limits_a_baseline_are_used(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", bits(10), bits(400))
    new = write_run(tmp_path / "new", bits(10), bits(440))
    save_baseline(old, tmp_path / "b.json")
    (tmp_path / "b.toml").write_text('[[limits]]\nattack = "fgsm"\nmax_increase = 4\n')
    result = CliRunner().invoke(app, ["compare", str(tmp_path / "b.json"), str(new)])
    assert result.exit_code == 0, result.stdout


# Real runs of small models: transfers, worst cases, what fails


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Runs two small models under FGSM and noise; returns the folder."""
    plant = planted.Plant(monkeypatch)
    plant.dataset("squares", lambda request: planted.squares(examples=240))
    plant.model("one", planted.rows(0))
    plant.model("two", planted.rows(6))
    plant.attack("darkens", planted.Darkens)

    def run(name: str, text: str = PAIR, **change: Callable[..., object]) -> Path:
        for model, build in change.items():
            plant.model(model, build)
        run_suite(parse_suite(text, where=name), tmp_path / name, settings=RunSettings())
        return tmp_path / name

    run.plant = plant  # type: ignore[attr-defined]
    return run


def test_transfers_and_worst_cases_are_compared_too(pair: Callable[..., Path]) -> None:
    run = read_side(pair("old"))
    record = RunRecord.read(Path(run.name))
    measured = {
        (
            cell.key.measure,
            cell.key.model,
            cell.key.target,
            cell.key.attack,
            str(cell.key.epsilon),
        ): float(np.mean(cell.wrong))
        for cell in run.cells
    }
    assert len(measured) == 2 + 6 + 4 + 2
    for hop in record.transfers:
        if hop.source != hop.target:
            key = ("transfer_error", hop.source, hop.target, hop.attack, str(hop.epsilon))
            assert measured[key] == pytest.approx(hop.error)
    for worst in record.worst_cases:
        key = ("worst_case_error", worst.model, "", "all-linf", str(worst.epsilon))
        if len(worst.attacks) > 1:
            assert measured[key] == pytest.approx(worst.worst_case_error)
        else:
            assert key not in measured


def test_a_baseline_of_a_run_is_the_run(pair: Callable[..., Path], tmp_path: Path) -> None:
    folder = pair("old")
    saved = save_baseline(folder, tmp_path / "b.json")
    run, read = read_side(folder), read_side(tmp_path / "b.json")
    assert saved.measures == len(run.cells) == len(read.cells)
    held = {cell.key: cell for cell in read.cells}
    for cell in run.cells:
        other = held[cell.key]
        assert np.array_equal(other.wrong, cell.wrong)
        assert np.array_equal(other.example_id, cell.example_id)
        assert (other.made_with, other.invalid) == (cell.made_with, cell.invalid)
    assert set(verdicts(compare(read, run))) == {"unchanged"}
    write_baseline(read, tmp_path / "again.json", gibbon=saved.gibbon)
    assert {cell.key for cell in read_side(tmp_path / "again.json").cells} == set(held)


def test_a_model_that_is_worse_as_a_target_has_regressed_transfers(
    pair: Callable[..., Path],
) -> None:
    old, new = pair("old"), pair("new", two=planted.rows(6, factor=-1.0))
    measures = compare(read_side(old), read_side(new)).measures
    of_one = [each for each in measures if each.key.model == "one" and each.key.attack == "fgsm"]
    found = {(each.key.target, str(each.key.epsilon)): each.verdict for each in of_one}
    assert found[("", "0.05")] == found[("", "0.1")] == "unchanged"
    assert found[("two", "0.05")] == "regressed"


def test_an_attack_more_is_new_and_spoils_no_worst_case(pair: Callable[..., Path]) -> None:
    old, new = pair("old"), pair("new", PAIR.replace("[transfer]", MORE + "[transfer]"))
    comparison = compare(read_side(old), read_side(new))
    assert comparison.passed
    assert [each.key.attack for each in comparison.measures if each.verdict == "new"] == [
        "darkens",
        "darkens",
    ]
    less = compare(read_side(new), read_side(old))
    missing = {each.key.attack: each.reason for each in less.measures if each.verdict == "missing"}
    assert missing == {
        "darkens": "not in the new run",
        "all-linf": "made with fgsm, noise-sign instead of fgsm, noise-sign, darkens",
    }


def test_what_fails_does_not_pass_though_the_baseline_has_it_not(
    pair: Callable[..., Path],
) -> None:
    old = pair("old")
    pair.plant.attack("darkens", planted.Raises)  # type: ignore[attr-defined]
    new = pair("new", PAIR.replace("[transfer]", MORE + "[transfer]"))
    comparison = compare(read_side(old), read_side(new))
    assert not comparison.passed
    assert [
        (each.key.model, each.key.attack, each.reason)
        for each in comparison.measures
        if each.verdict == "missing"
    ] == [("one", "darkens", "failed in the new run"), ("two", "darkens", "failed in the new run")]
    with pytest.raises(RecordError, match="2 cells failed: no baseline is made of them"):
        save_baseline(new, new / "b.json")


def test_a_target_that_failed_is_missing(pair: Callable[..., Path]) -> None:
    text = PAIR.replace('"0.05", "0.1"', '"0.05", "0.3"')
    old = pair("old", text)
    new = pair("new", text, two=lambda: planted.classifier(planted.NaNBeyond(6)))
    failed = read_side(new).failed
    assert {key.target for key in failed} >= {"two"}
    assert not compare(read_side(old), read_side(new)).passed


def test_an_empty_run_is_no_baseline(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", bits(10), bits(400))
    record = RunRecord.read(folder)
    record.model_copy(update={"evaluations": ()}).write(folder)
    with pytest.raises(RecordError, match="empty"):
        save_baseline(folder, tmp_path / "b.json")
    with pytest.raises(RecordError, match="holds nothing to compare with"):
        compare(read_side(folder), side(bits(1), bits(1)))
    comparison = compare(side(bits(1), bits(1)), read_side(folder))
    assert verdicts(comparison) == ["missing", "missing"]


def test_a_run_without_its_outcomes_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", bits(10), bits(400))
    (folder / "outcomes" / "bbb.parquet").write_bytes(b"PAR1")
    with pytest.raises(RecordError, match="run: the outcomes of cell bbb are missing or damaged"):
        read_side(folder)


def transfers(count: int, *, size: int) -> Side:
    """A side with noise for transfers, which no packing makes small."""
    random = np.random.default_rng(0)
    ids = np.arange(size)
    one = side(bits(10, size=size), random.random(size) < 0.5)
    hops = [
        MeasuredErrors(
            replace(one.cells[1].key, measure="transfer_error", target=f"t{number}"),
            one.cells[1].made_with,
            0,
            ids,
            random.random(size) < 0.5,
        )
        for number in range(count)
    ]
    return replace(one, cells=(*one.cells, *hops), datasets={"made-up": Content("d", size)})


def test_transfers_that_take_much_room_are_thinned(tmp_path: Path) -> None:
    many = transfers(40, size=10_000)
    saved = write_baseline(many, tmp_path / "b.json", gibbon="0")
    assert saved.datasets[0].transfer_every == 4
    assert (tmp_path / "b.json").stat().st_size < 40_000
    read = read_side(tmp_path / "b.json")
    assert {len(cell.wrong) for cell in read.cells if cell.key.target} == {2500}
    assert {len(cell.wrong) for cell in read.cells if not cell.key.target} == {10_000}
    comparison = compare(read, many)
    assert set(verdicts(comparison)) == {"unchanged"}
    write_baseline(read, tmp_path / "again.json", gibbon="0")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_few_examples_are_never_thinned(tmp_path: Path) -> None:
    saved = write_baseline(transfers(400, size=1_500), tmp_path / "b.json", gibbon="0")
    assert saved.datasets[0].transfer_every == 1


def test_a_baseline_of_an_older_version_says_what_to_do(tmp_path: Path) -> None:
    write_baseline(side(bits(10), bits(400)), tmp_path / "b.json", gibbon="0.1.0")
    content = json.loads((tmp_path / "b.json").read_text())
    (tmp_path / "b.json").write_text(json.dumps({**content, "version": 1}))
    with pytest.raises(RecordError, match="version 1, this Gibbon reads 2 to 5; save it"):
        read_side(tmp_path / "b.json")


# What it says


def test_what_few_examples_cannot_show_is_said() -> None:
    old = side(bits(2, size=50), bits(20, size=50))
    comparison = compare(old, side(bits(2, size=50), bits(22, size=50)))
    assert comparison.passed
    assert comparison.measures[1].verdict == "unchanged"
    (told,) = sentences(comparison)
    assert "more than allowed, but 50 examples can't show that it is more than chance" in told
    text = comparison_markdown(comparison)
    assert text.index("50 examples can't show it") < text.index("<details>")


def test_markdown_folds_up_what_is_unchanged() -> None:
    text = comparison_markdown(compare(side(bits(10), bits(400)), side(bits(10), bits(440))))
    assert "2 measures: 1 regressed, 1 unchanged." in text
    folded = text.partition("<details><summary>1 measure unchanged</summary>\n\n")[2]
    assert "| unchanged |" in folded.partition("</details>")[0]
    assert "regressed" not in folded.partition("</details>")[0]
    quiet = comparison_markdown(compare(side(bits(1), bits(2)), side(bits(1), bits(2))))
    assert quiet.count("| Verdict") == 1


def test_a_junit_report_counts_and_explains(tmp_path: Path) -> None:
    comparison = compare(transfers(1, size=EXAMPLES), side(bits(10), bits(0), name="new"))
    write_junit(comparison, tmp_path / "j.xml")
    root = ElementTree.parse(tmp_path / "j.xml").getroot()  # noqa: S314
    assert root.tag == "testsuites"
    (suite,) = root
    cases = list(suite)
    assert [suite.get(key) for key in ("tests", "failures", "errors", "skipped")] == [
        str(len(cases)),
        str(len(list(root.iter("failure")))),
        "0",
        "0",
    ]
    assert len({(case.get("classname"), case.get("name")) for case in cases}) == len(cases)
    for case in cases:
        assert {"classname", "name", "time"} <= set(case.keys())
    assert [each.get("type") for each in root.iter("failure")] == ["missing"]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("max_increase = -1", r"max_increase: .*got -1"),
        ("max_increase = nan", "max_increase"),
        ("max_incraese = 1", "max_incraese: unknown key; did you mean 'max_increase'"),
        ("[[limits]]\nmodel = 'm'", r"limits\[0\]\.max_increase: is missing"),
        ("[[limits]]\nmax_increase = 1\nmodle = 'm'", r"limits\[0\]\.modle: .*'model'"),
        ("[[limits]]\nmax_increase = 1\nmeasure = 'confidence'", "clean_error.*'confidence'"),
        ("limits = 3", "limits: must be a list"),
        ("max_increase = ", "malformed TOML"),
    ],
)
def test_wrong_limits_are_named(tmp_path: Path, written: str, message: str) -> None:
    (tmp_path / "robust.toml").write_text(written)
    with pytest.raises(SpecError, match=message) as caught:
        read_limits(tmp_path / "robust.toml")
    assert "robust.toml" in str(caught.value)


def test_a_limit_that_covers_nothing_is_refused() -> None:
    one = side(bits(1), bits(1))
    limits = Limits(limits=(Limit(max_increase=1, attack="fgms"),))
    with pytest.raises(SpecError, match=r"limits\[0\]: .*no attack 'fgms'.*did you mean 'fgsm'"):
        compare(one, one, limits=limits)
    apart = Limits(limits=(Limit(max_increase=1, attack="fgsm", measure="clean_error"),))
    with pytest.raises(SpecError, match=r"limits\[0\]: covers no measure"):
        compare(one, one, limits=apart)


def test_limits_by_measure_and_target() -> None:
    old = transfers(2, size=EXAMPLES)
    limits = Limits(
        limits=(
            Limit(measure="transfer_error", max_increase=5.0),
            Limit(target="t1", max_increase=7.0),
        )
    )
    compared = compare(old, old, limits=limits).measures
    assert [each.limit for each in compared] == [1.0, 1.0, 5.0, 7.0]


@pytest.mark.parametrize("alpha", [0.0, -1.0, 2.0, float("nan")])
def test_alpha_is_a_probability(alpha: float) -> None:
    with pytest.raises(SpecError, match="alpha"):
        compare(side(bits(1), bits(1)), side(bits(1), bits(1)), alpha=alpha)


@pytest.mark.parametrize("option", [["--max-increase", "nan"], ["--alpha", "0"]])
def test_a_gate_that_nothing_fails_is_refused(tmp_path: Path, option: list[str]) -> None:
    run = write_run(tmp_path / "run", bits(10), bits(400))
    result = CliRunner().invoke(app, ["compare", str(run), str(run), *option])
    assert result.exit_code == 2 or isinstance(result.exception, SpecError)


def test_comparing_imports_no_torch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", bits(10), bits(400))
    script = f"""
import sys
from gibbon.cli.app import main
for words in (["baseline", "save", {str(run)!r}, {str(tmp_path / "b.json")!r}],
              ["compare", {str(tmp_path / "b.json")!r}, {str(run)!r}]):
    sys.argv = ["gibbon", *words]
    try:
        main()
    except SystemExit as leaving:
        assert not leaving.code
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 measures: 2 unchanged" in done.stdout


def test_a_job_summary_that_cannot_be_written_changes_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write_run(tmp_path / "old", bits(10), bits(400))
    new = write_run(tmp_path / "new", bits(10), bits(440))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "nowhere" / "summary.md"))
    for other, code in [(old, 0), (new, 1)]:
        result = CliRunner().invoke(app, ["compare", str(old), str(other)])
        assert result.exit_code == code
        assert "warning: " in result.stderr
        assert "the job summary can't be written" in result.stderr


def test_the_job_summary_is_appended_and_cut(tmp_path: Path) -> None:
    place = tmp_path / "summary.md"
    append_summary("one", None)
    append_summary("one", "")
    assert not place.exists()
    append_summary("| one |\n", str(place))
    append_summary("two\n" * 300_000, str(place))
    text = place.read_text()
    assert text.startswith("| one |\n\ntwo\n")
    assert text.endswith("two\n\nThe rest is too long to be shown here.\n\n")
    assert len(text) < 1_048_576
    with pytest.raises(RunFolderError, match="GITHUB_STEP_SUMMARY"):
        append_summary("one", str(tmp_path / "nowhere" / "summary.md"))


def test_a_run_puts_its_tables_into_the_job_summary(pair: Callable[..., Path]) -> None:
    text = run_markdown(RunRecord.read(pair("old")))
    assert text.startswith("## Robustness of pair: done")
    assert re.search(r"\| one +\| fgsm +\| +0\.05 \|", text)
    assert "Source ↓ target →" in text
    pair.plant.attack("darkens", planted.Raises)  # type: ignore[attr-defined]
    new = pair("new", PAIR.replace("[transfer]", MORE + "[transfer]"))
    failed = run_markdown(RunRecord.read(new))
    assert failed.startswith("## Robustness of pair: failed")
    assert "planted trouble" in failed


def wrong(count: int, examples: int) -> NDArray[np.bool_]:
    return np.arange(examples) < count


@pytest.mark.parametrize(
    ("examples", "points", "inconclusive"),
    [(20, 1.0, True), (20, 30.0, True), (20, 36.0, False), (200, 1.0, True), (2000, 1.0, False)],
)
def test_too_few_examples_for_the_limit_are_in_the_headline(
    examples: int, points: float, inconclusive: bool
) -> None:
    same = side(wrong(1, examples), wrong(examples // 2, examples))
    better = side(wrong(1, examples), wrong(0, examples))
    for new in (same, better):
        comparison = compare(same, new, limits=Limits(max_increase=points))
        assert comparison.passed
        assert bool(comparison.inconclusive) == inconclusive
        said = conclusion(comparison)
        assert ("inconclusive" in said) == inconclusive
        assert ("inconclusive" in comparison_markdown(comparison)) == inconclusive
        if inconclusive:
            assert f"{examples} examples can show an increase from" in said


def test_an_increase_as_large_as_the_headline_says_is_shown() -> None:
    """And one example fewer is not."""
    before = side(wrong(1, 20), wrong(0, 20))
    limits = Limits(max_increase=1.0)
    least = compare(before, before, limits=limits).least_increase
    assert least is not None
    fewest = round(least * 20 / 100)
    for count, found in ((fewest, "regressed"), (fewest - 1, "unchanged")):
        comparison = compare(before, side(wrong(1, 20), wrong(count, 20)), limits=limits)
        assert comparison.measures[0].verdict == found or comparison.measures[1].verdict == found
        assert comparison.passed == (found == "unchanged")


def test_compare_fails_on_too_few_examples_if_it_is_strict(pair: Callable[..., Path]) -> None:
    both = [str(pair("old"))] * 2
    for options, code in (([], 0), (["--strict"], 1)):
        result = CliRunner().invoke(app, ["compare", *both, *options])
        assert result.exit_code == code, result.output
        assert "inconclusive" in " ".join(result.output.split())
    allowed = CliRunner().invoke(app, ["compare", *both, "--strict", "--max-increase", "90"])
    assert allowed.exit_code == 0, allowed.output
