"""Models exported by ``torch.export``, ``net.pt2``.

An exported program is code: torch evaluates the symbolic shapes and guards of its JSON as Python,
unpickles its constants and loads its compiled libraries.  Nothing of a file is given to torch
unless the user vouches for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from gibbon.core.archives import opened_archive
from gibbon.core.errors import ModelError
from gibbon.models.sources import ModelSource, OpenedModel
from gibbon.models.sources.error_text import gist
from gibbon.models.sources.file_formats import VOUCH, archive_digest, whole_model
from gibbon.specs.suite import ModelSpec


class Exported(ModelSource):
    """Files of ``torch.export.save``."""

    def check(self, spec: ModelSpec) -> None:
        """Raises `ModelError` for a missing or untrusted file, arguments or weights."""
        _trusted_path(spec)

    def open(self, spec: ModelSpec) -> OpenedModel:
        """Returns the program as a module.  Raises `ModelError`."""
        path = _trusted_path(spec)
        with opened_archive(path, problem=ModelError, what="an exported program"):
            pass  # its directory is checked
        try:
            with _quiet(), path.open("rb") as file:
                program = torch.export.load(file)
                module = program.module()
        except Exception as error:
            raise ModelError(
                f"{path}: damaged, no exported program, or of another torch: {gist(error)}"
            ) from error
        return OpenedModel(
            module=module,
            identity=f"exported:{archive_digest(path)}",
            weights_used=True,
            notes=(f"{path.name} was loaded as a trusted program, running its code",),
        )


def _trusted_path(spec: ModelSpec) -> Path:
    path = whole_model(spec, scheme="exported", what="an exported program")
    if not spec.trusted:
        raise ModelError(
            f"{path}: an exported program is code, which can do anything when it is loaded (torch "
            "evaluates its shapes and guards as Python): nothing of it was loaded; save the "
            f"state dict and give a factory, or vouch for the file with {VOUCH}"
        )
    return path


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
