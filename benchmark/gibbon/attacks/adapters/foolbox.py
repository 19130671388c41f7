"""foolbox's attacks: ``foolbox:LinfPGD``.

Source: J. Rauber, R. Zimmermann, M. Bethge and W. Brendel, "Foolbox Native", JOSS 2020,
https://doi.org/10.21105/joss.02607, https://github.com/bethgelab/foolbox.  Tried with 3.3.4.

An attack of foolbox returns raw points, *clipped* points and its success.  The candidates are the
clipped points with a budget (raw ones may lie outside the ball), and the raw points of a
minimal-norm attack; the success is ignored.  Parameters that are lengths (``abs_stepsize``) are in
the units of the model's input.  foolbox refuses inputs that exceed its bounds by rounding: the
bounds passed to it contain the inputs in float32.
"""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gibbon.attacks.adapters.adapting import Adapter, Library, LibraryAttack, Task
from gibbon.attacks.base import SearchMethod
from gibbon.core.errors import SpecError
from gibbon.core.threat import Norm

LIBRARY = Library("foolbox", "foolbox", "pip install foolbox")
NORMS = {1: Norm.L1, 2: Norm.L2, float("inf"): Norm.LINF}
POWERS = {norm: power for power, norm in NORMS.items()}

# HopSkipJump declares L1 (3.3.4), but minimises its argument ``constraint``.
CONSTRAINTS = {Norm.L2: "l2", Norm.LINF: "linf"}
REFUSED = {
    "BinarizationRefinementAttack": "it refines points that another attack has found",
    "GenAttack": "it needs target classes",
    "DatasetAttack": "it needs to be fed with a dataset first",
    "SpatialAttack": "it turns and shifts pictures, which no norm measures",
    "PointwiseAttack": "it is made without a distance, and fails (3.3.4)",
    "VirtualAdversarialAttack": "it refuses the labels of other classes than those predicted",
}
RESERVED = {
    **dict.fromkeys(("constraint", "distance"), "the norm is the suite's `norm`"),
    "init_attack": "it takes an object, which a suite can't name",
    "tensorboard": "libraries write no files here",
    "channel_axis": "pictures have their channels first",
}
BLIND = {
    *("BoundaryAttack", "HopSkipJumpAttack", "SaltAndPepperNoiseAttack"),
    *("GaussianBlurAttack", "InversionAttack", "LinearSearchBlendedUniformNoiseAttack"),
    *("BinarySearchContrastReductionAttack", "LinearSearchContrastReductionAttack"),
    "L2ContrastReductionAttack",
}

# In 3.3.4 the projection onto the L2 ball divides a norm by itself in place of epsilon, so that no
# point is moved nearer, and the points found lie at the end of the first, long steps.
_NEVER_NEAR = (
    "its projection divides a norm by itself (3.3.4), so that it never comes near the input"
)
_SPREAD = "its steps are Adam's, which move all coordinates equally, and in L1 that misses some"
FAULTS = {
    "L2FMNAttack": dict.fromkeys(("outputs", "larger-budget", "optimum"), _NEVER_NEAR),
    "L1AdamProjectedGradientDescentAttack": {"optimum": _SPREAD},
}
# How attacks search, by parts of their names; noise that is drawn again until it succeeds asks the
# model.
METHODS = {
    "Repeated": SearchMethod.GRADIENT_FREE,
    "AdditiveGaussianNoise": SearchMethod.NOISE,
    "AdditiveUniformNoise": SearchMethod.NOISE,
    "FastGradientAttack": SearchMethod.SINGLE_STEP,
    "BasicIterative": SearchMethod.ITERATIVE,
    "MomentumIterative": SearchMethod.ITERATIVE,
    "ProjectedGradientDescent": SearchMethod.ITERATIVE,
    "SparseL1Descent": SearchMethod.ITERATIVE,
}
COMPILED = "BrendelBethge"  # those attacks compile their inner loop
NUMBA = Library("numba", "numba", "pip install numba", "foolbox does not bring it.")
CONTROL = "it is a control that does not look for the worst case"


def describe(name: str) -> LibraryAttack:
    """Describes ``foolbox.attacks.NAME``."""
    attacks = LIBRARY.load("attacks")
    bases = LIBRARY.load("attacks.base")
    kind = getattr(attacks, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, bases.Attack)) or kind is bases.Attack:
        raise LIBRARY.unknown(name, known=_known(attacks, bases))
    if kind.__name__ in REFUSED:
        raise SpecError(f"foolbox's {name} can't be used here: {REFUSED[kind.__name__]}")
    blind = kind.__name__ in BLIND or "Noise" in kind.__name__
    own = _norm(kind)
    if own == 0:
        raise SpecError(f"foolbox's {name} can't be used here: it works in L0")
    if COMPILED in kind.__name__:
        NUMBA.load()
    norms = tuple(Norm) if own is None else (NORMS[own],)
    signature = inspect.signature(kind)
    if "constraint" in signature.parameters:
        norms = tuple(CONSTRAINTS)
    departures = FAULTS.get(kind.__name__, {})
    if blind:
        departures = departures | dict.fromkeys(("outputs", "larger-budget", "optimum"), CONTROL)
    return LibraryAttack(
        name=name,
        library=LIBRARY,
        norms=norms,
        run=lambda task: _run(kind, task),
        signature=signature,
        minimal=issubclass(kind, bases.MinimizationAttack),
        needs_gradient=not blind,
        search_method=_search_method(kind.__name__),
        reserved=RESERVED,
        departures=departures,
        about=kind.__doc__ or "",
    )


def _search_method(name: str) -> SearchMethod | None:
    return next((method for part, method in METHODS.items() if part in name), None)


def _run(kind: type[Any], task: Task) -> Tensor:
    foolbox = LIBRARY.load()
    distance = LIBRARY.load("distances").LpDistance(POWERS[task.norm])
    given = task.arguments(kind, constraint=CONSTRAINTS.get(task.norm), distance=distance)
    model = foolbox.PyTorchModel(
        task.model, bounds=(task.bounds.low, task.bounds.high), device=task.inputs.device
    )
    nearest = task.epsilon == torch.inf
    raw, clipped, _ = kind(**given)(
        model, task.inputs, task.labels, epsilons=None if nearest else task.epsilon
    )
    found: Tensor = raw if nearest else clipped
    return found


def _norm(kind: type[Any]) -> float | None:
    """Returns the p of the norm of a class, or None if it takes the norm as an argument."""
    distance = kind.__dict__.get("distance", getattr(kind, "distance", None))
    if isinstance(distance, property):
        parameters = inspect.signature(kind).parameters
        if "distance" in parameters:
            return None
        required = any(each.default is each.empty for each in parameters.values())
        distance = None if required else kind().distance
    return None if distance is None else float(distance.p)


def _known(attacks: ModuleType, bases: ModuleType) -> list[str]:
    return [
        name
        for name, kind in vars(attacks).items()
        if inspect.isclass(kind) and issubclass(kind, bases.AttackWithDistance)
        if kind.__name__ not in REFUSED
    ]


FOOLBOX = Adapter(describe)
