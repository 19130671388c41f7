"""A trajectory records margins, successes and gradients by example, however an attack batches."""

import nets
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gibbon.attacks.apgd import APGDT
from gibbon.attacks.pgd import PGD
from gibbon.core.rng import ExampleStreams
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin

BATCH = nets.random_batch(24)
THREAT = nets.threat("0.1")


def followed(classifier, batch=BATCH, *, threat=THREAT, reach=0.1, room=0):
    """A context in which the classifier follows the path of an attack, and its watch."""
    watching = classifier.watching(batch.inputs, room=room)

    class Following:
        def __enter__(self):
            self.watch = watching.__enter__()
            self.watch.begin(batch.labels, threat, bounds=classifier.bounds, reach=reach)
            return self.watch

        def __exit__(self, *error):
            return watching.__exit__(*error)

    return Following()


def run(attack, classifier, batch, *, room=0):
    with classifier.evaluating(), followed(classifier, batch, room=room) as watch:
        streams = ExampleStreams.derive(0, batch.ids)
        found = list(
            attack.propose(
                classifier, batch.inputs, labels=batch.labels, threat=THREAT, streams=streams
            )
        )
        return found, watch.path.evidence


def test_margins_and_distances_are_those_of_the_points(mlp):
    near = (BATCH.inputs + 0.05).clamp(0, 1)
    with mlp.evaluating(), followed(mlp) as watch:
        outputs = mlp(near)
        mlp(BATCH.inputs)
        found = watch.path.evidence
    margins = margin(outputs, BATCH.labels)
    torch.testing.assert_close(found.start_margin, margins)
    clean = margin(mlp.predict(BATCH.inputs), BATCH.labels)
    torch.testing.assert_close(found.best_margin, torch.maximum(margins, clean))
    assert bool((found.start_distance - 0.05).abs().max() < 1e-6)
    assert torch.equal(found.success_distance.isfinite(), (margins > 1e-4) | (clean > 1e-4))
    assert bool((found.steps == 0).all())


@pytest.mark.parametrize(("shift", "counts"), [(0.1, True), (0.11, False), (-0.2, False)])
def test_only_points_within_the_budget_are_successes(linear, shift, counts):
    with linear.evaluating():
        labels = (linear.predict(BATCH.inputs + shift).argmax(1) + 1) % nets.CLASSES
    batch = nets.Batch(BATCH.ids, BATCH.inputs.clamp(0.2, 0.8), labels)
    with linear.evaluating(), followed(linear, batch) as watch:
        outputs = linear(batch.inputs + shift)
        found = watch.path.evidence.success_distance.isfinite()
    wrong = margin(outputs, labels) > 1e-4
    assert bool(wrong.any())
    assert torch.equal(found, wrong if counts else torch.zeros_like(wrong))


def test_points_out_of_the_box_are_no_successes(linear):
    labels = (linear.predict(BATCH.inputs).argmax(1) + 1) % nets.CLASSES
    batch = nets.Batch(BATCH.ids, torch.ones_like(BATCH.inputs), labels)
    with linear.evaluating(), followed(linear, batch) as watch:
        linear(batch.inputs + 0.05)
        assert not watch.path.evidence.success_distance.isfinite().any()


def test_a_part_of_the_batch_belongs_to_its_rows(mlp):
    rows = torch.tensor([3, 4, 11])
    with mlp.evaluating(), followed(mlp) as watch:
        with mlp.on_rows(rows):
            outputs = mlp(BATCH.inputs[rows])
        found = watch.path.evidence.best_margin
    expected = torch.full((24,), -torch.inf)
    expected[rows] = margin(outputs, BATCH.labels[rows])
    torch.testing.assert_close(found, expected)


def test_undeclared_rows_are_those_of_the_nearest_inputs(mlp):
    order = torch.tensor([17, 2, 2, 5])
    points = BATCH.inputs[order] + 0.01
    with mlp.evaluating(), followed(mlp) as watch:
        outputs = mlp(points)
        found = watch.path.evidence
    margins = margin(outputs, BATCH.labels[order])
    assert found.best_margin[17] == margins[0]
    assert found.best_margin[2] == margins[1:3].max()
    assert bool((found.success_at == -1).all())  # in which order is not known


@pytest.mark.parametrize("keep", ["last", "best-loss", "first-success"])
def test_evidence_does_not_depend_on_the_batch(mlp, keep):
    batch = nets.labelled(mlp, BATCH)
    attack = PGD(steps=6, restarts=2, keep=keep)
    _assert_same_in_parts(attack, mlp, batch)


def test_targets_that_share_a_batch_leave_the_same_evidence(mlp):
    """One after another for eight examples, together for one: `room` decides."""
    batch = nets.labelled(mlp, BATCH)
    attack = APGDT(steps=5, n_target_classes=3, keep="first-success")
    _, alone = run(attack, mlp, batch, room=1)
    _, together = run(attack, mlp, batch, room=24 * 4)
    for name, values in vars(alone).items():
        torch.testing.assert_close(
            values, getattr(together, name), equal_nan=True, rtol=1e-4, atol=1e-5, msg=name
        )


def _assert_same_in_parts(attack, classifier, batch):
    _, whole = run(attack, classifier, batch)
    parts = []
    for rows in (slice(0, 7), slice(7, 24)):
        part = nets.Batch(batch.ids[rows], batch.inputs[rows], batch.labels[rows])
        parts.append(run(attack, classifier, part)[1])
    for name, values in vars(whole).items():
        joined = torch.cat([getattr(each, name) for each in parts])
        torch.testing.assert_close(values, joined, equal_nan=True, rtol=1e-4, atol=1e-5, msg=name)


def test_steps_and_pace_are_those_of_the_attack(linear):
    """From the input along a linear loss: one step after another, until the ball ends."""
    batch = nets.labelled(linear, nets.Batch(BATCH.ids, BATCH.inputs * 0.6 + 0.2, BATCH.labels))
    attack = PGD(steps=8, step_size=0.001, random_start=False)
    _, found = run(attack, linear, batch)
    left = found.success_at < 0
    assert bool(left.any())
    assert bool((found.steps[left] == 8).all())
    torch.testing.assert_close(found.pace[left], torch.full_like(found.pace[left], 0.001))
    torch.testing.assert_close(  # seven of eight steps were seen, two of them in the last quarter
        found.late_rise[left] / found.rise[left], torch.full_like(found.rise[left], 1 / 7),
        rtol=0.05, atol=0.0,
    )  # fmt: skip


def test_gradients_that_vanish_on_the_way_are_counted(linear):
    class Fades(nn.Module):
        calls = 0

        def forward(self, inputs):
            Fades.calls += 1
            return linear.module(inputs if Fades.calls < 3 else inputs.detach() + 0 * inputs)

    fading = Classifier(Fades(), classes=nets.CLASSES, input_shape=nets.SHAPE)
    batch = nets.labelled(linear, BATCH)
    with fading.evaluating(), followed(fading, batch) as watch:
        for _ in range(4):
            fading.ascend(batch.inputs, lambda outputs: torch.ones_like(outputs))
        found = watch.path.evidence
        assert watch.zero_gradient is not None
        assert not watch.zero_gradient.any()
    assert found.zero_share.tolist() == [0.5] * 24


def test_a_hinge_that_is_satisfied_has_no_gradient_to_miss(linear):
    """At a misclassified point Carlini and Wagner's loss has none: that is no sign of masking."""
    labels = (linear.predict(BATCH.inputs).argmax(1) + 1) % nets.CLASSES
    batch = nets.Batch(BATCH.ids, BATCH.inputs, labels)
    with linear.evaluating(), followed(linear, batch) as watch:
        leaf = batch.inputs.clone().requires_grad_()
        (-margin(linear(leaf), labels)).clamp(min=0).sum().backward()
        assert not watch.zero_gradient.any()
        assert bool((watch.path.evidence.zero_share == 0).all())


def test_a_loss_that_is_no_number_is_counted_and_is_not_the_models_fault(linear):
    batch = nets.labelled(linear, BATCH)
    with linear.evaluating(), followed(linear, batch) as watch:
        leaf = batch.inputs.clone().requires_grad_()
        (linear(leaf) * torch.nan).sum().backward()
        assert bool((watch.path.evidence.zero_share == 1).all())
        assert bool(torch.isfinite(watch.gradients))


def test_a_tensor_that_is_used_again_has_one_gradient(linear):
    batch = nets.labelled(linear, BATCH)
    with linear.evaluating(), followed(linear, batch) as watch:
        leaf = batch.inputs.clone().requires_grad_()
        for _ in range(3):
            linear(leaf).sum().backward()
        (linear(leaf).sum() + linear(leaf).sum()).backward()
        assert int(watch.path.evidence.steps.max()) == 4


class Operations(TorchDispatchMode):
    """Counts operations, and those that read a value back to the host."""

    READS = ("_local_scalar_dense", "nonzero", "item", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.count, self.reads = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__
        if not any(
            view in name for view in ("view", "detach", "slice", "squeeze", "expand", "select")
        ):
            self.count += 1
        self.reads += any(read in name for read in self.READS)
        return function(*args, **(kwargs or {}))


def _propose(attack, classifier, batch):
    streams = ExampleStreams.derive(0, batch.ids)
    return list(
        attack.propose(
            classifier, batch.inputs, labels=batch.labels, threat=THREAT, streams=streams
        )
    )


def test_evidence_of_a_step_is_few_operations_and_reads_nothing_back(linear, monkeypatch):
    """Counted as on a GPU, by the difference between runs of 20 and of 10 steps."""
    monkeypatch.setattr("gibbon.models.trajectory.HOST", ())
    batch = nets.labelled(linear, BATCH)

    def counts(steps, *, follow):
        with linear.evaluating(), linear.watching(batch.inputs) as watch:
            if follow:
                watch.begin(batch.labels, THREAT, bounds=linear.bounds, reach=0.1)
            with Operations() as counted:
                if follow:
                    _propose(PGD(steps=steps), linear, batch)
                else:
                    with linear.off_path():
                        _propose(PGD(steps=steps), linear, batch)
        return np.array([counted.count, counted.reads])

    evidence = (counts(20, follow=True) - counts(10, follow=True)) / 10
    without = (counts(20, follow=False) - counts(10, follow=False)) / 10
    extra = evidence - without
    assert extra[1] == 0
    assert extra[0] <= 30
