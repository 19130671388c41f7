"""The trust boundary: planted attacks that break the rules, each told truthfully."""

import random
from collections.abc import Iterator

import nets
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gibbon.attacks.base import Attack, DirectionAttack
from gibbon.core.errors import AttackError, OutputError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel, Verdict
from gibbon.datasets.base import Batch
from gibbon.metrics.validity import tolerance
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin
from gibbon.models.pass_count import PassCount
from gibbon.models.snapshot import Snapshot
from gibbon.verify.answers import ask, clean_answers
from gibbon.verify.guard import guarding
from gibbon.verify.judge import Judged, judge
from gibbon.verify.proposal import MinimalNormSearch, SearchProposal, TriesProposal, propose

COUNT = 40


class Planted(Attack):
    """Does what a function says."""

    norms = (Norm.LINF, Norm.L2)

    def __init__(self, act) -> None:
        self.act = act

    def propose(self, classifier, inputs, *, labels, threat, streams):
        """Yields what the function yields."""
        return self.act(classifier, inputs, labels, threat)


class PlantedDirection(DirectionAttack):
    """Takes the direction that a function gives."""

    def __init__(self, act) -> None:
        self.act = act

    def direction(self, classifier, inputs, *, labels, streams):
        """Returns what the function returns."""
        return self.act(classifier, inputs, labels)


def measured(
    act, classifier: Classifier, batch: Batch, *, threat: ThreatModel | None = None
) -> Judged:
    """What the benchmark makes of a planted attack, guard and all."""
    attack = act if isinstance(act, Attack) else Planted(act)
    streams = ExampleStreams.derive(0, batch.ids)
    threats = [threat or nets.threat()]
    with guarding(classifier, batch) as given:
        (tries,) = propose(attack, classifier, given.batch, threats=threats, streams=streams)
        return judge(classifier, batch, proposed=tries, threat=threats[0])


@pytest.fixture
def evaluated(conv) -> Iterator[Classifier]:
    with conv.evaluating():
        yield conv


@pytest.fixture
def right(evaluated, batch) -> Batch:
    """A batch without clean mistakes: who is misled is misled by the attack."""
    return nets.labelled(evaluated, batch)


def far_away(classifier: Classifier, inputs: Tensor, labels: Tensor) -> Tensor:
    """Misleading points, without regard to any budget."""
    points = inputs.clone()
    for _ in range(20):
        _, gradient = classifier.ascend(
            points, lambda outputs: classifier.outputs.ascent(outputs, labels)
        )
        points = (points + 0.05 * gradient.sign()).clamp(0, 1)
    return points


def test_an_attack_that_leaves_the_budget_is_not_believed(evaluated, right):
    def act(classifier, inputs, labels, threat):
        yield far_away(classifier, inputs, labels)

    judged = measured(act, evaluated, right)
    outputs = evaluated.predict(far_away(evaluated, right.inputs, right.labels))
    assert int((outputs.argmax(1) != right.labels).sum()) > 30  # the model is wrong, and still:
    assert torch.equal(judged.candidates, right.inputs)  # the clean input stands in its place
    assert not bool(judged.any_misled.any())
    assert judged.verdict.tolist() == [Verdict.OUT_OF_BUDGET] * COUNT
    assert float(judged.distance.min()) > 0.1  # the distance is shown as it is: nothing is clipped


def test_only_the_examples_out_of_budget_are_refused(evaluated, right):
    def act(classifier, inputs, labels, threat):
        candidates = inputs.clone()
        candidates[3, 0, 0, 0] += 0.2 if float(candidates[3, 0, 0, 0]) < 0.5 else -0.2
        yield candidates

    judged = measured(act, evaluated, right)
    refused = (judged.verdict != Verdict.VALID).nonzero().flatten().tolist()
    assert refused == [3]
    assert judged.distance[3].item() == pytest.approx(0.2)


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_the_budget_is_kept_to_rounding(norm, factor, evaluated, right):
    def act(classifier, inputs, labels, threat):
        direction = torch.ones_like(inputs)
        if norm is not Norm.LINF:
            direction /= direction[0].norm(p=2 if norm is Norm.L2 else 1)
        yield inputs + factor * threat.radius * direction

    judged = measured(act, evaluated, right, threat=nets.threat("0.3", norm=norm, bounds=None))
    expected = Verdict.VALID if factor == 1 else Verdict.OUT_OF_BUDGET
    assert judged.verdict.tolist() == [expected] * COUNT


@pytest.mark.parametrize("shift", [0.05, -0.05])
def test_an_attack_that_leaves_the_bounds_is_not_believed(shift, evaluated, right):
    def act(classifier, inputs, labels, threat):
        yield inputs + shift

    judged = measured(act, evaluated, right)
    edge = right.inputs.flatten(1).amax(1) if shift > 0 else 1 - right.inputs.flatten(1).amin(1)
    outside = edge + 0.05 > 1
    assert int(outside.sum()) > 10
    assert torch.equal(judged.verdict == Verdict.OUT_OF_BOUNDS, outside)
    assert not bool(judged.any_misled[outside].any())


def test_there_are_no_bounds_where_nothing_is_clipped(evaluated, right):
    def act(classifier, inputs, labels, threat):
        yield inputs + 0.05

    judged = measured(act, evaluated, right, threat=nets.threat(bounds=None))
    assert judged.verdict.tolist() == [Verdict.VALID] * COUNT


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("bounds", [None, Bounds(0.0, 1.0)])
def test_an_attack_that_returns_nan_has_no_success_there(bad, bounds, evaluated, right):
    def act(classifier, inputs, labels, threat):
        candidates = inputs.clone()
        candidates[5, 0, 2, 2] = bad
        candidates[7] = bad
        yield candidates

    judged = measured(act, evaluated, right, threat=nets.threat(bounds=bounds))
    refused = (judged.verdict == Verdict.NOT_FINITE).nonzero().flatten().tolist()
    assert refused == [5, 7]
    assert not bool(judged.any_misled[[5, 7]].any())
    assert not bool(torch.isfinite(judged.distance[[5, 7]]).any())
    # The clean input stands in, so that a target can be asked.
    assert torch.equal(judged.candidates[[5, 7]], right.inputs[[5, 7]])
    assert bool(torch.isfinite(judged.candidates).all())


def test_one_fault_hides_no_other(evaluated, right):
    def act(classifier, inputs, labels, threat):
        candidates = inputs.clone()
        candidates[0] = float("nan")
        candidates[1] = 5.0
        candidates[2] = inputs[2].clamp(0, 1).mul(0.5)
        yield candidates

    judged = measured(act, evaluated, right)
    assert judged.verdict[:4].tolist() == [
        Verdict.NOT_FINITE,
        Verdict.OUT_OF_BOUNDS,
        Verdict.OUT_OF_BUDGET,
        Verdict.VALID,
    ]


def test_an_attack_that_raises_is_not_caught_here(evaluated, right):
    def act(classifier, inputs, labels, threat):
        yield inputs.clone()
        raise ZeroDivisionError("inside the attack")

    with pytest.raises(ZeroDivisionError, match="inside the attack"):
        measured(act, evaluated, right)


def test_an_attack_that_returns_its_input_misleads_nobody(evaluated, right):
    def act(classifier, inputs, labels, threat):
        yield inputs

    judged = measured(act, evaluated, right)
    assert not bool(judged.any_misled.any())
    assert judged.distance.tolist() == [0.0] * COUNT
    assert judged.verdict.tolist() == [Verdict.VALID] * COUNT
    assert judged.candidates.data_ptr() != right.inputs.data_ptr()


def test_clean_mistakes_stay_mistakes_under_an_attack_that_does_nothing(evaluated, batch):
    def act(classifier, inputs, labels, threat):
        yield inputs

    judged = measured(act, evaluated, batch)
    clean = evaluated.predict(batch.inputs).argmax(1) != batch.labels
    assert 0 < int(clean.sum()) < COUNT
    assert torch.equal(judged.any_misled, clean)


def in_place(inputs: Tensor) -> None:
    inputs.add_(0.01)


def through_data(inputs: Tensor) -> None:
    inputs.data.mul_(0.5)


def through_numpy(inputs: Tensor) -> None:
    inputs.numpy()[0] = 0.0


@pytest.mark.parametrize("change", [in_place, through_data, through_numpy])
def test_an_attack_that_changes_its_inputs_is_told(change, evaluated, right):
    def act(classifier, inputs, labels, threat):
        change(inputs)
        yield inputs.clone()

    with pytest.raises(AttackError, match="the attack changed its inputs in place"):
        measured(act, evaluated, right)


def test_labels_are_lent_as_a_copy(evaluated, right):
    before = right.labels.clone()

    def act(classifier, inputs, labels, threat):
        labels.add_(1).remainder_(nets.CLASSES)
        yield inputs.clone()

    assert not bool(measured(act, evaluated, right).any_misled.any())
    assert torch.equal(right.labels, before)


def flip_to_training(classifier: Classifier) -> None:
    classifier.module.train()


def add_to_weights(classifier: Classifier) -> None:
    with torch.no_grad():
        classifier.module[0].weight.add_(1.0)


def write_into_weights(classifier: Classifier) -> None:
    classifier.module[0].weight.data.mul_(3.0)


def run_in_training_mode(classifier: Classifier) -> None:
    classifier.module.train()
    classifier.module(torch.rand(4, *nets.SHAPE, generator=nets.generator(0)))
    classifier.module.eval()


def thaw(classifier: Classifier) -> None:
    classifier.module.requires_grad_(True)


HARM = [
    (flip_to_training, "the attack left the model in another mode"),
    (add_to_weights, "the attack changed the model's parameters or buffers"),
    (write_into_weights, "the attack changed the model's parameters or buffers"),
    (run_in_training_mode, "the attack changed the model's parameters or buffers"),
    (thaw, "the attack changed which of the model's parameters are frozen"),
]


@pytest.mark.parametrize(("harm", "told"), HARM)
def test_an_attack_that_harms_the_model_is_told_and_the_model_put_back(
    harm, told, evaluated, right
):
    def act(classifier, inputs, labels, threat):
        harm(classifier)
        yield inputs.clone()

    before = evaluated.predict(right.inputs)
    with pytest.raises(AttackError, match=told):
        measured(act, evaluated, right)
    assert torch.equal(evaluated.predict(right.inputs), before)
    assert Snapshot(evaluated.module).difference() is None
    assert not any(each.requires_grad for each in evaluated.module.parameters())


@pytest.mark.parametrize(("harm", "told"), HARM)
def test_the_model_is_put_back_where_the_attack_raises_too(harm, told, evaluated, right):
    def act(classifier, inputs, labels, threat):
        harm(classifier)
        raise KeyError("and fails")

    before = evaluated.predict(right.inputs)
    with pytest.raises(KeyError, match="and fails"):
        measured(act, evaluated, right)
    assert torch.equal(evaluated.predict(right.inputs), before)
    assert not any(each.training for each in evaluated.module.modules())


class _RootAtZero(nn.Module):
    """Its gradient is NaN wherever the first pixel is 0."""

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        return torch.stack([(flat[:, 0] * 0).sqrt() + flat[:, 1], flat[:, 2], flat[:, 3]], dim=1)


def naive_gradient(classifier: Classifier, batch: Batch) -> None:
    classifier.loss_gradient(batch.inputs, batch.labels)


def exact_gradient(classifier: Classifier, batch: Batch) -> None:
    rule = classifier.outputs
    classifier.ascend(batch.inputs, lambda outputs: rule.ascent(outputs, batch.labels))


@pytest.mark.parametrize("take", [naive_gradient, exact_gradient])
def test_a_gradient_that_is_no_number_is_no_robustness(take):
    classifier = Classifier(_RootAtZero(), classes=3, input_shape=(1, 2, 2))
    batch = Batch(torch.arange(4), torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64))

    def attacked() -> None:
        with classifier.evaluating(), guarding(classifier, batch) as guarded:
            take(classifier, guarded.batch)

    with pytest.raises(OutputError, match="input gradient is NaN or infinite"):
        attacked()


def test_the_guard_works_without_evaluating_too(conv, right):
    conv.module.eval()

    def act(classifier, inputs, labels, threat):
        flip_to_training(classifier)
        yield inputs.clone()

    with pytest.raises(AttackError, match="another mode"):
        measured(act, conv, right)
    assert not conv.module.training


def test_global_generators_and_grad_mode_are_put_back(evaluated, right):
    def act(classifier, inputs, labels, threat):
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.set_grad_enabled(False)
        yield inputs.clone()

    def states() -> tuple[object, ...]:
        legacy = np.random.get_state()[1].tolist()  # noqa: NPY002
        return torch.get_rng_state().tolist(), random.getstate(), legacy

    before = states()
    measured(act, evaluated, right)
    assert states() == before
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            lambda inputs: inputs[:5],
            r"shape \(40, 1, 6, 6\) .* got \(5, 1, 6, 6\) and torch\.f",
        ),
        (lambda inputs: inputs.flatten(1), r"got \(40, 36\) and torch\.float32"),
        (lambda inputs: inputs[:1].expand_as(inputs)[:, :, :5], r"got \(40, 1, 5, 6\)"),
        (lambda inputs: inputs.double(), r"got \(40, 1, 6, 6\) and torch\.float64"),
        (lambda inputs: inputs.numpy(), "a candidate must be a tensor, got ndarray"),
        (lambda inputs: (inputs, inputs), "a candidate must be a tensor, got tuple"),
        (lambda inputs: None, "a candidate must be a tensor, got NoneType"),
    ],
)
def test_candidates_of_another_form_are_refused(answer, told, evaluated, right):
    def act(classifier, inputs, labels, threat):
        yield answer(inputs)

    with pytest.raises(AttackError, match=told):
        measured(act, evaluated, right)


def test_an_attack_that_yields_nothing_is_told(evaluated, right):
    def act(classifier, inputs, labels, threat):
        yield from ()

    with pytest.raises(AttackError, match="the attack proposed no candidate"):
        measured(act, evaluated, right)


def test_a_return_in_the_place_of_a_yield_is_one_candidate(evaluated, right):
    def act(classifier, inputs, labels, threat):
        return inputs + 0.001

    judged = measured(act, evaluated, right, threat=nets.threat(bounds=None))
    assert judged.distance.tolist() == pytest.approx([0.001] * COUNT, rel=1e-3)


@pytest.mark.parametrize("answer", [None, 3, 0.5])
def test_an_attack_that_returns_no_tensors_is_told(answer, evaluated, right):
    with pytest.raises(AttackError, match="an attack must yield tensors, got "):
        measured(lambda *given: answer, evaluated, right)


def test_a_candidate_with_a_graph_or_a_view_is_a_candidate(evaluated, right):
    def act(classifier, inputs, labels, threat):
        leaf = inputs.clone().requires_grad_()
        yield leaf * 1.0
        yield inputs[:1].expand_as(inputs)

    judged = measured(act, evaluated, right, threat=nets.threat("1"))
    assert not judged.candidates.requires_grad
    assert judged.verdict.tolist() == [Verdict.VALID] * COUNT


def test_what_was_judged_can_not_be_changed_afterwards(evaluated, right):
    def act(classifier, inputs, labels, threat):
        candidates = inputs.clone()
        yield candidates
        candidates.fill_(9.0)  # an author who works on in place

    judged = measured(act, evaluated, right)
    assert torch.equal(judged.candidates, right.inputs)


def test_an_attack_that_works_in_place_over_restarts_is_judged_try_by_try(evaluated, right):
    def act(classifier, inputs, labels, threat):
        candidates = inputs.clone()
        for _ in range(3):
            candidates.add_(0.02)
            yield candidates

    judged = measured(act, evaluated, right, threat=nets.threat("0.05", bounds=None))
    assert judged.answers is not None
    assert torch.equal(ask(evaluated, judged.candidates).predicted, judged.answers.predicted)
    invalid = judged.verdict == Verdict.OUT_OF_BUDGET  # the third try of those not misled before
    assert torch.equal(invalid, ~judged.any_misled)


class TestSeveralTries:
    """Of several candidates the worst valid one counts."""

    def tries(self, inputs: Tensor) -> list[Tensor]:
        draws = torch.rand(4, *inputs.shape, generator=nets.generator(8))
        return [inputs + 0.4 * (2 * each - 1) for each in draws]

    def test_the_largest_margin_counts(self, evaluated, right):
        tries = self.tries(right.inputs)
        threat = nets.threat("0.5", bounds=None)
        judged = judge(evaluated, right, proposed=TriesProposal(tries), threat=threat)
        margins = torch.stack([margin(evaluated.predict(each), right.labels) for each in tries])
        best = margins.argmax(0)
        rows = torch.arange(COUNT)
        assert torch.equal(judged.candidates, torch.stack(tries)[best, rows])
        assert torch.equal(judged.any_misled, margins.amax(0) > 0)
        answers = ask(evaluated, judged.candidates)
        assert judged.answers is not None
        assert torch.equal(judged.answers.predicted, answers.predicted)
        torch.testing.assert_close(judged.answers.confidence, answers.confidence)
        change = (judged.candidates - right.inputs).flatten(1)
        assert torch.equal(judged.distance, change.abs().amax(1))

    def test_known_answers_are_given_though_the_source_is_not_asked(self, evaluated, right):
        search = MinimalNormSearch(self.tries(right.inputs)[:1], norm=Norm.LINF, bounds=None)
        threat = nets.threat("0.5", bounds=None)
        proposed = SearchProposal(search, right.inputs, threat)
        judged = judge(evaluated, right, proposed=proposed, threat=threat, ask_source=False)
        assert judged.answers is not None
        expected = ask(evaluated, judged.candidates).predicted
        assert torch.equal(judged.answers.predicted, expected)

    def test_their_order_does_not_matter(self, evaluated, right):
        tries = self.tries(right.inputs)
        threat = nets.threat("0.5", bounds=None)
        one = judge(evaluated, right, proposed=TriesProposal(tries), threat=threat)
        other = judge(evaluated, right, proposed=TriesProposal(tries[::-1]), threat=threat)
        assert torch.equal(one.candidates, other.candidates)
        assert torch.equal(one.any_misled, other.any_misled)

    def test_an_invalid_try_never_misleads_but_shows_where_no_valid_one_does(
        self, evaluated, right
    ):
        misleading = far_away(evaluated, right.inputs, right.labels)
        harmless = right.inputs.clone()
        threat = nets.threat("0.01")
        for tries in ([misleading, harmless], [harmless, misleading]):
            judged = judge(evaluated, right, proposed=TriesProposal(tries), threat=threat)
            assert not bool(judged.any_misled.any())
            assert judged.verdict.tolist() == [Verdict.OUT_OF_BUDGET] * COUNT

    def test_a_valid_try_that_misleads_stands_before_an_invalid_one(self, evaluated, right):
        misleading = far_away(evaluated, right.inputs, right.labels)
        nan = torch.full_like(misleading, float("nan"))
        for tries in ([misleading, nan], [nan, misleading], [nan, misleading, nan]):
            judged = judge(evaluated, right, proposed=TriesProposal(tries), threat=nets.threat("1"))
            misled = judged.any_misled
            assert int(misled.sum()) > 30
            assert bool((judged.verdict[misled] == Verdict.VALID).all())
            assert bool((judged.verdict[~misled] == Verdict.NOT_FINITE).all())
            assert torch.equal(judged.candidates[misled], misleading[misled])

    def test_without_asking_the_source_one_try_costs_nothing(self, evaluated, right):
        before = evaluated.passes.forward
        (one, *_) = tries = self.tries(right.inputs)
        threat = nets.threat("0.5", bounds=None)
        judged = judge(
            evaluated, right, proposed=TriesProposal([one]), threat=threat, ask_source=False
        )
        assert judged.answers is None
        assert evaluated.passes.forward == before
        assert judged.verdict.tolist() == [Verdict.VALID] * COUNT
        several = judge(
            evaluated, right, proposed=TriesProposal(tries), threat=threat, ask_source=False
        )
        expected = judge(evaluated, right, proposed=TriesProposal(tries), threat=threat)
        assert torch.equal(several.candidates, expected.candidates)
        assert torch.equal(several.any_misled, expected.any_misled)


class TestDirections:
    """A direction is checked as any candidate is."""

    def test_a_direction_that_is_too_long_leaves_the_budget(self, evaluated, right):
        attack = PlantedDirection(lambda classifier, inputs, labels: 2 * torch.ones_like(inputs))
        judged = measured(attack, evaluated, right, threat=nets.threat(bounds=None))
        assert judged.verdict.tolist() == [Verdict.OUT_OF_BUDGET] * COUNT

    def test_a_direction_of_nan_is_not_finite(self, evaluated, right):
        attack = PlantedDirection(lambda c, inputs, labels: torch.full_like(inputs, torch.nan))
        judged = measured(attack, evaluated, right)
        assert judged.verdict.tolist() == [Verdict.NOT_FINITE] * COUNT

    @pytest.mark.parametrize(
        ("answer", "told"),
        [
            (lambda inputs: inputs[0], "a direction must have shape"),
            (lambda inputs: inputs.double(), "a direction must have shape"),
            (lambda inputs: None, "a direction must be a tensor, got NoneType"),
        ],
    )
    def test_a_direction_of_another_form_is_refused(self, answer, told, evaluated, right):
        attack = PlantedDirection(lambda classifier, inputs, labels: answer(inputs))
        with pytest.raises(AttackError, match=told):
            measured(attack, evaluated, right)

    def test_labels_are_lent_as_a_copy(self, evaluated, right):
        def act(classifier, inputs, labels):
            labels.zero_()
            return torch.zeros_like(inputs)

        before = right.labels.clone()
        measured(PlantedDirection(act), evaluated, right)
        assert torch.equal(right.labels, before)


class Unsure(nn.Module):
    """Says NaN wherever the first coordinate exceeds a half."""

    def forward(self, inputs):
        outputs = inputs.flatten(1)[:, : nets.CLASSES].clone()
        return outputs.masked_fill(outputs[:, :1] > 0.5, torch.nan)


def test_a_model_that_says_nan_has_failed_and_was_not_misled(batch):
    classifier = Classifier(Unsure(), classes=nets.CLASSES, input_shape=nets.SHAPE)
    batch.inputs[:, 0, 0, 0] = 0.45  # no NaN on clean inputs

    def act(classifier, inputs, labels, threat):
        yield inputs + 0.1

    with pytest.raises(OutputError, match="the model returned NaN or infinity for 40 of 40"):
        measured(act, classifier, batch, threat=nets.threat(bounds=None))


def test_clean_answers_are_those_of_the_model(evaluated, batch):
    clean = clean_answers(evaluated, batch)
    outputs = evaluated.predict(batch.inputs)
    assert torch.equal(clean.answers.predicted, outputs.argmax(1))
    torch.testing.assert_close(clean.answers.confidence, outputs.softmax(1).amax(1))
    assert not bool(clean.saturated.any())


def test_saturated_examples_are_marked(batch):
    classifier = nets.linear(spread=500.0)
    batch = nets.labelled(classifier, batch)
    with classifier.evaluating():
        saturated = clean_answers(classifier, batch).saturated
        lead = -margin(classifier.predict(batch.inputs), batch.labels)
    assert bool(saturated[lead > 20].all())
    assert not bool(saturated[lead < 14].any())
    assert 0 < int(saturated.sum()) < COUNT


def test_clean_answers_come_free_with_a_watch(evaluated, batch):
    with guarding(evaluated, batch) as given:
        evaluated.ascend(given.batch.inputs, torch.ones_like)
        clean = clean_answers(evaluated, batch, watch=given.watch)
    assert evaluated.passes == PassCount(forward=COUNT, backward=COUNT)
    assert torch.equal(clean.answers.predicted, clean_answers(evaluated, batch).answers.predicted)


def test_a_watch_that_saw_nan_is_asked_again_and_told(batch):
    classifier = Classifier(Unsure(), classes=nets.CLASSES, input_shape=nets.SHAPE)
    batch.inputs[3, 0, 0, 0] = 0.9
    with guarding(classifier, batch) as given:
        classifier(given.batch.inputs)
        with pytest.raises(OutputError, match="NaN or infinity"):
            clean_answers(classifier, batch, watch=given.watch)


@pytest.mark.parametrize("width", [1.0, 255.0])
def test_the_tolerance_is_that_of_rounding_and_far_below_any_budget(width):
    bounds = Bounds(0.0, width)
    for norm, coordinates in ((Norm.LINF, 1), (Norm.LINF, 784), (Norm.L2, 784), (Norm.L2, 150528)):
        slack = tolerance(nets.threat("8/255", norm=norm), bounds=bounds, coordinates=coordinates)
        assert 2.0**-24 * width < slack < 1e-4 * width
    for coordinates, budget in ((784, 1), (150528, 60)):  # usual budgets grow with the coordinates
        threat = nets.threat(budget, norm=Norm.L1)
        slack = tolerance(threat, bounds=bounds, coordinates=coordinates)
        assert 2.0**-24 * width < slack < 1e-3 * threat.radius * width
