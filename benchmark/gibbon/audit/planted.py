r"""Tests attacks on problems that have a known adversarial example inside the ball.

For each input :math:`x` a two-class problem is made on the model's own features :math:`f`: points
well inside of the ball of radius epsilon around :math:`x` belong to class 0, and one point on its
surface, drawn at random, to class 1.  A linear readout of :math:`f` separates them, with its
threshold just below the planted point:

.. math::
    g(x') = w \cdot f(x') - t, \qquad t = s_0 + 0.999\,(s_1 - s_0)

where :math:`s_0` is the largest value of :math:`w \cdot f` over the inner points and :math:`s_1`
that of the planted point.  An adversarial example exists by construction.  An attack that does not
find one in this problem may have missed others in the model itself; one that does has shown no more
than that it can follow these features.

Source: R. S. Zimmermann, W. Brendel, F. Tramèr and N. Carlini, "Increasing confidence in
adversarial robustness evaluations", NeurIPS 2022, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from gibbon.attacks.base import Attack
from gibbon.attacks.toolkit.projections import region
from gibbon.audit.features import FeatureReader, feature_reader
from gibbon.core.errors import ModelError, SpecError
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.core.threat import Epsilon, Norm, ThreatModel
from gibbon.datasets.base import Batch
from gibbon.metrics.distances import clip_, like
from gibbon.metrics.intervals import Interval, wilson_interval
from gibbon.models.attacked_view import attacked_view
from gibbon.models.classifier import Classifier
from gibbon.models.memory import in_pieces
from gibbon.models.outputs import LOGITS
from gibbon.specs.adaptation import UNCHANGED, Adaptation
from gibbon.verify.guard import guarding
from gibbon.verify.judge import judge
from gibbon.verify.proposal import propose

GAP = 0.05  # of the radius, between the inner points and the planted one
CLOSENESS = 0.999  # of the threshold to the planted point; the authors' decision boundary closeness
RIDGES = tuple(10.0**power for power in range(-6, 5))  # in units of the mean squared singular value
CLEAN_MARGIN = 5.0  # logits between the classes at the input itself
PASSING = 0.95  # share of the problems that an attack must solve; the authors' threshold
EASY = 0.5  # share of problems that random points solve, above which the test says little


@dataclass(frozen=True)
class PlantedSettings:
    """How the problems are made.

    Args:
        inner: points inside of the ball for each problem.
        random: random points of the ball that try to solve each problem.
        seed: of all random numbers.
    """

    inner: int = 199
    random: int = 200
    seed: int = 0


@dataclass(frozen=True)
class PlantedResult:
    """The number of planted problems that an attack solved, and that random points solved.

    Args:
        attack: its label.
        threat: the norm, the budget and the box.
        features: where the features are read.
        made: number of inputs that a problem was tried for.
        problems: number of problems that were made: a planted point is no problem if the readout
            can't tell it from the inner points by more than rounding.
        found: number of these in which the attack found an adversarial example.
        random_found: number in which one of the random points was one.
        invalid: number in which the attack's candidate was out of budget or out of bounds.
    """

    attack: str
    threat: ThreatModel
    features: str
    made: int
    problems: int
    found: int
    random_found: int
    invalid: int

    @property
    def share(self) -> float | None:
        """Share of the problems that the attack solved; None without problems."""
        return self.found / self.problems if self.problems else None

    @property
    def interval(self) -> Interval | None:
        """Wilson 95 % interval of the share."""
        return wilson_interval(self.found, self.problems) if self.problems else None

    @property
    def passed(self) -> bool:
        """Whether the attack solved at least 95 % of the problems."""
        return self.share is not None and self.share >= PASSING

    @property
    def easy(self) -> bool:
        """Whether random points solve so many problems that passing shows little."""
        return bool(self.problems) and self.random_found / self.problems > EASY


@dataclass(frozen=True)
class _PlantedRun:
    """An attack with what it sees of a problem, at one threat model."""

    attack: Attack
    adaptation: Adaptation
    threat: ThreatModel
    settings: PlantedSettings


class PlantedReadout(nn.Module):
    """A model with its last linear layer replaced by a readout of two classes.

    Args:
        reader: reads the features of the model.
        weight: float64, shape (D,).
        threshold: of the readout.
        scale: logits a unit of the readout.
    """

    def __init__(
        self, reader: FeatureReader, weight: Tensor, *, threshold: float, scale: float
    ) -> None:
        super().__init__()
        self.model = reader.module
        self._reader = reader
        self.register_buffer("weight", weight)
        self._threshold, self._scale = threshold, scale

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the logits of the two classes, shape (N, 2)."""
        features = self._reader(inputs)
        weight = self.get_buffer("weight")
        score = features.to(weight.dtype) @ weight
        logit = (score - self._threshold) * (self._scale / 2)
        return torch.stack([-logit, logit], 1).to(inputs.dtype)


def audit_attack(
    source: Classifier,
    batch: Batch,
    *,
    attack: Attack,
    label: str,
    threat: ThreatModel,
    settings: PlantedSettings,
    adaptation: Adaptation = UNCHANGED,
    progress: Callable[[int], None] = lambda _: None,
) -> PlantedResult:
    """Returns in how many problems an attack finds an adversarial example.

    Args:
        source: the model, while it is evaluated (`Classifier.evaluating`).
        batch: inputs, shape (N, *input_shape), one problem each; labels are not used.
        attack: the attack.
        label: its name in tables.
        threat: the norm, the budget, which must be positive, and the box.
        settings: how the problems are made.
        adaptation: how the attack is adapted to the model; ``before`` must be empty, since a
            readout takes the place of the model's outputs.
        progress: is called with the number of problems done.

    Raises `SpecError` for ``before``, `ModelError` if features are not finite, and what the attack
    raises.
    """
    if adaptation.before:
        raise SpecError(
            f"before = {adaptation.before!r}: a planted problem puts a readout in place of the "
            "model's outputs; leave the key out"
        )
    twice = torch.cat([batch.inputs[:1], batch.inputs[:1]])
    reader = feature_reader(source.module, twice)
    problems = found = random_found = invalid = 0
    for place in range(len(batch.ids)):
        row = slice(place, place + 1)
        nobody = torch.zeros_like(batch.labels[row])
        one = Batch(batch.ids[row], batch.inputs[row], nobody)
        classifier = _problem(source, reader, one, threat=threat, settings=settings)
        if classifier is not None:
            problems += 1
            seen = replace(adaptation, backward=_inside(adaptation.backward))
            run = _PlantedRun(attack, seen, threat, settings)
            misclassified, valid = _attacked(classifier, one, run)
            found += misclassified
            invalid += not valid
            random_found += _random_search(classifier, one, threat=threat, settings=settings)
        progress(1)
    made = len(batch.ids)
    return PlantedResult(label, threat, reader.place, made, problems, found, random_found, invalid)


def _problem(
    source: Classifier,
    reader: FeatureReader,
    one: Batch,
    *,
    threat: ThreatModel,
    settings: PlantedSettings,
) -> Classifier | None:
    """Returns the classifier of a problem; None if the planted point can't be separated."""
    streams = ExampleStreams.derive(derive_key(settings.seed, "planted"), one.ids)
    inner = points_in_ball(
        one.inputs,
        threat=threat,
        count=settings.inner,
        streams=streams.child("inner"),
        reach=1 - GAP,
    )
    planted = point_on_sphere(one.inputs, threat=threat, streams=streams.child("planted"))
    with torch.no_grad():
        features = _in_pieces(reader, torch.cat([planted, one.inputs, inner])).double()
    if not bool(torch.isfinite(features).all()):
        raise ModelError(f"{reader.place}: NaN or infinity among the features")
    weight = _separating(features)
    scores = features @ weight
    highest, top = float(scores[1:].max()), float(scores[0])
    rounding = float(torch.finfo(torch.float32).eps) * float((features.abs() @ weight.abs()).max())
    if (top - highest) * (1 - CLOSENESS) <= rounding:
        return None
    threshold = highest + CLOSENESS * (top - highest)
    scale = CLEAN_MARGIN / (threshold - float(scores[1]))
    module = PlantedReadout(reader, weight, threshold=threshold, scale=scale).eval()
    classifier = Classifier(
        module,
        classes=2,
        input_shape=source.input_shape,
        outputs=LOGITS,
        bounds=source.bounds,
        draws=source.draws,
    )
    with torch.no_grad():
        answers = classifier(torch.cat([planted, one.inputs])).argmax(1).tolist()
        alone = classifier(planted).argmax(1).tolist()
    return classifier if answers == [1, 0] and alone == [1] else None


def _separating(features: Tensor) -> Tensor:
    """Returns the weights that separate the planted point from all others, shape (D,).

    They are those of ridge regression with the ridge that gives the widest margin, the difference
    between the planted point's score and the largest other one in units of the weights' length.

    Args:
        features: float64, shape (N, D), the planted point first.
    """
    centred = features - features[1:].mean(0)
    target = torch.zeros(len(features), dtype=features.dtype, device=features.device)
    target[0] = 1.0
    # In the basis of the singular vectors every ridge costs one product.
    left, sizes, right = torch.linalg.svd(centred, full_matrices=False)
    wanted = left.T @ target
    typical = sizes.square().mean().clamp(min=torch.finfo(features.dtype).tiny)
    best, widest = torch.zeros_like(features[0]), -torch.inf
    for ridge in RIDGES:
        weight = right.T @ (sizes * wanted / (sizes.square() + ridge * typical))
        length = float(weight.norm())
        if length == 0 or not math.isfinite(length):
            continue
        scores = centred @ (weight / length)
        margin = float(scores[0] - scores[1:].max())
        if margin > widest:
            best, widest = weight / length, margin
    return best


def _inside(backward: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Returns the pairs with the paths that modules have inside of `PlantedReadout`."""
    return tuple((f"model.{path}", function) for path, function in backward)


def _attacked(classifier: Classifier, one: Batch, run: _PlantedRun) -> tuple[bool, bool]:
    """Returns whether an attack finds an adversarial example, and whether it is valid."""
    key, threat = derive_key(run.settings.seed, "attack on planted"), run.threat
    streams = ExampleStreams.derive(key, one.ids)
    with (
        classifier.evaluating(),
        guarding(classifier, one, seed=derive_key(key, int(one.ids[0]))) as guarded,
    ):
        seen = attacked_view(classifier, run.adaptation, inputs=guarded.batch.inputs, key=key)
        (proposed,) = propose(run.attack, seen, guarded.batch, threats=[threat], streams=streams)
        judged = judge(classifier, one, proposed=proposed, threat=threat, watch=guarded.watch)
    return bool(judged.any_misled[0]), bool((judged.verdict == 0).all())


def _random_search(
    classifier: Classifier, one: Batch, *, threat: ThreatModel, settings: PlantedSettings
) -> bool:
    """Returns whether any of some random points of the ball is adversarial."""
    streams = ExampleStreams.derive(derive_key(settings.seed, "planted"), one.ids)
    points = points_in_ball(
        one.inputs, threat=threat, count=settings.random, streams=streams.child("random"), reach=1.0
    )
    with torch.no_grad():
        return bool((_in_pieces(classifier, points).argmax(1) == 1).any())


def points_in_ball(
    centre: Tensor, *, threat: ThreatModel, count: int, streams: ExampleStreams, reach: float
) -> Tensor:
    """Returns random points of a ball, inside of the box, shape (count, *input_shape).

    They are uniform in the ball of ``reach`` times the radius; clipping to the box brings some
    nearer to the centre.

    Args:
        centre: shape (1, *input_shape).
        threat: the norm, the radius and the box.
        count: number of points.
        streams: random numbers of the one example.
        reach: share of the radius.
    """
    smaller = Epsilon(threat.epsilon.value * Fraction(reach), str(threat.epsilon))
    centres = centre.expand(count, *centre.shape[1:])
    drawn = ExampleStreams.derive(int(streams.keys[0]), torch.arange(count, device=centre.device))
    return region(centres, threat=replace(threat, epsilon=smaller)).random_point(drawn)


def point_on_sphere(centre: Tensor, *, threat: ThreatModel, streams: ExampleStreams) -> Tensor:
    """Returns a random point at the radius from the centre, shape (1, *input_shape).

    In L∞ it is a corner of the ball.  Each coordinate moves in a direction that the box leaves
    open, so that clipping does not bring the point nearer.
    """
    shape = centre.shape[1:]
    if threat.norm is Norm.LINF:
        move = streams.signs((1, *shape))[0]
    else:
        move = _unit(streams, (1, *shape), norm=threat.norm)
    move = move.to(centre) * threat.radius
    if threat.bounds is not None:
        there = centre + move
        outside = (there > threat.bounds.high) | (there < threat.bounds.low)
        move = torch.where(outside, -move, move)
    return clip_(centre + move, threat.bounds)


def _unit(streams: ExampleStreams, shape: tuple[int, ...], *, norm: Norm) -> Tensor:
    """Returns random directions of length 1 in a norm, shape ``shape``, uniform on its sphere."""
    if norm is Norm.L2:
        drawn = streams.normal(shape)[0]
        lengths = drawn.flatten(1).square().sum(1).sqrt()
        return drawn / like(lengths, drawn)
    exponential = streams.child("size").uniform(shape)[0].clamp_(min=1e-7).log_().neg_()
    drawn = exponential * streams.child("sign").signs(shape)[0]
    lengths = drawn.abs().flatten(1).sum(1)
    return drawn / like(lengths, drawn)


def _in_pieces(compute: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    pieces = in_pieces(lambda part: compute(inputs[part]), len(inputs), device=inputs.device)
    return torch.cat(pieces)
