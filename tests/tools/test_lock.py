"""The locked file names the versions of ``constraints.txt``, with the hashes of the index."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tools.release import lock

WHEEL, SOURCE, CPU = "a_b-1.0-py3-none-any.whl", "a_b-1.0.tar.gz", "a_b-1.0+cpu-py3-none-any.whl"


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def page(*names: str) -> dict[str, Any]:
    return {"files": [{"filename": each, "hashes": {"sha256": digest(each)}} for each in names]}


def locked_versions(text: str) -> dict[str, Version]:
    lines = (line for line in text.splitlines() if line and not line.startswith(("#", " ")))
    return lock.versions("\n".join(re.split(r"[ ;\\]", line)[0] for line in lines))


def test_the_locked_file_names_the_versions_of_the_constraints() -> None:
    text = lock.LOCKED.read_text(encoding="utf-8")
    wanted = lock.versions(lock.CONSTRAINTS.read_text(encoding="utf-8"))
    assert locked_versions(text) == wanted, "run make lock"
    assert len(text) < 400_000


def test_each_package_of_it_has_hashes_and_some_have_markers() -> None:
    text = lock.LOCKED.read_text(encoding="utf-8").replace(" \\\n", "")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    markers = {}
    for line in lines:
        written, *hashes = line.split("    --hash=sha256:")
        assert hashes
        assert all(re.fullmatch(r"[0-9a-f]{64}", each) for each in hashes)
        requirement = Requirement(written)
        markers[requirement.name] = requirement.marker
    assert markers["setuptools"] is None  # the build backend
    assert str(markers["triton"]) == 'sys_platform == "linux"'
    assert str(markers["appnope"]) == 'sys_platform == "darwin"'


def test_hashes_are_those_of_every_file_of_the_version() -> None:
    found = page(WHEEL, SOURCE, "a_b-1.0.1.tar.gz", "a_b-1.0-old.exe", "a_b-2.0-py3-none-any.whl")
    wanted = {"a-b": Version("1.0")}
    text = lock.locked(wanted, {"a-b": [found]}, {})
    assert re.findall("[0-9a-f]{64}", text) == sorted(map(digest, (WHEEL, SOURCE)))
    both = lock.locked(wanted, {"a-b": [found, page(CPU)]}, {})
    assert re.findall("[0-9a-f]{64}", both) == sorted(map(digest, (WHEEL, SOURCE, CPU)))


@pytest.mark.parametrize(
    ("found", "systems", "sentence"),
    [
        (page(), {}, "no file of this version"),
        ({"files": [{"filename": WHEEL, "hashes": {"md5": "0"}}]}, {}, "no SHA-256"),
        (page(WHEEL), {"c": {"win32"}}, r"no exact version of c \(win32\)"),
    ],
)
def test_what_can_not_be_locked_is_named(found: Any, systems: Any, sentence: str) -> None:
    with pytest.raises(lock.LockError, match=sentence):
        lock.locked({"a-b": Version("1.0")}, {"a-b": [found]}, systems)


class Index(BaseHTTPRequestHandler):
    pages: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        name = self.path.strip("/").rpartition("/")[2]
        known = name in self.pages and self.headers["Accept"] == lock.JSON
        content = json.dumps(self.pages[name]).encode() if known else b"<html>"
        self.send_response(200 if known or name == "html" else 404)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002


@pytest.fixture
def index() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        server.shutdown()


def test_the_command_reads_an_index(
    index: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Index, "pages", {"a-b": page(WHEEL)})
    monkeypatch.setattr(lock, "CONSTRAINTS", tmp_path / "constraints.txt")
    monkeypatch.setattr(lock, "needed_in", dict)
    (tmp_path / "constraints.txt").write_text("A_b==1.0\n")
    words = ["--index", index, "--output", str(tmp_path / "locked.txt")]
    assert lock.main(words) == 0
    assert (
        f"A_b==1.0 \\\n    --hash=sha256:{digest(WHEEL)}" in (tmp_path / "locked.txt").read_text()
    )
    (tmp_path / "constraints.txt").write_text("html==1.0\n")
    assert lock.main(words) == 2
    assert "gives no page in JSON" in capsys.readouterr().err
    assert lock.main(["--index", "http://127.0.0.1:1/simple"]) == 2
