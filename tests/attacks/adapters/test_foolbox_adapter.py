"""foolbox: on a stand-in for its traps, and on the library itself where it is installed."""

import asking
import nets
import peers
import pytest
import torch

from gibbon.attacks.base import parameters_of
from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.conformance import check_attack
from gibbon.core.errors import SpecError
from gibbon.core.threat import Bounds, Norm

CALLS: list[dict] = []


class Attack:
    """foolbox's root."""


class AttackWithDistance(Attack):
    pass


class FixedEpsilonAttack(AttackWithDistance):
    pass


class MinimizationAttack(AttackWithDistance):
    pass


class LpDistance:
    def __init__(self, p: float) -> None:
        self.p = p


class PyTorchModel:
    def __init__(self, module, *, bounds, device) -> None:
        if module.training:
            raise AssertionError("in training mode")
        self.module, self.bounds, self.device = module, bounds, device


def called(attack, model, inputs, labels, epsilons):
    assert inputs.min().item() >= model.bounds[0]
    assert inputs.max().item() <= model.bounds[1]
    CALLS.append({"attack": attack, "bounds": model.bounds, "epsilons": epsilons})
    raw = (inputs + 0.4).clamp(*model.bounds)
    clipped = inputs + (raw - inputs).clamp(max=epsilons or 1.0)
    return raw, clipped, torch.ones(len(inputs), dtype=torch.bool)


class LinfPGD(FixedEpsilonAttack):
    """Raw points go too far; clipped ones don't; all are said to have succeeded."""

    distance = LpDistance(float("inf"))

    def __init__(self, *, steps: int = 40, random_start: bool = True) -> None:
        self.steps = steps

    def __call__(self, model, inputs, labels, *, epsilons):
        return called(self, model, inputs, labels, epsilons)


class L2Nearest(MinimizationAttack):
    distance = LpDistance(2)

    def __init__(self, *, steps: int = 9) -> None:
        self.steps = steps

    def __call__(self, model, inputs, labels, *, epsilons):
        return called(self, model, inputs, labels, epsilons)


class Flexible(L2Nearest):
    distance = property(lambda self: self.told)

    def __init__(self, *, distance: LpDistance | None = None) -> None:
        self.told = distance


class Constrained(L2Nearest):
    """Calls itself one of L1, whatever it is told to minimise."""

    distance = LpDistance(1)

    def __init__(self, *, constraint: str = "l2") -> None:
        self.told = constraint


class L0Nearest(L2Nearest):
    distance = LpDistance(0)


class L1BrendelBethgeAttack(L2Nearest):
    distance = LpDistance(1)


class GenAttack(LinfPGD):
    pass


class PointwiseAttack(Flexible):
    """Fails when it is made, wherever it is looked at."""

    distance = property(lambda self: self.never)

    def __init__(self, init_attack=None) -> None:
        pass


@pytest.fixture
def stand_in(plant):
    CALLS.clear()
    plant("foolbox", __version__="9.9", PyTorchModel=PyTorchModel)
    kinds = (LinfPGD, L2Nearest, Flexible, L0Nearest, L1BrendelBethgeAttack, GenAttack, Constrained)
    named = {each.__name__: each for each in (*kinds, PointwiseAttack)}
    plant("foolbox.attacks", Attack=Attack, PGD=LinfPGD, **named)
    plant("foolbox.distances", LpDistance=LpDistance)
    plant(
        "foolbox.attacks.base",
        Attack=Attack,
        AttackWithDistance=AttackWithDistance,
        MinimizationAttack=MinimizationAttack,
    )


def test_clipped_points_are_taken_and_its_word_on_success_is_not(stand_in):
    classifier = nets.linear()
    batch = nets.labelled(classifier, nets.random_batch())
    found = asking.judged(asking.built("foolbox:LinfPGD", steps=3), classifier, batch, epsilon=0.01)
    assert found.verdict.unique().tolist() == [0]
    assert float(found.distance.max()) == pytest.approx(0.01)
    assert not bool(found.any_misled.all())
    assert (CALLS[0]["attack"].steps, CALLS[0]["epsilons"]) == (3, 0.01)


def test_raw_points_are_taken_from_a_search_which_gets_no_epsilon(stand_in):
    attack = asking.built("foolbox:L2Nearest")
    assert isinstance(attack, MinimalNormAttack)
    batch = nets.random_batch()
    candidates = asking.asked(attack, nets.mlp(), batch, nets.threat("9", norm=Norm.L2))
    torch.testing.assert_close(candidates, (batch.inputs + 0.4).clamp(0, 1))
    assert CALLS[0]["epsilons"] is None


def test_strict_bounds_hold_inputs_that_float32_rounds_out(stand_in):
    bounds = Bounds(-0.1, 0.1)
    batch = nets.random_batch(bounds=bounds)
    batch.inputs[batch.inputs > 0] = bounds.high
    batch.inputs[batch.inputs <= 0] = bounds.low
    attack = asking.built("foolbox:LinfPGD")
    found = asking.judged(attack, nets.mlp(bounds=bounds), batch)
    assert found.verdict.unique().tolist() == [0]
    low, high = CALLS[0]["bounds"]
    assert low < bounds.low < bounds.high < high


def test_without_clipping_the_bounds_are_out_of_reach(stand_in):
    attack = asking.built("foolbox:LinfPGD")
    asking.judged(attack, nets.mlp(), nets.random_batch(), epsilon="0.3", clip=False)
    assert CALLS[0]["bounds"] == (-0.3, 1.3)


def test_the_norm_is_the_classs_own_or_the_suites(stand_in):
    assert asking.built("foolbox:LinfPGD").norms == (Norm.LINF,)
    assert asking.built("foolbox:PGD").norms == (Norm.LINF,)
    assert asking.built("foolbox:L2Nearest").norms == (Norm.L2,)
    attack = asking.built("foolbox:Flexible", norm="l1")
    asking.judged(attack, nets.mlp(), nets.random_batch(), norm=Norm.L1)
    assert CALLS[0]["attack"].told.p == 1
    for name in ("linf", "l2"):
        attack = asking.built("foolbox:Constrained", norm=name)
        asking.judged(attack, nets.mlp(), nets.random_batch(), norm=Norm(name))
        assert CALLS[-1]["attack"].told == name
    with pytest.raises(SpecError, match="works in l2, linf, not in l1"):
        asking.built("foolbox:Constrained", norm="l1")
    for norm, told in (("l2", "works in linf, not in l2"), ("l1", "works in linf, not in l1")):
        with pytest.raises(SpecError, match=told):
            asking.built("foolbox:LinfPGD", norm=norm)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("L0Nearest", "can't be used here: it works in L0"),
        ("GenAttack", "can't be used here: it needs target classes"),
        ("PointwiseAttack", "can't be used here: it is made without a distance"),
        ("LinfPDG", "unknown attack of foolbox 'LinfPDG'; did you mean 'LinfPGD'"),
        ("Attack", "unknown attack of foolbox 'Attack'"),
        ("__name__", "name"),
    ],
)
def test_what_can_not_be_used_is_told(stand_in, name, told):
    with pytest.raises((SpecError, ValueError), match=told):
        asking.built(f"foolbox:{name}")


def test_what_compiles_its_loop_names_the_compiler_where_it_is_missing(stand_in, absent, plant):
    absent("numba")
    with pytest.raises(SpecError, match="numba is not installed: pip install numba"):
        asking.built("foolbox:L1BrendelBethgeAttack")
    plant("numba")
    assert asking.built("foolbox:L1BrendelBethgeAttack").norms == (Norm.L1,)


@pytest.mark.parametrize("parameter", ["distance", "targeted"])
def test_what_the_benchmark_sets_is_refused(stand_in, parameter):
    with pytest.raises(SpecError, match=f"takes no '{parameter}' here"):
        asking.built("foolbox:Flexible", **{parameter: 1})


@pytest.mark.peers
class TestTheLibrary:
    @pytest.fixture(autouse=True)
    def installed(self):
        peers.library("foolbox")

    @pytest.mark.parametrize("name", ["LinfPGD", "L2PGD", "L1PGD", "L2DeepFoolAttack"])
    def test_it_keeps_the_laws_but_for_what_is_written_down(self, name):
        short = {"steps": 10, "rel_stepsize": 0.25} if name.endswith("PGD") else {"steps": 20}
        verdict = check_attack(f"foolbox:{name}", parameters=short)
        assert verdict.broken == ()

    def test_its_release_is_part_of_the_parameters(self):
        import foolbox

        parameters = parameters_of(asking.built("foolbox:LinfPGD", abs_stepsize="2/255"))
        assert parameters["release"] == f"foolbox {foolbox.__version__}"
        assert parameters["abs_stepsize"] == 2 / 255
        assert parameters["steps"] == 40

    def test_inputs_on_bounds_that_float32_rounds_are_taken(self):
        bounds = Bounds(-0.1, 0.1)
        batch = nets.random_batch(bounds=bounds)
        batch.inputs[batch.inputs > 0] = bounds.high
        classifier = nets.mlp(bounds=bounds)
        found = asking.judged(asking.built("foolbox:LinfPGD", steps=3), classifier, batch)
        assert found.verdict.unique().tolist() == [0]
