"""The six checks that AutoAttack makes of a model, answered from the record of a run.

Source: F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020, https://arxiv.org/abs/2003.01690, and the checks that
its authors later added to their program.
"""

from __future__ import annotations

from gibbon.audit.additions import QUERIES, entry
from gibbon.audit.checklist import Checklist, Item, ItemAnswer, done_unless
from gibbon.audit.facts import AUTOGRAD, CALLS, ORDER, OUTPUTS, TWICE, Facts

FEWEST_CLASSES = 4  # of the targeted difference of logits ratio


def _unexamined(facts: Facts) -> ItemAnswer | None:
    flags = facts.flagged("not-examined")
    return ItemAnswer("not done", str(flags[0])) if flags else None


def _random(facts: Facts) -> ItemAnswer:
    flags = facts.flagged("random-answers")
    return done_unless(
        flags, "the same inputs got the same answers twice", facts=facts, checks=(TWICE,)
    )


def _range(facts: Facts) -> ItemAnswer:
    declared = {card.outputs for card in facts.record.models}
    return _unexamined(facts) or done_unless(
        facts.flagged("outputs-are-probabilities"),
        f"outputs are what they are declared to be: {', '.join(sorted(declared))}",
        facts=facts,
        checks=(OUTPUTS,),
    )


def _zero_gradients(facts: Facts) -> ItemAnswer:
    counted = [row for row in facts.rows if row.zero_gradient_share is not None]
    if not counted:
        return ItemAnswer("not done", "no attack took a gradient", (entry(facts, "apgd-ce"),))
    return done_unless(
        facts.flagged("zero-gradient", "zero-gradient-on-path"),
        f"at most {100 * max(row.zero_gradient_share or 0 for row in counted):.1f} % of the first "
        "gradients were zero",
    )


def _square(facts: Facts) -> ItemAnswer:
    if not any("square" in each.names for each in facts.attacks):
        more = (entry(facts, "square", queries=QUERIES),)
        return ItemAnswer("not done", "square was not run", more)
    return done_unless(
        facts.flagged("black-box-stronger"),
        "square finds no more than the white-box attacks",
        facts=facts,
        checks=(ORDER,),
    )


def _dynamic(facts: Facts) -> ItemAnswer:
    return _unexamined(facts) or done_unless(
        facts.flagged(
            "autograd-in-forward", "stateful-answers", "batch-dependent", "detects-gradients"
        ),
        "no model optimises or differentiates while it answers, and none remembers calls",
        facts=facts,
        checks=(AUTOGRAD, CALLS),
    )


def _classes(facts: Facts) -> ItemAnswer:
    cards = facts.record.models
    few = [card.name for card in cards if card.classes < FEWEST_CLASSES]
    if not few:
        least = min((card.classes for card in cards), default=0)
        return ItemAnswer("done", f"{least} classes or more")
    return done_unless(
        (), f"{', '.join(few)}: fewer than {FEWEST_CLASSES} classes; targeted losses are margins"
    )


AUTOATTACK = Checklist(
    "autoattack",
    "The six checks of AutoAttack",
    "F. Croce and M. Hein, Reliable evaluation of adversarial robustness with an ensemble of "
    "diverse parameter-free attacks, ICML 2020, arXiv:2003.01690, and its program's checks",
    (
        Item("randomized", "The model answers alike each time", _random),
        Item("range", "The outputs are logits", _range),
        Item("zero-gradients", "Gradients are not zero", _zero_gradients),
        Item("square", "Square does not beat gradients", _square),
        Item("dynamic", "The model does not optimise at test time", _dynamic),
        Item("classes", "There are classes enough for targets", _classes),
    ),
)
