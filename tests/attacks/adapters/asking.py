"""Asks an adapted attack for candidates, without the benchmark's guard."""

from __future__ import annotations

import nets
from torch import Tensor

from benchmark.attacks.base import Attack, build_attack
from benchmark.classifier import Classifier
from benchmark.datasets.base import Batch
from benchmark.rng import ExampleStreams
from benchmark.specs import AttackSpec
from benchmark.threat import Norm, ThreatModel
from benchmark.verify import Judged, judge, propose

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
        return judge(classifier, batch, proposed=[candidates], threat=threat)
