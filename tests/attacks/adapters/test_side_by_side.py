"""What `attack-comparison` sets beside each other is the same attack with the same settings."""

import asking
import nets
import peers
import pytest
import torch

from gibbon.attacks.adapters import ATTACK_SOURCES
from gibbon.attacks.factory import build_attack
from gibbon.core.threat import Norm
from gibbon.metrics.distances import distances
from gibbon.specs.decoding import read_suite
from gibbon.specs.suite import AttackSpec

SUITE = read_suite("attack-comparison").experiments[0]
SPECS = {spec.label: spec for spec in SUITE.attacks}
# By label: what turns the random start off, and the parameters that say the same as ours.
PGD = {
    "foolbox-pgd": ({"random_start": False}, {"steps": "steps", "abs_stepsize": "step_size"}),
    "art-pgd": ({"num_random_init": 0}, {"max_iter": "steps", "eps_step": "step_size"}),
    "torchattacks-pgd": ({"random_start": False}, {"steps": "steps", "alpha": "step_size"}),
}
SEARCHES = {
    "foolbox-fmn": ("fmn", Norm.LINF),
    "advlib-fmn": ("fmn", Norm.LINF),
    "foolbox-deepfool-l2": ("deepfool-l2", Norm.L2),
    "foolbox-ddn": ("ddn", Norm.L2),
    "foolbox-cw": ("cw", Norm.L2),
}


def changed(label: str, **parameters: object):
    spec = SPECS[label]
    asked = {"name": spec.name, "epsilon": spec.epsilon, "norm": spec.norm, **spec.parameters}
    return build_attack(AttackSpec(**{**asked, **parameters}))


def test_every_attack_of_a_library_is_optional_and_has_its_partner_here():
    foreign = {label for label, spec in SPECS.items() if ":" in spec.name}
    assert foreign == {*PGD, *SEARCHES, "autoattack-standard"}
    assert all(SPECS[label].optional for label in foreign)
    assert {SPECS[label].name.partition(":")[0] for label in foreign} == {*ATTACK_SOURCES.names()}
    for label, (partner, norm) in SEARCHES.items():
        assert SPECS[label].epsilon == SPECS[partner].epsilon
        assert (SPECS[partner].norm or build_attack(SPECS[partner]).norms[0]) is norm


@pytest.mark.parametrize("label", PGD)
def test_pgd_has_the_settings_of_ours(label):
    _, same = PGD[label]
    ours, theirs = SPECS["pgd"], SPECS[label]
    assert theirs.epsilon == ours.epsilon
    for name, own in same.items():
        assert theirs.parameters[name] == ours.parameters[own]


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("label", PGD)
def test_without_the_random_start_pgd_is_ours_step_by_step(label):
    peers.library({"art-pgd": "art"}.get(label, label.partition("-")[0]))
    off, _ = PGD[label]
    classifier, batch = nets.mlp(), nets.random_batch(100)
    theirs = asking.asked(changed(label, **off), classifier, batch)
    ours = asking.asked(changed("pgd", random_start=False), classifier, batch)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)
    # With it they start elsewhere, and stay within the same budget.
    started = asking.asked(changed(label), classifier, batch)
    assert not torch.allclose(started, theirs, rtol=0, atol=1e-3)


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("label", SEARCHES)
def test_searches_come_as_near_as_ours_to_a_quarter(label):
    peers.library({"advlib-fmn": "adv_lib"}.get(label, label.partition("-")[0]))
    partner, norm = SEARCHES[label]
    classifier = nets.mlp()
    batch = nets.labelled(classifier, nets.random_batch(30))
    threat = nets.threat("100", norm=norm)
    medians = [
        float(
            distances(
                asking.asked(changed(each), classifier, batch, threat), batch.inputs, norm=norm
            ).median()
        )
        for each in (partner, label)
    ]
    assert medians[0] <= 1.02 * medians[1]
    assert medians[1] <= 1.25 * medians[0]
