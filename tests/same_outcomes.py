"""What must be equal between two runs of the same cells, however the work was cut.

Batch size, threads, device, order, memory shortages, models in turns, kills and resumptions change
no decision: ids, labels, predictions, verdicts, counts, shares of counts, passes, digests and
messages are equal exactly.  They may change the last bits of what is computed: matrix libraries
choose a kernel by the shape of a batch, the processor and the number of threads, and each kernel
adds in an order of its own.  So confidences, distances, and their means and quantiles are equal
within `TOLERANCE`, and pictures of 256 levels within one level.  What the clock says is not
compared.

A prediction is a decision on rounded numbers, too: what the tests run on is far enough from a tie,
since `planted.Rows` computes without rounding (`nets.on_grid`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel

from gibbon.records.outcomes import OUTCOMES, read_outcome
from gibbon.records.run import RunRecord

# A confidence is in [0, 1] and a distance of the size of an input.  float32 keeps 6e-8 of such a
# number; a sum of some hundred products, the softmax of sums that are not small, and an attack's
# steps from a point that was rounded otherwise multiply that by 10 to 100.  Anything that goes
# wrong with an example moves these numbers by far more.
TOLERANCE = 1e-5

ROUNDED = frozenset(
    {
        "best_margin",
        "confidence",
        "confidence_on_misclassified",
        "confidence_on_misclassified_high",
        "confidence_on_misclassified_low",
        "confidence_on_misclassified_mean",
        "confidence_on_misclassified_sd",
        "distance",
        "late_rise",
        "margin",
        "max_distance",
        "mean_confidence",
        "mean_confidence_high",
        "mean_confidence_low",
        "mean_confidence_mean",
        "mean_confidence_sd",
        "mean_distance",
        "nearest",
        "nearest_median",
        "nearest_median_high",
        "nearest_median_low",
        "nearest_q10",
        "nearest_q90",
        "pace",
        "rise",
        "scale",
        "start_distance",
        "start_margin",
        "success_distance",
        "zero_share",
        "sure_after",
        "sure_before",
    }
)
DRAWN = frozenset({"clean", "change"})  # pictures of 256 levels
CLOCK = frozenset({"seconds", "started", "finished"})
DECIMALS = re.compile(r"[−-]?\d+\.(\d+)")


def assert_same(
    one: Any, other: Any, *, but: frozenset[str] = frozenset(), where: str = ""
) -> None:
    """Asserts that two records, outcomes, galleries, or plain values made of them, are the same.

    Args:
        one: what was found one way.
        other: what was found another way.
        but: names of fields that are not compared, besides `CLOCK`.
        where: what is compared, for the message.
    """
    if _fields(one) is not None:
        mine, theirs = _fields(one), _fields(other)
        assert type(one) is type(other), where
        assert mine is not None
        assert theirs is not None
        assert mine.keys() == theirs.keys(), where
        for name in mine.keys() - CLOCK - but:
            assert_same(mine[name], theirs[name], but=but, where=f"{where}.{name}")
    elif isinstance(one, list | tuple):
        assert isinstance(other, list | tuple), where
        assert len(one) == len(other), where
        for place, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            assert_same(mine, theirs, but=but, where=f"{where}[{place}]")
    elif one is None or other is None:
        assert one is other, where
    else:
        _assert_same_value(one, other, where)


def _fields(value: Any) -> dict[str, Any] | None:
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if dataclasses.is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    return dict(value) if isinstance(value, Mapping) else None


def _assert_same_value(one: Any, other: Any, where: str) -> None:
    name = re.sub(r"\[\d+\]", "", where).rpartition(".")[2]
    if name in DRAWN:
        np.testing.assert_allclose(np.asarray(one, int), np.asarray(other, int), atol=1)
    elif name in ROUNDED:
        np.testing.assert_allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, err_msg=where)
    elif isinstance(one, np.ndarray | torch.Tensor):
        np.testing.assert_array_equal(one, other, err_msg=where, strict=True)
    else:
        assert one == other, where


def assert_same_records(one: RunRecord, other: RunRecord) -> None:
    """Asserts that two runs found the same: all rows and flags, without where they come from."""
    for name in ("evaluations", "transfers", "agreements", "worst_cases", "members", "flags"):
        assert_same(getattr(one, name), getattr(other, name), where=name)


def assert_same_outcomes(one: Path, other: Path) -> None:
    """Asserts that the folders of two runs hold the same outcomes, example by example."""
    files = sorted(each.name for each in (one / OUTCOMES).iterdir())
    assert files == sorted(each.name for each in (other / OUTCOMES).iterdir())
    for file in files:
        digest = file.partition(".")[0]
        found = [read_outcome(folder / OUTCOMES, digest) for folder in (one, other)]
        assert found[0] is not None, file
        assert_same(*found, where=file)


def assert_same_tables(one: Path, other: Path, *names: str) -> None:
    """Asserts that the folders of two runs hold the same tables: CSV files, or text.

    A decimal number in a text may differ by one in its last place: it may have been rounded from
    just below or just above.
    """
    for name in names:
        if name.endswith(".csv"):
            tables = [
                pd.read_csv(folder / name, dtype=str, keep_default_na=False)
                for folder in (one, other)
            ]
            assert list(tables[0]) == list(tables[1]), name
            for column in tables[0]:
                cells = [tuple(table[column]) for table in tables]
                if column in ROUNDED:
                    cells = [tuple(float(cell or "nan") for cell in each) for each in cells]
                if column not in CLOCK:
                    _assert_same_value(*cells, f"{name}.{column}")
        else:
            _assert_same_text(*((folder / name).read_text() for folder in (one, other)), name)


def _assert_same_text(one: str, other: str, where: str) -> None:
    assert DECIMALS.sub("#", one) == DECIMALS.sub("#", other), where
    for mine, theirs in zip(DECIMALS.finditer(one), DECIMALS.finditer(other), strict=True):
        values = [float(each[0].replace("−", "-")) for each in (mine, theirs)]
        assert abs(values[0] - values[1]) < 1.5 * 10.0 ** -len(mine[1]), f"{where}: {mine} {theirs}"


def assert_same_folders(
    one: Path, other: Path, *, rows: Iterable[str], tables: Iterable[str]
) -> None:
    """Asserts that two runs have the same rows of their records, outcomes, and tables if made."""
    records = RunRecord.read(one), RunRecord.read(other)
    for name in rows:
        assert_same(*(getattr(each, name) for each in records), where=name)
    assert_same_outcomes(one, other)
    assert_same_tables(one, other, *(each for each in tables if (one / each).exists()))
