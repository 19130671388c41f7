"""Sources of models: one interface, and one file for each source.

A `ModelSource` turns a `ModelSpec` into a `OpenedModel`: a torch module with what its source states
about it.  `build_model` does the steps that all sources share: it seeds random weights, loads a
weights file, puts the declared normalisation in front of the module, and counts the classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gibbon.core.errors import ModelError
from gibbon.core.reading import expanded
from gibbon.core.registry import Entry, Registry, lazily

if TYPE_CHECKING:
    from torch import nn

    from gibbon.models.classifier import Classifier
    from gibbon.models.first_answers import FirstAnswers
    from gibbon.specs.suite import ModelSpec

Size = int | tuple[int, int]


@dataclass(frozen=True)
class Preprocessing:
    """Image transforms from a model's own configuration, as options of a dataset."""

    resize: Size | None
    crop: Size | None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"


@dataclass(frozen=True, kw_only=True)
class OpenedModel:
    """A module that a source returns for a spec, before it becomes a classifier.

    Args:
        module: a module, or a classifier that declares its own inputs and outputs.
        identity: text that enters the digest of its results, besides tensors and predictions; it
            holds no path.
        mean, std: normalisation of the source's own configuration, if any; the spec's takes
            precedence.
        weights_used: whether the source has loaded the spec's weights.
        forward_only: reason why there are no gradients; empty if there are.
        class_names: names of the classes by output, if the source states them.
        notes: sentences about how the module was made.
    """

    module: nn.Module | Classifier
    identity: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    weights_used: bool = False
    forward_only: str = ""
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuiltModel:
    """A classifier made from a spec.

    Args:
        classifier: the classifier.
        identity: text that enters the digest of its results.
        notes: sentences about how it was made.
        rebuilds: whether a second build gives an equal model, so that this one may be dropped from
            memory.
        class_names: names of its classes by output, if it states them.
        first: its first answers, if it was called when it was made.
    """

    classifier: Classifier
    identity: str
    notes: tuple[str, ...] = ()
    rebuilds: bool = True
    class_names: tuple[str, ...] = ()
    first: FirstAnswers | None = None


class ModelSource(ABC):
    """A source of models, such as a library or a file format."""

    def check(self, spec: ModelSpec) -> None:  # noqa: B027  most sources can check nothing
        """Checks a spec before anything is loaded.  Raises a `RequestError`."""

    @abstractmethod
    def open(self, spec: ModelSpec) -> OpenedModel:
        """Returns the model of a spec.  Raises a `RequestError`."""

    def preprocessing(self, spec: ModelSpec) -> Preprocessing | None:
        """Returns the preprocessing in the model's own configuration, without building the model.

        None if the source has no such configuration.
        """
        return None


# By scheme or file format: "torchvision", "timm", "python", "onnx", ...
MODEL_SOURCES: Registry[type[ModelSource] | ModelSource] = Registry(
    "model source", group="gibbon.model_sources"
)

_LIBRARIES = ("torchvision", "timm", "robustbench")
_PACKAGES = {each: each for each in _LIBRARIES} | {"onnx": "onnxruntime", "hf": "transformers"}


for _name, _reference, _summary in (
    ("python", "python:Python", "a factory: path/to/net.py:build or package.module:Net"),
    ("checkpoint", "checkpoint:PickledModule", "a whole pickled module, if it is trusted"),
    ("torchscript", "torchscript:TorchScript", "a TorchScript file: net.torchscript, net.pt"),
    ("exported", "exported:Exported", "a torch.export program, if it is trusted: net.pt2"),
    ("onnx", "onnx:OnnxFile", "an ONNX file through ONNX Runtime, forward only: net.onnx"),
    ("torchvision", "torchvision:Torchvision", "a model of torchvision: torchvision:resnet50"),
    ("timm", "timm:Timm", "a model of timm: timm:resnet18"),
    (
        "robustbench",
        "robustbench:RobustBench",
        "a model of RobustBench: robustbench:NAME",
    ),
    (
        "hf",
        "huggingface:HuggingFace",
        "a model of transformers: hf:org/name or hf:folder",
    ),
):
    _load = lazily(f"gibbon.models.sources.{_reference}")
    MODEL_SOURCES.register(Entry(_name, _summary, _load, package=_PACKAGES.get(_name, "")))


def place_of(spec: ModelSpec, scheme: str) -> str:
    """Returns the part of a spec's model after its scheme, or all of it if it has none.

    Raises `ModelError` for a path that begins with a user who is not there.
    """
    place = spec.model.removeprefix(f"{scheme}:")
    return str(expanded(place, ModelError)) if place.startswith("~") else place
