"""The file of the candidates at which models are examined after the attacks.

A run that is interrupted reads its own when it continues; those of shards are read by the merge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gibbon.core.errors import RecordError
from gibbon.core.files import read_plain_file, write_atomically
from gibbon.core.npz import packed, unpacked
from gibbon.runner.model_checks.keep_candidates import MOST, CandidateKeeper, KeptCandidates
from gibbon.runner.plan.planned import Plan
from gibbon.runner.run_folder import RunFolder

KEPT_FILE: Final = "kept_candidates.npz"
_FORMAT: Final = 1


def keep_on_disk(keeper: CandidateKeeper, plan: Plan, folder: RunFolder) -> None:
    """Loads the candidates of an interrupted run into a keeper, and lets it store new ones.

    An attack that is finished makes no candidates again, so that without them a run that continues
    could not examine its model at candidates.
    """
    cells = {part.digest for cell in plan.cells for part in (cell, *cell.members)}
    with suppress(RecordError):  # a damaged file counts as none
        for model, each in read_kept(folder.path, plan).items():
            if each.cell in cells and keeper.wants(model):
                keeper.put(model, each)
    keeper.store = partial(write_kept, folder.path)


def write_kept(folder: Path, kept: Mapping[str, KeptCandidates]) -> None:
    """Writes candidates, by the digest of their model, into a folder, atomically.

    Raises `RunFolderError` if the file can't be written.
    """
    arrays = {}
    for place, each in enumerate(kept.values()):
        arrays[f"{place}.inputs"] = each.inputs.float().numpy()
        arrays[f"{place}.ids"] = each.ids.numpy()
        arrays[f"{place}.labels"] = each.labels.numpy()
    about = {
        "format": _FORMAT,
        "models": list(kept),
        "cells": [each.cell for each in kept.values()],
    }
    write_atomically(folder / KEPT_FILE, packed(about, arrays))


def read_kept(folder: Path, plan: Plan) -> dict[str, KeptCandidates]:
    """Returns the candidates in a folder by the digest of their model; empty without any.

    Those of other models than the plan's are left out.

    Raises `RecordError`, whose message is a reason, if the file can't be read, or if what it holds
    are not candidates of the plan's models.
    """
    shapes = {
        model.digest: each.dataset.input_shape for each in plan.experiments for model in each.models
    }
    try:
        about, arrays = unpacked(read_plain_file(folder / KEPT_FILE))
        found = {}
        for place, model in enumerate(about["models"]):
            if model in shapes:
                inputs = _array(arrays[f"{place}.inputs"], np.float32, shapes[model])
                ids, labels = (
                    _array(arrays[f"{place}.{name}"], np.int64, ()) for name in ("ids", "labels")
                )
                if not len(inputs) == len(ids) == len(labels):
                    raise ValueError("of different lengths")
                found[model] = KeptCandidates(inputs, ids, labels, str(about["cells"][place]))
        return found
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RecordError(f"can't be read: {error.strerror or error}") from error
    except Exception as error:
        raise RecordError(f"is damaged: {type(error).__name__}") from error


def _array(stored: NDArray[Any], kind: type[np.generic], shape: tuple[int, ...]) -> Tensor:
    """Returns a stored array, of a row an example.  Raises ValueError if it is another one."""
    if stored.dtype != kind or stored.ndim < 1 or stored.shape[1:] != shape:
        raise ValueError("of another shape or type")
    return torch.from_numpy(np.ascontiguousarray(stored))


def joined_kept(
    shards: Sequence[Mapping[str, KeptCandidates]], *, order: Mapping[str, int]
) -> dict[str, KeptCandidates]:
    """Returns the first candidates of each model over all shards, as one run would keep them.

    ``order`` holds the places of the cells in a run, by digest: all candidates are of the first
    cell.
    """
    found: dict[str, list[KeptCandidates]] = {}
    for kept in shards:
        for model, each in kept.items():
            found.setdefault(model, []).append(each)
    joined = {}
    for model, parts in found.items():
        first = min((each.cell for each in parts), key=lambda cell: order.get(cell, len(order)))
        own = [each for each in parts if each.cell == first]
        joined[model] = KeptCandidates(
            torch.cat([each.inputs for each in own])[:MOST],
            torch.cat([each.ids for each in own])[:MOST],
            torch.cat([each.labels for each in own])[:MOST],
            first,
        )
    return joined
