"""torchattacks: on a stand-in for its traps, and on the library itself where it is installed."""

import asking
import nets
import peers
import pytest
import torch
from torch import nn

from gibbon.conformance import LawStatus, check_attack
from gibbon.conformance.laws import law
from gibbon.core.errors import AttackError, SpecError
from gibbon.core.threat import Bounds, Norm
from gibbon.models.classifier import Classifier

MADE: list["Stand"] = []


class Stand:
    """An attack that guesses the device, prints, clips to [0, 1] and leaves training mode on.

    Arguments:
        decay (float): momentum factor. (Default: 1)
    """

    def __init__(self, model, eps=8 / 255, alpha=2 / 255, steps=10, decay=1) -> None:
        self.model, self.eps, self.alpha, self.steps, self.decay = model, eps, alpha, steps, decay
        self.device = next(model.parameters()).device
        self.was_training = model.training
        MADE.append(self)

    def __call__(self, images, labels):
        print("Attack mode is changed")  # noqa: T201
        assert images.min() >= 0
        assert images.max() <= 1
        self.model.train()
        return (images + self.eps).clamp(0, 1)


class StandL2(Stand):
    pass


class APGD(Stand):
    def __init__(self, model, norm="Linf", eps=0.1, n_classes=10, seed=0) -> None:
        super().__init__(model, eps)
        self.norm, self.n_classes, self.seed = norm, n_classes, seed

    def __call__(self, images, labels):
        torch.manual_seed(self.seed)
        return images + self.eps * (torch.rand(images.shape) - 0.5)


@pytest.fixture
def stand_in(plant):
    MADE.clear()
    kinds = {"DIFGSM": Stand, "PGDL2": StandL2, "APGD": APGD, "CW": Stand, "JSMA": Stand}
    plant("torchattacks", __version__="9.9", __all__=[*kinds, "GN"], GN=Stand, **kinds)


def test_inputs_of_another_box_are_scaled_and_so_is_epsilon(stand_in):
    bounds = Bounds(-2.0, 3.0)
    classifier, batch = nets.mlp(bounds=bounds), nets.random_batch(bounds=bounds)
    found = asking.judged(asking.built("torchattacks:DIFGSM"), classifier, batch, epsilon="1/2")
    assert MADE[0].eps == pytest.approx(0.1)
    assert found.verdict.unique().tolist() == [0]
    torch.testing.assert_close(
        found.candidates, (batch.inputs + 0.5).clamp(-2, 3), rtol=0, atol=2e-6
    )


def test_it_is_kept_from_clipping_where_the_suite_does_not_clip(stand_in):
    batch = nets.random_batch()
    attack = asking.built("torchattacks:DIFGSM")
    found = asking.judged(attack, nets.mlp(), batch, epsilon="0.3", clip=False)
    torch.testing.assert_close(found.candidates, batch.inputs + 0.3, rtol=0, atol=2e-6)
    assert float(found.candidates.max()) > 1.2


def test_switching_modes_and_printing_reach_nobody(stand_in, capfd):
    classifier = nets.conv()
    with classifier.evaluating():
        asking.asked(asking.built("torchattacks:DIFGSM"), classifier, nets.random_batch())
        assert not any(module.training for module in classifier.module.modules())
        assert classifier.snapshot.difference() is None
    assert not MADE[0].was_training
    assert MADE[0].device == torch.device("cpu")
    assert capfd.readouterr() == ("", "")


def test_seed_norm_and_classes_are_set(stand_in):
    batch = nets.random_batch()
    attack = asking.built("torchattacks:APGD", norm="l2")
    first = asking.asked(attack, nets.mlp(), batch, nets.threat("0.1", norm=Norm.L2))
    assert (MADE[0].norm, MADE[0].n_classes) == ("L2", nets.CLASSES)
    assert MADE[0].seed != 0
    again = asking.asked(attack, nets.mlp(), batch, nets.threat("0.1", norm=Norm.L2))
    assert torch.equal(first, again)


def test_the_type_of_a_parameter_is_what_its_documentation_says(stand_in):
    assert asking.built("torchattacks:DIFGSM", decay=0.5, alpha="1/255").decay == 0.5
    with pytest.raises(SpecError, match="decay: must be a number"):
        asking.built("torchattacks:DIFGSM", decay="much")


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("JSMA", {}, "can't be used here: it works in L0"),
        ("GN", {}, "can't be used here: it adds noise of any length"),
        ("DIFSGM", {}, "unknown attack of torchattacks 'DIFSGM'; did you mean 'DIFGSM'"),
        ("DIFGSM", {"eps": 0.1}, "takes no 'eps' here: the budget is the suite's `epsilon`"),
        ("APGD", {"seed": 1}, "takes no 'seed' here: random numbers follow from the suite's"),
        ("APGD", {"n_classes": 3}, "takes no 'n_classes' here"),
        ("DIFGSM", {"norm": "l2"}, "works in linf, not in l2"),
    ],
)
def test_what_can_not_be_asked_is_told(stand_in, name, parameters, told):
    with pytest.raises(SpecError, match=told):
        asking.built(f"torchattacks:{name}", **parameters)


class TIFGSM(Stand):
    pass


def test_what_works_on_three_channels_only_says_so(plant):
    plant("torchattacks", __version__="9.9", __all__=["TIFGSM"], TIFGSM=TIFGSM)
    with pytest.raises(
        AttackError, match=r"9\.9 works on pictures with 3 channels only, these have 1"
    ):
        asking.asked(asking.built("torchattacks:TIFGSM"), nets.mlp(), nets.random_batch())


class RobModel(nn.Module):
    """What torchattacks takes for a model whose inputs are normalised, by its name."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.mean, self.std = torch.tensor([0.5]), torch.tensor([0.25])

    def forward(self, inputs):
        return self.inner(inputs)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
class TestTheLibrary:
    @pytest.fixture(autouse=True)
    def installed(self):
        peers.library("torchattacks")

    @pytest.mark.parametrize("name", ["DIFGSM", "PGDL2"])
    def test_it_keeps_the_laws_but_for_what_is_written_down(self, name):
        assert check_attack(f"torchattacks:{name}").broken == ()

    def test_its_random_numbers_are_drawn_for_a_batch_as_is_written_down(self):
        verdict = check_attack("torchattacks:PGD", laws=[law("batch"), law("seed")])
        assert [each.law.name for each in verdict.departures] == ["batch"]

    def test_what_re_seeds_the_global_generators_leaves_them_alone(self):
        norms, laws = [Norm.L2], [law("generators"), law("seed"), law("budget")]
        assert check_attack("torchattacks:APGD", norms=norms, laws=laws).broken == ()

    def test_its_cw_fails_on_probabilities_as_is_written_down(self):
        (found,) = check_attack("torchattacks:CW", laws=[law("outputs")]).results
        assert found.status is LawStatus.DEPARTS

    def test_its_switch_for_normalised_inputs_stays_off(self):
        plain = nets.mlp()
        robust = Classifier(RobModel(plain.module), classes=4, input_shape=nets.SHAPE)
        attack, batch = asking.built("torchattacks:PGD"), nets.random_batch()
        candidates = asking.asked(attack, robust, batch)
        assert torch.equal(candidates, asking.asked(attack, plain, batch))
