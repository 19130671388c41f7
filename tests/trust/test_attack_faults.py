"""Attacks with planted faults are flagged, and sound attacks on honest networks are not.

Each kind of flag has faults that raise it and near misses that do not.  The networks are those of
the zoo; the attacks are as people write them, with plain autograd, and a fault in one place.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from gibbon import evaluate
from gibbon.attacks.base import STRICT, Attack, Count
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Epsilon, Norm, ThreatModel
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin
from gibbon.records.flags import Flag
from gibbon.specs.decoding import decode_suite

CLASSES = 10

Raised = dict[str, Flag]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Plain(Attack):
    """PGD as people write it; the methods below are where faults are planted."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)

    steps: Count = 10
    pace: float = 0.25  # of a step, in units of epsilon

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        path = [self.start(inputs, threat, streams)]
        for _ in range(self.steps):
            leaf = path[-1].clone().requires_grad_()
            loss = self.loss(classifier(leaf), labels)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
            stepped = path[-1] + self.pace * threat.radius * gradient.sign()
            path.append(self.project(stepped, inputs, threat))
        yield self.choose(path, inputs, classifier, labels)

    def start(self, inputs: Tensor, threat: ThreatModel, streams: ExampleStreams) -> Tensor:
        noise = streams.uniform(inputs.shape[1:]) * 2 - 1
        return (inputs + threat.radius * noise).clamp(0, 1)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, labels, reduction="none")

    def project(self, points: Tensor, inputs: Tensor, threat: ThreatModel) -> Tensor:
        return (inputs + (points - inputs).clamp(-threat.radius, threat.radius)).clamp(0, 1)

    def choose(
        self, path: list[Tensor], inputs: Tensor, classifier: Classifier, labels: Tensor
    ) -> Tensor:
        return path[-1]


class Descends(Plain):
    def loss(self, outputs, labels):
        return -super().loss(outputs, labels)


class TargetsTheTrueClass(Plain):
    def loss(self, outputs, labels):
        return outputs.gather(1, labels.unsqueeze(1)).squeeze(1)


class LabelsOffByOne(Plain):
    def loss(self, outputs, labels):
        return super().loss(outputs, (labels + 1) % CLASSES)


class LeavesAnotherClass(Plain):
    """Follows the loss of a class that is neither true nor likely."""

    def loss(self, outputs, labels):
        return super().loss(outputs, outputs.argmin(1))


class ReturnsTheFirst(Plain):
    def choose(self, path, inputs, classifier, labels):
        return path[0]


class ReturnsTheInput(Plain):
    def choose(self, path, inputs, classifier, labels):
        return inputs.clone()


class ReturnsSomeInputs(Plain):
    """Wrong mask: a third of the batch is never attacked."""

    def choose(self, path, inputs, classifier, labels):
        some = torch.arange(len(inputs)).remainder(3).eq(0).view(-1, 1, 1, 1)
        return torch.where(some, inputs, path[-1])

    def start(self, inputs, threat, streams):
        return inputs.clone()

    def project(self, points, inputs, threat):
        some = torch.arange(len(inputs)).remainder(3).eq(0).view(-1, 1, 1, 1)
        return torch.where(some, inputs, super().project(points, inputs, threat))


class Overwrites(Plain):
    """Random restarts write into one tensor, whether an earlier one succeeded or not."""

    def propose(self, classifier, inputs, *, labels, threat, streams):
        for number in range(2):
            own = {"labels": labels, "threat": threat, "streams": streams.child(number)}
            (found,) = super().propose(classifier, inputs, **own)
        weak = Plain(steps=1, pace=0.01)
        yield from weak.propose(classifier, inputs, labels=labels, threat=threat, streams=streams)
        del found


class Shrinks(Plain):
    """Returns a point near the input, as if epsilon were a hundredth."""

    def choose(self, path, inputs, classifier, labels):
        return inputs + 0.01 * (path[-1] - inputs)


class NoStep(Plain):
    def start(self, inputs, threat, streams):
        return inputs.clone()

    def project(self, points, inputs, threat):
        return inputs.clone()


class WrongNorm(Plain):
    """Projects onto the ball in L2, with the epsilon of L∞."""

    def project(self, points, inputs, threat):
        change = (points - inputs).flatten(1)
        far = change.norm(dim=1, keepdim=True).clamp(min=1e-9)
        shrunk = change * (20 * threat.radius / far).clamp(max=1)
        return (inputs + shrunk.view_as(inputs)).clamp(0, 1)


class WrongBox(Plain):
    """Clamps pictures to the box of another normalisation."""

    def project(self, points, inputs, threat):
        return super().project(points, inputs, threat).clamp(-0.4, 0.6)


class WrongUnits(Plain):
    """Takes epsilon for steps of a pixel of 255: far less than was allowed."""

    def start(self, inputs, threat, streams):
        return inputs.clone()

    def project(self, points, inputs, threat):
        return (inputs + (points - inputs).clamp(-threat.radius / 10, threat.radius / 10)).clamp(
            0, 1
        )


class LosesItsLoss(Plain):
    """The loss is NaN for examples that the model is sure of: sign(NaN) is 0."""

    def loss(self, outputs, labels):
        loss = super().loss(outputs, labels)
        return torch.where(loss > 0.5, loss, (loss - 1).sqrt())


class HalvesLargeBudgets(Plain):
    """A table of step sizes has a wrong entry for large budgets."""

    def project(self, points, inputs, threat):
        radius = threat.radius if threat.radius < 0.2 else 0.02
        return (inputs + (points - inputs).clamp(-radius, radius)).clamp(0, 1)

    def start(self, inputs, threat, streams):
        return inputs.clone()


class Shattered(nn.Module):
    """The right outputs, with a backward pass of random signs."""

    def __init__(self, inner: nn.Module, *, flipped: bool = False) -> None:
        super().__init__()
        self.inner, self.flipped = inner, flipped

    def forward(self, inputs: Tensor) -> Tensor:
        signs = torch.ones_like(inputs)
        if not self.flipped:
            draws = torch.Generator().manual_seed(3)
            signs = torch.randint(0, 2, inputs.shape[1:], generator=draws) * 2.0 - 1
        else:
            signs = -signs
        return self.inner(inputs.detach() + signs * (inputs - inputs.detach()))


class VanishesOffTheGrid(nn.Module):
    """Has a gradient at pictures of 256 levels, and none between them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        steps = inputs.detach() * 255
        on_grid = ((steps - steps.round()).abs() < 1e-3).flatten(1).all(1).view(-1, 1, 1, 1)
        return self.inner(torch.where(on_grid, inputs, inputs.detach()))


class VanishesNearTheBoundary(nn.Module):
    """Has no gradient where the two best classes are near each other."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.inner(inputs)
        best = outputs.detach().topk(2, dim=1).values
        sure = (best[:, 0] - best[:, 1] > 4.0).unsqueeze(1)
        return torch.where(sure, outputs, outputs.detach())


class Probabilities(nn.Module):
    """Returns probabilities that saturate, as if they were logits."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        return (20 * self.inner(inputs)).softmax(1)


class KeepsTheBest(Plain):
    """A sound attack: returns the point of the largest margin."""

    def choose(self, path, inputs, classifier, labels):
        with torch.no_grad():
            margins = torch.stack([margin(classifier(each), labels) for each in path])
        best = margins.argmax(0)
        return torch.stack(path)[best, torch.arange(len(inputs))]


class StopsEarly(Plain):
    """A sound attack that drops examples from the batch at their first success."""

    def propose(self, classifier, inputs, *, labels, threat, streams):
        points, left = self.start(inputs, threat, streams), torch.arange(len(inputs))
        for _ in range(self.steps):
            leaf = points[left].clone().requires_grad_()
            outputs = classifier(leaf)
            (gradient,) = torch.autograd.grad(self.loss(outputs, labels[left]).sum(), leaf)
            stepped = leaf.detach() + self.pace * threat.radius * gradient.sign()
            going = outputs.argmax(1) == labels[left]
            points[left[going]] = self.project(stepped, inputs[left], threat)[going]
            left = left[going]
            if not len(left):
                break
        yield points


@pytest.fixture
def raised(mnist, honest) -> Callable[..., Raised]:
    """Returns the flags of an evaluation, by kind."""

    def evaluated(attack, *, model="maxout", epsilon=0.1, data=None, **arguments) -> Raised:
        module = honest(model) if isinstance(model, str) else model
        given = {"attack": attack, "epsilon": epsilon, "examination": False, **arguments}
        record = evaluate(module, data or mnist, **given).record
        assert not record.failures
        return {flag.kind: flag for flag in record.flags if flag.kind != "not-examined"}

    return evaluated


@pytest.mark.parametrize(
    ("attack", "kinds"),
    [
        (Descends(), {"loss-did-not-rise"}),
        (TargetsTheTrueClass(), {"loss-did-not-rise"}),
        (LabelsOffByOne(), {"loss-did-not-rise"}),
        (LeavesAnotherClass(), {"loss-did-not-rise"}),
        (ReturnsTheFirst(), {"success-lost"}),
        (ReturnsTheInput(), {"inputs-unchanged", "success-lost"}),
        (ReturnsSomeInputs(), {"inputs-unchanged"}),
        (Overwrites(), {"success-lost"}),
        (Shrinks(), {"success-lost", "budget-unused"}),
        (NoStep(), {"inputs-unchanged"}),
        (WrongNorm(), {"invalid-candidates"}),
        (WrongBox(), {"invalid-candidates"}),
        (WrongUnits(), {"budget-unused"}),
        (Plain(steps=4, pace=0.01), {"not-converged"}),
        (Plain(steps=2, pace=0.01), {"not-converged"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Attack) else None,
)
def test_a_fault_of_an_attack_is_flagged(raised, attack, kinds):
    found = raised(attack)
    assert kinds <= found.keys()
    assert all(flag.attack for flag in found.values())


STILL = {"name": "pgd", "random_start": False}


@pytest.mark.parametrize(
    ("module", "attack", "epsilon", "kinds"),
    [
        (VanishesOffTheGrid, {**STILL, "steps": 5}, 0.1, {"zero-gradient-on-path"}),
        (VanishesNearTheBoundary, {**STILL, "steps": 20}, 0.1, {"zero-gradient-on-path"}),
        (VanishesNearTheBoundary, Plain(steps=20, pace=0.1), 0.1, {"zero-gradient-on-path"}),
        (nn.Identity, LosesItsLoss(), 0.1, {"zero-gradient-on-path"}),
        (Probabilities, Plain(), 0.1, {"zero-gradient"}),
        (Shattered, {"name": "pgd", "steps": 10}, 1.0, {"unbounded-attack-fails"}),
        (
            lambda inner: Shattered(inner, flipped=True),
            {"name": "pgd", "steps": 10},
            1.0,
            {"unbounded-attack-fails", "loss-did-not-rise"},
        ),
    ],
)
def test_a_model_that_misguides_an_attack_is_flagged(
    raised, honest, module, attack, epsilon, kinds
):
    inner = honest("maxout")
    model = inner if module is nn.Identity else module(inner)
    assert kinds <= raised(attack, model=model, epsilon=epsilon).keys()


@pytest.mark.parametrize("attack", [Descends(), TargetsTheTrueClass()])
def test_fewer_errors_than_without_an_attack_are_flagged(raised, mnist, honest, attack):
    """A fifth of the labels are of another class, so that there are errors to lose."""
    inputs, labels = mnist
    shifted = torch.where(torch.arange(len(labels)) % 5 == 0, (labels + 1) % CLASSES, labels)
    found = raised(attack, model=_Unsure(honest("softmax")), data=(inputs, shifted), epsilon=0.3)
    assert "error-below-clean" in found


class _Unsure(nn.Module):
    """Its outputs, and what it predicts, are easily changed."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        return 0.1 * self.inner(inputs)


@pytest.mark.parametrize(
    ("attack", "model", "epsilon"),
    [(HalvesLargeBudgets(), "maxout", [0.1, 0.25]), ("fgsm", "maxout-label-leaking", [0.1, 0.25])],
)
def test_fewer_errors_at_a_larger_epsilon_are_flagged(raised, attack, model, epsilon):
    assert "error-falls-with-epsilon" in raised(attack, model=model, epsilon=epsilon)


@pytest.mark.parametrize(
    "attacks",
    [
        [{"name": "pgd", "steps": 5}, "noise-sign"],  # a shattered gradient is noise
        [Plain(steps=2, pace=0.001)],  # its random start is as good
    ],
)
def test_an_attack_no_better_than_noise_is_flagged(raised, honest, attacks):
    model = Shattered(honest("maxout")) if len(attacks) > 1 else honest("maxout")
    assert "noise-as-strong" in raised(attacks, model=model, epsilon=0.35)


@pytest.mark.parametrize(
    ("attack", "model", "epsilon"),
    [
        ([{"name": "pgd", "steps": 10}, "noise-sign", "noise-uniform"], "maxout", 0.35),
        ({"name": "pgd", "steps": 10}, "maxout-label-leaking", [0.05, 0.1, 0.25]),
        ({"name": "pgd", "steps": 20}, "maxout-label-leaking", 1.0),
        ({"name": "fgsm", "carried": True}, "maxout-label-leaking", [0.1, 0.25]),
        ({"name": "worst-of", "attacks": "fgsm,pgd"}, "maxout", 0.1),
        (["noise-sign", "noise-uniform"], "rbf", [0.1, 0.25]),
        ({"name": "pgd", "steps": 20, "norm": "l2"}, "maxout", 2.0),
        ({"name": "deepfool", "steps": 10}, "softmax", [0.5, 2.0]),
    ],
)
def test_a_sound_run_is_not_flagged(raised, attack, model, epsilon):
    found = raised(attack, model=model, epsilon=epsilon)
    assert not found.keys() - {"wide-budget", "noise-only", "single-step-only"}
    assert ("single-step-only" in found) == ("fgsm" in str(attack) and "pgd" not in str(attack))


def test_what_only_transfers_is_not_judged(raised, honest):
    models = {"one": honest("softmax"), "two": honest("maxout")}
    found = raised("fgsm", model=models, epsilon=[0.05, 0.1])
    assert found.keys() <= {"single-step-only", "too-few-examples"}  # about attack and run alone


def test_a_random_model_does_not_lose_what_it_never_had(raised, honest):
    class Random(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, inputs: Tensor) -> Tensor:
            outputs = self.inner(inputs)
            return outputs + 8 * torch.rand_like(outputs)

    found = raised({"name": "pgd", "steps": 10}, model=Random(honest("softmax")))
    assert not found.keys() - {"random-answers"}


def repeated(flag: Flag) -> dict[str, Any]:
    """Returns the attack of the lines of a suite, which can be decoded."""
    (attack,) = tomllib.loads(flag.suite)["attacks"]
    suite = {"name": "more", "dataset": "mnist", "models": ["maxout"], "attacks": [attack]}
    assert decode_suite(suite, where="more").experiments[0].attacks[0].epsilon
    return attack


@pytest.mark.parametrize(
    ("steps", "size", "least"),
    [(2, 0.001, 10), (20, 0.0001, 20), (20, 1e-7, 20), (40, "1/2550", 40)],
)
def test_steps_that_never_use_the_budget_should_be_larger(raised, steps, size, least):
    flag = raised({"name": "pgd", "steps": steps, "step_size": size})["not-converged"]
    assert "epsilon together, too few to use the budget" in flag.sentence
    assert flag.advice.startswith("Use a larger step size")
    attack = repeated(flag)
    assert attack["steps"] == least
    assert attack["steps"] * attack["step_size"] == pytest.approx(0.25, rel=0.02)


def test_a_plug_in_with_tiny_steps_gets_words_and_no_lines(raised):
    flag = raised(Plain(steps=12, pace=0.01))["not-converged"]
    assert flag.advice.startswith("Use a larger step size")
    assert not flag.suite


def test_steps_that_cross_the_ball_should_be_more(raised):
    """The loss of a search over twice the steps' rule still rises: here steps are not too short."""
    found = raised({"name": "pgd", "steps": 4, "step_size": 0.05, "random_start": False})
    assert "larger step" not in (found["not-converged"].advice if "not-converged" in found else "")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DeclaresKeep(ReturnsTheFirst):
    keep: Literal["last", "best-loss"] = "last"


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (ReturnsTheFirst(), "Let the attack keep the best or first misclassified point"),
        (DeclaresKeep(), 'Return the best point: keep = "best-loss".'),
    ],
    ids=["a plug-in", "a plug-in with keep"],
)
def test_advice_about_lost_successes_fits_a_plug_in(raised, attack, words):
    advice = raised(attack)["success-lost"].advice
    assert words in advice
    assert ("keep =" in advice) == ("keep =" in words)


class OnlyACorner(Plain):
    """A mask of another size: most of the picture never moves."""

    def project(self, points, inputs, threat):
        if threat.norm is Norm.L2:  # 64 coordinates of an eighth of epsilon
            threat = replace(threat, epsilon=Epsilon.parse(threat.radius / 8))
        moved = super().project(points, inputs, threat)
        kept = inputs.clone()
        kept[..., 4:12, 4:12] = moved[..., 4:12, 4:12]
        return kept

    def start(self, inputs, threat, streams):
        return self.project(super().start(inputs, threat, streams), inputs, threat)


class FewPlaces(OnlyACorner):
    def project(self, points, inputs, threat):
        moved = super().project(points, inputs, threat)
        middle = torch.zeros_like(inputs)
        middle[..., 8:12, 8:12] = 1
        return torch.where(middle > 0, moved, inputs)


class DeclaresSparse(OnlyACorner):
    sparse: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DeclaresMask(OnlyACorner):
    mask: str = "corner"


class LooksAtACorner(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        seen = torch.zeros_like(inputs)
        seen[..., 4:12, 4:12] = inputs[..., 4:12, 4:12]
        return self.inner(seen)


@pytest.mark.parametrize("model", ["softmax", "maxout"])
@pytest.mark.parametrize("attack", [OnlyACorner(), FewPlaces()])
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 1.0)])
def test_an_attack_on_a_part_of_the_picture_is_flagged(raised, attack, model, norm, epsilon):
    found = raised(attack, model=model, epsilon=epsilon, norm=norm)
    assert found["partial-perturbation"].severity == "warning"


@pytest.mark.parametrize("attack", [DeclaresSparse(), DeclaresMask()])
def test_an_attack_that_is_partial_by_design_is_not(raised, attack):
    assert "partial-perturbation" not in raised(attack)


def test_a_model_that_looks_at_a_part_may_be_attacked_there(raised, honest):
    assert "partial-perturbation" not in raised(
        OnlyACorner(), model=LooksAtACorner(honest("softmax"))
    )


@pytest.mark.parametrize(
    ("attack", "epsilon"),
    [
        ({"name": "cw", "steps": 200}, 1.0),
        ({"name": "square", "queries": 60, "norm": "l2"}, 1.0),
        ({"name": "fab", "steps": 10, "norm": "l2"}, 1.0),
        ({"name": "fmn", "steps": 20, "norm": "l1"}, 5.0),
        ({"name": "apgd-ce", "steps": 10, "norm": "l1"}, 5.0),
    ],
)
def test_an_attack_on_all_coordinates_is_not_partial(raised, attack, epsilon):
    assert "partial-perturbation" not in raised(attack, model="softmax", epsilon=epsilon)


class StopsAtTheFirst(Plain):
    """The loop ends at the first success in the batch."""

    def propose(self, classifier, inputs, *, labels, threat, streams):
        points = self.start(inputs, threat, streams)
        for _ in range(self.steps):
            leaf = points.clone().requires_grad_()
            outputs = classifier(leaf)
            if (outputs.argmax(1) != labels).any():
                break
            (gradient,) = torch.autograd.grad(self.loss(outputs, labels).sum(), leaf)
            points = self.project(
                points + self.pace * threat.radius * gradient.sign(), inputs, threat
            )
        yield points


class AttacksTheFirstFew(Plain):
    """Leaves all but the first few examples of a batch unchanged."""

    def propose(self, classifier, inputs, *, labels, threat, streams):
        points = inputs.clone()
        few = slice(0, 4)
        for _ in range(self.steps):
            leaf = points[few].clone().requires_grad_()
            loss = self.loss(classifier(leaf), labels[few]).sum()
            (gradient,) = torch.autograd.grad(loss, leaf)
            stepped = leaf.detach() + self.pace * threat.radius * gradient.sign()
            points[few] = self.project(stepped, inputs[few], threat)
        yield points


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Guesses(Attack):
    """Declares many queries, and makes a few."""

    needs_gradient: ClassVar[bool] = False

    queries: Count = 200
    made: Count = 5

    def propose(self, classifier, inputs, *, labels, threat, streams):
        best, most = inputs.clone(), torch.full((len(inputs),), -torch.inf)
        for number in range(self.made):
            noise = (streams.child(number).uniform(inputs.shape[1:]) * 2 - 1).sign()
            points = (inputs + threat.radius * noise).clamp(0, 1)
            with torch.no_grad():
                lead = margin(classifier(points), labels)
            better = lead > most
            best = torch.where(better.view(-1, 1, 1, 1), points, best)
            most = torch.where(better, lead, most)
        yield best


@pytest.mark.parametrize(
    ("attack", "kinds"),
    [
        (StopsAtTheFirst(steps=40), {"few-steps"}),
        (AttacksTheFirstFew(), {"inputs-unchanged"}),
        (Guesses(), {"few-steps"}),
    ],
)
def test_an_attack_that_leaves_most_examples_alone_is_flagged(raised, attack, kinds):
    assert kinds <= {kind for kind, flag in raised(attack).items() if flag.severity != "note"}


@pytest.mark.parametrize("attack", [StopsEarly(steps=20), Plain(steps=20), Guesses(made=200)])
def test_an_attack_that_takes_its_steps_is_not(raised, attack):
    assert "few-steps" not in raised(attack, epsilon=0.03)


@pytest.mark.parametrize(
    ("attack", "severity"),
    [
        ({"name": "square", "queries": 20}, "warning"),
        ({"name": "square", "queries": 60}, "note"),
        ({"name": "square", "queries": 500}, None),
        ({"name": "pgd", "steps": 3}, "note"),
        ({"name": "pgd", "steps": 10}, None),
    ],
)
def test_far_fewer_queries_than_the_source_uses_are_said(raised, attack, severity):
    flag = raised(attack, model="maxout-label-leaking", epsilon=0.05).get("few-steps")
    assert (flag.severity if flag else None) == severity
    if flag:
        assert "where its source uses" in flag.sentence
        assert (flag.model, flag.epsilon) == ("", None)  # it is about the attack
        assert flag.suite in ("queries = 5000", "steps = 40")


def some_wrong(mnist, count, examples=30):
    """Returns a few examples, of which some have another label."""
    inputs, labels = (each[:examples] for each in mnist)
    return inputs, torch.where(torch.arange(examples) < count, (labels + 1) % CLASSES, labels)


@pytest.mark.parametrize(("count", "severity"), [(1, "warning"), (4, "serious")])
def test_few_mistakes_that_count_as_robust_are_flagged(raised, mnist, honest, count, severity):
    """A test would need six: that they are repaired is seen."""
    model = _Unsure(honest("softmax"))
    found = raised(
        TargetsTheTrueClass(steps=40), model=model, data=some_wrong(mnist, count), epsilon=1.0
    )
    flag = found["error-below-clean"]
    assert flag.severity == severity
    assert "robust" in flag.sentence


@pytest.mark.parametrize("attack", ["fgsm", {"name": "pgd", "steps": 10}, Plain(), "noise-sign"])
@pytest.mark.parametrize("epsilon", [0.005, 0.1])
def test_sound_attacks_keep_mistakes(raised, mnist, attack, epsilon):
    flag = raised(attack, model="softmax", data=some_wrong(mnist, 5), epsilon=epsilon).get(
        "error-below-clean"
    )
    assert flag is None or flag.severity == "note"


@pytest.mark.parametrize("model", ["softmax", "maxout", "maxout-label-leaking", "rbf"])
@pytest.mark.parametrize(
    "attack",
    [
        "fgsm",
        "mi-fgsm",
        {"name": "pgd", "steps": 20},
        {"name": "pgd", "steps": 20, "keep": "first-success", "restarts": 2},
        {"name": "apgd-ce", "steps": 30},
        {"name": "apgd-t", "steps": 10},
        {"name": "square", "queries": 50},
        {"name": "ddn", "steps": 20, "epsilon": 1.0},
        KeepsTheBest(),
        StopsEarly(),
        Plain(),
    ],
    ids=str,
)
def test_a_sound_attack_on_an_honest_network_is_not(raised, attack, model):
    found = raised(attack, model=model)
    alone = {"single-step-only"} if attack == "fgsm" else set()
    assert not {kind for kind, flag in found.items() if flag.severity != "note"} - alone


@pytest.mark.parametrize("error_only", [False, True])
def test_a_search_in_a_list_may_leave_the_budget(raised, error_only) -> None:
    """Its points beyond epsilon are no successes that got lost."""
    listed = {"name": "worst-of", "attacks": [{"name": "fab", "steps": 10}]}
    found = raised(listed, model="softmax", epsilon=0.02, error_only=error_only)
    assert "success-lost" not in found


class ThirdPlace(nn.Module):
    """Three outputs, of which the true one is last for some inputs: there the DLR is constant."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 16, generator=generator))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1) @ self.weight.T


def test_a_loss_that_is_constant_on_misclassified_examples_is_not_flagged() -> None:
    """The DLR is 1 wherever the true class has the third-largest output."""
    net = ThirdPlace()
    inputs = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    order = net(inputs).detach().argsort(dim=1, descending=True)
    labels = torch.where(torch.arange(60) < 20, order[:, 2], order[:, 0])
    flags = evaluate(net, (inputs, labels), attack="apgd-dlr", epsilon=0.02, steps=5).record.flags
    assert "zero-gradient" not in {each.kind for each in flags}


@pytest.mark.parametrize("noise", ["noise-uniform", "noise-sign"])
def test_noise_alone_is_flagged_and_beside_an_attack_is_not(noise, mnist, honest) -> None:
    model = honest("softmax")
    alone = evaluate(model, mnist, attack=noise, epsilon=0.1).record.flags
    assert "noise-only" in {each.kind for each in alone}
    both = evaluate(model, mnist, attack=["fgsm", noise], epsilon=0.1).record.flags
    assert "noise-only" not in {each.kind for each in both}


@pytest.mark.parametrize(
    ("epsilon", "flagged"),
    [("8/255", True), ("2/255", True), ("0.5", False), ("128/255", False), ("2", False)],
)
def test_a_budget_of_linf_in_l2_is_flagged(epsilon, flagged, flags, honest) -> None:
    raised = flags(honest("softmax"), norm="l2", epsilon=epsilon, steps=5)
    assert ("tiny-budget" in {each.kind for each in raised}) == flagged
