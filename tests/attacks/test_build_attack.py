"""From a spec to an attack: parameters are checked against the attack's own fields."""

import dataclasses

import pytest
import torch

from gibbon.attacks import ATTACKS
from gibbon.attacks.base import Attack, iterates_of, move, parameters_of, threats_of
from gibbon.attacks.factory import build_attack
from gibbon.attacks.fgsm import FGSM
from gibbon.attacks.pgd import PGD
from gibbon.attacks.pgd_l1 import PGDL1
from gibbon.core.errors import SpecError, UnknownNameError
from gibbon.core.registry import Entry
from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel
from gibbon.specs.suite import AttackSpec


def spec(name: str = "pgd", epsilon: object = "8/255", **parameters) -> AttackSpec:
    return AttackSpec(name=name, epsilon=epsilon, **parameters)


def test_parameters_become_fields():
    attack = build_attack(spec(steps=7, restarts=2, step_size="2/255", loss="margin"))
    assert attack == PGD(steps=7, restarts=2, step_size="2/255", loss="margin")
    assert parameters_of(attack) == {
        "steps": 7,
        "restarts": 2,
        "step_size": 2 / 255,
        "random_start": True,
        "loss": "margin",
        "keep": "last",
    }


@pytest.mark.parametrize("written", ["2/255", 2 / 255, "0.01", 1, None])
def test_a_step_size_is_a_number_or_a_fraction(written):
    attack = build_attack(spec(step_size=written))
    expected = None if written is None else float(Epsilon.parse(written))
    assert parameters_of(attack)["step_size"] == expected


def test_pgd_in_l1_is_the_one_with_sparse_steps():
    attack = build_attack(spec(norm="l1", steps=7, sparsity=0.9, loss="margin"))
    assert attack == PGDL1(steps=7, sparsity=0.9, loss="margin")
    for norm in (None, "linf", "l2"):
        assert build_attack(spec(norm=norm)) == PGD()
    shared = parameters_of(PGD())
    assert {name: parameters_of(PGDL1())[name] for name in shared} == shared


def test_an_attack_can_not_be_changed():
    attack = FGSM()
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.steps = 3  # type: ignore[attr-defined]


def test_a_value_that_is_of_none_of_several_kinds_has_one_line():
    with pytest.raises(SpecError) as refused:
        build_attack(spec("bim", target="next"), where="here")
    assert str(refused.value) == (
        "here.target: Input should be 'none', 'random', 'least-likely' or 'second', or a valid "
        "integer, got 'next'"
    )


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ({"stpes": 3}, "here.stpes: attack 'pgd' has no parameter 'stpes'; did you mean 'steps'?"),
        ({"lable": "x"}, "did you mean 'label'?"),
        ({"steps": 0}, "here.steps: Input should be greater than or equal to 1, got 0"),
        ({"steps": "many"}, "here.steps: Input should be a valid integer, got 'many'"),
        ({"steps": 2.5}, "here.steps: "),
        ({"restarts": -1}, "here.restarts: "),
        ({"random_start": "yes"}, "here.random_start: "),
        ({"loss": "hinge"}, "here.loss: Input should be 'cross-entropy' or 'margin', got 'hinge'"),
        ({"keep": "best"}, "here.keep: "),
        ({"step_size": "long"}, "here.step_size: "),
        ({"step_size": -0.1}, "here.step_size: "),
        ({"step_size": "nan"}, "here.step_size: "),
    ],
)
def test_a_wrong_parameter_is_told_with_its_place(parameters, fault):
    with pytest.raises(SpecError) as told:
        build_attack(spec(**parameters), where="here")
    assert fault in str(told.value)


def test_every_wrong_parameter_is_told():
    with pytest.raises(SpecError) as told:
        build_attack(spec(steps=0, loss="hinge"), where="here")
    assert len(str(told.value).splitlines()) == 2


def test_an_attack_without_parameters_says_so():
    with pytest.raises(SpecError, match=r"no parameter 'steps'.* Its parameters: none"):
        build_attack(spec("fgsm", steps=3))


def test_a_norm_that_the_attack_can_not_do_is_told():
    with pytest.raises(SpecError, match=r"a\[0\]\.norm: attack 'fgsm' works in linf, not in l2"):
        build_attack(spec("fgsm", norm="l2"), where="a[0]")


def test_an_unknown_attack_is_told_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"a\[0\]\.name: unknown attack 'fgms'; did you m"):
        build_attack(spec("fgms"), where="a[0]")


class NotADataclass(Attack):
    """Has no parameters that could be named."""

    def propose(self, classifier, inputs, *, labels, threat, streams):
        """Yields the inputs."""
        yield inputs


@dataclasses.dataclass(frozen=True)
class Plain(NotADataclass):
    """A plain dataclass, checked by its annotations."""

    strength: float = 1.0


@pytest.fixture
def registered(monkeypatch):
    def register(name: str, thing: object) -> None:
        entries = {**ATTACKS._entries, name: Entry(name, "", lambda: thing)}
        monkeypatch.setattr(ATTACKS, "_entries", entries)

    ATTACKS.names()
    return register


@pytest.mark.parametrize("thing", [NotADataclass, NotADataclass(), Bounds, print])
def test_what_is_no_attack_is_refused(registered, thing):
    registered("odd", thing)
    with pytest.raises(SpecError, match="attack 'odd' must be a dataclass derived from"):
        build_attack(spec("odd"), where="here")


def test_a_plain_dataclass_is_an_attack(registered):
    registered("plain", Plain)
    assert build_attack(spec("plain", strength=2)) == Plain(strength=2.0)
    with pytest.raises(SpecError, match=r"here\.strength: .*, got 'big'"):
        build_attack(spec("plain", strength="big"), where="here")


@pytest.mark.parametrize("norms", [(), ("linf",), "linf"])
def test_an_attack_says_in_which_norms_it_works(registered, monkeypatch, norms):
    monkeypatch.setattr(Plain, "norms", norms)
    registered("plain", Plain)
    with pytest.raises(SpecError, match=r"here: attack 'plain' must say in which norms"):
        build_attack(spec("plain"), where="here")


@pytest.mark.parametrize(
    ("name", "parameters", "iterates"),
    [
        ("fgsm", {}, ("last",)),
        ("pgd", {"keep": "best-loss"}, ("best-loss",)),
        ("apgd-ce", {}, ("best-loss",)),
        ("fab-t", {}, ("nearest",)),
        ("square", {}, ("first-success",)),
        ("autoattack", {}, ("first-success", "nearest")),
        ("worst-of", {"attacks": [{"name": "pgd", "keep": "last"}, "fmn"]}, ("last", "nearest")),
    ],
)
def test_an_attack_says_which_of_its_points_it_returns(name, parameters, iterates):
    assert iterates_of(build_attack(spec(name, **parameters))) == iterates


def test_only_a_dataclass_has_parameters():
    with pytest.raises(SpecError, match="attack NotADataclass must be a dataclass"):
        parameters_of(NotADataclass())


def test_threat_models_come_one_an_epsilon_in_the_attacks_first_norm():
    asked = spec(epsilon=["0.1", "8/255"])
    first, second = threats_of(asked, PGD(), bounds=Bounds(-1.0, 1.0))
    assert first == ThreatModel(Norm.LINF, Epsilon.parse("0.1"), Bounds(-1.0, 1.0))
    assert str(second.epsilon) == "8/255"


def test_without_clipping_there_is_no_box():
    (threat,) = threats_of(spec(clip=False, norm="l2"), PGD(), bounds=Bounds(0.0, 1.0))
    assert (threat.norm, threat.bounds) == (Norm.L2, None)


def test_a_move_is_clipped_to_the_box_if_there_is_one():

    inputs, direction = torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[-1.0, 1.0, 1.0]])
    budget = Epsilon.parse("0.25")
    inside = move(inputs, direction, threat=ThreatModel(Norm.LINF, budget, Bounds(0.0, 1.0)))
    outside = move(inputs, direction, threat=ThreatModel(Norm.LINF, budget, None))
    assert inside.tolist() == [[0.0, 0.75, 1.0]]
    assert outside.tolist() == [[-0.25, 0.75, 1.25]]
