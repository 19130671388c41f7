"""Flags of attacks that find fewer errors than attacks that should be weaker.

Two attacks on one model are compared on the same examples, by McNemar's exact test on those that
the model classifies correctly when clean; Holm's procedure corrects the p-values of all comparisons
of a model and dataset.  `gibbon.diagnostics.attack_order` says which pairs are compared.

A member of a list of attacks was run on the survivors of the members before it.  It is compared as
if it had fooled the model on all examples that earlier members did (when it should be the stronger
one) or on none of them (when it should be the weaker one), so that a flag does not depend on what
it was not run on.

Sources: A. Athalye, N. Carlini and D. Wagner, "Obfuscated gradients give a false sense of
security", ICML 2018, section 3.1; N. Carlini et al., "On evaluating adversarial robustness", 2019,
section 5; for members of lists, the flags of F. Croce's and M. Hein's AutoAttack.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice

import numpy as np
from numpy.typing import NDArray

from gibbon.attacks.base import SearchMethod
from gibbon.core.threat import Norm, ThreatModel, Verdict
from gibbon.diagnostics.attack_advice import better_keep
from gibbon.diagnostics.attack_order import (
    BLACK_BOX,
    ENOUGH_STEPS,
    Attacker,
    Order,
    order_of,
)
from gibbon.metrics.paired_tests import holm, mcnemar
from gibbon.records.flag_kinds import Severity
from gibbon.records.flags import Flag
from gibbon.records.outcomes import Outcome

ExampleMask = NDArray[np.bool_]

ALPHA = 0.01  # of all comparisons of a model and dataset together
LEAST = 0.01  # of the examples: smaller differences are nobody's claim
LARGE = 0.1  # of the examples: more than a last iterate or another loss explains
# Of the examples: more than networks that were trained to be robust lose to a search without
# gradients if PGD has not converged (up to a fifth on those of Wong and Kolter 2018).
GROSS = 0.25
SURVIVORS = 0.05  # of the survivors of white-box attacks that a search without gradients may fool
TRANSFER = "transfer-stronger"


@dataclass(frozen=True)
class ComparedCell:
    """An attacked cell that is compared with others, with its outcome and clean mistakes.

    Args:
        dataset: the dataset's name.
        model: the name of the model that examples were made on.
        digest: its digest among the targets of the outcome.
        label: the attack's name in the tables.
        attacker: the attack and its threat model.
        outcome: the outcome.
        clean: bool, shape (N,): whether the model misclassifies the clean input.
    """

    dataset: str
    model: str
    digest: str
    label: str
    attacker: Attacker
    outcome: Outcome
    clean: ExampleMask

    @property
    def threat(self) -> ThreatModel:
        """The norm, the budget and the box."""
        return self.attacker.threat


@dataclass(frozen=True)
class _Contender:
    """The examples that an attack, or a member of a list, is known to have fooled a model on.

    ``surely`` and ``maybe`` differ for a member of a list, which was not run on all examples.
    """

    cell: ComparedCell
    name: str
    attacker: Attacker
    surely: ExampleMask
    maybe: ExampleMask

    @property
    def phrase(self) -> str:
        """The attack's name in sentences."""
        if self.name == self.cell.label:
            return self.name
        return f"{self.name} (member of {self.cell.label})"


@dataclass(frozen=True)
class _Comparison:
    """A comparison of an attack with one that should find at least as many errors.

    Args:
        judged: the cell of the stronger attack, whose number is in doubt.
        order: the claim that is tested.
        what: what was found if the claim does not hold, as a sentence without counts.
        counts: the counts that say so, as a clause.
        figure: the counts in short.
        excess: share of the examples by which the weaker attack finds more errors.
        half: whether the stronger attack finds at most half as many errors.
        test: the name of the test.
        p_value: of the test.
    """

    judged: ComparedCell
    order: Order
    what: str
    counts: str
    figure: str
    excess: float
    half: bool
    test: str
    p_value: float

    @property
    def matters(self) -> bool:
        """Whether the difference is large enough to be worth a flag."""
        large = self.half or self.excess >= LARGE
        return self.excess >= LEAST and (self.order.strict or large)

    @property
    def severity(self) -> Severity:
        """Serious if the stronger attack's number says nothing about the model."""
        return "serious" if self.half or self.excess >= GROSS else "warning"


def order_flags(cells: Iterable[ComparedCell]) -> Iterator[Flag]:
    """Yields signs of masked gradients: stronger attacks that find fewer errors than weaker ones.

    At most one flag of a kind is raised for a cell, of the comparison with the largest difference.

    Args:
        cells: the attacked cells of any number of models and datasets.
    """
    for _, group in groupby(sorted(cells, key=_dataset), key=_dataset):
        here = tuple(group)
        compared: dict[str, list[_Comparison]] = defaultdict(list)
        for each in (*_of_models(here), *_of_transfers(here)):
            compared[each.judged.model].append(each)
        for comparisons in compared.values():
            yield from _flags(comparisons)


def _dataset(cell: ComparedCell) -> str:
    return cell.dataset


def _flags(comparisons: Sequence[_Comparison]) -> Iterator[Flag]:
    p_values = holm([each.p_value for each in comparisons])
    worst: dict[tuple[str, object, str], tuple[_Comparison, float]] = {}
    for each, p_value in zip(comparisons, p_values, strict=True):
        if p_value >= ALPHA or not each.matters:
            continue
        key = (each.judged.label, each.judged.threat, each.order.kind)
        if key not in worst or each.excess > worst[key][0].excess:
            worst[key] = (each, p_value)
    for each, p_value in worst.values():
        yield _flag(each, p_value, tests=len(comparisons))


def _flag(found: _Comparison, p_value: float, *, tests: int) -> Flag:
    judged = found.judged
    return Flag(
        kind=found.order.kind,
        severity=found.severity,
        dataset=judged.dataset,
        model=judged.model,
        attack=judged.label,
        epsilon=judged.threat.epsilon,
        figure=f"{found.figure}, {_p_text(p_value)}",
        sentence=f"{found.what} ({found.order.reason}): {found.counts} ({found.test}, "
        f"{_p_text(p_value)} after Holm's correction for {_tests_text(tests)})",
        advice=_advice(found),
        suite=suite_lines(judged.threat),
    )


def _tests_text(tests: int) -> str:
    return "1 comparison" if tests == 1 else f"{tests:,} comparisons"


def _p_text(p_value: float) -> str:
    """Returns a p-value for a sentence.

    >>> _p_text(0.0021), _p_text(1e-30)
    ('p = 0.0021', 'p < 0.0001')
    """
    return f"p = {p_value:.2g}" if p_value >= 1e-4 else "p < 0.0001"


def _advice(found: _Comparison) -> str:
    attacker = found.judged.attacker
    better = "" if attacker.keeps_best else better_keep(attacker.attack)
    keep = f' return the best point (keep = "{better}"),' if better else ""
    if found.order.kind == BLACK_BOX:
        return (
            f"Report the worst case over both,{keep} and give the part of the model that hides the "
            'gradient another backward pass: backward = { "module.path" = "identity" }.'
        )
    if found.order.kind == TRANSFER:
        return f"Report the worst case over both,{keep} and add attacks without gradients (square)."
    return f"Report the worst case over both,{keep} take more steps, and add square."


def suite_lines(threat: ThreatModel) -> str:
    """Returns the lines of a suite with the worst case of three attacks under a threat model.

    >>> from gibbon.core.threat import Epsilon
    >>> print(suite_lines(ThreatModel(Norm.L2, Epsilon.parse("0.5"), None)))
    [[attacks]]
    name = "worst-of"
    label = "worst-of-three"
    epsilon = "0.5"
    norm = "l2"
    clip = false
    attacks = [{ name = "apgd-ce" }, { name = "apgd-t" }, { name = "square" }]
    """
    norm = [] if threat.norm is Norm.LINF else [f'norm = "{threat.norm}"']
    clip = ["clip = false"] if threat.bounds is None else []
    lines = [
        "[[attacks]]",
        'name = "worst-of"',
        'label = "worst-of-three"',
        f'epsilon = "{threat.epsilon}"',
        *norm,
        *clip,
        'attacks = [{ name = "apgd-ce" }, { name = "apgd-t" }, { name = "square" }]',
    ]
    return "\n".join(lines)


def _of_models(cells: Sequence[ComparedCell]) -> Iterator[_Comparison]:
    """Yields the comparisons of attacks on one model."""
    by_model: dict[str, list[ComparedCell]] = defaultdict(list)
    for cell in cells:
        by_model[cell.model].append(cell)
    orders = _Orders()
    for own in by_model.values():
        contenders = [each for cell in own for each in _contenders(cell)]
        series = _series(contenders)
        for stronger in contenders:
            for weaker, order in _below(stronger, series, orders):
                yield _compared(weaker, stronger, order)
        for cell in own:
            yield from _among_survivors(cell)


class _Orders:
    """Orders of attacks, each found once: models and smaller epsilons have the same ones."""

    def __init__(self) -> None:
        # By the attacks' identities, which stay theirs while the attacks are kept here.
        self._known: dict[tuple[object, ...], tuple[Attacker, Attacker, Order | None]] = {}

    def of(self, weaker: Attacker, stronger: Attacker) -> Order | None:
        """Returns `order_of` these attacks, of which the weaker's epsilon is not the larger one."""
        key = (
            *(id(weaker.attack), weaker.took_gradients, weaker.carried),
            *(weaker.threat.norm, weaker.threat.bounds, weaker.bounds),
            *(id(stronger.attack), stronger.took_gradients, stronger.carried),
            *(stronger.threat, stronger.bounds),
        )
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = weaker, stronger, order_of(weaker, stronger)
        return found[2]


_Series = dict[tuple[str, str, bool], list[_Contender]]


def _series(contenders: Iterable[_Contender]) -> _Series:
    """Returns attacks by label, name and clipping, each at its largest epsilon first."""
    found: _Series = {}
    for each in contenders:
        key = (each.cell.label, each.name, each.cell.threat.bounds is None)
        found.setdefault(key, []).append(each)
    for same in found.values():
        same.sort(key=lambda each: each.cell.threat.epsilon, reverse=True)
    return found


def _below(
    stronger: _Contender, series: _Series, orders: _Orders
) -> Iterator[tuple[_Contender, Order]]:
    """Yields the attacks that should be weaker, each at its largest epsilon that is not above."""
    for same in series.values():
        first = same[0]
        if first.cell.label == stronger.cell.label and first.name == stronger.name:
            continue
        if _contains(stronger, first) or _contains(first, stronger):
            continue
        budget = -stronger.cell.threat.epsilon.value
        start = bisect_left(same, budget, key=lambda each: -each.cell.threat.epsilon.value)
        for weaker in islice(same, start, None):
            order = orders.of(weaker.attacker, stronger.attacker)
            if order is None:  # nor is there one at smaller epsilons
                break
            if not _equal(weaker, stronger):
                yield weaker, order
                break


def _contains(one: _Contender, other: _Contender) -> bool:
    """Returns whether one is the list whose member, or itself at another epsilon, the other is."""
    return one.cell.label == other.cell.label and one.name == one.cell.label != other.name


def _equal(one: _Contender, other: _Contender) -> bool:
    """Returns whether two entries are one attack under one threat model."""
    return one.attacker.attack == other.attacker.attack and one.cell.threat == other.cell.threat


def _contenders(cell: ComparedCell) -> Iterator[_Contender]:
    """Yields the attack of a cell, and the members of a list separately."""
    fooled = cell.outcome.any_misclassified
    yield _Contender(cell, cell.label, cell.attacker, fooled, fooled)
    first = cell.outcome.first_misled
    parts = zip(cell.attacker.attack.members, cell.attacker.members, strict=False)
    for place, (name, member) in enumerate(parts):
        earlier = (first >= 0) & (first <= place)
        yield _Contender(cell, name, member, first == place, earlier)


def _compared(weaker: _Contender, stronger: _Contender, order: Order) -> _Comparison:
    rows, others = _common(weaker.cell.outcome, stronger.cell.outcome)
    fair = _fair(weaker.cell, rows) & _fair(stronger.cell, others)
    by_weaker, by_stronger = weaker.surely[rows][fair], stronger.maybe[others][fair]
    name = weaker.phrase
    if weaker.cell.threat.epsilon != stronger.cell.threat.epsilon:
        name = f"{name} at epsilon {weaker.cell.threat.epsilon}"
    what = f"{name} finds more errors than {stronger.phrase}"
    words = what, f"by {name}", f"by {stronger.phrase}"
    return _paired(stronger.cell, order, words, by_weaker=by_weaker, by_stronger=by_stronger)


def _paired(
    judged: ComparedCell,
    order: Order,
    words: tuple[str, str, str],
    *,
    by_weaker: ExampleMask,
    by_stronger: ExampleMask,
) -> _Comparison:
    """Returns the comparison of the examples that two attacks fool a model on."""
    what, one, other = words
    more = int(np.count_nonzero(by_weaker & ~by_stronger))
    fewer = int(np.count_nonzero(by_stronger & ~by_weaker))
    excess = (more - fewer) / max(len(by_weaker), 1)
    half = 2 * np.count_nonzero(by_stronger) <= np.count_nonzero(by_weaker)
    return _Comparison(
        judged=judged,
        order=order,
        what=what,
        counts=f"of {len(by_weaker):,} examples {more:,} are fooled {one} alone, {fewer:,} {other} "
        "alone",
        figure=f"{more:,} against {fewer:,} of {len(by_weaker):,}",
        excess=excess,
        half=bool(half),
        test="McNemar's exact test",
        # A stronger attack that does find more is no sign, whatever the test says.
        p_value=mcnemar(fewer, more) if more > fewer else 1.0,
    )


def _common(one: Outcome, other: Outcome) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the rows of the examples that two outcomes have in common."""
    if np.array_equal(one.example_id, other.example_id):
        rows = np.arange(len(one.example_id))
        return rows, rows
    _, rows, others = np.intersect1d(one.example_id, other.example_id, return_indices=True)
    return rows, others


def _fair(cell: ComparedCell, rows: NDArray[np.int64]) -> ExampleMask:
    """Returns which examples are compared: correct when clean, with a valid candidate."""
    valid: ExampleMask = cell.outcome.verdict[rows] == Verdict.VALID
    return valid & ~cell.clean[rows]


def _among_survivors(cell: ComparedCell) -> Iterator[_Comparison]:
    """Yields members without gradients, against the share of survivors that they may fool.

    The survivors are those of members with gradients that should be stronger, alone.
    """
    from scipy.special import bdtrc  # late: most commands need no test

    first = cell.outcome.first_misled
    fair = _fair(cell, np.arange(len(first)))
    names, members = cell.attacker.attack.members, cell.attacker.members
    for place, (name, member) in enumerate(zip(names, members, strict=False)):
        above = [order_of(member, each) for each in members[:place]]
        orders = [each for each in above if each is not None and each.kind == BLACK_BOX]
        if not orders:
            continue
        given = fair & ((first < 0) | (first >= place))
        fooled, total = int(np.count_nonzero(given & (first == place))), int(given.sum())
        excess = fooled / max(int(fair.sum()), 1)
        yield _Comparison(
            judged=cell,
            order=replace(orders[0], strict=True),
            what=f"{name} finds errors that the attacks with gradients before it do not",
            counts=f"{fooled:,} of the {total:,} examples that withstood those, where at most "
            f"{SURVIVORS:.0%} are usual",
            figure=f"{fooled:,} of {total:,}",
            excess=excess,
            half=False,
            test="binomial test",
            p_value=float(bdtrc(fooled - 1, total, SURVIVORS)) if fooled else 1.0,
        )


def _of_transfers(cells: Sequence[ComparedCell]) -> Iterator[_Comparison]:
    """Yields the comparisons of a model's own examples with those made on another model."""
    own = {(cell.model, cell.label, cell.threat): cell for cell in cells}
    alike: dict[tuple[str, ThreatModel], list[ComparedCell]] = defaultdict(list)
    for (_, label, threat), cell in own.items():
        alike[label, threat].append(cell)
    for source in cells:
        if len(source.outcome.scores) == 1:  # it is scored on no other model
            continue
        for target in alike[source.label, source.threat]:
            if target.model == source.model or target.digest == source.digest:
                continue
            if target.digest not in source.outcome.scores:
                continue
            order = _own_should_win(target)
            if order is None:
                continue
            rows, others = _common(source.outcome, target.outcome)
            fair = _fair(target, others) & (source.outcome.verdict[rows] == Verdict.VALID)
            made = f"examples made on {source.model}"
            words = f"{made} find more errors than its own", "by those", "by its own"
            yield _paired(
                target,
                order,
                words,
                by_weaker=source.outcome.misclassified(target.digest)[rows][fair],
                by_stronger=target.outcome.any_misclassified[others][fair],
            )


def _own_should_win(target: ComparedCell) -> Order | None:
    """Returns why a model's own examples should fool it more often than those of others, or None.

    A single step is the best direction at the input only, so that its order is not strict.
    """
    parts = target.attacker.members or (target.attacker,)
    climbing = [each for each in parts if each.climbs(steps=ENOUGH_STEPS)]
    stepping = [each for each in parts if each.method is SearchMethod.SINGLE_STEP]
    if not climbing and not stepping:
        return None
    strict = any(each.keeps_best for each in climbing)
    return Order(TRANSFER, "another model's gradients against its own", strict=strict)
