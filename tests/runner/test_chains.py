"""Errors alone, and sweeps in which what succeeded counts on: what is spared, what is kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from planted import Run
from same_outcomes import assert_same, assert_same_outcomes, assert_same_records

from gibbon.core.errors import SpecError
from gibbon.records.run import Evaluation, RunRecord
from gibbon.report import write_report
from gibbon.runner.execute.batch import BatchTask
from gibbon.runner.executors import in_process
from gibbon.runner.plan.make_plan import make_plan
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

MakeSuite = Callable[..., Suite]
THREE = ["0.02", "0.05", "0.1"]
PGD: dict[str, Any] = {"name": "pgd", "epsilon": THREE, "steps": 4}
FGSM: dict[str, Any] = {"name": "fgsm", "epsilon": THREE}
NOISE: dict[str, Any] = {"name": "noise-sign", "epsilon": ["0.1", "0.2", "0.3"]}


def rows(record: RunRecord, attack: str) -> list[Evaluation]:
    return [each for each in record.evaluations if each.attack == attack]


def errors(record: RunRecord, attack: str) -> list[float | None]:
    return [each.adversarial_error for each in rows(record, attack)]


def misled(folder: Path, record: RunRecord, attack: str) -> list[Any]:
    with RunFolder.open(folder, suite="planted") as opened:
        found = [opened.read(each.digest) for each in rows(record, attack)]
    return [each.any_misclassified if each is not None else None for each in found]


def content(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in (folder / "outcomes").iterdir()}


# Carried


@pytest.mark.parametrize("attack", [PGD, FGSM, NOISE], ids=["pgd", "fgsm", "noise"])
def test_a_carried_sweep_is_the_union_of_its_epsilons(
    run: Run, suite: MakeSuite, tmp_path: Path, attack: dict[str, Any]
) -> None:
    plain = run(suite(attack), "plain")
    carried = run(suite({**attack, "carried": True}), "carried")
    clean = misled(tmp_path / "plain", plain, "none")[0]
    union, expected = clean, []
    for each in misled(tmp_path / "plain", plain, attack["name"]):
        union = union | each
        expected.append(union)
    found = misled(tmp_path / "carried", carried, attack["name"])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    rates = errors(carried, attack["name"])
    assert rates == sorted(rates)
    assert 0 < rates[0] < rates[-1]


def test_later_epsilons_cost_what_is_left_alone(run: Run, suite: MakeSuite) -> None:
    found = rows(run(suite({**PGD, "carried": True}), batch_size=7), "pgd")
    left = planted.EXAMPLES - rows(run(suite(PGD)), "none")[0].misclassified
    for row in found:
        assert (row.forward_passes, row.backward_passes) == (5 * left, 4 * left)
        left = planted.EXAMPLES - row.misclassified
    assert found[-1].forward_passes < found[0].forward_passes


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_one_direction_serves_all_epsilons_and_each_asks_of_what_is_left(
    run: Run, suite: MakeSuite, batch_size: int
) -> None:
    epsilons = [*THREE, "0.5", "1"]
    for attack, gradients in ((FGSM, planted.EXAMPLES), (NOISE, 0)):
        asked = suite({**attack, "epsilon": epsilons, "carried": True})
        record = run(asked, attack["name"], batch_size=batch_size)
        (clean,) = rows(record, "none")
        assert (clean.forward_passes, clean.backward_passes) == (planted.EXAMPLES, 0)
        left = planted.EXAMPLES - clean.misclassified
        for row in rows(record, attack["name"]):
            assert (row.forward_passes, row.backward_passes) == (left, gradients)
            left, gradients = planted.EXAMPLES - row.misclassified, 0
    assert rows(run(suite({**FGSM, "epsilon": "1"}), "plain"), "fgsm")[0].adversarial_error == 1


def test_an_outcome_that_is_carried_is_that_of_the_smaller_epsilon(
    run: Run, suite: MakeSuite, tmp_path: Path
) -> None:
    record = run(suite({**FGSM, "carried": True}))
    (source,) = {each.digest for each in record.models}
    with RunFolder.open(tmp_path / "run", suite="planted") as opened:
        found = [opened.read(each.digest) for each in record.evaluations]
    for before, after in itertools.pairwise(found):
        assert before is not None
        assert after is not None
        told = before.any_misclassified
        assert 0 < told.sum() < after.any_misclassified.sum()
        for one, other in [
            (before.distance, after.distance),
            (before.scores[source].confidence, after.scores[source].confidence),
            (before.scores[source].predicted, after.scores[source].predicted),
        ]:
            np.testing.assert_array_equal(one[told], other[told])
        assert (after.distance[~told] > before.distance[~told]).all()


def test_tables_say_what_was_carried(run: Run, suite: MakeSuite, tmp_path: Path) -> None:
    attacks = [{**each, "carried": True} for each in (PGD, FGSM)]
    run(suite(*attacks, "noise-sign"), publish=write_report)
    lines = (tmp_path / "run" / "evaluations.csv").read_text().splitlines()
    assert sum('"last, carried"' in line for line in lines) == 6
    assert "iterate kept: last, carried" in (tmp_path / "run" / "tables.md").read_text()


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 7, 60])
def test_batches_change_no_carried_sweep(
    run: Run, suite: MakeSuite, tmp_path: Path, batch_size: int
) -> None:
    attacks = [{**each, "carried": True} for each in (FGSM, NOISE, {**PGD, "restarts": 2})]
    asked = suite(*attacks)
    whole, cut = run(asked, "whole"), run(asked, "cut", batch_size=batch_size)
    assert_same_records(whole, cut)
    assert_same_outcomes(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("attack", [PGD, FGSM], ids=["pgd", "fgsm"])
def test_epsilons_are_run_in_ascending_order_and_shown_in_the_suites(
    run: Run, suite: MakeSuite, attack: dict[str, Any]
) -> None:
    up = run(suite({**attack, "carried": True}), "up")
    down = run(suite({**attack, "epsilon": THREE[::-1], "carried": True}), "down")
    assert [str(each.epsilon) for each in rows(down, attack["name"])] == THREE[::-1]
    assert errors(down, attack["name"]) == errors(up, attack["name"])[::-1]
    assert {each.digest for each in up.evaluations} == {each.digest for each in down.evaluations}


def test_digests_hold_the_smaller_epsilons_and_nothing_new_without_them(
    run: Run, suite: MakeSuite
) -> None:
    plain = run(suite(PGD), "plain")
    more = run(suite({**PGD, "epsilon": ["0.01", *THREE], "carried": True}), "more")
    carried = run(suite({**PGD, "carried": True}), "carried")
    digests = [{each.digest for each in rows(record, "pgd")} for record in (plain, carried, more)]
    assert sum(map(len, digests)) == len(set.union(*digests))
    assert rows(plain, "none")[0].digest == rows(carried, "none")[0].digest


def test_a_missing_cell_of_a_sweep_is_computed_from_the_one_before(
    run: Run, suite: MakeSuite, tmp_path: Path
) -> None:
    asked = suite({**PGD, "carried": True})
    record = run(asked)
    whole = content(tmp_path / "run")
    missing = rows(record, "pgd")[1]
    (tmp_path / "run" / "outcomes" / f"{missing.digest}.parquet").unlink()
    again = run(asked)
    assert_same_records(again, record)
    assert again.provenance.computed_cells == 1
    assert set(content(tmp_path / "run")) == set(whole)


@pytest.mark.parametrize("missing", [[0], [1], [2], [0, 2], [0, 1, 2]], ids=str)
@pytest.mark.parametrize("attack", [FGSM, NOISE], ids=["fgsm", "noise"])
def test_missing_cells_of_one_direction_are_computed_from_those_before(
    run: Run, suite: MakeSuite, tmp_path: Path, attack: dict[str, Any], missing: list[int]
) -> None:
    asked, name = suite({**attack, "carried": True}), attack["name"]
    record = run(asked, batch_size=7)
    before = misled(tmp_path / "run", record, name)
    for place in missing:
        digest = rows(record, name)[place].digest
        (tmp_path / "run" / "outcomes" / f"{digest}.parquet").unlink()
    again = run(asked, batch_size=7)
    assert again.provenance.computed_cells == len(missing)
    for one, other in zip(misled(tmp_path / "run", again, name), before, strict=True):
        np.testing.assert_array_equal(one, other)
    passes = frozenset({"forward_passes", "backward_passes"})
    assert_same(again.evaluations, record.evaluations, but=passes)


def test_a_larger_epsilon_that_is_added_goes_on_from_the_last(run: Run, suite: MakeSuite) -> None:
    short = run(suite({**FGSM, "carried": True}))
    left = planted.EXAMPLES - rows(short, "fgsm")[-1].misclassified
    longer = {**FGSM, "epsilon": [*THREE, "0.15", "0.2"], "carried": True}
    record = run(suite(longer))
    assert_same(record.evaluations[: len(short.evaluations)], short.evaluations)
    added = rows(record, "fgsm")[3:]
    assert (added[0].forward_passes, added[0].backward_passes) == (2 * left, left)
    assert added[1].forward_passes == planted.EXAMPLES - added[0].misclassified
    whole = run(suite(longer), "whole")
    assert errors(record, "fgsm") == errors(whole, "fgsm")


@pytest.mark.parametrize("moment", [1, 3, 6, 9, 11])
def test_an_interrupted_chain_goes_on(
    run: Run,
    suite: MakeSuite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: int,
) -> None:
    members = [{"name": "noise-sign"}, {"name": "pgd", "steps": 2}, {"name": "bim", "steps": 3}]
    listed = {"name": "worst-of", "epsilon": ["0.02", "0.05"], "attacks": members, "carried": True}
    two = {"epsilon": ["0.02", "0.05"], "carried": True}
    asked = suite({**FGSM, **two}, {**PGD, **two}, listed, error_only=True)
    undisturbed = run(asked, "undisturbed", batch_size=12)
    lived = iter(range(1, 100))
    run_batch = in_process.run_batch

    def dying(task: BatchTask) -> None:
        if next(lived) == moment:
            raise KeyboardInterrupt
        run_batch(task)

    with monkeypatch.context() as patch:
        patch.setattr(in_process, "run_batch", dying)
        with pytest.raises(KeyboardInterrupt):
            run(asked, batch_size=12, save_every=0.0)
    assert_same_records(run(asked, batch_size=12), undisturbed)
    assert_same_outcomes(tmp_path / "run", tmp_path / "undisturbed")


def test_where_a_smaller_epsilon_fails_the_larger_ones_do(run: Run, suite: MakeSuite) -> None:
    record = run(suite({"name": "raises-at-tenth", "epsilon": ["0.05", "0.1", "0.2"]}, "fgsm"))
    assert [each.status for each in rows(record, "raises-at-tenth")] == ["done", "failed", "done"]
    carried = {"name": "raises-at-tenth", "epsilon": ["0.05", "0.1", "0.2"], "carried": True}
    record = run(suite(carried, "fgsm"), "carried")
    assert [each.status for each in rows(record, "raises-at-tenth")] == ["done", "failed", "failed"]
    assert "carried over to this one: that failed" in record.failures[1].error
    assert rows(record, "fgsm")[0].status == "done"
    assert record.status == "failed"


@pytest.mark.parametrize("batch_size", [7, 60])
def test_where_one_direction_fails_at_an_epsilon_the_larger_ones_do(
    run: Run, suite: MakeSuite, plant: planted.Plant, batch_size: int
) -> None:
    plant.model("fragile", lambda: planted.classifier(planted.NaNBeyond(1)))
    attack = {"name": "fgsm", "epsilon": ["0.05", "0.5", "0.7"], "carried": True}
    record = run(suite(attack, "noise-sign", models=("fragile",)), batch_size=batch_size)
    assert [each.status for each in rows(record, "fgsm")] == ["done", "failed", "failed"]
    told = [each.error for each in record.failures]
    assert "returned NaN" in told[0]
    assert "carried over to this one: that failed" in told[1]
    assert [each.status for each in rows(record, "none") + rows(record, "noise-sign")] == [
        "done",
        "done",
    ]


def test_searches_for_the_nearest_point_are_not_carried(
    suite: MakeSuite, plant: planted.Plant
) -> None:
    asked = suite({"name": "deepfool", "epsilon": THREE, "norm": "linf", "carried": True})
    with pytest.raises(SpecError, match=r"attacks\[0\].carried: .*never falls"):
        make_plan(asked, RunSettings(device="cpu"))


def test_what_is_carried_or_stopped_is_not_transferred(suite: MakeSuite) -> None:
    with pytest.raises(ValueError, match="which is carried"):
        suite({**PGD, "carried": True}, models=("one", "two"), transfer=("pgd",))
    with pytest.raises(ValueError, match="leaves no transfer"):
        suite(PGD, models=("one", "two"), transfer=("pgd",), error_only=True)
    suite({**PGD, "carried": True}, "fgsm", models=("one", "two"), transfer=("fgsm",))


# Errors alone

LISTED: dict[str, Any] = {
    "name": "worst-of",
    "epsilon": "0.05",
    "attacks": [
        {"name": "noise-sign"},
        {"name": "pgd", "steps": 3, "restarts": 2},
        {"name": "deepfool", "steps": 3},
        {"name": "apgd-ce", "steps": 6},
    ],
}


def test_for_error_alone_attacks_stop_unless_they_say_otherwise(run: Run, suite: MakeSuite) -> None:
    kept = {**PGD, "label": "kept", "keep": "best-loss"}
    record = run(suite(PGD, kept, "fgsm", "apgd-ce", error_only=True))
    iterates = {each.attack: each.iterate for each in record.evaluations}
    assert iterates == {
        "none": "",
        "pgd": "first-success",
        "kept": "best-loss",
        "fgsm": "last",
        "apgd-ce": "first-success",
    }
    plain = run(suite(PGD), "plain")
    for one, other in zip(rows(record, "pgd"), rows(plain, "pgd"), strict=True):
        assert one.forward_passes < other.forward_passes
        assert one.adversarial_error is not None
        assert other.adversarial_error is not None
        assert one.adversarial_error >= other.adversarial_error


def test_for_error_alone_no_attacked_row_has_a_confidence(
    run: Run, suite: MakeSuite, tmp_path: Path
) -> None:
    record = run(suite(PGD, "fgsm", LISTED, error_only=True), publish=write_report)
    counted = (tmp_path / "run" / "confidence.csv").read_text().splitlines()[1:]
    assert {line.split(",")[2] for line in counted} == {"none"}
    assert "Errors only: attacks" in (tmp_path / "run" / "tables.md").read_text()
    for each in record.evaluations:
        assert (each.mean_confidence is None) == (not each.unattacked)
        assert each.adversarial_error is not None


@pytest.mark.parametrize("batch_size", [7, 60])
def test_a_list_member_by_member_is_the_list_batch_by_batch(
    run: Run, suite: MakeSuite, tmp_path: Path, batch_size: int
) -> None:
    whole = run(suite(LISTED), "whole")
    alone = run(suite(LISTED, error_only=True), "alone", batch_size=batch_size)
    one, other = (
        misled(tmp_path / folder, record, "worst-of")[0]
        for folder, record in (("whole", whole), ("alone", alone))
    )
    np.testing.assert_array_equal(one, other)
    drop = {"digest", "flags"}  # what an attack passed on its way differs
    assert [each.model_dump(exclude=drop) for each in whole.members] == [
        each.model_dump(exclude=drop) for each in alone.members
    ]
    assert errors(whole, "worst-of") == errors(alone, "worst-of")
    (before,), (after,) = rows(whole, "worst-of"), rows(alone, "worst-of")
    assert after.forward_passes < before.forward_passes
    assert not list((tmp_path / "alone" / "outcomes").glob("*.partial.parquet"))


def test_each_member_is_given_whole_batches_of_what_is_left(
    run: Run, suite: MakeSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[str, list[int]] = {}
    run_batch = in_process.run_batch

    def noted(task: BatchTask) -> None:
        attack = task.job.attack
        kind = type(attack.attack).__name__ if attack else "unattacked"
        sizes.setdefault(kind, []).append(len(task.given.ids))
        run_batch(task)

    monkeypatch.setattr(in_process, "run_batch", noted)
    record = run(suite(LISTED, error_only=True), batch_size=10)
    assert list(sizes) == ["unattacked", "NoiseSign", "PGD", "DeepFool", "APGDCE"]
    for member, given in zip(record.members, list(sizes.values())[1:], strict=True):
        assert sum(given) == member.given
        assert all(each == 10 for each in given[:-1])


def test_what_a_list_took_is_counted_where_nothing_is_left_for_the_last(
    run: Run, suite: MakeSuite
) -> None:
    wide = {"name": "worst-of", "epsilon": "0.9", "attacks": ["apgd-ce", "square"]}
    (found,) = rows(run(suite(wide, error_only=True)), "worst-of")
    assert found.misclassified == found.examples  # so that the second member is given nobody
    assert found.forward_passes
    assert found.backward_passes
    assert found.seconds


def test_members_of_a_list_are_cells(run: Run, suite: MakeSuite, tmp_path: Path) -> None:
    """Each has an outcome, which says what the list has misled so far and what that took."""
    asked = suite(LISTED, error_only=True)
    record = run(asked)
    (experiment,) = make_plan(asked, RunSettings(device="cpu")).experiments
    cell = next(each for each in experiment.cells if each.members)
    with RunFolder.open(tmp_path / "run", suite="planted") as folder:
        found = [folder.read(each.digest) for each in cell.members]
        of_list = folder.read(rows(record, "worst-of")[0].digest)
    assert len({each.digest for each in cell.members}) == len(LISTED["attacks"])
    assert cell.members[-1].digest == cell.digest
    passes, errors_after = 0, []
    for number, outcome in enumerate(found):
        assert outcome is not None
        assert outcome.misled_by is not None
        assert outcome.misled_by.max() <= number
        assert outcome.meta.forward_passes >= passes
        passes = outcome.meta.forward_passes
        errors_after.append(float(outcome.any_misclassified.mean()))
    assert errors_after == [each.error_after for each in record.members]
    assert of_list is not None
    assert passes == of_list.meta.forward_passes == rows(record, "worst-of")[0].forward_passes


def test_a_member_that_is_recorded_is_not_run_again(
    run: Run, suite: MakeSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = suite(LISTED, error_only=True)
    record = run(asked)
    (tmp_path / "run" / "outcomes" / f"{rows(record, 'worst-of')[0].digest}.parquet").unlink()
    kinds = []
    run_batch = in_process.run_batch

    def noted(task: BatchTask) -> None:
        kinds.append(type(task.job.attack.attack).__name__ if task.job.attack else "unattacked")
        run_batch(task)

    monkeypatch.setattr(in_process, "run_batch", noted)
    again = run(asked)
    assert set(kinds) == {"APGDCE"}
    assert again.provenance.computed_cells == 1
    assert_same(again.evaluations, record.evaluations)
    assert again.members == record.members


def test_what_is_fresh_runs_every_member_again(run: Run, suite: MakeSuite, tmp_path: Path) -> None:
    asked = suite(LISTED, error_only=True)
    record = run(asked)
    before = {each.name: each.stat().st_mtime_ns for each in (tmp_path / "run/outcomes").iterdir()}
    again = run(asked, fresh=True)
    after = {each.name: each.stat().st_mtime_ns for each in (tmp_path / "run/outcomes").iterdir()}
    assert before.keys() == after.keys()
    assert all(after[name] > before[name] for name in before)
    assert_same(again.evaluations, record.evaluations)


def test_what_an_older_version_left_behind_is_in_nobodys_way(
    run: Run, suite: MakeSuite, tmp_path: Path
) -> None:
    """Lists of attacks and jobs under way once had files of these names."""
    record = run(suite(LISTED, "fgsm", error_only=True))
    outcomes = tmp_path / "run" / "outcomes"
    cell = outcomes / f"{rows(record, 'worst-of')[0].digest}.parquet"
    (outcomes / f"{cell.stem}-0.partial.parquet").write_bytes(cell.read_bytes())
    (outcomes / "0123456789abcdef.partial.parquet").write_bytes(b"of another version")
    cell.unlink()
    again = run(suite(LISTED, "fgsm", error_only=True))
    assert_same(again.evaluations, record.evaluations)
    assert again.members == record.members


def test_a_list_whose_member_fails_fails_once(run: Run, suite: MakeSuite) -> None:
    members = [{"name": "noise-sign"}, {"name": "raises"}, {"name": "pgd"}]
    listed = {"name": "worst-of", "epsilon": "0.05", "attacks": members}
    record = run(suite(listed, "fgsm", error_only=True))
    (failure,) = record.failures
    assert (failure.attack, failure.error) == ("worst-of", "RuntimeError: planted trouble")
    assert rows(record, "worst-of")[0].status == "failed"
    assert rows(record, "fgsm")[0].status == "done"


def test_an_invalid_candidate_stays_to_be_seen(run: Run, suite: MakeSuite) -> None:
    members = [{"name": "leaves-budget"}, {"name": "returns-inputs"}]
    listed = {"name": "worst-of", "epsilon": "0.05", "attacks": members}
    found = [
        rows(run(suite(listed, error_only=each), str(each)), "worst-of") for each in (False, True)
    ]
    assert found[0][0].invalid_candidates == found[1][0].invalid_candidates > 0
