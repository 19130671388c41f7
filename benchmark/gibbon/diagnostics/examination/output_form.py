"""Checks the form of a model's outputs: probabilities, log-probabilities, their size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gibbon.diagnostics.examination.closeness import EPSILON
from gibbon.diagnostics.examination.module_search import softmax_part
from gibbon.diagnostics.examination.subject import CheckNotes, CheckReport, Subject, counted
from gibbon.models.ensemble import Ensemble
from gibbon.models.outputs import (
    LIKELY_SUM,
    LOG_SCORES,
    LOGITS,
    LOSS_SCORES,
    look_like_probabilities,
)
from gibbon.records.examination import ExaminedFlag
from gibbon.records.flag_share import FlagShare

LEAST_SATURATED = 0.05  # share of the examples
LEVELS = 256  # roundings within the outputs' range, below which their differences are tiny


def output_form(subject: Subject) -> CheckReport:
    """Looks at the outputs for the sample, without a pass.

    Raises ``outputs-are-probabilities``, ``outputs-are-log-probabilities``, ``saturated-outputs``
    and ``tiny-outputs``.
    """
    observed, rule = subject.observed, subject.classifier.outputs
    outputs, labels = observed.outputs, observed.sample.labels.cpu()
    notes = CheckNotes("form of the outputs", f"the outputs for {counted(len(outputs), 'example')}")
    if outputs.shape[1] < 2 or not bool(torch.isfinite(outputs).all()):
        return notes.abstain("there are fewer than two classes, or outputs are not finite")
    probabilities = rule is LOGITS and look_like_probabilities(outputs)
    if probabilities:
        path = softmax_part(subject)
        notes.found.append(
            ExaminedFlag(
                kind="outputs-are-probabilities",
                figure=f"{len(outputs)} of {len(outputs)} rows sum to 1",
                sentence="the outputs are probabilities, but are declared to be logits"
                + (f" (the softmax is {path})" if path else ""),
                suite=f'before = "{path}"' if path else 'outputs = "probabilities"',
            )
        )
    elif (
        rule is LOGITS
        and _are_log_probabilities(outputs)
        and not isinstance(subject.classifier.module, Ensemble)
    ):
        notes.found.append(
            ExaminedFlag(
                kind="outputs-are-log-probabilities",
                sentence="the outputs are log-probabilities, which are logits too",
            )
        )
    certain = rule.true_class_probability(outputs, labels) == 1
    share = float(certain.double().mean())
    notes.figures["saturated share"] = share
    if share >= LEAST_SATURATED and int(certain.sum()) > 1 and not probabilities:
        notes.found.append(
            ExaminedFlag(
                kind="saturated-outputs",
                share=FlagShare(count=int(certain.sum()), of=len(outputs)),
                sentence="the probability of the true class is 1 in float32 for "
                f"{int(certain.sum())} of {counted(len(outputs), 'example')}",
            )
        )
    if rule in (LOG_SCORES, LOSS_SCORES):
        return notes.report()
    spread = float((outputs.amax(1) - outputs.amin(1)).double().median())
    notes.figures["median range of the outputs"] = spread
    if spread < LEVELS * EPSILON * max(float(outputs.abs().max()), math.log(outputs.shape[1])):
        notes.found.append(
            ExaminedFlag(
                kind="tiny-outputs",
                figure=f"{spread:.1g}",
                sentence=f"the outputs of the classes differ by {spread:.1g}: float32 rounds their "
                "loss",
            )
        )
    return notes.report()


def _are_log_probabilities(outputs: Tensor) -> bool:
    return bool((outputs.double().logsumexp(1).abs() <= LIKELY_SUM).all())
