"""Advice on attacks, with suite lines: for our attacks, those of libraries and plug-ins.

A line of a suite is given only if the attack has the parameter that it sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

import tomli_w

from gibbon.attacks import registered_name
from gibbon.attacks.base import STOPPING, Attack, is_ours, parameters_of
from gibbon.core.threat import Norm
from gibbon.records.run import Evaluation

STEP_NAMES = ("steps", "iterations", "max_iter", "nb_iter", "num_steps", "n_iter", "max_iterations")
QUERY_NAMES = ("queries", "n_queries", "max_queries")
# Names of the length of a step, in units of the input and of epsilon.
STEP_SIZES = (
    *("step_size", "stepsize", "abs_stepsize", "absolute_step_size"),
    *("alpha", "eps_step", "eps_iter"),
)
RELATIVE_STEP_SIZES = ("rel_stepsize", "relative_step_size")
PATH_LENGTH = 2.5  # in units of epsilon, of Madry et al. 2018: through the whole ball
ENOUGH_STEPS = 10  # for such a path
DIGITS = 3
BEST_LOSS = "best-loss"
YIELDED = "it may yield several candidates, of which the best one counts"


def library_of(attack: Attack) -> str:
    """Returns the library of an adapted attack with its version; empty for other attacks."""
    release = parameters_of(attack).get("release")
    return str(release) if ":" in (registered_name(type(attack)) or "") and release else ""


def number_of(row: Evaluation, names: tuple[str, ...]) -> tuple[str, int] | None:
    """Returns the first parameter of these names that is a number, with it; None if none is."""
    values = row.parameter_values
    for name in names:
        value = values.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return name, value
    return None


def more_steps(row: Evaluation, *, steps: int) -> str:
    """Returns the lines of a suite that repeat an attack with twice as many steps, in TOML.

    Empty if the attack has no parameter for that, or parameters that a suite can't write.
    """
    name = next((each for each in STEP_NAMES if each in row.parameter_values), None)
    if name is None:
        return ""
    count = row.parameter_values[name]
    doubled = 2 * (count if isinstance(count, int) else steps)
    return changed_attack(row, {name: doubled}, label=f"{doubled}-steps")


def step_size_of(row: Evaluation) -> tuple[str, float] | None:
    """Returns the name of the parameter that is the length of a step, and its value in epsilons.

    None if no such parameter is set.
    """
    epsilon = float(row.epsilon)
    for name in (*STEP_SIZES, *RELATIVE_STEP_SIZES):
        value = row.parameter_values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and epsilon:
            return name, value if name in RELATIVE_STEP_SIZES else value / epsilon
    return None


def larger_step(row: Evaluation, *, steps: int) -> str:
    """Returns the lines of a suite that repeat an attack with a step size that uses the budget.

    The path is `PATH_LENGTH` epsilon long; of an attack with fewer steps than `ENOUGH_STEPS` these
    are as many, too.  Empty if the attack has no parameter for the length of a step, or parameters
    that a suite can't write.
    """
    found = step_size_of(row)
    if found is None:
        return ""
    name, changes = found[0], dict[str, float]()
    known = next((each for each in STEP_NAMES if each in row.parameter_values), None)
    if known is not None and steps < ENOUGH_STEPS:
        steps = ENOUGH_STEPS
        changes[known] = steps
    length = PATH_LENGTH / steps * (1.0 if name in RELATIVE_STEP_SIZES else float(row.epsilon))
    changes[name] = float(f"{length:.{DIGITS}g}")
    return changed_attack(row, changes, label="larger-step")


def changed_attack(row: Evaluation, changes: Mapping[str, Any], *, label: str) -> str:
    """Returns the lines of a suite with the attack of a row, some parameters changed, in TOML.

    Empty if it has parameters that a suite can't write.
    """
    given = {key: value for key, value in row.parameter_values.items() if value is not None}
    given.pop("release", None)  # of a library, which a suite does not set
    if not all(isinstance(value, bool | int | float | str) for value in given.values()):
        return ""
    table: dict[str, Any] = {"name": row.algorithm, "label": f"{row.attack}-{label}"}
    table |= {"epsilon": [str(row.epsilon)], **given, **changes}
    return _written(row, table)


def _written(row: Evaluation, table: dict[str, Any]) -> str:
    if row.norm is not None:
        table["norm"] = str(row.norm.value)
    if row.clip is False:
        table["clip"] = False
    return tomli_w.dumps({"attacks": [table]})


def best_point(row: Evaluation, attack: Attack | None) -> tuple[str, str]:
    """Returns advice and suite lines for an attack that did not return a success on its path.

    The advice is empty if nothing is known of the attack.
    """
    if attack is None:
        return "", ""
    if attack.made_of:
        names = dict.fromkeys(type(each).__name__ for each in attack.made_of if better_keep(each))
        if names:
            return f'Set keep = "{BEST_LOSS}" in these members: {", ".join(names)}.', ""
        return f"{_plug_in('its members')}", ""
    keep = better_keep(attack)
    if keep:
        return (
            f'Return the best point: keep = "{keep}".',
            changed_attack(row, {"keep": keep}, label=keep),
        )
    library = library_of(attack) or ("its algorithm" if is_ours(attack) else "")
    if library:
        own = {"name": "pgd", "label": "pgd-best-loss", "epsilon": [str(row.epsilon)]}
        fits = row.norm in (Norm.LINF, Norm.L2)
        return (
            f"{library} chooses the point that this attack returns: add one that returns the best "
            f'point, such as pgd with keep = "{BEST_LOSS}", and report the worst case over both.',
            _written(row, {**own, "keep": BEST_LOSS}) if fits else "",
        )
    return _plug_in("the attack"), ""


def _plug_in(name: str) -> str:
    return (
        f"Let {name} keep the best or first misclassified point of each example, over all steps "
        f"and restarts, and return that; {YIELDED}."
    )


def better_keep(attack: Attack) -> str:
    """Returns the value of the parameter ``keep`` that returns a better point; empty if none does.

    >>> from gibbon.attacks.fgsm import FGSM
    >>> from gibbon.attacks.pgd import PGD
    >>> better_keep(PGD()), better_keep(PGD(keep="best-loss")), better_keep(FGSM())
    ('best-loss', 'first-success', '')
    """
    options = _keeps(attack)
    now = parameters_of(attack).get("keep")
    better = [each for each in (BEST_LOSS, STOPPING) if each in options]
    if now == STOPPING:
        return ""
    return next((each for each in better if each != now), "")


def _keeps(attack: Attack) -> tuple[str, ...]:
    """Returns the values that the parameter ``keep`` may have; none without such a parameter."""
    if "keep" not in parameters_of(attack):
        return ()
    try:
        hint = get_type_hints(type(attack), include_extras=False).get("keep")
    except Exception:  # noqa: BLE001  annotations of another author
        return ()
    return tuple(map(str, get_args(hint))) if get_origin(hint) is not None else ()
