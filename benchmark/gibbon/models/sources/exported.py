"""Models exported by ``torch.export``, ``net.pt2``.

An archive may hold pickles and compiled libraries, which run code when torch loads them.  Such a
file is refused unless it is trusted.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from gibbon.core.errors import ModelError
from gibbon.models.sources import ModelSource, OpenedModel
from gibbon.models.sources.checkpoint import VOUCH
from gibbon.models.sources.error_text import gist
from gibbon.models.sources.file_formats import archive_digest, whole_model
from gibbon.models.sources.optional_libraries import without_pickles
from gibbon.specs.suite import ModelSpec

COMPILED = ("aotinductor", ".so", ".dll", ".dylib")
TENSORS = ("tensor_", "weight_")  # prefixes of constants that are tensors


class Exported(ModelSource):
    """Files of ``torch.export.save``."""

    def check(self, spec: ModelSpec) -> None:
        """Raises `ModelError` for a missing file, arguments or weights."""
        _path(spec)

    def open(self, spec: ModelSpec) -> OpenedModel:
        """Returns the program as a module.  Raises `ModelError`."""
        path = _path(spec)
        if not spec.trust_pickle:
            _refuse_code(path)
        restricted = nullcontext() if spec.trust_pickle else without_pickles()
        try:
            with restricted, _quiet(), path.open("rb") as file:
                program = torch.export.load(file)
                module = program.module()
        except Exception as error:
            raise ModelError(
                f"{path}: damaged, no exported program, or of another torch: {gist(error)}"
            ) from error
        return OpenedModel(
            module=module, identity=f"exported:{archive_digest(path)}", weights_used=True
        )


def _path(spec: ModelSpec) -> Path:
    return whole_model(spec, scheme="exported", what="an exported program")


def _refuse_code(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            constants = [
                json.loads(archive.read(each))["config"]
                for each in names
                if "/constants/" in each and each.endswith(".json")
            ]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: damaged, or no exported program: {error}") from error
    compiled = [name for name in names if name.endswith(COMPILED[1:]) or COMPILED[0] in name]
    objects = [
        name
        for each in constants
        for name, entry in each.items()
        if not str(entry.get("path_name")).startswith(TENSORS)
    ]
    for what, found in (("compiled code", compiled), ("pickled objects", objects)):
        if found:
            raise ModelError(
                f"{path}: holds {what} ({found[0]}), which can do anything when it is loaded: "
                f"export it without, or vouch for the file with {VOUCH}"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences torch.export's log, for a ``with`` block, since errors are raised here."""
    logger = logging.getLogger("torch.export")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
