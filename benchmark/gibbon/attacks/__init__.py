"""Adversarial attacks, one file each.  They propose candidates; `gibbon.verify.judge` judges them.

`ATTACKS` maps a name to a class whose dataclass fields are the attack's parameters.  torch is not
imported before a class is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gibbon.attacks.adapters import adapter_scheme
from gibbon.core.registry import Entry, Registry, lazily
from gibbon.core.threat import Norm

if TYPE_CHECKING:
    from gibbon.attacks.base import Attack

ATTACKS: Registry[type[Attack]] = Registry("attack", group="gibbon.attacks")

_NAMES: dict[str, str] = {}  # by module and class

for _name, _reference, _summary in [
    ("fgsm", "fgsm:FGSM", "fast gradient sign method, exact direction (Goodfellow et al. 2015)"),
    ("fgsm-naive", "fgsm_naive:FGSMNaive", "fast gradient sign method, ordinary float32 gradient"),
    ("noise-uniform", "noise_uniform:NoiseUniform", "uniform noise within epsilon (control)"),
    ("noise-sign", "noise_sign:NoiseSign", "plus or minus epsilon at random (control)"),
    ("pgd", "pgd:PGD", "projected gradient descent (Madry et al. 2018)"),
    ("pgd-l1", "pgd_l1:PGDL1", "projected gradient descent in L1 (Tramèr and Boneh 2019)"),
    ("bim", "bim:BIM", "basic iterative method, also targeted (Kurakin et al. 2016)"),
    ("mi-fgsm", "mi_fgsm:MIFGSM", "iterative FGSM with momentum (Dong et al. 2018)"),
    ("di-mi-fgsm", "di_mi_fgsm:DIMIFGSM", "momentum FGSM on diverse inputs (Xie et al. 2019)"),
    ("ti-mi-fgsm", "ti_mi_fgsm:TIMIFGSM", "momentum FGSM on smoothed gradients (Dong et al. 2019)"),
    ("vmi-fgsm", "vmi_fgsm:VMIFGSM", "momentum FGSM with variance tuning (Wang and He 2021)"),
    ("rotation", "rotation:Rotation", "rotation towards the gradient (Goodfellow et al. 2015)"),
    ("apgd-ce", "apgd:APGDCE", "auto-PGD on the cross-entropy (Croce and Hein 2020)"),
    ("apgd-dlr", "apgd:APGDDLR", "auto-PGD on the logits ratio (Croce and Hein 2020)"),
    ("apgd-t", "apgd:APGDT", "auto-PGD on the targeted logits ratio (Croce and Hein 2020)"),
    ("lbfgs", "lbfgs:LBFGS", "box-constrained L-BFGS, nearest in L2 (Szegedy et al. 2014)"),
    ("deepfool", "deepfool:DeepFool", "nearest linearised boundary (Moosavi-Dezfooli et al. 2016)"),
    ("ddn", "ddn:DDN", "decoupled direction and norm, nearest in L2 (Rony et al. 2019)"),
    ("fmn", "fmn:FMN", "fast minimum norm, nearest in L∞, L2 or L1 (Pintor et al. 2021)"),
    ("cw", "cw:CW", "distance and margin by Adam, nearest in L2 (Carlini and Wagner 2017)"),
    ("fab", "fab:FAB", "fast adaptive boundary attack, nearest in L∞, L2 or L1 (Croce, Hein 2020)"),
    ("fab-t", "fab_t:FABT", "targeted fast adaptive boundary attack (Croce and Hein 2020)"),
    ("square", "square:Square", "random search without gradients (Andriushchenko et al. 2020)"),
    (
        "worst-of",
        "worst_of:WorstOf",
        "a list of attacks, each on the survivors of the earlier ones",
    ),
    ("autoattack", "autoattack:AutoAttack", "AutoAttack, standard version (Croce and Hein 2020)"),
    (
        "autoattack-l1",
        "autoattack:AutoAttackL1",
        "AutoAttack, standard version in L1 (Croce, Hein 2021)",
    ),
]:
    _target = f"gibbon.attacks.{_reference}"
    ATTACKS.register(Entry(_name, _summary, lazily(_target)))
    _NAMES[_target] = _name

# Attacks that are another algorithm in one of their norms, with a class of their own.
IN_NORM: dict[tuple[str, Norm | None], str] = {
    ("pgd", Norm.L1): "pgd-l1",
    ("autoattack", Norm.L1): "autoattack-l1",
}


def registered_name(kind: type[Attack]) -> str | None:
    """Returns the name of an attack of this package, or None for an attack of another author.

    Another library's attack that is adapted here has the name that suites use: ``foolbox:LinfPGD``.
    """
    scheme = adapter_scheme(kind.__module__)
    if scheme is not None:
        return f"{scheme}:{kind.__qualname__}"
    return _NAMES.get(f"{kind.__module__}:{kind.__qualname__}")


__all__ = ["ATTACKS", "IN_NORM", "registered_name"]
