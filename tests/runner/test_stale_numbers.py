"""No number outlives the code, the data or the weights that it was made with.

An attack in a file is imported, changed in one way, and has another part in the digests of its
cells, or one that is never the same twice; a change of words or layout changes nothing.
"""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from gibbon import Attack, evaluate
from gibbon.attacks.apgd import APGDCE
from gibbon.attacks.fgsm import FGSM
from gibbon.attacks.pgd import PGD
from gibbon.attacks.toolkit import apgd_search
from gibbon.core.import_path import load_reference
from gibbon.runner.plan.attack_code import callable_code
from gibbon.runner.plan.cell_digest import attack_part, is_readable
from gibbon.runner.plan.model_code import model_code

MINE = '''
"""An attack."""
import enum
import functools
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Callable, ClassVar

import numpy as np
import torch
import helper_of_mine
import pack_of_mine.inner
from gibbon import Attack

STEP = 1.0
NUMPY = np.float32(1)
SETTINGS = SimpleNamespace(sign=1.0)
TABLE = {"sign": 1.0}
NET = torch.nn.Linear(2, 2)
LOSS = torch.nn.CrossEntropyLoss()


class Size(enum.Enum):
    BIG = 2


class Slotted:
    __slots__ = ("sign",)

    def __init__(self, sign):
        self.sign = sign

    def set_sign(self, sign):
        self.sign = sign


SLOTTED = Slotted(1.0)


def decorated(function):
    @functools.wraps(function)
    def around(*args, **keys):
        return function(*args, **keys)
    return around


def make_move(sign):
    def move(x):
        return x * sign
    return move


MOVE = make_move(1.0)
PARTIAL = functools.partial(make_move, 1.0)


@decorated
def step(x):
    """Steps."""
    return (
        x * STEP * NUMPY * SETTINGS.sign * TABLE["sign"] * SLOTTED.sign * Size.BIG.value
        if x is not None and STEP
        else None
    )


def with_attribute(x):
    return x * with_attribute.sign


with_attribute.sign = 1.0


@dataclass(frozen=True)
class Mine(Attack):
    """Moves."""

    act: Any = None
    hidden: Any = field(default=None, repr=False)
    SCALE: ClassVar[float] = 1.0

    def propose(self, classifier, inputs, *, labels, threat, streams):
        """Yields."""
        x = helper_of_mine.move(step(inputs)) * self.SCALE
        x = pack_of_mine.inner.deep(x) + LOSS(NET(x), labels)
        yield with_attribute(MOVE(PARTIAL()(x)))
'''
HELPER = "def move(x):\n    return x + SHIFT\nSHIFT = 1.0\n"
INNER = "SHIFT = 1.0\ndef deep(x):\n    return x + SHIFT\n"
NAMES = ("mine_of_mine", "helper_of_mine", "pack_of_mine", "pack_of_mine.inner")

Load = Callable[..., types.ModuleType]


def forget() -> None:
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Writes the files of an attack to a new folder, and imports it."""
    made: list[Path] = []

    def loaded(mine: str = MINE, helper: str = HELPER, inner: str = INNER) -> types.ModuleType:
        forget()
        folder = tmp_path / f"project{len(made)}"
        made.append(folder)
        (folder / "pack_of_mine").mkdir(parents=True)
        (folder / "mine_of_mine.py").write_text(mine)
        (folder / "helper_of_mine.py").write_text(helper)
        (folder / "pack_of_mine" / "__init__.py").write_text("")
        (folder / "pack_of_mine" / "inner.py").write_text(inner)
        importlib.invalidate_caches()
        torch.manual_seed(0)
        with monkeypatch.context() as patched:
            patched.syspath_prepend(str(folder))
            return importlib.import_module("mine_of_mine")

    yield loaded
    forget()


def part(module: types.ModuleType, **parameters: Any) -> str:
    return str(attack_part(module.Mine(**parameters)))


def patch_instance(module: types.ModuleType) -> Attack:
    attack = module.Mine()
    object.__setattr__(attack, "propose", module.MOVE)
    assert isinstance(attack, Attack)
    return attack


def set_in(place: str, name: str, value: object) -> Callable[[types.ModuleType], None]:
    def change(module: types.ModuleType) -> None:
        target: Any = module
        for each in place.split("."):
            target = getattr(target, each) if each else target
        setattr(target, name, value)

    return change


CHANGES: dict[str, Callable[[types.ModuleType], object]] = {
    "a global": set_in("", "STEP", -1.0),
    "a NumPy number": set_in("", "NUMPY", -1),
    "an entry of a table": lambda module: module.TABLE.update(sign=-1.0),
    "an attribute of an object of a library": set_in("SETTINGS", "sign", -1.0),
    "a slot of an object": set_in("SLOTTED", "sign", -1.0),
    "a slot, by a method": lambda module: module.SLOTTED.set_sign(-1.0),
    "a global of a helper": set_in("helper_of_mine", "SHIFT", -1.0),
    "a global of a module in a package": set_in("pack_of_mine.inner", "SHIFT", -1.0),
    "a function of a helper": lambda module: setattr(
        module.helper_of_mine, "move", module.make_move(3.0)
    ),
    "a function of the module": lambda module: setattr(module, "step", module.make_move(3.0)),
    "another closure": lambda module: setattr(module, "MOVE", module.make_move(-1.0)),
    "another partial": lambda module: setattr(
        module, "PARTIAL", functools.partial(module.make_move, -1.0)
    ),
    "a class attribute": set_in("Mine", "SCALE", -1.0),
    "a method of the class": lambda module: setattr(module.Mine, "propose", module.MOVE),
    "an attribute of a function": set_in("with_attribute", "sign", -1.0),
    "weights of a network that it uses": lambda module: module.NET.weight.data.neg_(),
    "settings of a loss that it uses": set_in("LOSS", "label_smoothing", 0.5),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_while_the_process_runs_counts(load: Load, name: str) -> None:
    before, again = part(load()), load()
    assert is_readable(again.Mine())
    assert part(again) == before
    CHANGES[name](again)
    assert part(again) != before


def test_a_method_that_is_set_on_an_attack_counts(load: Load) -> None:
    module = load()
    assert str(attack_part(patch_instance(module))) != part(module)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("STEP = 1.0", "STEP = -1.0"),
        ("BIG = 2", "BIG = 3"),
        ("return x * sign", "return x / sign"),
        ("return function(*args", "return -function(*args"),
        ("@decorated\n", ""),
        ("make_move, 1.0", "make_move, 2.0"),
    ],
)
def test_an_edit_of_code_counts(load: Load, old: str, new: str) -> None:
    assert old in MINE
    assert part(load(MINE.replace(old, new))) != part(load())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""An attack."""', ""),
        ("    SCALE: ClassVar", "    needs_gradient = False\n    SCALE: ClassVar"),
        ('"""Steps."""', '"""Steps on."""'),
        ("STEP = 1.0", "# a remark\nSTEP = (\n    1.0\n)"),
        (
            'x * STEP * NUMPY * SETTINGS.sign * TABLE["sign"] * SLOTTED.sign * Size.BIG.value\n'
            "        if x is not None and STEP\n        else None",
            'x * STEP * NUMPY * SETTINGS.sign * TABLE["sign"] * SLOTTED.sign * Size.BIG.value '
            "if x is not None and STEP else None",
        ),
    ],
)
def test_words_and_layout_change_nothing(load: Load, old: str, new: str) -> None:
    assert old in MINE
    assert part(load(MINE.replace(old, new))) == part(load())
    assert part(load(helper="# moves\n\n" + HELPER.replace("\n", "  # so\n", 1))) == part(load())


FIELDS: dict[str, tuple[Callable[[types.ModuleType], Any], Callable[[types.ModuleType], Any]]] = {
    "closures": (lambda module: module.make_move(1.0), lambda module: module.make_move(2.0)),
    "partials": (
        lambda module: functools.partial(module.make_move, 1.0),
        lambda module: functools.partial(module.make_move, 2.0),
    ),
    "methods": (
        lambda module: module.Slotted(1.0).set_sign,
        lambda module: module.Slotted(2.0).set_sign,
    ),
    "functions": (lambda module: module.step, lambda module: module.with_attribute),
    "classes": (lambda module: module.Slotted, lambda module: module.Size),
    "losses": (
        lambda _: nn.CrossEntropyLoss(),
        lambda _: nn.CrossEntropyLoss(label_smoothing=0.1),
    ),
    "functions in lists": (
        lambda module: [module.make_move(1.0)],
        lambda module: [module.make_move(2.0)],
    ),
}


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("parameter", ["act", "hidden"])
def test_callables_as_parameters_count(load: Load, name: str, parameter: str) -> None:
    one, other = FIELDS[name]
    module = load()
    if name == "methods":
        module.Slotted.__repr__ = lambda _: "Slotted()"  # else the address is refused
    first = part(module, **{parameter: one(module)})
    assert part(module, **{parameter: one(module)}) == first
    assert part(module, **{parameter: other(module)}) != first


def test_functions_without_a_file_are_never_the_same(load: Load) -> None:
    """As those of a console, a notebook or a text that was compiled."""
    module = load()
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def typed(x): return x\nlast = lambda x: x", space)  # noqa: S102
    for typed in (space["typed"], space["last"], functools.partial(space["typed"], 1)):
        assert not is_readable(module.Mine(act=typed))
        assert part(module, act=typed) != part(module, act=typed)
    module.step = space["typed"]
    assert part(module) != part(module)


def test_what_can_not_be_read_is_never_the_same(load: Load, tmp_path: Path) -> None:
    module = load()
    with (tmp_path / "open.txt").open("w") as file:
        module.MOVE = functools.partial(print, file=file)
        assert not is_readable(module.Mine())
        assert part(module) != part(module)


def test_a_file_that_changed_after_its_import_has_another_digest(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not Python stores bytecode, by which the change could be seen."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = load()
    changed = MINE.replace("return x * sign", "return x - sign")
    Path(str(module.__file__)).write_text(changed)
    running = part(module)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert part(load(changed)) != running


def test_a_replaced_part_of_one_of_ours_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def propose(self: Attack, *_: object, **__: object) -> Iterator[Tensor]:
        raise NotImplementedError

    plain = attack_part(PGD())
    assert plain == ["pgd", 1, plain[2]]
    with monkeypatch.context() as patched:
        patched.setattr(PGD, "propose", propose)
        assert attack_part(PGD()) != plain
        assert attack_part(FGSM()) == ["fgsm", 1, {}]
    own = PGD()
    object.__setattr__(own, "propose", functools.partial(propose, own))
    assert attack_part(own) != plain
    assert attack_part(PGD()) == plain


def test_a_replaced_function_or_constant_that_one_of_ours_uses_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    constant = next(
        name
        for name, value in sorted(vars(apgd_search).items())
        if name.isupper() and isinstance(value, float)
    )
    plain = attack_part(APGDCE())
    with monkeypatch.context() as patched:
        patched.setattr(apgd_search, constant, 0.123)
        assert attack_part(APGDCE()) != plain
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["gibbon.attacks.fgsm"], "clip_", lambda x, _: x, raising=False)
        patched.setattr(sys.modules["gibbon.attacks.base"], "clip_", lambda x, _: x)
        assert attack_part(FGSM()) != ["fgsm", 1, {}]
    assert attack_part(APGDCE()) == plain


BACKWARD = """
import functools

SIGN = 1.0

def scaled(x, sign=1.0):
    return x * sign * SIGN

class Stands:
    def __init__(self, sign): self.sign = sign
    def __call__(self, x): return x * self.sign

bound = functools.partial(scaled, sign=1.0)
stands = Stands(1.0)
closed = (lambda sign: lambda x: x * sign)(1.0)
"""


@pytest.mark.parametrize("name", ["scaled", "bound", "stands", "closed"])
def test_functions_for_a_backward_pass_count(tmp_path: Path, name: str) -> None:
    def code(text: str) -> str | None:
        (tmp_path / "stands.py").write_text(text)
        return callable_code(load_reference(f"{tmp_path / 'stands.py'}:{name}", what="backward"))

    before = code(BACKWARD)
    assert before is not None
    assert code(BACKWARD + "# a remark\n") == before
    assert code(BACKWARD.replace("1.0", "2.0")) not in (before, None)
    function = load_reference(f"{tmp_path / 'stands.py'}:{name}", what="backward")
    if name == "stands":
        now, function.sign = callable_code(function), 3.0
        assert callable_code(function) != now


NOTEBOOK = """
import torch
from dataclasses import dataclass
from gibbon import Attack, evaluate

def move(x, radius):
    return (x SIGN radius).clamp(0, 1)

@dataclass(frozen=True)
class Typed(Attack):
    def propose(self, classifier, inputs, *, labels, threat, streams):
        yield move(inputs, threat.radius)

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
data = (torch.rand(20, 1, 4, 4), torch.arange(20) % 3)
done = evaluate(net, data, attack=Typed(), epsilon=0.4, output="out", examination=False)
print(done.record.provenance.reused_cells, done.adversarial_error)
"""


def run(text: str, folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "ignore", *(arguments or ["-"])],
        check=True,
        capture_output=True,
        text=True,
        cwd=folder,
        input=text,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout


@pytest.mark.slow
def test_a_script_is_reused_until_its_code_or_an_argument_changes(tmp_path: Path) -> None:
    script = tmp_path / "go.py"

    def reused(text: str, *arguments: str) -> int:
        script.write_text(text)
        return int(run("", tmp_path, "go.py", *arguments).split()[0])

    text = NOTEBOOK.replace("SIGN radius", "+ SIGN * radius")
    text = "import sys\nSIGN = float(sys.argv[1])\n" + text
    assert reused(text, "1") == 0
    assert reused("# a remark\n" + text, "1") == 2
    assert reused(text, "-1") == 1  # the unattacked cell
    assert reused(text.replace("x + SIGN", "x - SIGN"), "1") == 1


@pytest.mark.slow
def test_a_cell_of_a_notebook_is_computed_again(tmp_path: Path) -> None:
    cells = f"source = {NOTEBOOK!r}\n" + (
        "import linecache\n"
        "for number, sign in enumerate('+-+'):\n"
        "    text = source.replace('SIGN', sign)\n"
        "    name = f'/tmp/ipykernel_1/{number}.py'\n"
        "    linecache.cache[name] = (len(text), None, text.splitlines(True), name)\n"
        "    exec(compile(text, name, 'exec'), globals())\n"
    )
    lines = [each.split() for each in run(cells, tmp_path).splitlines()]
    assert [each[0] for each in lines] == ["0", "1", "1"]
    assert lines[0][1] == lines[2][1] != lines[1][1]


class Transformed(Dataset[tuple[Tensor, int]]):
    """Pictures with a transform that can be exchanged."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pictures = torch.rand(12, 1, 4, 4, generator=generator)
        self.transform: Callable[[Tensor], Tensor] = lambda picture: picture

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pictures[index]), index % 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def test_weights_data_and_transforms_that_change_in_a_session_count(tmp_path: Path) -> None:
    net, data = network(), Transformed()

    def computed() -> int:
        done = evaluate(
            net, data, attack="fgsm", epsilon=0.1, output=tmp_path / "out", examination=False
        )
        return done.record.provenance.computed_cells

    assert (computed(), computed()) == (2, 0)
    with torch.no_grad():
        net[1].weight.neg_()  # type: ignore[union-attr,operator]
    assert (computed(), computed()) == (2, 0)
    data.transform = lambda picture: 1 - picture
    assert (computed(), computed()) == (2, 0)
    data.pictures[3] = 0.5
    assert (computed(), computed()) == (2, 0)


@dataclass
class Config:
    """Settings of a network, in an object of its own."""

    sign: float = 1.0
    KIND: ClassVar[str] = "config"
    more: dict[str, int] = field(default_factory=dict)


class Signed(nn.Module):
    """Answers through an object that it holds."""

    def __init__(self, held: object) -> None:
        super().__init__()
        self.held = held

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (types.SimpleNamespace(sign=1), types.SimpleNamespace(sign=2)),
        (Config(1.0), Config(2.0)),
        (list(range(1000)), [*range(999), 0]),
        ([nn.Linear(2, 2)], [nn.Linear(2, 2)]),
        ({"a": [functools.partial(pow, 2)]}, {"a": [functools.partial(pow, 3)]}),
        (Config(1.0).more.get, Config(1.0, {"a": 1}).more.get),
    ],
)
def test_objects_that_a_model_holds_count(one: object, other: object) -> None:
    assert model_code(Signed(one)) == model_code(Signed(one))
    assert model_code(Signed(one)) != model_code(Signed(other))


@pytest.mark.parametrize(
    ("one", "again", "other"),
    [
        (
            "return [each for each in x if each > 0 and each not in self.few]",
            "return [\n each\n for each in x\n if each > 0\n and each not in self.few\n]",
            "return [each for each in x if each > 0 or each not in self.few]",
        ),
        (
            "a, b = x, x; return a.where(a > b, b)",
            "a, b = (\n x,\n x,\n); return a.where(\n a\n > b,\n b,\n)",
            "a, b = x, x; return b.where(a > b, a)",
        ),
        (
            "a, b, c = x + 1, x + 2, x + 3; return a - b * c",
            "(\n a,\n b,\n c,\n) = (\n x + 1,\n x + 2,\n x + 3,\n); return a - b * c",
            "c, b, a = x + 1, x + 2, x + 3; return a - b * c",
        ),
        (
            "a, b = x + 1, x + 2; return a - b",
            "(\n a,\n b,\n) = (\n x + 1,\n x + 2,\n); return a - b",
            "b, a = x + 1, x + 2; return a - b",
        ),
        (
            "return sum(each for each in x if self.few is None or each in self.few)",
            "return sum(\n each\n for each in x\n if self.few is None\n or each in self.few\n)",
            "return sum(each for each in x if self.few is not None or each in self.few)",
        ),
    ],
)
def test_layout_leaves_the_code_of_a_model(one: str, again: str, other: str) -> None:
    """Which instructions there are depends on lines, from one version of Python to the next."""

    def code(body: str) -> str | None:
        space: dict[str, Any] = {"__name__": "__main__", "nn": nn}
        exec(f"class Net(nn.Module):\n    def forward(self, x):\n        {body}\n", space)  # noqa: S102
        return model_code(space["Net"]())

    assert code(one) == code(again)
    assert code(one) != code(other)
