"""Compares the answers of a model that is computed in another way with those in plain float32."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from gibbon.core.errors import ModelError
from gibbon.diagnostics.examination.closeness import relative_difference
from gibbon.diagnostics.examination.observe import plain_answers
from gibbon.models.classifier import Classifier
from gibbon.models.sources.wrap_module import same_random_numbers
from gibbon.records.run import PredictionChange
from gibbon.runner.device.compiled import FEWEST
from gibbon.runner.plan.probe_model import ProbedAnswers


def can_be_padded(probed: ProbedAnswers) -> bool:
    """Returns whether an example's answer does not depend on the other examples of its batch."""
    alone = probed.observed.alone
    return probed.steady and alone is not None and alone.difference <= probed.observed.tolerance


def check_compiled(classifier: Classifier, probed: ProbedAnswers, *, device: torch.device) -> None:
    """Checks that a model can be compiled, and answers a few examples as before.

    Raises `ModelError` with the reason.  The passes are not counted.
    """
    inputs = probed.observed.sample.inputs[:FEWEST].to(device)
    with classifier.uncounted(), classifier.evaluating(device):
        outputs = plain_answers(classifier, inputs)
    before = probed.observed.outputs[: len(inputs)]
    if not can_be_padded(probed) or outputs.shape != before.shape:
        return  # in another batch the answers may be others
    difference = float(relative_difference(outputs, before).max())
    if difference > probed.observed.tolerance:
        raise ModelError(
            "torch.compile changes its outputs by more than rounding "
            f"({difference:.1%} of their range): leave out --compile"
        )


def compare_predictions(
    plain: Classifier,
    varied: Classifier,
    probed: ProbedAnswers,
    *,
    device: torch.device,
    computed: str,
) -> PredictionChange:
    """Returns how many predictions for the sample another way of computing a model changes.

    Args:
        plain: the model in float32.
        varied: the model that is evaluated.
        probed: its answers without layout and compiler.
        device: where both are computed.
        computed: the way, in words.

    A model that answers at random is compared with random numbers from one seed; none of its
    predictions are if that does not repeat them.  The passes are not counted.
    """
    if not probed.observed.repeats:
        return PredictionChange(computed=computed, changed=0, of=0)
    inputs = probed.observed.sample.inputs.to(device)

    def predictions(classifier: Classifier) -> Tensor:
        seeded = nullcontext() if probed.steady else same_random_numbers(device)
        with classifier.uncounted(), classifier.evaluating(device), seeded:
            return plain_answers(classifier, inputs).argmax(1)

    changed = int((predictions(plain) != predictions(varied)).sum())
    return PredictionChange(computed=computed, changed=changed, of=len(inputs))
