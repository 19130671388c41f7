"""Entries of a suite that close the gaps of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import tomli_w

from gibbon.audit.facts import Facts
from gibbon.core.threat import Epsilon, Norm
from gibbon.specs.naming import label_from, unlike

MORE_STEPS = 4  # times those of the attack in the suite
STEPS, RESTARTS = 100, 5
QUERIES = 5000
WIDE = "1"  # of inputs in [0, 1], in L∞


def budget(facts: Facts) -> tuple[Norm, list[str]]:
    """Returns the norm that most attacks of an experiment have, and its largest budget."""
    norms = [row.norm for row in facts.rows if row.norm is not None]
    norm = max(dict.fromkeys(norms), key=norms.count, default=Norm.LINF)
    epsilons = [row.epsilon for row in facts.rows if row.norm is norm and float(row.epsilon) > 0]
    return norm, [str(max(epsilons))] if epsilons else ["8/255"]


def entry(facts: Facts, name: str, **parameters: object) -> Mapping[str, Any]:
    """Returns an entry for an attack at the experiment's largest budget, with its own label."""
    norm, epsilon = budget(facts)
    taken = (each.label for each in facts.experiment.attacks)
    (label,) = unlike([str(parameters.pop("label", label_from(name)))], taken=taken)
    labelled = {} if label == label_from(name) else {"label": label}
    in_norm = {} if norm is Norm.LINF else {"norm": norm.value}
    return {"name": name, **labelled, "epsilon": epsilon, **in_norm, **parameters}


def single_step_entry(facts: Facts) -> Mapping[str, Any]:
    """Returns an entry for an attack of one gradient step, in the experiment's norm."""
    norm, _ = budget(facts)
    if norm is Norm.LINF:
        return entry(facts, "fgsm")
    return entry(facts, "pgd", label="pgd-one-step", steps=1)


def unbounded_entry(facts: Facts) -> Mapping[str, Any]:
    """Returns an entry for an attack with a budget as wide as the box."""
    wide = {**entry(facts, "pgd", label="pgd-unbounded", steps=STEPS), "epsilon": [WIDE]}
    wide.pop("norm", None)
    return wide


def curve_entry(facts: Facts) -> Mapping[str, Any]:
    """Returns an entry for an attack at three budgets, up to the experiment's largest one."""
    _, (epsilon,) = budget(facts)
    return {**entry(facts, "pgd", label="pgd-curve", steps=STEPS), "epsilon": halved(epsilon)}


def halved(epsilon: str) -> list[str]:
    """Returns a quarter, a half and the whole of a budget, written exactly.

    >>> halved("8/255")
    ['2/255', '4/255', '8/255']
    >>> halved("0.1")
    ['0.025', '0.05', '0.1']
    """
    value = Epsilon.parse(epsilon).value
    parts = [value / 4, value / 2]
    if "/" not in epsilon:
        return [*(f"{float(each):.10g}" for each in parts), epsilon]
    below = Fraction(1, int(epsilon.partition("/")[2]))
    written = [
        f"{each / below}/{below.denominator}" if (each / below).denominator == 1 else f"{each}"
        for each in parts
    ]
    return [*written, epsilon]


def lines_of_entries(entries: tuple[Mapping[str, Any], ...], *, transfer: bool = False) -> str:
    """Returns entries as lines of a suite."""
    written = tomli_w.dumps({"attacks": [dict(each) for each in entries]}) if entries else ""
    if transfer:
        written += '[transfer]\nattacks = ["…"]\n'
    return written.strip()
