"""Stores: which place is which, and what a remote one refuses."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gibbon.core.errors import MissingLibraryError, RunFolderError, SpecError
from gibbon.core.files import remove_file, remove_folder, write_atomically
from gibbon.records.stores import LocalStore, is_url, open_store, remote_files


def test_paths_and_file_urls_are_local(tmp_path: Path) -> None:
    assert open_store("results/x") == LocalStore(Path("results/x"))
    assert open_store(tmp_path) == LocalStore(tmp_path)
    assert open_store(f"file://{tmp_path}/a%20b") == LocalStore(tmp_path / "a b")
    assert not is_url("C:/runs")
    assert not is_url("a:b")


def test_a_local_store_imports_no_fsspec(tmp_path: Path) -> None:
    code = (
        "import sys; from gibbon.records.stores import open_store\n"
        "with open_store(sys.argv[1]).writing() as folder: print(folder)\n"
        "assert 'fsspec' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


@pytest.mark.parametrize(
    "place",
    [
        "",
        " ",
        "file://",
        "file://elsewhere/a",
        "s4://a/b",
        "memory://",
        "http://[",
        "memory://\x1b[1m",
    ],
)
def test_places_that_name_nothing_are_refused(place: str) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(SpecError):
        open_store(place)


def test_an_unknown_kind_has_the_nearest_name() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(SpecError, match="knows no store 'memry'; did you mean 'memory'"):
        open_store("memry://a/b")


def test_without_its_library_a_store_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *args: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] in ("fsspec", "s3fs"):
            raise ImportError(f"No module named {name!r}")
        return found(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingLibraryError, match=r"pip install 'gibbon-bench\[remote\]'"):
        open_store("s3://bucket/run")


@pytest.mark.parametrize("name", ["../outside", "a/../../b", "a\\b", "a//b", "star*", "./a"])
def test_objects_with_names_of_no_local_file_are_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setattr(remote_files.RemoteFiles, "names", lambda self: ["run.json", name])
    refused = pytest.raises(RunFolderError, match="memory://a/b: holds an object of the name")
    with refused, open_store("memory://a/b").reading():
        pass


def test_a_working_copy_follows_what_is_written_and_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = pytest.importorskip("fsspec").filesystem("memory")
    system.store.clear()
    monkeypatch.setattr(remote_files, "WAITS", ())
    with open_store("memory://a/copy").writing() as folder:
        (folder / "outcomes").mkdir(parents=True)
        (folder / "kinds").mkdir()
        write_atomically(folder / "outcomes" / "1.parquet", b"one")
        write_atomically(folder / "outcomes" / "2.parquet", b"two")
        write_atomically(folder / "kinds" / "3.json", b"three")
        assert system.cat("/a/copy/outcomes/1.parquet") == b"one"
        remove_file(folder / "outcomes" / "1.parquet")
        assert not system.exists("/a/copy/outcomes/1.parquet")
        remove_folder(folder / "kinds")
        assert not system.exists("/a/copy/kinds/3.json")
        (folder / "plain.txt").write_text("late")
        assert not system.exists("/a/copy/plain.txt")
    assert system.cat("/a/copy/plain.txt") == b"late"
    with open_store("memory://a/copy").writing() as folder:
        assert (folder / "outcomes" / "2.parquet").read_bytes() == b"two"
        (folder / "plain.txt").unlink()
    assert system.find("/a/copy") == ["/a/copy/outcomes/2.parquet"]
    system.store.clear()
