"""Models in TorchScript files, whose code can't run Python but can access files.

Some of the code runs while the file is loaded.  It is therefore searched first, and a file that
names an operation on files or other processes is refused unless it is trusted.  This is no sandbox:
the list holds the known operations of torch and torchvision, and the file is still parsed by
torch's own reader.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from gibbon.core.errors import ModelError
from gibbon.models.sources import ModelSource, OpenedModel
from gibbon.models.sources.checkpoint import VOUCH
from gibbon.models.sources.error_text import gist
from gibbon.models.sources.file_formats import archive_digest, whole_model
from gibbon.specs.suite import ModelSpec

# Operations of torch and torchvision that access files or other processes.
REACHING = (
    *("from_file", "save", "read_file", "write_file", "load_tensor"),
    *("rpc_async", "rpc_sync", "rpc_remote"),
)
WORD = re.compile(r"\w+")

# torch writes attribute names as plain text; any other form may hide an operation.
LOOKUP = re.compile(r"\bgetattr\b")
PLAIN_LOOKUP = re.compile(r'getattr\([\w.]+, "\w+"\)')
OLD_CODE = "model.json"  # of torch before 1.3: a list of the entries that are code


class TorchScript(ModelSource):
    """Files of ``torch.jit.save``: ``net.torchscript``, ``net.pt``."""

    def check(self, spec: ModelSpec) -> None:
        """Raises `ModelError` for a missing file, arguments or weights."""
        _path(spec)

    def open(self, spec: ModelSpec) -> OpenedModel:
        """Returns the script.  Raises `ModelError` if the file is damaged or not TorchScript."""
        path = _path(spec)
        if not spec.trust_pickle:
            _refuse_reaching(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that TorchScript is deprecated
                module: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as error:
            raise ModelError(f"{path}: damaged, or no TorchScript file: {gist(error)}") from error
        return OpenedModel(
            module=module, identity=f"torchscript:{archive_digest(path)}", weights_used=True
        )


def _path(spec: ModelSpec) -> Path:
    return whole_model(spec, scheme="torchscript", what="a TorchScript file")


def _refuse_reaching(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()  # also those of one name
            code = [archive.read(each).decode() for each in entries if _is_code(each.filename)]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: damaged, or no TorchScript file: {error}") from error
    reason = _reason(entries, code)
    if reason:
        raise ModelError(
            f"{path}: its code {reason}: save the model without, or vouch for the file with {VOUCH}"
        )


def _is_code(name: str) -> bool:
    return name.endswith(".py")


def _reason(entries: list[zipfile.ZipInfo], code: list[str]) -> str:
    if any(each.filename.endswith(OLD_CODE) for each in entries):
        return "is of a form that is not looked through here, and may reach files"
    words = {word for text in code for word in WORD.findall(text)}
    for name in REACHING:
        if name in words:
            return f"names {name!r}, by which it may reach files or processes"
    if any(len(LOOKUP.findall(text)) != len(PLAIN_LOOKUP.findall(text)) for text in code):
        return "looks names up that are not written plainly, and may reach files"
    return ""
