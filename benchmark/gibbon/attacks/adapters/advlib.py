"""adversarial-library's attacks: ``advlib:fmn``.

Source: J. Rony and I. Ben Ayed, "Adversarial Library",
https://github.com/jeromerony/adversarial-library, https://doi.org/10.5281/zenodo.5815063.  Tried
with 0.2.8.

An attack is a function.  Each has its own names for the budget and for the norm (`FUNCTIONS`); in
one of them ``eps`` is not a budget.  The library works in [0, 1]: inputs of another box are scaled,
and parameters that are lengths are shares of the box's width.  Names in Greek are quoted in TOML:
``"α_init" = 0.5``.

The package imports visdom, which draws progress and fails to build on many machines; if it is
missing an empty module replaces it during the import.  Only ``callback`` uses it, a reserved name.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType

from torch import Tensor

from gibbon.attacks.adapters.adapting import BUDGET, NORM, Adapter, Library, LibraryAttack, Task
from gibbon.attacks.base import SearchMethod
from gibbon.core.errors import SpecError
from gibbon.core.threat import Norm

LIBRARY = Library(
    "adv_lib",
    "adv-lib",
    "pip install --no-deps adv-lib, and pip install tqdm",
    "Its requirement visdom may fail to build, and is not needed here.",
)
STAND_IN = "visdom"
POWERS: Mapping[Norm, object] = {Norm.LINF: float("inf"), Norm.L2: 2, Norm.L1: 1}
WORDS: Mapping[Norm, object] = {Norm.L2: "l2", Norm.L1: "l1"}
EVERY = (Norm.LINF, Norm.L2, Norm.L1)


@dataclass(frozen=True)
class _Function:
    """The norms and arguments of a function.

    Args:
        norms: the norms that it supports.
        norm: the name of the argument for the norm, if there is one.
        words: the values of that argument.
        budget: the name of the argument for epsilon; empty for a minimal-norm attack.
    """

    norms: tuple[Norm, ...]
    norm: str = ""
    words: Mapping[Norm, object] = field(default_factory=lambda: POWERS)
    budget: str = ""


FUNCTIONS = {
    "pgd_linf": _Function((Norm.LINF,), budget="ε"),
    "apgd": _Function(EVERY, norm="norm", budget="eps"),
    "apgd_targeted": _Function(EVERY, norm="norm", budget="eps"),
    "fmn": _Function(EVERY, norm="norm"),
    "fab": _Function(EVERY, norm="norm"),
    "pdpgd": _Function(EVERY, norm="norm"),
    "alma": _Function((Norm.L2, Norm.L1), norm="distance", words=WORDS),
    "df": _Function((Norm.L2, Norm.LINF), norm="norm"),
    "tr": _Function((Norm.L2, Norm.LINF), norm="p"),  # its ``eps`` is an overshoot
    "ddn": _Function((Norm.L2,)),
    "sdf": _Function((Norm.L2,)),
    "pdgd": _Function((Norm.L2,)),
    "carlini_wagner_l2": _Function((Norm.L2,)),
    "carlini_wagner_linf": _Function((Norm.LINF,)),
}
REFUSED = {
    "perc_al": "it minimises a distance between colours",
    "str_attack": "it minimises a distance between groups of pixels",
    **dict.fromkeys(("sigma_zero", "fga", "vfga"), "it works in L0"),
}
DEPARTURES = {
    "fmn": {
        "optimum": "in L1 and L2 it stays too far away from some examples, also with 100 steps"
    },
    "apgd": {"optimum": "in L1 it misses some unless ``use_large_reps`` is set"},
}
ALWAYS_SET = {
    "inputs": "they are the dataset's",
    "labels": "they are the dataset's",
    "callback": "it draws with visdom",
    "penalty": "it takes a function, which a suite can't name",
    "starting_points": "they are points, which a suite can't name",
}


def describe(name: str) -> LibraryAttack:
    """Describes ``adv_lib.attacks.NAME``."""
    with _stand_in():
        attacks = LIBRARY.load("attacks")
    if name in REFUSED:
        raise SpecError(f"adv-lib's {name} can't be used here: {REFUSED[name]}")
    function = getattr(attacks, name, None)
    if name not in FUNCTIONS or function is None:
        raise LIBRARY.unknown(name, known=[each for each in FUNCTIONS if each in vars(attacks)])
    how = FUNCTIONS[name]
    reserved = {**ALWAYS_SET, "ε": BUDGET}
    if how.norm:
        reserved[how.norm] = NORM
    if how.budget:
        reserved[how.budget] = BUDGET
    return LibraryAttack(
        name=name,
        library=LIBRARY,
        norms=how.norms,
        run=lambda task: _run(function, how, task),
        signature=inspect.signature(function),
        minimal=not how.budget,
        unit=True,
        search_method=SearchMethod.ITERATIVE if how.budget else None,
        reserved=reserved,
        departures=DEPARTURES.get(name, {}),
    )


def _run(function: Callable[..., Tensor], how: _Function, task: Task) -> Tensor:
    given = dict(task.parameters)
    if how.norm:
        given[how.norm] = how.words[task.norm]
    if how.budget:
        given[how.budget] = task.epsilon
    return function(task.model, task.inputs, task.labels, **given)


@contextmanager
def _stand_in() -> Iterator[None]:
    """Context in which visdom can be imported, as an empty module if it is not installed."""
    missing = STAND_IN not in sys.modules and importlib.util.find_spec(STAND_IN) is None
    if missing:
        sys.modules[STAND_IN] = ModuleType(STAND_IN)
    try:
        yield
    finally:
        if missing:
            sys.modules.pop(STAND_IN, None)


ADVLIB = Adapter(describe)
