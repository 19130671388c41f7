"""torchvision, timm, transformers and RobustBench: names, words, downloads, and what they load."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from made_models import COLOUR_SHAPE, SHAPE, network, plant_robustbench, write_transformers
from safetensors.torch import load_file, save_file

from gibbon.core.errors import RequestError, WeightsError
from gibbon.models.sources import BuiltModel, Preprocessing
from gibbon.models.sources.build import build_model, check_model, preprocessing_of
from gibbon.models.sources.optional_libraries import (
    SAFE,
    UNSAFE,
    fetching,
    library,
    without_pickles,
)
from gibbon.specs.suite import ModelSpec


def spec_of(model: str, **fields: Any) -> ModelSpec:
    return ModelSpec(name="made", model=model, **fields)


def build(model: str, *, shape: tuple[int, ...] = COLOUR_SHAPE, **fields: Any) -> BuiltModel:
    spec = spec_of(model, **fields)
    check_model(spec, where="")
    return build_model(spec, input_shape=shape)


def refusal(model: str, *, shape: tuple[int, ...] = COLOUR_SHAPE, **fields: Any) -> str:
    with pytest.raises(RequestError) as told:
        build(model, shape=shape, **fields)
    return str(told.value)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No name is known, no proxy is there, and nothing was downloaded before."""

    def unknown(*arguments: object, **fields: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.mark.parametrize(
    "model", ["torchvision:squeezenet1_1", "timm:test_resnet", "hf:some-organisation/some-name"]
)
def test_weights_that_can_not_be_downloaded_are_told_with_the_cures(
    offline: None, model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    told = refusal(model)
    assert f"the weights of {model} are not on this machine and can't be downloaded" in told
    assert "--weights FILE, or --weights random for none" in told


@pytest.mark.parametrize(
    ("model", "fields", "fault"),
    [
        ("torchvision:resnet51", {}, "no classification model 'resnet51'; did you mean 'resnet50'"),
        ("torchvision:fasterrcnn_resnet50_fpn", {}, "no classification model"),
        (
            "torchvision:resnet50",
            {"weights": "IMAGENET1K_V3"},
            "torchvision has no weights 'IMAGENET1K_V3' for 'resnet50'; did you mean",
        ),
        (
            "torchvision:squeezenet1_1",
            {"weights": "random", "arguments": {"num_clases": 3}},
            "unexpected keyword argument 'num_clases'",
        ),
        ("timm:resnt18", {}, "timm has no model 'resnt18'; did you mean 'resnet18'?"),
        ("timm:resnet18", {"weights": "a1_in"}, "no weights 'a1_in' for 'resnet18'; did you mean"),
        ("timm:resnet18.a1", {}, "timm has no weights 'a1' for 'resnet18'"),
        ("hf:a/b/c", {}, "a/b/c: there is no such folder"),
        ("hf:some/name", {"weights": "best"}, "weights 'best': expected a file, 'default' or"),
    ],
)
def test_names_that_a_library_does_not_have_are_refused(
    offline: None, model: str, fields: dict[str, Any], fault: str
) -> None:
    assert fault in refusal(model, **fields)


@pytest.mark.parametrize(
    ("model", "prepared"),
    [
        ("torchvision:resnet50", Preprocessing(232, 224)),
        ("timm:resnet18", Preprocessing(235, 224, "bicubic")),
        ("timm:test_vit", Preprocessing(168, 160, "bicubic")),
        ("net.py:build", None),
        ("softmax", None),
    ],
)
def test_the_configuration_tells_how_pictures_are_prepared(
    model: str, prepared: Preprocessing | None
) -> None:
    assert preprocessing_of(spec_of(model)) == prepared


def test_a_library_that_is_not_there_or_broken_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patched:  # some libraries of attacks bring it along
        patched.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(RequestError, match="need the package 'robustbench', which is not inst"):
            library("robustbench", package="robustbench", scheme="robustbench")
    (tmp_path / "broken_library.py").write_text("raise RuntimeError('half installed')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match="can't be imported here: RuntimeError: half installed"):
        library("broken_library", package="broken-library", scheme="broken")


def test_what_is_not_about_the_network_is_not_told_as_a_failed_download() -> None:
    with pytest.raises(KeyError), fetching("net"):
        raise KeyError("something else")
    wrapped = ValueError("wrapped")
    wrapped.__cause__ = urllib.error.URLError("no route")
    with pytest.raises(WeightsError, match="can't be downloaded"), fetching("net"):
        raise wrapped


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was loaded",))


def test_while_a_library_loads_nothing_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(Bomb(), tmp_path / "w.pt")
    monkeypatch.setenv(UNSAFE, "1")
    with without_pickles(), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "w.pt", weights_only=False)
    assert os.environ.get(UNSAFE) == "1"
    assert SAFE not in os.environ


# torchvision's own way from a downloaded file to a model, without the download.
def test_downloaded_weights_are_read_as_tensors_alone(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    path = folder / SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    saved = squeezenet1_1()
    torch.save(saved.state_dict(), path)
    built = build("torchvision:squeezenet1_1")
    assert "its weights are torchvision's IMAGENET1K_V1" in built.notes
    own = dict(built.classifier.module.named_parameters())
    for name, parameter in saved.named_parameters():
        assert torch.equal(own[f"network.{name}"], parameter)
    torch.save(Bomb(), path)
    assert "Weights only load failed" in refusal("torchvision:squeezenet1_1")


# transformers


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    write_transformers(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "classifier"))


def change(path: Path, **entries: Any) -> None:
    written = json.loads(path.read_text())
    path.write_text(json.dumps({**written, **entries}))


def test_a_processors_settings_are_taken(folder: Path) -> None:
    prepared = preprocessing_of(spec_of(f"hf:{folder}"))
    assert prepared == Preprocessing(36, 32, "bicubic")  # ConvNeXt's share of 224 / 256
    processor = folder / "preprocessor_config.json"
    change(processor, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], resample=2)
    classifier = build(f"hf:{folder}").classifier
    assert classifier.module.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert classifier.module.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    change(processor, rescale_factor=1 / 127.5)
    classifier = build(f"hf:{folder}").classifier
    assert classifier.module.mean.flatten().tolist() == pytest.approx([0.05, 0.1, 0.15])
    assert classifier.module.std.flatten().tolist() == pytest.approx([0.2, 0.25, 0.3])
    change(processor, rescale_factor=1 / 255, do_normalize=False, do_resize=False)
    assert not hasattr(build(f"hf:{folder}").classifier.module, "mean")
    assert preprocessing_of(spec_of(f"hf:{folder}")) is None
    processor.unlink()
    built = build(f"hf:{folder}")
    assert "it has no image processor, so that its inputs are not normalised" in built.notes


def test_weights_that_do_not_fit_are_refused_and_not_made_up(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    head = "classifier.1.weight"
    less = {name: each for name, each in tensors.items() if name != head}
    save_file(less, folder / "model.safetensors", metadata={"format": "pt"})
    assert f"tensors do not fit the model: missing ['{head}']" in refusal(f"hf:{folder}")
    save_file({**tensors, head: torch.zeros(9, 16)}, folder / "model.safetensors")
    assert "tensors do not fit the model: mismatched" in refusal(f"hf:{folder}")


def test_code_of_a_repository_is_never_run(folder: Path) -> None:
    (folder / "own.py").write_text("import pytest\npytest.fail('it was run')")
    change(
        folder / "config.json",
        model_type="own",
        auto_map={"AutoConfig": "own.Config", "AutoModelForImageClassification": "own.Net"},
    )
    told = refusal(f"hf:{folder}", trust_pickle=True)
    assert "it brings Python code of its own, which is not run" in told


def test_a_folder_that_is_no_image_classifier_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no model of transformers: it has no config.json" in refusal(
        f"hf:{tmp_path / 'empty'}"
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert "is no image classifier" in refusal(f"hf:{folder}")


# RobustBench


def test_names_and_arguments_of_robustbench_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    plant_robustbench(monkeypatch)
    assert "did you mean 'Small'?" in refusal("robustbench:Smal")
    assert "no models for cifar9, Linf: datasets are cifar10" in refusal(
        "robustbench:Small", arguments={"dataset": "cifar9"}
    )
    assert "take no argument 'threat'; did you mean 'threat_model'?" in refusal(
        "robustbench:Small", arguments={"threat": "Linf"}
    )
    assert build("robustbench:Small", shape=SHAPE, weights="random").classifier.classes == 4


def test_robustbench_unpickles_nothing_unless_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_robustbench(monkeypatch)
    folder = tmp_path / "cifar10" / "Linf"
    folder.mkdir(parents=True)
    arguments = {"model_dir": str(tmp_path)}
    torch.save(Bomb(), folder / "Small.pt")
    told = refusal("robustbench:Small", shape=SHAPE, arguments=arguments)
    assert "the checkpoint of 'Small' is a pickle that refers to code" in told
    torch.save(Kept(network().state_dict()), folder / "Small.pt")
    with pytest.warns(UserWarning, match="it is trusted"):
        built = build("robustbench:Small", shape=SHAPE, arguments=arguments, trust_pickle=True)
    assert any("trusted pickle" in each for each in built.notes)
    assert "robustbench" in sys.modules


class Kept(dict[str, Any]):
    """A class that a pickle asks for."""
