"""Compares the answers that a model gives in a run with those that it gave when it was loaded.

Both are there without a pass, and so are the confidences.  A model that answers otherwise in larger
batches than a sample has, after more calls or examples, or after some time, gives some examples
another class or confidence.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gibbon.diagnostics.examination.observed import Observed
from gibbon.models.outputs import OutputRule
from gibbon.records.flag_share import FlagShare
from gibbon.records.flags import Flag
from gibbon.records.outcomes import Outcome

# Distance of the two classes' outputs at loading, as a share of the outputs' range, from which on
# no rounding exchanges them, on another device and in coarser products of matrices neither.
LEAST_GAP = 0.05
COARSE_GAP = 0.3  # of a model that computes with few digits
# A confidence moves at most by half of what its outputs move: by more, it is another answer.  It
# counts for outputs whose own rounding leaves it where it is.
LEAST_CHANGE, COARSE_CHANGE = 0.05, 0.3
ROUNDING, COARSE_ROUNDING = 1e-3, 0.05  # of the outputs' range


def answers_in_run_flags(
    dataset: str, model: str, *, observed: Observed, rule: OutputRule, clean: Outcome, digest: str
) -> Iterator[Flag]:
    """Yields ``stateful-answers`` for a model that gives other answers in the run.

    Args:
        dataset: the dataset's name.
        model: the model's name.
        observed: the answers at loading; they are not compared if they did not repeat.
        rule: the meaning of its outputs.
        clean: the outcome of the unattacked examples.
        digest: digest of the model.
    """
    answers = clean.scores.get(digest)
    if not observed.steady or answers is None or answers.wrong_share is not None:
        return
    place = {int(each): row for row, each in enumerate(clean.example_id)}
    rows = [(row, place[each]) for row, each in enumerate(_ids(observed)) if each in place]
    if not rows:
        return
    before, now = np.array(rows).T
    outputs = observed.outputs.double().numpy()[before]
    largest, least = outputs.max(1), outputs.min(1)
    given = np.take_along_axis(outputs, answers.predicted[now][:, None].astype(np.int64), 1)[:, 0]
    gap = np.where(largest > least, (largest - given) / np.maximum(largest - least, 1e-300), 0.0)
    changed = gap > (COARSE_GAP if observed.coarse else LEAST_GAP)
    confidence = rule.confidence(observed.outputs).double().numpy()[before]
    change = np.abs(answers.confidence[now] - confidence)
    # Half of the largest movement of a difference of outputs that is rounding.
    rounding = (COARSE_ROUNDING if observed.coarse else ROUNDING) * (largest - least)
    changed |= change > np.maximum(COARSE_CHANGE if observed.coarse else LEAST_CHANGE, rounding)
    other = int(changed.sum())
    if other:
        yield Flag(
            kind="stateful-answers",
            dataset=dataset,
            model=model,
            share=FlagShare(count=other, of=len(rows)),
            sentence=f"gives {other} of {len(rows)} examples another answer in the run than when "
            "it was loaded, by more than rounding: its answers depend on earlier calls, on the "
            "size of the batch or on time",
        )


def _ids(observed: Observed) -> list[int]:
    return [int(each) for each in observed.sample.ids]
