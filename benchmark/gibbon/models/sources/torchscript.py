"""Models in TorchScript files, whose code can't run Python but can access files.

Some of the code runs while the file is loaded.  It is therefore searched first, and a file that
names an operation on files or other processes, or operations of an unknown library, is refused
unless it is trusted.  This is no sandbox: the file is read, and its code run, by torch itself,
which does not claim to withstand a file that is made to exploit it.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import torch
from torch import nn

from gibbon.core.archives import opened_archive
from gibbon.core.errors import ModelError
from gibbon.models.sources import ModelSource, OpenedModel
from gibbon.models.sources.error_text import gist
from gibbon.models.sources.file_formats import VOUCH, archive_digest, whole_model
from gibbon.specs.suite import ModelSpec

# Operations of torch and torchvision that access files, other processes, or memory unchecked.
REACHING = (
    *("from_file", "save", "read_file", "write_file", "load_tensor"),
    *("rpc_async", "rpc_sync", "rpc_remote"),
    *("_unsafe_index", "_unsafe_index_put", "_unsafe_masked_index"),
)
PRINTS = re.compile(r"\bprint\s*\(")
WORD = re.compile(r"\w+")

# Namespaces of operations and of classes that saved networks use.
OPERATIONS = re.compile(r"\bops\s*\.\s*(\w+)")
NAMESPACES = {"aten", "prim", "quantized", "_quantized", "torchvision"}
NAMESPACES |= {"mkldnn", "mkldnn_prepacked", "onednn", "sparse"}
CLASSES = re.compile(r"\btorch\.classes\.(\w+)")
CLASS_NAMESPACES = {"quantized", "sparse", "mkldnn", "xnnpack"}

# torch writes attribute names as plain text; any other form may hide an operation.
LOOKUP = re.compile(r"\bgetattr\b")
PLAIN_LOOKUP = re.compile(r'getattr\([\w.]+, "\w+"\)')
OLD_CODE = "model.json"  # of torch before 1.3: a list of the entries that are code
CODE = "code/"  # the folder of code, below the archive's name


class TorchScript(ModelSource):
    """Files of ``torch.jit.save``: ``net.torchscript``, ``net.pt``."""

    def check(self, spec: ModelSpec) -> None:
        """Raises `ModelError` for a missing file, arguments or weights."""
        _path(spec)

    def open(self, spec: ModelSpec) -> OpenedModel:
        """Returns the script.  Raises `ModelError` if the file is damaged or not TorchScript."""
        path = _path(spec)
        content = _checked(path, trusted=spec.trusted)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that TorchScript is deprecated
                module: nn.Module = torch.jit.load(content, map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as error:
            raise ModelError(f"{path}: damaged, or no TorchScript file: {gist(error)}") from error
        return OpenedModel(
            module=module, identity=f"torchscript:{archive_digest(path)}", weights_used=True
        )


def _path(spec: ModelSpec) -> Path:
    return whole_model(spec, scheme="torchscript", what="a TorchScript file")


def _checked(path: Path, *, trusted: bool) -> Path | BytesIO:
    """Returns what torch may load: a copy of the entries that were searched, or a trusted file.

    An archive can be made such that Python's reader and torch's find different entries in it.
    """
    content = BytesIO()
    with opened_archive(path, problem=ModelError, what="a TorchScript file") as archive:
        reason = "" if trusted else _reason(archive)
        if not trusted and not reason:
            with zipfile.ZipFile(content, "w") as copy:
                for entry in archive.infolist():
                    copy.writestr(zipfile.ZipInfo(entry.filename), archive.read(entry))
    if reason:
        raise ModelError(
            f"{path}: its code {reason}: save the model without, or vouch for the file with {VOUCH}"
        )
    content.seek(0)
    return path if trusted else content


def _reason(archive: zipfile.ZipFile) -> str:
    entries = archive.infolist()  # also those of one name
    # torch's reader finds entries by names in any case.
    names = [each.filename.lower() for each in entries]
    if any(each.endswith(OLD_CODE) for each in names):
        return "is of a form that is not looked through here, and may reach files"
    if len(set(names)) < len(names):
        return "may be another than is looked through here: several entries have one name"
    code = [archive.read(each) for each in entries if each.filename.lower().endswith(".py")]
    objects = [archive.read(each) for each in entries if each.filename.lower().endswith(".pkl")]
    inner = [each.partition("/")[2] for each in names if not each.endswith((".py", ".debug_pkl"))]
    if any(each.startswith(CODE) for each in inner):
        return "has parts that are not looked through here"
    return _reason_in_code([each.decode() for each in code]) or _reason_in_classes(
        [each.decode("latin-1") for each in (*code, *objects)]
    )


def _reason_in_code(code: Iterable[str]) -> str:
    code = list(code)
    words = {word for text in code for word in WORD.findall(text)}
    for name in REACHING:
        if name in words:
            return f"names {name!r}, by which it may reach files or processes"
    if any(map(PRINTS.search, code)):
        return "prints, by which it may control the terminal"
    if any(len(LOOKUP.findall(text)) != len(PLAIN_LOOKUP.findall(text)) for text in code):
        return "looks names up that are not written plainly, and may reach files"
    used = {name for text in code for name in OPERATIONS.findall(text)}
    return _unknown(used - NAMESPACES, "operations")


def _reason_in_classes(parts: Iterable[str]) -> str:
    used = {name for text in parts for name in CLASSES.findall(text)}
    return _unknown(used - CLASS_NAMESPACES, "classes")


def _unknown(names: set[str], kind: str) -> str:
    if not names:
        return ""
    return f"uses {kind} of {min(names)!r}, which may reach files or processes"
