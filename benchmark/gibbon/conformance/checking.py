"""Tries an attack against the laws."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from gibbon.attacks import IN_NORM
from gibbon.attacks.adapters import ATTACK_SOURCES
from gibbon.attacks.base import Attack, parameters_of
from gibbon.attacks.factory import attack_class, make_attack
from gibbon.attacks.noise_sign import NoiseSign
from gibbon.attacks.noise_uniform import NoiseUniform
from gibbon.conformance.laws import LAWS, Law
from gibbon.conformance.verdict import AttackVerdict, Finding, Standing
from gibbon.core.errors import RequestError, SpecError, suggest
from gibbon.core.import_path import importing, is_reference, load_reference
from gibbon.core.threat import ZERO, Norm
from gibbon.specs.suite import AttackSpec

_CONTROL = "it is a control that does not look for the worst case"

# What these would say of themselves, if results were not filed under their code.
CONTROLS: Mapping[type[Attack], Mapping[str, str]] = {
    kind: {"larger-budget": _CONTROL, "optimum": _CONTROL} for kind in (NoiseSign, NoiseUniform)
}
NOT_EXCUSED = "no attack may depart from this law, though this one says so"
Progress = Callable[[str, int, int], None]


def check_attack(
    attack: str | type[Attack] | Attack,
    *,
    parameters: Mapping[str, Any] | None = None,
    norms: Sequence[Norm] = (),
    laws: Sequence[Law] = LAWS,
    progress: Progress = lambda *_: None,
) -> AttackVerdict:
    """Returns how an attack stands to the laws, tried one by one in every norm.

    Args:
        attack: a registered name, another library's (``"foolbox:LinfPGD"``), a reference such as
            ``"my_package:MyAttack"`` or ``"attacks/mine.py:MyAttack"``, a class, or an attack.
        parameters: the attack's parameters where they are not its defaults.
        norms: the norms to try; all that it claims if there are none.
        laws: the laws to try.
        progress: is told what is tried next, how many tries are done, and of how many.

    Raises a `RequestError` where there is no such attack, or a parameter or norm is wrong.  What
    the attack raises while it is tried is a law broken.
    """
    # The laws are tried inside too: a module of the working folder may import what it needs late.
    is_code = isinstance(attack, str) and _is_code(attack)
    with importing(str(attack)) if is_code else nullcontext():
        return _checked(attack, parameters or {}, norms=norms, laws=laws, progress=progress)


def _checked(
    attack: str | type[Attack] | Attack,
    parameters: Mapping[str, Any],
    *,
    norms: Sequence[Norm],
    laws: Sequence[Law],
    progress: Progress,
) -> AttackVerdict:
    name = attack if isinstance(attack, str) else _name(attack)
    built = _built(attack, name, parameters, norms=norms)
    _check_departures(built, name)
    for norm in norms:
        if norm not in built.norms:
            raise SpecError(f"attack {name!r} works in {', '.join(built.norms)}, not in {norm}")
    began = time.perf_counter()
    findings: list[Finding] = []
    tries = list(itertools.product(dict.fromkeys(norms or built.norms), laws))
    for done, (norm, law) in enumerate(tries):
        progress(f"{law.name}, {norm.symbol}", done, len(tries))
        findings.append(_tried(built, norm, law))
    described = ", ".join(f"{key} = {value!r}" for key, value in parameters_of(built).items())
    return AttackVerdict(name, described, tuple(findings), time.perf_counter() - began)


def departures_of(attack: Attack) -> Mapping[str, str]:
    """Returns the laws that an attack says it departs from, each with the reason."""
    return {**CONTROLS.get(type(attack), {}), **attack.departures}


def find_attack(text: str) -> Any:
    """Returns what a name, a library's name or a reference names.  Raises a `RequestError`."""
    if not _is_code(text):
        return attack_class(text)
    try:
        return load_reference(text, what="attack")
    except RequestError as error:
        scheme = text.partition(":")[0]
        if not scheme.isidentifier() or importlib.util.find_spec(scheme) is not None:
            raise
        near = suggest(scheme, ATTACK_SOURCES.names()).removesuffix(".")  # a library, misspelt
        raise SpecError(f"{error}{near}") from error


def _is_code(text: str) -> bool:
    scheme, colon, _ = text.partition(":")
    return is_reference(text) and not (colon and scheme in ATTACK_SOURCES.names())


def _built(
    attack: str | type[Attack] | Attack,
    name: str,
    parameters: Mapping[str, Any],
    *,
    norms: Sequence[Norm],
) -> Attack:
    found: Any = attack
    if isinstance(attack, str):
        (only,) = {*norms} if len({*norms}) == 1 else (None,)
        found = find_attack(IN_NORM.get((attack, only), attack))
    if isinstance(found, Attack):
        if parameters:
            raise SpecError(f"attack {name!r} is made already: its parameters are its own")
        return found
    for key in parameters:
        if key in AttackSpec.model_fields:
            raise SpecError(
                f"{key} is no parameter of an attack: the laws try budgets of their own"
            )
    # Not validated: a reference is no name that a suite can give.
    spec = AttackSpec.model_construct(name=name, epsilon=(ZERO,), label=name, **parameters)
    return make_attack(found, spec)


def _check_departures(attack: Attack, name: str) -> None:
    names = [law.name for law in LAWS]
    for departure in attack.departures:
        if departure not in names:
            raise SpecError(
                f"attack {name!r} departs from a law that there is not: "
                f"{departure!r}{suggest(departure, names)} The laws: {', '.join(names)}"
            )


def _name(attack: object) -> str:
    kind = attack if isinstance(attack, type) else type(attack)
    return kind.__name__


def _tried(attack: Attack, norm: Norm, law: Law) -> Finding:
    try:
        seen = law.look(attack, norm)
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever an author's code may raise
        return Finding(law, norm, Standing.BROKEN, "", _raised(error, by=attack))
    if not seen.broken:
        return Finding(law, norm, Standing.KEPT, seen.figure)
    reason = departures_of(attack).get(law.name)
    if reason is None:
        return Finding(law, norm, Standing.BROKEN, seen.figure, f"{seen.broken}. {law.cure}")
    if not law.excusable:
        return Finding(law, norm, Standing.BROKEN, seen.figure, f"{seen.broken}; {NOT_EXCUSED}.")
    return Finding(law, norm, Standing.DEPARTS, seen.figure, f"{seen.broken}: {reason}.")


def _raised(error: BaseException, *, by: Attack) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    theirs = _source(type(by))
    frame = next((each for each in reversed(frames) if each.filename == theirs), frames[-1])
    place = f"{Path(frame.filename).name}, line {frame.lineno}"
    return f"it raised {type(error).__name__}: {error} ({place})."


def _source(kind: type[Attack]) -> str | None:
    try:
        return inspect.getsourcefile(kind)
    except (OSError, TypeError):  # typed into a console
        return None
