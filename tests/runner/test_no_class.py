"""Models on inputs that belong to no class: the counts, what is stored, and what goes wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import torch
from planted import SHAPE
from same_outcomes import assert_same_records
from torch import Tensor, nn

from gibbon.attacks.toolkit.fooling import fooling_images
from gibbon.core.errors import ModelError
from gibbon.core.threat import Bounds
from gibbon.datasets.rubbish import Rubbish
from gibbon.gate.baseline import save_baseline
from gibbon.gate.compare import compare
from gibbon.metrics.detection import auroc, false_positives_at_tpr
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import LOG_SCORES
from gibbon.records.no_class_answers import NO_CLASS, read_answers
from gibbon.records.run import RunRecord
from gibbon.report import write_report
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.published_numbers import verdicts
from gibbon.report.content.published_numbers.verdicts import verdict
from gibbon.runner.no_class import measure
from gibbon.runner.own_processes.own_process import can_fork
from gibbon.specs.suite import Suite

COUNT = 60
THRESHOLD = 0.7
LATE = 37  # examples of a batch
SEED = 3
FOOLING = {"step": "0.5", "direction": "unit"}


def made(noise: dict[str, Any] | None = None, **more: Any) -> Suite:
    """Two models on the planted data and on noise, with other keys of the latter's experiment."""
    dataset = {"source": "rubbish:gaussian", "count": COUNT, **(noise or {})}
    without = {"dataset": dataset, "models": ["one", "two"], "threshold": THRESHOLD, **more}
    experiments = [{"dataset": "squares", "models": ["one", "two"]}, without]
    return Suite.model_validate({"name": "noise", "seed": SEED, "experiments": experiments})


def inputs_of(count: int = COUNT) -> Tensor:
    box = Bounds(0.0, 1.0)
    noise = Rubbish("n", "gaussian", shape=SHAPE, count=count, bounds=box, seed=SEED)
    return noise.batch(np.arange(count)).inputs


def softmax_of(seed: int, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return planted.rows(seed)().predict(inputs).softmax(1)


def files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted((folder / NO_CLASS).iterdir())}


@pytest.fixture
def record(run: planted.Run) -> RunRecord:
    return run(made(fooling=FOOLING))


def test_the_rows_are_what_the_model_answers(record: RunRecord) -> None:
    rows = {each.model: each for each in record.no_class}
    for seed, name in ((1, "one"), (2, "two")):
        confidence, predicted = (each.numpy() for each in softmax_of(seed, inputs_of()).max(1))
        positive = confidence > THRESHOLD
        row = rows[name]
        assert row.false_positives == np.count_nonzero(positive)
        assert 0 < row.false_positives < COUNT
        assert row.false_positive_rate == pytest.approx(positive.mean())
        assert row.confidence_on_false_positives == pytest.approx(confidence[positive].mean())
        assert row.mean_confidence == pytest.approx(confidence.mean())
        for field in ("false_positive_rate", "confidence_on_false_positives", "mean_confidence"):
            low, high = getattr(row, f"{field}_low"), getattr(row, f"{field}_high")
            assert low < getattr(row, field) < high
        clean = softmax_of(seed, planted.squares().batch(np.arange(planted.EXAMPLES)).inputs)
        known = clean.amax(1).numpy()
        assert row.against == "squares"
        assert row.clean_examples == planted.EXAMPLES
        assert row.auroc == pytest.approx(auroc(known, confidence).value)
        expected = false_positives_at_tpr(known, confidence).value
        assert row.false_positive_rate_at_95_tpr == pytest.approx(expected)
        counts = np.bincount(predicted[positive], minlength=3)
        shares = [each for each in record.no_class_shares if each.model == name]
        assert [each.of_class for each in shares] == ["a", "b", "c"]
        assert [each.count for each in shares] == counts.tolist()
        assert sum(each.share or 0 for each in shares) == pytest.approx(1)
        assert row.top_class == "abc"[int(counts.argmax())]
    assert not any(each.dataset == "rubbish-gaussian" for each in record.evaluations)
    (card,) = [each for each in record.datasets if each.no_class]
    assert (card.name, card.classes, card.examples) == ("rubbish-gaussian", (), COUNT)
    assert any("not clipped" in note for note in card.notes)


def test_fooling_rates_are_those_of_the_steps(record: RunRecord) -> None:
    source = planted.rows(1)()
    rates = [each for each in record.fooling if each.model == "one"]
    images = fooling_images(source, inputs_of(), step=0.5, direction="unit")
    for rate, points in zip(rates, images, strict=True):
        confidence, predicted = softmax_of(1, points).max(1)
        taken = predicted == rate.index
        fooled = taken & (confidence > THRESHOLD)
        assert rate.fooled == int(fooled.sum())
        assert rate.predicted_rate == pytest.approx(float(taken.float().mean()))
    (row,) = [each for each in record.no_class if each.model == "one"]
    assert row.fooling_rate == pytest.approx(np.mean([each.fooling_rate for each in rates]))
    # One pass over the inputs, one for the gradients, one over the images of each class.
    assert row.forward_passes == COUNT * (1 + 1 + 3)
    assert row.backward_passes == COUNT * 3


def test_batches_change_nothing(run: planted.Run, record: RunRecord) -> None:
    assert_same_records(record, run(made(fooling=FOOLING), "other", batch_size=7))


def test_nothing_is_computed_twice(run: planted.Run, record: RunRecord, tmp_path: Path) -> None:
    assert (record.provenance.computed_cells, record.provenance.reused_cells) == (6, 0)
    before = files(tmp_path / "run")
    again = run(made(fooling=FOOLING))
    assert (again.provenance.computed_cells, again.provenance.reused_cells) == (0, 6)
    # The threshold and the name decide how answers are counted, not what they are.
    other = run(made({"name": "noise"}, fooling=FOOLING, threshold=0.5))
    assert other.provenance.computed_cells == 0
    assert files(tmp_path / "run") == before
    assert other.no_class[0].false_positives != record.no_class[0].false_positives
    another = run(made(fooling={**FOOLING, "step": "0.6"}))
    assert another.provenance.computed_cells == 2
    more = run(made({"count": COUNT + 1}, fooling=FOOLING))
    assert more.provenance.computed_cells == 4


def test_an_interrupted_run_goes_on_where_it_stopped(
    run: planted.Run, record: RunRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, calls = measure._answered, []

    def interrupted(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(measure, "_answered", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(made(fooling=FOOLING), "stopped", batch_size=10)
    (stored,) = files(tmp_path / "stopped")
    partial = read_answers(tmp_path / "stopped", stored.removesuffix(".parquet"))
    assert partial is not None
    assert len(partial.example_id) == 30
    whole = run(made(fooling=FOOLING), "stopped", batch_size=10)
    assert len(calls) == 4 + 3 + 6 + 2 * 3 * 6  # three batches were kept
    assert_same_records(record, whole)


def test_lost_and_damaged_answers_are_made_again(
    run: planted.Run, record: RunRecord, tmp_path: Path
) -> None:
    folder = tmp_path / "run" / NO_CLASS
    first, second, *_ = sorted(folder.iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-9])
    again = run(made(fooling=FOOLING))
    assert again.provenance.computed_cells == 2
    assert_same_records(record, again)


def test_a_model_that_breaks_off_the_data_fails_alone(
    plant: planted.Plant, run: planted.Run, tmp_path: Path
) -> None:
    plant.model("nan", lambda: planted.classifier(planted.NaNBeyond(1)))
    noise = {"source": "rubbish:gaussian", "count": COUNT}
    experiments: list[dict[str, Any]] = [{"dataset": noise, "models": ["nan", "two"]}]
    suite = Suite.model_validate({"name": "noise", "experiments": experiments})
    with pytest.raises(ModelError, match="NaN or infinity"):
        run(suite)  # the probe sees it, on noise as on data
    plant.model("late", lambda: planted.classifier(LateNaN(1)))
    experiments[0]["models"] = ["late", "two"]
    suite = Suite.model_validate({"name": "noise", "experiments": experiments})
    record = run(suite, "late", batch_size=LATE, publish=write_report)
    (failure,) = record.failures
    assert (failure.model, failure.dataset) == ("late", "rubbish-gaussian")
    assert "NaN" in failure.error
    assert [each.status for each in record.no_class] == ["failed", "done"]
    assert record.no_class[0].false_positive_rate is None
    assert "failed" in (tmp_path / "late" / "tables.md").read_text()


class LateNaN(planted.Rows):
    """Returns NaN for a batch of one size, which no probe has."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        return outputs * torch.nan if len(inputs) == LATE else outputs


class Noisy(nn.Module):
    """Scores of planted rows, of inputs with noise."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = planted.Rows(1)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.rows(inputs + 0.5 * torch.randn_like(inputs))
        return outputs


def test_a_model_that_answers_at_random_is_judged_by_its_draws(
    plant: planted.Plant, run: planted.Run
) -> None:
    plant.model("noisy", lambda: planted.classifier(Noisy()))
    written = {
        "dataset": {"source": "rubbish:gaussian", "count": 20}, "models": ["noisy"],
        "draws": 5, "threshold": 0.5, "fooling": {"step": "1"},
    }  # fmt: skip
    suite = Suite.model_validate({"name": "noisy", "experiments": [written]})
    one, other = run(suite, "one", batch_size=20), run(suite, "other", batch_size=3)
    (row,) = one.no_class
    assert row.draws == 5
    assert (row.false_positive_rate or 0) * 100 == pytest.approx(
        round((row.false_positive_rate or 0) * 100)
    )
    assert row.confidence_on_false_positives_low is None
    assert_same_records(one, other)


def test_independent_sigmoids_may_see_no_class_or_several(
    plant: planted.Plant, run: planted.Run
) -> None:
    """The confidence is the winning unit's own output, which a softmax over units would raise."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(SHAPE)), 3), nn.LogSigmoid())
    with torch.no_grad():
        net[1].weight.zero_()  # type: ignore[operator]
        net[1].bias.copy_(torch.tensor([-1.0, -3.0, -3.0]))  # type: ignore[operator]

    def build() -> Classifier:
        return Classifier(net, classes=3, input_shape=SHAPE, outputs=LOG_SCORES)

    plant.model("sigmoids", build)
    experiment = {"dataset": "rubbish:uniform", "models": ["sigmoids"]}
    record = run(Suite.model_validate({"name": "s", "experiments": [experiment]}), limit=30)
    (row,) = record.no_class
    assert row.false_positives == 0  # the softmax of these scores is 0.79
    assert row.mean_confidence == pytest.approx(1 / (1 + np.e))
    assert (row.top_class, row.confidence_on_false_positives) == ("", None)
    assert row.examples == 30


def test_what_is_compared_is_the_only_other_dataset_with_the_model_or_the_one_named(
    plant: planted.Plant, run: planted.Run
) -> None:
    plant.dataset("others", lambda request: planted.squares(seed=5, name="others"))
    noise = {"dataset": {"source": "rubbish:uniform", "count": 20}, "models": ["one"]}
    first, second = ({"dataset": each, "models": ["one"]} for each in ("squares", "others"))
    unlike = {"dataset": "others", "models": ["two"]}

    def against(*experiments: dict[str, Any]) -> str:
        suite = Suite.model_validate({"name": "s", "experiments": list(experiments)})
        (row,) = run(suite, publish=None).no_class
        assert (row.auroc is None) == (not row.against)
        return row.against

    assert against(noise) == ""
    assert against(noise, first) == "squares"
    assert against(first, unlike, noise) == "squares"
    assert against(first, second, noise) == ""
    assert against(first, second, {**noise, "against": "others"}) == "others"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"attacks": [{"name": "fgsm", "epsilon": 0.1}]}, "attack 'fgsm' needs the true class"),
        ({"error_only": True}, "an error needs the true class"),
        ({"against": "sqares"}, "did you mean 'squares'"),
        ({"against": "rubbish-gaussian"}, "has no classes itself"),
        ({"models": ["three"], "against": "squares"}, "has none of its models"),
        ({"fooling": {"step": 0}}, "must be longer than 0"),
        ({"threshold": 1.0}, "less than 1"),
    ],
)
def test_a_request_that_needs_classes_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(**more)


def test_keys_for_no_class_are_refused_on_data_with_classes() -> None:
    for key, value in {"threshold": 0.4, "fooling": "1", "against": "x"}.items():
        with pytest.raises(ValueError, match=f"{key} is for inputs without a class"):
            Suite.model_validate({"name": "s", "dataset": "squares", "models": ["one"], key: value})


def test_fooling_needs_gradients(plant: planted.Plant, run: planted.Run) -> None:
    class Rounded(planted.Rows):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs).detach()

    plant.model("one", lambda: planted.classifier(Rounded(1)))
    with pytest.raises(ModelError, match="fooling images are made with gradients; leave out"):
        run(made(fooling=FOOLING))
    assert run(made()).no_class[0].false_positives is not None


def test_the_form_of_noise_is_that_of_a_registered_model(run: planted.Run) -> None:
    experiment = {"dataset": {"source": "rubbish:uniform", "count": 9}, "models": ["one"]}
    record = run(Suite.model_validate({"name": "s", "experiments": [experiment]}))
    assert record.datasets[0].input_shape == SHAPE
    experiment["dataset"]["shape"] = [3, 3]  # type: ignore[index]
    with pytest.raises(ModelError, match="takes inputs of shape"):
        run(Suite.model_validate({"name": "s", "experiments": [experiment]}))


def test_a_false_positive_rate_is_held_by_a_baseline(
    run: planted.Run, record: RunRecord, tmp_path: Path
) -> None:
    file = tmp_path / "base.json"
    save_baseline(tmp_path / "run", file, accept=["error-at-chance"])
    same = compare(file, tmp_path / "run")
    keys = [each.key for each in same.measures if each.key.measure == "false_positive_rate"]
    assert [each.model for each in keys] == ["one", "two"]
    assert same.passed
    run(made(fooling=FOOLING, threshold=0.34), "other")
    other = compare(file, tmp_path / "other")
    reasons = {each.reason for each in other.measures if each.key in keys}
    assert not other.passed
    assert all("threshold" in each for each in reasons)


def test_published_rows_get_their_verdicts(
    run: planted.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "FEWEST", 10)
    suite = made(fooling=FOOLING)
    (row,) = [each for each in run(suite).no_class if each.model == "one"]
    common = {"dataset": "rubbish-gaussian", "model": "one", "section": "A"}
    published = [
        {"measure": "false_positive_rate", "value": row.false_positive_rate, "tolerance": 0},
        {"measure": "confidence_on_false_positives", "value": 0.01, "tolerance": 0.1},
        {"measure": "share_of_false_positives", "of_class": row.top_class,
         "value": row.top_class_share, "tolerance": 0.001},
        {"measure": "fooling_rate", "value": row.fooling_rate, "tolerance": 0.001},
        {"measure": "fooling_rate", "of_class": 2, "value": 1.0, "tolerance": 1.0},
        {"measure": "auroc", "value": row.auroc, "tolerance": 0},
        {"measure": "false_positive_rate", "model": "absent", "value": 0.5, "tolerance": 0.1},
    ]  # fmt: skip
    rows = [{**common, **each} for each in published]
    whole = Suite.model_validate({**suite.model_dump(), "published": rows})
    results = RunLookup(run(whole))
    words = [found.word for each in whole.published if (found := verdict(each, results))]
    assert words == [
        "reproduced", "differs", "reproduced", "reproduced", "reproduced", "reproduced", "not run",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"measure": "share_of_false_positives"},
        {"measure": "false_positive_rate", "of_class": 3},
        {"measure": "false_positive_rate", "attack": "fgsm"},
    ],
)
def test_a_published_row_says_which_class_it_is_about(wrong: dict[str, Any]) -> None:
    row = {"dataset": "d", "model": "m", "section": "A", "value": 0.5, **wrong}
    with pytest.raises(ValueError, match=r"of_class|leave out attack"):
        Suite.model_validate({"name": "s", "dataset": "d", "models": ["m"], "published": [row]})


@pytest.mark.skipif(not can_fork(), reason="needs forked processes")
def test_a_model_that_ends_its_process_fails_alone(plant: planted.Plant, run: planted.Run) -> None:
    class Ends(planted.Rows):
        def forward(self, inputs: Tensor) -> Tensor:
            if len(inputs) == LATE:
                os._exit(3)
            return super().forward(inputs)

    plant.model("one", lambda: planted.classifier(Ends(1)))
    record = run(made(), isolate=True, batch_size=LATE)
    noise = [each for each in record.failures if each.dataset == "rubbish-gaussian"]
    assert [each.model for each in noise] == ["one"]
    assert "process" in noise[0].error
    assert [each.status for each in record.no_class] == ["failed", "done"]
