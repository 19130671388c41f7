"""TorchScript files.  A script is code: it reaches no Python, but it may reach files.

Some of its code runs while the file is loaded.  So the code is read first, and a file is refused
that names an operation which reads or writes files or asks other processes, unless it is trusted.
That is no sandbox: the operations are those that torch and torchvision are known to have, and a
damaged or hostile file meets torch's own reader.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from gibbon.core.errors import ModelError
from gibbon.models.sources import Found, ModelSource, Preprocessing, place_of
from gibbon.models.sources.checkpoint import VOUCH
from gibbon.models.sources.error_text import gist
from gibbon.models.sources.files import archive_digest, check_file, refuse_extras
from gibbon.specs.suite import ModelSpec

# Operations of torch and torchvision by which a script reads or writes files or asks processes.
REACHING = (
    *("from_file", "save", "read_file", "write_file", "load_tensor"),
    *("rpc_async", "rpc_sync", "rpc_remote"),
)
WORD = re.compile(r"\w+")

# A name is looked up by text: torch writes it plainly, and anything else may hide one.
LOOKUP = re.compile(r"\bgetattr\b")
PLAIN_LOOKUP = re.compile(r'getattr\([\w.]+, "\w+"\)')
OLD_CODE = "model.json"  # of torch before 1.3: says itself which entries are code


class TorchScript(ModelSource):
    """A file that ``torch.jit.save`` wrote: ``net.torchscript``, ``net.pt``."""

    def check(self, spec: ModelSpec) -> None:
        """Refuses a file that is not there, and arguments."""
        check_file(Path(place_of(spec, "torchscript")))
        refuse_extras(spec, what="a TorchScript file")

    def open(self, spec: ModelSpec) -> Found:
        """Returns the script.  Raises `ModelError` where the file is damaged or something else."""
        refuse_extras(spec, what="a TorchScript file")
        path = Path(place_of(spec, "torchscript"))
        check_file(path)
        if not spec.trust_pickle:
            _refuse_reaching(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that TorchScript is deprecated
                module: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as error:
            raise ModelError(f"{path}: damaged, or no TorchScript file: {gist(error)}") from error
        return Found(
            module=module, identity=f"torchscript:{archive_digest(path)}", weights_used=True
        )

    def preprocessing(self, spec: ModelSpec) -> Preprocessing | None:
        """Returns None: a script does not say how pictures are prepared for it."""
        return None


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
