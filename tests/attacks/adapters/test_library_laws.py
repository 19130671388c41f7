"""Attacks of installed libraries: all are known or refused, and some are tried on every law."""

import inspect
from importlib import import_module

import peers
import pytest

from gibbon.attacks.adapters import ATTACK_SOURCES
from gibbon.attacks.factory import attack_class
from gibbon.conformance import check_attack
from gibbon.conformance.laws import LAWS, law
from gibbon.core.errors import SpecError
from gibbon.core.threat import Norm

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

# By scheme: the module of the package, and the one that holds its attacks.
MODULES = {
    "foolbox": ("foolbox", "attacks"),
    "torchattacks": ("torchattacks", ""),
    "art": ("art", "attacks.evasion"),
    "advlib": ("adv_lib", "attacks"),
}
LINF, L2, L1 = (Norm.LINF,), (Norm.L2,), (Norm.L1,)
# One of each kind that a library has: steps, momentum, noise, searches, black boxes, colours.
REPRESENTATIVE = [
    ("foolbox:LinfPGD", {"steps": 20, "rel_stepsize": 0.1}, LINF),
    ("foolbox:L2MomentumIterativeFastGradientMethod", {}, L2),
    ("foolbox:L1AdamPGD", {}, L1),
    ("foolbox:LinfDeepFoolAttack", {}, LINF),
    ("foolbox:LInfFMNAttack", {"steps": 30}, LINF),
    ("foolbox:L2FMNAttack", {"steps": 10}, L2),
    ("foolbox:InversionAttack", {}, (*LINF, *L2, *L1)),
    ("foolbox:LinfRepeatedAdditiveUniformNoiseAttack", {}, LINF),
    ("torchattacks:FGSM", {}, LINF),
    ("torchattacks:VMIFGSM", {}, LINF),
    ("torchattacks:PIFGSM", {}, LINF),
    ("torchattacks:SPSA", {}, LINF),
    ("torchattacks:APGDT", {"steps": 10}, (*LINF, *L2)),
    ("torchattacks:FAB", {"steps": 5}, L2),
    ("art:FastGradientMethod", {}, (*LINF, *L2, *L1)),
    ("art:ProjectedGradientDescentPyTorch", {"max_iter": 20, "num_random_init": 1}, (*LINF, *L1)),
    ("art:AutoProjectedGradientDescent", {"max_iter": 20, "nb_random_init": 1}, L2),
    ("art:SquareAttack", {}, LINF),
    ("art:DeepFool", {"max_iter": 10}, L2),
    ("advlib:fmn", {}, (*LINF, *L2, *L1)),
    ("advlib:pgd_linf", {}, LINF),
    ("advlib:apgd", {"n_iter": 20}, (*LINF, *L2, *L1)),
    ("advlib:df", {}, (*LINF, *L2)),
    ("autoattack:custom", {"attacks": ["apgd-ce"]}, L1),
]
# The standard version has no smaller budget than its own, and takes minutes for all laws.
FOR_STANDARD = ("budget", "model", "seed")


def names(scheme: str) -> list[str]:
    """Returns what a library calls attacks."""
    _, within = MODULES[scheme]
    library = ATTACK_SOURCES.load(scheme)
    if scheme == "advlib":
        library.attack("fmn")  # imports it with a stand-in for visdom
    module = import_module(".".join(filter(None, MODULES[scheme])))
    if not within:
        return list(module.__all__)
    return [
        name
        for name, thing in vars(module).items()
        if inspect.isclass(thing) or inspect.isfunction(thing)
    ]


def refusal(name: str) -> str:
    """Returns why an attack can't be had; empty where it can."""
    try:
        attack_class(name)
    except SpecError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("scheme", "least"), [("foolbox", 40), ("torchattacks", 25), ("art", 15), ("advlib", 13)]
)
def test_each_attack_of_a_library_is_known_or_refused_with_a_reason(scheme, least):
    peers.library(MODULES[scheme][0])
    roots = {"Attack"} if scheme == "foolbox" else set()
    told = {name: refusal(f"{scheme}:{name}") for name in names(scheme) if name not in roots}
    reasons = ("can't be used here: ", ": pip install ")
    unsaid = {name: why for name, why in told.items() if why and not any(r in why for r in reasons)}
    assert unsaid == {}
    assert sum(not why for why in told.values()) >= least


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "norms"), REPRESENTATIVE, ids=[each[0] for each in REPRESENTATIVE]
)
def test_it_keeps_the_laws_but_for_what_is_written_down(name, parameters, norms):
    module, _ = MODULES.get(name.partition(":")[0], ("pyautoattack", ""))
    peers.library(module)
    verdict = check_attack(name, parameters=parameters, norms=norms)
    assert {each.law.name for each in verdict.results} == {each.name for each in LAWS}
    assert [each.sentence for each in verdict.broken] == []


@pytest.mark.slow
def test_autoattack_in_full_keeps_the_laws():
    peers.library("pyautoattack")
    laws = [law(each) for each in FOR_STANDARD]
    verdict = check_attack("autoattack:standard", norms=LINF, laws=laws)
    assert [each.sentence for each in verdict.broken] == []
