"""Makes a baseline file what an earlier version of Gibbon would have written."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gibbon.gate.baseline import Side, read_side
from gibbon.gate.measures import Key


def rewrite(file: Path, version: int) -> None:
    """Rewrites a baseline under a version before 4: rows by position, and no checksums."""
    side = read_side(file)
    content = json.loads(file.read_text())
    content.pop("checksum")
    for dataset in content["datasets"]:
        dataset.pop("checksum")
    for cell in content["cells"]:
        cell.pop("checksum")
        cell["wrong"] = _packed(side, cell)
        if "transfer" in cell:
            cell["transfer"] = {name: _packed(side, cell, name) for name in cell["transfer"]}
        if version == 2:
            cell.pop("flags", None)
            cell.pop("transfer_flags", None)
    file.write_text(json.dumps({**content, "version": version}))


def _packed(side: Side, cell: dict[str, Any], target: str = "") -> str:
    (bits,) = [each.wrong for each in side.cells if _is_of(each.key, cell, target)]
    return _text(bits)


def _is_of(key: Key, cell: dict[str, Any], target: str) -> bool:
    names = (key.dataset, key.model, key.attack, str(key.epsilon), key.target)
    if names != (cell["dataset"], cell["model"], cell["attack"], cell["epsilon"], target):
        return False
    return bool(target) or key.measure == cell["measure"]


def _text(bits: NDArray[np.bool_]) -> str:
    return ":" + base64.b85encode(zlib.compress(np.packbits(bits).tobytes(), 9)).decode()
