"""Weights files: safetensors that fit exactly, or an error that names the file and the reason."""

import json
import pickle
import struct

import nets
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from gibbon.core.errors import WeightsError
from gibbon.models.weights import file_digest, load_weights, read_weights, state_digest


def net(seed: int = 1) -> nn.Module:
    return nets.filled(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), seed=seed)


def unchanged(module: nn.Module, digest: str) -> bool:
    return state_digest(module) == digest


def test_weights_survive_a_round_trip(tmp_path):
    path = tmp_path / "net.safetensors"
    saved, loaded = net(1), net(2)
    save_file(saved.state_dict(), path)
    load_weights(loaded, path)
    assert state_digest(loaded) == state_digest(saved)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_float16_weights_are_converted_to_the_modules_dtype(tmp_path):
    path = tmp_path / "net.safetensors"
    saved, loaded = net(1), net(2)
    halves = {
        name: each.half() if each.is_floating_point() else each
        for name, each in saved.state_dict().items()
    }
    save_file(halves, path)
    load_weights(loaded, path)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == saved.state_dict()[name].dtype
        torch.testing.assert_close(tensor.float(), halves[name].float(), rtol=0, atol=0)


def tensors() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in net().state_dict().items()}


def without(name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in tensors().items() if key != name}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (without("0.bias"), r"missing \['0.bias'\], unexpected none"),
        (
            {**tensors(), "extra": torch.zeros(1)},
            r"missing none, unexpected \['extra'\]",
        ),
        (
            {**tensors(), "0.weight": torch.zeros(3, 2)},
            r"'0.weight' has shape \(3, 2\), the model needs \(2, 3\)",
        ),
        ({**tensors(), "0.bias": torch.zeros(())}, r"'0.bias' has shape \(\), the model needs"),
        ({**tensors(), "0.bias": torch.tensor([0.0, float("nan")])}, "'0.bias' holds NaN or inf"),
        ({**tensors(), "0.bias": torch.tensor([0.0, float("inf")])}, "'0.bias' holds NaN or inf"),
        ({}, "missing"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_and_nothing_is_loaded(tmp_path, content, fault):
    path = tmp_path / "net.safetensors"
    save_file(content, path)
    module = net(7)
    before = state_digest(module)
    with pytest.raises(WeightsError, match=fault) as told:
        load_weights(module, path)
    assert str(told.value).startswith(f"{path}: ")
    assert unchanged(module, before)


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_unopened(tmp_path, protocol):
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps(Bomb(), protocol=protocol))
    with pytest.raises(WeightsError, match=r"this is a pickle .* safetensors.torch.save_file"):
        load_weights(net(), path)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_save_writes_is_refused(tmp_path, zipped):
    path = tmp_path / "net.pt"
    torch.save(net().state_dict(), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="this is a pickle"):
        load_weights(net(), path)


@pytest.mark.parametrize("protocol", [0, 1])
def test_an_old_text_pickle_is_no_safetensors_either(tmp_path, protocol):
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_weights(net(), path)


@pytest.mark.parametrize("kept", [0, 4, 8, 50, -1])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = tmp_path / "net.safetensors"
    path.write_bytes(save(net().state_dict())[:kept])
    with pytest.raises(WeightsError, match="damaged, or not a safetensors file"):
        load_weights(net(), path)


@pytest.mark.parametrize("content", [b"", b"hello, these are no weights", b"\xff" * 64])
def test_something_else_is_refused(tmp_path, content):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged, or not a safetensors file"):
        read_weights(path)


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    padded = header.ljust(0x80).encode()
    path = tmp_path / "net.safetensors"
    path.write_bytes(struct.pack("<Q", len(padded)) + padded + struct.pack("<f", 2.5))
    assert path.read_bytes().startswith(b"\x80")
    assert read_weights(path)["a"].tolist() == [2.5]


def test_a_file_that_is_not_there_is_told(tmp_path):
    for function in (read_weights, file_digest):
        with pytest.raises(WeightsError, match=r"no\.safetensors: can't be read: No such file"):
            function(tmp_path / "no.safetensors")
    with pytest.raises(WeightsError, match="can't be read: Is a directory"):
        read_weights(tmp_path)


def test_the_digest_of_a_state_tells_names_dtypes_shapes_and_values_apart():
    def digest(**named: torch.Tensor) -> str:
        module = nn.Module()
        for name, tensor in named.items():
            module.register_buffer(name, tensor)
        return state_digest(module)

    ones = torch.ones(2, 3)
    seen = [
        digest(a=ones),
        digest(b=ones),
        digest(a=ones.view(3, 2)),
        digest(a=ones.double()),
        digest(a=ones.half()),
        digest(a=ones + 1e-7),
        digest(a=ones, b=ones),
        digest(a=torch.tensor(1)),
        digest(),
    ]
    assert len(set(seen)) == len(seen)
    assert digest(a=ones.t().contiguous().t()) == digest(a=ones)


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert file_digest(path).startswith("ba7816bf8f01cfea414140de5dae2223")
