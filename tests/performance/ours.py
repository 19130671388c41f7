"""What we do and what bare passes of the model take."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from subjects import Subject
from torch import Tensor, nn
from turns import Contestant

from gibbon.attacks.base import Attack
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Epsilon, Norm, ThreatModel
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.verify.answers import clean_answers
from gibbon.verify.guard import guarding
from gibbon.verify.judge import Judged, judge, judge_clean
from gibbon.verify.proposal import propose

NAME = "gibbon"


def threats(
    epsilons: Sequence[str], classifier: Classifier, *, norm: Norm = Norm.LINF
) -> list[ThreatModel]:
    return [ThreatModel(norm, Epsilon.parse(each), classifier.bounds) for each in epsilons]


def errors(
    attack: Attack,
    classifier: Classifier,
    batch: Batch,
    *,
    asked: Sequence[ThreatModel],
    clean: bool,
) -> list[float]:
    """Adversarial errors, checked and predicted as in a run, where the model is evaluated.

    With ``clean`` what the model says of the clean inputs is taken down too.
    """
    found = []
    with guarding(classifier, batch, attack=attack) as guarded:
        streams = ExampleStreams.derive(0, batch.ids)
        proposals = propose(attack, classifier, guarded.batch, threats=asked, streams=streams)
        for threat, tries in zip(asked, proposals, strict=True):
            with _off_path(classifier, asked):
                judged = judge(classifier, batch, proposed=tries, threat=threat)
            found.append(float(judged.any_misled.double().mean()))
        if clean:
            clean_answers(classifier, batch, watch=guarded.watch)
    return found


def carried_errors(
    attack: Attack, classifier: Classifier, batch: Batch, *, asked: Sequence[ThreatModel]
) -> list[float]:
    """The same for epsilons that rise, where an example that was misled stays misled."""
    found = []
    before: Judged | None = None
    with guarding(classifier, batch, attack=attack) as guarded:
        streams = ExampleStreams.derive(0, batch.ids)
        proposals = propose(attack, classifier, guarded.batch, threats=asked, streams=streams)
        for threat, tries in zip(asked, proposals, strict=True):
            # Once the direction was taken, what the model says of the clean inputs is known.
            before = before or judge_clean(classifier, batch, watch=guarded.watch)
            with _off_path(classifier, asked):
                before = judge(classifier, batch, proposed=tries, threat=threat, before=before)
            found.append(float(before.any_misled.double().mean()))
    return found


def _off_path(classifier: Classifier, asked: Sequence[ThreatModel]) -> AbstractContextManager[None]:
    """Predicts candidates outside of the attack's path, as runs do where epsilons share passes."""
    return classifier.off_path() if len(asked) > 1 else nullcontext()


def contestant(
    attack: Attack,
    subject: Subject,
    batch: Batch,
    *,
    epsilons: Sequence[str],
    clean: bool = False,
    who: str = NAME,
) -> Contestant:
    asked = threats(epsilons, subject.classifier)  # which a run plans before it begins
    work = partial(errors, attack, subject.classifier, batch, asked=asked, clean=clean)
    return Contestant(who, work)


def bare_passes(module: nn.Module, inputs: Tensor, *, gradients: int, forwards: int) -> Contestant:
    """Forward-and-backwards to the inputs, then forwards: nothing else."""

    def work() -> list[float]:
        for _ in range(gradients):
            leaf = inputs.detach().requires_grad_()
            outputs = module(leaf)
            torch.autograd.grad(outputs, leaf, torch.ones_like(outputs))
        with torch.no_grad():
            for _ in range(forwards):
                module(inputs)
        return []

    return Contestant("passes", work)
