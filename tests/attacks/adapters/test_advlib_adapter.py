"""adversarial-library: on a stand-in for its traps, and itself where it is installed."""

import sys

import asking
import nets
import peers
import pytest
import torch

from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.conformance import check_attack
from gibbon.core.errors import SpecError
from gibbon.core.threat import Bounds, Norm

CALLS: list[dict] = []


def fmn(
    model,
    inputs,
    labels,
    norm: float,
    targeted: bool = False,
    steps: int = 10,
    α_init: float = 1.0,
    callback=None,
):
    if inputs.min() < 0 or inputs.max() > 1:
        raise ValueError("Input values should be in the [0, 1] range.")
    CALLS.append({"norm": norm, "steps": steps, "α_init": α_init})
    return inputs.sub_(0.01).clamp_(0, 1)  # it may work in place


def pgd_linf(model, inputs, labels, ε, targeted: bool = False, steps: int = 40):
    CALLS.append({"ε": ε, "steps": steps})
    return inputs + ε


def apgd(model, inputs, labels, eps, norm: float, targeted: bool = False, n_iter: int = 100):
    CALLS.append({"eps": eps, "norm": norm, "n_iter": n_iter})
    return inputs


def tr(model, inputs, labels, iter: int = 100, p: float = 2, eps: float = 0.001):  # noqa: A002
    CALLS.append({"p": p, "eps": eps, "iter": iter})
    return inputs


def alma(model, inputs, labels, distance: str = "l2", num_steps: int = 10):
    CALLS.append({"distance": distance})
    return inputs


@pytest.fixture
def stand_in(plant):
    CALLS.clear()
    plant("adv_lib", __version__="9.9")
    plant("adv_lib.attacks", fmn=fmn, pgd_linf=pgd_linf, apgd=apgd, tr=tr, alma=alma)


@pytest.mark.parametrize(
    ("name", "norm", "told"),
    [
        ("pgd_linf", None, {"ε": 0.1, "steps": 40}),
        ("apgd", "linf", {"eps": 0.1, "norm": float("inf"), "n_iter": 100}),
        ("apgd", "l2", {"eps": 0.1, "norm": 2, "n_iter": 100}),
        ("fmn", "l1", {"norm": 1, "steps": 10, "α_init": 1.0}),
        ("tr", "l2", {"p": 2, "eps": 0.001, "iter": 100}),
        ("alma", "l1", {"distance": "l1"}),
    ],
)
def test_each_has_its_own_names_for_budget_and_norm(stand_in, name, norm, told):
    attack = asking.built(f"advlib:{name}", norm=norm)
    asking.judged(attack, nets.mlp(), nets.random_batch(), norm=Norm(norm) if norm else None)
    (call,) = CALLS
    assert call == told


def test_inputs_of_another_box_are_scaled_and_so_is_epsilon(stand_in):
    bounds = Bounds(-2.0, 3.0)
    classifier, batch = nets.mlp(bounds=bounds), nets.random_batch(bounds=bounds)
    inputs = batch.inputs.clone()
    attack = asking.built("advlib:fmn")
    assert isinstance(attack, MinimalNormAttack)
    found = asking.judged(attack, classifier, batch, epsilon="1/2")
    torch.testing.assert_close(found.candidates, (inputs - 0.05).clamp(-2, 3), rtol=0, atol=2e-6)
    asking.judged(asking.built("advlib:pgd_linf"), classifier, batch, epsilon="1/2")
    assert CALLS[-1]["ε"] == pytest.approx(0.1)
    assert torch.equal(batch.inputs, inputs)


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("pgd_linf", {"ε": 0.1}, "takes no 'ε' here: the budget is the suite's"),
        ("apgd", {"eps": 0.1}, "takes no 'eps' here: the budget is the suite's"),
        ("fmn", {"callback": 1}, "takes no 'callback' here: it draws with visdom"),
        ("fmn", {"inputs": 1}, "takes no 'inputs' here: they are the dataset's"),
        ("fmn", {"α_int": 1}, "no parameter 'α_int'; did you mean 'α_init'"),
        ("alma", {"norm": "linf"}, "works in l2, l1, not in linf"),
        ("sigma_zero", {}, "can't be used here: it works in L0"),
        ("fmm", {}, "unknown attack of adv-lib 'fmm'; did you mean 'fmn'"),
        ("fab", {}, "unknown attack of adv-lib 'fab'"),
    ],
)
def test_what_can_not_be_asked_is_told(stand_in, name, parameters, told):
    with pytest.raises(SpecError, match=told):
        asking.built(f"advlib:{name}", **parameters)


def test_a_parameter_of_that_name_that_is_no_budget_can_be_set(stand_in):
    asking.asked(asking.built("advlib:tr", eps=0.02), nets.mlp(), nets.random_batch())
    assert CALLS[0]["eps"] == 0.02


def test_a_missing_visdom_has_a_stand_in_during_the_import_only(absent, tmp_path, monkeypatch):
    absent("adv_lib")
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[1:])  # found again, in the folder below
    monkeypatch.delitem(sys.modules, "visdom", raising=False)
    package = tmp_path / "adv_lib"
    (package / "attacks").mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '9.9'\n")
    (package / "attacks" / "__init__.py").write_text(
        "import visdom\n\ndef fmn(model, inputs, labels, norm):\n    return inputs\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    asking.built("advlib:fmn")
    assert "visdom" not in sys.modules
    for name in ("adv_lib", "adv_lib.attacks"):
        sys.modules.pop(name)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
class TestTheLibrary:
    @pytest.fixture(autouse=True)
    def installed(self):
        peers.library("adv_lib")

    @pytest.mark.parametrize(
        ("name", "parameters", "norm"),
        [
            ("fmn", {}, Norm.L2),
            ("pgd_linf", {"steps": 5, "relative_step_size": 0.5}, Norm.LINF),
            ("df", {}, Norm.L2),
        ],
    )
    def test_it_keeps_the_laws_but_for_what_is_written_down(self, name, parameters, norm):
        verdict = check_attack(f"advlib:{name}", parameters=parameters, norms=[norm])
        assert verdict.broken == ()
