"""The first screen of the page: verdict cards, the first sentence, and what the headline shows."""

from __future__ import annotations

import pytest

from gibbon.core.errors import SpecError
from gibbon.core.threat import Norm
from gibbon.records.flags import Flag
from gibbon.report.content.parts.lookup import RunLookup, robust_accuracy
from gibbon.report.content.summary.headline import headline_threats
from gibbon.report.content.summary.verdict_cards import (
    attack_effort,
    flags_by_model,
    title_sentence,
    verdict_cards,
)
from gibbon.specs.customary import customary_epsilon
from gibbon.specs.decoding import decode_suite
from tests.made_up import made_up_record


def test_robust_accuracy_is_one_minus_the_worst_case_with_its_interval_turned_round() -> None:
    for worst in made_up_record().worst_cases:
        found = robust_accuracy(worst)
        assert found.rate is not None
        assert found.low is not None
        assert found.high is not None
        assert worst.worst_case_error is not None
        assert found.rate == pytest.approx(1 - worst.worst_case_error)
        assert found.low <= found.rate <= found.high
        assert (found.part, found.whole) == (worst.examples - worst.misclassified, worst.examples)


def test_every_model_has_a_card_at_every_threat_of_the_headline() -> None:
    record = made_up_record()
    cards = verdict_cards(RunLookup(record))
    wanted = [
        (experiment.dataset.name, model.name, threat)
        for experiment in record.suite.experiments
        for threat in headline_threats(
            experiment,
            [each for each in record.worst_cases if each.dataset == experiment.dataset.name],
        )
        or (None,)
        for model in experiment.models
    ]
    assert [(each.dataset, each.model, each.threat) for each in cards] == wanted
    broken = [each for each in cards if each.model == "broken"]
    assert {each.accuracy.text for each in broken} == {"failed"}
    assert {each.look for each in broken} == {"doubtful"}
    assert not any(each.share for each in broken)


def test_a_card_says_by_which_attacks_and_with_how_many_steps() -> None:
    record = made_up_record()
    softmax = [each for each in verdict_cards(RunLookup(record)) if each.model == "softmax"]
    assert {attack.name for each in softmax for attack in each.attacks} >= {"fgsm", "pgd"}
    pgd = next(each for each in record.evaluations if each.attack == "pgd")
    changed = pgd.model_copy(update={"parameters": '{"steps": 40, "restarts": 1, "loss": "dlr"}'})
    assert attack_effort(changed) == "40 steps"
    changed = pgd.model_copy(update={"parameters": '{"steps": 1, "restarts": 5, "queries": true}'})
    assert attack_effort(changed) == "1 step, 5 restarts"
    passes = {"parameters": "{}", "forward_passes": 200, "backward_passes": 100, "examples": 100}
    assert attack_effort(pgd.model_copy(update=passes)) == "3 passes an example"


def test_the_first_sentence_names_the_models_with_the_highest_number() -> None:
    cards = verdict_cards(RunLookup(made_up_record()))
    threat = next(each for each in cards if each.share)
    compared = [
        each for each in cards if (each.dataset, each.threat) == (threat.dataset, threat.threat)
    ]
    best = max(each.accuracy.value or 0.0 for each in compared if each.share)
    sentence = title_sentence(cards)
    assert sentence.endswith(".")
    assert all(
        each.model in sentence
        for each in compared
        if each.share and (each.accuracy.value or 0.0) == best
    )
    assert "at most" in sentence
    assert title_sentence(()) == "No robust accuracy was measured."


def test_flags_are_counted_by_model_and_kind_serious_ones_first() -> None:
    def flag(kind: str, model: str) -> Flag:
        return Flag(kind=kind, dataset="d", model=model, figure="1", sentence="it is seen")

    zero = [flag("zero-gradient", "a")] * 3
    first, second = flags_by_model([flag("saturated-outputs", "b"), *zero])
    assert (first.model, first.count, first.kinds[0].words) == ("a", 3, "serious, 3")
    assert (second.subject, second.kinds[0].counts) == ("d, b", False)


SUITE = {
    "name": "s",
    "dataset": "mnist",
    "models": ["softmax"],
    "attacks": [{"name": "fgsm", "epsilon": ["0.1", "0.3", "0.5"]}],
}


@pytest.mark.parametrize(
    ("data", "headline", "shown"),
    [
        ("mnist", None, ["0.3"]),  # customary
        ("other", None, ["0.5"]),  # the largest
        ("other", "0.1", ["0.1"]),  # named
        ("mnist", ["0.1", "0.5"], ["0.1", "0.5"]),
    ],
)
def test_the_headline_is_at_the_epsilon_that_is_named_or_customary(
    data: str, headline: object, shown: list[str]
) -> None:
    record = made_up_record()
    written = {**SUITE, "dataset": data, **({"headline": headline} if headline else {})}
    (experiment,) = decode_suite(written, where="s.toml").experiments
    worst = record.worst_cases[0].model_copy(update={"norm": Norm.LINF})
    epsilons = experiment.attacks[0].epsilon
    found = headline_threats(
        experiment, [worst.model_copy(update={"epsilon": each}) for each in epsilons]
    )
    assert [str(each.epsilon) for each in found] == shown


def test_a_headline_at_an_epsilon_that_is_not_run_is_refused() -> None:
    with pytest.raises(SpecError, match=r"headline names epsilon 0.2.*0.1, 0.3, 0.5"):
        decode_suite({**SUITE, "headline": "0.2"}, where="s.toml")


def test_datasets_have_their_customary_epsilon_under_other_names() -> None:
    assert customary_epsilon("torchvision:CIFAR100", Norm.L2) == ("0.5", "cifar")
    assert customary_epsilon("data/imagenet/val", Norm.LINF) == ("4/255", "imagenet")
    assert customary_epsilon("fashion-mnist", Norm.LINF) == ("0.1", "fashionmnist")
    assert customary_epsilon("fashion-mnist", Norm.L1)[1] == ""
