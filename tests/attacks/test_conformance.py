"""Laws that every registered attack keeps, those of installed packages too.

They are the laws that the authors of attacks get (`gibbon.conformance.laws`).
"""

import pytest

from gibbon.attacks import ATTACKS
from gibbon.attacks.base import Attack
from gibbon.attacks.factory import build_attack
from gibbon.conformance.laws import LAWS, law
from gibbon.core.threat import Norm
from gibbon.specs.suite import AttackSpec

VARIANTS = {
    "pgd": [
        {"steps": 4},
        {"steps": 4, "restarts": 3, "keep": "best-loss"},
        {"steps": 4, "loss": "margin", "keep": "first-success"},
        {"steps": 3, "random_start": False, "step_size": "1/20", "keep": "best-loss"},
    ],
    "pgd-l1": [
        {"steps": 4, "restarts": 2, "sparsity": 0.8, "keep": "best-loss"},
        {"steps": 4, "random_start": False, "sparsity": 0, "keep": "first-success"},
    ],
    "bim": [{}, {"steps": 4, "step_size": "1/10", "target": "least-likely", "keep": "best-loss"}],
    "mi-fgsm": [
        {"steps": 4, "step_size": "1/10", "keep": "first-success"},
        {"steps": 4, "target": "second", "keep": "best-loss"},
    ],
    "di-mi-fgsm": [{"steps": 3, "probability": 1, "smallest": 0.4}],
    "ti-mi-fgsm": [{"steps": 3}],
    "vmi-fgsm": [{"steps": 3, "neighbours": 2}],
    "apgd-ce": [{"steps": 5}, {"steps": 4, "restarts": 2, "keep": "first-success"}],
    "apgd-dlr": [{"steps": 5, "keep": "first-success"}],
    "apgd-t": [{"steps": 4, "n_target_classes": 2}],
    "deepfool": [{"steps": 5}, {"steps": 5, "classes": 3}],
    "ddn": [
        {"steps": 15, "gamma": 0.2, "init_norm": "1/2"},
        {"steps": 15, "gamma": 0.2, "init_norm": "1/2", "target": "second"},
    ],
    "fmn": [{"steps": 15}, {"steps": 15, "target": "second"}],
    "fab": [{"steps": 4}, {"steps": 3, "restarts": 2}],
    "fab-t": [{"steps": 4, "target_classes": 2}, {"steps": 3, "restarts": 2}],
    "square": [{"queries": 30}, {"queries": 15, "restarts": 2, "target": "second"}],
    "lbfgs": [{"iterations": 3, "searches": 2, "init_constant": 1.0, "target": "second"}],
    "cw": [
        {"steps": 20, "searches": 3, "step_size": 0.05, "init_constant": 1.0},
        {"steps": 20, "searches": 2, "step_size": 0.05, "init_constant": 1.0, "target": "random"},
    ],
    "worst-of": [
        {"attacks": [{"name": "apgd-ce", "steps": 3}, {"name": "fab-t", "steps": 2}]},
        {"attacks": [{"name": "fmn", "steps": 15}]},
    ],
    "autoattack": [{"steps": 3, "target_classes": 2, "queries": 10}],
    "autoattack-l1": [{"steps": 4, "restarts": 2, "target_classes": 2, "queries": 10}],
}
# What can't be made without: of the others the defaults are tried.
NEEDED = {"worst-of": {"attacks": [{"name": "apgd-ce"}, {"name": "fab-t", "steps": 20}]}}
# With their own parameters they take more than a few seconds to come near the optimum.
THOROUGH = ("autoattack", "autoattack-l1", "cw", "lbfgs", "square")
# What our own attacks may say that they depart from: nothing that a number stands on.
EXCUSED = {"optimum", "larger-budget"}
# They choose step sizes by comparing values: after many steps rounding decides some of these.
COMPARING = {"apgd-ce", "apgd-dlr", "apgd-t", "autoattack", "autoattack-l1", "worst-of"}


def cases():
    for name in ATTACKS.names():
        for norm in ATTACKS.load(name).norms:
            for number, parameters in enumerate(VARIANTS.get(name, [{}])):
                yield pytest.param(name, norm, parameters, id=f"{name}-{norm}-{number}")


def unhurried():
    for name in ATTACKS.names():
        marks = [pytest.mark.slow] if name in THOROUGH else []
        for norm in ATTACKS.load(name).norms:
            yield pytest.param(name, norm, id=f"{name}-{norm}", marks=marks)


every_attack = pytest.mark.parametrize(("name", "norm", "parameters"), list(cases()))


def built(name: str, norm: Norm, parameters: dict) -> Attack:
    return build_attack(AttackSpec(name=name, norm=norm, epsilon="0.1", **parameters))


def check(attack: Attack, norm: Norm, name: str) -> None:
    seen = law(name).check(attack, norm)
    if name not in attack.departures:
        assert seen.broken == ""


@every_attack
@pytest.mark.parametrize("kept", [each.name for each in LAWS if each.name not in EXCUSED])
def test_an_attack_keeps_the_law(name, norm, parameters, kept):
    assert law(kept).check(built(name, norm, parameters), norm).broken == ""


@every_attack
def test_a_larger_budget_misleads_more_of_a_linear_model(name, norm, parameters):
    changed = {**parameters, "step_size": None} if name == "pgd" else parameters
    check(built(name, norm, changed), norm, "larger-budget")


@pytest.mark.parametrize(("name", "norm"), list(unhurried()))
def test_an_attack_comes_near_the_optimum_of_a_linear_model(name, norm):
    check(built(name, norm, NEEDED.get(name, {})), norm, "optimum")


@pytest.mark.parametrize("name", ATTACKS.names())
def test_an_attack_departs_from_no_law_that_numbers_stand_on(name):
    norm = ATTACKS.load(name).norms[0]
    excused = EXCUSED | ({"batch"} if name in COMPARING else set())
    assert built(name, norm, NEEDED.get(name, {})).departures.keys() <= excused
