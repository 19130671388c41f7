"""Faults that show across cells: a weaker attack, or another model's examples, finding more.

Each kind of flag has planted faults that raise it and near misses that do not, first on made-up
outcomes, of which the counts are known, then on networks whose gradients are hidden.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gibbon import evaluate
from gibbon.attacks.base import Attack, SearchMethod
from gibbon.attacks.factory import build_attack
from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel, Verdict
from gibbon.diagnostics.attack_order import Attacker
from gibbon.diagnostics.order_flags import ComparedCell, order_flags, suite_lines
from gibbon.diagnostics.sample_size_flags import sample_size_flags
from gibbon.metrics.intervals import wilson_interval
from gibbon.metrics.paired_tests import mcnemar
from gibbon.records.flags import Flag
from gibbon.records.outcomes import Outcome, TargetOutcome
from gibbon.records.run import ModelComparison, WorstCase
from gibbon.specs.decoding import parse_suite
from gibbon.specs.suite import AttackSpec

BOX = Bounds(0.0, 1.0)
N = 400
WEAKER, BLACK_BOX, TRANSFER = (
    *("weaker-attack-stronger", "black-box-stronger", "transfer-stronger"),
)
BEST = {"keep": "best-loss"}
ORDERED = (WEAKER, BLACK_BOX, TRANSFER)


def fooled(count: int, *, first: int = 0) -> np.ndarray:
    """Marks examples ``first`` to ``first + count``."""
    places = np.arange(N)
    return (places >= first) & (places < first + count)


def cell(
    name: str,
    wrong: np.ndarray,
    *,
    epsilon: str = "0.1",
    label: str = "",
    clip: bool = True,
    model: str = "net",
    attack: Attack | None = None,
    took_gradients: bool = True,
    others: dict[str, np.ndarray] | None = None,
    members: np.ndarray | None = None,
    invalid: np.ndarray | None = None,
    clean: np.ndarray | None = None,
    **keys: Any,
) -> ComparedCell:
    """A cell of an attack that misclassified these examples; ``others`` on other models."""
    spec = AttackSpec.model_validate({"name": name, "epsilon": epsilon, **keys})
    attack = build_attack(spec) if attack is None else attack
    norm = spec.norm or attack.norms[0]
    threat = ThreatModel(norm, Epsilon.parse(epsilon), BOX if clip else None)
    answers = {model: wrong, **(others or {})}
    outcome = Outcome(
        example_id=np.arange(N),
        label=np.zeros(N, dtype=np.int32),
        verdict=np.where(
            np.zeros(N, bool) if invalid is None else invalid, Verdict.OUT_OF_BUDGET, 0
        ).astype(np.int8),
        distance=np.full(N, 0.1, dtype=np.float32),
        any_misclassified=wrong,
        saturated=None,
        zero_gradient=None,
        scores={
            each: TargetOutcome(marked.astype(np.int32), np.full(N, 0.9, dtype=np.float32))
            for each, marked in answers.items()
        },
        misled_by=members,
    )
    attacker = Attacker(attack, threat, BOX, took_gradients)
    none = np.zeros(N, dtype=np.bool_)
    return ComparedCell(
        "data", model, model, label or name, attacker, outcome, none if clean is None else clean
    )


def raised(*cells: ComparedCell) -> list[Flag]:
    return list(order_flags(cells))


def kinds(*cells: ComparedCell) -> list[tuple[str, str, str]]:
    return [(each.kind, each.attack, each.severity) for each in raised(*cells)]


@dataclass(frozen=True)
class Library(Attack):
    """An attack of another author, who declares how it searches."""

    search_method: ClassVar[SearchMethod] = SearchMethod.ITERATIVE
    iterate: ClassVar[str] = "the library's"
    steps: int = 40

    def propose(self, classifier: Any, inputs: Tensor, **rest: Any) -> Iterator[Tensor]:
        yield inputs


@dataclass(frozen=True)
class Unknown(Library):
    search_method: ClassVar[SearchMethod] = SearchMethod.UNKNOWN


def in_turn(*counts: int) -> np.ndarray:
    """The member of a list that fooled each example first: so many by each, the rest by none."""
    first = np.full(N, -1, dtype=np.int16)
    start = 0
    for place, count in enumerate(counts):
        first[start : start + count] = place
        start += count
    return first


def listed(*counts: int, names: Sequence[str] = ("apgd-ce", "square"), **keys: Any) -> ComparedCell:
    first = in_turn(*counts)
    return cell("worst-of", first >= 0, members=first, attacks=list(names), **keys)


FAULTS = {
    "one step finds more than many": (
        [cell("fgsm", fooled(100)), cell("pgd", fooled(20), **BEST)],
        (WEAKER, "pgd", "serious"),
    ),
    "one step finds a little more than many that keep the best point": (
        [cell("fgsm", fooled(100)), cell("pgd", fooled(80), **BEST)],
        (WEAKER, "pgd", "warning"),
    ),
    "noise finds more than one step": (
        [cell("noise-sign", fooled(90)), cell("fgsm", fooled(9))],
        (WEAKER, "fgsm", "serious"),
    ),
    "a search without gradients finds more than one with them": (
        [cell("square", fooled(150)), cell("apgd-t", fooled(10))],
        (BLACK_BOX, "apgd-t", "serious"),
    ),
    "a search finds more than another library's iterative attack": (
        [cell("square", fooled(150)), cell("pgd", fooled(10), label="theirs", attack=Library())],
        (BLACK_BOX, "theirs", "serious"),
    ),
    "an unknown attack that took no gradient finds more": (
        [
            cell("pgd", fooled(150), label="odd", attack=Unknown(), took_gradients=False),
            cell("apgd-ce", fooled(10)),
        ],
        (BLACK_BOX, "apgd-ce", "serious"),
    ),
    "fewer steps find more than more": (
        [
            cell("pgd", fooled(90), label="few", steps=5),
            cell("pgd", fooled(30), label="many", steps=50),
        ],
        (WEAKER, "many", "serious"),
    ),
    "one restart finds more than ten": (
        [
            cell("pgd", fooled(60), label="one", **BEST),
            cell("pgd", fooled(40), label="ten", restarts=10, **BEST),
        ],
        (WEAKER, "ten", "warning"),
    ),
    "an attack finds more within the box than without one": (
        [cell("apgd-ce", fooled(90), label="in"), cell("apgd-ce", fooled(9), clip=False)],
        (WEAKER, "apgd-ce", "serious"),
    ),
    "a smaller epsilon is enough to find more": (
        [cell("fgsm", fooled(90), epsilon="0.05"), cell("pgd", fooled(9))],
        (WEAKER, "pgd", "serious"),
    ),
    "one step finds more than a whole list": (
        [cell("fgsm", fooled(99)), listed(9, 3, names=["apgd-ce", "apgd-dlr"])],
        (WEAKER, "worst-of", "serious"),
    ),
    "a member without gradients finds more than the one before it": (
        [listed(5, 100)],
        (BLACK_BOX, "worst-of", "serious"),
    ),
    "a member without gradients fools survivors of many": (
        [listed(200, 60)],
        (BLACK_BOX, "worst-of", "warning"),
    ),
    "a search finds more than a member of a list": (
        [cell("square", fooled(99)), listed(5, 10, names=["apgd-t", "fab-t"])],
        (BLACK_BOX, "worst-of", "serious"),
    ),
    "another model's examples find more than the best of its own": (
        [
            cell("pgd", fooled(300), model="other", others={"net": fooled(120)}, **BEST),
            cell("pgd", fooled(100), **BEST),
        ],
        (TRANSFER, "pgd", "warning"),
    ),
    "another model's examples find much more than its own single step": (
        [
            cell("fgsm", fooled(300), model="other", others={"net": fooled(120)}),
            cell("fgsm", fooled(9)),
        ],
        (TRANSFER, "fgsm", "serious"),
    ),
}

NEAR_MISSES = {
    "the stronger attack finds more": [cell("fgsm", fooled(20)), cell("pgd", fooled(90), **BEST)],
    "as many, on other examples": [
        cell("fgsm", fooled(90)),
        cell("pgd", fooled(90, first=60), **BEST),
    ],
    "so few examples that chance explains it": [
        cell("fgsm", fooled(8)),
        cell("pgd", fooled(2), **BEST),
    ],
    "a last iterate that stepped past a few": [cell("fgsm", fooled(100)), cell("pgd", fooled(75))],
    "another loss that misses a few": [cell("square", fooled(100)), cell("apgd-ce", fooled(75))],
    "two losses": [cell("apgd-dlr", fooled(100)), cell("apgd-ce", fooled(10))],
    "a minimal norm at a fixed epsilon": [cell("apgd-ce", fooled(99)), cell("fmn", fooled(9))],
    "many queries against one step": [cell("square", fooled(99)), cell("fgsm", fooled(9))],
    "a step without a box, which may go too far": [
        cell("fgsm", fooled(99), label="in"),
        cell("fgsm", fooled(9), clip=False),
    ],
    "an attack that may go less far": [
        cell("fgsm", fooled(99), epsilon="0.2"),
        cell("pgd", fooled(9), **BEST),
    ],
    "an unknown attack with gradients": [
        cell("square", fooled(99)),
        cell("pgd", fooled(9), label="odd", attack=Unknown()),
    ],
    "attacks of two models": [
        cell("fgsm", fooled(99), model="other"),
        cell("pgd", fooled(9), **BEST),
    ],
    "clean mistakes that only one attack leaves alone": [
        cell("fgsm", fooled(120), clean=fooled(110)),
        cell("pgd", fooled(10, first=110), clean=fooled(110), **BEST),
    ],
    "candidates out of budget, which have a flag of their own": [
        cell("fgsm", fooled(99)),
        cell("pgd", fooled(0), invalid=fooled(99), **BEST),
    ],
    "a last member that fools what little is left": [listed(370, 5)],
    "a member that was only run on what another left": [listed(100, 5, names=["square", "apgd-t"])],
    "another model's examples that find a few more than a single step": [
        cell("fgsm", fooled(300), model="other", others={"net": fooled(100)}),
        cell("fgsm", fooled(75)),
    ],
    "a transfer of an attack without gradients": [
        cell("square", fooled(300), model="other", others={"net": fooled(120)}),
        cell("square", fooled(9)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_order_raises_its_flag_alone(name: str) -> None:
    cells, expected = FAULTS[name]
    assert kinds(*cells) == [expected]


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_what_is_honest_or_not_ordered_raises_nothing(name: str) -> None:
    assert kinds(*NEAR_MISSES[name]) == []


def test_a_flag_names_the_pair_the_counts_and_the_corrected_p_value() -> None:
    wrong = fooled(60) & ~fooled(10)
    (flag,) = raised(
        cell("fgsm", wrong), cell("noise-sign", fooled(5)), cell("pgd", fooled(20), **BEST)
    )
    p_value = min(1.0, 3 * mcnemar(10, 40))  # of three comparisons, the smallest p-value
    assert flag.figure == f"40 against 10 of 400, p = {p_value:.2g}" if p_value >= 1e-4 else True
    assert flag.sentence == (
        "fgsm finds more errors than pgd (one step against many): of 400 examples 40 are fooled by "
        "fgsm alone, 10 by pgd alone (McNemar's exact test, "
        f"{'p < 0.0001' if p_value < 1e-4 else f'p = {p_value:.2g}'} after Holm's correction for "
        "3 comparisons)"
    )
    assert (flag.dataset, flag.model, str(flag.epsilon)) == ("data", "net", "0.1")


def test_many_comparisons_need_more_evidence() -> None:
    pair = [cell("fgsm", fooled(11)), cell("pgd", fooled(0), **BEST)]
    more = [cell("pgd", fooled(11), label=f"pgd-{steps}", steps=steps) for steps in range(41, 60)]
    assert len(raised(*pair)) == 1
    assert raised(*pair, *more) == []


def test_the_largest_difference_stands_for_a_cell() -> None:
    cells = [cell("noise-sign", fooled(99)), cell("fgsm", fooled(45)), cell("apgd-ce", fooled(9))]
    flags = {each.attack: each for each in raised(*cells)}
    assert flags.keys() == {"fgsm", "apgd-ce"}
    assert flags["apgd-ce"].sentence.startswith("noise-sign finds more")


def test_only_examples_in_common_are_compared() -> None:
    one, other = cell("fgsm", fooled(99)), cell("pgd", fooled(9), **BEST)
    ids = np.arange(N) + N // 2  # the second half of the first, and as many others
    shifted = ComparedCell(**{**vars(other), "outcome": _with_ids(other.outcome, ids)})
    assert raised(one, shifted) == []  # the 99 are not among the common ones


def _with_ids(outcome: Outcome, ids: np.ndarray) -> Outcome:
    return Outcome(**{**vars(outcome), "example_id": ids})


@pytest.mark.parametrize(
    "threat",
    [
        ThreatModel(Norm.LINF, Epsilon.parse("8/255"), BOX),
        ThreatModel(Norm.L2, Epsilon.parse("0.5"), None),
        ThreatModel(Norm.L1, Epsilon.parse("12"), BOX),
    ],
)
def test_the_lines_that_would_settle_it_are_a_suite(threat: ThreatModel) -> None:
    head = 'name = "check"\ndataset = "mnist"\nmodels = ["softmax"]\n'
    (spec,) = parse_suite(head + suite_lines(threat), where="advice").experiments[0].attacks
    attack = build_attack(spec)
    assert attack.members == ("apgd-ce", "apgd-t", "square")
    assert spec.clip == (threat.bounds is not None)
    assert (spec.norm or Norm.LINF, spec.epsilon) == (threat.norm, (threat.epsilon,))


# Networks whose gradients are hidden, the whole way from a call to a flag.


class Rounded(nn.Module):
    """Rounds inputs to steps, which have no gradient, before a network."""

    def __init__(self, net: nn.Module, *, steps: int, straight_through: bool = False) -> None:
        super().__init__()
        self.net, self.steps, self.straight_through = net, steps, straight_through

    def forward(self, inputs: Tensor) -> Tensor:
        rounded = (inputs * self.steps).round() / self.steps
        if self.straight_through:
            rounded = inputs + (rounded - inputs).detach()
        return self.net(rounded)  # type: ignore[no-any-return]


class _Shattering(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        return inputs.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        # A fixed pattern of signs that has nothing to do with the loss.
        places = torch.arange(gradient[0].numel(), device=gradient.device).view_as(gradient[0])
        return gradient * (1 - 2 * (places * 7919 % 13 % 2)).to(gradient.dtype)


class _Flipping(_Shattering):
    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class Hidden(nn.Module):
    """A network behind an identity with another backward pass."""

    def __init__(self, net: nn.Module, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.net, self.function = net, function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(self.function.apply(inputs))  # type: ignore[no-any-return]


class Hot(nn.Module):
    """A network trained with a temperature that is left out in use, as defensive distillation."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        return 1000 * self.net(inputs)  # type: ignore[no-any-return]


SQUARE = {"name": "square", "queries": 300}
PGD = {"name": "pgd", "steps": 10}
Build = Callable[[str], nn.Module]
HIDDEN: dict[str, tuple[Callable[[nn.Module], nn.Module], list[Any], str]] = {
    "a step function": (lambda net: Rounded(net, steps=3), [PGD, SQUARE], BLACK_BOX),
    "a shattered gradient": (lambda net: Hidden(net, _Shattering), [PGD, SQUARE], BLACK_BOX),
    "a flipped gradient": (lambda net: Hidden(net, _Flipping), ["fgsm", SQUARE, PGD], BLACK_BOX),
    "a flipped gradient, noise alone": (
        lambda net: Hidden(net, _Flipping),
        ["noise-sign", PGD],
        WEAKER,
    ),
    "a step function in a list": (
        lambda net: Rounded(net, steps=3),
        [{"name": "worst-of", "attacks": [{"name": "apgd-ce", "steps": 10}, SQUARE]}],
        BLACK_BOX,
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_gradient_is_found_across_cells(
    name: str, honest: Build, mnist: tuple[Tensor, Tensor]
) -> None:
    hide, attacks, kind = HIDDEN[name]
    epsilon = 0.6 if "noise" in name else 0.2
    found = evaluate(hide(honest("softmax")), mnist, attack=attacks, epsilon=epsilon).record
    flags = [each for each in found.flags if each.kind in ORDERED]
    assert kind in {each.kind for each in flags}
    (row,) = {each.attack for each in flags if each.kind == kind}
    flagged = [each for each in found.evaluations if each.attack == row]
    assert all(kind in each.flags.split(";") for each in flagged)


@pytest.mark.parametrize(
    ("hide", "attack"),
    [
        (lambda net: Rounded(net, steps=3), PGD),
        (lambda net: Hidden(net, _Shattering), "fgsm"),
        (Hot, "fgsm-naive"),
    ],
    ids=["a step function", "a shattered gradient", "a temperature"],
)
def test_a_hidden_gradient_is_found_by_examples_of_another_model(
    hide: Callable[[nn.Module], nn.Module],
    attack: Any,
    honest: Build,
    mnist: tuple[Tensor, Tensor],
) -> None:
    models = {"plain": honest("softmax"), "hidden": hide(honest("softmax"))}
    found = evaluate(models, mnist, attack=attack, epsilon=0.2).record
    (flag,) = [each for each in found.flags if each.kind in ORDERED]
    assert (flag.kind, flag.model, flag.severity) == (TRANSFER, "hidden", "serious")


HONEST: dict[str, Callable[[Build], nn.Module]] = {
    "softmax": lambda honest: honest("softmax"),
    "maxout": lambda honest: honest("maxout"),
    "rounded to 8 bits, straight through": lambda honest: Rounded(
        honest("softmax"), steps=255, straight_through=True
    ),
    "a temperature under an exact direction": lambda honest: Hot(honest("softmax")),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_network_raises_nothing_under_many_attacks(
    name: str, honest: Build, mnist: tuple[Tensor, Tensor]
) -> None:
    attacks: list[Any] = [
        *("noise-sign", "noise-uniform", "fgsm", PGD, {**SQUARE, "queries": 100}),
        {"name": "apgd-ce", "steps": 10},
        {"name": "fmn", "steps": 20},
    ]
    attacks = [{"epsilon": (0.05, 0.15, 0.3), **_named(each)} for each in attacks]
    found = evaluate(HONEST[name](honest), mnist, attack=attacks).record
    assert [each for each in found.flags if each.kind in (*ORDERED, "too-few-examples")] == []


def _named(attack: Any) -> dict[str, Any]:
    return attack if isinstance(attack, dict) else {"name": attack}


# Too few examples.


def worst(model: str, wrong: int, total: int) -> WorstCase:
    ends = wilson_interval(wrong, total)
    return WorstCase(
        dataset="data", model=model, norm=Norm.LINF, epsilon=Epsilon.parse("0.1"), clip=True,
        attacks=("pgd",), examples=total, misclassified=wrong, worst_case_error=wrong / total,
        worst_case_error_low=ends.low, worst_case_error_high=ends.high,
    )  # fmt: skip


def compared(
    only_first: int, only_second: int, total: int, *, apart: str = "", needed: int | None = 640
) -> ModelComparison:
    return ModelComparison(
        dataset="data", first="one", second="two", norm=Norm.LINF, epsilon=Epsilon.parse("0.1"),
        clip=True, examples=total, first_error=only_first / total, second_error=only_second / total,
        only_first=only_first, only_second=only_second, p_value=0.2, more_robust=apart,
        examples_needed=needed,
    )  # fmt: skip


def test_a_claim_on_twenty_examples_is_noted() -> None:
    (flag,) = sample_size_flags([worst("net", 3, 20), worst("other", 9, 20)], [])
    assert (flag.kind, flag.severity) == ("too-few-examples", "note")
    assert re.search("other at epsilon 0.1 is 45%, with a 95 % interval from 26% to 66%", str(flag))


def test_a_difference_that_the_examples_cannot_show_is_noted_once() -> None:
    rows = [
        compared(12, 4, 100),
        compared(20, 7, 100, needed=231),
        compared(0, 30, 100, apart="one"),
    ]
    (flag,) = sample_size_flags([worst("one", 20, 100), worst("two", 7, 100)], rows)
    assert (flag.model, flag.severity) == ("two", "note")
    assert "13.0 points below that of one" in flag.sentence
    assert "about 240 would be needed" in flag.sentence


@pytest.mark.parametrize(
    ("rows", "pairs"),
    [
        ([worst("net", 30, 64)], []),  # wide, but says something
        ([worst("net", 20, 20)], []),  # nobody claims that it is robust
        ([worst("one", 300, 1000), worst("two", 310, 1000)], [compared(40, 50, 1000)]),
        ([worst("one", 20, 100), worst("two", 7, 100)], [compared(20, 7, 100, apart="two")]),
        ([], []),
    ],
    ids=["enough", "beaten", "alike", "apart", "nothing"],
)
def test_claims_that_the_examples_carry_are_not_noted(
    rows: list[WorstCase], pairs: list[ModelComparison]
) -> None:
    assert list(sample_size_flags(rows, pairs)) == []


def test_a_run_on_twenty_examples_is_noted_and_one_on_sixty_four_is_not(
    honest: Build, mnist: tuple[Tensor, Tensor]
) -> None:
    inputs, labels = mnist
    for count, noted in ((20, 1), (64, 0)):
        data = (inputs[:count], labels[:count])
        found = evaluate(honest("softmax"), data, attack="fgsm", epsilon=0.05).record
        flags = [each for each in found.flags if each.kind == "too-few-examples"]
        assert len(flags) == noted
