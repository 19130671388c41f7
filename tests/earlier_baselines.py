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
from gibbon.records.checksums import with_checksum
from tools.fuzz.seals import sealed_baseline


def rewrite(file: Path, version: int) -> None:
    """Rewrites a baseline under an earlier version.

    Before 5 the shares of flags were text; before 4 rows had positions, and no checksums.
    """
    side = read_side(file)
    content = json.loads(file.read_text())
    content.pop("checksum")
    for cell in content["cells"]:
        for kinds in (*cell.get("flags", {}).values(), *cell.get("transfer_flags", {}).values()):
            kinds.update({kind: _as_text(figure) for kind, figure in kinds.items()})
    if version == 4:
        sealed = sealed_baseline({**content, "version": version})
        file.write_text(with_checksum(json.dumps(sealed)))
        return
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


def _as_text(figure: str | dict[str, int]) -> str:
    return figure if isinstance(figure, str) else f"{figure['count']:,} of {figure['of']:,}"


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
