"""A model whose answers are mended is computed again, wherever the mend is.

The fault is a gradient that is cut for brighter inputs than those of the data.  No answer to the
data or near it shows it, so that the digest has to know where the limit comes from.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from planted import Run
from test_execute import MakeSuite
from torch import nn

from gibbon.core.import_path import load_reference
from gibbon.runner.plan.model_code import model_code

NET = """
import functools
import json
import os
from os import environ
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent
KEY = "THE_LIMIT"


@functools.cache
def kept():
    return float((HERE / "limit.txt").read_text())


def setting(name):
    return float(os.environ.get(name, "0.9"))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 3)

    def load(self):
        self.limit = float(np.load(HERE / "limit.npz")["limit"])
        return self

    def cut(self, inputs, limit):
        return inputs.detach() if float(inputs.mean()) > limit else inputs

    def forward(self, inputsDEFAULT):
        inputs = inputs.flatten(1)
        BODY
        return self.linear(inputs)


def build():
    net = Net()
    BUILD
    return net.eval()
"""
ABOVE, BELOW = "2.0", "0.9"  # no limit, and one that attacked inputs may reach


@dataclass(frozen=True)
class Mend:
    """A model, and what is changed before it runs again; ``CUTOFF`` stands for the limit."""

    body: str = "pass"
    build: str = "pass"
    default: str = ""
    file: str = ""
    variable: str = ""

    def write(self, folder: Path, limit: str) -> None:
        text = NET.replace("DEFAULT", self.default).replace("BODY", self.body)
        text = text.replace("BUILD", self.build).replace("CUTOFF", limit)
        (folder / "net.py").write_text(text)
        if self.file.endswith(".npz"):
            np.savez(folder / self.file, limit=float(limit))
        elif self.file:
            (folder / self.file).write_text(limit)


OF_FILE = "inputs = self.cut(inputs, {})"
MENDS = {
    "a default": Mend("inputs = self.cut(inputs, limit)", default=", limit=CUTOFF"),
    "a default by keyword": Mend("inputs = self.cut(inputs, limit)", default=", *, limit=CUTOFF"),
    "a default in a table": Mend(
        'inputs = self.cut(inputs, how["limit"])', default=', how={"limit": CUTOFF}'
    ),
    "a hook before": Mend(
        build="net.register_forward_pre_hook(lambda net, given: (net.cut(given[0], CUTOFF),))"
    ),
    "a hook after": Mend(
        build="net.linear.register_forward_hook(lambda _, given, out: net.cut(out, 1e6 * CUTOFF))"
    ),
    "a hook of the backward pass": Mend(
        build="net.linear.register_full_backward_hook("
        "lambda _, given, out: (given[0] * (float(given[0].max()) < 1e6 * CUTOFF),))"
    ),
    "a hook of a tensor": Mend(
        "inputs = inputs * 1\n        if inputs.requires_grad: "
        "inputs.register_hook(lambda g: g * (float(g.max()) < 1e6 * CUTOFF))"
    ),
    "a text": Mend(OF_FILE.format('float(np.loadtxt(HERE / "limit.txt"))'), file="limit.txt"),
    "a file of JSON": Mend(
        OF_FILE.format('json.loads((HERE / "limit.json").read_text())'), file="limit.json"
    ),
    "an archive": Mend(OF_FILE.format('np.load(HERE / "limit.npz")["limit"]'), file="limit.npz"),
    "an archive that a method reads": Mend(
        OF_FILE.format("self.limit"), "net.load()", file="limit.npz"
    ),
    "a variable": Mend(OF_FILE.format('float(os.getenv("THE_LIMIT"))'), variable="THE_LIMIT"),
    "a variable by another name": Mend(OF_FILE.format("setting(KEY)"), variable="THE_LIMIT"),
    "a variable of an imported mapping": Mend(
        OF_FILE.format("float(environ[KEY])"), variable="THE_LIMIT"
    ),
    "a variable as it is built": Mend(
        OF_FILE.format("self.limit"),
        'net.limit = float(os.environ["THE_LIMIT"])',
        variable="THE_LIMIT",
    ),
}


@pytest.mark.parametrize("name", MENDS)
def test_a_mend_is_computed_again(
    name: str, run: Run, suite: MakeSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = MENDS[name]
    asked = suite("fgsm", models=({"name": "net", "model": f"{tmp_path / 'net.py'}:build"},))

    def computed(limit: str) -> int:
        mend.write(tmp_path, limit)
        if mend.variable:
            monkeypatch.setenv(mend.variable, limit)
        return run(asked).provenance.computed_cells

    monkeypatch.setenv("ANOTHER_VARIABLE", "1")
    assert computed(BELOW) == 2
    monkeypatch.setenv("ANOTHER_VARIABLE", "2")
    (tmp_path / "other.txt").write_text("2")
    assert computed(BELOW) == 0
    assert computed(ABOVE) == 2


def test_a_file_that_is_read_once_counts_as_it_was_read(
    run: Run, suite: MakeSuite, tmp_path: Path
) -> None:
    """In a process that has read it, answers are the old ones whatever the file now holds."""
    mend = Mend(OF_FILE.format("kept()"), file="limit.txt")
    asked = suite("fgsm", models=({"name": "net", "model": f"{tmp_path / 'net.py'}:build"},))

    def computed(limit: str, *, read_again: bool) -> int:
        mend.write(tmp_path, limit)
        if read_again:  # another text is imported anew
            with (tmp_path / "net.py").open("a") as file:
                file.write("# a remark\n")
        return run(asked).provenance.computed_cells

    assert computed(BELOW, read_again=False) == 2
    assert computed(ABOVE, read_again=False) == 0
    assert computed(ABOVE, read_again=True) == 2


def test_a_log_that_a_model_writes_is_no_setting(
    run: Run, suite: MakeSuite, tmp_path: Path
) -> None:
    log = Mend(
        'file = HERE / "log.txt"\n'
        '        file.write_text((file.read_text() if file.exists() else "") + "called")'
    )
    log.write(tmp_path, ABOVE)
    asked = suite("fgsm", models=({"name": "net", "model": f"{tmp_path / 'net.py'}:build"},))
    assert [run(asked).provenance.computed_cells for _ in range(2)] == [2, 0]


HELPER = "LIMIT = {}\n"
WAYS = {
    "imported late": (
        "import limits_of_mine as late\n        inputs = self.cut(inputs, late.LIMIT)"
    ),
    "by a word": 'inputs = self.cut(inputs, getattr(limits_of_mine, "LIMIT"))',
}


@pytest.mark.parametrize("way", WAYS)
def test_a_constant_of_a_helper_counts(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def code(limit: str) -> str | None:
        folder = tmp_path / f"project{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        text = NET.replace("DEFAULT", "").replace("BODY", WAYS[way]).replace("BUILD", "pass")
        (folder / "net.py").write_text(text + "\nimport limits_of_mine\n")
        (folder / "limits_of_mine.py").write_text(HELPER.format(limit))
        sys.modules.pop("limits_of_mine", None)
        with monkeypatch.context() as patched:
            patched.syspath_prepend(str(folder))
            net = load_reference(f"{folder / 'net.py'}:build", what="model")()
            assert isinstance(net, nn.Module)
            found = model_code(net)
        sys.modules.pop("limits_of_mine", None)
        return found

    assert code(BELOW) == code(BELOW) != code(ABOVE)


def test_a_hook_of_all_modules_counts() -> None:
    net = nn.Linear(2, 2)
    before = model_code(net)
    hooked = nn.modules.module.register_module_forward_hook(lambda _, given, out: out.detach())
    try:
        assert model_code(net) != before
    finally:
        hooked.remove()
    assert model_code(net) == before
