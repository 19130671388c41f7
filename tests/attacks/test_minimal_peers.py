"""Minimal-norm attacks against other libraries' on the zoo: no larger a median distance.

DeepFool is the same algorithm step by step.  Known faults of foolbox 3.3.4 that show here: its L2
projection of FMN divides a norm by itself and projects nothing.
"""

import numpy as np
import peers
import pytest
import torch
from torch import Tensor

from gibbon.attacks.cw import CW
from gibbon.attacks.ddn import DDN
from gibbon.attacks.deepfool import DeepFool
from gibbon.attacks.fab import FAB
from gibbon.attacks.fab_t import FABT
from gibbon.attacks.fmn import FMN
from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm
from gibbon.datasets import DataRequest
from gibbon.datasets.base import Batch
from gibbon.datasets.registered.mnist import load
from gibbon.metrics.distances import distances
from gibbon.models.classifier import Classifier

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

BOX = Bounds(0.0, 1.0)
PICTURES = 100


@pytest.fixture(scope="module")
def batch() -> Batch:
    return load(DataRequest(split="test")).batch(np.arange(PICTURES))


@pytest.fixture(scope="module", params=["softmax", "maxout"])
def classifier(request):
    from gibbon_zoo.zoo import build

    built = build(request.param)
    with built.evaluating():
        yield built


def measured(classifier: Classifier, points: Tensor, batch: Batch, norm: Norm) -> Tensor:
    """How far each point is, infinite where it is classified rightly: nobody is believed."""
    wrong = classifier.predict(points).argmax(1) != batch.labels
    return torch.where(wrong, distances(points, batch.inputs, norm=norm), torch.inf)


def ours(attack: MinimalNormAttack, classifier: Classifier, batch: Batch, norm: Norm) -> Tensor:
    (points,) = attack.nearest(
        classifier, batch.inputs, labels=batch.labels, norm=norm, bounds=BOX,
        streams=ExampleStreams.derive(0, batch.ids),
    )  # fmt: skip
    return measured(classifier, points, batch, norm)


def foolboxs(attack: str, classifier: Classifier, batch: Batch, norm: Norm, **parts) -> Tensor:
    library = peers.library("foolbox")
    model = library.PyTorchModel(classifier.module, bounds=(0, 1), device="cpu")
    made = getattr(library.attacks, attack)(**parts)
    points, _, _ = made(model, batch.inputs.clone(), batch.labels, epsilons=None)
    return measured(classifier, points.detach(), batch, norm)


def assert_no_farther(found: Tensor, theirs: Tensor, *, factor: float = 1.02) -> None:
    assert bool(torch.isfinite(found).all())
    assert float(found.median()) <= factor * float(theirs.median())


@pytest.mark.parametrize(
    ("norm", "attack"), [(Norm.L2, "L2DeepFoolAttack"), (Norm.LINF, "LinfDeepFoolAttack")]
)
def test_deepfool_goes_where_foolboxs_goes(classifier, batch, norm, attack):
    found = ours(DeepFool(), classifier, batch, norm)
    theirs = foolboxs(attack, classifier, batch, norm)
    same = (found - theirs).abs() <= 1e-3 * theirs + 1e-5
    assert float(same.float().mean()) > 0.97
    assert_no_farther(found, theirs, factor=1.005)


def test_ddn_is_no_farther_than_foolboxs(classifier, batch):
    found = ours(DDN(steps=50), classifier, batch, Norm.L2)
    theirs = foolboxs("DDNAttack", classifier, batch, Norm.L2, steps=50)
    assert_no_farther(found, theirs)


@pytest.mark.parametrize(
    ("norm", "attack"),
    [(Norm.LINF, "LInfFMNAttack"), (Norm.L2, "L2FMNAttack"), (Norm.L1, "L1FMNAttack")],
)
def test_fmn_is_no_farther_than_foolboxs(classifier, batch, norm, attack):
    found = ours(FMN(steps=50), classifier, batch, norm)
    theirs = foolboxs(attack, classifier, batch, norm, steps=50)
    assert_no_farther(found, theirs)


def test_cw_is_no_farther_than_foolboxs(classifier, batch):
    few = Batch(batch.ids[:20], batch.inputs[:20], batch.labels[:20])
    attack = CW(steps=60, searches=4, step_size=0.1, init_constant=1.0, abort_early=False)
    found = ours(attack, classifier, few, Norm.L2)
    theirs = foolboxs(
        "L2CarliniWagnerAttack", classifier, few, Norm.L2, steps=60, binary_search_steps=4,
        stepsize=0.1, initial_const=1.0, abort_early=False,
    )  # fmt: skip
    assert_no_farther(found, theirs)


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("targeted", [False, True])
def test_fab_is_no_farther_than_pyautoattacks(classifier, batch, norm, targeted):
    library = peers.library("pyautoattack.fab_pt")
    few = Batch(batch.ids[:50], batch.inputs[:50], batch.labels[:50])
    attack = FABT(steps=10) if targeted else FAB(steps=10)
    found = ours(attack, classifier, few, norm)
    made = library.FABAttack_PT(
        classifier.module, n_restarts=1, n_iter=10, eps=1e9, seed=0, device="cpu",
        norm={Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}[norm], targeted=targeted,
    )  # fmt: skip
    theirs = measured(classifier, made.perturb(few.inputs.clone(), few.labels), few, norm)
    assert_no_farther(found, theirs)
