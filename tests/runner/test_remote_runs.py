"""Runs in remote stores: in fsspec's memory, and in an S3 server that is stopped in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import remote_run
from s3_server import S3Server
from same_outcomes import assert_same_records
from typer.testing import CliRunner

from gibbon.api.evaluate import evaluate
from gibbon.cli import app as cli
from gibbon.core.errors import RunFolderError
from gibbon.core.files import write_atomically
from gibbon.records.run import RunRecord
from gibbon.records.stores import lease, open_store, remote_files
from gibbon.records.stores.lease import LEASE_FILE, Lease
from gibbon.records.stores.remote_files import RemoteFiles
from gibbon.records.stores.store import say_nothing

fsspec = pytest.importorskip("fsspec")

ROOM = "memory://room"


class Stopped(BaseException):
    """Stands for a kill: no handler saves anything."""


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    remote_run.plant(monkeypatch)
    monkeypatch.setattr(remote_files, "WAITS", ())


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture(scope="module")
def calm() -> RunRecord:
    with pytest.MonkeyPatch.context() as patch:
        remote_run.plant(patch)
        return remote_run.run_at("memory://calm/run")


def names(system: Any, root: str) -> set[str]:
    system.invalidate_cache()
    before = system._strip_protocol(root)
    return {each.removeprefix(f"{before}/") for each in system.find(before)}


def read(url: str) -> RunRecord:
    with open_store(url).reading() as folder:
        return RunRecord.read(folder)


def test_commands_read_and_write_runs_of_a_store(memory: Any, tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'name = "remote"\ndataset = "squares"\nmodels = ["one"]\n'
        '[[attacks]]\nname = "fgsm"\nepsilon = "0.1"\n'
    )

    def call(*words: str) -> str:
        result = CliRunner().invoke(cli.app, [*words], catch_exceptions=False)
        assert result.exit_code in (0, 1), result.output
        return result.output

    for index in (1, 2):
        call("run", str(suite), "--shard", f"{index}/2", "--output", f"{ROOM}/{index}")
    said = call("merge", f"{ROOM}/1", f"{ROOM}/2", "--output", f"{ROOM}/run")
    assert f"{ROOM}/run/tables.md" in " ".join(said.split())
    there = names(memory, f"{ROOM}/run")
    assert {"run.json", "evaluations.csv", "tables.md", "tensorboard/.written.json"} <= there
    assert any(each.startswith("outcomes/") for each in there)
    assert any("events" in each for each in there)
    assert not {LEASE_FILE, ".gibbon.lock"} & there
    local = tmp_path / "local"
    call("run", str(suite), "--output", f"file://{local}")
    assert {path.relative_to(local).as_posix() for path in local.rglob("*")} >= there - {
        each for each in there if "events" in each or "shard" in each
    }
    assert f"{ROOM}/run/report.html" in call("report", f"{ROOM}/run")
    assert b"<html" in memory.cat("/room/run/report.html")
    call("report", f"{ROOM}/run", "--markdown", "--output", f"{ROOM}/out.md")
    assert b"fgsm" in memory.cat("/room/out.md")
    call("baseline", "save", f"{ROOM}/run", f"{ROOM}/base.json")
    memory.pipe_file("/room/base.toml", b"max_increase = 2.5\n")
    assert "2.5" in call("compare", f"{ROOM}/base.json", f"{ROOM}/run")
    call("compare", f"{ROOM}/run", str(local))
    assert "audit" not in call("audit", f"{ROOM}/run")[:5]
    assert "1 cells reused" not in call("run", str(suite), "--output", f"{ROOM}/run")
    assert read(f"{ROOM}/run").provenance.computed_cells == 0


def test_evaluate_takes_a_url(memory: Any) -> None:
    results = evaluate(
        "one", "squares", attack="fgsm", epsilon=0.1, output=f"{ROOM}/api", progress=False
    )
    assert read(f"{ROOM}/api").evaluations == results.record.evaluations


@pytest.mark.parametrize("moment", [1, 2, 4, 6, 9])
def test_a_run_that_is_stopped_at_any_write_loses_nothing(
    memory: Any, calm: RunRecord, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    url = f"{ROOM}/stopped"
    with monkeypatch.context() as patch:
        remote_run.dying_at(patch, moment, Stopped())
        with pytest.raises(Stopped):
            remote_run.run_at(url)
    outcomes = {each for each in names(memory, url) if each.startswith("outcomes/")}
    before = {each: memory.cat(f"/room/stopped/{each}") for each in outcomes}
    assert_same_records(remote_run.run_at(url), calm)
    for name in outcomes:
        if "partial" not in name:
            assert memory.cat(f"/room/stopped/{name}") == before[name]


def test_outcomes_of_processes_of_their_own_are_stored(memory: Any, calm: RunRecord) -> None:
    record = remote_run.run_at(f"{ROOM}/isolated", isolate=True)
    digests = {row.digest for row in record.evaluations}
    assert {f"outcomes/{each}.parquet" for each in digests} <= names(memory, f"{ROOM}/isolated")
    assert digests == {row.digest for row in calm.evaluations}


# One run at a time


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWED", 0.05)
    monkeypatch.setattr(lease, "SILENCE", 0.5)


def files(system: Any) -> RemoteFiles:
    return RemoteFiles(system, "/room/held", f"{ROOM}/held", note=say_nothing)


@pytest.mark.usefixtures("quick")
def test_a_folder_in_use_is_refused(memory: Any) -> None:
    refused = pytest.raises(RunFolderError, match=r"held: another run .* is using this folder")
    with Lease(files(memory), note=say_nothing).held(), refused:
        remote_run.run_at(f"{ROOM}/held")
    assert not names(memory, f"{ROOM}/held")
    with Lease(files(memory), note=say_nothing).held():
        pass


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("owner", [{"machine": "elsewhere", "process": 1, "token": "a"}, {}, [], 7])
def test_a_silent_lease_is_taken_over(memory: Any, owner: object) -> None:
    memory.pipe_file(f"/room/held/{LEASE_FILE}", json.dumps(owner).encode())
    said: list[str] = []
    with Lease(files(memory), note=said.append).held() as held:
        held.check()
    assert "whether another run" in said[0]


@pytest.mark.usefixtures("quick")
def test_the_lease_of_a_process_that_is_gone_is_taken_over_at_once(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SILENCE", 1e6)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    if not lease._start_of_machine():
        pytest.skip("needs a machine that says when it was started")
    owner = {
        "machine": lease.platform.node(),
        "started": lease._start_of_machine(),
        "process": ended.pid,
    }
    memory.pipe_file(f"/room/held/{LEASE_FILE}", json.dumps(owner).encode())
    with Lease(files(memory), note=say_nothing).held():
        pass


@pytest.mark.usefixtures("quick")
def test_a_run_that_was_taken_for_dead_writes_nothing_more(memory: Any) -> None:
    other = json.dumps({"machine": "elsewhere", "process": 5, "token": "b"}).encode()

    def write() -> None:
        until = time.monotonic() + 20
        with open_store(f"{ROOM}/held").writing() as folder:
            folder.mkdir()
            memory.pipe_file(f"/room/held/{LEASE_FILE}", other)
            while time.monotonic() < until:
                write_atomically(folder / "tables.md", "x")
                time.sleep(0.02)

    with pytest.raises(RunFolderError, match=r"process 5 .* has taken this folder over"):
        write()
    assert memory.cat(f"/room/held/{LEASE_FILE}") == other


# S3

BUCKET = "gibbon-test"


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    started = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    with _bucket_at(f"http://{host}:{port}"):
        started._ip_address, started._port = host, port
        yield started
    started.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[S3Server]:
    """A server that is a process, to be killed."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    server = S3Server(tmp_path)
    server.start()
    try:
        with _bucket_at(server.url):
            yield server
    finally:
        server.kill()


@contextmanager
def _bucket_at(url: str) -> Iterator[None]:
    kind = fsspec.get_filesystem_class("s3")
    kind.clear_instance_cache()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir(BUCKET)
        yield
    kind.clear_instance_cache()


@pytest.mark.parametrize("moment", [5, pytest.param(3, marks=pytest.mark.slow)])
def test_a_killed_run_in_s3_continues(server: Any, calm: RunRecord, moment: int) -> None:
    url = f"s3://{BUCKET}/killed-{moment}"
    script = Path(__file__).with_name("remote_run.py")
    paths = [str(script.parent.parent), str(script.parent), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [sys.executable, str(script), url, str(moment)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == -9, run.stderr.decode()
    system = fsspec.filesystem("s3")
    there = names(system, url)
    assert LEASE_FILE in there
    whole = {each for each in there if each.startswith("outcomes/") and "partial" not in each}
    before = {each: system.cat(f"{url}/{each}") for each in whole}
    record = remote_run.run_at(url)
    assert_same_records(record, calm)
    assert record.provenance.reused_cells == len(whole)
    for each, content in before.items():
        assert system.cat(f"{url}/{each}") == content
    assert LEASE_FILE not in names(system, url)


def test_a_server_that_stops_fails_the_run_which_continues_later(
    server: Any, calm: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{BUCKET}/stopped"
    stopped = _stopping_at(monkeypatch, server, 5)
    with pytest.raises(RunFolderError, match=rf"{url}/\S+: can't be written: "):
        remote_run.run_at(url)
    assert stopped
    server.start()
    assert_same_records(remote_run.run_at(url), calm)


def test_a_server_that_comes_back_is_waited_for(
    server: Any, calm: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "WAITS", (1.0,) * 30)
    stopped = _stopping_at(monkeypatch, server, 5, back=True)
    assert_same_records(remote_run.run_at(f"s3://{BUCKET}/waited"), calm)
    assert stopped


def _stopping_at(
    patch: pytest.MonkeyPatch, server: Any, moment: int, *, back: bool = False
) -> list[int]:
    """Stops the server before the n-th write of a file; with ``back`` it comes back."""
    write, seen, stopped = RemoteFiles.write, [0], list[int]()

    def write_or_stop(files: RemoteFiles, name: str, content: bytes) -> None:
        seen[0] += "lease" not in name
        if seen[0] == moment and not stopped:
            stopped.append(moment)
            server.stop()
            if back:
                threading.Timer(2.0, server.start).start()
        write(files, name, content)

    patch.setattr(RemoteFiles, "write", write_or_stop)
    return stopped


@pytest.mark.slow
@pytest.mark.parametrize("moment", [1, 4, 7])
def test_a_run_whose_server_is_killed_continues_with_a_new_one(
    own_server: S3Server, calm: RunRecord, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """The store is gone in the middle of a write; all that it had confirmed is used later."""
    url, confirmed = f"s3://{BUCKET}/run", dict[str, bytes]()
    with monkeypatch.context() as patch:
        _killing_at(patch, own_server, moment, confirmed)
        with pytest.raises(RunFolderError, match=rf"{url}\S*: can't be (written|read|removed): "):
            remote_run.run_at(url)
    assert own_server.kills == 1
    own_server.start()
    system = fsspec.filesystem("s3")
    there = names(system, url)
    outcomes = {each for each in confirmed if each.startswith("outcomes/") and each in there}
    for each in outcomes:
        assert system.cat(f"{url}/{each}") == confirmed[each]
    record = remote_run.run_at(url)
    assert_same_records(record, calm)
    assert record.provenance.reused_cells >= len(
        {each for each in outcomes if "partial" not in each}
    )
    for each in outcomes:
        if "partial" not in each:
            assert system.cat(f"{url}/{each}") == confirmed[each]
    assert LEASE_FILE not in names(system, url)
    assert remote_run.run_at(url).provenance.computed_cells == 0


@pytest.mark.slow
@pytest.mark.parametrize("moment", [2, 5])
def test_a_run_waits_for_a_server_that_is_killed_and_started_again(
    own_server: S3Server, calm: RunRecord, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    url = f"s3://{BUCKET}/run"
    with monkeypatch.context() as patch:
        patch.setattr(remote_files, "WAITS", (1.0,) * 120)
        _killing_at(patch, own_server, moment, {}, back=True)
        record = remote_run.run_at(url)
    assert own_server.kills == 1
    assert_same_records(record, calm)
    assert_same_records(read(url), calm)


def _killing_at(
    patch: pytest.MonkeyPatch,
    server: S3Server,
    moment: int,
    confirmed: dict[str, bytes],
    *,
    back: bool = False,
) -> None:
    """Kills the server while it works on the n-th write of a file; with ``back`` it comes back.

    ``confirmed`` gets what the server has said to have written.
    """
    write, seen = RemoteFiles.write, [0]

    def kill() -> None:
        server.kill()
        if back:
            time.sleep(1)
            server.start()

    def write_and_note(files: RemoteFiles, name: str, content: bytes) -> None:
        seen[0] += "lease" not in name
        if seen[0] == moment and server.kills == 0 and not killing.is_alive():
            killing.start()
        write(files, name, content)
        confirmed[name] = content
        if seen[0] == moment and server.kills == 0 and not back:
            killing.join()  # it was too late for this write

    killing = threading.Thread(target=kill)
    patch.setattr(RemoteFiles, "write", write_and_note)
