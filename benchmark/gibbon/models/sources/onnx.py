"""Models in ONNX files, run by ONNX Runtime, forward only."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gibbon.core.errors import ModelError
from gibbon.core.plain_text import shown
from gibbon.models.sources import ModelSource, OpenedModel
from gibbon.models.sources.error_text import gist
from gibbon.models.sources.file_formats import whole_model
from gibbon.models.sources.fixed_batch import AcceptedInputs, AnyBatch
from gibbon.models.sources.optional_libraries import check_library, library
from gibbon.specs.suite import ModelSpec

FORWARD_ONLY = "an ONNX model runs forward only: ONNX Runtime gives no gradients"
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
FLOATS: dict[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}
ERRORS_ONLY = 3  # of ONNX Runtime's levels of logging

# A tensor's reference to a file that holds its data: an entry of a map in ONNX's protocol buffers,
# the key "location" and its value, each preceded by its length.
LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x7f])", re.DOTALL)


class OnnxFile(ModelSource):
    """Files in the ONNX format: ``net.onnx``."""

    def check(self, spec: ModelSpec) -> None:
        """Raises `ModelError` for a missing file, arguments, or a missing ONNX Runtime."""
        _path(spec)
        check_library("onnxruntime", package="onnxruntime", scheme="onnx")

    def open(self, spec: ModelSpec) -> OpenedModel:
        """Returns the network.  Raises `ModelError`."""
        path = _path(spec)
        network = OnnxNetwork(path)
        notes = []
        if len(network.outputs) > 1:
            notes.append(
                f"it has {len(network.outputs)} outputs ({', '.join(network.outputs)}): the first, "
                f"{network.outputs[0]!r}, is taken"
            )
        return OpenedModel(
            module=AnyBatch(network, network.accepted),
            identity=f"onnx:{digest_of(path)}",
            weights_used=True,
            forward_only=FORWARD_ONLY,
            notes=tuple(notes),
        )


def _path(spec: ModelSpec) -> Path:
    return whole_model(spec, scheme="onnx", what="an ONNX file")


class OnnxNetwork(nn.Module):
    """An ONNX file as a module without parameters or gradients.

    Raises `ModelError` if ONNX Runtime can't load it, or its input is not one tensor of
    floating-point numbers.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.session = _session(path)
        inputs = self.session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(each.name for each in inputs)
            raise ModelError(f"{path}: takes {len(inputs)} inputs ({names}), expected one")
        if inputs[0].type not in FLOATS:
            raise ModelError(
                f"{path}: takes inputs of type {inputs[0].type}, expected tensor(float): export "
                "the network without what turns bytes into numbers in [0, 1]"
            )
        self.dtype = FLOATS[inputs[0].type]
        self.input: str = inputs[0].name
        self.outputs: tuple[str, ...] = tuple(each.name for each in self.session.get_outputs())
        self.accepted = _accepted(inputs[0].shape)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the first output, float32, without a graph."""
        array = inputs.detach().cpu().float().numpy().astype(self.dtype)
        given = {self.input: np.ascontiguousarray(array)}
        (outputs,) = self.session.run(self.outputs[:1], given)
        answer = torch.from_numpy(outputs)
        return (answer.float() if answer.is_floating_point() else answer).to(inputs.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxNetwork:
        return type(self)(self.path)

    def __reduce__(self) -> tuple[type[OnnxNetwork], tuple[Path]]:
        return type(self), (self.path,)


def digest_of(path: Path) -> str:
    """Returns a digest of an ONNX file and of the files in its folder that hold its tensors.

    Raises `ModelError` if one of those is missing.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(hashlib.sha256(content).digest())
    for name in sorted(_locations(content)):
        beside = path.parent / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(
                f"{path}: its tensors are in {shown(name)}, outside its folder: that is not read"
            )
        if not beside.is_file():
            raise ModelError(
                f"{path}: its tensors are in {name!r}, which is not there: keep both files together"
            )
        digest.update(name.encode())
        with beside.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _locations(content: bytes) -> set[str]:
    names = set()
    for found in LOCATION.finditer(content):
        length = found[1]
        size = length[0] if len(length) == 1 else (length[0] & 0x7F) | (length[1] << 7)
        names.add(content[found.end() : found.end() + size].decode("utf-8", "replace"))
    return names


def _session(path: Path) -> Any:
    runtime = library("onnxruntime", package="onnxruntime", scheme="onnx")
    _ = digest_of(path)  # reports a missing file beside it
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    there = runtime.get_available_providers()
    providers = [each for each in PROVIDERS if each in there]
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise ModelError(f"{path}: ONNX Runtime can't load it: {gist(error)}") from error


def _accepted(shape: list[int | str | None]) -> AcceptedInputs:
    if not shape:
        return AcceptedInputs()
    batch, *sides = (each if isinstance(each, int) and each > 0 else None for each in shape)
    return AcceptedInputs(tuple(sides), least=batch or 1, most=batch)
