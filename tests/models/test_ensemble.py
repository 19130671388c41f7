"""Models fused into one: predictions, exact directions, what can not be fused, what is shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gibbon import evaluate
from gibbon.core.errors import ModelError
from gibbon.core.threat import Bounds
from gibbon.models.classifier import Classifier
from gibbon.models.ensemble import FUSIONS, Fuse, ensemble
from gibbon.models.outputs import LOG_SCORES, LOGITS, PROBABILITIES, OutputRule
from gibbon.models.pass_count import PassCount
from gibbon.models.weights import state_digest
from gibbon.runner.device.precision import Variant, vary

RULES = (LOGITS, PROBABILITIES, LOG_SCORES)
FUSES: tuple[Fuse, ...] = ("probabilities", "logits", "loss")
COUNT, PIXELS = 8, nets.PIXEL_COUNT
INPUTS = nets.random_batch(COUNT).inputs
LABELS = torch.arange(COUNT) % nets.CLASSES


def members() -> list[Classifier]:
    return [nets.mlp(seed=5), nets.linear(seed=6), nets.mlp(seed=7, spread=6.0)]


def outputs_of(classifier: Classifier) -> Tensor:
    with classifier.evaluating():
        return classifier.predict(INPUTS)


def direction(
    classifier: Classifier, labels: Tensor = LABELS, *, inputs: Tensor = INPUTS
) -> Tensor:
    """The exact direction in the inputs, of length 1."""
    with classifier.evaluating():
        _, gradient = classifier.ascend(
            inputs, lambda outputs: classifier.outputs.ascent(outputs, labels)
        )
    return unit(gradient)


def unit(gradients: Tensor) -> Tensor:
    flat = gradients.flatten(1).double()
    return flat / flat.norm(dim=1, keepdim=True)


def fused_loss(logits: Sequence[Tensor], fuse: Fuse, shares: Sequence[float]) -> Tensor:
    """The loss of each example as the paper writes it, from the logits of the members."""
    pairs = list(zip(logits, shares, strict=True))
    if fuse == "logits":
        mean = sum((share * each for each, share in pairs), torch.zeros(()))
        return nn.functional.cross_entropy(mean, LABELS, reduction="none")
    if fuse == "probabilities":
        chance = sum((share * each.softmax(1) for each, share in pairs), torch.zeros(()))
        return -chance.log().gather(1, LABELS.unsqueeze(1)).squeeze(1)
    losses = [
        share * nn.functional.cross_entropy(each, LABELS, reduction="none") for each, share in pairs
    ]
    return torch.stack(losses).sum(0)


# What it predicts


@pytest.mark.parametrize("shares", [None, [1, 2, 5]])
def test_what_is_fused_in_probabilities_predicts_with_their_mean(
    shares: list[float] | None,
) -> None:
    parts = torch.stack([outputs_of(each).softmax(1) for each in members()])
    whole = torch.tensor([1 / 3, 1 / 3, 1 / 3] if shares is None else [0.125, 0.25, 0.625])
    mean = (parts * whole.view(-1, 1, 1)).sum(0)
    fused = ensemble(members(), shares=shares)  # the way that is taken if none is named
    torch.testing.assert_close(outputs_of(fused).softmax(1), mean)
    torch.testing.assert_close(fused.outputs.confidence(outputs_of(fused)), mean.amax(1))


def test_what_is_fused_in_logits_predicts_with_the_softmax_of_their_mean() -> None:
    mean = torch.stack([outputs_of(each) for each in members()]).mean(0)
    fused = ensemble(members(), fuse="logits")
    torch.testing.assert_close(outputs_of(fused), mean)
    assert fused.outputs is LOGITS


def test_what_is_fused_in_its_loss_predicts_the_class_of_the_smallest_mean_loss() -> None:
    fused = ensemble(members(), fuse="loss", shares=[1, 1, 2])
    outputs = outputs_of(fused)
    shares = torch.tensor([0.25, 0.25, 0.5]).view(-1, 1, 1)
    logs = (torch.stack([outputs_of(each).log_softmax(1) for each in members()]) * shares).sum(0)
    in_logits = ensemble(members(), fuse="logits", shares=[1, 1, 2])
    assert torch.equal(outputs.argmax(1), logs.argmax(1))
    assert torch.equal(outputs.argmax(1), outputs_of(in_logits).argmax(1))
    torch.testing.assert_close(fused.outputs.confidence(outputs), logs.amax(1).exp())
    torch.testing.assert_close(fused.outputs.loss(outputs, LABELS), -logs[range(COUNT), LABELS])
    torch.testing.assert_close(fused.outputs.as_logits(outputs), logs)


def test_the_loss_of_members_of_every_kind_is_the_mean_of_their_own() -> None:
    mixed = [nets.with_rule(rule, seed=seed) for seed, rule in enumerate(RULES)]
    fused = ensemble(mixed, fuse="loss")
    own = torch.stack([each.outputs.loss(outputs_of(each), LABELS) for each in mixed])
    torch.testing.assert_close(fused.outputs.loss(outputs_of(fused), LABELS), own.mean(0))


def test_scores_take_part_in_probabilities_divided_by_their_sum() -> None:
    scores, plain = nets.with_rule(LOG_SCORES), nets.mlp()
    chances = outputs_of(scores).exp()
    mean = (chances / chances.sum(1, keepdim=True) + outputs_of(plain).softmax(1)) / 2
    torch.testing.assert_close(outputs_of(ensemble([scores, plain])).softmax(1), mean)


@pytest.mark.parametrize("fuse", FUSES)
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_one_member_alone_predicts_as_it_does_without(rule: OutputRule, fuse: Fuse) -> None:
    member = nets.with_rule(rule)
    alone = ensemble([member], fuse=fuse)
    assert torch.equal(outputs_of(alone).argmax(1), outputs_of(member).argmax(1))
    if rule is not LOG_SCORES:
        torch.testing.assert_close(
            alone.outputs.confidence(outputs_of(alone)),
            member.outputs.confidence(outputs_of(member)),
        )


# Directions


@pytest.mark.parametrize("fuse", FUSES)
def test_the_direction_is_the_gradient_of_the_papers_loss(fuse: Fuse) -> None:
    leaf = INPUTS.double().requires_grad_()
    logits = [each.module.double()(leaf) for each in members()]
    (gradient,) = torch.autograd.grad(fused_loss(logits, fuse, [0.2, 0.3, 0.5]).sum(), leaf)
    fused = ensemble(members(), fuse=fuse, shares=[2, 3, 5])
    torch.testing.assert_close(direction(fused), unit(gradient), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_the_mean_loss_of_one_member_has_the_members_direction(rule: OutputRule) -> None:
    member = nets.with_rule(rule)
    came = direction(ensemble([member], fuse="loss"))
    torch.testing.assert_close(came, direction(member), rtol=1e-4, atol=1e-5)


def sure(weights: Tensor, *, lead: float) -> Classifier:
    """A linear model that is sure of class 0 everywhere, by about this lead."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, nets.CLASSES))
    with torch.no_grad():
        net[1].weight.copy_(weights)
        net[1].bias.zero_()
        net[1].bias[0] = lead
    return Classifier(net, classes=nets.CLASSES, input_shape=nets.SHAPE)


def weights(seed: int) -> Tensor:
    return torch.randn(nets.CLASSES, PIXELS, generator=nets.generator(seed))


def exact(classifiers: Sequence[Classifier], fuse: Fuse) -> Tensor:
    """The direction for class 0, from formulas in float64 that hold down to e^-700."""
    flat = INPUTS.flatten(1).double()
    matrices = [each.module[1].weight.double() for each in classifiers]
    logits = torch.stack(
        [
            flat @ matrix.T + each.module[1].bias.double()
            for matrix, each in zip(matrices, classifiers, strict=True)
        ]
    )
    if fuse == "logits":
        others = logits.mean(0)[:, 1:].softmax(1)
        matrix = torch.stack(matrices).mean(0)
        return unit(others @ matrix[1:] - matrix[0])
    # Of each member 1 - p_0, times the mean direction of the others against class 0.
    scale = (logits[..., 1:].logsumexp(2) - logits.logsumexp(2)).exp()
    if fuse == "probabilities":  # -log mean p: each part counts by its own p_0
        scale = scale * logits.softmax(2)[..., 0]
    parts = [
        part.unsqueeze(1) * (each[:, 1:].softmax(1) @ matrix[1:] - matrix[0])
        for part, each, matrix in zip(scale, logits, matrices, strict=True)
    ]
    return unit(torch.stack(parts).sum(0))


@pytest.mark.parametrize("fuse", FUSES)
@pytest.mark.parametrize("leads", [(5, 6), (30, 32), (60, 60), (120, 121), (300, 301), (40, 300)])
def test_the_direction_is_exact_where_every_member_is_sure(
    fuse: Fuse, leads: tuple[float, float]
) -> None:
    pair = [sure(weights(seed), lead=lead) for seed, lead in enumerate(leads)]
    labels = torch.zeros(COUNT, dtype=torch.int64)
    came = direction(ensemble(pair, fuse=fuse), labels)
    torch.testing.assert_close(came, exact(pair, fuse), rtol=1e-3, atol=1e-4)
    if min(leads) >= 120 and fuse == "loss":  # what most code does has nothing left
        leaf = INPUTS.clone().requires_grad_()
        losses = [nn.functional.cross_entropy(each.module(leaf), labels) for each in pair]
        (naive,) = torch.autograd.grad(torch.stack(losses).mean(), leaf)
        assert not naive.any()


@pytest.mark.parametrize("fuse", FUSES)
def test_beyond_all_floats_the_direction_is_that_of_the_member_that_is_less_sure(
    fuse: Fuse,
) -> None:
    less, more = sure(weights(1), lead=5_000), sure(weights(2), lead=9_000)
    labels = torch.zeros(COUNT, dtype=torch.int64)
    came = direction(ensemble([less, more], fuse=fuse), labels)
    assert bool(torch.isfinite(came).all())
    if fuse != "logits":
        torch.testing.assert_close(came, direction(less, labels), rtol=1e-3, atol=1e-4)


@given(rows=st.lists(st.floats(-2_000, 2_000, width=32), min_size=8, max_size=8))
@pytest.mark.parametrize("fuse", FUSES)
def test_outputs_and_gradients_are_finite_whatever_members_say(
    fuse: Fuse, rows: list[float]
) -> None:
    fusion, leaf = FUSIONS[fuse], torch.tensor([rows[:4], rows[4:]]).unsqueeze(1).requires_grad_()
    logits, raw = leaf
    shares = torch.full((4, 1, 1), 0.25)
    parts = [
        fusion.part(logits, LOGITS),
        fusion.part(raw.softmax(1), PROBABILITIES),
        fusion.part(-raw.abs(), LOG_SCORES),
        fusion.part(nn.functional.logsigmoid(logits), LOG_SCORES),
    ]
    outputs = fusion.whole(torch.stack(parts), shares)
    ascent = fusion.rule.ascent(outputs.detach(), torch.tensor([1]))
    (gradient,) = torch.autograd.grad(outputs, leaf, ascent)
    assert bool(torch.isfinite(outputs).all())
    assert bool(torch.isfinite(gradient).all())


# What can't be fused


class Says(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1)[:, : nets.CLASSES] + 1


def broken(**more: Any) -> Classifier:
    return Classifier(Says(), classes=nets.CLASSES, input_shape=nets.SHAPE, **more)


def other_shape() -> Classifier:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, nets.CLASSES))
    return Classifier(net, classes=nets.CLASSES, input_shape=(1, 2, 2))


@pytest.mark.parametrize(
    ("given", "options", "problem"),
    [
        ([], {}, "an ensemble needs members"),
        ([nets.mlp(), nets.linear(classes=7)], {}, "has 7 classes, members[0] has"),
        ([nets.mlp(), other_shape()], {}, "takes inputs of shape (1, 2, 2), members[0] of shape"),
        ([nets.mlp(), nets.mlp(bounds=Bounds(-1, 1))], {}, "they can't be fused"),
        (
            [nets.mlp(), nets.mlp().module],
            {},
            "members[1]: expected a gibbon.models.classifier.Class",
        ),
        ([nets.mlp(), broken(outputs=PROBABILITIES)], {}, "members[1]: the model declares prob"),
        ([nets.mlp()], {"fuse": "logit"}, "got 'logit'; did you mean 'logits'?"),
        ([nets.mlp()], {"shares": [1, 2]}, "a positive number for each of the 1 members"),
        ([nets.mlp()], {"shares": [0]}, "a positive number for each"),
        ([nets.mlp()], {"shares": "1"}, "a positive number for each"),
    ],
)
def test_what_can_not_be_fused_is_refused(
    given: list[Any], options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ModelError) as told:
        ensemble(given, **options)
    assert problem in str(told.value)


def test_it_is_forward_only_where_a_member_is() -> None:
    net = nets.mlp()
    blind = Classifier(
        net.module, classes=net.classes, input_shape=net.input_shape, forward_only="no gradients"
    )
    assert ensemble([nets.conv(), blind]).forward_only == "its member members[1]: no gradients"
    assert ensemble([nets.conv(), net]).forward_only == ""


# As a model


def test_members_come_back_as_they_were_and_their_passes_are_their_own() -> None:
    parts = [nets.conv(seed=1), nets.conv(seed=2)]
    for each in parts:
        each.module.train()
    before = [state_digest(each.module) for each in parts]
    fused = ensemble(parts, fuse="loss")
    for _ in range(2):
        with fused.evaluating():
            assert not any(part.training for part in fused.module.modules())
            assert not any(part.requires_grad for part in fused.module.parameters())
            fused.loss_gradient(INPUTS, LABELS)
    for each in parts:
        assert all(part.training for part in each.module.modules())
        assert all(part.requires_grad for part in each.module.parameters())
        assert each.passes == PassCount()
    assert [state_digest(each.module) for each in parts] == before
    assert fused.passes == PassCount(2 * COUNT, 2 * COUNT)  # one of the whole is one


@pytest.mark.parametrize("fuse", FUSES)
def test_it_is_computed_in_bfloat16_and_fused_in_float32(fuse: Fuse) -> None:
    fused = ensemble([nets.mlp(), nets.with_rule(LOG_SCORES)], fuse=fuse)
    exact_ones = outputs_of(fused)
    coarse = outputs_of(vary(fused, Variant("bfloat16")))
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, exact_ones, rtol=0.05, atol=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("fuse", FUSES)
def test_a_compiled_one_answers_alike_and_has_the_same_direction(fuse: Fuse) -> None:
    fused = ensemble([nets.mlp(), nets.with_rule(LOG_SCORES)], fuse=fuse)
    compiled = vary(fused, Variant(compiled=True))
    torch.testing.assert_close(outputs_of(compiled), outputs_of(fused))
    torch.testing.assert_close(direction(compiled), direction(fused), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", [True, False], ids=["ensemble first", "member first"])
def test_an_ensemble_and_its_members_are_evaluated_side_by_side(first: bool) -> None:
    held = {"one": nets.mlp(seed=1), "two": nets.mlp(seed=2)}
    both = {"both": ensemble(list(held.values()))}
    models = {**both, **held} if first else {**held, **both}
    data = (INPUTS, LABELS)
    results = evaluate(models, data, attack="pgd", epsilon=0.1, steps=2)
    assert not results.failures
    alone = evaluate(nets.mlp(seed=1), data, attack="pgd", epsilon=0.1, steps=2)
    rows = {row.model: row for row in results.evaluations if not row.unattacked}
    (lone,) = (row for row in alone.evaluations if not row.unattacked)
    for row in rows.values():  # nobody's passes are booked on a member that is run within
        assert (row.forward_passes, row.backward_passes) == (
            lone.forward_passes,
            lone.backward_passes,
        )
    assert rows["one"].adversarial_error == lone.adversarial_error


def test_a_call_makes_an_ensemble_of_its_own_models_by_name() -> None:
    modules = {"one": nets.mlp(seed=1).module, "two": nets.mlp(seed=2).module}
    models: dict[str, Any] = {"both": "ensemble:one,two", **modules}
    data = (INPUTS, LABELS)
    results = evaluate(
        models, data, attack="mi-fgsm", epsilon=0.1, mean=[0.25], std=[0.5], transfer=True
    )
    assert not results.failures
    notes = {card.name: card.notes for card in results.record.models}
    assert notes["both"] == ("fuses the probabilities of one, two",)
    by_hand = ensemble(
        [
            Classifier(nn.Sequential(Halved(), each), classes=nets.CLASSES, input_shape=nets.SHAPE)
            for each in modules.values()
        ]
    )
    lone = evaluate(by_hand, data, attack="mi-fgsm", epsilon=0.1)
    found = results.select(model="both").adversarial_error
    assert found == lone.adversarial_error
    assert {(row.source, row.target) for row in results.transfers} >= {
        ("one", "both"),
        ("both", "two"),
    }


class Halved(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - 0.25) / 0.5
