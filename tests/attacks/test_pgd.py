"""PGD against the optimum of linear models, and what each of its parameters does."""

import math
from copy import copy

import nets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gibbon.attacks.fgsm import FGSM
from gibbon.attacks.pgd import PATH_LENGTH, PGD
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin
from gibbon.models.pass_count import PassCount
from gibbon.verify.judge import judge
from gibbon.verify.proposal import TriesProposal

DIMENSIONS = 12


def regression() -> tuple[Classifier, Batch, Tensor]:
    w = torch.rand(DIMENSIONS, generator=nets.generator(3), dtype=torch.float64) * 4 - 2
    inputs = torch.rand(6, DIMENSIONS, generator=nets.generator(1), dtype=torch.float64)
    return nets.logistic(w, bias=0.3), Batch(torch.arange(6), inputs, torch.arange(6) % 2), w


def climbed(
    attack: PGD, classifier: Classifier, batch: Batch, threat: ThreatModel, *, seed: int = 0
) -> list[Tensor]:
    streams = ExampleStreams.derive(seed, batch.ids)
    with classifier.evaluating():
        return list(
            attack.propose(
                classifier, batch.inputs, labels=batch.labels, threat=threat, streams=streams
            )
        )


def losses(classifier: Classifier, candidates: Tensor, batch: Batch) -> Tensor:
    with classifier.evaluating():
        return margin(classifier.predict(candidates), batch.labels)


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("keep", ["last", "best-loss"])
def test_the_linf_optimum_of_a_linear_model_is_reached(loss, random_start, keep):
    classifier, batch, w = regression()
    attack = PGD(steps=10, loss=loss, random_start=random_start, keep=keep)
    (candidates,) = climbed(attack, classifier, batch, nets.threat("0.25", bounds=None))
    optimum = losses(classifier, batch.inputs, batch) + 0.25 * w.abs().sum()
    torch.testing.assert_close(losses(classifier, candidates, batch), optimum)


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
@pytest.mark.parametrize(("random_start", "tolerance"), [(False, 1e-7), (True, 1e-3)])
def test_the_l2_optimum_of_a_linear_model_is_reached(loss, random_start, tolerance):
    classifier, batch, w = regression()
    attack = PGD(steps=100, step_size=0.2, loss=loss, random_start=random_start)
    threat = nets.threat("0.5", norm=Norm.L2, bounds=None)
    (candidates,) = climbed(attack, classifier, batch, threat)
    optimum = losses(classifier, batch.inputs, batch) + 0.5 * w.norm()
    torch.testing.assert_close(
        losses(classifier, candidates, batch), optimum, rtol=0, atol=tolerance
    )


@given(
    steps=st.integers(1, 6),
    step_size=st.none() | st.floats(0.001, 10),
    epsilon=st.sampled_from(["0.01", "0.2", "2"]),
    norm=st.sampled_from(Norm),
    seed=st.integers(0, 100),
)
def test_whatever_the_steps_candidates_stay_inside(steps, step_size, epsilon, norm, seed):
    classifier, batch = nets.mlp(), nets.random_batch(8)
    threat = nets.threat(epsilon, norm=norm)
    attack = PGD(steps=steps, step_size=step_size, restarts=2)
    for candidates in climbed(attack, classifier, batch, threat, seed=seed):
        change = (candidates - batch.inputs).flatten(1).double()
        length = change.norm(dim=1, p={Norm.LINF: math.inf, Norm.L2: 2, Norm.L1: 1}[norm])
        assert float(length.max()) <= threat.radius * (1 + 1e-6) + 1e-6
        assert float(candidates.min()) >= 0
        assert float(candidates.max()) <= 1


def wandering() -> tuple[Classifier, Batch]:
    """Steps so long that the last iterate is often not the best."""
    return nets.mlp(spread=12.0), nets.random_batch(60)


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
@pytest.mark.parametrize("norm", Norm)
def test_the_best_iterate_is_never_below_the_last_in_loss(loss, norm):
    classifier, batch = wandering()
    threat = nets.threat("0.3", norm=norm)
    parts = {"steps": 7, "step_size": 0.6, "loss": loss}
    (last,) = climbed(PGD(keep="last", **parts), classifier, batch, threat)
    (best,) = climbed(PGD(keep="best-loss", **parts), classifier, batch, threat)
    with classifier.evaluating():
        measure = margin if loss == "margin" else classifier.outputs.exact_loss
        low = measure(classifier.predict(last), batch.labels)
        high = measure(classifier.predict(best), batch.labels)
    assert bool((high >= low).all())
    assert bool((high > low).any())


def test_the_first_success_is_kept_from_the_first_iterate_on():
    classifier, batch = wandering()
    threat = nets.threat("0.3")
    attack = PGD(steps=7, step_size=0.05, keep="first-success", random_start=False)
    (first,) = climbed(attack, classifier, batch, threat)
    with classifier.evaluating():
        wrong = margin(classifier.predict(batch.inputs), batch.labels) > 0
        path = [batch.inputs]
        for steps in range(1, 8):
            shorter = PGD(steps=steps, step_size=0.05, random_start=False)
            path += climbed(shorter, classifier, batch, threat)
        misled = torch.stack(
            [margin(classifier.predict(points), batch.labels) > 0 for points in path]
        )
    assert 0 < int(wrong.sum()) < len(wrong)
    assert torch.equal(first[wrong], batch.inputs[wrong])
    for number in range(len(batch.labels)):
        successes = misled[:, number].nonzero().flatten().tolist()
        expected = path[successes[0] if successes else -1][number]
        torch.testing.assert_close(first[number], expected, rtol=0, atol=1e-6)


def test_the_first_success_misleads_wherever_the_last_iterate_does():
    classifier, batch = wandering()
    threat = nets.threat("0.1")
    parts = {"steps": 7, "step_size": 0.08}
    (last,) = climbed(PGD(keep="last", **parts), classifier, batch, threat)
    (first,) = climbed(PGD(keep="first-success", **parts), classifier, batch, threat)
    by_last = losses(classifier, last, batch) > 0
    by_first = losses(classifier, first, batch) > 0
    assert bool((by_first | ~by_last).all())
    assert int(by_first.sum()) >= int(by_last.sum())


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("keep", ["last", "best-loss", "first-success"])
def test_restarts_never_reduce_the_error(norm, keep):
    classifier, batch = nets.mlp(spread=12.0), nets.random_batch(80)
    batch = nets.labelled(classifier, batch)
    threat = nets.threat("0.08" if norm is Norm.LINF else "0.3", norm=norm)
    misled = []
    for restarts in (1, 2, 5):
        tries = climbed(PGD(steps=3, restarts=restarts, keep=keep), classifier, batch, threat)
        assert len(tries) == (1 if keep == "first-success" else restarts)
        with classifier.evaluating():
            found = judge(classifier, batch, proposed=TriesProposal(tries), threat=threat)
        assert torch.equal(found.any_misled, _misled(found, batch))
        misled.append(found.any_misled)
    assert bool((misled[1] | ~misled[0]).all())
    assert bool((misled[2] | ~misled[1]).all())
    assert 0 < int(misled[0].sum()) < 80


def _misled(found, batch: Batch) -> Tensor:
    return found.answers.predicted != batch.labels


def test_more_restarts_begin_with_the_same_ones(mlp, batch):
    threat = nets.threat()
    (one,) = climbed(PGD(steps=3), mlp, batch, threat)
    first, second = climbed(PGD(steps=3, restarts=2), mlp, batch, threat)
    assert torch.equal(one, first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("norm", Norm)
def test_a_step_has_the_length_that_was_asked_for(norm):
    classifier, batch, _ = regression()
    attack = PGD(steps=4, step_size="1/100", random_start=False)
    (candidates,) = climbed(attack, classifier, batch, nets.threat("2", norm=norm, bounds=None))
    change = candidates - batch.inputs
    if norm is Norm.LINF:
        torch.testing.assert_close(change.abs(), torch.full_like(change, 0.04))
    else:
        torch.testing.assert_close(change.norm(dim=1), torch.full((6,), 0.04).double())


def test_without_a_step_size_the_path_is_two_and_a_half_times_epsilon(mlp, batch):
    for size, length in ((None, PATH_LENGTH * 0.3 / 10), (0.07, 0.07)):
        attack = PGD(steps=10, step_size=size, random_start=False)
        written = PGD(steps=10, step_size=length, random_start=False)
        (found,), (expected,) = (
            climbed(each, mlp, batch, nets.threat("0.3")) for each in (attack, written)
        )
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("keep", "more"), [("last", 0), ("best-loss", 1)])
def test_passes_are_those_of_the_steps(mlp, batch, keep, more):
    count = len(batch.labels)
    climbed(PGD(steps=5, restarts=2, keep=keep), mlp, batch, nets.threat())
    assert mlp.passes == PassCount(forward=2 * (5 + more) * count, backward=2 * 5 * count)


def alone(attack: PGD, classifier: Classifier, batch: Batch, threat: ThreatModel) -> list[Tensor]:
    """The last points of every restart by itself, and after how many steps."""
    parts = {name: getattr(attack, name) for name in ("random_start", "step_size", "restarts")}
    return [
        torch.stack(climbed(PGD(steps=steps, keep="last", **parts), classifier, batch, threat))
        for steps in range(1, attack.steps + 1)
    ]


@pytest.mark.parametrize("norm", Norm)
def test_who_is_misled_leaves_the_batch_and_takes_part_in_no_later_restart(norm):
    """Against every restart run to its end with ``last``, once with each number of steps."""
    classifier, batch = wandering()
    batch = nets.labelled(classifier, batch)
    threat = nets.threat({Norm.LINF: "0.02", Norm.L2: "0.15", Norm.L1: "0.4"}[norm], norm=norm)
    attack = PGD(steps=4, step_size=threat.radius / 3, restarts=3, keep="first-success")
    classifier.passes = PassCount()
    (first,) = climbed(attack, classifier, batch, threat)
    spent = copy(classifier.passes)
    starts = torch.stack(
        climbed(PGD(steps=1, step_size=1e-12, restarts=3), classifier, batch, threat)
    )
    paths = torch.stack([starts, *alone(attack, classifier, batch, threat)])  # step, restart, ...
    with classifier.evaluating():
        gaps = torch.stack(
            [
                torch.stack([margin(classifier.predict(points), batch.labels) for points in tries])
                for tries in paths
            ]
        )
    forward = backward = 0
    for number in range(len(batch.labels)):
        expected = None
        for restart in range(3):
            hits = (gaps[:, restart, number] > 0).nonzero().flatten().tolist()
            lasted = min([*hits, 4])
            forward, backward = forward + lasted + 1, backward + min(lasted + 1, 4)
            if hits:
                expected = paths[hits[0], restart, number]
                break
        if expected is None:
            expected = paths[4, int(gaps[4, :, number].argmax()), number]
        torch.testing.assert_close(first[number], expected, rtol=0, atol=1e-6)
    # Where the next point is expected to mislead, a forward pass alone comes first: it spares the
    # backward pass where it does, and is one more where it does not.
    assert spent.backward <= backward
    assert forward <= spent.forward <= forward + backward // 4
    misled = (gaps > 0).any(0)
    assert 0 < int(misled[0].sum()) < int(misled.any(0).sum()) < len(batch.labels)


def test_nobody_is_left_for_a_restart_that_has_nothing_to_do():
    classifier, batch = wandering()
    batch = Batch(batch.ids, batch.inputs, (nets.labelled(classifier, batch).labels + 1) % 4)
    classifier.passes = PassCount()
    attack = PGD(steps=5, restarts=4, keep="first-success", random_start=False)
    (found,) = climbed(attack, classifier, batch, nets.threat("0.1"))
    assert torch.equal(found, batch.inputs)
    assert classifier.passes == PassCount(forward=60, backward=60)


def test_a_random_start_is_random_and_the_other_is_the_input(mlp, batch):
    threat = nets.threat("0.2")
    still = {"steps": 1, "step_size": 1e-9}
    (from_input,) = climbed(PGD(random_start=False, **still), mlp, batch, threat)
    (from_random,) = climbed(PGD(**still), mlp, batch, threat)
    assert torch.allclose(from_input, batch.inputs, atol=1e-8)
    change = (from_random - batch.inputs).abs()
    assert 0.05 < float(change.mean()) < 0.11  # half of 0.2, less at the faces of the box


def test_a_single_step_without_a_random_start_is_fgsm(mlp, batch):

    threat = nets.threat("0.1")
    (candidates,) = climbed(PGD(steps=1, step_size=0.1, random_start=False), mlp, batch, threat)
    streams = ExampleStreams.derive(0, batch.ids)
    with mlp.evaluating():
        (expected,) = FGSM().propose(
            mlp, batch.inputs, labels=batch.labels, threat=threat, streams=streams
        )
    torch.testing.assert_close(candidates, expected, rtol=0, atol=1e-7)


def test_a_step_of_no_length_is_refused():
    with pytest.raises(ValueError, match="greater than 0"):
        PGD(step_size=0.0)
