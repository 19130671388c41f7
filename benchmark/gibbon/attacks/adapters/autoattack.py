"""AutoAttack in its authors' code, the package pyautoattack: ``autoattack:standard``.

Source: F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020, https://arxiv.org/abs/2003.01690; the package is their
code, https://github.com/fra31/auto-attack, with fixes.  Tried with 0.2.0.

The name after the colon is the package's ``version``: ``standard``, ``plus``, ``rand``, or
``custom`` with ``attacks = ["apgd-ce", ...]``.  It works in [0, 1]: inputs of another box are
scaled.  By default it seeds itself from the clock, and uses nine target classes even if there are
fewer than ten: the adapter sets the seed and the number of targets.  It replaces Python's trace
function, which would end a debugger or a measurement of coverage: the function is restored.
"""

from __future__ import annotations

import inspect

from torch import Tensor

from gibbon.attacks.adapters.adapting import BUDGET, NORM, Adapter, Library, LibraryAttack, Task
from gibbon.attacks.base import SearchMethod
from gibbon.core.errors import AttackError
from gibbon.core.threat import Norm

LIBRARY = Library("pyautoattack", "pyautoattack", "pip install pyautoattack")
VERSIONS = ("standard", "plus", "rand", "custom")
NAMES = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}

# The targeted DLR loss divides by a difference with the fourth largest logit, the plain one with
# the third.
CLASSES_NEEDED = {"apgd-t": 4, "apgd-dlr": 3}


def describe(name: str) -> LibraryAttack:
    """Describes one version of AutoAttack."""
    library = LIBRARY.load()
    if name not in VERSIONS:
        raise LIBRARY.unknown(name, known=list(VERSIONS))
    reserved = {"eps": BUDGET, "norm": NORM, "version": "it stands after the colon"}
    if name != "custom":
        reserved["attacks"] = "they are the version's; choose them with autoattack:custom"
    return LibraryAttack(
        name=name,
        library=LIBRARY,
        norms=tuple(NAMES),
        run=lambda task: _run(name, task),
        signature=inspect.signature(library.AutoAttack),
        unit=True,
        search_method=None if name == "custom" else SearchMethod.ITERATIVE,
        reserved=reserved,
    )


def _run(name: str, task: Task) -> Tensor:
    attack = LIBRARY.load().AutoAttack(
        task.model,
        version=name,
        norm=NAMES[task.norm],
        eps=task.epsilon,
        seed=task.seed,
        device=task.inputs.device,
        **task.parameters,
    )
    for member, needed in CLASSES_NEEDED.items():
        if member in attack.attacks_to_run and task.classes < needed:
            raise AttackError(
                f"autoattack:{name} runs {member}, whose loss needs {needed} classes; the model "
                f"has {task.classes}: name others with autoattack:custom, or take our autoattack"
            )
    for member in (attack.apgd_targeted, attack.fab):
        member.n_target_classes = min(member.n_target_classes, task.classes - 1)
    candidates: Tensor
    candidates, _ = attack.run_standard_evaluation(
        task.inputs, task.labels, batch_size=len(task.inputs)
    )
    return candidates


AUTOATTACK = Adapter(describe)
