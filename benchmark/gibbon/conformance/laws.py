"""Laws that every attack must keep, each a function that looks for a violation.

A law checks one attack in one norm and returns an `Observation`.  No law uses the benchmark's guard
(`gibbon.verify.guard.guarding`), which would restore what an attack changes.

An attack may depart from a few laws if it gives the reason (`Attack.departures`); every number of
the benchmark relies on the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gibbon.attacks.adapters.isolation import isolated
from gibbon.attacks.base import Attack, parameters_of
from gibbon.conformance import subjects
from gibbon.core.errors import UnknownNameError
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel, Verdict
from gibbon.datasets.base import Batch
from gibbon.models.classifier import PIXELS, Classifier
from gibbon.models.outputs import LOG_SCORES, PROBABILITIES
from gibbon.models.snapshot import Snapshot
from gibbon.verify.guard import guarding
from gibbon.verify.judge import Judged, judge
from gibbon.verify.proposal import TriesProposal, propose

WIDE = Bounds(-2.0, 3.0)
ROUNDING = 1e-5  # matrix libraries add in another order for a batch of another size
OPTIMUM_FACTOR = 2.0
FACTORS = (1.05, 1.25, 1.5, OPTIMUM_FACTOR)
BUDGETS = ("0", "0.02", "0.05", "0.1", "0.3")
LEAST_MOVE = 0.05  # at a budget of 0.3
VERDICTS = {
    Verdict.NOT_FINITE: "not finite",
    Verdict.OUT_OF_BOUNDS: "out of bounds",
    Verdict.OUT_OF_BUDGET: "out of budget",
}


@dataclass(frozen=True)
class Observation:
    """The observation of a law.

    Args:
        broken: the violation, as a sentence; empty if the law was kept.
        figure: the measured number, if there is one.
    """

    broken: str = ""
    figure: str = ""


@dataclass(frozen=True)
class Law:
    """A law for attacks: its text, the check that looks for a violation, and advice.

    Args:
        name: its name in `Attack.departures`.
        says: its content, as the end of the sentence "the attack ...".
        check: looks for a violation, given an attack and a norm.
        advice: a sentence for the author of an attack that breaks it.
        excusable: whether an attack may depart from it.
    """

    name: str
    says: str
    check: Callable[[Attack, Norm], Observation]
    advice: str
    excusable: bool = False


def candidates_of(
    attack: Attack, classifier: Classifier, batch: Batch, *, threat: ThreatModel, seed: int = 0
) -> list[Tensor]:
    """Returns all candidates of an attack, run without the benchmark's guard."""
    streams = streams_for(batch, seed=seed)
    with classifier.evaluating():
        (tries,) = propose(attack, classifier, batch, threats=[threat], streams=streams)
        return list(tries)


def streams_for(batch: Batch, *, seed: int = 0) -> ExampleStreams:
    """Returns the random streams that the laws pass to an attack."""
    return ExampleStreams.derive(derive_key(seed, "conformance"), batch.ids)


def threat_of(epsilon: object, *, norm: Norm, bounds: Bounds | None = PIXELS) -> ThreatModel:
    """Returns a threat model."""
    return ThreatModel(norm, Epsilon.parse(epsilon), bounds)


def stays_in_budget(attack: Attack, norm: Norm) -> Observation:
    """Candidates have the inputs' shape and dtype, are finite, and stay in epsilon and the box."""
    farthest, shape = 0.0, subjects.shape_for(attack)
    for make in (subjects.perceptron, subjects.convolutional):
        for epsilon, bounds, clip in (("0.1", PIXELS, True), ("0.3", PIXELS, False),
                                      ("1/2", WIDE, True)):  # fmt: skip
            classifier = make(bounds=bounds, shape=shape)
            batch = subjects.random_batch(bounds=bounds, shape=shape)
            threat = threat_of(epsilon, norm=norm, bounds=bounds if clip else None)
            for candidates in candidates_of(attack, classifier, batch, threat=threat):
                judged = _judged(classifier, batch, [candidates], threat=threat)
                for verdict, words in VERDICTS.items():
                    bad = int((judged.verdict == verdict).sum())
                    if bad:
                        return Observation(
                            f"{bad} of {len(batch.ids)} candidates at ε {epsilon} {words}"
                        )
                low, high = (float(each) for each in candidates.aminmax())
                if clip and not bounds.low <= low <= high <= bounds.high:
                    return Observation(
                        f"candidates reach from {low:.9g} to {high:.9g}, beyond the box"
                    )
                farthest = max(farthest, float(judged.distance.max()) / threat.radius)
    return Observation(figure=f"at most {farthest:.4g} ε")


def leaves_inputs_alone(attack: Attack, norm: Norm) -> Observation:
    """Inputs, labels, ids, streams and parameters do not change, and no candidate is the input.

    A candidate in the inputs' own memory would change them if it is modified in place.
    """
    classifier, batch = _subject(attack, subjects.convolutional)
    streams = streams_for(batch)
    described = dict(parameters_of(attack))
    given = {
        "inputs": batch.inputs,
        "labels": batch.labels,
        "example ids": batch.ids,
        "random streams": streams.keys,
    }
    before = {name: tensor.clone() for name, tensor in given.items()}
    with classifier.evaluating():
        proposed = _proposed(attack, classifier, batch, norm=norm, streams=streams)
    if any(each.data_ptr() == batch.inputs.data_ptr() for each in proposed):
        return Observation("a candidate lies in the memory of the inputs")
    for name, tensor in given.items():
        if not torch.equal(tensor, before[name]):
            return Observation(f"the {name} were changed in place")
    if batch.inputs.requires_grad or batch.inputs.grad is not None:
        return Observation("the inputs were left with requires_grad set")
    if dict(parameters_of(attack)) != described:
        return Observation("its own parameters were changed")
    return Observation()


def leaves_the_model_alone(attack: Attack, norm: Norm) -> Observation:
    """Mode, parameters, buffers, hooks and gradients of the model do not change."""
    classifier, batch = _subject(attack, subjects.convolutional)
    with classifier.evaluating():
        snapshot = Snapshot(classifier.module)
        _proposed(attack, classifier, batch, norm=norm, streams=streams_for(batch))
        difference = snapshot.difference()
        if difference is not None:
            return Observation(f"the attack {difference}")
        if any(parameter.grad is not None for parameter in classifier.module.parameters()):
            return Observation("gradients were left on the model's parameters")
    return Observation()


def leaves_generators_alone(attack: Attack, norm: Norm) -> Observation:
    """The global generators of torch, numpy and Python keep their state."""
    classifier, batch = _subject(attack, subjects.convolutional)
    with classifier.evaluating():
        before = _generators()
        _proposed(attack, classifier, batch, norm=norm, streams=streams_for(batch))
        after = _generators()
    moved = [name for name in before if before[name] != after[name]]
    return Observation(f"the global generator of {' and '.join(moved)} moved" if moved else "")


def keeps_grad_mode(attack: Attack, norm: Norm) -> Observation:
    """The grad mode is restored, and the candidates do not depend on it."""
    classifier, batch = _subject(attack, subjects.perceptron, count=5)
    threat, here = threat_of("0.1", norm=norm), torch.device("cpu")
    # Seeded alike: another law reports attacks that follow a global generator.
    with isolated(1, device=here), torch.enable_grad():
        expected = candidates_of(attack, classifier, batch, threat=threat)
        if not torch.is_grad_enabled():
            return Observation("gradients were left switched off")
    with isolated(1, device=here), torch.no_grad():
        try:
            found = candidates_of(attack, classifier, batch, threat=threat)
        except Exception as error:  # noqa: BLE001  it worked with gradients on
            name = type(error).__name__
            return Observation(f"it raised {name} under torch.no_grad: {error}")
        if torch.is_grad_enabled():
            return Observation("gradients were left switched on")
    if not _same(expected, found):
        return Observation("candidates differ if gradients are switched off outside")
    return Observation()


def follows_its_seed(attack: Attack, norm: Norm) -> Observation:
    """Equal streams give equal candidates, for any state of the global generators."""
    classifier, batch = _subject(attack, subjects.perceptron)
    threat, here = threat_of("0.1", norm=norm), torch.device("cpu")
    with isolated(1, device=here):
        first = candidates_of(attack, classifier, batch, threat=threat)
    with isolated(2, device=here):
        again = candidates_of(attack, classifier, batch, threat=threat)
    if _same(first, again):
        return Observation()
    return Observation(
        "candidates differ from run to run: they follow the global generators or the clock"
    )


def ignores_the_batch(attack: Attack, norm: Norm) -> Observation:
    """Splitting or reordering a batch changes no candidate."""
    apart = 0.0
    for make in (subjects.perceptron, subjects.convolutional):
        classifier, batch = _subject(attack, make, count=12)
        threat = threat_of("0.1", norm=norm)
        whole = candidates_of(attack, classifier, batch, threat=threat)
        places = torch.arange(12)
        order = torch.randperm(12, generator=subjects.generator(1))
        for parts in (_parts(places, 5), _parts(order, 7), _parts(places, 1)):
            pieces = [
                candidates_of(attack, classifier, _part(batch, part), threat=threat)
                for part in parts
            ]
            if any(len(piece) != len(whole) for piece in pieces):
                return Observation("the number of candidates follows the size of the batch")
            for number, candidates in enumerate(whole):
                joined = torch.cat([piece[number] for piece in pieces])
                change = float((joined - candidates[torch.cat(parts)]).abs().max())
                if not change <= ROUNDING:  # also true for NaN
                    return Observation(f"candidates differ by up to {change:.2g}")
                apart = max(apart, change)
    return Observation(figure=f"apart by {apart:.1e}")


def stays_at_epsilon_zero(attack: Attack, norm: Norm) -> Observation:
    """At epsilon 0 the candidate equals the input bit for bit, and so does its class."""
    classifier, batch = _subject(attack, subjects.convolutional)
    for bounds in (PIXELS, None):
        threat = threat_of(0, norm=norm, bounds=bounds)
        with classifier.evaluating():
            clean = classifier.predict(batch.inputs)
            for candidates in candidates_of(attack, classifier, batch, threat=threat):
                bits = candidates.view(torch.int32) == batch.inputs.view(torch.int32)
                if not bool(bits.all()):
                    return Observation(f"{int((~bits).sum())} of {bits.numel()} coordinates moved")
                answers = _judged(classifier, batch, [candidates], threat=threat).answers
                confidence = classifier.outputs.confidence(clean)
                if answers is None or not (
                    torch.equal(answers.predicted, clean.argmax(1))
                    and torch.allclose(answers.confidence, confidence, rtol=0, atol=ROUNDING)
                ):
                    return Observation("the model's predictions differ from those on the inputs")
    return Observation()


def serves_every_output(attack: Attack, norm: Norm) -> Observation:
    """Examples of models whose outputs are probabilities or log-scores are moved too."""
    moves, shape = [], subjects.shape_for(attack)
    for rule in (PROBABILITIES, LOG_SCORES):
        classifier = subjects.with_outputs(rule, shape=shape)
        batch = subjects.labelled(classifier, subjects.random_batch(shape=shape))
        threat = threat_of("0.3", norm=norm)
        with classifier.evaluating(), guarding(classifier, batch) as given:
            (tries,) = propose(
                attack, classifier, given.batch, threats=[threat], streams=streams_for(batch)
            )
            judged = judge(classifier, batch, proposed=tries, threat=threat)
        if not bool((judged.verdict == Verdict.VALID).all()):
            return Observation(f"candidates on a model of {rule.name} are not valid")
        moves.append(float(judged.distance.max()))
        if moves[-1] <= LEAST_MOVE:
            return Observation(
                f"on a model of {rule.name} no candidate moves by more than {moves[-1]:.3g}"
            )
    return Observation(figure=f"moves by {min(moves):.2g} of 0.3")


def gains_by_budget(attack: Attack, norm: Norm) -> Observation:
    """A larger budget fools a linear model on as many examples or more; budget 0 on none."""
    classifier, batch = _subject(attack, subjects.linear, count=200)
    batch = subjects.labelled(classifier, batch)
    fooled = []
    for epsilon in BUDGETS:
        threat = threat_of(epsilon, norm=norm, bounds=None)
        tries = candidates_of(attack, classifier, batch, threat=threat)
        fooled.append(int(_judged(classifier, batch, tries, threat=threat).any_misled.sum()))
    figure = "misclassified " + ", ".join(map(str, fooled)) + f" of {len(batch.ids)}"
    if fooled[0]:
        return Observation(f"{fooled[0]} examples are misclassified at epsilon 0", figure)
    if fooled != sorted(fooled):
        return Observation("a larger budget gives fewer misclassified examples", figure)
    if fooled[-1] <= fooled[1]:
        return Observation(
            "a budget 15 times as large gives no more misclassified examples", figure
        )
    return Observation(figure=figure)


def comes_near_the_optimum(attack: Attack, norm: Norm) -> Observation:
    """A linear model misclassifies all examples at twice their smallest adversarial distance."""
    case = subjects.boundary_case(shape=subjects.shape_for(attack))
    count = len(case.batch.ids)
    fooled = 0
    for factor in FACTORS:
        threat = threat_of(factor * case.distance[norm], norm=norm)
        tries = candidates_of(attack, case.classifier, case.batch, threat=threat)
        judged = _judged(case.classifier, case.batch, tries, threat=threat)
        fooled = int(judged.any_misled.sum())
        if fooled == count:
            return Observation(figure=f"all misclassified at {factor:g} × optimum")
    return Observation(
        f"{count - fooled} of {count} examples are not misclassified at {OPTIMUM_FACTOR:g} times "
        "their smallest adversarial distance",
        f"{fooled} of {count} misclassified",
    )


def has_its_passes_counted(attack: Attack, norm: Norm) -> Observation:
    """The classifier counts every pass of the model."""
    shape = subjects.shape_for(attack)
    classifier, tally = subjects.counting(shape=shape)
    batch = subjects.random_batch(shape=shape)
    candidates_of(attack, classifier, batch, threat=threat_of("0.1", norm=norm))
    counted = classifier.passes
    forward, backward, count = tally.forward, tally.backward, len(batch.ids)
    if (counted.forward, counted.backward) != (forward, backward):
        return Observation(
            f"the model made {forward} forward and {backward} backward passes, "
            f"{counted.forward} and {counted.backward} were counted"
        )
    return Observation(
        figure=f"{forward / count:.4g} forward, {backward / count:.4g} backward an example"
    )


LAWS = (
    Law(
        "budget",
        "stays in the budget and the box",
        stays_in_budget,
        "Project the step onto the ball of radius `threat.radius` in `threat.norm` last, "
        "and into `threat.bounds` unless they are None: see `gibbon.attacks.toolkit.projections`.",
    ),
    Law(
        "inputs",
        "leaves inputs, labels and streams alone",
        leaves_inputs_alone,
        "Work on `inputs.clone()`; operations that end in an underscore, `requires_grad_` too, "
        "`+=` and assignments to an index change their operand.",
    ),
    Law(
        "model",
        "leaves the model alone",
        leaves_the_model_alone,
        "Use the classifier only: its methods take gradients of the inputs and leave mode, "
        "parameters, buffers and hooks as they are.",
    ),
    Law(
        "generators",
        "leaves the global generators alone",
        leaves_generators_alone,
        "Draw every random number from `streams`, and never call `manual_seed`.",
    ),
    Law(
        "grad-mode",
        "keeps the grad mode, and works in either",
        keeps_grad_mode,
        "Switch gradients on or off in a `with` block, `torch.enable_grad()` or "
        "`torch.no_grad()`, with no `yield` inside it.",
    ),
    Law(
        "seed",
        "gives the same candidates for a seed",
        follows_its_seed,
        "Draw every random number from `streams`: an attack has no other source of randomness.",
    ),
    Law(
        "batch",
        "gives the same candidates for every split of a batch",
        ignores_the_batch,
        "Reduce by example, never over the batch: steps, stops and random numbers of one example "
        "must not depend on another.",
        excusable=True,
    ),
    Law(
        "zero",
        "is the identity at epsilon 0",
        stays_at_epsilon_zero,
        "Let the last step be a projection onto the ball, which at radius 0 is the input itself.",
    ),
    Law(
        "outputs",
        "also serves models of probabilities and log-scores",
        serves_every_output,
        "Take losses and gradients of `gibbon.attacks.toolkit.objectives`, which know the meaning "
        "of the model's outputs, not of raw outputs.",
        excusable=True,
    ),
    Law(
        "larger-budget",
        "fools the model more with a larger budget",
        gains_by_budget,
        "Check that the loss increases, and that the length of a step grows with `threat.radius`.",
        excusable=True,
    ),
    Law(
        "optimum",
        f"comes within {OPTIMUM_FACTOR:g} times the optimum on a linear model",
        comes_near_the_optimum,
        "Check the sign and the length of the steps, and that there are enough of them to "
        "cross the ball.",
        excusable=True,
    ),
    Law(
        "passes",
        "has all its passes counted",
        has_its_passes_counted,
        "Call the classifier, not `classifier.module`: passes of the module alone are in no table.",
    ),
)


def law(name: str) -> Law:
    """Returns the law of that name.  Raises `UnknownNameError`."""
    for each in LAWS:
        if each.name == name:
            return each
    raise UnknownNameError("law", name, known=[each.name for each in LAWS])


def _subject(
    attack: Attack, make: Callable[..., Classifier], *, count: int = 40
) -> tuple[Classifier, Batch]:
    """Returns a model and a batch of the shape that the attack works on."""
    shape = subjects.shape_for(attack)
    return make(shape=shape), subjects.random_batch(count, shape=shape)


def _proposed(
    attack: Attack, classifier: Classifier, batch: Batch, *, norm: Norm, streams: ExampleStreams
) -> list[Tensor]:
    """Returns what the attack itself returns, on the very tensors of the batch."""
    threat, labels = threat_of("0.1", norm=norm), batch.labels
    return [
        *attack.propose(classifier, batch.inputs, labels=labels, threat=threat, streams=streams)
    ]


def _generators() -> dict[str, Any]:
    numbers = np.random.get_state(legacy=False)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": str({**numbers["state"], "key": numbers["state"]["key"].tolist()}),
        "Python": random.getstate(),
    }


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def _parts(places: Tensor, size: int) -> list[Tensor]:
    return [places[start : start + size] for start in range(0, len(places), size)]


def _part(batch: Batch, places: Tensor) -> Batch:
    return Batch(batch.ids[places], batch.inputs[places], batch.labels[places])


def _judged(
    classifier: Classifier, batch: Batch, tries: list[Tensor], *, threat: ThreatModel
) -> Judged:
    with classifier.evaluating():
        return judge(classifier, batch, proposed=TriesProposal(tries), threat=threat)
