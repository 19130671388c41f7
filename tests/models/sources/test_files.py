"""TorchScript, exported programs and ONNX: what is refused, and that no file runs code."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from made_models import (
    CLASSES,
    SHAPE,
    deprecations_ignored,
    network,
    write_onnx,
    write_program,
    write_script,
)
from onnx import TensorProto, helper
from torch import Tensor, nn

from gibbon.core.errors import ModelError, RequestError
from gibbon.models.sources import BuiltModel
from gibbon.models.sources.build import build_model, check_model
from gibbon.models.sources.onnx import digest_of
from gibbon.specs.suite import ModelSpec


def build(path: Path, *, shape: tuple[int, ...] = SHAPE, **fields: Any) -> BuiltModel:
    vouched = {"trust_code": path.suffix == ".pt2"} | fields
    spec = ModelSpec(name="made", model=str(path), **vouched)
    check_model(spec, where="")
    return build_model(spec, input_shape=shape)


def refusal(path: Path, *, shape: tuple[int, ...] = SHAPE, **fields: Any) -> str:
    with pytest.raises(RequestError) as told:
        build(path, shape=shape, **fields)
    return str(told.value)


WRITERS: dict[str, Callable[[Path], None]] = {
    "net.torchscript": lambda path: write_script(path, network(), how="traced"),
    "net.pt2": lambda path: write_program(path, network()),
    "net.onnx": lambda path: write_onnx(path, network()),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_whole_model_takes_no_weights_and_no_arguments(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    torch.save(network().state_dict(), tmp_path / "w.pt")
    weights = str(tmp_path / "w.pt")
    assert "holds its own weights: leave out" in refusal(tmp_path / name, weights=weights)
    assert "takes no arguments: leave out a, b" in refusal(
        tmp_path / name, arguments={"a": 1, "b": 2}
    )


@pytest.mark.parametrize("name", WRITERS)
def test_inputs_of_another_shape_are_refused_with_the_cure(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert "--colour grey" in refusal(tmp_path / name, shape=(3, 6, 6))
    told = refusal(tmp_path / name, shape=(1, 9, 9))
    if name == "net.torchscript":
        assert "can't be run on inputs of shape (1, 9, 9)" in told
    else:
        assert "it takes inputs of shape (1, 6, 6), the dataset's are (1, 9, 9): --resize 6" in told


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello, this is no model", None])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is None:
        WRITERS[name](path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    told = refusal(path)
    assert told.startswith(f"{path}: ")
    assert "damaged" in told or "ONNX Runtime can't load it" in told


# TorchScript


class Reaches(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.linear = nn.Linear(36, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs.flatten(1)) + torch.from_file(self.name, True, 4)


class AsItLoads(nn.Module):
    """What TorchScript runs while a file is loaded stands in ``__setstate__``."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.linear = nn.Linear(36, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs.flatten(1))

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.name, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.name, self.training = state
        torch.save(torch.zeros(1), self.name)


@pytest.mark.parametrize(
    ("kind", "name"), [(Reaches, "'from_file'"), (AsItLoads, "'save'")], ids=["asked", "loaded"]
)
@pytest.mark.parametrize("inner", [False, True], ids=["itself", "within"])
def test_a_script_that_reaches_files_needs_trust(
    tmp_path: Path, kind: Callable[[str], nn.Module], name: str, inner: bool
) -> None:
    path, touched = tmp_path / "net.torchscript", tmp_path / "touched"
    module = kind(str(touched))
    write_script(path, nn.Sequential(module) if inner else module, how="scripted")
    told = refusal(path)
    assert f"its code names {name}, by which it may reach files or processes" in told
    assert "--trust-code" in told
    assert not touched.exists()
    if kind is Reaches:
        build(path, trust_pickle=True)
        assert touched.exists()


@pytest.mark.parametrize(
    "hidden",
    [
        'getattr(torch, "from\\137file")',
        'getattr(torch, "from" "_file")',
        "getattr(torch, 'from' '_file')",
        'getattr (torch, "from" + "_file")',
        "torch . from_file",
        "torch.\\\n from_file",
    ],
)
def test_a_name_that_is_hidden_in_a_script_is_refused(tmp_path: Path, hidden: str) -> None:
    path, touched = tmp_path / "net.torchscript", tmp_path / "touched"
    write_script(path, Reaches(str(touched)), how="scripted")
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            plain = name.endswith(".py")
            archive.writestr(
                name, content.replace(b"torch.from_file", hidden.encode()) if plain else content
            )
    assert "--trust-code" in refusal(path)
    assert not touched.exists()


def test_numbered_parts_of_a_script_are_no_hidden_names(tmp_path: Path) -> None:
    layers = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(36, 5), nn.Linear(5, 4)))
    write_script(tmp_path / "net.torchscript", layers, how="scripted")
    assert build(tmp_path / "net.torchscript").classifier.classes == 4


# torch.export


def test_a_program_exported_in_training_mode_is_refused(tmp_path: Path) -> None:
    write_program(tmp_path / "net.pt2", network().train())
    assert "exported in training mode (aten.batch_norm.default" in refusal(tmp_path / "net.pt2")


def test_a_program_with_two_inputs_is_refused(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            return (one + other).flatten(1)

    inputs = torch.rand(2, *SHAPE)
    with deprecations_ignored():
        torch.export.save(torch.export.export(Two(), (inputs, inputs)), tmp_path / "net.pt2")
    assert "it takes 2 inputs (one, other), expected one" in refusal(tmp_path / "net.pt2")


# ONNX


def test_tensors_beside_an_onnx_file_count_and_must_be_there(tmp_path: Path) -> None:
    path, beside = tmp_path / "net.onnx", tmp_path / "net.data"
    write_onnx(path, network(), beside="net.data")
    before = digest_of(path)
    assert build(path).identity == f"onnx:{before}"
    content = bytearray(beside.read_bytes())
    content[5] ^= 1
    beside.write_bytes(content)
    assert digest_of(path) != before
    beside.unlink()
    assert "its tensors are in 'net.data', which is not there" in refusal(path)


def save_graph(path: Path, inputs: list[Any], outputs: list[str], nodes: list[Any]) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, ["n", *shape]) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["n", 36]) for each in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def test_the_first_of_several_outputs_is_taken_and_that_is_said(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["logits"]),
        helper.make_node("Neg", ["logits"], ["others"]),
    ]
    inputs = [("x", TensorProto.FLOAT, SHAPE)]
    path = save_graph(tmp_path / "net.onnx", inputs, ["logits", "others"], nodes)
    built = build(path)
    assert built.notes[0] == "it has 2 outputs (logits, others): the first, 'logits', is taken"
    pictures = torch.rand(3, *SHAPE)
    with built.classifier.evaluating():
        assert torch.equal(built.classifier.predict(pictures), pictures.flatten(1))


def test_an_onnx_file_of_another_form_is_refused(tmp_path: Path) -> None:
    two = [("x", TensorProto.FLOAT, SHAPE), ("z", TensorProto.FLOAT, SHAPE)]
    nodes = [
        helper.make_node("Add", ["x", "z"], ["s"]),
        helper.make_node("Flatten", ["s"], ["y"]),
    ]
    path = save_graph(tmp_path / "two.onnx", two, ["y"], nodes)
    assert "takes 2 inputs (x, z), expected one" in refusal(path)
    nodes = [
        helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["c"], ["y"]),
    ]
    path = save_graph(tmp_path / "bytes.onnx", [("x", TensorProto.UINT8, SHAPE)], ["y"], nodes)
    assert "takes inputs of type tensor(uint8), expected tensor(float)" in refusal(path)
    nodes = [helper.make_node("Flatten", ["x"], ["y"])]
    last = [("x", TensorProto.FLOAT, (6, 6, 1))]
    path = save_graph(tmp_path / "last.onnx", last, ["y"], nodes)
    assert "channels last (NHWC); export it with channels first" in refusal(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_torch_exports_to_onnx_answers_as_the_original_does(tmp_path: Path) -> None:
    module, inputs = network(), torch.rand(5, *SHAPE)
    torch.onnx.export(
        module, (inputs[:2],), tmp_path / "net.onnx", external_data=True, verbose=False
    )
    classifier = build(tmp_path / "net.onnx").classifier
    with torch.no_grad(), classifier.evaluating():
        torch.testing.assert_close(classifier.predict(inputs), module(inputs))
    assert classifier.classes == CLASSES


def test_a_machine_without_onnx_runtime_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_onnx(tmp_path / "net.onnx", network())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    spec = ModelSpec(name="made", model=str(tmp_path / "net.onnx"))
    with pytest.raises(ModelError, match="not installed: pip install onnxruntime"):
        check_model(spec, where="")
