"""Reads checkpoints: state dicts in safetensors files or of ``torch.save``.

Nothing in a file is executed: a pickle is read by torch's restricted reader (``weights_only``),
which only makes tensors, numbers and containers.  A file that needs more is refused, unless the
user trusts it (``trust_code``).  Where a checkpoint has its state dict is found out by
`gibbon.models.sources.state_dicts`.
"""

from __future__ import annotations

import argparse
import datetime
import io
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gibbon.core.archives import is_archive, opened_archive
from gibbon.core.errors import ModelError, WeightsError
from gibbon.core.files import reading
from gibbon.core.reading import check_regular
from gibbon.core.registry import their_code
from gibbon.models.sources import ModelSource, OpenedModel, place_of
from gibbon.models.sources.class_names import names_in
from gibbon.models.sources.error_text import gist
from gibbon.models.sources.file_formats import VOUCH, check_file, kind_of
from gibbon.models.sources.state_dicts import COUNTS, find_state
from gibbon.models.weights import HEADER_START, PICKLE_MARKS, fit_weights, read_weights
from gibbon.specs.suite import ModelSpec

SAVE_SAFELY = "save the state dict with safetensors.torch.save_file"
_SCALAR = np.float64(0).__reduce__()[0]


class LeftOut:
    """Stands for an array of numpy or a path in a checkpoint: what it holds is not read.

    So that no array of a size that a file states is made.
    """

    def __init__(self, *given: object) -> None:
        """Passes everything over."""

    def __setstate__(self, state: object) -> None:
        """Passes everything over."""


# Types that training scripts store beside tensors and that run no code: numpy's numbers and arrays,
# options of a command line, times and paths.
HARMLESS: list[Any] = [
    argparse.Namespace,
    *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefdUSO"},
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy before 2 wrote it
    LeftOut,
    (LeftOut, "numpy.ndarray"),
    (LeftOut, "numpy._core.multiarray._reconstruct"),
    (LeftOut, "numpy.core.multiarray._reconstruct"),
    *(
        (LeftOut, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
]
# The second for modules that torch never loads, such as posix.
UNSUPPORTED = re.compile(
    r"(?:Unsupported (?:global: GLOBAL|class)|unsupported GLOBAL) ([A-Za-z_][\w.]*\w)"
)


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


@dataclass(frozen=True)
class LoadedWeights:
    """A record of how a checkpoint was copied into a module.

    Args:
        notes: sentences about where the tensors were found and what was stripped.
        class_names: names of the classes that the checkpoint states, by index.
    """

    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()


def load_checkpoint(
    module: nn.Module,
    path: Path,
    *,
    key: str | None = None,
    prefix: str | None = None,
    trust_pickle: bool = False,
) -> LoadedWeights:
    """Copies a checkpoint's tensors into a module, and returns a record of how.

    Args:
        module: the module.
        path: the file.
        key: the key of the state dict in the checkpoint; that which fits if None.
        prefix: the prefix that is stripped from names; that which fits if None.
        trust_pickle: whether code in the file may run.

    Raises `WeightsError` if the file can't be read, holds no state dict, needs code that is not
    trusted, does not fit the module, or holds several that do.
    """
    read = read_checkpoint(path, trust_pickle=trust_pickle)
    own = module.state_dict()
    found = find_state(read.content, own, key=key, prefix=prefix, where=str(path))
    with their_code(f"{path}: the tensors can't be copied into the model"):
        fit_weights(module, found.tensors, where=str(path), optional=COUNTS)
    return LoadedWeights((*read.notes, *found.notes), names_in(read.content))


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


def _unpickle(path: Path, start: bytes, *, trust_pickle: bool) -> CheckpointContent:
    archive = is_archive(path)
    if archive:
        with opened_archive(path, problem=WeightsError, what="a checkpoint"):
            pass  # its directory is checked
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.serialization.safe_globals(HARMLESS))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # of old formats that read well
            file = path if archive else stack.enter_context(_Clipped(path.open("rb", buffering=0)))
            return CheckpointContent(torch.load(file, map_location="cpu", weights_only=True))
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


class _Clipped(io.BufferedReader):
    """A file of which no more can be requested than there is.

    A pickle states the length of a text before the text, and Python allocates what is requested.
    """

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self._size = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        """Returns at most so many bytes, all that follow if negative or None."""
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _refers_to_code(error: pickle.UnpicklingError) -> bool:
    return any(each in str(error) for each in ("Unsupported", "unsupported GLOBAL", "not allowed"))


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path}: damaged, or not a checkpoint: {gist(error)}")
