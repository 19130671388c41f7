"""Names that the random streams of attacks are derived from.

Committed records were made when this name was the module and the class of the attack, so these
names are kept for the attacks of that time, wherever their code is today.  Do not edit a line: it
changes every random number of the attack.  For an attack that is not listed the name is its
registered name.
"""

from __future__ import annotations

import json

from gibbon.attacks import registered_name
from gibbon.attacks.base import Attack
from gibbon.attacks.toolkit.parameter_text import parameter_texts

FIRST_PACKAGE = "benchmark"
FIRST_NAMES = {
    "fgsm": "fgsm FGSM",
    "fgsm-naive": "fgsm_naive FGSMNaive",
    "noise-uniform": "noise_uniform NoiseUniform",
    "noise-sign": "noise_sign NoiseSign",
    "pgd": "pgd PGD",
    "pgd-l1": "pgd_l1 PGDL1",
    "bim": "bim BIM",
    "mi-fgsm": "mi_fgsm MIFGSM",
    "di-mi-fgsm": "di_mi_fgsm DIMIFGSM",
    "ti-mi-fgsm": "ti_mi_fgsm TIMIFGSM",
    "vmi-fgsm": "vmi_fgsm VMIFGSM",
    "rotation": "rotation Rotation",
    "apgd-ce": "apgd APGDCE",
    "apgd-dlr": "apgd APGDDLR",
    "apgd-t": "apgd APGDT",
    "lbfgs": "lbfgs LBFGS",
    "deepfool": "deepfool DeepFool",
    "ddn": "ddn DDN",
    "fmn": "fmn FMN",
    "cw": "cw CW",
    "fab": "fab FAB",
    "fab-t": "fab_t FABT",
    "square": "square Square",
}
FIRST_ADAPTERS = ("foolbox", "torchattacks", "art", "advlib", "autoattack")


def stream_text(attack: Attack) -> str:
    """Returns the text that the random streams of an attack are derived from.

    It names an attack of somebody else by its module and class.
    """
    kind = type(attack)
    return json.dumps([*_first_names(kind), kind.version, parameter_texts(attack)])


def _first_names(kind: type[Attack]) -> list[str]:
    name = registered_name(kind)
    if name is None:
        return [kind.__module__, kind.__qualname__]
    scheme, colon, foreign = name.partition(":")
    if colon and scheme in FIRST_ADAPTERS:
        return [f"{FIRST_PACKAGE}.attacks.adapters.{scheme}", foreign]
    if name not in FIRST_NAMES:
        return [name]
    module, first = FIRST_NAMES[name].split()
    return [f"{FIRST_PACKAGE}.attacks.{module}", first]
