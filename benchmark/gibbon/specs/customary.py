"""Customary budgets and attacks: what is evaluated if a request names no attack.  No torch here.

Budgets are those that most published figures on a dataset are given at: L∞ on MNIST 0.3 and CIFAR
8/255 (A. Madry et al., ICLR 2018), ImageNet 4/255; L2 on CIFAR-10 0.5, ImageNet 3 (F. Croce et
al., RobustBench, 2021, https://arxiv.org/abs/2010.09670); L1 on CIFAR-10 12 (F. Croce and M. Hein,
ICML 2021).  Any other dataset of pictures gets that of CIFAR; inputs of other bounds the same share
of the width of their bounds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

from gibbon.core.threat import Norm

#: Examples that are evaluated if a request names neither an attack nor a limit.
EXAMPLES: Final = 1000
_OTHERWISE: Final = {Norm.LINF: "8/255", Norm.L2: "0.5", Norm.L1: "12"}
# By the beginning of a dataset's name, without punctuation.
_BUDGETS: Final[dict[str, dict[Norm, str]]] = {
    "mnist": {Norm.LINF: "0.3", Norm.L2: "2", Norm.L1: "10"},
    "fashionmnist": {Norm.LINF: "0.1"},
    "cifar": _OTHERWISE,
    "svhn": {Norm.LINF: "8/255"},
    "imagenet": {Norm.LINF: "4/255", Norm.L2: "3"},
}
_STEPS: Final = 20
_QUERIES: Final = 200


def customary_epsilon(
    source: str, norm: Norm = Norm.LINF, *, bounds: Sequence[float] | None = None
) -> tuple[str, str]:
    """Returns the customary budget on a dataset, and where it is customary; empty if it is not.

    Args:
        source: the dataset's source: a name or a path, any part of which may be the name.
        norm: the norm.
        bounds: lowest and highest input; [0, 1] if None.

    >>> [customary_epsilon(each) for each in ("mnist", "data/ImageNet-val/", "pets")]
    [('0.3', 'mnist'), ('4/255', 'imagenet'), ('8/255', '')]
    >>> customary_epsilon("table.npz", bounds=(-3, 3))
    ('16/85', '')
    """
    if bounds is not None and tuple(bounds) != (0, 1):
        width = Fraction(str(bounds[1])) - Fraction(str(bounds[0]))
        return str(Fraction(_OTHERWISE[norm]) * width), ""
    words = [re.sub(r"[^a-z0-9]", "", each.lower()) for each in re.split(r"[/\\:]", source)]
    for name, budgets in _BUDGETS.items():
        if norm in budgets and any(word.startswith(name) for word in words):
            return budgets[norm], name
    return _OTHERWISE[norm], ""


def customary_attacks(norm: Norm = Norm.LINF) -> list[dict[str, Any]]:
    """Returns the attacks of a request that names none, without their budget.

    They are FGSM (in L∞), PGD, and a short worst case over a list, whose last member takes no
    gradients.  Each gives a first figure in a few hundred passes an example, at most.

    >>> [each["label"] for each in customary_attacks(Norm.LINF)]
    ['fgsm', 'pgd', 'worst-case']
    """
    attacks: list[dict[str, Any]] = [{"name": "pgd", "label": "pgd", "steps": _STEPS}]
    if norm is Norm.LINF:
        attacks = [{"name": "fgsm", "label": "fgsm"}, *attacks]
    margin = {"name": "pgd", "label": "pgd-margin", "steps": _STEPS, "loss": "margin"}
    members: list[Mapping[str, Any]] = [
        {"name": "apgd-ce", "steps": _STEPS},
        *([margin] if norm is not Norm.L1 else []),
        {"name": "square", "queries": _QUERIES},
    ]
    return [*attacks, {"name": "worst-of", "label": "worst-case", "attacks": members}]


def customary_text(attacks: Sequence[Mapping[str, Any]]) -> str:
    """Returns the attacks in words.

    >>> customary_text(customary_attacks(Norm.LINF))
    'fgsm, pgd (20 steps) and worst-case (apgd-ce, pgd-margin, square)'
    """
    words = []
    for each in attacks:
        members = [str(one.get("label", one["name"])) for one in each.get("attacks", ())]
        detail = ", ".join(members) or (f"{each['steps']} steps" if "steps" in each else "")
        words.append(f"{each['label']} ({detail})" if detail else str(each["label"]))
    return f"{', '.join(words[:-1])} and {words[-1]}"
