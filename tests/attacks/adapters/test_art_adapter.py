"""ART: on a stand-in for its traps, and on the library itself where it is installed."""

import inspect

import asking
import nets
import numpy as np
import peers
import pytest
import torch

from gibbon.attacks.adapters.art import CLASSES, REFUSED
from gibbon.conformance import check_attack
from gibbon.core.errors import SpecError
from gibbon.core.threat import Bounds, Norm

ESTIMATORS: list["PyTorchClassifier"] = []
CALLS: list[dict] = []


class PyTorchClassifier:
    """Takes a GPU, standardises inputs and does not clip unless it is told otherwise."""

    def __init__(
        self,
        model,
        loss,
        input_shape,
        nb_classes,
        clip_values=None,
        preprocessing=(0.0, 1.0),
        device_type="gpu",
    ) -> None:
        self.model, self.input_shape, self.nb_classes = model, input_shape, nb_classes
        self.clip_values, self.preprocessing = clip_values, preprocessing
        self.device_type = device_type
        ESTIMATORS.append(self)


class ProjectedGradientDescentPyTorch:
    """Takes the predictions for labels where it is given none, and returns doubles."""

    def __init__(
        self,
        estimator: "PyTorchClassifier",
        norm: "int | float | str" = np.inf,
        eps: "int | float | np.ndarray" = 0.3,
        eps_step: "int | float | np.ndarray" = 0.1,
        decay: "float | None" = None,
        max_iter: "int" = 100,
        targeted: "bool" = True,
        batch_size: "int" = 32,
        summary_writer: "str | bool | SummaryWriter" = False,  # noqa: F821
        verbose: "bool" = True,
    ) -> None:
        self.said = {
            "norm": norm,
            "eps": eps,
            "eps_step": eps_step,
            "max_iter": max_iter,
            "targeted": targeted,
            "batch_size": batch_size,
            "verbose": verbose,
        }

    def generate(self, x, y=None):
        CALLS.append({**self.said, "x": x, "y": y})
        low, high = ESTIMATORS[-1].clip_values
        moved = np.clip(x.astype(np.float64) + self.said["eps"], low, high)
        x[:] = 0  # it may work in place on what it was given
        return moved


class DeepFool:
    def __init__(self, classifier, max_iter: int = 10, batch_size: int = 1) -> None:
        self.batch_size = batch_size

    def generate(self, x, y=None):
        return x + 0.02


class AutoAttack(DeepFool):
    pass


@pytest.fixture
def stand_in(plant):
    ESTIMATORS.clear()
    CALLS.clear()
    plant("art", __version__="9.9")
    plant("art.attacks")
    kinds = (ProjectedGradientDescentPyTorch, DeepFool, AutoAttack)
    plant("art.attacks.evasion", **{each.__name__: each for each in kinds})
    plant("art.estimators")
    plant("art.estimators.classification", PyTorchClassifier=PyTorchClassifier)


NAME = "art:ProjectedGradientDescentPyTorch"


def test_labels_box_and_device_are_told_and_nothing_is_standardised(stand_in):
    bounds = Bounds(-2.0, 3.0)
    classifier, batch = nets.mlp(bounds=bounds), nets.random_batch(bounds=bounds)
    inputs = batch.inputs.clone()
    found = asking.judged(asking.built(NAME, max_iter=3), classifier, batch, epsilon="1/2")
    estimator, call = ESTIMATORS[0], CALLS[0]
    assert (estimator.clip_values, estimator.preprocessing) == ((-2.0, 3.0), None)
    assert (estimator.device_type, estimator.nb_classes) == ("cpu", nets.CLASSES)
    assert estimator.input_shape == nets.SHAPE
    assert np.array_equal(call["y"], batch.labels.numpy())
    assert (call["eps"], call["max_iter"], call["batch_size"]) == (0.5, 3, len(batch.labels))
    assert (call["targeted"], call["verbose"]) == (False, False)
    assert found.verdict.unique().tolist() == [0]
    assert torch.equal(batch.inputs, inputs)


def test_doubles_come_back_as_the_inputs_dtype(stand_in):
    batch = nets.random_batch()
    candidates = asking.asked(asking.built(NAME), nets.mlp(), batch)
    assert candidates.dtype == torch.float32
    torch.testing.assert_close(candidates, (batch.inputs + 0.1).clamp(0, 1))


@pytest.mark.parametrize(("norm", "told"), [("linf", "inf"), ("l2", 2), ("l1", 1)])
def test_the_norm_is_told_in_its_words(stand_in, norm, told):
    asking.judged(asking.built(NAME, norm=norm), nets.mlp(), nets.random_batch(), norm=Norm(norm))
    assert CALLS[0]["norm"] == told


def test_lengths_may_be_fractions_and_stay_in_the_units_of_the_input(stand_in):
    bounds = Bounds(-2.0, 3.0)
    batch = nets.random_batch(bounds=bounds)
    asking.judged(asking.built(NAME, eps_step="2/255"), nets.mlp(bounds=bounds), batch)
    assert CALLS[0]["eps_step"] == 2 / 255


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        (NAME, {"eps": 0.1}, "takes no 'eps' here: the budget"),
        (NAME, {"batch_size": 8}, "takes no 'batch_size' here: the benchmark hands over whole"),
        (NAME, {"summary_writer": True}, "takes no 'summary_writer' here: libraries write no"),
        (NAME, {"max_itr": 8}, "no parameter 'max_itr'; did you mean 'max_iter'"),
        (NAME, {"max_iter": 2.5}, "max_iter: Input should be a valid integer"),
        (NAME, {"decay": "much"}, "decay: must be a number"),
        ("art:HopSkipJump", {}, "it draws from a generator that the operating system seeds"),
        ("art:Wasserstein", {}, "it measures in the Wasserstein distance"),
        ("art:DPatch", {}, "can't be used here: it makes a patch, which no norm measures"),
        ("art:DeepFol", {}, "did you mean 'DeepFool'"),
    ],
)
def test_what_can_not_be_asked_is_told(stand_in, name, parameters, told):
    with pytest.raises(SpecError, match=told):
        asking.built(name, **parameters)


def test_what_one_attack_alone_needs_is_named_where_it_is_missing(stand_in, absent):
    absent("multiprocess")
    with pytest.raises(SpecError, match=r"multiprocess is not installed: pip install multiproc"):
        asking.built("art:AutoAttack")


def test_a_search_is_given_no_budget(stand_in):
    batch = nets.random_batch()
    candidates = asking.asked(asking.built("art:DeepFool"), nets.mlp(), batch, nets.threat("9"))
    torch.testing.assert_close(candidates, batch.inputs + 0.02)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
class TestTheLibrary:
    @pytest.fixture(autouse=True)
    def installed(self):
        peers.library("art")

    def test_each_of_its_attacks_is_known_or_refused_with_a_reason(self):
        from art.attacks import evasion

        named = {name for name, kind in vars(evasion).items() if inspect.isclass(kind)}
        assert named <= {*CLASSES, *REFUSED}

    @pytest.mark.parametrize(
        ("name", "parameters"),
        [
            ("ProjectedGradientDescentPyTorch", {"max_iter": 5}),
            ("DeepFool", {"max_iter": 3}),
        ],
    )
    def test_it_keeps_the_laws_but_for_what_is_written_down(self, name, parameters):
        verdict = check_attack(f"art:{name}", parameters=parameters, norms=[Norm.L2])
        assert verdict.broken == ()
