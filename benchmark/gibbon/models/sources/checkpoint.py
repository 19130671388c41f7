"""Checkpoints: state dicts as safetensors or from ``torch.save``, and what they are wrapped in.

Nothing in a file is executed: a pickle is read by torch's restricted reader (``weights_only``),
which makes tensors, numbers and containers.  A file that needs more is refused, unless its user
vouches for it (``trust_pickle``).
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gibbon.core.errors import ModelError, WeightsError
from gibbon.core.registry import their_code
from gibbon.models.sources import Found, ModelSource, Preprocessing, place_of
from gibbon.models.sources.error_text import gist
from gibbon.models.sources.files import check_file, kind_of
from gibbon.models.weights import HEADER_START, LISTED, PICKLE_MARKS, fit_weights, read_weights
from gibbon.specs.suite import ModelSpec

# Where training scripts put a state dict among other things, and what wrappers put before names:
# DataParallel, torch.compile, Lightning.
NESTS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")

# Batch normalisation counts batches since torch 0.4.1; the count is used in training alone.
COUNTS = "num_batches_tracked"
VOUCH = "--trust-pickle (trust_pickle = true in a suite)"
SAVE_SAFELY = "save the state dict with safetensors.torch.save_file"
_SCALAR = np.float64(0).__reduce__()[0]

# What training scripts keep beside the tensors that holds values and runs nothing: numpy's numbers
# and the options of a command line.
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefd"},
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy before 2 wrote it
]
ASKS_FOR = re.compile(r"Unsupported (?:global: GLOBAL|class) ([A-Za-z_][\w.]*\w)")


@dataclass(frozen=True)
class Read:
    """What a checkpoint file holds, and what was done to read it, as sentences."""

    content: object
    notes: tuple[str, ...] = ()


class Checkpoint(ModelSource):
    """A file that ``torch.save`` wrote of a whole module, for users who vouch for it."""

    def check(self, spec: ModelSpec) -> None:
        """Refuses a file that is not there."""
        check_file(Path(place_of(spec, "checkpoint")))

    def open(self, spec: ModelSpec) -> Found:
        """Returns the module in a file.  Raises a `RequestError` where it holds tensors alone."""
        path = Path(place_of(spec, "checkpoint"))
        read = read_checkpoint(path, trust_pickle=spec.trust_pickle)
        module = read.content
        if isinstance(module, Mapping):
            modules = [each for each in module.values() if isinstance(each, nn.Module)]
            module = modules[0] if len(modules) == 1 else module
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"{path}: this is a checkpoint, tensors without the architecture: give the "
                f"factory that makes it, --model net.py:build --weights {path}"
            )
        return Found(module=module, identity="", notes=read.notes)

    def preprocessing(self, spec: ModelSpec) -> Preprocessing | None:
        """Returns None: a checkpoint does not say how pictures are prepared."""
        return None


def load_checkpoint(
    module: nn.Module, path: Path, *, trust_pickle: bool = False
) -> tuple[str, ...]:
    """Copies a checkpoint's tensors into a module, which they must fit, and says what was done.

    Raises `WeightsError` where the file can't be read, holds no state dict, needs code that is not
    trusted, or does not fit.
    """
    read = read_checkpoint(path, trust_pickle=trust_pickle)
    tensors, unwrapped = state_dict_of(read.content, where=str(path))
    tensors, stripped = without_prefixes(tensors, module.state_dict())
    with their_code(f"{path}: the tensors can't be copied into the model"):
        fit_weights(module, tensors, where=str(path), optional=COUNTS)
    return (*read.notes, *unwrapped, *stripped)


def read_checkpoint(path: Path, *, trust_pickle: bool = False) -> Read:
    """Returns what is in a safetensors file or in a file of ``torch.save``.

    Raises `WeightsError` where it can't be read, is damaged, is something else, or is a pickle that
    asks for code and ``trust_pickle`` is not given.
    """
    if path.is_dir():
        raise WeightsError(f"{path}: is a folder, expected a weights file")
    kind = kind_of(path)
    if kind in ("onnx", "exported", "torchscript"):
        raise WeightsError(
            f"{path}: is a whole model ({kind}), not a weights file: give it as --model {path}"
        )
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror or error}") from error
    safe = path.suffix == ".safetensors" or start[HEADER_START] == b"{"
    if safe and not (start.startswith(PICKLE_MARKS) and start[HEADER_START] != b"{"):
        return Read(read_weights(path))
    return _unpickle(path, start, trust_pickle=trust_pickle)


def state_dict_of(content: object, *, where: str) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Returns the state dict in a checkpoint's content, and a sentence for what it was taken from.

    It is the content itself, or under `NESTS` in it.  Raises `WeightsError`.
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
    """Returns tensors by the names that a module knows, and a sentence for each prefix stripped.

    A prefix is stripped that all names have and not all names of the module.

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


def _unpickle(path: Path, start: bytes, *, trust_pickle: bool) -> Read:
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats that read well
            return Read(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        if not start.startswith(PICKLE_MARKS) or not _asks_for_code(error):
            raise _damaged(path, error) from error
        wanted = ASKS_FOR.search(str(error))
        what = f" ({wanted[1]})" if wanted else ""
    except Exception as error:
        raise _damaged(path, error) from error
    if not trust_pickle:
        raise WeightsError(
            f"{path}: this is a pickle that asks for code{what}, which can do anything when it is "
            f"loaded: {SAVE_SAFELY}, or vouch for the file with {VOUCH}"
        )
    said = f"{path}: a pickle that asks for code{what} is loaded, as it is trusted"
    warnings.warn(said, stacklevel=2)
    with their_code(f"{path}: the pickle can't be loaded"):
        content = torch.load(path, map_location="cpu", weights_only=False)
    return Read(content, (f"{path.name} was loaded as a trusted pickle, running its code{what}",))


def _asks_for_code(error: pickle.UnpicklingError) -> bool:
    return "Unsupported" in str(error) or "not allowed" in str(error)


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path}: damaged, or not a checkpoint: {gist(error)}")


def _some(content: Mapping[Any, Any]) -> str:
    names = [str(name) for name in content]
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "") or "(none)"
