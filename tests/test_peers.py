"""Our attacks against other libraries' on the same model: the same algorithm, the same outcome."""

import math

import nets
import peers
import pytest
import torch
from torch import Tensor

from gibbon.attacks.base import Attack
from gibbon.attacks.fgsm import FGSM
from gibbon.attacks.fgsm_naive import FGSMNaive
from gibbon.attacks.noise_sign import NoiseSign
from gibbon.attacks.noise_uniform import NoiseUniform
from gibbon.attacks.pgd import PGD
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.verify.answers import ask
from gibbon.verify.proposal import propose

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

BOX = Bounds(0.0, 1.0)
KINDS = {"linear": nets.linear, "mlp": nets.mlp, "conv": nets.conv}
BATCH = nets.random_batch(200)


@pytest.fixture(params=peers.LIBRARIES)
def peer(request):
    return peers.LIBRARIES[request.param]()


@pytest.fixture(params=KINDS)
def evaluated(request):
    classifier = KINDS[request.param]()
    with classifier.evaluating():
        yield classifier


def ours(attack: Attack, classifier: Classifier, threat: ThreatModel) -> Tensor:
    streams = ExampleStreams.derive(0, BATCH.ids)
    (tries,) = propose(attack, classifier, BATCH, threats=[threat], streams=streams)
    (candidates,) = tries
    return candidates


def misled(classifier: Classifier, candidates: Tensor) -> Tensor:
    return ask(classifier, candidates).predicted != BATCH.labels


def assert_same(classifier: Classifier, found: Tensor, theirs: Tensor) -> None:
    """The same candidates to 1e-6, and the same examples misclassified.

    A coordinate whose gradient is zero to rounding may go either way, in a few of 7,200.
    """
    apart = (found - theirs).abs() > 1e-6
    assert int(apart.sum()) <= 2
    assert torch.equal(misled(classifier, found), misled(classifier, theirs))


def skip_unclipped(peer, bounds: Bounds | None) -> None:
    if bounds is None and peer.name == "torchattacks":
        pytest.skip("torchattacks always clips")


@pytest.mark.parametrize("bounds", [BOX, None], ids=["clipped", "unclipped"])
@pytest.mark.parametrize("attack", [FGSM(), FGSMNaive()], ids=["exact", "naive"])
@pytest.mark.parametrize("epsilon", ["0.02", "0.1", "0.3"])
def test_fgsm(peer, evaluated, attack, epsilon, bounds):
    skip_unclipped(peer, bounds)
    threat = nets.threat(epsilon, bounds=bounds)
    theirs = peer.fgsm(evaluated, BATCH, threat)
    assert_same(evaluated, ours(attack, evaluated, threat), theirs)


@pytest.mark.parametrize("bounds", [BOX, None], ids=["clipped", "unclipped"])
def test_linf_pgd_without_a_random_start(peer, evaluated, bounds):
    skip_unclipped(peer, bounds)
    threat = nets.threat("0.1", bounds=bounds)
    theirs = peer.pgd(evaluated, BATCH, threat, steps=10, step=0.02)
    attack = PGD(steps=10, step_size=0.02, random_start=False)
    assert_same(evaluated, ours(attack, evaluated, threat), theirs)


@pytest.mark.parametrize("bounds", [BOX, None], ids=["clipped", "unclipped"])
def test_l2_pgd_without_a_random_start(peer, evaluated, bounds):
    skip_unclipped(peer, bounds)
    if peer.name == "art" and bounds is not None:
        pytest.skip("ART clips to the box before it projects to the ball: another algorithm")
    threat = nets.threat("0.5", norm=Norm.L2, bounds=bounds)
    theirs = peer.pgd(evaluated, BATCH, threat, steps=10, step=0.1)
    found = ours(PGD(steps=10, step_size=0.1, random_start=False), evaluated, threat)
    torch.testing.assert_close(found, theirs, rtol=0, atol=1e-5)
    assert torch.equal(misled(evaluated, found), misled(evaluated, theirs))


def assert_same_rate(one: Tensor, other: Tensor) -> None:
    """Two rates of independent draws differ by less than four standard errors."""
    first, second = float(one.double().mean()), float(other.double().mean())
    pooled = (first + second) / 2
    assert 0.05 < pooled < 0.95  # else it would say nothing
    assert abs(first - second) < 4 * math.sqrt(2 * pooled * (1 - pooled) / len(one))


def labelled_by(classifier: Classifier) -> Batch:
    return Batch(BATCH.ids, BATCH.inputs, ask(classifier, BATCH.inputs).predicted)


def test_uniform_noise_misleads_as_often_as_foolboxs(evaluated):
    foolbox = peers.Foolbox()
    threat = nets.threat("1", bounds=BOX)
    right = labelled_by(evaluated)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = foolbox.noise_uniform(evaluated, right, threat)
    found = ours(NoiseUniform(), evaluated, threat)
    assert_same_rate(
        ask(evaluated, found).predicted != right.labels,
        ask(evaluated, theirs).predicted != right.labels,
    )
    # Foolbox stretches the noise of each example to exactly epsilon: on 36 pixels by 3 %.
    spread = float((found - BATCH.inputs).std())
    assert spread == pytest.approx(float((theirs - BATCH.inputs).std()), rel=0.05)


def test_sign_noise_misleads_as_often_as_torchs_own_signs(evaluated):
    threat = nets.threat("1/2", bounds=BOX)
    right = labelled_by(evaluated)
    signs = torch.randn(BATCH.inputs.shape, generator=nets.generator(6)).sign()
    theirs = (BATCH.inputs + threat.radius * signs).clamp(0, 1)
    found = ours(NoiseSign(), evaluated, threat)
    assert_same_rate(
        ask(evaluated, found).predicted != right.labels,
        ask(evaluated, theirs).predicted != right.labels,
    )


def test_where_the_softmax_saturates_ours_finds_at_least_as_much(peer):
    classifier = nets.linear(spread=2_000.0)
    with classifier.evaluating():
        right = labelled_by(classifier)
        threat = nets.threat("0.3", bounds=BOX)
        theirs = peer.fgsm(classifier, right, threat)
        streams = ExampleStreams.derive(0, right.ids)
        (tries,) = propose(FGSM(), classifier, right, threats=[threat], streams=streams)
        (candidates,) = tries
        found = ask(classifier, candidates).predicted != right.labels
        by_theirs = ask(classifier, theirs).predicted != right.labels
    assert int(found.sum()) > int(by_theirs.sum())
