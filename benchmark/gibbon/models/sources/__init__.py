"""Models from anywhere: one small protocol, one file a source.

A `ModelSource` turns what a user wrote, a `ModelSpec`, into a `Found`: a torch module and what is
known of it.  `build_model` does what all sources share: it seeds random weights, loads a weights
file, puts the declared normalisation in front, and finds out how many classes there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gibbon.core.registry import Entry, Registry, lazily

if TYPE_CHECKING:
    from torch import nn

    from gibbon.models.classifier import Classifier
    from gibbon.specs.suite import ModelSpec

Size = int | tuple[int, int]


@dataclass(frozen=True)
class Preprocessing:
    """How a model's own configuration prepares pictures: for the dataset's ``resize``, ``crop``."""

    resize: Size | None
    crop: Size | None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a source makes of a spec.

    Args:
        module: a module, or a classifier that says everything of itself.
        identity: what its results are filed under besides its tensors and answers: no path.
        mean, std: the normalisation of the source's own configuration, if it has one; what the
            spec declares stands before it.
        weights_used: whether the spec's weights were taken care of.
        forward_only: why there are no gradients; empty where there are.
        notes: what was done on the way, as sentences.
    """

    module: nn.Module | Classifier
    identity: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    weights_used: bool = False
    forward_only: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuiltModel:
    """A classifier, what its results are filed under, and what was done to make it.

    ``rebuilds`` says that building it again gives the same model: it may be dropped from memory.
    """

    classifier: Classifier
    identity: str
    notes: tuple[str, ...] = ()
    rebuilds: bool = True


class ModelSource(ABC):
    """A place that models come from."""

    def check(self, spec: ModelSpec) -> None:  # noqa: B027  most can know nothing before
        """Refuses what can be known to be wrong before anything is loaded.

        Raises a `RequestError`.
        """

    @abstractmethod
    def open(self, spec: ModelSpec) -> Found:
        """Returns the model of a spec.  Raises a `RequestError`."""

    @abstractmethod
    def preprocessing(self, spec: ModelSpec) -> Preprocessing | None:
        """Returns how its own configuration prepares pictures, without building the model."""


# By scheme or by what a file is: "torchvision", "timm", "python", "onnx", ...
MODEL_SOURCES: Registry[ModelSource] = Registry("model source", group="gibbon.model_sources")


def _made(reference: str) -> Callable[[], ModelSource]:
    def load() -> ModelSource:
        source: ModelSource = lazily(reference)()()
        return source

    return load


_PACKAGES = {
    "onnx": "onnxruntime",
    "torchvision": "torchvision",
    "timm": "timm",
    "robustbench": "robustbench",
    "hf": "transformers",
}

for _name, _module, _class, _summary in (
    ("python", "python", "Python", "a factory: path/to/net.py:build or package.module:Net"),
    (
        "checkpoint",
        "checkpoint",
        "Checkpoint",
        "a whole pickled module, where it is trusted",
    ),
    ("torchscript", "torchscript", "TorchScript", "a TorchScript file: net.torchscript, net.pt"),
    ("exported", "exported", "Exported", "a torch.export program: net.pt2"),
    ("onnx", "onnx", "OnnxFile", "an ONNX file through ONNX Runtime, forward only: net.onnx"),
    ("torchvision", "torchvision", "Torchvision", "torchvision:resnet50"),
    ("timm", "timm", "Timm", "timm:resnet18"),
    ("robustbench", "robustbench", "RobustBench", "robustbench:NAME"),
    ("hf", "huggingface", "HuggingFace", "hf:org/name or hf:folder, through transformers"),
):
    _load = _made(f"gibbon.models.sources.{_module}:{_class}")
    MODEL_SOURCES.register(Entry(_name, _summary, _load, package=_PACKAGES.get(_name, "")))


def place_of(spec: ModelSpec, scheme: str) -> str:
    """Returns what a spec's model says after its scheme, or all of it where it has none."""
    return spec.model.removeprefix(f"{scheme}:")
