"""Checksums of mutants, as the files of a deliberate change would have them."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import ValidationError

from gibbon.core.errors import RecordError
from gibbon.gate import baseline
from gibbon.gate.bit_rows import unpack_by_position
from gibbon.records import checksums


def sealed_baseline(written: dict[str, Any]) -> dict[str, Any]:
    """Returns a decoded baseline with the checksums of its rows, or as it is if it has none."""
    try:
        read = baseline.Baseline.model_validate(written)
        if read.version <= baseline.WITHOUT_CHECKSUMS:
            return written
        datasets, cells = [], {}
        for dataset in read.datasets:
            (known,) = unpack_by_position([dataset.ids], dataset.of)
            datasets.append(_with_checksum(dataset, {"": known}))
            own = [cell for cell in read.cells if cell.dataset == dataset.name]
            every = dataset.transfer_every
            rows, transfers = baseline._bits_of(own, int(known.sum()), every, read.version)
            for cell in own:
                bits = {target: transfers[cell.key, target] for target in cell.transfer}
                cells[cell.key] = _with_checksum(cell, {"": rows[cell.key], **bits})
        found = {
            "datasets": [each.model_dump(mode="json", exclude_defaults=True) for each in datasets],
            "cells": [
                cells[each.key].model_dump(mode="json", exclude_defaults=True)
                for each in read.cells
            ],
        }
    except (RecordError, ValidationError, ArithmeticError, ValueError, LookupError):
        return written  # it is refused before a checksum is looked at
    return {**written, **found}


def _with_checksum(row: Any, bits: dict[str, Any]) -> Any:
    return row.model_copy(update={"checksum": baseline._checksum_of(row, bits)})


def sealed_parquet(content: bytes) -> bytes:
    """Returns a parquet file with the checksum of its bytes, or as it is if it has none."""
    at = content.rfind(checksums._BEFORE) + len(checksums._BEFORE)
    if at < len(checksums._BEFORE):
        return content
    end = at + len(checksums._BLANK)
    blank = content[:at] + checksums._BLANK + content[end:]
    return content[:at] + hashlib.sha256(blank).hexdigest().encode() + content[end:]
