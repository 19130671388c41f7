"""Which attacks are ordered, and which are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import peers
import pytest
from torch import Tensor

from gibbon.attacks.base import Attack, SearchMethod
from gibbon.attacks.factory import build_attack
from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel
from gibbon.diagnostics.attack_order import Attacker, order_of
from gibbon.specs.suite import AttackSpec

BOX = Bounds(0.0, 1.0)
KEPT = {"keep": "best-loss"}


def attacker(
    name: str, epsilon: str = "0.1", *, clip: bool = True, carried: bool = False, **keys: Any
) -> Attacker:
    spec = AttackSpec.model_validate({"name": name, "epsilon": epsilon, **keys})
    attack = build_attack(spec)
    threat = ThreatModel(
        spec.norm or attack.norms[0], Epsilon.parse(epsilon), BOX if clip else None
    )
    return Attacker(attack, threat, BOX, carried=carried)


def names(weaker: Attacker, stronger: Attacker) -> str:
    """The kind of flag for a violated order, with ``!`` if it is strict; empty without an order."""
    order = order_of(weaker, stronger)
    return "" if order is None else f"{order.kind}{'!' * order.strict}"


WEAKER, BLACK_BOX = "weaker-attack-stronger", "black-box-stronger"


@pytest.mark.parametrize(
    ("weaker", "stronger", "expected"),
    [
        (attacker("noise-sign"), attacker("fgsm"), WEAKER),
        (attacker("noise-uniform"), attacker("pgd", **KEPT), f"{WEAKER}!"),
        (attacker("noise-uniform"), attacker("fmn"), WEAKER),
        (attacker("fgsm"), attacker("pgd"), WEAKER),
        (attacker("fgsm"), attacker("pgd", keep="first-success"), f"{WEAKER}!"),
        (attacker("fgsm-naive"), attacker("apgd-ce"), f"{WEAKER}!"),
        (attacker("fgsm"), attacker("bim"), WEAKER),
        (attacker("fgsm"), attacker("mi-fgsm", **KEPT), f"{WEAKER}!"),
        (attacker("rotation", "1"), attacker("pgd", "1", norm="l2", **KEPT), f"{WEAKER}!"),
        (attacker("square"), attacker("pgd"), BLACK_BOX),
        (attacker("square"), attacker("apgd-ce"), BLACK_BOX),
        (attacker("square"), attacker("apgd-t"), f"{BLACK_BOX}!"),
        (attacker("square"), attacker("pgd", loss="margin", **KEPT), f"{BLACK_BOX}!"),
        (attacker("square", "5", norm="l1"), attacker("apgd-ce", "5", norm="l1"), BLACK_BOX),
        (attacker("pgd", steps=5), attacker("pgd", steps=40), WEAKER),
        (attacker("pgd", restarts=1, **KEPT), attacker("pgd", restarts=5, **KEPT), f"{WEAKER}!"),
        (attacker("square", queries=100), attacker("square", queries=500), f"{WEAKER}!"),
        (attacker("fmn", steps=10), attacker("fmn", steps=100), f"{WEAKER}!"),
        (attacker("pgd", steps=5), attacker("pgd", steps=40, **KEPT), f"{WEAKER}!"),
        (attacker("pgd", steps=20), attacker("pgd", steps=20, clip=False), WEAKER),
        (attacker("fgsm", "0.05"), attacker("pgd", "0.1"), WEAKER),
        (attacker("fgsm"), attacker("pgd", clip=False), WEAKER),
        (attacker("fgsm"), attacker("autoattack"), f"{WEAKER}!"),
        (attacker("square"), attacker("worst-of", attacks=["pgd", "fgsm"]), BLACK_BOX),
        (attacker("worst-of", attacks=["fgsm", "noise-sign"]), attacker("pgd"), WEAKER),
        (attacker("autoattack", steps=20), attacker("autoattack", steps=100), f"{WEAKER}!"),
    ],
)  # fmt: skip
def test_the_weaker_attack_is_below_the_stronger_one(weaker, stronger, expected):
    assert names(weaker, stronger) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("apgd-ce", "apgd-dlr"), ("pgd", "apgd-ce"), ("bim", "mi-fgsm"), ("fab-t", "apgd-t"),
        ("fmn", "pgd"), ("deepfool", "fgsm"), ("square", "fgsm"), ("square", "fmn"),
        ("fgsm", "fgsm-naive"), ("noise-sign", "noise-uniform"), ("noise-sign", "square"),
        ("fgsm", "di-mi-fgsm"), ("fgsm", "ti-mi-fgsm"), ("fgsm", "vmi-fgsm"),
    ],
)  # fmt: skip
def test_attacks_of_which_neither_contains_the_other_are_not_ordered(one, other):
    assert names(attacker(one), attacker(other)) == ""
    assert names(attacker(other), attacker(one)) == ""


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        (attacker("fgsm", "0.2"), attacker("pgd", "0.1")),  # is allowed more
        (attacker("fgsm", clip=False), attacker("pgd")),
        (attacker("fgsm"), attacker("pgd", norm="l2")),
        (attacker("fgsm"), attacker("pgd", steps=3)),  # too few steps
        (attacker("square"), attacker("pgd", steps=5)),
        (attacker("fgsm"), attacker("pgd", steps=40, step_size=0.001)),  # does not get far
        (attacker("fgsm"), attacker("bim", steps=10)),  # ten steps of 1/255
        (attacker("square"), attacker("mi-fgsm")),  # a path of one epsilon
        (attacker("fgsm"), attacker("bim", target="least-likely")),  # another goal
        (attacker("square", "5", norm="l1"), attacker("pgd", "5", norm="l1")),
        (attacker("pgd", steps=5, **KEPT), attacker("pgd", steps=40)),  # another iterate
        (attacker("pgd", steps=5, loss="margin"), attacker("pgd", steps=40)),  # another loss
        (attacker("pgd", steps=5, step_size=0.01), attacker("pgd", steps=40)),  # another step
        (attacker("pgd", steps=5, restarts=9), attacker("pgd", steps=40, restarts=1)),
        (attacker("fgsm"), attacker("fgsm", clip=False)),  # one step may go too far
        (attacker("fgsm", carried=True), attacker("pgd")),  # also at every smaller epsilon
        (attacker("worst-of", attacks=["fgsm", "apgd-dlr"]), attacker("pgd")),
        (attacker("noise-sign"), attacker("fmn", steps=10)),
        (attacker("pgd", "0"), attacker("pgd", "0", steps=80)),
    ],
)
def test_what_does_not_follow_is_not_claimed(weaker, stronger):
    assert names(weaker, stronger) == ""


@dataclass(frozen=True)
class Somebodys(Attack):
    steps: int = 10

    def propose(self, classifier: Any, inputs: Tensor, **rest: Any) -> Iterator[Tensor]:
        yield inputs


@dataclass(frozen=True)
class Declared(Somebodys):
    search_method: ClassVar[SearchMethod] = SearchMethod.ITERATIVE
    step_size: float | None = None


THREAT = ThreatModel(Norm.LINF, Epsilon.parse("0.1"), BOX)


def test_an_attack_of_which_nothing_is_known_is_compared_with_itself_alone():
    unknown = Attacker(Somebodys(), THREAT, BOX)
    for other in ("noise-sign", "fgsm", "pgd", "square"):
        assert names(attacker(other), unknown) == names(unknown, attacker(other)) == ""
    assert names(unknown, Attacker(Somebodys(steps=99), THREAT, BOX)) == WEAKER


def test_an_attack_of_which_nothing_is_known_that_took_no_gradient_is_gradient_free():
    blind = Attacker(Somebodys(), THREAT, BOX, took_gradients=False)
    assert blind.method is SearchMethod.GRADIENT_FREE
    assert names(blind, attacker("pgd")) == BLACK_BOX


def test_an_author_declares_how_an_attack_searches():
    assert names(attacker("fgsm"), Attacker(Declared(), THREAT, BOX)) == WEAKER
    short = Attacker(Declared(step_size=0.001), THREAT, BOX)
    assert names(attacker("fgsm"), short) == ""


@pytest.mark.peers
@pytest.mark.parametrize(
    ("library", "weaker", "stronger", "expected"),
    [
        ("foolbox", "foolbox:FGSM", "foolbox:LinfPGD", WEAKER),
        ("foolbox", "foolbox:LinfAdditiveUniformNoiseAttack", "foolbox:FGSM", WEAKER),
        ("foolbox", "square", "foolbox:LinfPGD", BLACK_BOX),
        ("torchattacks", "torchattacks:Square", "apgd-ce", BLACK_BOX),
        ("torchattacks", "torchattacks:FGSM", "torchattacks:PGD", ""),  # 10 steps of 2/255
        ("torchattacks", "torchattacks:FGSM", "torchattacks:DIFGSM", ""),
        ("adv_lib", "fgsm", "advlib:pgd_linf", WEAKER),
        ("adv_lib", "fgsm", "advlib:fmn", ""),
    ],
)
def test_attacks_of_libraries_are_ordered_too(library, weaker, stronger, expected):
    peers.library(library)
    assert names(attacker(weaker), attacker(stronger)) == expected
