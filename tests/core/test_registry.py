"""Registries: names of our own and of installed packages, loaded late."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from gibbon.core import registry as registry_module
from gibbon.core.endings import ENDING
from gibbon.core.errors import RequestError, UnknownNameError
from gibbon.core.registry import Entry, Registry, first_line, lazily


class Documented:
    """A thing with a line.

    And more.
    """


ENTRY = Entry("ignored", "a line of its own", lambda: 42, details=lambda: "a card")


SHADES = {"teal": ENTRY, "azure": Documented}


def failing_load():
    raise AssertionError("loaded too early")


@pytest.fixture
def colours() -> Registry:
    found = Registry("colour", group="tests.colours")
    found.register(Entry("red", "a warm one", lambda: 1))
    found.register(Entry("blue", "a cold one", lambda: 2))
    return found


def plug_in(monkeypatch, **values: str) -> None:
    points = [EntryPoint(name, value, "tests.colours") for name, value in values.items()]
    monkeypatch.setattr(
        registry_module, "entry_points", lambda group: points if group == "tests.colours" else []
    )


def test_names_come_in_the_order_of_registration(colours):
    assert colours.names() == ["red", "blue"]
    assert [each.summary for each in colours.entries()] == ["a warm one", "a cold one"]
    assert colours.load("blue") == 2


def test_a_name_can_be_taken_once_only(colours):
    other = Entry("red", "another", lambda: 3, origin="somebody")
    with pytest.raises(RequestError, match="'red' is registered twice: by gibbon and by some"):
        colours.register(other)
    assert colours.load("red") == 1


def test_an_unknown_name_is_refused_with_the_place_and_the_nearest(colours):
    with pytest.raises(UnknownNameError, match=r"x: unknown colour 'bleu'; did you mean 'blue'"):
        colours.get("bleu", where="x")


def test_nothing_is_loaded_before_it_is_asked_for():
    late = Registry("colour", group="tests.none")
    late.register(Entry("red", "", failing_load))
    assert late.names() == ["red"]
    assert late.get("red").name == "red"


def test_lazily_imports_when_it_is_called_only():
    sys.modules.pop("colorsys", None)
    load = lazily("colorsys:rgb_to_hls")
    assert "colorsys" not in sys.modules
    assert load()(0.0, 0.0, 0.0) == (0.0, 0.0, 0.0)


def test_plug_ins_follow_our_own_in_the_order_of_their_names(colours, monkeypatch):
    here = Documented.__module__
    plug_in(monkeypatch, zinc=f"{here}:Documented", amber=f"{here}:ENTRY")
    assert colours.names() == ["red", "blue", "amber", "zinc"]


def test_a_plug_in_is_the_thing_itself_or_an_entry(colours, monkeypatch):
    here = Documented.__module__
    plug_in(monkeypatch, zinc=f"{here}:Documented", amber=f"{here}:ENTRY")
    thing, entry = colours.get("zinc"), colours.get("amber")
    assert (thing.summary, thing.load()) == ("A thing with a line", Documented)
    assert (entry.name, entry.summary, entry.load()) == ("amber", "a line of its own", 42)
    assert entry.details() == "a card"
    assert entry.origin == f"{here}:ENTRY"


def test_a_mapping_adds_all_that_it_names_among_the_other_plug_ins(colours, monkeypatch):
    here = Documented.__module__
    plug_in(monkeypatch, shades=f"{here}:SHADES", beige=f"{here}:Documented")
    assert colours.names() == ["red", "blue", "azure", "beige", "teal"]
    thing, entry = colours.get("azure"), colours.get("teal")
    assert (thing.summary, thing.load()) == ("A thing with a line", Documented)
    assert (entry.name, entry.summary, entry.load()) == ("teal", "a line of its own", 42)
    assert entry.origin == thing.origin == f"{here}:SHADES"


def test_a_name_in_a_mapping_and_of_another_entry_point_is_listed_as_taken_twice(
    colours, monkeypatch
):
    here = Documented.__module__
    plug_in(monkeypatch, shades=f"{here}:SHADES", teal=f"{here}:Documented")
    assert colours.names() == ["red", "blue", "azure", "teal"]
    assert "'teal' is registered twice" in colours.get("teal").summary
    assert colours.load("azure") is Documented
    with pytest.raises(RequestError, match="'teal' is registered twice"):
        colours.load("teal")


def test_a_plug_in_that_takes_our_name_blocks_that_name_alone(colours, monkeypatch):
    plug_in(monkeypatch, red=f"{Documented.__module__}:Documented")
    assert colours.load("blue") == 2
    assert colours.names() == ["red", "blue"]
    with pytest.raises(RequestError, match="'red' is registered twice: by gibbon and by"):
        colours.load("red")


@pytest.mark.parametrize("value", ["no.such.module:Thing", "colorsys:no_such_name"])
def test_a_broken_plug_in_is_told_only_when_it_is_asked_for(colours, monkeypatch, value):
    plug_in(monkeypatch, broken=value)
    assert colours.load("red") == 1
    assert "can't be imported" in colours.get("broken").summary
    with pytest.raises(RequestError, match=r"colour 'broken' of package .* can't be imported"):
        colours.load("broken")


def test_the_first_line_of_a_docstring_has_no_full_stop():
    assert first_line(Documented) == "A thing with a line"
    assert first_line(ENTRY.load) == "(no description)"


# Packages that are really installed: folders on the path with their metadata

EXITS = {
    "exit-0": "import sys; sys.exit(0)",
    "exit-text": "raise SystemExit('bye')",
    "exit-none": "raise SystemExit",
    "base-exception": "class Odd(BaseException): pass\nraise Odd('strange')",
    "keyboard-interrupt": "raise KeyboardInterrupt",
    "generator-exit": "raise GeneratorExit",
    "error": "raise ImportError('no luck')",
    "recursion": "def f(): f()\nf()",
    "not-python": "this is not python",
    "request-error": "from gibbon.core.errors import RequestError\nraise RequestError('mine')",
    "unspeakable": "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd",
    "hangs": "import time\nwhile True: time.sleep(0.01)",
    "odd-names": "THING = {'\\x1b[31m': 1, 7: 2}",
    "silent-things": "class Odd(dict):\n    def items(self): raise SystemExit(0)\nTHING = Odd()",
}


def install(folder: Path, name: str, code: str, points: str) -> None:
    """Puts a package on disk as pip does: a module, and a folder of metadata beside it."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(
        f"from pathlib import Path\nPath({str(folder / f'{module}.ran')!r}).touch()\n{code}\n"
    )
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(points)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("code", EXITS.values(), ids=EXITS)
def test_a_package_that_ends_or_raises_is_named_and_passed_over(colours, site, code, monkeypatch):
    monkeypatch.setattr(registry_module, "IMPORT_SECONDS", 0.5)
    install(site, "odd-one", code, "[tests.colours]\nodd = odd_one:THING\n")
    install(site, "good", "TEAL = 7", "[tests.colours]\nteal = good:TEAL\n")
    assert colours.load("red") == 1
    assert colours.load("teal") == 7
    assert not (site / "odd_one.ran").exists()
    listed = {each.name: each for each in colours.entries()}
    assert list(listed) == ["red", "blue", "odd", "teal"]
    assert (site / "odd_one.ran").exists()
    assert listed["odd"].summary.startswith("(can't be imported: ")
    assert listed["odd"].origin == "odd-one"
    with pytest.raises(RequestError):
        colours.load("odd")
    with pytest.raises(UnknownNameError, match="can't be imported may have registered it: odd-one"):
        colours.load("mauve")


def test_only_the_package_that_has_the_name_is_imported(colours, site):
    install(site, "one", "A = 1", "[tests.colours]\nrose = one:A\n")
    install(site, "two", "B = {'lime': 2}", "[tests.colours]\nshades = two:B\n")
    assert colours.load("rose") == 1
    assert "red" in colours
    assert "net.py:build" not in colours
    assert "folder/net.onnx" not in colours
    assert not (site / "two.ran").exists()
    assert "rose" in colours.near_names()
    assert not (site / "two.ran").exists()
    assert colours.load("lime") == 2


def test_two_packages_of_one_name_block_that_name_alone(colours, site):
    install(site, "one", "A = 1", "[tests.colours]\nrose = one:A\nred = one:A\n")
    install(site, "two", "B = 2", "[tests.colours]\nrose = two:B\nlime = two:B\n")
    assert (colours.load("blue"), colours.load("lime")) == (2, 2)
    for name, packages in (("rose", "one and by two|two and by one"), ("red", "gibbon and by one")):
        with pytest.raises(RequestError, match=f"{name!r} is registered twice: by ({packages})"):
            colours.load(name)
        assert "registered twice" in colours.get(name).summary
    assert colours.names() == ["red", "blue", "lime", "rose"]


def test_a_broken_package_with_our_name_does_not_take_it(colours, site):
    install(site, "odd-one", "import sys; sys.exit(0)", "[tests.colours]\nred = odd_one:THING\n")
    assert colours.load("red") == 1


@pytest.mark.parametrize("damage", ["[tests.colours]\nrose\n", "[tests.colours\n", "\0\0", ""])
def test_damaged_metadata_of_one_package_hides_no_other(colours, site, damage):
    install(site, "odd-one", "A = 1", damage)
    (site / "odd_one-1.0.dist-info" / "METADATA").unlink()
    install(site, "good", "TEAL = 7", "[tests.colours]\nteal = good:TEAL\n")
    assert colours.load("teal") == 7
    assert "blue" in colours.names()


def test_the_import_of_a_package_changes_no_global_state(colours, site):
    code = (
        "import os, torch\ntorch.set_default_dtype(torch.float64)\nos.chdir('/')\nTHING = 1\n"
        "torch.Tensor.argmax = None"
    )
    install(site, "stateful", code, "[tests.colours]\nlime = stateful:THING\n")
    before = os.getcwd(), torch.Tensor.argmax  # noqa: PTH109
    assert colours.load("lime") == 1
    assert torch.get_default_dtype() is torch.float32
    assert (os.getcwd(), torch.Tensor.argmax) == before  # noqa: PTH109


def test_a_slow_import_below_the_limit_is_waited_for(colours, site):
    code = "import time\ntime.sleep(0.1)\nTHING = 3"
    install(site, "slow", code, "[tests.colours]\nslow = slow:THING\n")
    assert colours.load("slow") == 3
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_ctrl_c_raises_is_an_error_of_the_package_if_nobody_pressed_it(colours, site):
    install(site, "odd", EXITS["keyboard-interrupt"], "[tests.colours]\nodd = odd:THING\n")
    handler = signal.signal(signal.SIGINT, ENDING.interrupt)  # that of the command line
    try:
        with pytest.raises(RequestError, match="it raised KeyboardInterrupt"):
            colours.load("odd")
    finally:
        signal.signal(signal.SIGINT, handler)


def test_ctrl_c_while_a_package_is_imported_interrupts(colours, site):
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nTHING = 1"
    install(site, "slow", code, "[tests.colours]\nslow = slow:THING\n")
    with pytest.raises(KeyboardInterrupt):
        colours.load("slow")


PLUG_INS = """\
[gibbon.models]
odd = odd_one:THING
[gibbon.attacks]
odd = odd_one:THING
[gibbon.datasets]
odd = odd_one:THING
[gibbon.model_sources]
odd = odd_one:THING
[gibbon.attack_sources]
odd = odd_one:THING
[gibbon.trainers]
odd = odd_one:THING
"""
EVALUATE = "evaluate --model softmax --dataset mnist --attack fgsm --epsilon 0.1 --limit 8"


def command(folder: Path, words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "gibbon", *words.split()],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_no_command_is_silenced_by_an_installed_package(tmp_path):
    install(tmp_path, "odd-one", EXITS["exit-0"], PLUG_INS)
    ran = tmp_path / "odd_one.ran"
    done = command(tmp_path, EVALUATE)
    assert done.returncode == 0, done.stderr
    assert "Adversarial" in done.stdout
    assert not ran.exists()
    for kind in ("models", "attacks"):
        listed = command(tmp_path, f"list {kind}")
        assert listed.returncode == 0, listed.stderr
        assert "(can't be imported: SystemExit: 0)" in listed.stdout.replace("\n", " ")
        assert "[odd-one]" in listed.stdout
    asked = command(tmp_path, EVALUATE.replace("softmax", "odd"))
    assert asked.returncode == 2
    assert "it ended the program, with exit code 0" in asked.stderr
    assert "Traceback" not in asked.stderr
