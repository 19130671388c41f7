"""What is stored under a digest is computed again after a change that can change it, no other."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydantic
import pytest
import torch
from torch import Tensor

from gibbon.attacks import ATTACKS, adapters, registered_name
from gibbon.attacks.base import Attack
from gibbon.attacks.factory import build_attack
from gibbon.attacks.fgsm import FGSM
from gibbon.attacks.pgd import PGD
from gibbon.core.import_path import load_reference
from gibbon.core.registry import Entry
from gibbon.core.rng import derive_key
from gibbon.core.threat import Norm
from gibbon.runner.plan import code_digest as code_digest_module
from gibbon.runner.plan.cell_digest import attack_part, is_readable
from gibbon.runner.plan.code_digest import code_digest, is_library
from gibbon.runner.plan.make_plan import STREAMS_OF_A_LIST
from gibbon.runner.plan.stream_names import FIRST_ADAPTERS, stream_text
from gibbon.specs.suite import AttackSpec

MINE = '''
"""An attack."""
import dataclasses
from moves import move
from gibbon.attacks.base import Attack

@dataclasses.dataclass(frozen=True)
class Mine(Attack):
    """Moves."""

    needs_gradient = True

    def propose(self, classifier, inputs, *, labels, threat, streams):
        """Yields one candidate."""
        from late import finish  # imported when it is run
        yield finish(move(inputs))  # the only one
'''
MOVES = '''
import math
import torch
from torch.nn.functional import relu as act
from stride import LENGTH

def move(x):
    """Moves."""
    return act(x + LENGTH * math.pi)
'''
FILES = {
    "mine.py": MINE,
    "moves.py": MOVES,
    "late.py": "def finish(x):\n    return x\n",
    "stride.py": "LENGTH = 1\n",
}

Project = Callable[..., str | None]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Writes the files of a project, imports its attack afresh and returns its code's digest."""
    made: list[Path] = []

    def forget() -> None:
        for name, module in list(sys.modules.items()):
            if any(each in Path(getattr(module, "__file__", None) or "/").parents for each in made):
                del sys.modules[name]

    def written(changes: dict[str, str] | None = None, *, name: str = "mine") -> str | None:
        forget()
        folder = tmp_path / f"project{len(made)}"
        made.append(folder)
        for file, text in {**FILES, **(changes or {})}.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        importlib.invalidate_caches()
        with monkeypatch.context() as patched:
            patched.syspath_prepend(str(folder))
            return code_digest([importlib.import_module(name).Mine])

    yield written
    forget()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("mine.py", "move(inputs)", "move(-inputs)"),
        ("moves.py", "x + LENGTH", "x - LENGTH"),
        ("stride.py", "1", "2"),
        ("late.py", "return x", "return x + 1"),
        ("moves.py", "relu as act", "gelu as act"),
        ("moves.py", "from torch.nn.functional import relu", "from torch import relu"),
    ],
)
def test_a_change_of_any_module_of_the_author_changes_the_digest(
    project: Project, file: str, old: str, new: str
) -> None:
    assert old in FILES[file]
    before = project()
    assert before is not None
    assert project({file: FILES[file].replace(old, new)}) not in (before, None)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("mine.py", '"""Moves."""', '"""Moves about."""'),
        ("moves.py", '    """Moves."""\n', ""),
        ("mine.py", "  # the only one", ""),
        ("mine.py", "needs_gradient = True", "needs_gradient = False"),
        ("moves.py", "import math\nimport torch", "import torch\nimport os\nimport math"),
        ("moves.py", "import torch\n", ""),
        ("moves.py", "import relu as act", "import (relu as act)"),
        (
            "late.py",
            "def",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import io\ndef",
        ),
        ("moves.py", "def move(x):", "\n\ndef move(x):  # moves"),
    ],
)
def test_docstrings_comments_and_the_form_of_imports_change_nothing(
    project: Project, file: str, old: str, new: str
) -> None:
    assert old in FILES[file]
    assert project({file: FILES[file].replace(old, new)}) == project()


def test_a_renamed_helper_changes_nothing_and_another_in_its_place_does(project: Project) -> None:
    before = project()
    renamed = {
        "steps.py": MOVES,
        "moves.py": "",
        "mine.py": MINE.replace("from moves", "from steps"),
    }
    assert project(renamed) == before
    other = MOVES.replace("+ LENGTH", "- LENGTH")
    both = "import moves\nimport others\n"
    first = {"others.py": other, "mine.py": both + MINE}
    second = {"others.py": other, "mine.py": both + MINE.replace("from moves", "from others")}
    assert project(first) != project(second)


def test_packages_relative_imports_and_circles_are_followed(project: Project) -> None:
    files = {
        "pack/__init__.py": "from .mine import Mine\n",
        "pack/mine.py": MINE.replace("from moves", "from .deep.moves"),
        "pack/deep/__init__.py": "",
        "pack/deep/moves.py": "from .. import mine\nfrom ..stride import LENGTH\n"
        "def move(x):\n    return x * LENGTH\n",
        "pack/stride.py": "LENGTH = 1\n",
    }
    before = project(files, name="pack")
    assert before is not None
    assert project({**files, "pack/stride.py": "LENGTH = 2\n"}, name="pack") != before
    assert (
        project({**files, "pack/__init__.py": files["pack/__init__.py"] + "A = 1\n"}, name="pack")
        != before
    )


def test_imports_that_fail_and_others_in_their_place_are_followed(project: Project) -> None:
    tried = "try:\n    from .moves import move\n    from . import moves\n"
    tried += "except ImportError:\n    from moves import move\n"
    tried += "try:\n    from not_there import *\nexcept ImportError:\n    pass\n"
    mine = MINE.replace("from moves import move", tried)
    before = project({"mine.py": mine})
    assert before is not None
    moves = MOVES.replace("x + LENGTH", "x - LENGTH")
    assert project({"mine.py": mine, "moves.py": moves}) not in (before, None)


def test_an_installed_package_is_its_own_and_other_installed_ones_are_not(project: Project) -> None:
    place = "lib/site-packages"
    link = (
        f"import sys, pathlib\nsys.path.insert(0, str(pathlib.Path(__file__).parent / '{place}'))\n"
    )
    files = {
        "mine.py": link + "from pack import Mine\n",
        f"{place}/pack/__init__.py": MINE.replace("from moves", "from .moves"),
        f"{place}/pack/moves.py": "from library import LENGTH\ndef move(x): return x * LENGTH\n",
        f"{place}/library.py": "LENGTH = 1\n",
    }
    path = list(sys.path)
    try:
        before = project(files)
        assert before is not None
        assert project({**files, f"{place}/library.py": "LENGTH = 2\n"}) == before
        moves = files[f"{place}/pack/moves.py"].replace("x * ", "x + ")
        assert project({**files, f"{place}/pack/moves.py": moves}) != before
    finally:
        sys.path[:] = path


def test_a_base_class_counts(project: Project) -> None:
    files = {
        "base.py": MINE.replace("Mine", "Base"),
        "mine.py": "from dataclasses import dataclass\nimport base\n"
        "@dataclass(frozen=True)\nclass Mine(base.Base):\n    size: int = 1\n",
    }
    before = project(files)
    assert before is not None
    assert project({**files, "base.py": files["base.py"].replace("(move", "(-move")}) != before


def test_the_class_of_a_parameter_counts_unless_it_is_a_librarys(project: Project) -> None:
    assert project() is not None
    mine = sys.modules["mine"].Mine
    plain = code_digest([mine])
    assert code_digest([mine], values=[float, Tensor, Norm, torch.nn.Linear]) == plain
    given = type("Given", (), {"__module__": __name__})
    assert code_digest([mine], values=[given]) not in (plain, None)
    typed: dict[str, type] = {}
    exec("class Typed:\n    def move(self): pass", {"__name__": "__main__"}, typed)  # noqa: S102
    assert code_digest([mine], values=typed.values()) is None


def test_what_stands_beside_a_file_that_a_user_names_counts(tmp_path: Path) -> None:
    """Such a module is listed under its name only while the user's file is imported."""
    seen = []
    for folder, length in [("one", 1), ("two", 1), ("three", 2)]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(
            "import torch\nfrom beside_net import Layer\n"
            "class Net(torch.nn.Module):\n    def forward(self, x): return Layer()(x)\n"
        )
        (tmp_path / folder / "beside_net.py").write_text(
            "import torch\nclass Layer(torch.nn.Module):\n"
            f"    def forward(self, x): return {length}\n"
        )
        net = load_reference(f"{tmp_path / folder / 'net.py'}:Net", what="model")
        assert "beside_net" not in sys.modules
        seen.append(code_digest([net]))
    assert seen[0] == seen[1] != seen[2]
    assert None not in seen


def test_every_attack_of_the_registry_is_known_by_its_class() -> None:
    for entry in ATTACKS.entries():
        if entry.origin == Entry.origin:
            assert registered_name(ATTACKS.load(entry.name)) == entry.name


def test_a_file_that_changed_after_its_import_is_what_was_imported_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process runs the code that it imported, whatever the file has become."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "changed_after_its_import"
    file = tmp_path / f"{name}.py"
    text = MINE.replace("from moves import move", "def move(x): return x")
    text = text.replace("from late import finish", "finish = abs")
    file.write_text(text)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
        before = code_digest([module.Mine])
        assert before is not None
        file.write_text(text.replace("return x", "return x + 100"))
        assert code_digest([module.Mine]) == before
        importlib.reload(module)
        after = code_digest([module.Mine])
        assert after not in (before, None)
        importlib.reload(module)
        file.write_text(text.replace("return x", "return x + 1000"))
        assert code_digest([module.Mine]) is None  # changed before it was looked at
    finally:
        sys.modules.pop(name, None)


CONSOLE = """
from dataclasses import dataclass
import torch
from gibbon.attacks.base import Attack
from gibbon.api.evaluate import evaluate

@dataclass(frozen=True)
class Typed(Attack):
    def propose(self, classifier, inputs, *, labels, threat, streams):
        yield inputs.sign().mul(SIGN * threat.radius).add(inputs).clamp(0, 1)

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
data = (torch.rand(20, 1, 4, 4), torch.arange(20) % 3)
done = evaluate(net, data, attack=Typed(), epsilon=0.1, output="out")
print(done.record.provenance.reused_cells, *done.record.flags)
"""


def test_an_attack_from_a_console_is_never_taken_from_an_earlier_run(tmp_path: Path) -> None:
    """Its class has no source; the unattacked cell is reused."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    texts = [CONSOLE.replace("SIGN", "1"), CONSOLE.replace("SIGN", "-1")]
    said = []
    for text in texts:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-"],
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            input=text,
            env=environment,
        )
        said.append(done.stdout)
    assert [each.split()[0] for each in said] == ["0", "1"]
    assert all("the code of the attack can't be read" in each for each in said)


@pytest.mark.slow
def test_an_attack_of_a_script_and_its_helpers_are_read(tmp_path: Path) -> None:
    (tmp_path / "go.py").write_text(
        textwrap.dedent(MINE)
        + "from gibbon.runner.plan.code_digest import code_digest\nprint(code_digest([Mine]))\n"
    )
    seen = []
    for length in (1, 1, 2):
        for file in ("moves.py", "late.py"):
            (tmp_path / file).write_text(FILES[file])
        (tmp_path / "stride.py").write_text(f"LENGTH = {length}\n")
        done = subprocess.run(
            [sys.executable, "go.py"],
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        seen.append(done.stdout)
    assert seen[0] == seen[1] != seen[2]
    assert re.fullmatch(r"[0-9a-f]{64}\n", seen[0])


def test_ours_go_by_name_version_and_parameters_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attack = PGD(steps=3)
    assert attack_part(attack) == ["pgd", 1, attack_part(attack)[2]]
    assert "pgd" not in str(attack_part(attack)[2]).lower()
    before = attack_part(attack)
    monkeypatch.setattr(PGD, "version", 2)
    assert attack_part(attack) != before


def test_what_gibbon_is_made_with_is_a_library_wherever_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on clusters whose packages are in a folder that is no site-packages.
    monkeypatch.setattr(code_digest_module, "INSTALLED", set())
    monkeypatch.setattr(code_digest_module, "STANDARD", (Path(os.__file__).parent / "json",))
    for library in (pydantic, torch, np):
        assert is_library(str(library.__file__))
    assert is_library(json.__file__)
    assert not is_library(pytest.__file__)
    assert not is_library(str(tmp_path / "mine.py"))


def test_a_subclass_of_ours_is_its_authors() -> None:
    class Quick(FGSM):
        """The same."""

    assert registered_name(FGSM) == "fgsm"
    assert registered_name(Quick) is None
    assert is_readable(Quick())
    assert attack_part(Quick())[:2] == [__name__, Quick.__qualname__]


def test_a_list_holds_the_parts_of_its_members() -> None:
    spec = AttackSpec(name="worst-of", epsilon=1, attacks=["fgsm", "noise-sign"])  # type: ignore[call-arg]
    assert attack_part(build_attack(spec))[3:] == [["fgsm", 1, {}], ["noise-sign", 1, {}]]


# Made at the commit before streams were named (301b0cd), with suite seed 0 and no parameters set.
FIRST_KEYS = {
    "fgsm": 9154729344849377941,
    "fgsm-naive": 8514830968987071519,
    "noise-uniform": 1555578813215141179,
    "noise-sign": 7699160938014680539,
    "pgd": 3648780004900180744,
    "pgd-l1": 418089578916229937,
    "bim": 7057627642535167826,
    "mi-fgsm": 1059085724514917651,
    "di-mi-fgsm": 4082283384249023380,
    "ti-mi-fgsm": 6621038325562773272,
    "vmi-fgsm": 8464459769058883788,
    "rotation": 5754137418301335005,
    "apgd-ce": 7371428148791235977,
    "apgd-dlr": 6402925533553272129,
    "apgd-t": 5493343530887417480,
    "lbfgs": 5852941843328649208,
    "deepfool": 6187325266867649463,
    "ddn": 6752752760207835821,
    "fmn": 1192252168848696148,
    "cw": 817738955008582987,
    "fab": 7809391368506652786,
    "fab-t": 5843444458206734966,
    "square": 7424804000232666981,
    "worst-of": 6726037717365456034,
    "autoattack": 6726037717365456034,
    "autoattack-l1": 6726037717365456034,
}


@pytest.mark.parametrize("name", FIRST_KEYS)
def test_random_streams_are_those_of_the_committed_records(name: str) -> None:
    more = {"attacks": ["fgsm"]} if name == "worst-of" else {}
    attack = build_attack(AttackSpec(name=name, epsilon=1, **more))  # type: ignore[arg-type]
    assert (
        derive_key(0, STREAMS_OF_A_LIST if attack.made_of else stream_text(attack))
        == FIRST_KEYS[name]
    )


@pytest.mark.parametrize("scheme", FIRST_ADAPTERS)
def test_streams_of_other_libraries_attacks_are_named_as_they_first_were(scheme: str) -> None:
    module = importlib.import_module(f"{adapters.__name__}.{scheme}")

    @dataclass(frozen=True)
    class LinfPGD(Attack):
        def propose(self, *_: object, **__: object) -> Iterator[Tensor]:
            raise NotImplementedError

    LinfPGD.__module__, LinfPGD.__qualname__ = module.__name__, "LinfPGD"
    assert registered_name(LinfPGD) == f"{scheme}:LinfPGD"
    # In two pieces, so that nobody's search and replace finds it.
    first = ".".join(["benchmark", f"attacks.adapters.{scheme}"])
    assert json.loads(stream_text(LinfPGD())) == [first, "LinfPGD", 1, {}]
