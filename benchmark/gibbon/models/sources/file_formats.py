"""Recognises the format of a model's file by its content or its suffix."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from gibbon.core.archives import opened_archive
from gibbon.core.errors import ModelError
from gibbon.core.reading import check_regular
from gibbon.models.sources import place_of
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
VOUCH = "--trust-code (trust_code = true in a suite)"
EXPORTED_PARTS = ("archive_format", "serialized_exported_program.json")


def kind_of(path: Path) -> str:
    """Returns the source that reads a file: ``"onnx"``, ``"exported"``, ``"torchscript"``, ...

    A ``.pt`` file may be a checkpoint or a TorchScript file; its content decides.  Returns ``""``
    for an unknown format.
    """
    named = SUFFIXES.get(path.suffix.lower(), "")
    if not path.is_file():  # to open a pipe would wait for ever
        return named
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {name.rpartition("/")[2] for name in archive.namelist()}
    except Exception:  # noqa: BLE001  what only looks like an archive may raise any error
        return named
    if TORCHSCRIPT_PART in parts:
        return "torchscript"
    return "exported" if parts.intersection(EXPORTED_PARTS) else named


def check_file(path: Path) -> None:
    """Raises `ModelError` if a model's file does not exist."""
    if path.is_dir():
        raise ModelError(f"{path}: is a folder, expected a model's file")
    if not path.exists():
        raise ModelError(f"{path}: there is no such file")
    check_regular(path, ModelError)


def archive_digest(path: Path) -> str:
    """Returns a digest of the content of torch's zip archive: graph, tensors and constants.

    The archive's own name, which every entry's begins with, does not count, and neither do sample
    inputs and debugging information.  Raises `ModelError`.
    """
    digest = hashlib.sha256()
    with opened_archive(path, problem=ModelError, what="an archive of torch's") as archive:
        entries = {name.partition("/")[2]: name for name in archive.namelist()}
        for entry, name in sorted(entries.items()):
            if not entry.startswith(ASIDE) and not entry.endswith(LINES):
                digest.update(f"{entry}:".encode())
                digest.update(hashlib.sha256(archive.read(name)).digest())
    return digest.hexdigest()


def whole_model(spec: ModelSpec, *, scheme: str, what: str) -> Path:
    """Returns the path of a file that holds a whole model; ``what`` names its format in errors.

    Raises `ModelError` if there is no such file, or weights or arguments are given for it.
    """
    path = Path(place_of(spec, scheme))
    check_file(path)
    if spec.arguments:
        raise ModelError(f"{what} takes no arguments: leave out {', '.join(spec.arguments)}")
    if spec.weights is not None:
        raise ModelError(f"{what} holds its own weights: leave out {spec.weights!r}")
    return path
