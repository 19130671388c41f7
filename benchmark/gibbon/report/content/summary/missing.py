"""The outcomes that a record was counted from and that its folder lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gibbon.core.errors import RecordError
from gibbon.records.outcomes import OUTCOMES, load_outcome
from gibbon.records.run import RunRecord

_SHOWN: Final = 3  # outcomes that are named


def missing_outcomes(record: RunRecord, folder: Path) -> str:
    """Returns a sentence about the outcomes that are missing or damaged; empty if there are none.

    The tables are made from the record alone.  Error curves of searches, and histograms of
    confidence unless they are stored too, are made from outcomes.
    """
    rows = {row.digest: row for row in record.evaluations if row.status == "done" and row.digest}
    reasons: list[str] = []
    for digest, row in rows.items():
        try:
            load_outcome(folder / OUTCOMES, digest)
        except RecordError as error:
            cell = f"{row.dataset}, {row.model}, {row.attack} at epsilon {row.epsilon}"
            reasons.append(f"{OUTCOMES}/{digest}.parquet ({cell}) {error}")
    if not reasons:
        return ""
    more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
    return (
        f"{len(reasons)} of {len(rows)} outcomes are missing or damaged, so that error curves and "
        f"histograms of confidence may be left out; `run` computes them again: "
        f"{'; '.join(reasons[:_SHOWN])}{more}"
    )
