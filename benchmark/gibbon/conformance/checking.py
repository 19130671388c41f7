"""Checks an attack against the laws."""

from __future__ import annotations

import inspect
import itertools
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from gibbon.attacks import IN_NORM
from gibbon.attacks.base import Attack, parameters_of
from gibbon.attacks.factory import attack_class, is_code, make_attack, referenced
from gibbon.conformance.laws import LAWS, Law
from gibbon.conformance.verdict import AttackVerdict, LawResult, LawStatus
from gibbon.core.endings import Terminated
from gibbon.core.errors import SpecError, suggest
from gibbon.core.import_path import importing
from gibbon.core.threat import ZERO, Norm
from gibbon.specs.suite import AttackSpec

NOT_EXCUSED = "no attack may depart from this law, though this one says so"
LawProgress = Callable[[str, int, int], None]


def check_attack(
    attack: str | type[Attack] | Attack,
    *,
    parameters: Mapping[str, Any] | None = None,
    norms: Sequence[Norm] = (),
    laws: Sequence[Law] = LAWS,
    progress: LawProgress = lambda *_: None,
) -> AttackVerdict:
    """Checks an attack against the laws, one by one in every norm.

    Args:
        attack: a registered name, another library's (``"foolbox:LinfPGD"``), a reference such as
            ``"my_package:MyAttack"`` or ``"attacks/mine.py:MyAttack"``, a class, or an attack.
        parameters: the attack's parameters that differ from its defaults.
        norms: the norms to check; all that the attack supports if empty.
        laws: the laws to check.
        progress: called before each check with its name, the number of checks done and their total.

    Raises a `RequestError` if there is no such attack, or a parameter or norm is wrong.  An
    exception of the attack during a check breaks the law.
    """
    kind = attack if isinstance(attack, type) else type(attack)
    name = attack if isinstance(attack, str) else kind.__name__
    imports = isinstance(attack, str) and is_code(attack)
    # The checks run inside too: a module of the working folder may import its own modules late.
    with importing(name) if imports else nullcontext():
        built = _built(attack, name, parameters or {}, norms=norms)
        _check_departures(built, name)
        for norm in norms:
            if norm not in built.norms:
                raise SpecError(f"attack {name!r} works in {', '.join(built.norms)}, not in {norm}")
        began = time.perf_counter()
        results: list[LawResult] = []
        checks = list(itertools.product(dict.fromkeys(norms or built.norms), laws))
        for done, (norm, law) in enumerate(checks):
            progress(f"{law.name}, {norm.symbol}", done, len(checks))
            results.append(_check(built, norm, law))
    described = ", ".join(f"{key} = {value!r}" for key, value in parameters_of(built).items())
    return AttackVerdict(name, described, tuple(results), time.perf_counter() - began)


def find_attack(text: str) -> Any:
    """Returns the attack of a name, a library's name or a reference.  Raises a `RequestError`."""
    return referenced(text) if is_code(text) else attack_class(text)


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
            raise SpecError(f"attack {name!r} is built already: its parameters are its own")
        return found
    for key in parameters:
        if key in AttackSpec.model_fields:
            raise SpecError(
                f"{key} is no parameter of an attack: the laws try models and budgets of their own"
            )
    # Not validated: a reference is not a name that a suite accepts.
    spec = AttackSpec.model_construct(name=name, epsilon=(ZERO,), label=name, **parameters)
    return make_attack(found, spec)


def _check_departures(attack: Attack, name: str) -> None:
    names = [law.name for law in LAWS]
    for departure in attack.departures:
        if departure not in names:
            raise SpecError(
                f"attack {name!r} departs from an unknown law: "
                f"{departure!r}{suggest(departure, names)} The laws: {', '.join(names)}"
            )


def _check(attack: Attack, norm: Norm, law: Law) -> LawResult:
    try:
        observed = law.check(attack, norm)
    except (KeyboardInterrupt, Terminated):
        raise
    except BaseException as error:  # noqa: BLE001  whatever an author's code may raise
        return LawResult(law, norm, LawStatus.BROKEN, "", _raised(error, by=attack))
    reason = attack.departures.get(law.name)
    if not observed.broken:
        status, sentence = LawStatus.KEPT, ""
    elif reason is None:
        status, sentence = LawStatus.BROKEN, f"{observed.broken}. {law.advice}"
    elif not law.excusable:
        status, sentence = LawStatus.BROKEN, f"{observed.broken}; {NOT_EXCUSED}."
    else:
        status, sentence = LawStatus.DEPARTS, f"{observed.broken}: {reason}."
    return LawResult(law, norm, status, observed.figure, sentence)


def _raised(error: BaseException, *, by: Attack) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    try:
        theirs = inspect.getsourcefile(type(by))
    except (OSError, TypeError):  # typed into a console
        theirs = None
    frame = next((each for each in reversed(frames) if each.filename == theirs), frames[-1])
    place = f"{Path(frame.filename).name}, line {frame.lineno}"
    return f"it raised {type(error).__name__}: {error} ({place})."
