"""Flags of cells compared example by example: with the clean inputs, over epsilons, with noise.

Comparisons are McNemar's exact test, corrected by Holm's procedure over the comparisons of one
kind, so that chance raises a flag in one run of twenty at most.  An error below the clean error is
counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gibbon.core.threat import Norm
from gibbon.diagnostics.attacked_cell import AttackedCell, Marks
from gibbon.diagnostics.enough_examples import LEAST_SERIOUS, severity_by_count
from gibbon.metrics.paired_tests import holm, mcnemar
from gibbon.records.flag_kinds import Severity
from gibbon.records.flags import Flag

SIGNIFICANT = 0.05
NOISE = ("noise-uniform", "noise-sign")
SATURATED = 0.9  # error of noise beyond which an attack can't be far better


@dataclass(frozen=True)
class _Pair:
    """Two marks of the same examples, of which the first should mark no more than the second.

    ``against`` names the first.
    """

    cell: AttackedCell
    fewer: Marks
    more: Marks
    against: str = ""

    @property
    def p_value(self) -> float:
        """The p-value of the excess of the first; 1 if there is none."""
        only_first = int((self.fewer & ~self.more).sum())
        only_second = int((self.more & ~self.fewer).sum())
        return mcnemar(only_first, only_second) if only_first > only_second else 1.0


def paired_flags(cells: Iterable[AttackedCell]) -> Iterator[Flag]:
    """Yields the flags of the attacked cells of a run, compared with each other."""
    answered = [cell for cell in cells if cell.answered and cell.count]
    yield from _below_clean(answered)
    yield from _falls_with_epsilon(answered)
    yield from _no_better_than_noise(answered)


def _significant(pairs: Sequence[_Pair]) -> Iterator[_Pair]:
    for pair, p_value in zip(pairs, holm([each.p_value for each in pairs]), strict=True):
        if p_value < SIGNIFICANT:
            yield pair


def _below_clean(cells: Sequence[AttackedCell]) -> Iterator[Flag]:
    """Yields the flags of attacks that find fewer errors than there are without them.

    The counts decide, not a test: that a misclassified input counts as robust is seen, not
    estimated.  An attack that climbs the loss hardly ever repairs more mistakes than it finds.
    Noise does so by chance, and a random model, so that a test decides about these.
    """
    # Invalid candidates do not count, which has a flag of its own.
    pairs = [
        _Pair(cell, ~cell.right, cell.wrong)
        for cell in cells
        if cell.right.any() and not cell.outcome.verdict.any()
    ]
    sure = {id(pair.cell) for pair in _significant(pairs)}
    for pair in pairs:
        cell, clean, found = pair.cell, int(pair.fewer.sum()), int(pair.more.sum())
        significant = id(cell) in sure
        by_chance = not cell.steady or cell.row.algorithm in NOISE
        if found >= clean or (by_chance and not significant):
            continue
        repaired = int((pair.fewer & ~pair.more).sum())
        severity, few = _below_severity(cell, clean - found)
        yield cell.flag(
            "error-below-clean",
            severity="serious" if significant else severity,
            figure=f"{found} against {clean}",
            sentence=f"{found} of {cell.count} examples are misclassified under attack, {clean} "
            f"without: {repaired} misclassified "
            f"{'input counts' if repaired == 1 else 'inputs count'} as robust"
            f"{'' if significant else few}",
        )


def _below_severity(cell: AttackedCell, lacking: int) -> tuple[Severity, str]:
    """Returns the severity of so many errors fewer than without an attack, and why it is lower."""
    if cell.takes_gradients and not cell.adapted:
        return severity_by_count(lacking, cell.count)
    return ("warning" if lacking >= LEAST_SERIOUS else "note"), ""


def _falls_with_epsilon(cells: Sequence[AttackedCell]) -> Iterator[Flag]:
    groups: dict[tuple[object, ...], list[AttackedCell]] = {}
    for cell in cells:
        row = cell.row
        key = (row.dataset, row.model, row.attack, row.norm, row.clip, row.parameters)
        if row.algorithm not in NOISE:
            groups.setdefault(key, []).append(cell)
    pairs = []
    for group in groups.values():
        ordered = sorted(group, key=lambda cell: cell.row.epsilon)
        marked = [(cell, cell.wrong) for cell in ordered]
        for (smaller, fewer), (larger, more) in combinations(marked, 2):
            if np.array_equal(smaller.outcome.example_id, larger.outcome.example_id):
                pairs.append(_Pair(larger, fewer, more, str(smaller.row.epsilon)))
    fallen: dict[int, list[_Pair]] = {}
    for pair in _significant(pairs):
        fallen.setdefault(id(pair.cell), []).append(pair)
    for found in fallen.values():  # a cell has one flag, against the epsilon that finds most
        worst = max(found, key=lambda pair: int(pair.fewer.sum()))
        cell = worst.cell
        now, before = int(worst.more.sum()), int(worst.fewer.sum())
        yield cell.flag(
            "error-falls-with-epsilon",
            figure=f"{now} against {before}",
            sentence=(
                f"{now} of {cell.count} examples are misclassified, but {before} at epsilon "
                f"{worst.against}, which is smaller"
            ),
        )


def _no_better_than_noise(cells: Sequence[AttackedCell]) -> Iterator[Flag]:
    """Compares attacks that take gradients with noise of the same size, or their own random start.

    Noise must find significantly more errors than there are without it: where it finds none, an
    attack may find none either.
    """
    pairs = []
    noisy: dict[tuple[object, ...], list[AttackedCell]] = {}
    for cell in cells:
        if cell.row.algorithm in NOISE:
            noisy.setdefault(_budget(cell), []).append(cell)
    for cell in cells:
        if not cell.takes_gradients or cell.searches or not cell.steady:
            continue
        for noise, source in _noise_for(cell, noisy.get(_budget(cell), ())):
            few = int(cell.wrong.sum()) <= int(noise.sum())
            if few and noise.mean() < SATURATED and cell.right.any():
                pairs.append(_Pair(cell, noise, ~cell.right, source))
    seen: set[int] = set()
    for pair in _significant(pairs):
        cell = pair.cell
        if id(cell) in seen:  # one kind of noise is enough
            continue
        seen.add(id(cell))
        found, count = int(cell.wrong.sum()), int(pair.fewer.sum())
        yield cell.flag(
            "noise-as-strong",
            figure=f"{found} against {count}",
            sentence=(
                f"the attack finds errors for {found} of {cell.count} examples, and {pair.against} "
                f"for {count}"
            ),
        )


def _budget(cell: AttackedCell) -> tuple[object, ...]:
    row = cell.row
    return row.dataset, row.model, row.epsilon, row.norm


def _noise_for(cell: AttackedCell, noisy: Iterable[AttackedCell]) -> Iterator[tuple[Marks, str]]:
    """Yields the examples that noise of the same size misclassifies, and a name for the noise.

    ``noisy`` are the cells of noise on the cell's model, of its size.
    """
    row = cell.row
    for other in noisy:
        same = np.array_equal(other.outcome.example_id, cell.outcome.example_id)
        if same and (row.clip is False or other.row.clip is True):
            yield other.wrong, other.row.attack
    path = cell.path
    if path is not None and row.norm is Norm.LINF:
        started = (path.start_distance > 0) & (path.start_distance <= cell.epsilon)
        if np.mean(started) > SATURATED:
            yield (path.start_margin > 0) & started, "its random start"
