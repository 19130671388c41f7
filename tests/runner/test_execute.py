"""Planted attacks and models through the whole runner: what fails, what goes on, what it costs."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import torch
from planted import Run
from rich.console import Console
from same_outcomes import TOLERANCE, assert_same, assert_same_outcomes, assert_same_records

from gibbon.core.errors import ModelError
from gibbon.datasets.base import sample_ids
from gibbon.models.pass_count import PassCount
from gibbon.records.run import Evaluation, RunRecord, Transfer
from gibbon.report import print_tables, write_report
from gibbon.runner.plan import cell_digest as digests
from gibbon.runner.plan.make_plan import make_plan
from gibbon.runner.plan.probe_model import PROBE_SIZE
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_progress.progress import SilentProgress
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

MakeSuite = Callable[..., Suite]
THREE = ["0.05", "0.1", "0.2"]
PGD = {"name": "pgd", "epsilon": "0.1", "steps": 4, "restarts": 3}


def row(record: RunRecord, attack: str, model: str = "one", epsilon: str = "") -> Evaluation:
    (found,) = [
        each
        for each in record.evaluations
        if each.attack == attack
        and each.model == model
        and (not epsilon or str(each.epsilon) == epsilon)
    ]
    return found


def transfer(record: RunRecord, source: str, target: str) -> Transfer:
    (found,) = [each for each in record.transfers if (each.source, each.target) == (source, target)]
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in (folder / "outcomes").iterdir()}


def probed(plant: planted.Plant, asked: Suite, model: str) -> PassCount:
    """What planning alone costs a model."""
    make_plan(asked, RunSettings(device="cpu"))
    return plant.built[model].pop().passes


# What goes wrong


def test_an_attack_that_raises_fails_alone(run: Run, suite: MakeSuite) -> None:
    record = run(suite("raises", "fgsm"))
    assert record.status == "failed"
    (failure,) = record.failures
    assert (failure.model, failure.attack) == ("one", "raises")
    assert failure.error == "RuntimeError: planted trouble"
    assert 'raise RuntimeError("planted trouble")' in failure.traceback
    failed = row(record, "raises")
    assert failed.status == "failed"
    assert failed.adversarial_error is None
    assert failed.mean_confidence is None
    assert row(record, "fgsm").status == "done"
    assert row(record, "none").status == "done"


def test_a_failed_cell_is_in_no_mean(run: Run, suite: MakeSuite) -> None:
    beside = run(suite("raises", "fgsm"), "beside").worst_cases
    alone = run(suite("fgsm"), "alone").worst_cases
    assert beside == alone
    assert alone[0].attacks == ("fgsm",)


def test_an_attack_that_raises_at_one_epsilon_fails_there_alone(run: Run, suite: MakeSuite) -> None:
    record = run(suite({"name": "raises-at-tenth", "epsilon": THREE}), batch_size=7)
    states = {str(each.epsilon): each.status for each in record.evaluations}
    assert states == {"0": "done", "0.05": "done", "0.1": "failed", "0.2": "done"}
    assert len(record.failures) == 1


def test_an_attack_that_returns_nan_misleads_nobody(run: Run, suite: MakeSuite) -> None:
    record = run(suite("returns-nan"))
    found = row(record, "returns-nan")
    assert (found.status, found.misclassified, found.adversarial_error) == ("done", 0, 0.0)
    assert found.invalid_candidates == planted.EXAMPLES
    assert "invalid-candidates" in found.flags.split(";")
    (flag,) = [each for each in record.flags if each.kind == "invalid-candidates"]
    assert flag.sentence == "60 of 60 candidates not finite: not counted as adversarial"
    assert flag.subject == f"squares, one, returns-nan at epsilon {found.epsilon}"


def test_an_attack_that_leaves_the_budget_misleads_nobody(run: Run, suite: MakeSuite) -> None:
    record = run(suite("leaves-budget"))
    found = row(record, "leaves-budget")
    assert (found.status, found.misclassified) == ("done", 0)
    assert found.invalid_candidates == planted.EXAMPLES
    assert "invalid-candidates" in found.flags.split(";")
    assert any("60 of 60 candidates out of budget" in each.sentence for each in record.flags)
    candidates = next(each for each in record.checks if each.name == "candidates")
    assert not candidates.passed


def test_a_loss_that_needs_more_classes_is_flagged(run: Run, suite: MakeSuite) -> None:
    """The planted models have three: enough for the plain ratio, one too few for the targeted."""
    record = run(suite({"name": "apgd-t", "epsilon": "0.1", "steps": 2}, "fgsm"))
    (flag,) = [each for each in record.flags if each.kind == "departs-from-paper"]
    assert str(flag).startswith("squares, one, apgd-t: the targeted ratio needs 4 classes")
    assert row(record, "apgd-t").status == "done"


@pytest.mark.parametrize(("keep", "told"), [("first-success", True), ("last", False)])
def test_transfer_of_what_barely_misleads_is_flagged(
    run: Run, suite: MakeSuite, keep: str, told: bool
) -> None:
    attack = {"name": "pgd", "epsilon": "0.1", "steps": 2, "keep": keep}
    record = run(suite(attack, models=("one", "two"), transfer=("pgd",)))
    flags = [str(each) for each in record.flags if each.kind == "stopped-early"]
    assert [each.startswith("squares, pgd: an example is done") for each in flags] == [True] * told


def test_an_attack_that_returns_its_inputs_repeats_the_clean_row(
    run: Run, suite: MakeSuite
) -> None:
    record = run(suite("returns-inputs"))
    found, clean = row(record, "returns-inputs"), row(record, "none")
    assert found.adversarial_error == clean.clean_error
    assert found.mean_confidence == pytest.approx(clean.mean_confidence, abs=TOLERANCE)
    assert found.attack_success_rate == 0
    assert "inputs-unchanged" in found.flags.split(";")


def test_epsilon_zero_repeats_the_clean_predictions(
    run: Run, suite: MakeSuite, tmp_path: Path
) -> None:
    attacks = [{"name": name, "epsilon": "0"} for name in ("fgsm", "fgsm-naive", "noise-sign")]
    record = run(suite(*attacks, {"name": "pgd", "epsilon": 0, "steps": 2}))
    with RunFolder.open(tmp_path / "run", suite="planted") as folder:
        outcomes = [folder.read(each.digest) for each in record.evaluations]
    clean = outcomes[0]
    for outcome in outcomes[1:]:
        for digest, answers in outcome.scores.items():
            assert_same(answers, clean.scores[digest])


def test_a_target_that_fails_spoils_its_own_pair_alone(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    """The target answers clean inputs, and NaN on adversarial ones."""
    plant.model("two", lambda: planted.classifier(planted.NaNBeyond(2)))
    attack = {"name": "brightens", "epsilon": "0.4"}
    record = run(suite(attack, models=("one", "two", "three"), transfer=("brightens",)))
    assert record.status == "failed"
    errors = {(each.model, each.error) for each in record.failures}
    nan = "OutputError: the model returned NaN or infinity for"
    assert any(model == "one" and f"scored on two: {nan}" in error for model, error in errors)
    assert any(model == "three" and f"scored on two: {nan}" in error for model, error in errors)
    assert any(model == "two" and error.startswith(nan) for model, error in errors)
    assert transfer(record, "one", "two").status == "failed"
    assert transfer(record, "one", "two").error is None
    assert transfer(record, "one", "three").status == "done"
    assert row(record, "brightens", "one").status == "done"
    assert row(record, "brightens", "two").status == "failed"
    assert row(record, "none", "two").status == "done"
    (compared,) = [each for each in record.agreements if each.source == "one"]
    assert (compared.first, compared.second, compared.status) == ("two", "three", "failed")


def test_a_target_that_failed_is_asked_again(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    asked = suite(
        {"name": "brightens", "epsilon": "0.4"}, models=("one", "two"), transfer=("brightens",)
    )
    plant.model("two", lambda: planted.classifier(planted.NaNBeyond(2)))
    first = run(asked, batch_size=7)
    again = run(asked, batch_size=7, save_every=0.0)
    assert [each.error for each in again.failures] == [each.error for each in first.failures]
    assert again.provenance.computed_cells == 2  # one's, for the target, and two's own
    assert_same(again.evaluations, first.evaluations)

    # Without the model its failures are nobody's.
    alone = run(suite({"name": "brightens", "epsilon": "0.4"}, transfer=("brightens",)))
    assert (alone.status, alone.provenance.computed_cells) == ("done", 0)


def test_a_target_that_fails_in_the_middle_is_out_altogether(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    class Tires(planted.Rows):
        calls, last = 0, 10**9

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            Tires.calls += 1
            if Tires.calls == Tires.last:
                raise RuntimeError("tired")
            return super().forward(inputs)

    plant.model("two", lambda: planted.classifier(Tires(2)))
    make_plan(suite(models=("two",)), RunSettings(device="cpu"))
    Tires.calls, Tires.last = 0, Tires.calls + 3  # the third batch of one's examples
    first = run(suite("brightens", models=("one", "two"), transfer=("brightens",)), batch_size=20)
    assert transfer(first, "one", "two").status == "failed"
    again = run(suite("brightens", models=("one", "two"), transfer=("brightens",)), batch_size=20)
    assert again.status == "done"
    assert transfer(again, "one", "two").examples == planted.EXAMPLES
    assert transfer(again, "one", "two").error is not None


def test_a_model_that_fails_on_a_clean_example_has_no_clean_row(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    """An example that the probe did not see; the attack happens to move it to safety."""
    data = planted.squares(examples=300)
    probed = sample_ids(data, PROBE_SIZE)
    unseen = next(example for example in range(300) if example not in probed)
    pixels = data.pixels.copy()
    pixels[unseen, 0, 3, 3] = 255
    plant.dataset(
        "squares",
        lambda request: planted.ArrayDataset(
            "squares", pixels, targets=data.targets, classes=data.classes
        ),
    )
    plant.model("two", lambda: planted.classifier(planted.NaNBeyond(2)))
    plant.attack("darkens", planted.Darkens)
    darkens = {"name": "darkens", "epsilon": "0.1"}
    asked = suite(darkens, "fgsm", models=("one", "two"), transfer=("darkens", "fgsm"))
    record = run(asked, publish=write_report)
    states = {(each.model, each.attack): each.status for each in record.evaluations}
    assert states == {
        ("one", "none"): "done",
        ("one", "darkens"): "done",
        ("one", "fgsm"): "done",
        ("two", "none"): "failed",
        ("two", "darkens"): "done",
        ("two", "fgsm"): "failed",
    }
    found = row(record, "darkens", "two")
    assert found.adversarial_error is not None
    # Nothing that the clean predictions are part of is known.
    assert found.clean_error is None
    assert found.attack_success_rate is None
    assert found.worst_case_error is None
    assert [each.model for each in record.worst_cases] == ["one"]
    print_tables(record, Console(file=io.StringIO()))


def test_a_failed_cell_is_tried_again(
    run: Run, suite: MakeSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(suite("flaky", "fgsm"))
    assert first.status == "failed"
    monkeypatch.setattr(planted.Flaky, "mended", True)
    again = run(suite("flaky", "fgsm"))
    assert again.status == "done"
    assert again.provenance.computed_cells == 1
    # One attack of a single step alone raised a flag.
    same = {"flags": row(first, "fgsm").flags}
    assert row(again, "fgsm").model_copy(update=same) == row(first, "fgsm")


def test_a_dataset_that_fails_in_the_middle_fails_its_cells(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    class Torn(planted.ArrayDataset):
        def batch(self, ids: np.ndarray[Any, Any]) -> Any:
            if list(ids[:1]) == [40]:
                raise OSError("a file is gone")
            return super().batch(ids)

    whole = planted.squares()
    torn = Torn("squares", whole.pixels, targets=whole.targets, classes=whole.classes)
    plant.dataset("squares", lambda request: torn)
    record = run(suite("fgsm", "brightens"), batch_size=20)
    assert {each.error for each in record.failures} == {"OSError: a file is gone"}
    assert {each.status for each in record.evaluations} == {"failed"}


class Counted(SilentProgress):
    def __init__(self) -> None:
        self.work = self.done = 0

    def start(self, *, work: int, cells: int, reused: int) -> None:
        self.work = work

    def advance(self, work: int, *, doing: str) -> None:
        self.done += work


def test_progress_reaches_its_end_also_where_cells_fail(
    plant: planted.Plant, suite: MakeSuite, tmp_path: Path
) -> None:
    def break_down() -> planted.Classifier:
        class Breaks(planted.Rows):
            def forward(self, inputs: torch.Tensor) -> torch.Tensor:
                if len(inputs) == 7:  # a batch; the probe is larger
                    raise RuntimeError("planted trouble")
                return super().forward(inputs)

        return planted.classifier(Breaks(1))

    plant.model("one", break_down)
    asked = suite("raises", "fgsm", PGD, models=("one", "two"), transfer=("fgsm",))
    progress = Counted()
    settings = RunSettings(device="cpu", examination=False, batch_size=7)
    run_suite(asked, tmp_path / "run", settings=settings, progress=progress)
    assert progress.done == progress.work > 0


# What it costs


def test_fgsm_at_many_epsilons_costs_one_gradient(run: Run, suite: MakeSuite) -> None:
    record = run(suite({"name": "fgsm", "epsilon": THREE}), batch_size=7)
    forward = sum(each.forward_passes for each in record.evaluations)
    backward = sum(each.backward_passes for each in record.evaluations)
    assert forward == (len(THREE) + 1) * planted.EXAMPLES
    assert backward == planted.EXAMPLES


@pytest.mark.parametrize("keep", ["last", "best-loss"])
def test_pgd_costs_its_steps_and_restarts(run: Run, suite: MakeSuite, keep: str) -> None:
    found = row(run(suite({**PGD, "keep": keep})), "pgd")
    steps, restarts = PGD["steps"], PGD["restarts"]
    answers = restarts * (1 if keep == "last" else 2)
    assert found.backward_passes == planted.EXAMPLES * steps * restarts
    assert found.forward_passes == planted.EXAMPLES * (steps * restarts + answers)


def test_what_is_booked_is_what_the_models_saw(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    asked = suite({"name": "fgsm", "epsilon": THREE}, PGD, models=("one", "two"))
    record = run(asked, batch_size=25)
    for name in ("one", "two"):
        model = plant.built[name][0]
        booked = [each for each in record.evaluations if each.model == name]
        forward = sum(each.forward_passes for each in booked)
        backward = sum(each.backward_passes for each in booked)
        probe = probed(plant, asked, name)
        assert forward == model.passes.forward - probe.forward
        assert backward == model.passes.backward - probe.backward


# What changes nothing


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 7, 59, 1000])
def test_the_batch_size_changes_nothing(
    run: Run, suite: MakeSuite, tmp_path: Path, batch_size: int
) -> None:
    asked = suite(
        {"name": "fgsm", "epsilon": THREE},
        PGD,
        "noise-uniform",
        models=("one", "two"),
        transfer=("fgsm", "pgd"),
    )
    whole = run(asked, "whole", batch_size=planted.EXAMPLES)
    split = run(asked, "split", batch_size=batch_size)
    assert_same_records(whole, split)
    assert_same_outcomes(tmp_path / "whole", tmp_path / "split")


def test_the_order_of_attacks_changes_no_result(run: Run, suite: MakeSuite) -> None:
    attacks = ["fgsm", PGD, "noise-sign", {"name": "brightens", "epsilon": THREE}]
    passes = {"forward_passes", "backward_passes", "seconds"}

    def by_cell(record: RunRecord) -> dict[str, Any]:
        return {each.digest: each.model_dump(exclude=passes) for each in record.evaluations}

    one = run(suite(*attacks), "one")
    other = run(suite(*reversed(attacks)), "other")
    assert_same(by_cell(one), by_cell(other))
    forward = [sum(each.forward_passes for each in record.evaluations) for record in (one, other)]
    assert forward[0] <= forward[1]


def test_a_limited_run_holds_a_part_of_the_examples(
    run: Run, suite: MakeSuite, tmp_path: Path
) -> None:
    def ids(limit: int) -> set[int]:
        record = run(suite("fgsm"), limit=limit)
        assert {each.examples for each in record.evaluations} == {limit}
        with RunFolder.open(tmp_path / "run", suite="planted") as folder:
            return set(folder.read(record.evaluations[0].digest).example_id.tolist())

    samples = [ids(limit) for limit in (3, 10, 30)]
    assert samples[0] < samples[1] < samples[2]
    assert {example % planted.CLASSES for example in samples[0]} == {0, 1, 2}


# What is not computed again


def test_a_second_run_computes_nothing(
    run: Run, suite: MakeSuite, plant: planted.Plant, tmp_path: Path
) -> None:
    asked = suite("fgsm", PGD, models=("one", "two"), transfer=("fgsm",))
    first = run(asked)
    before = content(tmp_path / "run")
    again = run(asked)
    assert (again.provenance.computed_cells, again.provenance.reused_cells) == (0, 6)
    assert content(tmp_path / "run") == before
    assert again.evaluations == first.evaluations  # seconds too
    assert again.transfers == first.transfers
    assert plant.built["one"][1].passes == probed(plant, asked, "one")


def test_fresh_computes_everything_again(run: Run, suite: MakeSuite, tmp_path: Path) -> None:
    first = run(suite("fgsm"))
    limited = run(suite("fgsm"), limit=10)
    again = run(suite("fgsm"), limit=10, fresh=True)
    assert again.provenance.computed_cells == 2
    assert_same(again.evaluations, limited.evaluations)
    assert run(suite("fgsm")).evaluations == first.evaluations  # what it did not ask for stays


def test_a_model_more_computes_its_own_and_is_scored_on_the_others(
    run: Run, suite: MakeSuite, plant: planted.Plant, tmp_path: Path
) -> None:
    fgsm = {"name": "fgsm", "epsilon": ["0.1", "0.2"]}
    first = run(suite(fgsm, PGD, models=("one",), transfer=("fgsm",)))
    before = content(tmp_path / "run")
    asked = suite(fgsm, PGD, models=("one", "two"), transfer=("fgsm",))
    more = run(asked)

    assert more.provenance.computed_cells == 6  # two's own four, and one's two that are transferred
    assert more.provenance.reused_cells == 2
    kept = [each for each in more.evaluations if each.model == "one"]
    assert kept == list(first.evaluations)  # seconds and passes too
    old = [each.digest for each in first.evaluations if each.attack in ("none", "pgd")]
    after = content(tmp_path / "run")
    assert all(after[f"{digest}.parquet"] == before[f"{digest}.parquet"] for digest in old)

    one, two = plant.built["one"][1], plant.built["two"][0]
    # The direction is taken again; what one says of its own examples is known.
    scored = 2 * planted.EXAMPLES
    probe = probed(plant, asked, "one")
    assert one.passes.forward == probe.forward + planted.EXAMPLES + scored
    assert one.passes.backward == probe.backward + planted.EXAMPLES
    own = [each for each in more.evaluations if each.model == "two"]
    forward = sum(each.forward_passes for each in own)
    backward = sum(each.backward_passes for each in own)
    probe = probed(plant, asked, "two")
    assert two.passes.forward == probe.forward + scored + forward
    assert two.passes.backward == probe.backward + backward

    # And it is what a run of both together finds.
    together = run(asked, "together")
    assert_same_records(together, more)


def test_an_epsilon_more_computes_its_own_cell(run: Run, suite: MakeSuite) -> None:
    first = run(suite({"name": "fgsm", "epsilon": ["0.1"]}))
    more = run(suite({"name": "fgsm", "epsilon": ["0.2", "0.1"]}))
    assert more.provenance.computed_cells == 1
    assert row(more, "fgsm", epsilon="0.1") == row(first, "fgsm")


def test_another_name_for_a_model_computes_nothing(run: Run, suite: MakeSuite) -> None:
    attacks = ("fgsm",)
    first = run(suite(*attacks, models=("one", "two"), transfer=attacks))
    renamed = ({"name": "uno", "model": "one"}, "two")
    again = run(suite(*attacks, models=renamed, transfer=attacks))
    assert again.provenance.computed_cells == 0
    assert [each.model for each in again.evaluations] == ["uno", "uno", "two", "two"]
    assert [each.error for each in again.transfers] == [each.error for each in first.transfers]


def test_one_model_under_two_names_is_computed_once(run: Run, suite: MakeSuite) -> None:
    models = ("one", {"name": "uno", "model": "one"}, "two")
    record = run(suite("fgsm", models=models, transfer=("fgsm",)))
    assert (record.status, record.provenance.computed_cells) == ("done", 4)
    assert row(record, "fgsm", "one").misclassified == row(record, "fgsm", "uno").misclassified
    for source in ("one", "uno", "two"):
        assert transfer(record, source, "one").error == transfer(record, source, "uno").error
    assert run(suite("fgsm", models=models, transfer=("fgsm",))).provenance.computed_cells == 0


def test_one_attack_under_two_labels_is_computed_once(run: Run, suite: MakeSuite) -> None:
    twice = ({"name": "fgsm", "epsilon": "0.1"}, {"name": "fgsm", "epsilon": "1/10", "label": "b"})
    record = run(suite(*twice, models=("one", "two"), transfer=("fgsm",)))
    assert (record.status, record.provenance.computed_cells) == ("done", 4)
    assert {each.status for each in record.transfers} == {"done"}
    assert run(suite(*reversed(twice), models=("one", "two"), transfer=("b",))).status == "done"


def test_a_changed_target_is_asked_again_and_the_source_is_not(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    asked = suite("fgsm", models=("one", "two"), transfer=("fgsm",))
    first = run(asked)
    plant.model("two", planted.rows(3))
    again = run(asked)
    assert again.provenance.computed_cells == 3  # two's own cells, and its answers to one's
    assert transfer(again, "one", "one") == transfer(first, "one", "one")
    plant.model("three", planted.rows(3))
    fresh = run(suite("fgsm", models=("one", "three"), transfer=("fgsm",)), "fresh")
    assert transfer(again, "one", "two").error == transfer(fresh, "one", "three").error


def test_outcomes_that_were_deleted_are_computed_again(
    run: Run, suite: MakeSuite, tmp_path: Path
) -> None:
    first = run(suite("fgsm", PGD))
    for file in (tmp_path / "run" / "outcomes").iterdir():
        file.unlink()
    (tmp_path / "run" / "outcomes").rmdir()
    again = run(suite("fgsm", PGD))
    assert again.provenance.computed_cells == 3
    assert_same(again.evaluations, first.evaluations)


def test_a_damaged_outcome_is_computed_again(run: Run, suite: MakeSuite, tmp_path: Path) -> None:
    first = run(suite("fgsm", PGD))
    victim = tmp_path / "run" / "outcomes" / f"{row(first, 'pgd').digest}.parquet"
    victim.write_bytes(victim.read_bytes()[:-20])
    again = run(suite("fgsm", PGD))
    assert again.provenance.computed_cells == 1
    assert_same(again.evaluations, first.evaluations)


class Noisy(planted.Rows):
    def __init__(self, rows: int, sigma: float = 0.1) -> None:
        super().__init__(rows)
        self.sigma = sigma

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(inputs)
        return outputs + self.sigma * torch.randn_like(outputs)


def test_a_model_that_answers_at_random_is_flagged_and_computed_once(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    plant.model("two", lambda: planted.classifier(Noisy(2)))
    record = run(suite("fgsm", models=("one", "two")))
    assert [str(flag) for flag in record.flags if "differently each time" in flag.sentence] == [
        "squares, two: answers the same inputs differently each time: an error is the mean share "
        "of 20 answers"
    ]
    assert run(suite("fgsm", models=("one", "two"))).provenance.computed_cells == 0


def test_models_that_answer_at_random_are_told_apart_and_known_again(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    """Nothing but a plain number tells them apart; one is small against the rounding of means."""
    for name, sigma in {"one": 3.0, "two": 0.1, "three": 0.1 + 1e-6}.items():
        plant.model(name, lambda sigma=sigma: planted.classifier(Noisy(2, sigma)))
    models = ("one", "two", "three")
    record = run(suite("fgsm", models=models))
    assert len({card.digest for card in record.models}) == 3
    assert run(suite("fgsm", models=models)).provenance.computed_cells == 0
    plant.model("one", lambda: planted.classifier(Noisy(2, 2.9)))
    assert run(suite("fgsm", models=models)).provenance.computed_cells == 2


class Seldom(planted.Rows):
    """Answers alike in most calls; how seldom it does not may not show in any draw."""

    def __init__(self, rows: int, share: float) -> None:
        super().__init__(rows)
        self.share = share

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(inputs)
        drawn = np.random.random((len(inputs), 1)) < self.share  # noqa: NPY002
        return torch.where(torch.from_numpy(drawn), outputs.flip(1), outputs)


def test_models_of_other_settings_are_others_where_their_draws_are_alike(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    plant.model("one", lambda: planted.classifier(Seldom(2, 0.5)))
    run(suite("fgsm"))
    plant.model("one", lambda: planted.classifier(Seldom(2, 0.5 + 1e-9)))
    assert run(suite("fgsm")).provenance.computed_cells == 2


class FromTheSystem(planted.Rows):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(inputs)
        seed = secrets.randbits(60)
        noise = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(seed))
        return outputs + 0.1 * noise


def test_random_numbers_that_cannot_be_drawn_again_are_never_taken_from_an_earlier_run(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    plant.model("two", lambda: planted.classifier(FromTheSystem(2)))
    record = run(suite("fgsm", models=("one", "two")))
    assert [str(flag) for flag in record.flags if "differently each time" in flag.sentence] == [
        "squares, two: answers the same inputs differently each time: an error is the mean share "
        "of 20 answers; the differences come from random numbers elsewhere than in torch, numpy "
        "and random, or from a state out of reach, so that results are never taken from an earlier "
        "run"
    ]
    assert run(suite("fgsm", models=("one", "two"))).provenance.computed_cells == 2


def test_outcomes_of_an_older_format_are_computed_again(
    run: Run, suite: MakeSuite, plant: planted.Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(digests, "DIGEST_FORMAT", digests.DIGEST_FORMAT - 1)
        before = run(suite("fgsm"))
    after = run(suite("fgsm"))
    assert after.provenance.computed_cells == 2
    assert_same(after.evaluations, before.evaluations, but=frozenset({"digest"}))


TYPED = """
class Typed(Rows):
    def forward(self, inputs):
        outputs = super().forward(inputs)
        return outputs + 0.1 * torch.randn_like(outputs)
"""


def test_a_random_model_whose_code_cannot_be_read_is_never_taken_from_an_earlier_run(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    typed: dict[str, Any] = {"Rows": planted.Rows, "torch": torch, "__name__": "__main__"}
    exec(TYPED, typed)  # noqa: S102  # as a console does
    plant.model("one", lambda: planted.classifier(typed["Typed"](2)))
    record = run(suite("fgsm"))
    assert "its code can't be read" in record.models[0].notes[-1]
    assert run(suite("fgsm")).provenance.computed_cells == 2


NOISY_FILE = """
import torch
from torch import nn

SIGMA = {sigma}


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

    def forward(self, inputs):
        return self.net(inputs + SIGMA * torch.randn_like(inputs))
"""


def test_a_file_that_is_edited_makes_another_model_at_random(
    run: Run, suite: MakeSuite, tmp_path: Path
) -> None:
    file = tmp_path / "noisy.py"
    asked = suite("fgsm", models=({"name": "noisy", "model": f"{file}:Noisy"},))
    file.write_text(NOISY_FILE.format(sigma=0.5))
    run(asked)
    assert run(asked).provenance.computed_cells == 0
    file.write_text(NOISY_FILE.format(sigma=0.51))
    assert run(asked).provenance.computed_cells == 2
    file.write_text(NOISY_FILE.format(sigma=0.51) + "# a remark\n")
    assert run(asked).provenance.computed_cells == 0


class Opaque(planted.Rows):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return super().forward(inputs)


def test_a_model_without_gradients_meets_attacks_that_need_none(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    plant.model("one", lambda: planted.classifier(Opaque(1)))
    assert row(run(suite("noise-sign")), "noise-sign").status == "done"
    refusal = r"models\[0\]: 'one': its outputs have no gradient .*: attack 'fgsm' needs them; "
    with pytest.raises(ModelError, match=refusal):
        run(suite("noise-sign", "fgsm"))


def test_models_are_left_as_they_came(run: Run, suite: MakeSuite, plant: planted.Plant) -> None:
    def noisy() -> planted.Classifier:
        torch.manual_seed(0)
        layers = torch.nn.Sequential(
            torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(16, 3)
        )
        return planted.classifier(layers.train())

    plant.model("one", noisy)
    record = run(suite("fgsm", PGD), batch_size=7)
    again = run(suite("fgsm", PGD), "again", batch_size=60)
    assert record.evaluations[1].misclassified == again.evaluations[1].misclassified
    layers = plant.built["one"][0].module
    assert all(module.training for module in layers.modules())
    assert all(parameter.requires_grad for parameter in layers.parameters())
    assert int(layers[0].num_batches_tracked) == 0
    assert torch.equal(layers[0].running_mean, torch.zeros(1))


def test_an_experiment_without_attacks_gives_clean_errors(run: Run, suite: MakeSuite) -> None:
    asked = suite("towards-corner")
    (experiment,) = asked.experiments
    alone = asked.model_copy(
        update={"experiments": (experiment.model_copy(update={"attacks": ()}),)}
    )
    record = run(alone)
    assert record.status == "done"
    assert {row.attack for row in record.evaluations} == {"none"}
    assert all(row.clean_error is not None for row in record.evaluations)
