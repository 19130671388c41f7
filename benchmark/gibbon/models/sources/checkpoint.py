"""Reads checkpoints: state dicts in safetensors files or of ``torch.save``.

Nothing in a file is executed: a pickle is read by torch's restricted reader (``weights_only``),
which only makes tensors, numbers and containers.  A file that needs more is refused, unless the
user trusts it (``trust_pickle``).
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gibbon.core.archives import check_unpacked_size
from gibbon.core.errors import ModelError, WeightsError
from gibbon.core.files import reading
from gibbon.core.reading import check_regular
from gibbon.core.registry import their_code
from gibbon.models.sources import ModelSource, OpenedModel, place_of
from gibbon.models.sources.error_text import gist
from gibbon.models.sources.file_formats import check_file, kind_of
from gibbon.models.weights import HEADER_START, LISTED, PICKLE_MARKS, fit_weights, read_weights
from gibbon.specs.suite import ModelSpec

# Keys under which training scripts store a state dict, and prefixes that wrappers add to names:
# DataParallel, torch.compile, Lightning.
NESTS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")

# Batch normalisation counts batches since torch 0.4.1; the count is used in training alone.
COUNTS = "num_batches_tracked"
VOUCH = "--trust-pickle (trust_pickle = true in a suite)"
SAVE_SAFELY = "save the state dict with safetensors.torch.save_file"
_SCALAR = np.float64(0).__reduce__()[0]

# Types that training scripts store beside tensors and that run no code: numpy's numbers and the
# options of a command line.
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefd"},
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy before 2 wrote it
]
UNSUPPORTED = re.compile(r"Unsupported (?:global: GLOBAL|class) ([A-Za-z_][\w.]*\w)")


@dataclass(frozen=True)
class CheckpointContent:
    """Content of a checkpoint file, with sentences about how it was read."""

    content: object
    notes: tuple[str, ...] = ()


class PickledModule(ModelSource):
    """Files of ``torch.save`` that hold a whole module, if the user trusts them."""

    def check(self, spec: ModelSpec) -> None:
        """Raises `ModelError` if the file does not exist."""
        check_file(Path(place_of(spec, "checkpoint")))

    def open(self, spec: ModelSpec) -> OpenedModel:
        """Returns the module in a file.  Raises a `RequestError` if it only holds tensors."""
        path = Path(place_of(spec, "checkpoint"))
        read = read_checkpoint(path, trust_pickle=spec.trusted)
        module = read.content
        if isinstance(module, Mapping):
            modules = [each for each in module.values() if isinstance(each, nn.Module)]
            module = modules[0] if len(modules) == 1 else module
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"{path}: this is a checkpoint, tensors without the architecture: give the "
                f"factory that makes it, --model net.py:build --weights {path}"
            )
        return OpenedModel(module=module, identity="", notes=read.notes)


def load_checkpoint(
    module: nn.Module, path: Path, *, trust_pickle: bool = False
) -> tuple[str, ...]:
    """Copies a checkpoint's tensors into a module, and returns sentences about how.

    Raises `WeightsError` if the file can't be read, holds no state dict, needs code that is not
    trusted, or does not fit the module.
    """
    read = read_checkpoint(path, trust_pickle=trust_pickle)
    tensors, unwrapped = state_dict_of(read.content, where=str(path))
    tensors, stripped = without_prefixes(tensors, module.state_dict())
    with their_code(f"{path}: the tensors can't be copied into the model"):
        fit_weights(module, tensors, where=str(path), optional=COUNTS)
    return (*read.notes, *unwrapped, *stripped)


def read_checkpoint(path: Path, *, trust_pickle: bool = False) -> CheckpointContent:
    """Returns the content of a safetensors file or a file of ``torch.save``.

    Raises `WeightsError` if it can't be read, is damaged or of another format, or is a pickle that
    needs code and ``trust_pickle`` is False.
    """
    if path.is_dir():
        raise WeightsError(f"{path}: is a folder, expected a weights file")
    check_regular(path, WeightsError)
    kind = kind_of(path)
    if kind in ("onnx", "exported", "torchscript"):
        raise WeightsError(
            f"{path}: is a whole model ({kind}), not a weights file: give it as --model {path}"
        )
    with reading(path, WeightsError), path.open("rb") as file:
        start = file.read(16)
    safe = path.suffix == ".safetensors" or start[HEADER_START] == b"{"
    if safe and not (start.startswith(PICKLE_MARKS) and start[HEADER_START] != b"{"):
        return CheckpointContent(read_weights(path))
    return _unpickle(path, start, trust_pickle=trust_pickle)


def state_dict_of(content: object, *, where: str) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Returns the state dict in a checkpoint's content, and sentences about where it was found.

    It is the content itself, or under a key of `NESTS`.  Raises `WeightsError`.
    """
    notes: list[str] = []
    while isinstance(content, Mapping):
        if content and all(isinstance(each, Tensor) for each in content.values()):
            return content, tuple(notes)
        places = [name for name in NESTS if isinstance(content.get(name), Mapping | nn.Module)]
        if len(places) > 1:
            raise WeightsError(
                f"{where}: holds tensors under {' and under '.join(map(repr, places))}: which of "
                "them is not known; save the state dict alone"
            )
        if not places:
            raise WeightsError(
                f"{where}: holds no state dict: expected tensors by name, or those under one of "
                f"{', '.join(NESTS)}; got the keys {_some(content)}"
            )
        others = [str(name) for name in content if name != places[0]]
        left = f"; left aside: {', '.join(others)}" if others else ""
        notes.append(f"the weights were taken from {places[0]!r} in the checkpoint{left}")
        content = content[places[0]]
    if isinstance(content, nn.Module):
        return content.state_dict(), (*notes, "the weights were taken from a pickled module")
    raise WeightsError(
        f"{where}: holds a {type(content).__name__}, expected a state dict: tensors by name"
    )


def without_prefixes(
    tensors: Mapping[str, Tensor], wanted: Iterable[str]
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Returns tensors by a module's names for them, and a sentence for each prefix stripped.

    A prefix is stripped if all names have it, but not all names of the module do.

    >>> named, notes = without_prefixes({"module.w": torch.ones(1)}, ["w"])
    >>> list(named), notes
    (['w'], ("the prefix 'module.' was stripped from the names of all 1 tensors",))
    """
    own = list(wanted)
    notes: list[str] = []
    while True:
        prefix = next(
            (
                each
                for each in PREFIXES
                if all(name.startswith(each) for name in tensors)
                and not all(name.startswith(each) for name in own)
            ),
            None,
        )
        if prefix is None or not tensors:
            return tensors, tuple(notes)
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        notes.append(
            f"the prefix {prefix!r} was stripped from the names of all {len(tensors)} tensors"
        )


def _unpickle(path: Path, start: bytes, *, trust_pickle: bool) -> CheckpointContent:
    if zipfile.is_zipfile(path):
        with reading(path, WeightsError), zipfile.ZipFile(path) as archive:
            check_unpacked_size(archive, path, problem=WeightsError)
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats that read well
            return CheckpointContent(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        if not start.startswith(PICKLE_MARKS) or not _refers_to_code(error):
            raise _damaged(path, error) from error
        wanted = UNSUPPORTED.search(str(error))
        what = f" ({wanted[1]})" if wanted else ""
    except Exception as error:
        raise _damaged(path, error) from error
    if not trust_pickle:
        raise WeightsError(
            f"{path}: this is a pickle that refers to code{what}, which can do anything when it is "
            f"loaded: {SAVE_SAFELY}, or vouch for the file with {VOUCH}"
        )
    said = f"{path}: a pickle that refers to code{what} is loaded, as it is trusted"
    warnings.warn(said, stacklevel=2)
    with their_code(f"{path}: the pickle can't be loaded"):
        content = torch.load(path, map_location="cpu", weights_only=False)
    return CheckpointContent(
        content, (f"{path.name} was loaded as a trusted pickle, running its code{what}",)
    )


def _refers_to_code(error: pickle.UnpicklingError) -> bool:
    return "Unsupported" in str(error) or "not allowed" in str(error)


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path}: damaged, or not a checkpoint: {gist(error)}")


def _some(content: Mapping[Any, Any]) -> str:
    names = [str(name) for name in content]
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "") or "(none)"
