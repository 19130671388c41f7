"""The attacks whose steps are counted: all of ours, and the same attacks of other libraries.

Counts of a step are differences between two lengths.  Where examples leave an attack, or a search
ends, epsilons and lengths are chosen so that none does between the two.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gibbon.attacks import ATTACKS
from gibbon.attacks.adapters.advlib import ADVLIB
from gibbon.attacks.base import Attack
from gibbon.core.threat import Norm

EPSILON, STEP = 0.1, 0.0125
EPSILONS = {Norm.LINF: EPSILON, Norm.L2: 1.0, Norm.L1: 5.0}
SMALL = 1e-6  # a step, or a budget, that moves nothing over a boundary
LENGTHS = (6, 10)
SLOW = ("lbfgs",)  # counted for the record only
LISTS = ("worst-of", "autoattack", "autoattack-l1")  # they cost what their members cost
NEIGHBOURS, TARGETS = 5, 3


@dataclass(frozen=True)
class Counting:
    """One of our attacks.

    Args:
        work: its name in the table.
        name: registered name.
        length: the parameter that is its number of steps; empty if it has none.
        parameters: the others.
        lengths: two numbers of steps.
        epsilon: the budget; that of its norm if None.
        norm: the norm; its first if None.
    """

    work: str
    name: str
    length: str = "steps"
    parameters: tuple[tuple[str, Any], ...] = ()
    lengths: tuple[int, int] = LENGTHS
    epsilon: float | None = None
    norm: Norm | None = None

    def attack(self, length: int) -> Attack:
        """Returns the attack with so many steps."""
        given = {**dict(self.parameters), **({self.length: length} if self.length else {})}
        made: Attack = ATTACKS.load(self.name)(**given)
        return made

    def budget(self) -> tuple[Norm, float]:
        """Returns the norm and the budget."""
        norm = self.norm or ATTACKS.load(self.name).norms[0]
        return norm, EPSILONS[norm] if self.epsilon is None else self.epsilon


def _with(**parameters: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(parameters.items())


WIDE = _with(step_size=STEP)
STOPPING = _with(step_size=SMALL, random_start=False, keep="first-success")
OURS = (
    Counting("FGSM", "fgsm", ""),
    Counting("FGSM, naive gradient", "fgsm-naive", ""),
    Counting("noise, signs", "noise-sign", ""),
    Counting("noise, uniform", "noise-uniform", ""),
    Counting("rotation", "rotation", ""),
    Counting("PGD, the last iterate", "pgd", parameters=WIDE),
    Counting("PGD, the best loss", "pgd", parameters=_with(step_size=STEP, keep="best-loss")),
    Counting("PGD, the first success", "pgd", parameters=STOPPING),
    Counting("PGD in L2, the last iterate", "pgd", parameters=_with(step_size=0.2), norm=Norm.L2),
    Counting("PGD in L1", "pgd-l1"),
    Counting("BIM, the last iterate", "bim", parameters=WIDE),
    Counting("BIM, the best loss", "bim", parameters=_with(step_size=STEP, keep="best-loss")),
    Counting(
        "BIM, the first success", "bim", parameters=_with(step_size=SMALL, keep="first-success")
    ),
    Counting("MI-FGSM", "mi-fgsm", parameters=WIDE),
    Counting("DI-MI-FGSM", "di-mi-fgsm", parameters=WIDE),
    Counting("TI-MI-FGSM", "ti-mi-fgsm", parameters=WIDE),
    Counting(
        f"VMI-FGSM, {NEIGHBOURS} neighbours",
        "vmi-fgsm",
        parameters=_with(step_size=STEP, neighbours=NEIGHBOURS),
    ),
    Counting("APGD, the best loss", "apgd-ce"),
    Counting(
        "APGD, the first success",
        "apgd-ce",
        parameters=_with(keep="first-success"),
        epsilon=SMALL,
    ),
    Counting("APGD on the logits ratio", "apgd-dlr"),
    Counting(
        f"APGD, targeted, {TARGETS} targets", "apgd-t", parameters=_with(n_target_classes=TARGETS)
    ),
    Counting("Square", "square", "queries", epsilon=SMALL),
    Counting("FAB", "fab"),
    Counting(
        f"FAB, targeted, {TARGETS} targets", "fab-t", parameters=_with(target_classes=TARGETS)
    ),
    Counting("DeepFool", "deepfool", lengths=(1, 2)),
    Counting("DDN", "ddn"),
    Counting("FMN", "fmn"),
    Counting("C&W, one search", "cw", parameters=_with(searches=1, abort_early=False)),
    Counting(
        "L-BFGS, one search, example by example",
        "lbfgs",
        "iterations",
        parameters=_with(searches=1),
    ),
)


@dataclass(frozen=True)
class Theirs:
    """An attack of another library.

    Args:
        who: the library.
        work: the name of ours.
        run: attacks inputs with labels, with so many steps.
    """

    who: str
    work: str
    run: Callable[[int], object]


def others(module: nn.Module, inputs: Tensor, labels: Tensor) -> Iterator[Theirs]:
    """Yields the attacks of the libraries that are installed, on a bare module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for of_library in (_torchattacks, _foolbox, _pyautoattack, _advlib):
            try:
                yield from of_library(module, inputs, labels)
            except ImportError:
                continue


def _torchattacks(module: nn.Module, inputs: Tensor, labels: Tensor) -> Iterator[Theirs]:
    library: Any = importlib.import_module("torchattacks")
    budget = {"eps": EPSILON, "alpha": STEP}
    last = "the last iterate"
    kinds: list[tuple[str, str, dict[str, Any], str]] = [
        ("FGSM", "FGSM", {"eps": EPSILON}, ""),
        (f"PGD, {last}", "PGD", budget, "steps"),
        (f"PGD in L2, {last}", "PGDL2", {"eps": 1.0, "alpha": 0.2}, "steps"),
        (f"BIM, {last}", "BIM", budget, "steps"),
        ("MI-FGSM", "MIFGSM", budget, "steps"),
        ("DI-MI-FGSM", "DIFGSM", {**budget, "decay": 1.0}, "steps"),
        # TIFGSM takes pictures of three channels only.
        (f"VMI-FGSM, {NEIGHBOURS} neighbours", "VMIFGSM", {**budget, "N": NEIGHBOURS}, "steps"),
        ("APGD, the best loss", "APGD", {"eps": EPSILON}, "steps"),
        ("Square", "Square", {"eps": SMALL}, "n_queries"),
        ("C&W, one search", "CW", {}, "steps"),
    ]
    for work, name, given, length in kinds:
        kind = getattr(library, name)

        def run(steps: int, kind: Any = kind, given: Any = given, length: str = length) -> object:
            more = {length: steps} if length else {}
            return kind(module, **given, **more)(inputs, labels)

        yield Theirs("torchattacks", work, run)


def _foolbox(module: nn.Module, inputs: Tensor, labels: Tensor) -> Iterator[Theirs]:
    library: Any = importlib.import_module("foolbox")
    once = {"binary_search_steps": 1, "abort_early": False}
    model = library.PyTorchModel(module, bounds=(0, 1), device=inputs.device)
    last = "the last iterate"
    kinds: list[tuple[str, str, dict[str, Any], float | None]] = [
        ("FGSM", "LinfFastGradientAttack", {}, EPSILON),
        (f"PGD, {last}", "LinfPGD", {"abs_stepsize": STEP}, EPSILON),
        (f"PGD in L2, {last}", "L2PGD", {"abs_stepsize": 0.2}, 1.0),
        (f"BIM, {last}", "LinfBasicIterativeAttack", {"abs_stepsize": STEP}, EPSILON),
        ("MI-FGSM", "LinfMomentumIterativeFastGradientMethod", {"abs_stepsize": STEP}, EPSILON),
        ("DeepFool", "L2DeepFoolAttack", {}, None),
        ("DDN", "DDNAttack", {}, None),
        ("FMN", "LInfFMNAttack", {}, None),
        ("C&W, one search", "L2CarliniWagnerAttack", once, None),
    ]
    for work, name, given, epsilon in kinds:
        kind = getattr(library.attacks, name)

        def run(steps: int, kind: Any = kind, given: Any = given, epsilon: Any = epsilon) -> object:
            more = {} if kind.__name__ == "LinfFastGradientAttack" else {"steps": steps}
            attack = kind(**given, **more)
            if epsilon is None:  # a search of the nearest
                return attack.run(model, inputs, library.criteria.Misclassification(labels))
            return attack(model, inputs, labels, epsilons=[epsilon])

        yield Theirs("foolbox", work, run)


def _pyautoattack(module: nn.Module, inputs: Tensor, labels: Tensor) -> Iterator[Theirs]:
    apgd: Any = importlib.import_module("pyautoattack.autopgd_base")
    fab: Any = importlib.import_module("pyautoattack.fab_pt")
    square: Any = importlib.import_module("pyautoattack.square")
    device, norm = inputs.device, "Linf"
    common: dict[str, Any] = {"norm": norm, "seed": 0, "device": device}

    def apgd_on(loss: str) -> Callable[[int], object]:
        return lambda steps: apgd.APGDAttack(
            module, n_iter=steps, eps=EPSILON, loss=loss, **common
        ).perturb(inputs, labels)

    yield Theirs("pyautoattack", "APGD, the best loss", apgd_on("ce"))
    yield Theirs("pyautoattack", "APGD on the logits ratio", apgd_on("dlr"))
    targeted = f"APGD, targeted, {TARGETS} targets"
    yield Theirs(
        "pyautoattack",
        targeted,
        lambda steps: apgd.APGDAttack_targeted(
            module, n_iter=steps, eps=EPSILON, n_target_classes=TARGETS, **common
        ).perturb(inputs, labels),
    )

    def fab_of(**more: Any) -> Callable[[int], object]:
        return lambda steps: fab.FABAttack_PT(
            module, n_iter=steps, eps=EPSILON, **more, **common
        ).perturb(inputs, labels)

    yield Theirs("pyautoattack", "FAB", fab_of())
    yield Theirs(
        "pyautoattack",
        f"FAB, targeted, {TARGETS} targets",
        fab_of(targeted=True, n_target_classes=TARGETS),
    )
    yield Theirs(
        "pyautoattack",
        "Square",
        lambda steps: square.SquareAttack(module, n_queries=steps, eps=SMALL, **common).perturb(
            inputs, labels
        ),
    )


def _advlib(module: nn.Module, inputs: Tensor, labels: Tensor) -> Iterator[Theirs]:
    ADVLIB.attack("ddn")  # imports the library also if visdom is missing
    library: Any = importlib.import_module("adv_lib.attacks")
    norm = float("inf")
    yield Theirs("advlib", "DDN", lambda steps: library.ddn(module, inputs, labels, steps=steps))
    yield Theirs(
        "advlib", "FMN", lambda steps: library.fmn(module, inputs, labels, norm=norm, steps=steps)
    )
    yield Theirs(
        "advlib",
        "PGD, the last iterate",
        lambda steps: library.pgd_linf(
            module, inputs, labels, EPSILON, steps=steps, absolute_step_size=STEP
        ),
    )
