"""Flags of the path of an attack: gradients, loss, convergence, and successes that got lost.

The indicators are those of M. Pintor et al., "Indicators of attack failure: debugging and improving
optimization of adversarial examples", NeurIPS 2022, https://arxiv.org/abs/2106.09947, and the
unbounded attack of A. Athalye, N. Carlini and D. Wagner, "Obfuscated gradients give a false sense
of security", ICML 2018, section 3.1.  Thresholds lie where honest networks and attacks were far
from them (docs/decisions/0028-evidence-from-the-path.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gibbon.attacks.base import is_ours
from gibbon.core.threat import Norm
from gibbon.diagnostics.attack_advice import (
    PATH_LENGTH,
    best_point,
    larger_step,
    library_of,
    more_steps,
    step_size_of,
)
from gibbon.diagnostics.attacked_cell import AttackedCell, Marks
from gibbon.diagnostics.enough_examples import severity_by_count
from gibbon.metrics.intervals import wilson_interval
from gibbon.metrics.paired_tests import mcnemar
from gibbon.records.flag_share import FlagShare
from gibbon.records.flags import Flag
from gibbon.records.path_evidence import PathEvidence

SIGNIFICANT = 0.05

FEW = 5  # examples: fewer say nothing
ON_PATH_SHARE = 0.1  # of an example's gradients
ON_PATH_EXAMPLES = 0.01
NOT_RISEN_SHARE, NOT_RISEN_SINGLE, NOT_RISEN_SERIOUS = 0.1, 0.3, 0.5  # of the correct examples
RISING_SPEED = 0.5  # in the last quarter, as a share of the speed of the whole run
RISING_SHARE = 0.5  # of the survivors
SHORT_PATH = 0.5  # length of a path in units of epsilon
TINY_PATH = 0.1  # such a path does not use the budget, whether or not the loss still rises
SHORT_FROM_INPUT = 0.95  # in L∞, of a path that starts at the input
# Such a path may rise to its end by design, at one speed on a linear model: it has not converged if
# it is far faster at the end, and finds most errors there.
FAST = 1.5
MOST = 0.5
LAST_QUARTER = 4
LOST_SHARE, LOST_LEAST = 0.01, 2
UNUSED_SHARE, UNUSED_SURVIVORS = 0.5, 0.5
FAILED_SHARE = 0.05  # of examples that an unbounded attack does not fool
ENOUGH_STEPS = 10  # of an attack that could have succeeded


def path_flags(cell: AttackedCell) -> Iterator[Flag]:
    """Yields the flags of the path of an attack, and of the points that it returned."""
    if cell.path is None or not cell.count:
        return
    yield from _zero_on_path(cell, cell.path)
    # The answers of a random model are draws, and an adapted attack follows another loss.
    if not cell.answered or not cell.steady or cell.adapted:
        return
    yield from _not_risen(cell)
    yield from _lost(cell)
    yield from _not_converged(cell)
    yield from _unused(cell)
    yield from _unbounded(cell)


def _zero_on_path(cell: AttackedCell, path: PathEvidence) -> Iterator[Flag]:
    first = cell.outcome.zero_gradient
    stuck = np.nan_to_num(path.zero_share, nan=0.0) >= ON_PATH_SHARE
    if first is not None:
        stuck &= ~first
    if (count := int(stuck.sum())) >= ON_PATH_EXAMPLES * cell.count and count:
        severity, few = severity_by_count(count, cell.count)
        yield cell.flag(
            "zero-gradient-on-path",
            severity=severity,
            share=FlagShare(count=count, of=cell.count),
            sentence=(
                f"after the first gradient, gradients are zero, NaN or infinite for {count} of "
                f"{cell.count} examples, although these are classified correctly there{few}"
            ),
        )


def _not_risen(cell: AttackedCell) -> Iterator[Flag]:
    """Compares the margin at the candidates with the margin at the inputs."""
    outcome, clean = cell.outcome, cell.clean
    if clean is None or clean.margin is None or outcome.margin is None or cell.searches:
        return
    if not cell.takes_gradients:  # noise need not raise a loss
        return
    right, moved = cell.right, (outcome.distance > 0) & (outcome.verdict == 0)
    low = right & moved & (outcome.margin <= clean.margin)
    if cell.path is not None:  # the cross-entropy may rise to a point where the margin falls again
        low &= ~((cell.path.rise > 0) & (cell.path.best_margin > clean.margin))
    count, total = int(low.sum()), int(right.sum())
    share = NOT_RISEN_SHARE if cell.iterative else NOT_RISEN_SINGLE
    if count < FEW or count < share * total:
        return
    survivors = cell.survivors
    blind = int((low & survivors).sum()) > NOT_RISEN_SERIOUS * int(survivors.sum())
    serious = count >= NOT_RISEN_SERIOUS * total or (cell.iterative and blind)
    yield cell.flag(
        "loss-did-not-rise",
        severity="serious" if serious else "warning",
        share=FlagShare(count=count, of=total),
        sentence=(
            f"for {count} of {total} examples that the model classifies correctly, the loss at the "
            "point returned is not above the loss at the input"
        ),
    )


def _lost(cell: AttackedCell) -> Iterator[Flag]:
    lost, total = int(cell.lost.sum()), cell.count
    if lost < max(LOST_LEAST, LOST_SHARE * total):
        return
    found = int(cell.wrong.sum())
    severity = "note"
    if mcnemar(lost, 0) < SIGNIFICANT:
        beyond = (found + lost) / total > wilson_interval(found, total).high
        severity = "serious" if beyond else "warning"
    advice, suite = best_point(cell.row, cell.attack)
    yield cell.flag(
        "success-lost",
        severity=severity,
        share=FlagShare(count=lost, of=total),
        sentence=(
            f"the attack passed adversarial examples of {lost} of {total} inputs within the budget "
            f"and did not return them: the error is {(found + lost) / total:.1%}, not "
            f"{found / total:.1%}, at least"
        ),
        suite=suite,
        **({"advice": advice} if advice else {}),
    )


def _not_converged(cell: AttackedCell) -> Iterator[Flag]:
    path, survivors, steps = cell.path, cell.survivors, cell.steps
    total = int(survivors.sum())
    if path is None or cell.searches or not cell.iterative or total < FEW or not cell.epsilon:
        return
    # The steps of the survivors' runs; those that a list added have none.
    known = survivors & (path.steps == steps)
    rises = known & (path.rise > 0)
    measured = _median(path.pace[rises]) * steps / cell.epsilon
    declared = _declared_length(cell, steps=steps, measured=measured)
    if int(known.sum()) >= RISING_SHARE * total and declared < TINY_PATH:
        sentence = f"{total} of {cell.count} examples survived; {_too_short(declared, steps)}"
        yield _small_steps(cell, declared, steps, figure=f"{declared:.2g} epsilon", why=sentence)
        return
    if int(rises.sum()) < RISING_SHARE * total:
        return
    quarter = max(1, steps // LAST_QUARTER)
    speed = path.late_rise[rises] / path.rise[rises] / (quarter / steps)
    rising = int((speed > RISING_SPEED).sum())
    if rising < RISING_SHARE * total:
        return
    late = int((cell.right & cell.wrong & (path.success_at > steps - quarter)).sum())
    new = int((cell.right & cell.wrong).sum())
    straight = _median(path.start_distance[rises]) == 0
    least = SHORT_FROM_INPUT if straight and cell.row.norm is Norm.LINF else SHORT_PATH
    slow = late <= MOST * new or _median(speed) < FAST
    share = FlagShare(count=rising, of=total)
    rose = (
        f"the loss was still rising in the last quarter of {steps} steps for {rising} of {total} "
        "examples that survived"
    )
    if measured < least and declared < least:
        why = f"{rose}; {_too_short(declared, steps)}"
        yield _small_steps(cell, declared, steps, share=share, why=why)
        return
    if measured < least:
        why = f"a path of this many steps is {measured:.2g} epsilon long"
    elif mcnemar(late, 0) < SIGNIFICANT and not (straight and slow):
        why = f"{late} of {new} examples were misclassified for the first time there"
    else:
        return
    suite = more_steps(cell.row, steps=steps)
    yield cell.flag("not-converged", share=share, sentence=f"{rose}; {why}", suite=suite)


def _too_short(declared: float, steps: int) -> str:
    return (
        f"{steps} steps of {declared / steps:.2g} epsilon are {declared:.2g} epsilon together, too "
        "few to use the budget"
    )


def _small_steps(
    cell: AttackedCell,
    declared: float,
    steps: int,
    *,
    why: str,
    figure: str = "",
    share: FlagShare | None = None,
) -> Flag:
    """Returns the flag of an attack whose steps are too short, which more steps do not mend."""
    taken = max(steps, ENOUGH_STEPS)
    return cell.flag(
        "not-converged",
        figure=figure,
        share=share,
        sentence=why,
        advice=f"Use a larger step size: {taken} steps of {PATH_LENGTH / taken:.2g} epsilon lead "
        f"through the whole ball; steps of the present size would have to be "
        f"{math.ceil(PATH_LENGTH * steps / declared):,}.",
        suite=larger_step(cell.row, steps=steps),
    )


def _declared_length(cell: AttackedCell, *, steps: int, measured: float) -> float:
    """Returns the length of a path without a turn, in units of epsilon.

    It is the number of steps times the step size, if the attack declares both.  A plug-in that
    does not is taken to go straight; an attack of ours or of a library has a rule that leads
    through the whole ball, so that a short path is one that turns.
    """
    attack, step = cell.attack, step_size_of(cell.row)
    if attack is not None and cell.threat is not None and cell.threat.bounds is not None:
        length = attack.path_length(cell.threat, bounds=cell.threat.bounds)
        if math.isfinite(length):
            return length
    if step is not None:
        return steps * step[1]
    known = attack is None or attack.made_of or is_ours(attack) or library_of(attack)
    return math.inf if known else measured


def _unused(cell: AttackedCell) -> Iterator[Flag]:
    """Compares the distances of survivors with the budget."""
    outcome, survivors, threat = cell.outcome, cell.survivors, cell.threat
    if cell.searches or threat is None or threat.norm is Norm.L1 or not cell.epsilon:
        return
    if threat.bounds is not None and cell.epsilon > threat.bounds.width / 2:
        return  # the box may leave less
    moved = survivors & (outcome.distance > 0) & (outcome.verdict == 0)
    near = moved & (outcome.distance < UNUSED_SHARE * cell.epsilon)
    count, total = int(near.sum()), int(survivors.sum())
    if count < FEW or count < UNUSED_SURVIVORS * total:
        return
    share = _median(outcome.distance[near]) / cell.epsilon
    yield cell.flag(
        "budget-unused",
        figure=f"{share:.2g} epsilon",
        sentence=(
            f"for {count} of {total} examples that survived, the attack returned points at a "
            f"distance of {share:.2g} epsilon (median): it did not use the budget"
        ),
    )


def _unbounded(cell: AttackedCell) -> Iterator[Flag]:
    threat = cell.threat
    if threat is None or threat.norm is not Norm.LINF or threat.bounds is None:
        return
    if cell.epsilon < threat.bounds.width or cell.steps < ENOUGH_STEPS or cell.searches:
        return
    left = int(cell.survivors.sum())
    if left < FEW or left < FAILED_SHARE * cell.count:
        return
    yield cell.flag(
        "unbounded-attack-fails",
        share=FlagShare(count=left, of=cell.count),
        sentence=(
            f"every input is within reach, but {left} of {cell.count} examples survived "
            f"{cell.steps} steps: the attack does not find its way on this model"
        ),
    )


def _median(values: NDArray[np.float32]) -> float:
    """Returns the median of the known values, NaN if there are none."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def searched_in_vain(cell: AttackedCell) -> Marks:
    """Returns the examples for which the attack moved, and passed no adversarial example."""
    path = cell.path
    if path is None or (cell.takes_gradients and cell.steps < ENOUGH_STEPS):
        return np.zeros(cell.count, dtype=np.bool_)
    moved = (np.nan_to_num(path.pace) > 0) | (np.nan_to_num(path.start_distance) > 0)
    return moved & ~cell.lost
