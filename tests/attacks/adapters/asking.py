"""Asks an adapted attack for candidates, without the benchmark's guard."""

from __future__ import annotations

import nets
from torch import Tensor

from gibbon.attacks.base import Attack
from gibbon.attacks.factory import build_attack
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.specs.suite import AttackSpec
from gibbon.verify.judge import Judged, judge
from gibbon.verify.proposal import TriesProposal, propose

HERE = "suite.toml: attacks[0]"


def built(name: str, *, norm: str | None = None, **parameters: object) -> Attack:
    spec = AttackSpec(name=name, epsilon="0.1", norm=norm, **parameters)
    return build_attack(spec, where=HERE)


def asked(
    attack: Attack, classifier: Classifier, batch: Batch, threat: ThreatModel | None = None
) -> Tensor:
    threat = threat or nets.threat("0.1", norm=attack.norms[0])
    streams = ExampleStreams.derive(3, batch.ids)
    with classifier.evaluating():
        (tries,) = propose(attack, classifier, batch, threats=[threat], streams=streams)
        (candidates,) = tries
    return candidates


def judged(
    attack: Attack,
    classifier: Classifier,
    batch: Batch,
    *,
    epsilon: object = "0.1",
    norm: Norm | None = None,
    clip: bool = True,
) -> Judged:
    bounds = classifier.bounds if clip else None
    threat = nets.threat(epsilon, norm=norm or attack.norms[0], bounds=bounds)
    candidates = asked(attack, classifier, batch, threat)
    with classifier.evaluating():
        return judge(classifier, batch, proposed=TriesProposal([candidates]), threat=threat)
