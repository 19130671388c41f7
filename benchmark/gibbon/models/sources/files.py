"""What a model's file is: told by what is in it, where that can be, and by its suffix."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from gibbon.core.errors import ModelError
from gibbon.specs.suite import ModelSpec

SUFFIXES = {
    ".onnx": "onnx",
    ".pt2": "exported",
    ".torchscript": "torchscript",
    ".ts": "torchscript",
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar", ".safetensors"), "checkpoint"),
}
TORCHSCRIPT_PART = "constants.pkl"  # torch.save's zip files hold data.pkl alone
ASIDE, LINES = (".data/", "data/sample_inputs/"), ".debug_pkl"
EXPORTED_PARTS = ("archive_format", "serialized_exported_program.json")


def kind_of(path: Path) -> str:
    """Returns the source that reads a file: ``"onnx"``, ``"exported"``, ``"torchscript"``, ...

    A ``.pt`` file may be a checkpoint as well as a TorchScript file: they are told apart by what
    they hold.  A file of another suffix is called ``""``.
    """
    named = SUFFIXES.get(path.suffix.lower(), "")
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {name.rpartition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return named
    if TORCHSCRIPT_PART in parts:
        return "torchscript"
    return "exported" if parts.intersection(EXPORTED_PARTS) else named


def check_file(path: Path) -> None:
    """Refuses a model's file that is not there.  Raises `ModelError`."""
    if path.is_dir():
        raise ModelError(f"{path}: is a folder, expected a model's file")
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file")


def archive_digest(path: Path) -> str:
    """Returns a digest of what torch's zip archive holds: graph, tensors and constants.

    The archive's own name is in every entry's: it does not count, and neither do the inputs that
    the model was exported with and what maps code back to lines.  Raises `ModelError`.
    """
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {name.partition("/")[2]: name for name in archive.namelist()}
            for entry, name in sorted(entries.items()):
                if not entry.startswith(ASIDE) and not entry.endswith(LINES):
                    digest.update(f"{entry}:".encode())
                    digest.update(hashlib.sha256(archive.read(name)).digest())
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: damaged, or not an archive of torch's: {error}") from error
    return digest.hexdigest()


def refuse_extras(spec: ModelSpec, *, what: str) -> None:
    """Refuses weights and arguments for a file that holds all of a model.  Raises `ModelError`."""
    if spec.arguments:
        raise ModelError(f"{what} takes no arguments: leave out {', '.join(spec.arguments)}")
    if spec.weights is not None:
        raise ModelError(f"{what} holds its own weights: leave out {spec.weights!r}")
