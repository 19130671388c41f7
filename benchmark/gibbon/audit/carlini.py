"""The checklist of N. Carlini et al., "On evaluating adversarial robustness", 2019.

Source: https://arxiv.org/abs/1902.06705, section 2 (principles), section 3 (the checklist) and the
sections that its items refer to.  The wording is ours.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from gibbon.audit.additions import (
    MORE_STEPS,
    QUERIES,
    RESTARTS,
    STEPS,
    WIDE,
    budget,
    curve_entry,
    entry,
    single_step_entry,
    unbounded_entry,
)
from gibbon.audit.checklist import Checklist, Item, ItemAnswer, done_unless, listed
from gibbon.audit.facts import GRADIENT, ORDER, PAIRED, PATHS, TWICE, Facts
from gibbon.core.threat import Norm
from gibbon.records.flags import Flag

ADAPTIONS = ("eot", "backward", "before")
FEWEST_EPSILONS = 3  # of a curve
EVERYTHING = 0.995  # of an error that a curve must reach at its end


def _threat_model(facts: Facts) -> ItemAnswer:
    found = {
        f"{row.norm.symbol} of {row.epsilon}, {'inside' if row.clip else 'not clipped to'} the box"
        for row in facts.rows
        if row.norm is not None
    }
    if not found:
        return ItemAnswer("not done", "no attack was run", (entry(facts, "pgd", steps=STEPS),))
    return done_unless(
        facts.flagged("wide-budget", "tiny-budget", "invalid-candidates"),
        f"stated in the suite: {listed(sorted(found))}",
    )


def _adaptive(facts: Facts) -> ItemAnswer:
    adaptive = [each.spec.label for each in facts.attacks if each.adaptive]
    if adaptive:
        return ItemAnswer("done", f"adapted to the model: {listed(adaptive)}")
    defended = facts.flagged(
        "gradient-mismatch",
        "discontinuous-loss",
        "uninformative-gradient",
        "detects-gradients",
        "outputs-are-probabilities",
        "saturated-outputs",
        "tiny-outputs",
        "random-answers",
        "zero-gradient",
        "zero-gradient-on-path",
        "autograd-in-forward",
        "rounded-inputs",
        "batch-dependent",
    )
    if not defended and not facts.made(GRADIENT):
        return _unchecked(GRADIENT)
    if not defended:
        return ItemAnswer(
            "not applicable",
            "no part was found that gradient attacks have to be adapted to; this holds for what "
            "the examination looked at",
        )
    asked = "; ".join(dict.fromkeys(each.advice for each in defended))
    return ItemAnswer("not done", f"{defended[0].sentence}: {asked}", _adapted(facts, defended))


def _adapted(facts: Facts, flags: tuple[Flag, ...]) -> tuple[Mapping[str, Any], ...]:
    """Returns entries that adapt an attack as flags say, as far as these name the parts."""
    entries = []
    keys: dict[str, object] = {}
    for flag in flags:
        try:
            written = tomllib.loads(flag.suite)
        except tomllib.TOMLDecodeError:  # of a record that was edited
            continue
        keys |= {each: written[each] for each in ADAPTIONS if each in written}
    if any(flag.kind == "random-answers" for flag in flags):
        keys.setdefault("eot", 20)
    if keys:
        entries.append(entry(facts, "pgd", label="pgd-adaptive", steps=STEPS, **keys))
    if any(flag.kind == "discontinuous-loss" for flag in flags):
        entries.append(entry(facts, "apgd-ce", label="apgd-restarts", restarts=RESTARTS))
    return tuple(entries)


def _released(facts: Facts) -> ItemAnswer:
    origin = facts.record.provenance
    weights = listed(f"{card.name} {card.weights_digest[:12]}" for card in facts.record.models)
    if not origin.commit:
        return ItemAnswer(
            "not done", "the commit of the code is not known: run from a git checkout"
        )
    if origin.dirty:
        return ItemAnswer(
            "not done", f"commit {origin.commit} with uncommitted changes: commit them"
        )
    return ItemAnswer("done", f"commit {origin.commit}, weights by digest: {weights}")


def _clean(facts: Facts) -> ItemAnswer:
    rows = [row for row in facts.rows if row.unattacked and row.clean_error is not None]
    if not rows:
        return ItemAnswer("not done", "the unattacked cells failed")
    found = listed(f"{row.model} {100 * (row.clean_error or 0):.2f} %" for row in rows)
    return done_unless(
        facts.flagged(
            "error-at-chance",
            "preprocessing",
            "duplicated-examples",
            "conflicting-labels",
            "displaced-labels",
            "sure-errors",
            "constant-inputs",
        ),
        f"clean error: {found}",
    )


def _iterative_above_single(facts: Facts) -> ItemAnswer:
    single = [each.spec.label for each in facts.attacks if each.single_step]
    iterative = [each.spec.label for each in facts.attacks if each.iterative]
    alone = facts.flagged("single-step-only")
    if alone:
        return ItemAnswer("not done", str(alone[0]), (entry(facts, "pgd", steps=STEPS),))
    if single and iterative:
        return done_unless(
            facts.flagged("weaker-attack-stronger", "noise-as-strong", "error-below-clean"),
            f"{listed(iterative)} in addition to {listed(single)}: no single step finds more",
            facts=facts,
            checks=(ORDER,),
        )
    missing = [] if single else [single_step_entry(facts)]
    missing += [] if iterative else [entry(facts, "pgd", steps=STEPS)]
    return ItemAnswer(
        "not done", "a single step and an iterative attack are compared", tuple(missing)
    )


def _grows_with_budget(facts: Facts) -> ItemAnswer:
    several = [each.spec.label for each in facts.attacks if len(each.epsilons) > 1]
    if several:
        return done_unless(
            facts.flagged("error-falls-with-epsilon"),
            f"several budgets of {listed(several)}",
            facts=facts,
            checks=(PAIRED,),
        )
    return ItemAnswer("not done", "every attack has one budget", (curve_entry(facts),))


def _unbounded(facts: Facts) -> ItemAnswer:
    wide = [row for row in facts.unbounded if row.adversarial_error is not None]
    if not wide:
        more = (unbounded_entry(facts),)
        return ItemAnswer("not done", "no budget is as wide as the box", more)
    return done_unless(
        facts.flagged("unbounded-attack-fails"),
        f"error {100 * max(row.adversarial_error or 0 for row in wide):.1f} % at epsilon "
        f"{wide[0].epsilon}",
    )


def _curve(facts: Facts) -> ItemAnswer:
    curves = [each for each in facts.attacks if len(each.epsilons) >= FEWEST_EPSILONS]
    if not curves:
        return ItemAnswer(
            "not done",
            f"no attack has {FEWEST_EPSILONS} budgets or more, for a curve",
            (curve_entry(facts),),
        )
    ends = [
        row.adversarial_error or 0.0
        for each in curves
        for row in each.rows
        if row.epsilon == each.epsilons[-1]
    ]
    if min(ends, default=0.0) >= EVERYTHING:
        return ItemAnswer(
            "done", f"{listed(each.spec.label for each in curves)}, up to 100 % error"
        )
    widest = max(curves, key=lambda each: float(each.epsilons[-1]))
    given = widest.spec.model_dump(exclude_defaults=True)
    more = {**given, "label": f"{widest.spec.label}-to-the-end", "epsilon": [WIDE]}
    return ItemAnswer(
        "not done",
        f"the curve of {widest.spec.label} ends at epsilon {widest.epsilons[-1]}, with an error of "
        f"{100 * min(ends):.1f} %, not of 100 %",
        (more,) if widest.norms == {Norm.LINF} else (),
    )


def _hyperparameters(facts: Facts) -> ItemAnswer:
    return ItemAnswer(
        "done",
        "every row has all parameters of its attack, with their defaults (column parameters), for "
        f"{listed(each.spec.label for each in facts.attacks) or 'no attack'}",
    )


def _diverse(facts: Facts) -> ItemAnswer:
    control = facts.flagged("noise-only", "targeted-only")
    if control:
        more = (entry(facts, "pgd", steps=STEPS), entry(facts, "square", queries=QUERIES))
        return ItemAnswer("not done", str(control[0]), more)
    kinds = {
        "single-step": any(each.single_step for each in facts.attacks),
        "iterative": any(each.iterative for each in facts.attacks),
        "gradient-free": any(each.gradient_free for each in facts.attacks),
    }
    lacking = [name for name, there in kinds.items() if not there]
    if not lacking:
        return ItemAnswer("done", f"{listed(kinds)} attacks")
    entries = {
        "single-step": single_step_entry(facts),
        "iterative": entry(facts, "pgd", steps=STEPS),
        "gradient-free": entry(facts, "square", queries=QUERIES),
    }
    return ItemAnswer(
        "not done",
        f"no {' and no '.join(lacking)} attack",
        tuple(entries[each] for each in lacking),
    )


def _gradient_free(facts: Facts) -> ItemAnswer:
    found = [each.spec.label for each in facts.attacks if each.gradient_free]
    if not found:
        more = (entry(facts, "square", queries=QUERIES),)
        return ItemAnswer("not done", "every attack takes gradients, or is noise", more)
    return done_unless(
        facts.flagged("black-box-stronger"),
        f"{listed(found)}, not the strongest",
        facts=facts,
        checks=(ORDER,),
    )


def _hard_label(facts: Facts) -> ItemAnswer:
    found = [each.spec.label for each in facts.attacks if each.hard_label]
    if found:
        return done_unless(facts.flagged("black-box-stronger"), listed(found))
    norm, _ = budget(facts)
    lines = (entry(facts, "foolbox:HopSkipJumpAttack", norm=norm.value, optional=True),)
    return ItemAnswer(
        "not done",
        "no attack sees predicted classes alone (it needs the library foolbox)",
        () if norm is Norm.L1 else lines,  # it searches in L∞ and L2
    )


def _transfer(facts: Facts) -> ItemAnswer:
    if facts.transfers:
        pairs = len({(row.source, row.target) for row in facts.transfers})
        return done_unless(
            facts.flagged("transfer-stronger"), f"{pairs} pairs of a source and another target"
        )
    alone = len(facts.experiment.models) == 1
    needs = (
        "add a second model, trained like this one without its defence"
        if alone
        else "transfer them"
    )
    return ItemAnswer("not done", f"no examples were made on another model: {needs}", transfer=True)


def _randomness(facts: Facts) -> ItemAnswer:
    flags = facts.flagged("random-answers")
    if not flags and not facts.made(TWICE):
        return _unchecked(TWICE)
    if not flags:
        return ItemAnswer("not applicable", "the models answer the same inputs alike each time")
    if any(each.spec.eot is not None for each in facts.attacks):
        return ItemAnswer("done", "an attack averages the gradient over draws (eot)")
    return ItemAnswer("not done", str(flags[0]), _adapted(facts, flags))


def _differentiable(facts: Facts) -> ItemAnswer:
    flags = facts.flagged(
        "gradient-mismatch",
        "discontinuous-loss",
        "uninformative-gradient",
        "rounded-inputs",
        "zero-gradient",
        "zero-gradient-on-path",
    )
    if not flags and not facts.made(GRADIENT):
        return _unchecked(GRADIENT)
    if not flags:
        return ItemAnswer(
            "not applicable", "gradients agree with finite differences where it was examined"
        )
    if any(each.spec.backward or each.spec.before for each in facts.attacks):
        return ItemAnswer(
            "done", "an attack replaces the backward pass of a part (backward, before)"
        )
    return ItemAnswer("not done", str(flags[0]), _adapted(facts, flags))


def _converged(facts: Facts) -> ItemAnswer:
    iterative = [each for each in facts.attacks if each.iterative]
    if not iterative:
        more = (entry(facts, "pgd", steps=STEPS),)
        return ItemAnswer("not done", "there is no iterative attack", more)
    return done_unless(
        facts.flagged("not-converged", "loss-did-not-rise", "few-steps", "budget-unused"),
        f"the loss of {listed(each.spec.label for each in iterative)} no longer rose at the end",
        facts=facts,
        checks=(PATHS,),
    )


def _other_parameters(facts: Facts) -> ItemAnswer:
    survivors = facts.flagged("survivors-misclassified")
    if survivors:  # found by an attack with other parameters
        return done_unless(survivors, "")
    names: dict[str, list[str]] = {}
    for each in facts.attacks:
        if each.iterative:
            names.setdefault(each.spec.name, []).append(each.spec.label)
    twice = [label for labels in names.values() if len(labels) > 1 for label in labels]
    if twice:
        return done_unless(
            facts.flagged("weaker-attack-stronger"), f"with other parameters: {listed(twice)}"
        )
    plain = [
        each
        for each in facts.attacks
        if each.iterative and isinstance(each.parameters.get("steps"), int)
    ]
    if not plain:
        more = entry(facts, "pgd", label="pgd-strong", steps=MORE_STEPS * STEPS, restarts=RESTARTS)
        return ItemAnswer("not done", "no iterative attack was run with other parameters", (more,))
    given = plain[0].spec.model_dump(exclude_defaults=True)
    steps = MORE_STEPS * int(plain[0].parameters["steps"])
    more = {**given, "label": f"{plain[0].spec.label}-{steps}", "steps": steps}
    if "restarts" in plain[0].parameters:
        more["restarts"] = max(RESTARTS, int(plain[0].parameters["restarts"]))
    return ItemAnswer(
        "not done", f"{plain[0].spec.label} was run with one number of steps", (more,)
    )


def _prior_work(facts: Facts) -> ItemAnswer:
    count = len(facts.record.suite.published)
    if count:
        return ItemAnswer("done", f"{count} published rows are compared with the measured ones")
    return ItemAnswer("not done", "the suite has no [[published]] rows to compare with")


def _broader(facts: Facts) -> ItemAnswer:
    norms = sorted({norm.symbol for each in facts.attacks for norm in each.norms})
    if len(norms) > 1:
        return ItemAnswer("done", f"norms: {listed(norms)}")
    norm, _ = budget(facts)
    other = "l2" if norm is not Norm.L2 else "linf"
    radius = ["0.5"] if other == "l2" else ["8/255"]
    more = {**entry(facts, "pgd", label=f"pgd-{other}", steps=STEPS), "norm": other}
    return ItemAnswer(
        "not done",
        f"all attacks are in {norms[0] if norms else 'no norm'}: needed if robustness in general "
        "is claimed",
        ({**more, "epsilon": radius},),
    )


def _provable(facts: Facts) -> ItemAnswer:
    proved = [row for row in facts.rows if row.certified_error is not None]
    if proved:
        return done_unless(
            facts.flagged("proved-example-attacked"),
            "a certified error is reported too",
        )
    return ItemAnswer("not done", "no certified error was computed: run it with --certify all")


def _noise(facts: Facts) -> ItemAnswer:
    found = [each.spec.label for each in facts.attacks if each.noise]
    if found:
        return done_unless(facts.flagged("noise-as-strong"), f"{listed(found)}, not the strongest")
    inside = budget(facts)[0] is Norm.LINF  # the norm that noise is drawn in
    lines = (entry(facts, "noise-sign"),) if inside else ()
    return ItemAnswer("not done", "no noise of the same size was tried", lines)


def _both_aims(facts: Facts) -> ItemAnswer:
    targeted = [each.spec.label for each in facts.attacks if each.targeted]
    others = [each.spec.label for each in facts.attacks if not each.targeted and not each.noise]
    lists = [each for each in facts.attacks if each.targeted and each.members]
    if targeted and (others or lists):
        return ItemAnswer("done", f"targeted: {listed(targeted)}")
    if not targeted:
        return ItemAnswer("not done", "no targeted attack", (entry(facts, "apgd-t"),))
    return ItemAnswer("not done", "no untargeted attack", (entry(facts, "pgd", steps=STEPS),))


def _worst_for_each(facts: Facts) -> ItemAnswer:
    together = [
        worst
        for worst in facts.record.worst_cases
        if worst.dataset == facts.dataset and len(worst.attacks) > 1
    ]
    lists = [each.spec.label for each in facts.attacks if each.members]
    if together or lists:
        return ItemAnswer("done", "worst-case error: the worst attack for each example")
    return ItemAnswer("not done", "there is one attack at each budget", (entry(facts, "apgd-dlr"),))


def _own_attacks(facts: Facts) -> ItemAnswer:
    broken = facts.flagged(
        "partial-perturbation",
        "few-steps",
        "no-gradient-taken",
        "budget-unused",
        "inputs-unchanged",
        "invalid-candidates",
    )
    if broken:
        return done_unless(broken, "")
    new = [each.spec.name for each in facts.attacks if "." in each.spec.name]
    if not new:
        return ItemAnswer("not applicable", "every attack is a registered one")
    return ItemAnswer(
        "not done", f"check {new[0]} keeps the laws of attacks: gibbon check {new[0]}"
    )


def _unchecked(check: str) -> ItemAnswer:
    return ItemAnswer("not done", f"the run did not check this ({check}): run it again")


def _by_hand(why: str) -> ItemAnswer:
    return ItemAnswer("not applicable", f"can't be seen from a run: {why}")


def _other_domains(facts: Facts) -> ItemAnswer:
    names = [each.dataset.name for each in facts.record.suite.with_classes]
    if len(names) > 1:
        return ItemAnswer("done", f"datasets: {listed(names)}")
    return _by_hand("needed if the claim is about more than this dataset")


CARLINI = Checklist(
    "carlini",
    "Checklist of Carlini et al. (2019)",
    "N. Carlini et al., On evaluating adversarial robustness, 2019, arXiv:1902.06705",
    (
        Item("threat-model", "A precise threat model is stated", _threat_model),
        Item("adaptive", "Attacks are adapted to the defence", _adaptive),
        Item("release", "Code and weights can be identified", _released),
        Item("clean-error", "The clean error is reported", _clean),
        Item("iterative", "Iterative attacks beat a single step", _iterative_above_single),
        Item("budget", "A larger budget finds more", _grows_with_budget),
        Item("unbounded", "An unbounded attack reaches 100 %", _unbounded),
        Item("curve", "Error against budget, up to 100 %", _curve),
        Item("parameters", "All parameters of attacks are given", _hyperparameters),
        Item("diverse", "Attacks of several kinds", _diverse),
        Item("gradient-free", "An attack without gradients", _gradient_free),
        Item("hard-label", "An attack that sees classes alone", _hard_label),
        Item("transfer", "Examples made on another model", _transfer),
        Item("randomness", "Randomness is averaged over", _randomness),
        Item("backward", "Parts without a gradient get one", _differentiable),
        Item("converged", "Attacks have converged", _converged),
        Item("more-steps", "Other parameters find no more", _other_parameters),
        Item("prior-work", "Compared with published figures", _prior_work),
        Item("norms", "Broader threat models", _broader),
        Item("proof", "A bound that no attack can exceed", _provable),
        Item("noise", "Random noise of the same size", _noise),
        Item("aims", "Targeted and untargeted attacks", _both_aims),
        Item("worst-case", "The worst attack of each example counts", _worst_for_each),
        Item("new-attacks", "Attacks do what they declare; new ones are checked", _own_attacks),
        Item(
            "ablation",
            "Parts of a defence are tried alone",
            lambda _: _by_hand("add the model without each part as a model of the suite"),
        ),
        Item("domains", "Other domains than one", _other_domains),
    ),
)
