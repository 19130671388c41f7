"""pyautoattack: on a stand-in for its traps, and on the package where it is installed."""

import logging
import sys
import time

import asking
import nets
import peers
import pytest
import torch
from torch import nn

from gibbon.conformance import check_attack
from gibbon.core.errors import AttackError, SpecError
from gibbon.core.threat import Bounds, Norm
from gibbon.models.classifier import Classifier

MADE: list["AutoAttack"] = []


class Targets:
    n_target_classes = 9


class AutoAttack:
    """Seeds itself from the clock, looks for nine targets, and replaces the trace function."""

    def __init__(
        self, model, *, attacks=None, device="cpu", eps=0.3, norm="Linf", seed=None,
        version="standard",
    ) -> None:  # fmt: skip
        self.model, self.norm, self.eps, self.device = model, norm, eps, device
        self.seed = time.time() if seed is None else seed
        versions = {"standard": ["apgd-ce", "apgd-t", "fab-t", "square"], "rand": ["apgd-dlr"]}
        self.attacks_to_run = versions.get(version, attacks)
        self.apgd_targeted, self.fab = Targets(), Targets()
        MADE.append(self)

    def run_standard_evaluation(self, x, y, /, *, batch_size=250):
        sys.settrace(None)
        logging.getLogger("auto-attack").warning("it seems to be a dynamic defense!")
        torch.manual_seed(int(self.seed))
        self.batch_size = batch_size
        with torch.no_grad():
            # Those that are wrong already, and those where it fails, come back as they were.
            moved = self.model(x).argmax(1) == y
        found = x + self.eps * (torch.rand(x.shape) - 0.5) * moved.view(-1, 1, 1, 1)
        return found.clamp(0, 1), y


@pytest.fixture
def stand_in(plant):
    MADE.clear()
    plant("pyautoattack", __version__="9.9", AutoAttack=AutoAttack)


def test_seed_norm_budget_and_number_of_targets_are_set(stand_in):
    bounds = Bounds(-2.0, 3.0)
    classifier, batch = nets.mlp(bounds=bounds), nets.random_batch(bounds=bounds)
    attack = asking.built("autoattack:standard", norm="l2")
    threat = nets.threat("1/2", norm=Norm.L2, bounds=bounds)
    first = asking.asked(attack, classifier, batch, threat)
    made = MADE[0]
    assert (made.norm, made.eps, made.batch_size) == ("L2", pytest.approx(0.1), len(batch.labels))
    assert made.apgd_targeted.n_target_classes == made.fab.n_target_classes == nets.CLASSES - 1
    assert torch.equal(first, asking.asked(attack, classifier, batch, threat))


def test_the_trace_function_is_put_back_and_nothing_is_logged(stand_in, caplog):
    attack, classifier, batch = asking.built("autoattack:rand"), nets.mlp(), nets.random_batch()
    before = sys.gettrace()
    sys.settrace(trace := lambda *_: None)
    try:
        asking.asked(attack, classifier, batch)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)
    assert not caplog.records


def few(classes: int) -> Classifier:
    net = nn.Sequential(nn.Flatten(), nn.Linear(nets.PIXEL_COUNT, classes))
    return Classifier(net, classes=classes, input_shape=nets.SHAPE)


@pytest.mark.parametrize(
    ("version", "parameters", "needed"),
    [
        ("standard", {}, 4),
        ("rand", {}, 3),
        ("custom", {"attacks": ["apgd-t"]}, 4),
        ("custom", {"attacks": ["apgd-ce"]}, 2),
    ],
)
def test_too_few_classes_for_a_loss_are_told(stand_in, version, parameters, needed):
    attack = asking.built(f"autoattack:{version}", **parameters)
    for classes in (2, 3, 4):
        batch = nets.random_batch()
        batch.labels.clamp_(max=classes - 1)
        if classes >= needed:
            asking.asked(attack, few(classes), batch)
            continue
        told = f"loss needs {needed} classes; the model has {classes}"
        with pytest.raises(AttackError, match=told):
            asking.asked(attack, few(classes), batch)


@pytest.mark.parametrize(
    ("version", "parameters", "told"),
    [
        ("standrad", {}, "unknown attack of pyautoattack 'standrad'; did you mean 'standard'"),
        ("standard", {"eps": 0.1}, "takes no 'eps' here: the budget is the suite's"),
        ("standard", {"seed": 1}, "takes no 'seed' here: random numbers follow"),
        ("standard", {"version": "plus"}, "takes no 'version' here: it stands after the colon"),
        ("standard", {"attacks": ["fab"]}, "takes no 'attacks' here: they are the version's"),
    ],
)
def test_what_can_not_be_asked_is_told(stand_in, version, parameters, told):
    with pytest.raises(SpecError, match=told):
        asking.built(f"autoattack:{version}", **parameters)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
class TestThePackage:
    @pytest.fixture(autouse=True)
    def installed(self):
        peers.library("pyautoattack")

    def test_it_misleads_most_with_few_classes_and_with_one_example(self):
        classifier = nets.conv()
        batch = nets.labelled(classifier, nets.random_batch(4))
        attack = asking.built("autoattack:custom", attacks=["apgd-ce", "fab-t"])
        found = asking.judged(attack, classifier, batch)
        assert found.verdict.unique().tolist() == [0]
        assert int(found.any_misled.sum()) >= 3
        one = nets.Batch(batch.ids[:1], batch.inputs[:1], batch.labels[:1])
        assert asking.judged(attack, classifier, one).candidates.shape == (1, *nets.SHAPE)

    @pytest.mark.slow
    @pytest.mark.parametrize("members", [["apgd-ce"], ["apgd-t", "fab-t"]])
    def test_it_keeps_the_laws_but_for_what_is_written_down(self, members):
        verdict = check_attack(
            "autoattack:custom", parameters={"attacks": members}, norms=[Norm.LINF]
        )
        assert verdict.broken == ()
