"""Flags of examples that an attack claims although they are proved robust.

A proof and a valid, misclassified candidate within the same budget contradict each other: one of
them is wrong, whoever made the proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from gibbon.records.flag_share import FlagShare
from gibbon.records.flags import Flag
from gibbon.records.run import Evaluation, Transfer
from gibbon.specs.published import PublishedRow

ROUNDING = 1e-9  # of a difference of rates: far below one example of any dataset
OURS = "our own bounds"
NAMED = 3  # examples


def proof_flags(
    row: Evaluation | Transfer,
    ids: NDArray[np.int64],
    *,
    claimed: NDArray[np.bool_],
    proved: NDArray[np.bool_],
    by: str = OURS,
) -> Iterator[Flag]:
    """Yields the flag of a row that claims examples which are proved robust.

    Args:
        row: the row of the attack; in a transfer the model is the target.
        ids: ids of the examples, shape (N,).
        claimed: which examples have a valid candidate that the model misclassifies.
        proved: which examples are proved robust under the row's threat model.
        by: where the proofs come from.
    """
    wrong = np.flatnonzero(claimed & proved)
    if not len(wrong):
        return
    named = ", ".join(str(ids[each]) for each in wrong[:NAMED])
    more = ", ..." if len(wrong) > NAMED else ""
    count, total = len(wrong), int(np.count_nonzero(proved))
    made = f", made on {row.source}," if isinstance(row, Transfer) else ""
    yield Flag(
        kind="proved-example-attacked",
        dataset=row.dataset,
        model=row.target if isinstance(row, Transfer) else row.model,
        attack=row.attack,
        epsilon=row.epsilon,
        share=FlagShare(count=count, of=total),
        sentence=f"candidates{made} for {count} of {total} examples that {by} prove robust are "
        f"misclassified (examples {named}{more})",
    )


def published_bound_flags(
    row: PublishedRow, evaluations: Iterable[Evaluation], *, whole: bool
) -> Iterator[Flag]:
    """Yields the flags of attacks that find more errors than a published proof allows.

    Args:
        row: a published row that is an upper bound.
        evaluations: the rows of a run.
        whole: whether all examples of the dataset were evaluated; a sample may exceed the bound by
            chance, so that the lower end of the interval is compared.
    """
    if row.bound != "upper" or row.value is None:
        return
    limit = row.value + (row.tolerance or 0.0) + ROUNDING
    for each in evaluations:
        about = (each.dataset, each.model, each.epsilon) == (row.dataset, row.model, row.epsilon)
        if not about or each.unattacked or row.norm not in (None, each.norm) or not each.clip:
            continue
        error = each.worst_case_error if whole else each.worst_case_error_low
        if error is not None and error > limit:
            yield Flag(
                kind="proved-example-attacked",
                dataset=each.dataset,
                model=each.model,
                attack=each.attack,
                epsilon=each.epsilon,
                figure=f"{100 * (each.worst_case_error or 0):.2f} % above {100 * row.value:g} %",
                sentence=f"it finds {100 * (each.worst_case_error or 0):.2f} % errors, and the "
                f"published proof ({row.section}) allows {100 * row.value:g} %",
            )
