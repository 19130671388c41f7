"""Attacks: one file each.  They propose; `gibbon.verify` decides.

`ATTACKS` maps a name to a class whose dataclass fields are the attack's parameters.  No torch is
imported before one is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gibbon.core.registry import Entry, Registry, lazily
from gibbon.core.threat import Norm

if TYPE_CHECKING:
    from gibbon.attacks.base import Attack

ATTACKS: Registry[type[Attack]] = Registry("attack", group="gibbon.attacks")

for _name, _reference, _summary in [
    ("fgsm", "fgsm:FGSM", "fast gradient sign method, exact direction (Goodfellow et al. 2015)"),
    ("fgsm-naive", "fgsm_naive:FGSMNaive", "the same with the ordinary float32 gradient"),
    ("noise-uniform", "noise_uniform:NoiseUniform", "uniform noise within epsilon (control)"),
    ("noise-sign", "noise_sign:NoiseSign", "plus or minus epsilon at random (control)"),
    ("pgd", "pgd:PGD", "projected gradient descent (Madry et al. 2018)"),
    ("pgd-l1", "pgd_l1:PGDL1", "the same in L1, with sparse steps (Tramèr and Boneh 2019)"),
    ("bim", "bim:BIM", "basic iterative method, also targeted (Kurakin et al. 2016)"),
    ("mi-fgsm", "mi_fgsm:MIFGSM", "the same with momentum, L∞ or L2 (Dong et al. 2018)"),
    ("di-mi-fgsm", "di_mi_fgsm:DIMIFGSM", "that on diverse inputs, for transfer (Xie et al. 2019)"),
    ("ti-mi-fgsm", "ti_mi_fgsm:TIMIFGSM", "that with smoothed gradients (Dong et al. 2019)"),
    ("vmi-fgsm", "vmi_fgsm:VMIFGSM", "that with variance tuning (Wang and He 2021)"),
    ("rotation", "rotation:Rotation", "a turn towards the gradient (Goodfellow et al. 2015)"),
    ("apgd-ce", "apgd:APGDCE", "auto-PGD on the cross-entropy (Croce and Hein 2020)"),
    ("apgd-dlr", "apgd:APGDDLR", "the same on the difference of logits ratio"),
    ("apgd-t", "apgd:APGDT", "the same on the targeted ratio, for nine classes in turn"),
    ("lbfgs", "lbfgs:LBFGS", "box-constrained L-BFGS, nearest in L2 (Szegedy et al. 2014)"),
    ("deepfool", "deepfool:DeepFool", "nearest linearised boundary (Moosavi-Dezfooli et al. 2016)"),
    ("ddn", "ddn:DDN", "decoupled direction and norm, nearest in L2 (Rony et al. 2019)"),
    ("fmn", "fmn:FMN", "fast minimum norm, nearest in L∞, L2 or L1 (Pintor et al. 2021)"),
    ("cw", "cw:CW", "distance and margin by Adam, nearest in L2 (Carlini and Wagner 2017)"),
    ("fab", "fab:FAB", "fast adaptive boundary attack, nearest in L∞, L2 or L1 (Croce, Hein 2020)"),
    ("fab-t", "fab_t:FABT", "the same towards one likely class after another"),
    ("square", "square:Square", "random search without gradients (Andriushchenko et al. 2020)"),
    ("worst-of", "worst_of:WorstOf", "a list of attacks, each on what no earlier one misled"),
    ("autoattack", "autoattack:AutoAttack", "four attacks in turn (Croce and Hein 2020)"),
    ("autoattack-l1", "autoattack:AutoAttackL1", "the same in L1: more runs, fewer targets"),
]:
    ATTACKS.register(Entry(_name, _summary, lazily(f"gibbon.attacks.{_reference}")))

# An attack that is another algorithm in one of its norms, in a class of its own.
IN_NORM: dict[tuple[str, Norm | None], str] = {
    ("pgd", Norm.L1): "pgd-l1",
    ("autoattack", Norm.L1): "autoattack-l1",
}

__all__ = ["ATTACKS", "IN_NORM"]
