"""How runs end: by signals, exceptions that are no `Exception`, and names that lead elsewhere."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import planted
import pytest
import torch
from pydantic.dataclasses import dataclass as checked
from torch import Tensor, nn
from typer.testing import CliRunner

from gibbon.api.evaluate import evaluate
from gibbon.attacks.base import STRICT
from gibbon.cli import app as cli
from gibbon.cli import arguments
from gibbon.cli.grammar import parse_request
from gibbon.core.endings import ENDING, Terminated
from gibbon.core.errors import RequestError, RunFolderError, SpecError
from gibbon.core.files import write_atomically
from gibbon.core.import_path import load_reference
from gibbon.core.threat import ThreatModel
from gibbon.gate.compare import compare
from gibbon.models.sources.build import build_model
from gibbon.models.sources.checkpoint import PickledModule
from gibbon.records.run import RunRecord
from gibbon.records.stores import LocalStore
from gibbon.report.documents import run_folder
from gibbon.runner.run_folder import CANDIDATES, LOCK_FILE, RunFolder
from gibbon.specs.decoding import read_suite
from gibbon.specs.suite import ModelSpec, Suite
from gibbon_zoo.__main__ import main as zoo_command

Run, MakeSuite = planted.Run, Callable[..., Suite]


class Stopped(BaseException):
    pass


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


class InterruptingError(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


RAISED: tuple[BaseException, ...] = (
    Stopped("planted"),
    BaseException("planted"),
    GeneratorExit("planted"),
    SystemExit("planted"),
    asyncio.CancelledError("planted"),
    StopIteration("planted"),
    UnspeakableError(),
    InterruptingError(),
    ValueError("planted \udce9 and \0"),
    BaseExceptionGroup("planted", [Stopped()]),
)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Restores the handlers of signals, and forgets a signal that came."""
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    before = {each: signal.getsignal(each) for each in numbers if each is not None}
    yield
    ENDING.reason = None
    for number, handler in before.items():
        signal.signal(number, handler)


@checked(frozen=True, kw_only=True, config=STRICT)
class Ends(planted._Planted):
    error: ClassVar[BaseException] = Stopped()

    def change(self, inputs: Tensor, threat: ThreatModel) -> Tensor:
        raise type(self).error


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_no_exception_of_an_attack_ends_the_run(
    plant: planted.Plant,
    run: Run,
    suite: MakeSuite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    signal.signal(signal.SIGINT, ENDING.interrupt)  # as the command line does
    monkeypatch.setattr(Ends, "error", error)
    plant.attack("ends", Ends)
    record = run(suite("ends", "fgsm"))
    assert {row.attack: row.status for row in record.evaluations} == {
        "none": "done",
        "ends": "failed",
        "fgsm": "done",
    }
    (failure,) = record.failures
    assert failure.attack == "ends"
    assert "attack Ends" in failure.raised_by
    assert RunRecord.read(tmp_path / "run").failures == record.failures


@checked(frozen=True, kw_only=True, config=STRICT)
class HangsUp(planted._Planted):
    """Sends a signal to its process at the third batch, twice."""

    number: ClassVar[int] = 0
    calls: ClassVar[int] = 0

    def change(self, inputs: Tensor, threat: ThreatModel) -> Tensor:
        HangsUp.calls += 1
        if HangsUp.calls == 3:
            os.kill(os.getpid(), HangsUp.number)
        return inputs


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_saves_what_is_done(
    plant: planted.Plant,
    run: Run,
    suite: MakeSuite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"this system has no {name}")
    plant.attack("hangs-up", HangsUp)
    monkeypatch.setattr(HangsUp, "number", number)
    monkeypatch.setattr(HangsUp, "calls", 0)
    monkeypatch.setattr(cli, "app", lambda: run(suite("hangs-up"), batch_size=20))
    before = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        signal.signal(number, before)
    assert ended.value.code == 128 + number
    assert list((tmp_path / "run" / "outcomes").glob("*.partial.parquet"))
    record = run(suite("hangs-up"), batch_size=20)
    assert record.status == "done"
    assert HangsUp.calls == 4  # two batches were saved, and one is computed


def test_nohup_is_respected() -> None:
    if not hasattr(signal, "SIGHUP"):
        pytest.skip("this system has no SIGHUP")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    cli._save_at_signals()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    os.kill(os.getpid(), signal.SIGHUP)
    with pytest.raises(Terminated):
        os.kill(os.getpid(), signal.SIGTERM)


def test_temporary_files_follow_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    (tmp_path / ".file.tmp").symlink_to(victim)
    write_atomically(tmp_path / "file", "ours")
    assert victim.read_text() == "theirs"
    assert (tmp_path / "file").read_text() == "ours"
    assert not (tmp_path / "file").is_symlink()
    (tmp_path / "file").unlink()
    (tmp_path / "file").symlink_to(victim)
    write_atomically(tmp_path / "file", "ours")
    assert victim.read_text() == "theirs"


@pytest.mark.parametrize("name", ["outcomes", "pictures", CANDIDATES, "examinations"])
def test_a_link_in_the_place_of_a_folder_is_not_followed(
    run: Run, suite: MakeSuite, tmp_path: Path, name: str
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    with RunFolder.open(tmp_path / "run", suite="planted"):
        pass
    more: dict[str, Any] = {"pictures": True, "examination": True, "models_in_memory": 1}
    asked = suite("fgsm", models=("one", "two"), transfer=("fgsm",))
    if name == "outcomes":  # with no record yet, the folder would be somebody else's
        run(asked)
        shutil.rmtree(tmp_path / "run" / name)
    (tmp_path / "run" / name).symlink_to(theirs)
    if name == CANDIDATES:
        run(asked, **more)
    else:
        with pytest.raises(RunFolderError, match="a link has the name of its folder"):
            run(asked, **more)
    assert not list(theirs.iterdir())


def test_a_lock_that_is_a_link_is_refused(run: Run, suite: MakeSuite, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK_FILE).symlink_to(victim)
    with pytest.raises(RunFolderError, match="is a link"):
        run(suite("fgsm"))
    assert victim.read_text() == "theirs"


@pytest.mark.parametrize("empty", ["", " "])
@pytest.mark.parametrize(
    "words",
    [
        ["run", "mnist-linf", "--output"],
        ["run", "mnist-linf", "--data-dir"],
        ["evaluate", "--model", "rbf", "--dataset", "mnist", "--attack", "fgsm", "--output"],
        ["train", "rbf", "--output"],
        ["train", "rbf", "--recipe"],
        ["report", "a-run", "--output"],
        ["report", "a-run", "--figures"],
        ["report"],
        ["audit"],
        ["audit", "a-run", "--suggest"],
        ["compare", "a", "b", "--junit"],
        ["compare", "a", "b", "--markdown"],
        ["compare", "a", "b", "--limits"],
        ["compare", "a"],
        ["baseline", "save", "a"],
    ],
    ids=" ".join,
)
def test_an_empty_path_is_refused(words: list[str], empty: str) -> None:
    done = CliRunner().invoke(cli.app, [*words, empty])
    refused = isinstance(done.exception, RunFolderError | SpecError)
    assert refused or done.exit_code == 2, done.output
    said = str(done.exception) + done.output
    assert "got ''" in said or "got ' '" in said or "needs a value" in said, said


def test_a_tilde_is_the_home_folder_in_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell leaves it as it is in ``--output=~/runs``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert arguments.path("~/runs") == tmp_path / "runs"
    request = parse_request(
        [
            *("--model", "rbf", "--dataset", "mnist", "--attack", "fgsm", "--epsilon", "0.1"),
            *("--output=~/runs", "--data-dir=~/data", "--save-suite=~/suite.toml"),
        ]
    )
    assert request.output == LocalStore(tmp_path / "runs")
    assert request.save_suite == tmp_path / "suite.toml"
    assert request.settings.data_folder == tmp_path / "data"
    for word in ("--output=~nosuchuser/x", "--data-dir=~nosuchuser/x"):
        with pytest.raises(SpecError, match="nosuchuser"):
            parse_request(["--model", "rbf", "--dataset", "mnist", "--attack", "fgsm", word])
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {"examination": False, "output": "~/in-python"}
    evaluate(planted.Rows(), planted.squares(), attack="fgsm", epsilon=0.1, **known)
    assert (tmp_path / "in-python" / "run.json").exists()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("home", ["~", "~nosuchuser"])
def test_a_tilde_means_one_thing_wherever_a_path_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Linear):\n    def __init__(self):\n"
        "        super().__init__(4, 3)\n"
    )
    torch.save(nn.Linear(4, 3), tmp_path / "whole.pt")
    (tmp_path / "suite.toml").write_text(
        'name = "s"\ndataset = "mnist"\nmodels = ["softmax"]\n'
        '[[attacks]]\nname = "fgsm"\nepsilon = "0.1"\n'
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")

    def model(reference: str, **keys: Any) -> object:
        return build_model(ModelSpec(name="m", model=reference, **keys), input_shape=(4,))

    reads: tuple[Callable[[], object], ...] = (
        lambda: read_suite(f"{home}/suite.toml"),
        lambda: run_folder(f"{home}/run", runs=tmp_path),
        lambda: load_reference(f"{home}/net.py:Net", what="model"),
        lambda: model(f"{home}/net.py:Net"),
        lambda: PickledModule().check(ModelSpec(name="m", model=f"checkpoint:{home}/whole.pt")),
    )
    for read in reads:
        if home == "~":
            read()
        else:
            with pytest.raises(RequestError, match=r"nosuchuser.* no user of this name"):
                read()
    said = "no user of this name" if home != "~" else f"{tmp_path}.*can't be read"
    with pytest.raises(RequestError, match=said):
        compare(f"{home}/a.json", f"{home}/b.json")


def test_a_tilde_is_the_home_folder_in_the_command_of_the_zoo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert zoo_command(["rbf", "~/nothing"]) == 2
    assert str(tmp_path / "nothing" / "rbf.json") in capsys.readouterr().err
    assert zoo_command(["rbf", "~nosuchuser/x"]) == 2
    assert "no user of this name" in capsys.readouterr().err


def test_an_empty_output_is_refused_in_python() -> None:
    net, data = planted.Rows(), planted.squares()
    with pytest.raises(SpecError, match=r"output: must be the path of a folder, got \'\'"):
        evaluate(net, data, attack="fgsm", epsilon=0.1, output="")


@checked(frozen=True, kw_only=True, config=STRICT)
class SwallowsCtrlC(planted._Planted):
    """It turns Ctrl-C into an error of its own, as a library does in the middle of an import."""

    def change(self, inputs: Tensor, threat: ThreatModel) -> Tensor:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            raise AttributeError("half an import") from None
        return inputs


@checked(frozen=True, kw_only=True, config=STRICT)
class Quits(planted._Planted):
    def change(self, inputs: Tensor, threat: ThreatModel) -> Tensor:
        os._exit(0)


def test_an_attack_that_quits_the_process_fails_its_cell(
    plant: planted.Plant, run: Run, suite: MakeSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.attack("quits", Quits)
    monkeypatch.setattr(cli, "app", lambda: records.append(run(suite("quits", "fgsm"))))
    records: list[RunRecord] = []
    before = os._exit
    cli.main()
    assert os._exit is before
    (failure,) = records[0].failures
    assert failure.attack == "quits"
    assert "os._exit(0) was called" in failure.error
    assert failure.raised_by.startswith("the attack Quits")


def test_ctrl_c_that_a_library_swallows_ends_the_run(
    plant: planted.Plant, run: Run, suite: MakeSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.attack("swallows", SwallowsCtrlC)
    monkeypatch.setattr(cli, "app", lambda: run(suite("swallows")))
    with pytest.raises(KeyboardInterrupt):
        cli.main()
