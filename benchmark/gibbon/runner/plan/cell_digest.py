"""Digests of cells: the names under which outcomes are stored."""

from __future__ import annotations

import json
from collections.abc import Iterator

from gibbon.attacks.base import Attack
from gibbon.attacks.toolkit.parameter_text import parameter_texts
from gibbon.core.threat import ThreatModel
from gibbon.runner.plan.cell import Cell, PlannedAttack, goes_by_member
from gibbon.runner.plan.code_digest import code_digest, digest_of
from gibbon.runner.plan.loading import LoadedModel
from gibbon.specs.base import UNATTACKED
from gibbon.specs.suite import Experiment


def _cells(
    experiment: Experiment,
    data_digest: str,
    models: tuple[LoadedModel, ...],
    attacks: tuple[PlannedAttack, ...],
) -> Iterator[Cell]:
    dataset = experiment.dataset.name
    for source in models:
        clean = digest_of(data=data_digest, source=source.digest, attack=UNATTACKED)
        yield Cell(dataset, source, None, None, (source,), clean)
        for planned in attacks:
            others = models if planned.transferred else ()
            targets = (source, *(each for each in others if each is not source))
            before = clean
            follows: dict[ThreatModel, str | None] = dict.fromkeys(planned.threats)
            digests: dict[ThreatModel, str] = {}
            # Ascending, for what is carried; the tables have the order of the suite.
            for threat in sorted(planned.threats, key=lambda each: each.epsilon):
                more: dict[str, object] = {}
                if planned.spec.carried:
                    more["follows"] = follows[threat] = before
                if goes_by_member(experiment, planned):
                    more["by_member"] = True
                before = digests[threat] = digest_of(
                    data=data_digest,
                    source=source.digest,
                    attack=[_identity(planned.attack), *_codes(planned.attack)],
                    key=planned.stream_key,
                    norm=threat.norm,
                    epsilon=str(threat.epsilon.value),
                    bounds=threat.bounds and [threat.bounds.low, threat.bounds.high],
                    **more,
                )
            for threat in planned.threats:
                yield Cell(
                    dataset, source, planned, threat, targets, digests[threat], follows[threat]
                )


def _identity(attack: Attack) -> str:
    kind = type(attack)
    named = [kind.__module__, kind.__qualname__, kind.version, parameter_texts(attack)]
    return json.dumps([*named, *map(_identity, attack.made_of)])


def _codes(attack: Attack) -> list[str]:
    """Returns the digests of an attack's code, and of those that it is made of."""
    own = code_digest(type(attack))
    return [own, *(each for member in attack.made_of for each in _codes(member))]
