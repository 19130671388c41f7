"""Our gradient attacks against other libraries' on the same models."""

import math

import nets
import peers
import pytest
import torch
from torch import Tensor, nn

from gibbon.attacks.apgd import APGDCE, APGDDLR, APGDT
from gibbon.attacks.base import Attack
from gibbon.attacks.bim import BIM
from gibbon.attacks.di_mi_fgsm import DIMIFGSM
from gibbon.attacks.mi_fgsm import MIFGSM
from gibbon.attacks.pgd_l1 import PGDL1
from gibbon.attacks.ti_mi_fgsm import TIMIFGSM
from gibbon.attacks.vmi_fgsm import VMIFGSM
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.verify.answers import ask

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

KINDS = {"linear": nets.linear, "mlp": nets.mlp, "conv": nets.conv}
BATCH = nets.random_batch(200)


@pytest.fixture(params=KINDS)
def evaluated(request):
    with KINDS[request.param]().evaluating() as classifier:
        yield classifier


def proposed(
    attack: Attack,
    classifier: Classifier,
    threat: ThreatModel,
    labels: Tensor,
    *,
    batch: Batch = BATCH,
) -> Tensor:
    streams = ExampleStreams.derive(0, batch.ids)
    (candidates,) = attack.propose(
        classifier, batch.inputs, labels=labels, threat=threat, streams=streams
    )
    return candidates


def misled(classifier: Classifier, candidates: Tensor, labels: Tensor) -> Tensor:
    return ask(classifier, candidates).predicted != labels


def assert_same(classifier: Classifier, found: Tensor, theirs: Tensor, labels: Tensor) -> None:
    """The same points but where a gradient of nearly zero changes its sign by rounding."""
    near = (found - theirs).abs().flatten(1) < 1e-5
    assert float(near.double().mean()) > 0.995
    assert torch.equal(misled(classifier, found, labels), misled(classifier, theirs, labels))


def assert_same_rate(one: Tensor, other: Tensor) -> None:
    """Two rates of independent draws differ by less than four standard errors."""
    first, second = float(one.double().mean()), float(other.double().mean())
    pooled = (first + second) / 2
    assert 0.05 < pooled < 0.95  # else it would say nothing
    assert abs(first - second) < 4 * math.sqrt(2 * pooled * (1 - pooled) / len(one))


def test_bim_is_foolboxs_and_torchattacks(evaluated):
    threat = nets.threat("0.1")
    found = proposed(BIM(steps=10, step_size=0.02), evaluated, threat, BATCH.labels)
    foolbox = peers.Foolbox()
    attack = foolbox.library.attacks.LinfBasicIterativeAttack(
        abs_stepsize=0.02, steps=10, random_start=False
    )
    theirs = foolbox._run(attack, evaluated, BATCH, threat)
    assert_same(evaluated, found, theirs, BATCH.labels)
    torchattacks = peers.library("torchattacks")
    theirs = torchattacks.BIM(evaluated.module, eps=0.1, alpha=0.02, steps=10)
    assert_same(evaluated, found, theirs(BATCH.inputs, BATCH.labels), BATCH.labels)


def test_mi_fgsm_is_torchattacks(evaluated):
    torchattacks = peers.library("torchattacks")
    theirs = torchattacks.MIFGSM(evaluated.module, eps=0.1, alpha=0.02, steps=10, decay=0.7)
    attack = MIFGSM(steps=10, step_size=0.02, decay=0.7)
    found = proposed(attack, evaluated, nets.threat("0.1"), BATCH.labels)
    assert_same(evaluated, found, theirs(BATCH.inputs, BATCH.labels), BATCH.labels)


def test_ti_mi_fgsm_without_diverse_inputs_is_torchattacks():
    """On pictures of three channels: it knows no others."""
    torchattacks = peers.library("torchattacks")
    body = nn.Sequential(nn.Flatten(), nn.Linear(108, 24), nn.Tanh(), nn.Linear(24, nets.CLASSES))
    module = nets.filled(body, seed=2, spread=3.0)
    classifier = Classifier(module, classes=nets.CLASSES, input_shape=(3, 6, 6))
    colours = nets.random_batch(200, shape=(3, 6, 6))
    attack = TIMIFGSM(steps=5, step_size=0.02, kernel=5, sigma=2 / 3)
    with classifier.evaluating():
        theirs = torchattacks.TIFGSM(
            module, eps=0.1, alpha=0.02, steps=5, decay=1.0,
            len_kernel=5, nsig=3, diversity_prob=0.0,
        )  # fmt: skip
        found = proposed(attack, classifier, nets.threat("0.1"), colours.labels, batch=colours)
        candidates = theirs(colours.inputs, colours.labels)
        assert_same(classifier, found, candidates, colours.labels)


@pytest.mark.parametrize(
    ("name", "attack", "theirs"),
    [
        ("VMIFGSM", VMIFGSM(steps=5, step_size=0.006), {"N": 20}),
        ("DIFGSM", DIMIFGSM(steps=5, step_size=0.006, smallest=0.9), {"decay": 1.0}),
    ],
)
def test_attacks_for_transfer_mislead_as_often_as_torchattacks(name, attack, theirs):
    torchattacks = peers.library("torchattacks")
    with nets.mlp().evaluating() as classifier, torch.random.fork_rng():
        torch.manual_seed(0)
        labels = ask(classifier, BATCH.inputs).predicted
        other = getattr(torchattacks, name)(
            classifier.module, eps=0.03, alpha=0.006, steps=5, **theirs
        )
        candidates = other(BATCH.inputs, labels)
        found = proposed(attack, classifier, nets.threat("0.03"), labels)
        assert_same_rate(misled(classifier, found, labels), misled(classifier, candidates, labels))


def test_sparse_steps_mislead_as_often_as_foolboxs():
    foolbox = peers.Foolbox()
    threat = nets.threat("0.6", norm=Norm.L1)
    with nets.mlp().evaluating() as classifier:
        labels = ask(classifier, BATCH.inputs).predicted
        attack = foolbox.library.attacks.SparseL1DescentAttack(
            quantile=0.9, abs_stepsize=0.0375, steps=40, random_start=False
        )
        model = foolbox._model(classifier, threat)
        _, theirs, _ = attack(model, BATCH.inputs, labels, epsilons=threat.radius)
        ours = PGDL1(sparsity=0.9, step_size=0.0375, random_start=False)
        found = misled(classifier, proposed(ours, classifier, threat, labels), labels)
        by_theirs = misled(classifier, theirs, labels)
    assert_same_rate(found, by_theirs)


@pytest.mark.parametrize("kind", ["ce", "dlr", "t"])
@pytest.mark.parametrize(
    ("norm", "epsilon"), [(Norm.LINF, "0.03"), (Norm.L2, "0.15"), (Norm.L1, "0.6")]
)
def test_apgd_misleads_as_often_as_the_authors_code(kind, norm, epsilon):
    theirs = peers.library("pyautoattack.autopgd_base")
    threat = nets.threat(epsilon, norm=norm)
    settings = {
        "n_iter": 50,
        "norm": {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}[norm],
        "eps": threat.radius,
        "seed": 0,
        "device": "cpu",
        "use_largereps": norm is Norm.L1,
    }
    with nets.mlp(spread=6.0).evaluating() as classifier, torch.random.fork_rng():
        labels = ask(classifier, BATCH.inputs).predicted
        if kind == "t":
            peer = theirs.APGDAttack_targeted(classifier.module, n_target_classes=3, **settings)
        else:
            peer = theirs.APGDAttack(classifier.module, loss=kind, **settings)
        by_theirs = misled(classifier, peer.perturb(BATCH.inputs, labels), labels)
        attack = {"ce": APGDCE, "dlr": APGDDLR, "t": APGDT}[kind](steps=50)
        by_ours = misled(classifier, proposed(attack, classifier, threat, labels), labels)
    assert_same_rate(by_ours, by_theirs)
    assert float((by_ours == by_theirs).double().mean()) > (0.9 if norm is Norm.L1 else 0.95)
