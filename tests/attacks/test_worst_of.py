"""The worst of several attacks: survivors only, nobody believed, nothing lost."""

from typing import ClassVar

import nets
import pytest
import torch

from gibbon.attacks.apgd import APGDCE, APGDT
from gibbon.attacks.autoattack import AutoAttack, AutoAttackL1
from gibbon.attacks.base import Attack
from gibbon.attacks.fab_t import FABT
from gibbon.attacks.factory import build_attack
from gibbon.attacks.noise_sign import NoiseSign
from gibbon.attacks.pgd import PGD
from gibbon.attacks.square import Square
from gibbon.attacks.worst_of import WorstOf
from gibbon.core.errors import AttackError, SpecError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, Verdict
from gibbon.specs.suite import AttackSpec
from gibbon.verify.judge import judge
from gibbon.verify.proposal import TriesProposal, propose

EPSILON = "0.05"
COUNT = 40
WEAK = [NoiseSign(), PGD(steps=3, keep="first-success"), Square(queries=20)]


class Planted(Attack):
    """Notes what it was given, and returns what a function makes of it."""

    norms: ClassVar = (Norm.LINF, Norm.L2)

    def __init__(self, act=lambda inputs: [inputs.clone()]) -> None:
        self.act = act
        self.seen: list[int] = []

    def propose(self, classifier, inputs, *, labels, threat, streams):
        self.seen.append(len(inputs))
        return self.act(inputs)


def case(count: int = COUNT):
    classifier = nets.mlp()
    batch = nets.labelled(classifier, nets.random_batch(count))
    labels = batch.labels.clone()
    labels[:5] = (labels[:5] + 1) % classifier.classes  # clean mistakes
    return classifier, type(batch)(batch.ids, batch.inputs, labels)


def tries(attack, classifier, batch, *, norm=Norm.LINF, epsilon=EPSILON):
    threat = nets.threat(epsilon, norm=norm)
    streams = ExampleStreams.derive(3, batch.ids)
    with classifier.evaluating():
        (proposed,) = propose(attack, classifier, batch, threats=[threat], streams=streams)
        return list(proposed), threat


def misled(attack, classifier, batch, **asked):
    proposed, threat = tries(attack, classifier, batch, **asked)
    with classifier.evaluating():
        return judge(classifier, batch, proposed=TriesProposal(proposed), threat=threat)


def of(*attacks) -> WorstOf:
    return WorstOf(attacks=list(attacks))


def spec(attacks, **more) -> Attack:
    asked = AttackSpec(name="worst-of", epsilon=EPSILON, attacks=attacks, **more)
    return build_attack(asked, where="attacks[1]")


def test_an_example_is_misled_by_the_list_where_any_member_misleads_it_alone():
    classifier, batch = case()
    together = misled(of(*WEAK), classifier, batch).any_misled
    alone = [misled(each, classifier, batch).any_misled for each in WEAK]
    assert torch.equal(together, torch.stack(alone).any(0) | (torch.arange(COUNT) < 5))
    assert len({int(each.sum()) for each in alone}) > 1
    assert 5 < int(together.sum()) < COUNT


def test_members_in_another_order_mislead_the_same_examples():
    classifier, batch = case()
    forth, back = of(*WEAK), of(*reversed(WEAK))
    assert torch.equal(
        misled(forth, classifier, batch).any_misled, misled(back, classifier, batch).any_misled
    )


def test_each_member_gets_what_is_left_and_clean_mistakes_are_left_out():
    classifier, batch = case()
    first, second, third = Planted(), Planted(), Planted()
    pgd = PGD(steps=10, keep="first-success")
    proposed, threat = tries(of(first, pgd, second, third), classifier, batch)
    won = int(misled(pgd, classifier, batch).any_misled[5:].sum())
    assert 0 < won < COUNT - 5
    assert [each.seen for each in (first, second, third)] == [
        [COUNT - 5],
        [COUNT - 5 - won],
        [COUNT - 5 - won],
    ]
    assert torch.equal(proposed[0][:5], batch.inputs[:5])
    with classifier.evaluating():
        by_pgd = judge(
            classifier, batch, proposed=TriesProposal([proposed[1]]), threat=threat
        ).any_misled
    assert torch.equal(proposed[3][by_pgd], proposed[1][by_pgd])


def test_no_member_is_asked_where_nothing_is_left():
    classifier, batch = case()
    with classifier.evaluating():
        batch.labels.copy_((classifier.predict(batch.inputs).argmax(1) + 1) % classifier.classes)
    planted = Planted()
    proposed, _ = tries(of(planted, PGD(steps=2)), classifier, batch)
    assert planted.seen == []
    assert all(torch.equal(each, batch.inputs) for each in proposed)


def far_away(inputs):
    return [torch.where(inputs > 0.5, 0.0, 1.0)]


def nothing_finite(inputs):
    return [torch.full_like(inputs, torch.nan)]


def out_of_the_box(inputs):
    return [inputs + 40]


@pytest.mark.parametrize(
    ("act", "verdict"),
    [
        (far_away, Verdict.OUT_OF_BUDGET),
        (nothing_finite, Verdict.NOT_FINITE),
        (out_of_the_box, Verdict.OUT_OF_BOUNDS),
    ],
)
def test_what_breaks_the_rules_takes_no_example_from_later_members_and_is_flagged(act, verdict):
    classifier, batch = case()
    cheat, honest = Planted(act), Planted()
    found = misled(of(cheat, honest), classifier, batch)
    assert honest.seen == [COUNT - 5]
    assert set(found.verdict[5:].tolist()) == {verdict}
    assert int(found.any_misled.sum()) == 5
    pgd = PGD(steps=10)
    assert torch.equal(
        misled(of(cheat, pgd), classifier, batch).any_misled[5:],
        misled(pgd, classifier, batch).any_misled[5:],
    )


def test_of_several_tries_of_a_member_the_best_that_counts_is_taken():
    classifier, batch = case()
    pgd = PGD(steps=10)
    ((good,), _) = tries(pgd, classifier, batch)
    rows: list[int] = []

    def mixed(inputs):
        rows.append(len(inputs))
        own = good[5:]
        yield from (inputs.clone(), own, far_away(inputs)[0], inputs.clone())

    together = misled(of(Planted(mixed)), classifier, batch).any_misled
    assert torch.equal(together[5:], misled(pgd, classifier, batch).any_misled[5:])
    assert rows == [COUNT - 5]


def test_a_member_may_spoil_what_it_is_given_without_effect_on_the_others():
    classifier, batch = case()

    def spoil(inputs):
        inputs.fill_(0.5)
        return [inputs]

    pgd = PGD(steps=5)
    spoilt = misled(of(Planted(spoil), pgd), classifier, batch)
    assert torch.equal(spoilt.any_misled[5:], misled(pgd, classifier, batch).any_misled[5:])


def test_a_member_that_raises_fails_the_attack_and_is_named():
    classifier, batch = case()

    def fail(inputs):
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck") as caught:
        tries(of(PGD(steps=1), Planted(fail)), classifier, batch)
    assert caught.value.__notes__ == ["This was member 'Planted' of the list."]
    with pytest.raises(AttackError, match="no candidate"):
        tries(of(Planted(lambda inputs: [])), classifier, batch)


def test_members_make_no_passes_for_what_is_misled_already():
    classifier, batch = case()

    def passes(attack):
        before = classifier.passes.forward, classifier.passes.backward
        tries(attack, classifier, batch)
        return (
            classifier.passes.forward - before[0],
            classifier.passes.backward - before[1],
        )

    strong, late = PGD(steps=20, keep="first-success"), PGD(steps=10, loss="margin")
    won = int(misled(strong, classifier, batch).any_misled[5:].sum())
    left = COUNT - 5 - won
    alone, both = passes(of(strong)), passes(of(strong, late))
    assert both[1] - alone[1] == 10 * left  # its steps
    assert both[0] - alone[0] == 10 * left + left  # and one pass to check its try
    assert passes(late) == (10 * COUNT, 10 * COUNT)


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
@pytest.mark.parametrize("part", [1, 7])
def test_the_batch_split_changes_nothing(norm, part):
    classifier, batch = case(21)
    attack = of(
        NoiseSign() if norm is Norm.LINF else PGD(steps=2), Square(queries=15), FABT(steps=3)
    )
    epsilon = EPSILON if norm is Norm.LINF else "0.4"
    whole, _ = tries(attack, classifier, batch, norm=norm, epsilon=epsilon)
    pieces = []
    for start in range(0, 21, part):
        rows = slice(start, start + part)
        piece = type(batch)(batch.ids[rows], batch.inputs[rows], batch.labels[rows])
        pieces.append(tries(attack, classifier, piece, norm=norm, epsilon=epsilon)[0])
    for number, candidates in enumerate(whole):
        joined = torch.cat([piece[number] for piece in pieces])
        assert torch.allclose(joined, candidates, atol=1e-5)


def test_what_it_can_do_follows_from_its_members():
    assert of(FABT(), PGD()).norms == (Norm.LINF, Norm.L2)
    assert of(FABT(), Square()).needs_gradient
    assert not of(NoiseSign(), Square()).needs_gradient
    assert of(APGDCE(), PGD()).departures == APGDCE.departures
    assert of(PGD()).departures == {}
    assert of(FABT(), PGD(), PGD(loss="margin")).members == ("FABT", "PGD", "PGD-2")


def test_a_table_makes_members_that_stop_at_the_first_success():
    built = spec([{"name": "apgd-ce", "restarts": 2}, {"name": "fab-t"}, "square"])
    assert built.made_of == (APGDCE(restarts=2, keep="first-success"), FABT(), Square())
    assert built.members == ("apgd-ce", "fab-t", "square")
    assert spec("pgd, square").made_of == (PGD(keep="first-success"), Square())
    kept = spec([{"name": "pgd", "keep": "last"}, {"name": "pgd", "label": "stopping"}])
    assert kept.made_of == (PGD(keep="last"), PGD(keep="first-success"))
    assert kept.members == ("pgd", "stopping")
    inner = spec([{"name": "worst-of", "attacks": ["pgd"]}, "square"])
    assert inner.made_of[0].made_of == (PGD(keep="first-success"),)


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        (None, "attacks[1].attacks: must be a list of attacks"),
        ([], "attacks[1].attacks: must be a list of attacks"),
        ([3], "attacks[1].attacks[0]: must be a table"),
        ([{"steps": 3}], "attacks[1].attacks[0].name: is missing"),
        ([{"name": "pgdd"}], "attacks[1].attacks[0].name: unknown attack 'pgdd'; did you mean"),
        (["pgd", {"name": "bim", "stepz": 3}], "attacks[1].attacks[1].stepz: attack 'bim' has no"),
        ([{"name": "pgd", "steps": 0}], "attacks[1].attacks[0].steps: Input should be greater"),
        ([{"name": "pgd", "epsilon": 1}], "attacks[1].attacks[0].epsilon: belongs to the whole"),
        ([{"name": "pgd", "norm": "l2"}], "attacks[1].attacks[0].norm: belongs to the whole list"),
        ([{"name": "pgd", "optional": True}], "attacks[1].attacks[0].optional: belongs to the"),
        ([{"name": "pgd", "label": "a b"}], "attacks[1].attacks[0].label: String should match"),
        (["pgd", "pgd"], "attacks[1].attacks[1]: two attacks of the list have the label 'pgd'"),
        (["pgd-l1", "ddn"], "attacks[1].attacks: must work in one norm, got pgd-l1 in l1"),
        (
            [{"name": "worst-of", "attacks": [{"name": "pgd", "steps": 0}]}],
            "attacks[1].attacks[0].attacks[0].steps: Input should be greater",
        ),
    ],
)
def test_what_is_wrong_in_a_list_is_told_with_its_place(attacks, message):
    with pytest.raises(SpecError) as caught:
        spec(attacks)
    assert str(caught.value).startswith(message)


def test_a_norm_that_a_member_cannot_do_is_told_with_the_member():
    written = {"name": "worst-of", "epsilon": "1", "norm": "l1", "attacks": ["pgd", "square"]}
    with pytest.raises(SpecError, match=r"not in l1: PGD among its members can't; 'pgd-l1' is pgd"):
        build_attack(AttackSpec.model_validate(written))


def test_a_list_is_needed_and_works_in_the_norms_of_all_alone():
    with pytest.raises(SpecError, match=r"attacks\[1\].attacks: is missing"):
        build_attack(AttackSpec(name="worst-of", epsilon=EPSILON), where="attacks[1]")
    with pytest.raises(SpecError, match="works in linf, l2, not in l1"):
        spec(["apgd-ce", "deepfool"], norm="l1")


def test_autoattack_is_the_standard_list():
    attack = AutoAttack()
    assert attack.members == ("apgd-ce", "apgd-t", "fab-t", "square")
    assert attack.made_of == (
        APGDCE(keep="first-success"),
        APGDT(n_target_classes=9, keep="first-success"),
        FABT(target_classes=9),
        Square(queries=5000, schedule=10_000, ahead=64),
    )
    classifier, batch = case(12)
    small = AutoAttack(steps=3, target_classes=2, queries=10)
    listed = of(*small.made_of)
    ours, theirs = (tries(each, classifier, batch)[0] for each in (small, listed))
    assert all(map(torch.equal, ours, theirs))


def test_autoattack_in_l1_is_a_list_of_its_own():
    attack = build_attack(AttackSpec(name="autoattack", norm="l1", epsilon=EPSILON))
    assert attack == AutoAttackL1()
    assert attack.members == AutoAttack().members
    assert attack.made_of == (
        APGDCE(restarts=5, keep="first-success"),
        APGDT(n_target_classes=5, keep="first-success"),
        FABT(target_classes=9),
        Square(queries=5000, schedule=10_000, ahead=64),
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_autoattack_works_with_few_classes(classes):
    classifier = nets.linear(classes=classes)
    batch = nets.labelled(classifier, nets.random_batch(20))
    small = AutoAttack(steps=10, queries=20)
    found = misled(small, classifier, batch, epsilon="0.3")
    assert set(found.verdict.tolist()) == {Verdict.VALID}
    assert bool(found.any_misled.any())


def test_fab_t_in_a_list_is_content_with_any_point_in_the_budget():
    threat = nets.threat("0.3")
    assert FABT(enough="0.1").for_one(threat) == FABT(enough=0.3)
    assert FABT(enough="0.5").for_one(threat) == FABT(enough=0.5)
    assert FABT(enough="0.5").for_one(threat).enough == 0.5
