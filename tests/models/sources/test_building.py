"""From a spec to a classifier: what is told apart, what is put back, and what is refused, how."""

from __future__ import annotations

import random
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import made_models
import numpy as np
import pytest
import torch
from made_models import MEAN, SHAPE, STD, network, write_code
from safetensors.torch import save_file
from torch import nn

from gibbon.core import registry
from gibbon.core.errors import ModelError, RequestError, WeightsError
from gibbon.core.registry import Entry
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import PROBABILITIES
from gibbon.models.registry import MODELS
from gibbon.models.sources import MODEL_SOURCES, BuiltModel, Preprocessing
from gibbon.models.sources.build import build_model, check_model, preprocessing_of, source_of
from gibbon.models.sources.wrap_module import adopt_model
from gibbon.models.weights import state_digest
from gibbon.specs.suite import ModelSpec


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_code(tmp_path)
    save_file(network().state_dict(), tmp_path / "w.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spec_of(model: str, **fields: Any) -> ModelSpec:
    return ModelSpec(name="made", model=model, **fields)


def build(model: str, *, shape: tuple[int, ...] = SHAPE, **fields: Any) -> BuiltModel:
    spec = spec_of(model, **fields)
    check_model(spec, where="models[0]")
    return build_model(spec, input_shape=shape)


def refusal(model: str, *, shape: tuple[int, ...] = SHAPE, **fields: Any) -> str:
    with pytest.raises(RequestError) as told:
        build(model, shape=shape, **fields)
    return str(told.value)


def adopt(model: Any, *, shape: tuple[int, ...] = SHAPE, **fields: Any) -> BuiltModel:
    return adopt_model(model, spec=spec_of("held", **fields), input_shape=shape)


def adopting_refused(model: Any, *, shape: tuple[int, ...] = SHAPE, **fields: Any) -> str:
    with pytest.raises(ModelError) as told:
        adopt(model, shape=shape, **fields)
    return str(told.value)


class Returns(nn.Module):
    """Does what it is told with what a linear layer returns."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(36, 4)
        self.change = change

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.change(self.linear(inputs.flatten(1)))


# What a text is


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("net.py:build", "python"),
        ("package.module:Net", "python"),
        ("python:net.py:build", "python"),
        ("net.onnx", "onnx"),
        ("net.ONNX", "onnx"),
        ("net.pt2", "exported"),
        ("net.torchscript", "torchscript"),
        ("net.pt", "checkpoint"),
        ("w.safetensors", "checkpoint"),
        ("torchvision:resnet50", "torchvision"),
        ("timm:resnet18.a1_in1k", "timm"),
        ("robustbench:Standard", "robustbench"),
        ("hf:org/name", "hf"),
        ("onnx:some/file", "onnx"),
    ],
)
def test_a_source_is_told_by_the_form_of_the_text(here: Path, text: str, source: str) -> None:
    assert source_of(spec_of(text)) == source


def test_a_file_is_told_by_what_is_in_it(here: Path) -> None:
    made_models.write_script(here / "a.pt", network(), how="traced")
    made_models.write_program(here / "b.pt", network())
    torch.save(network().state_dict(), here / "c.pt")
    assert [source_of(spec_of(f"{each}.pt")) for each in "abc"] == [
        "torchscript",
        "exported",
        "checkpoint",
    ]


@pytest.mark.parametrize(
    ("model", "faults"),
    [
        ("maxuot", ["models[0]: unknown model 'maxuot'; did you mean 'maxout'?", "hf"]),
        ("torchvison:resnet50", ["model source 'torchvison'; did you mean 'torchvision'?"]),
        ("nosuch:Net", ["there is no module 'nosuch', neither installed nor in this folder"]),
        ("https://host/net.pt", ["'https://host/net.pt' is an address: download it"]),
        ("nte.py:build", ["no file 'nte.py'; did you mean 'net.py'?"]),
        ("nothing.onnx", ["nothing.onnx: there is no such file"]),
        ("nothing.pt2", ["nothing.pt2: there is no such file"]),
        ("nothing.pt", ["nothing.pt: there is no such file"]),
        ("folder", ["model 'folder' is a folder", "expected a registered name"]),
        ("hub", ["model 'hub' is a folder: a model of transformers is given as hf:hub"]),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_is_loaded(
    here: Path, model: str, faults: list[str]
) -> None:
    (here / "folder").mkdir()
    (here / "hub").mkdir()
    (here / "hub" / "config.json").write_text("{}")
    with pytest.raises(RequestError) as told:
        check_model(spec_of(model), where="models[0]")
    assert str(told.value).startswith("models[0]: ")
    for fault in faults:
        assert fault in str(told.value)


def test_a_weights_file_that_is_not_there_is_refused_before_anything_is_loaded(here: Path) -> None:
    fault = "models[0]: 'made': v.safetensors: can't be read: No such file or directory; did you"
    with pytest.raises(WeightsError, match=r"did you mean 'w\.safetensors'") as told:
        check_model(spec_of("net.py:build", weights="v.safetensors"), where="models[0]")
    assert str(told.value).startswith(fault)


def test_names_of_sources_need_no_torch() -> None:
    code = (
        "import sys; from gibbon.models.sources import MODEL_SOURCES as s\n"
        "print(s.names(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'hf'] False" in done.stdout


def test_another_package_adds_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("planted", "made_models:Planted", MODEL_SOURCES.group)
    assert MODEL_SOURCES.group == "gibbon.model_sources"
    monkeypatch.setattr(MODEL_SOURCES, "_found", {})
    monkeypatch.setattr(MODEL_SOURCES, "_waiting", None)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    built = build("planted:3")
    assert built.identity == "planted"
    assert preprocessing_of(spec_of("planted:3")) == Preprocessing(7, 6)


# What all sources share


def numpy_state() -> list[int]:
    return list(np.random.get_state()[1])  # noqa: NPY002


def test_a_model_without_weights_starts_from_the_same_random_numbers_each_time(here: Path) -> None:
    (here / "net.py").write_text(
        "import random, numpy, torch\n"
        "from torch import nn\n"
        "def build():\n"
        "    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))\n"
        "    net.register_buffer('r', torch.tensor([random.random(), numpy.random.rand()]))\n"
        "    torch.set_grad_enabled(False)\n"
        "    return net\n"
    )
    before = torch.get_rng_state(), random.getstate(), numpy_state()
    digests = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        digests.add(state_digest(build("net.py:build").classifier.module))
    assert len(digests) == 1
    torch.set_rng_state(before[0])
    build("net.py:build", weights="random")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert numpy_state() == before[2]
    assert torch.is_grad_enabled()


def test_declared_normalisation_is_put_in_front_and_counts_as_part_of_the_model(here: Path) -> None:
    plain = build("net.py:build", weights="w.safetensors")
    normalised = build("net.py:build", weights="w.safetensors", mean=MEAN, std=STD)
    inputs = torch.rand(3, *SHAPE)
    with plain.classifier.evaluating(), normalised.classifier.evaluating():
        wanted = plain.classifier.predict((inputs - 0.25) / 0.5)
        torch.testing.assert_close(normalised.classifier.predict(inputs), wanted)
    assert state_digest(plain.classifier.module) != state_digest(normalised.classifier.module)


def test_arguments_reach_the_factory_and_the_identity(here: Path) -> None:
    built = build("net.py:Net", arguments={"channels": 2, "scale": 0.5})
    assert built.classifier.module.scale == 0.5
    assert built.identity == 'python:Net {"channels": 2, "scale": 0.5}'
    assert build("net.py:build", arguments={"channels": 2}).rebuilds


def test_a_module_of_the_file_is_copied_and_not_the_files_own(here: Path) -> None:
    one = build("net.py:made", weights="w.safetensors").classifier
    other = build("net.py:made").classifier
    assert one.module is not other.module
    assert state_digest(one.module) != state_digest(other.module)


def test_outputs_are_what_is_declared(here: Path) -> None:
    assert build("net.py:build").classifier.outputs.name == "logits"
    assert adopt(Returns(lambda z: z.softmax(1)), outputs="probabilities").classifier.outputs is (
        PROBABILITIES
    )
    (note,) = adopt(Returns(lambda z: z.softmax(1))).notes
    assert "look like probabilities but are taken for logits" in note


def test_pictures_of_another_size_than_the_configurations_are_noted() -> None:
    built = build("torchvision:squeezenet1_1", shape=(3, 40, 40), weights="random")
    assert any("--resize 256 --crop 224; its inputs here are 40x40" in each for each in built.notes)


# Bad input


@pytest.mark.parametrize(
    ("model", "fields", "fault"),
    [
        ("net.py:raises", {}, "raises raised: ValueError: no such thing"),
        ("net.py:ends", {}, "ends raised: it ended the program, with exit code 3"),
        ("net.py:nothing", {}, "nothing returned None: expected a torch.nn.Module"),
        ("net.py:number", {}, "number is of type int: expected a function or a class"),
        (
            "net.py:Net",
            {},
            "Net needs the arguments channels, scale: --arg channels=... --arg scale=... (arg",
        ),
        ("net.py:Net", {"arguments": {"channels": 2}}, "Net needs the argument scale"),
        (
            "net.py:build",
            {"arguments": {"chanels": 2}},
            "build takes no argument 'chanels'; did you mean 'channels'? It takes channels.",
        ),
        ("net.py:nothing", {"arguments": {"a": 1}}, "takes no argument 'a'. It takes none."),
        ("net.py:made", {"arguments": {"a": 1}}, "made is a module already and takes no arguments"),
        ("net.py:build", {"weights": "rondom"}, "weights 'rondom': expected a file or 'random'"),
        (
            "net.py:build",
            {"mean": (0.5,) * 3, "std": (0.5,) * 3},
            "mean and std have 3 numbers, the inputs have 1 channel: give a number a channel. The "
            "pictures are grey: convert them with --colour rgb",
        ),
        *(
            (
                "net.py:build",
                {"mean": mean, "std": std},
                f"mean and std are of pixels in [0, 1]: divide by 255; got mean {mean[0]:g}, std "
                f"{std[0]:g}",
            )
            for mean, std in (
                ((125.0,), (60.0,)),
                ((125.0,), (0.25,)),
                ((0.5,), (60.0,)),
                ((-0.5,), (0.5,)),
            )
        ),
        (
            "net.py:build",
            {"shape": (3, 6, 6)},
            "it takes 1 channel, the inputs have 3. The pictures are in colour: convert them with "
            '--colour grey (colour = "grey")',
        ),
        (
            "net.py:build",
            {"shape": (1, 7, 6)},
            "it can't be run on inputs of shape (1, 7, 6): Runt",
        ),
        (
            "torchvision:squeezenet1_1",
            {"shape": (1, 32, 32), "weights": "random"},
            "it takes 3 channels, the inputs have 1. The pictures are grey: convert them with "
            '--colour rgb (colour = "rgb")',
        ),
        (
            "torchvision:squeezenet1_1",
            {"shape": (3, 4, 4), "weights": "random"},
            "Its configuration prepares pictures with --resize 256 --crop 224",
        ),
    ],
)
def test_what_is_wrong_with_a_model_is_told_with_the_cure(
    here: Path, model: str, fields: dict[str, Any], fault: str
) -> None:
    assert fault in refusal(model, **fields)


def test_in_python_the_cure_names_no_option() -> None:
    def told(taken: int, given: int) -> str:
        net = nn.Sequential(nn.Conv2d(given, 2, 3), nn.Flatten(), nn.Linear(32, 4))
        spec = ModelSpec(name="net", model="net", mean=(0.5,) * taken, std=(0.5,) * taken)
        with pytest.raises(ModelError) as raised:
            adopt_model(net, spec=spec, input_shape=(given, 6, 6))
        return str(raised.value)

    assert told(1, 3).endswith(
        "The pictures are in colour: convert tensors with inputs.mean(1, keepdim=True), or "
        'pictures in files with DatasetSpec(..., colour="grey")'
    )
    assert "inputs.expand(-1, 3, -1, -1)" in told(3, 1)


def test_a_model_that_says_all_of_itself_takes_no_declarations(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier(network(), classes=4, input_shape=SHAPE)
    entry = Entry("mine", "a test's", lambda: lambda: classifier)
    monkeypatch.setitem(MODELS._entries, "mine", entry)
    for told in (
        refusal("mine", mean=MEAN, std=STD),
        adopting_refused(classifier, mean=MEAN, std=STD),
    ):
        assert "takes pixels in [0, 1] and contains its own normalisation: leave them out" in told
    assert "declares 'logits'" in refusal("mine", outputs="probabilities")
    assert "mine takes no argument 'a'" in refusal("mine", arguments={"a": 1})
    assert "it takes no weights file" in refusal("mine", weights="w.safetensors")
    assert build("mine").classifier is classifier


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda z: (z, z), "got tuple of 2: return the logits alone, such as outputs[0]"),
        (
            lambda z: {"loss": z, "logits": z},
            "got dict with the keys 'loss', 'logits': return the logits alone, such as "
            "outputs['logits']",
        ),
        (lambda z: None, "it must return a tensor of logits, got NoneType"),
        (lambda z: z.argmax(1), "2 inputs gave shape (2,)"),
        (lambda z: z[:, :, None, None], "2 inputs gave shape (2, 4, 1, 1)"),
        (lambda z: z.sum(0, keepdim=True), "2 inputs gave shape (1, 4)"),
        (lambda z: z[:, :1], "it returns one number an example, expected one a class"),
        (lambda z: z.round().long(), "got torch.int64: return the logits, not the predicted class"),
        (lambda z: 1 / 0, "can't be run on inputs of shape (1, 6, 6): ZeroDivisionError"),
    ],
)
def test_outputs_of_another_form_are_refused(change: Any, fault: str) -> None:
    assert fault in adopting_refused(Returns(change))


@pytest.mark.parametrize(
    ("thing", "fields", "fault"),
    [
        (lambda x: x, {}, "got function: wrap it in a torch.nn.Module whose forward calls it"),
        (3, {}, "expected a torch.nn.Module or a gibbon.models.classifier.Classifier, got int"),
        (network(), {"weights": "w.pt"}, "weights are for a model that is yet to be made"),
        (network(), {"arguments": {"a": 1}}, "arguments are for a model that is yet to be made"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), {}, "has no shape yet (a lazy layer)"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_what_can_not_be_adopted_is_told(thing: Any, fields: dict[str, Any], fault: str) -> None:
    assert fault in adopting_refused(thing, **fields)


# A caller's own module


@pytest.mark.parametrize("fails", [False, True])
def test_a_callers_module_is_left_as_it_was(fails: bool) -> None:
    module = network()
    for place, part in enumerate(module.modules()):
        part.training = place % 2 == 0
    module[0].weight.requires_grad_(False)
    modes = [part.training for part in module.modules()]
    digest, generator = state_digest(module), torch.get_rng_state()
    if fails:
        adopting_refused(module, shape=(3, 6, 6))
    else:
        built = adopt(module, mean=MEAN, std=STD)
        assert (built.identity, built.rebuilds) == ("", False)
        with pytest.raises(KeyError), built.classifier.evaluating("cpu"):
            raise KeyError
    assert [part.training for part in module.modules()] == modes
    assert [each.requires_grad for each in module.parameters()] == [False] + [True] * 5
    assert all(not part._forward_hooks for part in module.modules())
    assert state_digest(module) == digest
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_callers_program_keeps_its_own_mode(here: Path) -> None:
    made_models.write_program(here / "net.pt2", network())
    with made_models.deprecations_ignored():
        program = torch.export.load(here / "net.pt2").module()
    modes = [part.training for part in program.modules()]
    classifier = adopt(program).classifier
    inputs = torch.rand(5, *SHAPE)
    with torch.no_grad(), classifier.evaluating("cpu"):
        torch.testing.assert_close(classifier.predict(inputs), network()(inputs))
    assert [part.training for part in program.modules()] == modes
