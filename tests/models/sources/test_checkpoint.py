"""Checkpoints: what is unwrapped and said, what does not fit, and that nothing in them runs."""

from __future__ import annotations

import argparse
import datetime
import os
import pickle
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import torch
from made_models import SHAPE, network, write_code, write_onnx
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from gibbon.core.errors import ModelError, RequestError, WeightsError
from gibbon.models.sources import BuiltModel
from gibbon.models.sources.build import build_model, check_model
from gibbon.models.sources.checkpoint import load_checkpoint
from gibbon.models.weights import state_digest
from gibbon.specs.suite import ModelSpec

State = dict[str, Any]


def state() -> State:
    return dict(network(seed=7).state_dict())


def prefixed(prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state().items()}


def other() -> State:
    """Weights that were averaged, or those of another epoch."""
    return dict(network(seed=8).state_dict())


def without(name: str) -> State:
    return {key: tensor for key, tensor in state().items() if key != name}


def load(path: Path, **options: Any) -> tuple[nn.Module, tuple[str, ...]]:
    module = network(seed=2)
    return module, load_checkpoint(module, path, **options).notes


def refusal(path: Path, **fields: Any) -> str:
    module = network(seed=2)
    before = state_digest(module)
    with pytest.raises(WeightsError) as told:
        load_checkpoint(module, path, **fields)
    assert state_digest(module) == before
    return str(told.value)


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was loaded",))


class Harmless:
    """A class that a pickle asks for."""


TAKEN = "the weights were taken from '{}' in the checkpoint"
STRIPPED = "the prefix '{}' was stripped from the names of all 9 tensors"


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (state(), ()),
        ({"state_dict": state()}, (TAKEN.format("state_dict"),)),
        (
            {"epoch": 3, "model": state(), "optimizer": {"lr": 1e-3}},
            (TAKEN.format("model") + "; left aside: epoch, optimizer",),
        ),
        ({"model_state_dict": state()}, (TAKEN.format("model_state_dict"),)),
        (
            {"model": {"state_dict": state()}},
            (TAKEN.format("model"), TAKEN.format("state_dict")),
        ),
        (prefixed("module."), (STRIPPED.format("module."),)),
        (prefixed("_orig_mod."), (STRIPPED.format("_orig_mod."),)),
        (
            prefixed("module._orig_mod."),
            (STRIPPED.format("module."), STRIPPED.format("_orig_mod.")),
        ),
        (
            {"state_dict": prefixed("model."), "hyper_parameters": {"width": 3}},
            (
                TAKEN.format("state_dict") + "; left aside: hyper_parameters",
                STRIPPED.format("model."),
            ),
        ),
        (
            {
                "model": state(),
                "args": argparse.Namespace(lr=0.1, name="run"),
                "best": np.float64(0.9),
                "count": np.int64(3),
            },
            (TAKEN.format("model") + "; left aside: args, best, count",),
        ),
        (
            {
                "model": state(),
                "rng": np.random.RandomState(0).get_state(),
                "names": np.array(["a", "b"]),
                "objects": np.array([None, {"a": 1}], dtype=object),
                "when": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
                "took": datetime.timedelta(3),
                "folder": Path("runs/1"),
                "windows": PureWindowsPath("runs/1"),
            },
            (
                TAKEN.format("model")
                + "; left aside: rng, names, objects, when, took, folder, windows",
            ),
        ),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_is_found_and_what_was_done_is_said(
    tmp_path: Path, content: State, notes: tuple[str, ...], zipped: bool
) -> None:
    path = tmp_path / "w.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    module, said = load(path)
    assert state_digest(module) == state_digest(network(seed=7))
    assert said == notes


class Vast:
    """Pickled as an array of numpy of 80 petabytes."""

    def __reduce__(self) -> tuple[object, ...]:
        reconstruct = np.zeros(0).__reduce__()[0]
        return reconstruct, (np.ndarray, (10**16,), b"O")


def test_arrays_beside_a_state_dict_are_not_made(tmp_path: Path) -> None:
    torch.save({"model": state(), "bomb": Vast()}, tmp_path / "w.pt")
    assert state_digest(load(tmp_path / "w.pt")[0]) == state_digest(network(seed=7))


def test_a_prefix_that_the_model_has_itself_stays(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.model = network(seed=seed)

    torch.save(Wrapped(7).state_dict(), tmp_path / "w.pt")
    module = Wrapped(2)
    assert load_checkpoint(module, tmp_path / "w.pt").notes == ()
    assert state_digest(module) == state_digest(Wrapped(7))


def test_an_old_checkpoint_without_counted_batches_fits(tmp_path: Path) -> None:
    counted = {name: each for name, each in state().items() if "num_batches" not in name}
    torch.save(counted, tmp_path / "w.pt")
    assert state_digest(load(tmp_path / "w.pt")[0]) == state_digest(network(seed=7))


def test_tensors_that_are_one_may_be_saved_once(tmp_path: Path) -> None:
    def tied(seed: int) -> nn.Module:
        one = nn.Linear(4, 4)
        nn.init.constant_(one.weight, seed)
        return nn.Sequential(one, nn.Tanh(), one)

    save_model(tied(7), str(tmp_path / "w.safetensors"))
    module = tied(2)
    load_checkpoint(module, tmp_path / "w.safetensors")
    assert float(module[2].weight.detach().mean()) == 7


MANY = {f"extra{place:02d}": torch.zeros(1) for place in range(13)}
ALL = sorted(state())


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            {k: v for k, v in state().items() if k != "0.bias"},
            "missing ['0.bias'], unexpected none",
        ),
        ({**state(), "extra": torch.zeros(1)}, "missing none, unexpected ['extra']"),
        ({**state(), **MANY}, "'extra09'] and 3 more"),
        ({"a": torch.zeros(1)}, f"missing {[each for each in ALL if 'num_b' not in each]}"),
        (
            {**state(), "5.weight": torch.zeros(9, 180)},
            "tensor '5.weight' has shape (9, 180), the model needs (4, 180)",
        ),
        (
            {**state(), "5.weight": torch.zeros(9, 180), "5.bias": torch.zeros(9)},
            "(and 1 more do not fit)",
        ),
        ({**state(), "5.bias": torch.full((4,), torch.nan)}, "'5.bias' holds NaN or infinity"),
        ({"epoch": 3}, "holds no state dict: expected tensors by name, or those under a key, such"),
        ({"epoch": 3}, "state_dict, model_state_dict, model, net, ema; got the keys epoch"),
        ({}, "got the keys (none)"),
        (
            {"model": state(), "ema": other(), "optimizer": {"state": {}}},
            "holds tensors that fit the model under 'model' and under 'ema': which of them is not "
            "known; say it with --weights-key (weights_key in a suite), such as model",
        ),
        ([torch.zeros(1)], "holds a list, expected a state dict: tensors by name"),
        (torch.zeros(1), "holds a Tensor, expected a state dict"),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_is_loaded(
    tmp_path: Path, content: Any, fault: str
) -> None:
    torch.save(content, tmp_path / "w.pt")
    told = refusal(tmp_path / "w.pt")
    assert told.startswith(f"{tmp_path / 'w.pt'}: ")
    assert fault in told
    if isinstance(content, Mapping) and all(isinstance(v, Tensor) for v in content.values()):
        if not content:
            return
        same = {name: each.clone() for name, each in content.items()}
        save_file(same, tmp_path / "w.safetensors")
        assert fault in refusal(tmp_path / "w.safetensors")


def test_other_files_are_told(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    for name, damaged in {
        "cut.pt": content[: len(content) // 2],
        "start.pt": content[:3],
        "empty.pt": b"",
        "text.pt": b"hello, these are no weights",
        "text.safetensors": b"hello, these are no weights",
        "noise.pt": bytes(range(256)),
    }.items():
        (tmp_path / name).write_bytes(damaged)
        assert f"{name}: damaged, or not a" in refusal(tmp_path / name)
    write_onnx(tmp_path / "net.onnx", network())
    assert "is a whole model (onnx), not a weights file" in refusal(tmp_path / "net.onnx")
    assert "is a folder, expected a weights file" in refusal(tmp_path)
    assert "can't be read: No such file" in refusal(tmp_path / "nothing.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("content", [Bomb(), {"state_dict": state(), "more": Bomb()}])
def test_a_pickle_that_asks_for_code_is_refused_and_not_run(
    tmp_path: Path, content: Any, zipped: bool
) -> None:
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    told = refusal(tmp_path / "w.pt")
    assert "this is a pickle that refers to code (_pytest.outcomes." in told
    assert "save the state dict with safetensors.torch.save_file, or vouch for" in told
    assert "--trust-code (trust_code = true in a suite)" in told


class Runs:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("exit 3",)


def test_a_pickle_of_a_module_that_torch_never_loads_is_no_damaged_one(tmp_path: Path) -> None:
    torch.save({"net": state(), "note": Runs()}, tmp_path / "w.pt")
    told = refusal(tmp_path / "w.pt")
    assert "this is a pickle that refers to code (" in told
    assert ".system)" in told


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_torch_did_not_write_is_refused_and_not_run(
    tmp_path: Path, protocol: int
) -> None:
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(Bomb(), protocol=protocol))
    told = refusal(tmp_path / "w.pkl")
    assert "refers to code" in told or "damaged, or not a checkpoint" in told


def test_a_pickle_that_is_trusted_is_loaded_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"state_dict": state(), "more": Harmless()}, path)
    with pytest.warns(UserWarning, match=r"w\.pt: a pickle that refers to code .* is trusted"):
        module, notes = load(path, trust_pickle=True)
    assert state_digest(module) == state_digest(network(seed=7))
    assert notes[0].startswith("w.pt was loaded as a trusted pickle, running its code")
    torch.save(network(seed=7), path)
    with pytest.warns(UserWarning, match="is trusted"):
        module, notes = load(path, trust_pickle=True)
    assert state_digest(module) == state_digest(network(seed=7))
    assert notes[1:] == ("the weights were taken from a pickled module",)


def test_tensors_alone_are_read_without_a_warning_though_trusted(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "w.pt")
    assert load(tmp_path / "w.pt", trust_pickle=True)[1] == ()


def build(model: Path, **fields: Any) -> BuiltModel:
    spec = ModelSpec(name="made", model=str(model), **fields)
    return build_model(spec, input_shape=SHAPE)


def test_a_checkpoint_alone_says_to_give_the_architecture(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "w.pt")
    save_file(state(), tmp_path / "w.safetensors")
    for path in (tmp_path / "w.pt", tmp_path / "w.safetensors"):
        with pytest.raises(ModelError, match=r"--model net\.py:build --weights .*w\.") as told:
            build(path)
        assert "this is a checkpoint, tensors without the architecture" in str(told.value)


def test_a_whole_pickled_module_is_refused_unless_it_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "whole.pt"
    torch.save(network(), path)
    with pytest.raises(RequestError, match=r"refers to code \(torch\.nn\.modules\.container\.Seq"):
        build(path)
    with pytest.warns(UserWarning, match="is trusted"):
        built = build(path, trust_pickle=True)
    assert built.classifier.classes == 4


def test_what_was_done_to_weights_stands_in_the_models_notes(tmp_path: Path) -> None:
    torch.save({"state_dict": prefixed("module.")}, tmp_path / "w.pt")
    code = f"{write_code(tmp_path)}:build"
    spec = ModelSpec(name="made", model=code, weights=str(tmp_path / "w.pt"))
    built = build_model(spec, input_shape=SHAPE)
    assert built.notes == (TAKEN.format("state_dict"), STRIPPED.format("module."))


def wrapped(prefix: str, content: State | None = None) -> State:
    return {f"{prefix}{name}": each for name, each in (content or state()).items()}


def inside(part: str) -> State:
    """Names of a model of which each layer was wrapped, as torch.compile and FSDP do."""
    return {name.replace(".", f".{part}.", 1): each for name, each in state().items()}


ROBUSTNESS = {
    **wrapped("module.model."),
    **wrapped("module.attacker.model."),
    "module.normalizer.new_mean": torch.tensor([0.5]).view(1, 1, 1),
    "module.normalizer.new_std": torch.tensor([0.25]).view(1, 1, 1),
    "module.attacker.normalize.new_mean": torch.tensor([0.5]).view(1, 1, 1),
}
AVERAGED = torch.optim.swa_utils.AveragedModel(network(seed=7)).state_dict()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"net": state(), "acc": 91.2, "epoch": 3}, ["taken from 'net'", "left aside: acc, epoch"]),
        ({"net": wrapped("module.")}, ["taken from 'net'", "the prefix 'module.' was stripped"]),
        ({"weights": {"params": state()}}, ["taken from 'weights'", "taken from 'params'"]),
        ({"state": {"model": wrapped("module.")}}, ["taken from 'state'", "taken from 'model'"]),
        ([state(), {"lr": 0.1}], ["the weights were taken from '0' in the checkpoint"]),
        (
            {"state_dict": state(), "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
            ["taken from 'state_dict'"],
        ),
        ({**state(), "epoch": 3, "lr": 0.1}, ["left aside next to the weights: epoch, lr"]),
        ({"model": ROBUSTNESS, "epoch": 1}, [
            "the prefix 'module.' was stripped from the names of 9 tensors",
            "the prefix 'model.' was stripped from the names of 9 tensors",
            "left aside were tensors that the model has not: module.attacker.* (10), "
            "module.normalizer.* (2)",
            "normalises inputs by mean 0.5 and std 0.25, which was left aside: give --mean 0.5 "
            "--std 0.25",
        ]),
        (wrapped("attacker.model."), ["prefix 'attacker.' was stripped", "prefix 'model.' was"]),
        (dict(AVERAGED), ["the prefix 'module.' was stripped", "has not: n_averaged"]),
        ({"ema": dict(AVERAGED), "step": 7}, ["taken from 'ema'", "the prefix 'module.'"]),
        (
            {"state_dict": {**wrapped("model."), "criterion.weight": torch.ones(4)},
             "hyper_parameters": {"lr": 0.1}},
            ["the prefix 'model.' was stripped", "has not: criterion.*"],
        ),
        ({"state_dict": wrapped("net.backbone.")}, ["prefix 'net.'", "prefix 'backbone.'"]),
        (inside("_orig_mod"), ["'_orig_mod' was stripped from within the names of tensors"]),
        (wrapped("model.", inside("_checkpoint_wrapped_module")), ["from within", "'model.'"]),
        ({"model": state(), "ema": {k: v.clone() for k, v in state().items()}}, ["'model'"]),
        ({"student": state(), "teacher": {"0.weight": torch.ones(1)}}, ["taken from 'student'"]),
    ],
)  # fmt: skip
def test_the_weights_that_fit_are_found_however_they_are_wrapped(
    tmp_path: Path, content: Any, said: list[str]
) -> None:
    torch.save(content, tmp_path / "w.pt")
    module, notes = load(tmp_path / "w.pt")
    assert state_digest(module) == state_digest(network(seed=7))
    for part in said:
        assert any(part in note for note in notes), notes


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"state_dict": state(), "state_dict_ema": other()}, "such as state_dict"),
        (
            {**wrapped("online_model."), **wrapped("ema_model.", other()), "step": torch.ones(())},
            "under the prefixes 'ema_model.' and 'online_model.': which of them is not known; say "
            "it with --weights-prefix (weights_prefix in a suite), such as ema_model.",
        ),
        ({**state(), **wrapped("ema.", other())}, "under the prefixes '' and 'ema.'"),
    ],
)
def test_of_several_weights_that_fit_none_is_guessed(
    tmp_path: Path, content: Any, fault: str
) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert fault in refusal(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ({"model": other(), "ema": state()}, {"key": "ema"}),
        ({"model": other(), "ema": dict(AVERAGED)}, {"key": "ema", "prefix": "module"}),
        ({"a": {"b": {"net": state()}}, "c": other()}, {"key": "a.b.net"}),
        ({"a.b": {"net": state()}, "c": other()}, {"key": "a.b.net"}),
        ({"a": {"net": state()}, "c": other()}, {"key": "a"}),
        ({**wrapped("one.", other()), **wrapped("two.")}, {"prefix": "two."}),
        ({**wrapped("one.", other()), **wrapped("two.")}, {"prefix": "two"}),
        ({**wrapped("one.", other()), **wrapped("two.", inside("module"))}, {"prefix": "two"}),
        ([{"lr": 0.1}, other(), state()], {"key": "2"}),
    ],
)
def test_the_user_says_which_weights_are_meant(
    tmp_path: Path, content: Any, options: dict[str, str]
) -> None:
    torch.save(content, tmp_path / "w.pt")
    module, notes = load(tmp_path / "w.pt", **options)
    assert state_digest(module) == state_digest(network(seed=7))
    assert notes


def test_a_key_or_prefix_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    torch.save({"model": wrapped("net."), "emma": {"net": other()}}, tmp_path / "w.pt")
    assert "there is no 'ema'; did you mean 'emma'? Keys: model, emma" in refusal(
        tmp_path / "w.pt", key="ema"
    )
    assert "there is no 'x' under 'emma'. Keys: net" in refusal(tmp_path / "w.pt", key="emma.x")
    told = refusal(tmp_path / "w.pt", key="model", prefix="nett")
    assert "no name of a tensor starts with it; did you mean 'net'? Names start with net" in told


def test_a_checkpoint_that_refers_to_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = {"net": state()}
    content["self"] = content
    torch.save(content, tmp_path / "w.pt")
    assert state_digest(load(tmp_path / "w.pt")[0]) == state_digest(network(seed=7))


def test_key_and_prefix_are_options_of_a_model(tmp_path: Path) -> None:
    torch.save({"model": other(), "ema": wrapped("module.")}, tmp_path / "w.pt")
    code = f"{write_code(tmp_path)}:build"
    fields = {"name": "made", "model": code, "weights": str(tmp_path / "w.pt")}
    spec = ModelSpec(**fields, weights_key="ema", weights_prefix="module")
    built = build_model(spec, input_shape=SHAPE)
    assert state_digest(built.classifier.module) == state_digest(network(seed=7))
    assert any("taken from 'ema'" in note for note in built.notes)
    lone = ModelSpec(name="made", model=code, weights_key="ema")
    with pytest.raises(RequestError, match="weights_key is a part of a weights file"):
        check_model(lone, where="models[0]")
    registered = ModelSpec(
        name="x", model="softmax", weights=str(tmp_path / "w.pt"), weights_key="ema"
    )
    with pytest.raises(RequestError, match="'softmax' reads its weights file itself"):
        check_model(registered, where="models[0]")


@pytest.mark.parametrize(
    "content",
    [
        {"class_to_idx": {"eel": 3, "cat": 0, "dog": 2, "bee": 1}},
        {"idx_to_class": {0: "cat", 1: "bee", 2: "dog", 3: "eel"}},
        {"classes": ["cat", "bee", "dog", "eel"]},
        {"hyper_parameters": {"class_names": ["cat", "bee", "dog", "eel"]}},
        {"meta": {"CLASSES": ["cat", "bee", "dog", "eel"]}},
    ],
)
def test_the_classes_that_a_checkpoint_states_are_those_of_the_model(
    tmp_path: Path, content: State
) -> None:
    torch.save({"net": state(), **content}, tmp_path / "w.pt")
    code = f"{write_code(tmp_path)}:build"
    spec = ModelSpec(name="made", model=code, weights=str(tmp_path / "w.pt"))
    built = build_model(spec, input_shape=SHAPE)
    assert built.class_names == ("cat", "bee", "dog", "eel")
