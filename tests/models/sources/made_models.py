"""A small network, and the same network as every kind of model source has it."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nets
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import Tensor, nn

from gibbon.core.registry import Entry
from gibbon.models.classifier import Classifier
from gibbon.models.registry import MODELS
from gibbon.models.sources import MODEL_SOURCES, BuiltModel, ModelSource, OpenedModel, Preprocessing
from gibbon.models.sources.build import build_model
from gibbon.models.sources.wrap_module import adopt_model
from gibbon.specs.suite import ModelSpec

SHAPE, CLASSES, CHANNELS = (1, 6, 6), 4, 5
COLOUR_SHAPE = (3, 32, 32)
MEAN, STD = (0.25,), (0.5,)

CODE = """
from torch import nn

from net_parts import head


def build(channels=5):
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.Dropout(0.5), nn.Flatten(), head(channels * 36, 4),
    )


class Net(nn.Module):
    def __init__(self, channels, *, scale):
        super().__init__()
        self.network, self.scale = build(channels), scale

    def forward(self, inputs):
        return self.network(inputs) * self.scale


def raises():
    raise ValueError("no such thing")


def ends():
    raise SystemExit(3)


def nothing():
    return None


made = build()
number = 3
"""
PARTS = """
from torch import nn


def head(inputs, classes):
    return nn.Linear(inputs, classes)
"""


def network(*, seed: int = 3) -> nn.Module:
    """The network that ``net.py:build`` makes, with other weights and moved batch statistics."""
    module = nets.conv(seed=seed).module
    norm = module[1]
    draws = nets.generator(seed)
    with torch.no_grad():
        norm.running_mean.copy_(torch.rand(CHANNELS, generator=draws) - 0.5)
        norm.running_var.copy_(torch.rand(CHANNELS, generator=draws) + 0.5)
    return module.eval()


def write_code(folder: Path) -> str:
    (folder / "net.py").write_text(CODE)
    (folder / "net_parts.py").write_text(PARTS)
    return str(folder / "net.py")


def write_onnx(path: Path, module: nn.Module, *, batch: int | str = "n", beside: str = "") -> None:
    """The network in ONNX, node by node; its tensors in a file beside where one is named."""
    convolution, norm, _, _, _, linear = module
    tensors = {
        "w0": convolution.weight,
        "b0": convolution.bias,
        "g": norm.weight,
        "s": norm.bias,
        "m": norm.running_mean,
        "v": norm.running_var,
        "w1": linear.weight,
        "b1": linear.bias,
    }
    stored = [
        numpy_helper.from_array(value.detach().numpy().astype(np.float32), name)
        for name, value in tensors.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "g", "s", "m", "v"], ["n"], epsilon=norm.eps),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w1", "b1"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, CLASSES])],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(
        model, path, save_as_external_data=bool(beside), location=beside or None, size_threshold=0
    )


@contextmanager
def deprecations_ignored() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and says so at each step
        yield


def write_script(path: Path, module: nn.Module, *, how: str) -> None:
    with deprecations_ignored():
        if how == "traced":
            script = torch.jit.trace(module, torch.rand(2, *SHAPE))
        else:
            script = torch.jit.script(module)
        torch.jit.save(torch.jit.freeze(script) if how == "frozen" else script, path)


def write_program(path: Path, module: nn.Module, *, batch: Any = None) -> None:
    shapes = ({0: batch},) if batch is not None else None
    with deprecations_ignored():
        program = torch.export.export(module, (torch.rand(3, *SHAPE),), dynamic_shapes=shapes)
        torch.export.save(program, path)


@dataclass(frozen=True)
class Made:
    """A model of some source, and the module that it must be the same as.

    ``rewrite`` puts another seed's weights in the place of what the spec names.
    """

    spec: ModelSpec
    original: nn.Module
    rewrite: Callable[[int], None]
    shape: tuple[int, ...] = SHAPE
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    forward_only: bool = False
    build: Callable[[ModelSpec], BuiltModel] | None = None

    def built(self) -> BuiltModel:
        if self.build is not None:
            return self.build(self.spec)
        return build_model(self.spec, input_shape=self.shape)

    def answers(self, inputs: Tensor) -> Tensor:
        mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (self.mean, self.std))
        outputs = self.original((inputs - mean) / std)
        return getattr(outputs, "logits", outputs)


Maker = Callable[[Path, Any], Made]
KINDS: dict[str, Maker] = {}


def kind(make: Maker) -> Maker:
    KINDS[make.__name__.replace("_", "-")] = make
    return make


def _filed(path: Path, write: Callable[[int], None], *, seed: int = 3, **more: Any) -> Made:
    write(seed)
    weights = more.pop("weights", None)
    model = more.pop("model", str(path))
    fields = {
        key: more.pop(key)
        for key in ("arguments", "mean", "std", "trust_code", "trust_pickle")
        if key in more and key != "scale"
    }
    spec = ModelSpec(name="made", model=model, weights=weights, **fields)
    kept = {key: fields[key] for key in ("mean", "std") if key in fields}
    return Made(spec, network(seed=seed), write, **kept, **more)


@kind
def python_and_safetensors(folder: Path, monkeypatch: Any) -> Made:
    path = folder / "w.safetensors"
    write = lambda seed: save_file(network(seed=seed).state_dict(), path)  # noqa: E731
    return _filed(path, write, model=f"{write_code(folder)}:build", weights=str(path))


@kind
def python_and_nested_checkpoint(folder: Path, monkeypatch: Any) -> Made:
    path = folder / "w.pt"

    def write(seed: int) -> None:
        state = {f"module.{name}": each for name, each in network(seed=seed).state_dict().items()}
        torch.save({"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}}, path)

    return _filed(
        path,
        write,
        model=f"{write_code(folder)}:build",
        weights=str(path),
        mean=MEAN,
        std=STD,
    )


@kind
def whole_pickle(folder: Path, monkeypatch: Any) -> Made:
    path = folder / "w.pt"
    write = lambda seed: torch.save(network(seed=seed), path)  # noqa: E731

    def build(spec: ModelSpec) -> BuiltModel:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the one that says that it is trusted
            return build_model(spec, input_shape=SHAPE)

    return _filed(path, write, trust_pickle=True, build=build)


def _script(how: str) -> Maker:
    def make(folder: Path, monkeypatch: Any) -> Made:
        path = folder / "net.pt"
        return _filed(path, lambda seed: write_script(path, network(seed=seed), how=how))

    return make


for _how in ("traced", "scripted", "frozen"):
    KINDS[f"torchscript-{_how}"] = _script(_how)


@kind
def exported_static(folder: Path, monkeypatch: Any) -> Made:
    path = folder / "net.pt2"
    write = lambda seed: write_program(path, network(seed=seed))  # noqa: E731
    return _filed(path, write, mean=MEAN, std=STD, trust_code=True)


@kind
def exported_dynamic(folder: Path, monkeypatch: Any) -> Made:
    path = folder / "net.pt2"
    batch = torch.export.Dim("batch", min=2, max=4)
    write = lambda seed: write_program(path, network(seed=seed), batch=batch)  # noqa: E731
    return _filed(path, write, trust_code=True)


@kind
def onnx_static(folder: Path, monkeypatch: Any) -> Made:
    path = folder / "net.onnx"
    write = lambda seed: write_onnx(path, network(seed=seed), batch=3)  # noqa: E731
    return _filed(path, write, forward_only=True, mean=MEAN, std=STD)


@kind
def onnx_dynamic_with_tensors_beside(folder: Path, monkeypatch: Any) -> Made:
    path = folder / "net.onnx"

    def write(seed: int) -> None:
        (folder / "net.data").unlink(missing_ok=True)
        write_onnx(path, network(seed=seed), beside="net.data")

    return _filed(path, write, forward_only=True)


def _library(folder: Path, make: Callable[[], nn.Module], **more: Any) -> Made:
    path = folder / "w.safetensors"
    original = make().eval()

    def write(seed: int) -> None:
        draws = nets.generator(seed)
        with torch.no_grad():
            for parameter in original.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, generator=draws)
        save_file(original.state_dict(), path)

    write(0)
    spec = ModelSpec(name="made", weights=str(path), **more.pop("spec"))
    return Made(spec, original, write, shape=COLOUR_SHAPE, **more)


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@kind
def torchvision(folder: Path, monkeypatch: Any) -> Made:
    from torchvision.models import squeezenet1_1

    spec = {"model": "torchvision:squeezenet1_1", "arguments": {"num_classes": 7}}
    return _library(folder, lambda: squeezenet1_1(num_classes=7), spec=spec, **IMAGENET)


@kind
def timm(folder: Path, monkeypatch: Any) -> Made:
    import timm as library

    spec = {"model": "timm:test_resnet"}
    halves = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return _library(folder, lambda: library.create_model("test_resnet"), spec=spec, **halves)


def write_transformers(folder: Path, **processor: Any) -> nn.Module:
    """A tiny ResNet of transformers in a folder; ``processor`` is what its processor says."""
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        num_labels=6, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    module = ResNetForImageClassification(config).eval()
    module.save_pretrained(folder)
    settings = {"size": {"shortest_edge": 32}, **processor}
    ConvNextImageProcessor(**settings).save_pretrained(folder)
    return module


@kind
def transformers(folder: Path, monkeypatch: Any) -> Made:
    place = folder / "classifier"
    original = write_transformers(place)
    return _library(
        folder,
        lambda: original,
        spec={"model": f"hf:{place}"},
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


@kind
def robustbench(folder: Path, monkeypatch: Any) -> Made:
    plant_robustbench(monkeypatch)
    arguments = {"model_dir": str(folder)}
    path = folder / "cifar10" / "Linf" / "Small.pt"
    path.parent.mkdir(parents=True)
    write = lambda seed: torch.save(network(seed=seed).state_dict(), path)  # noqa: E731
    return _filed(path, write, model="robustbench:Small", arguments=arguments)


def plant_robustbench(monkeypatch: Any) -> None:
    """A stand-in for robustbench: its table of models, and its reader of checkpoints."""
    import enum

    class BenchmarkDataset(enum.Enum):
        cifar_10 = "cifar10"
        imagenet = "imagenet"

    class ThreatModel(enum.Enum):
        Linf = "Linf"

    entries = {"Small": {"model": network}}
    tables = {BenchmarkDataset.cifar_10: {ThreatModel.Linf: entries}}

    def load_model(model_name: str, model_dir: Path, dataset: str, threat_model: str) -> nn.Module:
        print("reading")  # noqa: T201  it prints too
        module = network()
        path = Path(model_dir) / dataset / threat_model / f"{model_name}.pt"
        module.load_state_dict(torch.load(path, weights_only=False))
        return module.eval()

    for name, content in {
        "robustbench": {},
        "robustbench.utils": {"load_model": load_model},
        "robustbench.model_zoo": {"model_dicts": tables},
        "robustbench.model_zoo.enums": {
            "BenchmarkDataset": BenchmarkDataset,
            "ThreatModel": ThreatModel,
        },
    }.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


class Planted(ModelSource):
    """A source of somebody else's."""

    def open(self, spec: ModelSpec) -> OpenedModel:
        return OpenedModel(
            module=network(seed=int(spec.model.partition(":")[2])), identity="planted"
        )

    def preprocessing(self, spec: ModelSpec) -> Preprocessing | None:
        return Preprocessing(7, 6)


@kind
def planted_source(folder: Path, monkeypatch: Any) -> Made:
    monkeypatch.setitem(MODEL_SOURCES._entries, "planted", Entry("planted", "a test's", Planted))
    path = folder / "w.safetensors"
    write = lambda seed: save_file(network(seed=seed).state_dict(), path)  # noqa: E731
    return _filed(path, write, model="planted:3", weights=str(path), mean=MEAN, std=STD)


class Mean(nn.Module):
    """The mean of what two networks return."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, inputs: Tensor) -> Tensor:
        return (self.one(inputs) + self.other(inputs)) / 2


@kind
def ensemble(folder: Path, monkeypatch: Any) -> Made:
    code, paths = write_code(folder), [folder / f"{name}.safetensors" for name in "ab"]
    fixed = network(seed=9)
    save_file(fixed.state_dict(), paths[1])

    def write(seed: int) -> None:
        save_file(network(seed=seed).state_dict(), paths[0])

    write(3)
    members = [{"model": f"{code}:build", "weights": str(path)} for path in paths]
    spec = ModelSpec(name="made", ensemble=members, fuse="logits", mean=MEAN, std=STD)
    return Made(spec, Mean(network(seed=3), fixed), write, mean=MEAN, std=STD)


@kind
def registered(folder: Path, monkeypatch: Any) -> Made:
    seeds = []

    def build() -> Classifier:
        return Classifier(network(seed=seeds[-1]), classes=CLASSES, input_shape=SHAPE)

    entry = Entry("registered", "a test's", lambda: build)
    monkeypatch.setitem(MODELS._entries, "registered", entry)
    return _filed(folder, seeds.append, model="registered")


@kind
def adopted(folder: Path, monkeypatch: Any) -> Made:
    held: list[nn.Module] = []

    def build(spec: ModelSpec) -> BuiltModel:
        return adopt_model(held[-1], spec=spec, input_shape=SHAPE)

    write = lambda seed: held.append(network(seed=seed))  # noqa: E731
    return _filed(folder, write, mean=MEAN, std=STD, build=build)


@kind
def adopted_script(folder: Path, monkeypatch: Any) -> Made:
    made = _script("scripted")(folder, monkeypatch)

    def build(spec: ModelSpec) -> BuiltModel:
        with deprecations_ignored():
            script = torch.jit.load(folder / "net.pt")
        return adopt_model(script, spec=spec, input_shape=SHAPE)

    return Made(made.spec, made.original, made.rewrite, build=build)
