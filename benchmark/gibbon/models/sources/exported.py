"""Programs of ``torch.export``, ``net.pt2``.

An archive may hold pickles and compiled libraries, which torch would load with everything that
they can do.  Those are refused unless the file is trusted.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from gibbon.core.errors import ModelError
from gibbon.models.sources import Found, ModelSource, Preprocessing, place_of
from gibbon.models.sources.checkpoint import VOUCH
from gibbon.models.sources.error_text import gist
from gibbon.models.sources.files import archive_digest, check_file, refuse_extras
from gibbon.models.sources.optional_libraries import without_pickles
from gibbon.specs.suite import ModelSpec

COMPILED = ("aotinductor", ".so", ".dll", ".dylib")
TENSORS = ("tensor_", "weight_")  # what names of constants that are tensors begin with


class Exported(ModelSource):
    """A file that ``torch.export.save`` wrote."""

    def check(self, spec: ModelSpec) -> None:
        """Refuses a file that is not there, and arguments."""
        check_file(Path(place_of(spec, "exported")))
        refuse_extras(spec, what="an exported program")

    def open(self, spec: ModelSpec) -> Found:
        """Returns the program as a module.  Raises `ModelError`."""
        refuse_extras(spec, what="an exported program")
        path = Path(place_of(spec, "exported"))
        check_file(path)
        if not spec.trust_pickle:
            _refuse_code(path)
        try:
            with _reading(spec), _quiet(), path.open("rb") as file:
                program = torch.export.load(file)
                module = program.module()
        except Exception as error:
            raise ModelError(
                f"{path}: damaged, no exported program, or of another torch: {gist(error)}"
            ) from error
        return Found(module=module, identity=f"exported:{archive_digest(path)}", weights_used=True)

    def preprocessing(self, spec: ModelSpec) -> Preprocessing | None:
        """Returns None: a program does not say how pictures are prepared for it."""
        return None


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
def _reading(spec: ModelSpec) -> Iterator[None]:
    if spec.trust_pickle:
        yield
        return
    with without_pickles():
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """While inside, torch does not log what is raised or told here anyway."""
    logger = logging.getLogger("torch.export")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
