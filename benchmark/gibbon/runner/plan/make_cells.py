"""Makes the cells of an experiment, with the digests that their outcomes are stored under."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gibbon.attacks.worst_of import members_of
from gibbon.core.threat import ThreatModel
from gibbon.runner.plan.cell_digest import (
    adaptation_part,
    attack_part,
    attacked_digest,
    digest_of,
    unattacked_digest,
)
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Cell, PlannedAttack
from gibbon.specs.suite import Experiment


def make_cells(
    experiment: Experiment,
    data_digest: str,
    models: tuple[LoadedModel, ...],
    attacks: tuple[PlannedAttack, ...],
) -> Iterator[Cell]:
    """Yields the cells of an experiment by source and attack, the unattacked one first.

    ``data_digest`` covers the content of the dataset and the ids of the examples.
    """
    dataset = experiment.dataset.name
    parts = [
        (planned, attack_part(planned.attack), adaptation_part(planned.adaptation))
        for planned in attacks
    ]
    for source in models:
        clean = unattacked_digest(data_digest, source.digest)
        yield Cell(dataset, source, None, None, (source,), clean)
        for planned, part, adapted in parts:
            others = models if planned.transferred else ()
            targets = (source, *(each for each in others if each is not source))
            before = clean
            follows: dict[ThreatModel, str | None] = dict.fromkeys(planned.threats)
            digests: dict[ThreatModel, str] = {}
            by_member = experiment.error_only and bool(planned.attack.made_of)
            # Ascending, since successes are carried to larger epsilons; the cells that are yielded
            # have the order of the suite.
            for threat in sorted(planned.threats, key=lambda each: each.epsilon):
                more: dict[str, object] = {"adapted": adapted} if adapted else {}
                if planned.spec.carried:
                    more["follows"] = follows[threat] = before
                if by_member:
                    more["by_member"] = True
                before = digests[threat] = attacked_digest(
                    data_digest, source.digest, threat, attack=part, key=planned.stream_key, **more
                )
            for threat in planned.threats:
                cell = Cell(
                    dataset, source, planned, threat, targets, digests[threat], follows[threat]
                )
                if by_member:
                    members = _member_cells(cell, planned, threat, unattacked=clean)
                    cell = replace(cell, members=members)
                yield cell


def _member_cells(
    cell: Cell, planned: PlannedAttack, threat: ThreatModel, *, unattacked: str
) -> tuple[Cell, ...]:
    """Returns the cells of the members of a list; each attacks the survivors of the one before."""
    members = [
        replace(
            planned,
            attack=each.attack.for_one(threat),
            adaptation=each.adaptation(planned.adaptation),
        )
        for each in members_of(planned.attack)
    ]
    own = [digest_of(list=cell.digest, member=number) for number in range(len(members) - 1)]
    digests = [*own, cell.digest]
    earlier = [cell.follows or unattacked, *own]
    return tuple(
        replace(cell, attack=attack, digest=digest, follows=follows, member=number)
        for number, (attack, digest, follows) in enumerate(
            zip(members, digests, earlier, strict=True)
        )
    )
