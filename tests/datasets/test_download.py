"""Downloads: bounded, whole or not at all, and honest about why they failed."""

import socket
import threading
import time
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from gibbon.core.errors import DatasetError
from gibbon.datasets.registered import download as module
from gibbon.datasets.registered.download import download_into

WORDS = {"keep": "data", "missing": "toy: not here", "remedy": "bring it yourself"}


def bring(folder: Path) -> None:
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "data" / "deep" / "one").write_text("new")
    (folder / "data" / "two").write_text("new")
    (folder / "archive").write_text("not wanted")


def test_only_what_is_wanted_arrives(tmp_path):
    folder = tmp_path / "not" / "there" / "yet"
    download_into(folder, bring, **WORDS)
    arrived = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert arrived == {"data/deep/one", "data/two"}


def test_what_was_there_is_replaced_or_stays(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "two").write_text("damaged")
    (tmp_path / "data" / "three").write_text("old")
    download_into(tmp_path, bring, **WORDS)
    assert (tmp_path / "data" / "two").read_text() == "new"
    assert (tmp_path / "data" / "three").read_text() == "old"


@pytest.mark.parametrize(
    "failure",
    [
        URLError(OSError(-2, "Name or service not known")),
        TimeoutError("timed out"),
        ConnectionRefusedError(111, "Connection refused"),
        IncompleteRead(b"half"),
        RuntimeError("File not found or\n corrupted."),
        ImportError("torchvision"),
        EOFError("Compressed file ended"),
    ],
)
def test_a_failure_says_what_was_missing_why_and_what_to_do(tmp_path, failure):
    def fail(folder: Path) -> None:
        bring(folder)
        raise failure

    with pytest.raises(DatasetError) as raised:
        download_into(tmp_path, fail, **WORDS)
    message = str(raised.value)
    reason = " ".join(str(failure).split())
    assert message == (
        f"toy: not here, and downloading it to {tmp_path} failed "
        f"({type(failure).__name__}: {reason}); bring it yourself"
    )
    assert raised.value.__cause__ is failure
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing_behind_and_goes_on(tmp_path):
    def interrupted(folder: Path) -> None:
        bring(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_into(tmp_path, interrupted, **WORDS)
    assert list(tmp_path.iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match=f"downloading it to {tmp_path}/file/data failed"):
        download_into(tmp_path / "file" / "data", bring, **WORDS)


@pytest.mark.parametrize("before", [None, 3.5])
def test_the_time_out_is_lent_and_put_back(tmp_path, before):
    seen = []

    def look(folder: Path) -> None:
        seen.append(socket.getdefaulttimeout())
        bring(folder)

    socket.setdefaulttimeout(before)
    try:
        download_into(tmp_path, look, **WORDS)
        assert socket.getdefaulttimeout() == before
    finally:
        socket.setdefaulttimeout(None)
    assert seen == [module.NETWORK_TIMEOUT_S]


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "NETWORK_TIMEOUT_S", 0.2)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        start = time.monotonic()
        with pytest.raises(DatasetError, match="timed out"):
            download_into(tmp_path, lambda _: urlopen(address), **WORDS)
        done.set()
    assert time.monotonic() - start < 5
