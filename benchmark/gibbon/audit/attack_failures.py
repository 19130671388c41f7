"""The six indicators of attack failure, answered from the record of a run.

Source: M. Pintor, L. Demetrio, A. Sotgiu, A. Demontis, N. Carlini, B. Biggio and F. Roli,
"Indicators of attack failure: debugging and improving optimization of adversarial examples",
NeurIPS 2022, section 3, https://arxiv.org/abs/2106.09947.
"""

from __future__ import annotations

from gibbon.audit.additions import STEPS, entry, unbounded_entry
from gibbon.audit.checklist import Checklist, Item, ItemAnswer, done_unless, listed
from gibbon.audit.facts import PATHS, TWICE, Facts


def _with_gradients(facts: Facts) -> list[str]:
    return [each.spec.label for each in facts.attacks if each.iterative or each.single_step]


def _no_gradients(facts: Facts) -> ItemAnswer | None:
    if _with_gradients(facts):
        return None
    return ItemAnswer("not done", "no attack took a gradient", (entry(facts, "pgd", steps=STEPS),))


def _unavailable(facts: Facts) -> ItemAnswer:
    return _no_gradients(facts) or done_unless(
        facts.flagged(
            "zero-gradient",
            "zero-gradient-on-path",
            "gradient-mismatch",
            "discontinuous-loss",
            "uninformative-gradient",
            "rounded-inputs",
            "no-gradient-taken",
        ),
        f"gradients of {listed(_with_gradients(facts))} are there along the way",
        facts=facts,
        checks=(PATHS,),
    )


def _unstable(facts: Facts) -> ItemAnswer:
    return done_unless(
        facts.flagged(
            "random-answers",
            "stateful-answers",
            "batch-dependent",
            "training-layers",
            "detects-gradients",
        ),
        "the same inputs got the same answers",
        facts=facts,
        checks=(TWICE,),
    )


def _silent(facts: Facts) -> ItemAnswer:
    return _no_gradients(facts) or done_unless(
        facts.flagged("success-lost"),
        "no attack passed an adversarial example that it lost",
        facts=facts,
        checks=(PATHS,),
    )


def _incomplete(facts: Facts) -> ItemAnswer:
    if not any(each.iterative for each in facts.attacks):
        more = (entry(facts, "pgd", steps=STEPS),)
        return ItemAnswer("not done", "there is no iterative attack", more)
    return done_unless(
        facts.flagged("not-converged", "few-steps", "budget-unused"),
        "the loss no longer rose in the last quarter of the steps",
        facts=facts,
        checks=(PATHS,),
    )


def _transfer(facts: Facts) -> ItemAnswer:
    if not facts.transfers:
        return ItemAnswer("not done", "no examples were made on another model", transfer=True)
    return done_unless(
        facts.flagged("transfer-stronger"), "no transferred examples beat the model's own"
    )


def _unconstrained(facts: Facts) -> ItemAnswer:
    if not facts.unbounded:
        more = (unbounded_entry(facts),)
        return ItemAnswer("not done", "no budget is as wide as the box", more)
    return done_unless(
        facts.flagged("unbounded-attack-fails"), "a budget as wide as the box reaches 100 %"
    )


PINTOR = Checklist(
    "pintor",
    "The six indicators of attack failure",
    "M. Pintor et al., Indicators of attack failure: debugging and improving optimization of "
    "adversarial examples, NeurIPS 2022, arXiv:2106.09947",
    (
        Item("unavailable-gradients", "Gradients can be followed", _unavailable),
        Item("unstable-predictions", "Answers are stable", _unstable),
        Item("silent-success", "Successes on the way are kept", _silent),
        Item("incomplete-optimization", "The loss has converged", _incomplete),
        Item("transfer-failure", "The white box beats transfers", _transfer),
        Item("unconstrained-failure", "Without a budget it reaches 100 %", _unconstrained),
    ),
)
