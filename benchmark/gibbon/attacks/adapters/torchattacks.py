"""torchattacks' attacks: ``torchattacks:DIFGSM``.

Source: H. Kim, "Torchattacks: a PyTorch repository for adversarial attacks", 2020,
https://arxiv.org/abs/2010.01950, https://github.com/Harry24k/adversarial-attacks-pytorch.  Tried
with 3.5.1.

It works in [0, 1] and always clips to it: inputs of another box are scaled, and parameters that
are lengths (``alpha``) are shares of the box's width.  Its switch for normalised inputs stays off,
since the model contains its normalisation.  The library gets a view of the model, so that neither
its guess of the device nor its switch between eval and training mode affects the model.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor

from gibbon.attacks.adapters.adapting import BUDGET, NORM, Adapter, Library, LibraryAttack, Task
from gibbon.attacks.base import SearchMethod
from gibbon.core.errors import SpecError
from gibbon.core.threat import Norm

LIBRARY = Library(
    "torchattacks",
    "torchattacks",
    "pip install --no-deps torchattacks, and pip install scipy tqdm requests",
    "Its own requirement of requests~=2.25.1 conflicts with newer packages.",
)
NAMES = {Norm.LINF: "Linf", Norm.L2: "L2"}
LINF, L2, L1 = (Norm.LINF,), (Norm.L2,), (Norm.L1,)

# Minimal-norm attacks, and the norm that they minimise.
NEAREST = {"CW": L2, "DeepFool": L2, "EADL1": L1, "EADEN": L1}

# Attacks with a budget and a norm other than L∞.
NORMS = {
    **{"PGDL2": L2, "PGDRSL2": L2},
    # FAB documents L1 too, and fails in it.
    **dict.fromkeys(("APGD", "APGDT", "AutoAttack", "FAB", "Square"), (Norm.LINF, Norm.L2)),
}
BUDGETS = ("eps", "max_epsilon")
REFUSED = {
    "GN": "it adds noise of any length",
    "VANILA": "it returns its inputs",
    "MultiAttack": "it takes attack objects, which a suite can't name",
    "LGV": "it trains models of its own",
    **dict.fromkeys(("JSMA", "SparseFool", "OnePixel", "Pixle"), "it works in L0"),
}
BLIND = ("Square", "SPSA")
METHODS = {
    **dict.fromkeys(("FGSM", "FFGSM"), SearchMethod.SINGLE_STEP),
    **dict.fromkeys(
        ("BIM", "RFGSM", "PGD", "PGDL2", "EOTPGD", "UPGD", "MIFGSM", "APGD", "APGDT", "AutoAttack"),
        SearchMethod.ITERATIVE,
    ),
    **dict.fromkeys(
        (
            *("DIFGSM", "TIFGSM", "NIFGSM", "SINIFGSM", "VMIFGSM", "VNIFGSM"),
            *("PIFGSM", "PIFGSMPP", "TPGD", "Jitter", "PGDRS", "PGDRSL2"),
        ),
        SearchMethod.FOR_TRANSFER,
    ),
    "FAB": SearchMethod.MINIMAL_NORM,
}
RGB_ONLY = ("TIFGSM", "PIFGSM", "PIFGSMPP")
RGB = 3
_RESIZED = "it climbs randomly resized pictures, for transfer, and not the model's own loss"
_NEGATIVE = (
    "its loss takes the largest of the other logits for 0 if all are negative, as the "
    "logarithms of probabilities are"
)
DEPARTURES = {
    "DIFGSM": {"optimum": _RESIZED},
    "TIFGSM": {"optimum": _RESIZED},
    "TPGD": {"optimum": "it climbs away from the clean prediction, which is flat at the input"},
    "Jitter": {"optimum": "it climbs rescaled logits with noise on them, and not the loss"},
    "CW": {"outputs": _NEGATIVE},
    "Square": {
        "optimum": "it misses some pictures as small as those with all of its 5,000 queries"
    },
    "SPSA": dict.fromkeys(
        ("outputs", "optimum"), "the one step that it takes by default is too few"
    ),
}


def describe(name: str) -> LibraryAttack:
    """Describes ``torchattacks.NAME``."""
    library = LIBRARY.load()
    if name not in library.__all__:
        raise LIBRARY.unknown(name, known=[each for each in library.__all__ if each not in REFUSED])
    if name in REFUSED:
        raise SpecError(f"torchattacks' {name} can't be used here: {REFUSED[name]}")
    kind: Any = getattr(library, name)
    return LibraryAttack(
        name=name,
        library=LIBRARY,
        norms=NEAREST.get(name) or NORMS.get(name, LINF),
        run=lambda task: _run(kind, task),
        signature=inspect.signature(kind),
        minimal=name in NEAREST,
        unit=True,
        needs_gradient=name not in BLIND,
        search_method=METHODS.get(name),
        channels=RGB if name in RGB_ONLY else None,
        reserved={
            **dict.fromkeys(BUDGETS, BUDGET),
            "norm": NORM,
            "n_classes": "it is the model's number of classes",
        },
        departures=DEPARTURES.get(name, {}),
        about=kind.__doc__ or "",
    )


def _run(kind: type[Any], task: Task) -> Tensor:
    budgets = dict.fromkeys(BUDGETS, task.epsilon)
    norm = NAMES.get(task.norm)
    given = task.arguments(kind, **budgets, norm=norm, n_classes=task.classes, seed=task.seed)
    candidates: Tensor = kind(task.model, **given)(task.inputs, task.labels)
    return candidates


TORCHATTACKS = Adapter(describe)
