"""Code that a user names is imported as it stands now, with what stands beside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gibbon.core.errors import RequestError
from gibbon.core.import_path import check_reference, importing, load_reference


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = list(sys.path)
    yield
    assert sys.path == before


def load(text: str) -> object:
    return load_reference(text, what="model")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_is_imported_once_and_anew_when_it_has_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "net.py", "class Net:\n    size = 1\n")
    status = path.stat()
    one = load(f"{path}:Net")
    assert load(f"{path}:Net") is one
    assert load(f"{path}:Net.size") == 1
    path.write_text("class Net:\n    size = 2\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # of the same length, too
    assert load(f"{path}:Net.size") == 2


def test_what_stands_beside_a_file_is_its_own(tmp_path: Path) -> None:
    for folder, value in (("old", 1), ("new", 2)):
        write(tmp_path / folder / "parts_beside.py", f"value = {value}\n")
        write(tmp_path / folder / "net.py", "import parts_beside\nvalue = parts_beside.value\n")
    assert load(f"{tmp_path}/old/net.py:value") == 1
    assert load(f"{tmp_path}/new/net.py:value") == 2
    assert load(f"{tmp_path}/old/net.py:value") == 1
    assert "parts_beside" not in sys.modules


def test_what_stands_beside_is_imported_anew_when_it_has_changed(tmp_path: Path) -> None:
    write(tmp_path / "parts_that_change.py", "value = 1\n")
    path = write(tmp_path / "net.py", "from parts_that_change import value\n")
    assert load(f"{path}:value") == 1
    write(tmp_path / "parts_that_change.py", "value = 2222\n")
    assert load(f"{path}:value") == 2222


def test_a_factory_can_import_when_it_is_called(tmp_path: Path) -> None:
    write(tmp_path / "parts_for_later.py", "value = 7\n")
    code = "def build():\n    from parts_for_later import value\n    return value\n"
    reference = f"{write(tmp_path / 'net.py', code)}:build"
    with importing(reference):
        build = load(reference)
        assert callable(build)
        assert build() == 7


def test_an_installed_package_stays_imported(tmp_path: Path) -> None:
    path = write(tmp_path / "net.py", "import colorsys\nvalue = colorsys\n")
    sys.modules.pop("colorsys", None)
    assert load(f"{path}:value") is sys.modules["colorsys"]


def test_a_module_of_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "package_here" / "nets.py", "class Net:\n    size = 3\n")
    monkeypatch.chdir(tmp_path)
    check_reference("package_here.nets:Net", what="model")
    assert load("package_here.nets:Net.size") == 3
    assert load("collections:OrderedDict") is __import__("collections").OrderedDict


@pytest.mark.parametrize(
    ("code", "reference", "fault"),
    [
        ("build = 1", "net.py:biuld", "net.py has no 'biuld'; did you mean 'build'?"),
        ("build = 1", "net.py", "name the factory in the file: net.py:NAME"),
        ("build = 1", "nte.py:build", "no file 'nte.py'; did you mean 'net.py'?"),
        ("build = 1", ".py:build", "no file"),
        ("build = (", "net.py:build", "can't be imported: SyntaxError"),
        ("import nosuchthing", "net.py:build", "No module named 'nosuchthing'"),
        ("1 / 0", "net.py:build", "can't be imported: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(4)", "net.py:build", "it ended the program, with exit code 4"),
        ("build = 1", "nosuchthing.net:build", "can't be imported: ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, reference: str, fault: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "net.py", code)
    with pytest.raises(RequestError) as told:
        load(reference)
    assert fault in str(told.value)
    assert str(told.value).startswith("model")


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("nte.py:build", "no file 'nte.py'; did you mean 'net.py'?"),
        ("net.py", "name the factory"),
        ("net.py:1x", "'1x' is not a name of Python"),
        ("folder.py:build", "'folder.py' is a folder"),
        ("nosuchthing.net:build", "no module 'nosuchthing', neither installed nor in this folder"),
    ],
)
def test_a_check_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, fault: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "net.py", "raise KeyError")
    (tmp_path / "folder.py").mkdir()
    check_reference("net.py:build", what="model")
    with pytest.raises(RequestError) as told:
        check_reference(reference, what="model")
    assert fault in str(told.value)


def test_a_file_of_a_package_names_its_module_as_the_cure(tmp_path: Path) -> None:
    write(tmp_path / "package/__init__.py", "")
    write(tmp_path / "package/parts.py", "value = 1\n")
    path = write(tmp_path / "package/net.py", "from .parts import value\n")
    with pytest.raises(RequestError, match=r"relative import.*named as its module: package\.net:N"):
        load(f"{path}:value")
