"""Where other libraries are known to be wrong: each fault is shown in the library, and not here."""

from dataclasses import replace

import asking
import nets
import peers
import pytest
import torch
from torch import Tensor, nn

from gibbon.attacks.adapters.adapting import Task
from gibbon.attacks.apgd import APGDDLR
from gibbon.attacks.base import Attack
from gibbon.attacks.cw import CW
from gibbon.attacks.mi_fgsm import MIFGSM
from gibbon.attacks.pgd import PGD
from gibbon.core.errors import AttackError, OutputError
from gibbon.core.threat import Bounds, Verdict
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


def misled(classifier: Classifier, candidates: Tensor, batch: Batch) -> int:
    with classifier.evaluating():
        return int((classifier.predict(candidates).argmax(1) != batch.labels).sum())


def ours(attack: Attack, classifier: Classifier, batch: Batch, *, epsilon: object) -> int:
    found = asking.judged(attack, classifier, batch, epsilon=epsilon)
    assert found.verdict.unique().tolist() == [int(Verdict.VALID)]
    return int(found.any_misled.sum())


def test_cw_with_negative_logits():
    """torchattacks takes the best other class over the logits and zero."""
    library = peers.library("torchattacks")
    classifier = nets.mlp()
    batch = nets.labelled(classifier, nets.random_batch(20))
    settings = {"c": 10, "steps": 100, "lr": 0.05}
    attack = CW(steps=100, searches=4, step_size=0.05, init_constant=1.0)
    for shift, least, most in ((0.0, 15, 20), (100.0, 0, 0)):
        with torch.no_grad():
            classifier.module[-1].bias.sub_(shift)
        with classifier.evaluating():
            found = library.CW(classifier.module, **settings)(batch.inputs, batch.labels)
        assert least <= misled(classifier, found, batch) <= most
        assert ours(attack, classifier, batch, epsilon="100") == 20


class Plateau(nn.Module):
    """Two classes: the second gains a little, then nothing for a while, then a lot."""

    def forward(self, inputs: Tensor) -> Tensor:
        moved = inputs.flatten(1).sum(1) - 0.5
        gain = moved.clamp(max=0.025) + 10 * (moved - 0.055).relu() - 0.1
        return torch.stack([torch.zeros_like(gain), gain], dim=1)


def test_momentum_where_the_gradient_is_zero():
    """torchattacks divides by its mean: NaN, whose sign is 0, from there on to the last step."""
    library = peers.library("torchattacks")
    classifier = Classifier(Plateau(), classes=2, input_shape=(1, 1, 1))
    batch = Batch(torch.arange(3), torch.full((3, 1, 1, 1), 0.5), torch.zeros(3, dtype=torch.int64))
    with classifier.evaluating():
        attack = library.MIFGSM(classifier.module, eps=0.1, alpha=0.01, steps=10)
        found = attack(batch.inputs, batch.labels)
    torch.testing.assert_close(found, batch.inputs + 0.03)  # where the plateau was reached
    assert misled(classifier, found, batch) == 0
    assert ours(MIFGSM(steps=10, step_size=0.01), classifier, batch, epsilon="0.1") == 3


def test_the_ratio_of_logits_with_two_classes():
    """pyautoattack asks for a third logit; its adapter says so, and ours takes the margin."""
    library = peers.library("pyautoattack.autopgd_base")
    classifier = nets.linear(classes=2)
    batch = nets.labelled(classifier, nets.random_batch(20))
    with classifier.evaluating():
        attack = library.APGDAttack(
            classifier.module, n_iter=10, norm="Linf", eps=0.3, loss="dlr", seed=0, device="cpu"
        )
        with pytest.raises(IndexError):
            attack.perturb(batch.inputs, batch.labels)
    with pytest.raises(AttackError, match="apgd-dlr, whose loss needs 3 classes; the model has 2"):
        asking.asked(asking.built("autoattack:custom", attacks=["apgd-dlr"]), classifier, batch)
    assert ours(APGDDLR(steps=10), classifier, batch, epsilon="0.3") == 20


class RootAtZero(nn.Module):
    """A linear model whose gradient is NaN, as that of a norm at 0 often is."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        return self.inner(inputs) + (inputs.flatten(1).sum(1, keepdim=True) * 0).sqrt()


@pytest.mark.parametrize(
    ("package", "name", "parameters"),
    [
        ("foolbox", "foolbox:LinfPGD", {"random_start": False}),
        ("torchattacks", "torchattacks:PGD", {"random_start": False}),
        ("torchattacks", "torchattacks:MIFGSM", {}),
        ("adv_lib", "advlib:pgd_linf", {"random_init": False}),
    ],
)
def test_gradients_that_are_nan(package, name, parameters):
    """Libraries take them for no gradient, and return the clean input as if it were robust."""
    peers.library(package)
    inner = nets.linear()
    batch = nets.labelled(inner, nets.random_batch(20))
    classifier = Classifier(RootAtZero(inner.module), classes=nets.CLASSES, input_shape=nets.SHAPE)
    attack = asking.built(name, **parameters)
    assert int(asking.judged(attack, inner, batch, epsilon="0.3").any_misled.sum()) > 10
    returned: list[Tensor] = []
    foreign = type(attack).foreign

    def noted(task: Task) -> Tensor:
        returned.append(foreign.run(task))
        return returned[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(attack), "foreign", replace(foreign, run=noted))
        with pytest.raises(OutputError, match="input gradient is NaN or infinite"):
            asking.asked(attack, classifier, batch)
    assert torch.equal(returned[0], batch.inputs)
    with pytest.raises(OutputError, match="input gradient is NaN or infinite"):
        asking.judged(PGD(random_start=False), classifier, batch)


def test_zeros_come_back_where_a_search_fails():
    """foolbox returns them as what it found; here the clean input stands, and misleads nobody."""
    library = peers.library("foolbox")
    classifier = nets.mlp()
    batch = nets.labelled(classifier, nets.random_batch(20))
    settings = {"steps": 2, "binary_search_steps": 1, "initial_const": 1e-6}
    with classifier.evaluating():
        model = library.PyTorchModel(classifier.module, bounds=(0, 1), device="cpu")
        attack = library.attacks.L2CarliniWagnerAttack(**settings)
        raw, _, _ = attack(model, batch.inputs.clone(), batch.labels, epsilons=None)
    assert torch.equal(raw, torch.zeros_like(raw))
    same = asking.built("foolbox:L2CarliniWagnerAttack", **settings)
    found = asking.judged(same, classifier, batch, epsilon="1")
    assert torch.equal(found.candidates, batch.inputs)
    assert not found.any_misled.any()


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("torchattacks", "torchattacks:PGD"),
        ("art", "art:ProjectedGradientDescentPyTorch"),
        ("foolbox", "foolbox:LinfPGD"),
        ("adv_lib", "advlib:pgd_linf"),
    ],
)
def test_at_epsilon_zero_nothing_moves(package, name):
    peers.library(package)
    batch = nets.random_batch(20)
    candidates = asking.asked(asking.built(name), nets.mlp(), batch, nets.threat("0"))
    assert torch.equal(candidates, batch.inputs)


def test_torchattacks_clips_at_epsilon_zero_too():
    library = peers.library("torchattacks")
    bounds = Bounds(-2.0, 3.0)
    classifier, batch = nets.mlp(bounds=bounds), nets.random_batch(20, bounds=bounds)
    with classifier.evaluating():
        moved = library.PGD(classifier.module, eps=0.0)(batch.inputs, batch.labels)
    assert not torch.equal(moved, batch.inputs)
    threat = nets.threat("0", bounds=bounds)
    for attack in (PGD(steps=3), asking.built("torchattacks:PGD")):
        assert torch.equal(asking.asked(attack, classifier, batch, threat), batch.inputs)


def test_art_refuses_epsilon_zero():
    art = peers.Art()
    classifier, batch = nets.mlp(), nets.random_batch(20)
    estimator = art._classifier(classifier, nets.threat("0"))
    with pytest.raises(ValueError, match="larger than zero"):
        art.attacks.AutoProjectedGradientDescent(estimator, eps=0.0)
    attack = asking.built("art:AutoProjectedGradientDescent")
    candidates = asking.asked(attack, classifier, batch, nets.threat("0"))
    assert torch.equal(candidates, batch.inputs)
