"""Flags of attacks that took no gradient, and of models that saw only weak attacks.

Weak are noise, single steps, and attacks towards a target class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gibbon.attacks.base import Attack, SearchMethod, is_targeted
from gibbon.core.threat import Norm, ThreatModel
from gibbon.diagnostics.attack_order import Attacker
from gibbon.diagnostics.order_flags import ComparedCell
from gibbon.records.flags import Flag
from gibbon.records.outcomes import Outcome

MOST_ERRORS = 0.99  # of the examples: an attack that finds these needs no gradient
MOST_OPEN = 0.05  # of the examples, by which several steps may find more errors than one
WITHOUT_STEPS = frozenset([SearchMethod.NOISE, SearchMethod.GRADIENT_FREE])

# The ids of the examples that are proved robust, by dataset, model and threat model.
ProvedIds = Mapping[tuple[str, str, ThreatModel], NDArray[np.int64]]


def gradient_use_flags(cells: Iterable[ComparedCell]) -> Iterator[Flag]:
    """Yields the flags of attacks that need gradients, by their declaration, and took none.

    Such an attack follows another model, or nothing.  Backward passes of the model are counted
    whoever makes them.
    """
    for cell in cells:
        attacker, outcome = cell.attacker, cell.outcome
        if not attacker.attack.needs_gradient or attacker.took_gradients:
            continue
        asked = ~cell.clean  # a list attacks no clean mistakes
        if not asked.any() or np.mean(outcome.any_misclassified) >= MOST_ERRORS:
            continue
        yield Flag(
            kind="no-gradient-taken",
            dataset=cell.dataset,
            model=cell.model,
            attack=cell.label,
            epsilon=attacker.threat.epsilon,
            figure="0 backward passes",
            sentence="the attack needs gradients, as it declares, and took none of this model",
        )


def noise_only_flags(cells: Sequence[ComparedCell]) -> Iterator[Flag]:
    """Yields a flag for each model that nothing but noise was tried on."""
    searched = {
        (each.dataset, each.model)
        for each in cells
        if each.attacker.method is not SearchMethod.NOISE
    }
    labels: dict[tuple[str, str], dict[str, None]] = {}
    for each in cells:
        labels.setdefault((each.dataset, each.model), {})[each.label] = None
    for (dataset, model), attacks in labels.items():
        if (dataset, model) not in searched:
            yield Flag(
                kind="noise-only",
                dataset=dataset,
                model=model,
                figure=", ".join(attacks),
                sentence=f"nothing but noise was tried ({', '.join(attacks)}), which does not look "
                "for adversarial examples",
                suite='[[experiments.attacks]]\nname = "pgd"',
            )


def targeted_only_flags(
    cells: Sequence[ComparedCell], *, published: Collection[tuple[str, str, str]] = ()
) -> Iterator[Flag]:
    """Yields a flag for each model that was only driven to target classes, in a norm.

    The error counts any wrong class, of which such an attack reaches one alone.  Noise beside it
    does not count; nothing is flagged where all but a few examples are misclassified.

    Args:
        cells: the attacked cells.
        published: dataset, model and attack of published numbers that are compared with this
            attack: if all are, the flag is a note.
    """
    groups: dict[tuple[str, str, Norm], list[ComparedCell]] = defaultdict(list)
    for each in cells:
        if each.attacker.method is not SearchMethod.NOISE:
            groups[each.dataset, each.model, each.threat.norm].append(each)
    for (dataset, model, norm), group in groups.items():
        if not all(_is_targeted(each.attacker.attack) for each in group):
            continue
        least = min(group, key=lambda each: int(each.outcome.any_misclassified.sum()))
        missed, total = int((~least.outcome.any_misclassified).sum()), len(least.clean)
        if missed < MOST_OPEN * total:
            continue
        labels = tuple(dict.fromkeys(each.label for each in group))
        noted = all((dataset, model, label) in published for label in labels)
        norm_line = "" if norm is Norm.LINF else f'\nnorm = "{norm}"'
        for label in labels:
            yield Flag(
                kind="targeted-only",
                severity="note" if noted else "warning",
                dataset=dataset,
                model=model,
                attack=label,
                figure=f"{missed} of {total} withstand",
                sentence=f"nothing was tried in this norm but attacks towards a target class "
                f"({', '.join(labels)}): {missed} of {total} examples withstood them at epsilon "
                f"{least.threat.epsilon}, and may be misclassified as another class",
                suite=f'[[attacks]]\nname = "pgd"\nepsilon = "{least.threat.epsilon}"{norm_line}',
            )


def _is_targeted(attack: Attack) -> bool:
    """Returns whether an attack, or every member of a list, has a target."""
    if attack.made_of:
        return all(_is_targeted(each) for each in attack.made_of)
    return is_targeted(attack)


def single_step_flags(
    cells: Sequence[ComparedCell],
    *,
    proved: ProvedIds,
    published: Collection[tuple[str, str, str]] = (),
) -> Iterator[Flag]:
    """Yields a flag for each single-step attack on a model that no stronger attack was run on.

    Something stronger is any attack of several steps or queries on the same model, in the same
    norm, at the same epsilon.  Nothing is flagged where all but a few examples are misclassified or
    proved robust: on a linear model one step is nearly the worst case.

    Args:
        cells: the attacked cells.
        proved: the examples that are proved robust.
        published: dataset, model and attack of published numbers that are compared with this
            attack: who reproduces a number has to use its attack, so that the flag is a note.
    """
    groups: dict[tuple[str, str, Norm, float], list[ComparedCell]] = defaultdict(list)
    for each in cells:
        key = (each.dataset, each.model, each.threat.norm, each.threat.radius)
        groups[key].append(each)
    found: dict[tuple[str, str, str], list[ComparedCell]] = defaultdict(list)
    for group in groups.values():
        single = [each for each in group if is_single_step(each.attacker, each.outcome)]
        weak = len(single) + sum(each.attacker.method is SearchMethod.NOISE for each in group)
        if weak == len(group):
            for each in single:
                if _open(each, proved) >= MOST_OPEN * len(each.clean):
                    found[each.dataset, each.model, each.label].append(each)
    for (dataset, model, label), concerned in found.items():
        yield from _single_step(cells, concerned, noted=(dataset, model, label) in published)


def is_single_step(attacker: Attacker, outcome: Outcome | None = None) -> bool:
    """Returns whether an attack takes one gradient step, in any number of runs.

    By what it declares; an attack that declares nothing by the gradients that it took.

    >>> from gibbon.attacks.fgsm import FGSM
    >>> from gibbon.attacks.pgd import PGD
    >>> from gibbon.core.threat import Bounds, Epsilon
    >>> box = Bounds(0.0, 1.0)
    >>> threat = ThreatModel(Norm.LINF, Epsilon.parse("0.1"), box)
    >>> [is_single_step(Attacker(each, threat, box)) for each in (FGSM(), PGD(), PGD(steps=1))]
    [True, False, True]
    """
    if attacker.members:
        parts = [each for each in attacker.members if each.method is not SearchMethod.NOISE]
        return bool(parts) and all(is_single_step(each) for each in parts)
    if attacker.method in WITHOUT_STEPS:
        return False
    if attacker.method is SearchMethod.SINGLE_STEP:
        return True
    if attacker.steps is not None:
        return attacker.steps == 1
    path = outcome.path if outcome is not None else None
    return path is not None and bool(len(path.steps)) and int(path.steps.max()) == 1


def _open(cell: ComparedCell, proved: ProvedIds) -> int:
    """Returns the number of examples that are neither misclassified nor proved robust."""
    outcome = cell.outcome
    ids = proved.get((cell.dataset, cell.model, cell.threat), np.empty(0, np.int64))
    settled = outcome.any_misclassified | np.isin(outcome.example_id, ids)
    return int(np.count_nonzero(~settled))


def _single_step(
    cells: Sequence[ComparedCell], concerned: Sequence[ComparedCell], *, noted: bool
) -> Iterator[Flag]:
    """Yields one flag of an attack on a model, or one for each epsilon if not all are concerned."""
    first = concerned[0]
    alike = [
        each
        for each in cells
        if (each.dataset, each.model, each.label) == (first.dataset, first.model, first.label)
    ]
    parts = [concerned] if len(concerned) == len(alike) else [[each] for each in concerned]
    for part in parts:
        least = min(part, key=lambda each: int(each.outcome.any_misclassified.sum()))
        missed, total = int((~least.outcome.any_misclassified).sum()), len(least.clean)
        epsilons = ", ".join(dict.fromkeys(str(each.threat.epsilon) for each in part))
        norm = "" if first.threat.norm is Norm.LINF else f'\nnorm = "{first.threat.norm}"'
        yield Flag(
            kind="single-step-only",
            severity="note" if noted else "warning",
            dataset=first.dataset,
            model=first.model,
            attack=first.label,
            epsilon=None if part is concerned else part[0].threat.epsilon,
            figure=f"{missed} of {total} withstand one step",
            sentence=f"nothing stronger than one gradient step was tried at epsilon {epsilons}: "
            f"{missed} of {total} examples withstood it"
            + ("" if len(part) == 1 else f" at epsilon {least.threat.epsilon}")
            + ", and may not withstand several steps",
            suite=f'[[attacks]]\nname = "pgd"\nepsilon = "{part[-1].threat.epsilon}"{norm}',
        )
