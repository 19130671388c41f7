"""The kinds of flags: a closed list, each with its severity, its advice and its source.

Each kind has a page, ``records/flag_pages/KIND.md``, which ``gibbon explain KIND`` prints and the
report shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from gibbon.core.errors import SpecError, suggest
from gibbon.core.plain_text import shown

Severity = Literal["serious", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "note")
MEANINGS: Final[dict[Severity, str]] = {
    "serious": "the number must not be used as it is",
    "warning": "check the number before using it",
    "note": "for information",
}

ATHALYE = (
    "A. Athalye, N. Carlini and D. Wagner, Obfuscated gradients give a false sense of security, "
    "ICML 2018"
)
CARLINI = "N. Carlini et al., On evaluating adversarial robustness, 2019, arXiv:1902.06705"
HENDRYCKS = (
    "D. Hendrycks and K. Gimpel, A baseline for detecting misclassified and out-of-distribution "
    "examples in neural networks, ICLR 2017, arXiv:1610.02136"
)
KALAMKAR = (
    "D. Kalamkar et al., A study of BFLOAT16 for deep learning training, 2019, arXiv:1905.12322"
)
MADRY = (
    "A. Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018, "
    "arXiv:1706.06083"
)
PINTOR = (
    "M. Pintor et al., Indicators of attack failure: debugging and improving optimization of "
    "adversarial examples, NeurIPS 2022, arXiv:2106.09947"
)
BARZ = (
    "B. Barz and J. Denzler, Do we train on test data? Purging CIFAR of near-duplicates, Journal "
    "of Imaging 6(6), 2020, arXiv:1902.00423"
)
NORTHCUTT = (
    "C. G. Northcutt, A. Athalye and J. Mueller, Pervasive label errors in test sets destabilize "
    "machine learning benchmarks, NeurIPS Datasets and Benchmarks 2021, arXiv:2103.14749"
)
SUNDARARAJAN = (
    "M. Sundararajan, A. Taly and Q. Yan, Axiomatic attribution for deep networks, ICML 2017, "
    "arXiv:1703.01365"
)
TRAMER = (
    "F. Tramèr, N. Carlini, W. Brendel and A. Madry, On adaptive attacks to adversarial example "
    "defenses, NeurIPS 2020, arXiv:2002.08347"
)
ZIMMERMANN = (
    "R. S. Zimmermann, W. Brendel, F. Tramèr and N. Carlini, Increasing confidence in adversarial "
    "robustness evaluations, NeurIPS 2022, arXiv:2206.13991"
)


@dataclass(frozen=True)
class FlagKind:
    """A kind of flag.

    Args:
        name: its name in tables and files.
        severity: how much it matters, unless a flag says otherwise.  ``serious``: the number must
            not be used as it is; ``warning``: check it; ``note``: know it.
        title: what it says, in a few words.
        advice: what to do, in one line.
        source: where the check is described.
    """

    name: str
    severity: Severity
    title: str
    advice: str
    source: str


_KINDS = (
    # The examination of a model.
    FlagKind(
        "gradient-mismatch",
        "serious",
        "the input gradient disagrees with finite differences of the loss",
        "Mend the backward pass, or give the part without a useful gradient another one: "
        'backward = { "module.path" = "identity" }; and add a gradient-free attack such as square.',
        ATHALYE,
    ),
    FlagKind(
        "zero-gradient",
        "serious",
        "the input gradient is zero in every coordinate",
        'Attack the outputs before the part that loses the gradient: before = "module.path"; or '
        'give it another backward pass: backward = { "module.path" = "identity" }; or use an '
        "attack with an exact direction (pgd, apgd-dlr) or without gradients (square).",
        ATHALYE,
    ),
    FlagKind(
        "discontinuous-loss",
        "serious",
        "the loss jumps between neighbouring inputs",
        "Add apgd-ce with restarts and square with thousands of queries: they step over jumps; or "
        "give the part another backward pass, such as that of a smooth activation.",
        TRAMER,
    ),
    FlagKind(
        "uninformative-gradient",
        "serious",
        "the gradient says nothing of the loss away from the point where it is taken",
        "Add square with thousands of queries and a transfer from another model; or give the part "
        "another backward pass, such as that of a smooth stand-in.",
        SUNDARARAJAN,
    ),
    FlagKind(
        "random-answers",
        "serious",
        "the model answers the same inputs differently each time",
        "Average the gradient over draws: eot = 20.",
        ATHALYE,
    ),
    FlagKind(
        "stateful-answers",
        "serious",
        "the answers depend on earlier calls",
        "Remove what the model remembers between calls, or reset it in forward.",
        CARLINI,
    ),
    FlagKind(
        "batch-dependent",
        "serious",
        "the answer to an input depends on the other inputs of the batch",
        "Evaluate with batch size 1, or remove the statistics of the batch from the model.",
        TRAMER,
    ),
    FlagKind(
        "detects-gradients",
        "serious",
        "the answers differ with gradients on and off",
        "Make forward independent of requires_grad and of torch.is_grad_enabled().",
        CARLINI,
    ),
    FlagKind(
        "training-layers",
        "serious",
        "batch norm or dropout is active in eval mode",
        "Register every part as a submodule, so that eval() reaches it, and leave train() alone.",
        CARLINI,
    ),
    FlagKind(
        "outputs-are-probabilities",
        "serious",
        "the outputs are probabilities, but are declared to be logits",
        'Declare them: outputs = "probabilities"; or attack the logits: before = "module.path".',
        CARLINI,
    ),
    FlagKind(
        "outputs-are-log-probabilities",
        "note",
        "the outputs are log-probabilities, which are logits too",
        "Nothing: a log-softmax does not change softmax, loss or direction.",
        CARLINI,
    ),
    FlagKind(
        "saturated-outputs",
        "warning",
        "the softmax is 1 in float32 for the true class",
        "Use attacks whose direction is exact (pgd, apgd-ce, apgd-dlr), not the naive gradient.",
        CARLINI,
    ),
    FlagKind(
        "tiny-outputs",
        "warning",
        "the outputs differ so little that float32 rounds the loss",
        'Remove the temperature, or attack before it: before = "module.path".',
        CARLINI,
    ),
    FlagKind(
        "error-at-chance",
        "serious",
        "the clean error is no better than that of guessing",
        "Check weights, normalisation, class order and labels.",
        CARLINI,
    ),
    FlagKind(
        "preprocessing",
        "serious",
        "other preprocessing makes the clean error much smaller",
        "Use the preprocessing that the flag names.",
        CARLINI,
    ),
    FlagKind(
        "rounded-inputs",
        "serious",
        "the model rounds its inputs",
        'Give the rounding another backward pass: backward = { "module.path" = "identity" }.',
        ATHALYE,
    ),
    FlagKind(
        "autograd-in-forward",
        "warning",
        "the model differentiates or optimises in forward",
        "Add a gradient-free attack such as square, and a transfer from an undefended model.",
        TRAMER,
    ),
    FlagKind(
        "not-examined",
        "warning",
        "the model was not examined",
        "Leave out --no-examination.",
        CARLINI,
    ),
    # Evidence from attacks.
    FlagKind(
        "zero-gradient-on-path",
        "serious",
        "the gradient is zero at points that the attack visited",
        "Use an exact direction (apgd-dlr), more restarts, or a gradient-free attack (square).",
        PINTOR,
    ),
    FlagKind(
        "loss-did-not-rise",
        "serious",
        "the attack did not raise the loss",
        "Use another step size or more steps, and a gradient-free attack (square).",
        PINTOR,
    ),
    FlagKind(
        "not-converged",
        "warning",
        "the loss was still rising in the last quarter of the steps",
        "Use more steps, or longer ones.",
        PINTOR,
    ),
    FlagKind(
        "success-lost",
        "warning",
        "the attack passed adversarial examples that it did not return",
        "Return the best or first misclassified point of each example.",
        PINTOR,
    ),
    FlagKind(
        "few-steps",
        "warning",
        "the attack took far fewer steps or queries than it declares, or than its source uses",
        "Let the attack take its steps for every example that has not been misclassified.",
        CARLINI,
    ),
    FlagKind(
        "partial-perturbation",
        "warning",
        "the attack changed few of the coordinates that the model's gradient is in",
        "Check masks and indices of the attack; if it is sparse by design, declare sparse = True.",
        CARLINI,
    ),
    FlagKind(
        "budget-unused",
        "warning",
        "the attack did not use its budget",
        "Check the epsilon and the step size that the attack works with.",
        PINTOR,
    ),
    FlagKind(
        "inputs-unchanged",
        "serious",
        "the attack returned inputs unchanged",
        "Check step size, gradient and random start of the attack.",
        PINTOR,
    ),
    FlagKind(
        "invalid-candidates",
        "serious",
        "candidates are out of budget, out of bounds or not finite",
        "Mend the attack: such candidates are not counted as adversarial.",
        CARLINI,
    ),
    FlagKind(
        "error-below-clean",
        "serious",
        "fewer errors under attack than without",
        "Check labels and loss of the attack: it seems to lower the loss.",
        CARLINI,
    ),
    FlagKind(
        "error-falls-with-epsilon",
        "serious",
        "fewer errors at a larger epsilon",
        "Use more steps at the larger epsilon, or carried = true.",
        CARLINI,
    ),
    FlagKind(
        "unbounded-attack-fails",
        "serious",
        "a budget as wide as the box does not reach 100 % error",
        "Do not trust this attack on this model at smaller budgets; add square and a transfer.",
        CARLINI,
    ),
    FlagKind(
        "wide-budget",
        "warning",
        "the budget is as wide as the box",
        "Check the units of epsilon: inputs are in [0, 1], not 0 to 255.",
        CARLINI,
    ),
    FlagKind(
        "tiny-budget",
        "warning",
        "the budget is less than half a step of an 8-bit picture",
        "Check the units of epsilon: is it divided by 255 twice?",
        CARLINI,
    ),
    FlagKind(
        "noise-only",
        "warning",
        "nothing but noise was tried on the model",
        "Add an attack, such as pgd or autoattack: noise is a control, and bounds nothing.",
        CARLINI,
    ),
    FlagKind(
        "single-step-only",
        "warning",
        "nothing stronger than one gradient step was tried on the model",
        "Add an attack of several steps in the same norm and epsilon, such as pgd or autoattack.",
        MADRY,
    ),
    FlagKind(
        "targeted-only",
        "warning",
        "nothing but attacks towards a target class was tried on the model",
        "Add an attack without a target, such as pgd or autoattack: any wrong class is an error.",
        CARLINI,
    ),
    FlagKind(
        "no-gradient-taken",
        "warning",
        "the attack took no gradient of the model that it was run on",
        "Declare needs_gradient = False if it needs none; else it attacks another model.",
        CARLINI,
    ),
    FlagKind(
        "duplicated-examples",
        "serious",
        "the same input occurs several times",
        "Remove the copies: errors count them again, and their intervals are too narrow.",
        BARZ,
    ),
    FlagKind(
        "conflicting-labels",
        "serious",
        "equal inputs have different labels",
        "Check the labels, and how inputs and labels were brought together.",
        NORTHCUTT,
    ),
    FlagKind(
        "displaced-labels",
        "serious",
        "labels look like those of other examples, or of another class, on a part of the data",
        "Check how inputs and labels were joined: order of files, rows left out, headers.",
        NORTHCUTT,
    ),
    FlagKind(
        "sure-errors",
        "warning",
        "the model is as sure of its errors without an attack as of its right answers",
        "Look at some misclassified examples with their labels; check how inputs were stored.",
        HENDRYCKS,
    ),
    FlagKind(
        "constant-inputs",
        "serious",
        "inputs are of one value, such as black pictures",
        "Check how the files are read, and the scale and bounds of the inputs.",
        NORTHCUTT,
    ),
    FlagKind(
        "few-classes",
        "note",
        "all examples are of one class",
        "Evaluate on examples of every class.",
        CARLINI,
    ),
    FlagKind(
        "noise-as-strong",
        "serious",
        "noise of the same size finds as many errors as the attack",
        "Check the gradient: an attack that follows it must do better than noise.",
        CARLINI,
    ),
    # Evidence across cells.
    FlagKind(
        "survivors-misclassified",
        "serious",
        "a short attack by Gibbon misclassifies examples that all attacks missed",
        "Compare the attack with autoattack on the same examples; look at its steps and loss.",
        ZIMMERMANN,
    ),
    FlagKind(
        "weaker-attack-stronger",
        "serious",
        "a weaker attack finds more errors than a stronger one",
        "Report the worst case over both, and look for masked gradients.",
        CARLINI,
    ),
    FlagKind(
        "black-box-stronger",
        "serious",
        "an attack without gradients finds more errors than one with gradients",
        "Report the worst case over both, and look for masked gradients.",
        ATHALYE,
    ),
    FlagKind(
        "transfer-stronger",
        "serious",
        "examples made on another model find more errors than the model's own",
        "Report the worst case over both, and look for masked gradients.",
        ATHALYE,
    ),
    FlagKind(
        "too-few-examples",
        "note",
        "too few examples for the difference that is claimed",
        "Use more examples.",
        CARLINI,
    ),
    FlagKind(
        "proved-example-attacked",
        "serious",
        "an attack claims an example that is proved robust",
        "Report this: either the proof or the evaluation is wrong.",
        CARLINI,
    ),
    # The plan of a run.
    FlagKind(
        "changed-predictions",
        "warning",
        "the number format changes predictions for clean inputs",
        "Leave out --precision; or state the format beside each number, and compare it only with "
        "numbers in the same format.",
        KALAMKAR,
    ),
    FlagKind(
        "examples-left-out",
        "warning",
        "examples were left out",
        "Mend or remove the files that can't be read.",
        CARLINI,
    ),
    FlagKind(
        "attack-left-out", "note", "an optional attack was not run", "Install its library.", ""
    ),
    FlagKind(
        "target-only",
        "note",
        "no examples are made on a model without gradients",
        "Add an attack without gradients, such as square.",
        "",
    ),
    FlagKind(
        "stopped-early",
        "note",
        "examples are only just misclassified: their transfer is a lower bound",
        'Set keep = "last" or "best-loss".',
        "",
    ),
    FlagKind(
        "unreadable-code",
        "note",
        "code can't be read, so that results are never taken from an earlier run",
        "Define the class in a file.",
        "",
    ),
    FlagKind(
        "departs-from-paper",
        "note",
        "the attack differs from its paper on this model",
        "Read the reason before comparing with published numbers.",
        "",
    ),
    FlagKind(
        "earlier-version",
        "warning",
        "a flag of an earlier version of Gibbon, which had no kinds",
        "Run the suite again.",
        "",
    ),
)

KINDS = {kind.name: kind for kind in _KINDS}

# Kinds that are about the model's answers or about the data, so that they put the clean error in
# doubt as well; all others are about what an attack may have missed.
ABOUT_ANSWERS: Final = frozenset(
    [
        *("random-answers", "stateful-answers", "batch-dependent", "detects-gradients"),
        *("training-layers", "error-at-chance", "preprocessing", "earlier-version"),
        *("duplicated-examples", "conflicting-labels", "displaced-labels", "constant-inputs"),
        "sure-errors",
    ]
)

CONTRADICTED: Final = "proved-example-attacked"  # puts the proof in doubt, or the attack

PAGES: Final = Path(__file__).parent / "flag_pages"


def flag_kind(name: str) -> FlagKind:
    """Returns the kind of flags of this name.

    Raises `SpecError` with the nearest name if there is none.

    >>> flag_kind("zero-gradient").severity
    'serious'
    """
    if name not in KINDS:
        raise SpecError(f"there is no kind of flag {shown(name)}{suggest(name, KINDS)}")
    return KINDS[name]


def flag_page(name: str) -> str:
    """Returns the page of a kind of flag, in markdown.

    Raises `SpecError` with the nearest name if there is no such kind.
    """
    return (PAGES / f"{flag_kind(name).name}.md").read_text(encoding="utf-8")
