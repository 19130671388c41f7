"""What a model's file is: told by what is in it, where that can be, and by its suffix."""

from __future__ import annotations

import zipfile
from pathlib import Path

from benchmark.errors import ModelError
from benchmark.specs import ModelSpec

SUFFIXES = {
    ".onnx": "onnx",
    ".pt2": "exported",
    ".torchscript": "torchscript",
    ".ts": "torchscript",
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar", ".safetensors"), "checkpoint"),
}
TORCHSCRIPT_PART = "constants.pkl"  # torch.save's zip files hold data.pkl alone
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


def refuse_extras(spec: ModelSpec, *, what: str) -> None:
    """Refuses weights and arguments for a file that holds all of a model.  Raises `ModelError`."""
    if spec.arguments:
        raise ModelError(f"{what} takes no arguments: leave out {', '.join(spec.arguments)}")
    if spec.weights is not None:
        raise ModelError(f"{what} holds its own weights: leave out {spec.weights!r}")
