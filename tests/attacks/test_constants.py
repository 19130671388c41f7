"""No constant of an attack changes without its version, also if the golden probe does not see it.

The probe of `golden_probe.py` is small: it reaches no radius above its budget, no late halving of a
schedule, no tie.  Each constant of a module of attacks is therefore held to the value stored here.
Where a change is meant to give other candidates, raise the `version` of every class that uses the
constant; then store the value.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import gibbon.attacks
from gibbon.core.threat import Norm

# They decide how work is divided into batches, or how something is written: never a candidate.
WITHOUT_EFFECT = {
    "attacks.ATTACKS",
    "attacks.IN_NORM",
    "attacks.autoattack.AHEAD",
    "attacks.autoattack.NAMES",  # shown; the members themselves are in the golden file
    "attacks.base.STOPPING",
    "attacks.base.STRICT",
    "attacks.noise_sign.CONTROL",
    "attacks.toolkit.ascent_loop.WORTHWHILE_SHARE",
    "attacks.toolkit.lookahead.FORGETTING",
    "attacks.toolkit.lookahead.PASS_OVERHEAD",
    "attacks.toolkit.parameter_text.ADDRESS",
    "attacks.toolkit.parameter_text.MANY",
    "attacks.toolkit.square_windows.DRAWN",
    "attacks.toolkit.projections.REGIONS",  # a table of classes
    "attacks.toolkit.square_windows.PICTURES",
    "attacks.toolkit.square_windows.SAMPLERS",  # a table of classes
    "attacks.vmi_fgsm.DRAWN_TOGETHER",
    "attacks.worst_of.ADAPTING",
    "attacks.worst_of.OF_ALL",
}
STORED: dict[str, Any] = {
    "attacks.cw.CHECKS": 10,
    "attacks.cw.INSIDE": 0.999999,
    "attacks.cw.LARGEST": 1e10,
    "attacks.cw.PROGRESS": 0.9999,
    "attacks.ddn.LAST_STEP": 0.01,
    "attacks.deepfool.FURTHER": 1e-4,
    "attacks.fab.FINAL_SEARCH_STEPS": 3,
    "attacks.fab.RADII": {Norm.LINF: 0.3, Norm.L2: 1.0, Norm.L1: 5.0},
    "attacks.pgd.PATH_LENGTH": 2.5,
    "attacks.rotation.PARALLEL": 1e-6,
    "attacks.square.HALVINGS": (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000),
    "attacks.square.SCHEDULE": 10_000,
    "attacks.toolkit.apgd_search.CHECK_EVERY": 4,
    "attacks.toolkit.apgd_search.DIVISOR": 1.5,
    "attacks.toolkit.apgd_search.FELL": 0.95,
    "attacks.toolkit.apgd_search.FIRST_SHARE": 0.2,
    "attacks.toolkit.apgd_search.FIRST_STEP": 2.0,
    "attacks.toolkit.apgd_search.MOMENTUM": 0.75,
    "attacks.toolkit.apgd_search.RADII": ((3, 3), (2, 3)),
    "attacks.toolkit.apgd_search.SMALLEST_STEP": 0.1,
    "attacks.toolkit.linear_boundary.ROUNDING": 8,
    "attacks.toolkit.minimal_search.GROWTH": 10.0,
    "attacks.toolkit.objectives.RESOLUTION": 1e-5,
    "attacks.toolkit.objectives.SMALLEST_SPREAD": 1e-12,
    "attacks.toolkit.projections.ROUNDING": 1e-3,
    "attacks.toolkit.projections.SPARSE_SHARE": 0.01,
    "attacks.toolkit.projections.TINY": torch.finfo(torch.float32).tiny,
    "attacks.toolkit.square_windows.POWERS": {2: 2, 1: 4},
    "attacks.toolkit.square_windows.SMALLEST_SIDE": 3,
    "attacks.toolkit.square_windows.SPENT": 1 - 1e-6,
    "attacks.toolkit.square_windows.TILES": 5,
}
ASSIGNED = re.compile(r"^([A-Z][A-Z0-9_]+)(?:\s*:[^=\n]+)? = ", re.MULTILINE)


def modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(gibbon.attacks.__path__, "gibbon.attacks.")
    names = [each.name for each in found if ".adapters" not in each.name]
    return [gibbon.attacks, *map(importlib.import_module, names)]


def constants() -> dict[str, Any]:
    """The constants that are assigned at the top of modules of attacks, by module and name."""
    return {
        f"{module.__name__.removeprefix('gibbon.')}.{name}": getattr(module, name)
        for module in modules()
        for name in ASSIGNED.findall(Path(str(module.__file__)).read_text(encoding="utf-8"))
    }


FOUND = constants()


@pytest.mark.parametrize("name", sorted(FOUND.keys() | STORED.keys()))
def test_a_constant_has_the_stored_value_or_no_effect(name: str) -> None:
    if name in WITHOUT_EFFECT:
        assert name not in STORED
        return
    assert name in FOUND, f"{name} is gone: remove it here"
    assert name in STORED, f"{name} is new: store its value here, or say that it has no effect"
    assert FOUND[name] == STORED[name], (
        f"{name} is {FOUND[name]!r}, stored is {STORED[name]!r}: raise the `version` of each class "
        "that uses it, so that recorded results are computed again, then store it here"
    )


def test_what_has_no_effect_is_there() -> None:
    assert FOUND.keys() >= WITHOUT_EFFECT
