"""AutoAttack by its authors' code: ``autoattack:standard``, of the package pyautoattack.

Source: F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020, https://arxiv.org/abs/2003.01690; the package is their
code, https://github.com/fra31/auto-attack, with fixes.  Tried with 0.2.0.

The name after the colon is what the package calls ``version``: ``standard``, ``plus``, ``rand``, or
``custom`` with ``attacks = ["apgd-ce", ...]``.  It works in [0, 1]: inputs of another box are
scaled.  Untold, it would seed itself from the clock, and look for nine target classes whether or
not there are ten: it is told the seed, and as many targets as there are.  Before it begins it
replaces Python's trace function, which would end a debugger or a measurement of coverage: that is
put back.
"""

from __future__ import annotations

import inspect
from functools import cache

from torch import Tensor

from gibbon.attacks.adapters import AttackSource
from gibbon.attacks.adapters.adapting import BUDGET, BY_BATCH, NORM, Foreign, Library, Task, adapt
from gibbon.attacks.base import Attack
from gibbon.core.errors import AttackError
from gibbon.core.threat import Norm

LIBRARY = Library("pyautoattack", "pyautoattack", "pip install pyautoattack")
VERSIONS = ("standard", "plus", "rand", "custom")
NAMES = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}

# The targeted DLR loss divides by a difference with the fourth largest logit, the plain one with
# the third.
CLASSES_NEEDED = {"apgd-t": 4, "apgd-dlr": 3}


class AutoAttack(AttackSource):
    """The versions of AutoAttack."""

    @cache  # noqa: B019  one source a process, and a class must be one and the same each time
    def attack(self, name: str) -> type[Attack]:
        """Returns the class of one version of AutoAttack."""
        library = LIBRARY.load()
        if name not in VERSIONS:
            raise LIBRARY.unknown(name, known=list(VERSIONS))
        reserved = {"eps": BUDGET, "norm": NORM, "version": "it stands after the colon"}
        if name != "custom":
            reserved["attacks"] = "they are the version's; choose them with autoattack:custom"
        foreign = Foreign(
            name=name,
            library=LIBRARY,
            norms=tuple(NAMES),
            run=lambda task: _run(name, task),
            signature=inspect.signature(library.AutoAttack),
            unit=True,
            reserved=reserved,
            departures={"batch": BY_BATCH},
        )
        return adapt(foreign, module=__name__)


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


AUTOATTACK = AutoAttack()
