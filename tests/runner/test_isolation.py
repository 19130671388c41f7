"""Attacks and models in processes of their own: what ends a process fails its own cells alone."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import nets
import pyarrow as pa
import pytest
import torch
from pydantic.dataclasses import dataclass
from same_outcomes import assert_same_records
from torch import Tensor, nn

from gibbon import evaluate
from gibbon.attacks.base import STRICT, Attack
from gibbon.cli import app as cli
from gibbon.core.errors import ProcessEndedError, RequestError, SpecError, UnknownNameError
from gibbon.runner.own_processes import own_process
from gibbon.runner.own_processes.own_process import (
    ActivityMessage,
    ProcessLimits,
    can_fork,
    in_own_process,
)
from gibbon.runner.own_processes.worker import InOwnProcesses
from gibbon.runner.run_progress.progress import SILENT
from gibbon.runner.settings import RunSettings
from gibbon.specs.decoding import decode_suite
from gibbon.specs.memory_sizes import parse_bytes

pytestmark = pytest.mark.skipif(not can_fork(), reason="needs forked processes")

COUNT = 40
EPSILON = 0.05
KNOWN = {"bounds": "none"}
UNENDING = 1000.0


def in_process(work: Any, **limits: Any) -> Any:
    return in_own_process(work, limits=ProcessLimits(**limits))


def test_results_messages_and_errors_come_back():
    heard: list[object] = []

    def work(send: Any) -> int:
        send("half")
        return 7

    assert in_own_process(work, limits=ProcessLimits(), heard=heard.append) == 7
    assert heard == ["half"]

    def wrong(send: Any) -> None:
        raise SpecError("is wrong", where="there")

    with pytest.raises(SpecError, match="there: is wrong"):
        in_process(wrong)

    class OwnError(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    def unusual(send: Any) -> None:
        raise OwnError(1, 2)

    with pytest.raises(RuntimeError, match="OwnError: 1 and 2"):
        in_process(unusual)
    with pytest.raises(Exception, match=r"pickle|local object"):
        in_process(lambda send: lambda: None)


def test_the_work_changes_nothing_here():
    before = torch.get_default_dtype(), os.getcwd()  # noqa: PTH109

    def work(send: Any) -> None:
        torch.set_default_dtype(torch.float64)
        Tensor.argmax = None
        os.chdir("/")
        threading.Thread(target=time.sleep, args=(UNENDING,)).start()

    in_process(work)
    assert (torch.get_default_dtype(), os.getcwd()) == before  # noqa: PTH109
    assert torch.ones(2).argmax() == 0


def test_torch_computes_with_its_threads():
    one, many = torch.rand(300, 300), torch.get_num_threads()
    product = one @ one
    found = in_process(lambda send: ((one @ one).sum().item(), torch.get_num_threads()))
    assert found == (pytest.approx(product.sum().item(), rel=1e-4), many)


def crash() -> None:
    faulthandler.disable()  # in this process alone: it would print among the dots of the tests
    ctypes.string_at(0)


def run_forever(send: Any) -> None:
    while True:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("work", "limits", "told"),
    [
        (lambda send: os._exit(3), {}, "ended by itself, with exit code 3"),
        (lambda send: os._exit(0), {}, "ended by itself, with exit code 0"),
        (lambda send: os.kill(os.getpid(), signal.SIGKILL), {}, "ended by SIGKILL, perhaps for"),
        (lambda send: crash(), {}, "ended by SIGSEGV"),
        (run_forever, {"seconds": 0.5}, "took more than 0.5 seconds"),
    ],
)
def test_a_process_without_a_result_is_an_error(work, limits, told):
    with pytest.raises(ProcessEndedError, match=told):
        in_process(work, **limits)


def presses() -> None:
    raise KeyboardInterrupt


def sends() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


@pytest.mark.parametrize("act", [presses, sends, sys.exit])
def test_code_in_a_process_can_not_interrupt_the_run(act):
    with pytest.raises(
        ProcessEndedError, match=r"its process raised (KeyboardInterrupt|SystemExit)"
    ):
        in_process(lambda send: act())


@pytest.mark.parametrize("close", [os.close, lambda first: os.closerange(first, 4096)])
def test_a_process_that_closes_its_connection_prints_no_traceback(close, capfd):
    def work(send: Any) -> int:
        close(own_process._SENDERS[-1].fileno())
        return 7

    with pytest.raises(ProcessEndedError, match="closed the connection that its results come"):
        in_process(work)
    assert "Traceback" not in capfd.readouterr().err


JUNK = {
    "short": b"\0",
    "zeros": b"\0" * 64,
    "long": b"\x7f" * 4096,
    "header": (1 << 40).to_bytes(8, "big") * 3,
    "pickle": pickle.dumps(("advance", ("x",), {})),
}


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("junk", JUNK)
def test_junk_on_the_connection_is_no_message(junk, ends):
    def work(send: Any) -> int:
        os.write(own_process._SENDERS[-1].fileno(), JUNK[junk])
        if ends:
            os._exit(0)
        return 7

    with pytest.raises(ProcessEndedError, match="wrote into the connection"):
        in_process(work)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_beyond_the_limit_is_refused_in_the_process():
    def work(send: Any) -> str:
        held = bytearray(20_000_000)
        try:
            bytearray(400_000_000)
        except MemoryError:
            return f"{len(held)} only"
        return "all"

    assert in_process(work, memory=200_000_000) == "20000000 only"
    assert in_process(work) == "all"


def test_the_time_of_an_activity_begins_with_it():
    def work(send: Any) -> None:
        for _ in range(3):
            send(ActivityMessage("a part", 0.6))
            time.sleep(0.3)
        send(ActivityMessage())
        time.sleep(0.8)
        send(ActivityMessage("the last part", 0.3))
        run_forever(send)

    with pytest.raises(ProcessEndedError) as ended:
        in_process(work)
    assert ended.value.doing == "the last part"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Ends(Attack):
    """Ends its process, if the model is that of its name."""

    needs_gradient: ClassVar[bool] = False
    on: ClassVar[int] = 0
    how: str = "exit"
    began: str = ""

    def propose(self, classifier, inputs, *, labels, threat, streams) -> Iterator[Tensor]:
        """Yields the inputs."""
        if getattr(classifier.module, "victim", False):
            if self.how == "exit":
                os._exit(3)
            elif self.how == "hang":
                Path(self.began).touch()
                run_forever(None)
            elif self.how == "crash":
                crash()
            else:
                threading.Thread(target=time.sleep, args=(UNENDING,)).start()
        yield inputs.clone()


def model(seed: int = 1, *, victim: bool = False) -> nn.Module:
    net = nets.linear(seed=seed).module
    net.victim = victim
    return net


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    batch = nets.random_batch(count=COUNT)
    return batch.inputs, nets.linear().module(batch.inputs).argmax(1)


def test_isolated_cells_have_the_outcomes_of_others(data, tmp_path):
    attacks = [{"name": "fgsm"}, {"name": "pgd", "steps": 3}]
    known = {"attack": attacks, "epsilon": [0.02, EPSILON], "bounds": "none"}
    models = {"one": model(), "two": model(5)}
    plain = evaluate(models, data, **known)
    apart = evaluate(models, data, output=tmp_path / "apart", isolate=True, **known)
    assert_same_records(apart.record, plain.record)
    again = evaluate(models, data, output=tmp_path / "apart", **known)
    assert again.record.provenance.computed_cells == 0


class JumpingClock:
    """A clock of the run that jumps beyond every limit as soon as an attack hangs.

    So that the speed of the machine decides nothing.
    """

    def __init__(self, began: Path) -> None:
        self.began, self.sleep = began, time.sleep

    def monotonic(self) -> float:
        return time.monotonic() + (2 * UNENDING if self.began.exists() else 0)


def test_what_ends_a_process_fails_its_own_cell(data, tmp_path, monkeypatch):
    quick = {**KNOWN, "examination": False}
    began = tmp_path / "began"
    monkeypatch.setattr(own_process, "time", JumpingClock(began))
    models = {"one": model(victim=True), "two": model(5)}
    ways = ("exit", "hang", "crash", "thread")
    attacks = [{"name": "fgsm"}, *(Ends(how=how, began=str(began)) for how in ways)]
    found = evaluate(
        models, data, attack=attacks, epsilon=EPSILON, isolate=True, cell_timeout=UNENDING, **quick
    )
    plain = evaluate(models, data, attack="fgsm", epsilon=EPSILON, **quick)
    failed = {each.attack: each.error for each in found.failures}
    assert {each.model for each in found.failures} == {"one"}
    assert list(failed) == ["ends", "ends-2", "ends-3"]
    assert "with exit code 3" in failed["ends"]
    assert "took more than 1000 seconds" in failed["ends-2"]
    assert "SIGSEGV" in failed["ends-3"]
    expected = {(row.source, row.target): row.error for row in plain.record.transfers}
    rows = [row for row in found.record.transfers if row.attack == "fgsm"]
    assert {(row.source, row.target): row.error for row in rows} == expected


class DiesAsTarget(nn.Module):
    """Exits when it is evaluated at points of FGSM: each coordinate has moved by epsilon."""

    def __init__(self, clean: Tensor) -> None:
        super().__init__()
        self.net, self.clean = nets.linear(seed=5).module, clean

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.shape == self.clean.shape:
            moved = (inputs.detach() - self.clean).abs()
            if float(((moved - EPSILON).abs() < 1e-5).float().mean()) > 0.5:
                os._exit(4)
        return self.net(inputs)


def test_a_model_that_exits_as_a_target_leaves_the_sources_alone(data):
    models = {"one": model(), "dies": DiesAsTarget(data[0]), "two": model(7)}
    found = evaluate(models, data, attack="fgsm", epsilon=EPSILON, isolate=True, **KNOWN)
    plain = evaluate(
        {"one": model(), "two": model(7)}, data, attack="fgsm", epsilon=EPSILON, **KNOWN
    )
    assert all(
        "dies" in (each.model, *each.error.split()) or "dies:" in each.error
        for each in found.failures
    )
    assert any("scored on dies: ProcessEndedError" in each.error for each in found.failures)
    kept = {(row.source, row.target): row.error for row in found.record.transfers}
    for row in plain.record.transfers:
        assert kept[row.source, row.target] == row.error


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Dies(Attack):
    """Does what a function does in its process."""

    needs_gradient: ClassVar[bool] = False
    act: ClassVar[Any]

    def propose(self, classifier, inputs, *, labels, threat, streams) -> Iterator[Tensor]:
        """Yields the inputs."""
        type(self).act()
        yield inputs.clone()


FILES = Path("/proc/self/fd")
OPEN: set[str] = set()  # the files of the test run itself


def write_everywhere() -> None:
    for each in sorted(map(int, {each.name for each in FILES.iterdir()} - OPEN)):
        try:
            os.write(each, b"\xff" * 8)
        except OSError:
            continue
    os._exit(0)


@pytest.mark.parametrize("act", [lambda: os._exit(0), write_everywhere])
def test_an_attack_that_dies_leaves_the_unattacked_cell_alone(act, data):
    Dies.act = staticmethod(act)
    OPEN.update(each.name for each in (FILES.iterdir() if FILES.exists() else ()))
    known = {"epsilon": EPSILON, "examination": False, **KNOWN}
    attacks = [Dies(), {"name": "fgsm"}]
    found = evaluate(model(), data, attack=attacks, isolate=True, **known)
    plain = evaluate(model(), data, attack="fgsm", **known)
    (failure,) = found.failures
    assert failure.attack == "dies"
    assert "ProcessEndedError" in failure.error
    rows = {row.attack: row for row in found.record.evaluations}
    assert rows["dies"].status == "failed"
    for row in plain.record.evaluations:
        assert rows[row.attack].adversarial_error == row.adversarial_error


def test_a_process_that_fails_after_its_work_is_failed_and_not_done(data, tmp_path, monkeypatch):
    """As if its code had written junk into the connection once the outcomes were stored."""
    known = {"epsilon": EPSILON, "examination": False, "output": tmp_path / "run", **KNOWN}
    models = {"one": model(), "two": model(5)}
    Dies.act = staticmethod(lambda: None)
    before = evaluate(models, data, attack="fgsm", **known)
    real = InOwnProcesses.run

    def run(self: Any, work: Any, progress: Any, *, cells: int = 1) -> Any:
        found = real(self, work, progress, cells=cells)
        if isinstance(found, dict) and not found:  # a job without failures
            raise ProcessEndedError(own_process.STRANGE)
        return found

    monkeypatch.setattr(InOwnProcesses, "run", run)
    found = evaluate(models, data, attack=[{"name": "fgsm"}, Dies()], isolate=True, **known)
    monkeypatch.undo()
    rows = {(row.model, row.attack): row for row in found.record.evaluations}
    failed = {(each.model, each.attack): each for each in found.failures}
    assert set(failed) == {key for key, row in rows.items() if row.status == "failed"}
    assert set(failed) == {("one", "dies"), ("two", "dies")}
    for each in failed.values():
        assert "wrote into the connection" in each.error
        assert each.raised_by == f"the attack Dies, or the model {each.model} that it ran on"
    again = evaluate(models, data, attack=[{"name": "fgsm"}, Dies()], **known)
    assert not again.failures
    assert again.record.provenance.computed_cells == 2
    rows = {(row.model, row.attack): row for row in again.record.evaluations}
    for row in before.record.evaluations:
        assert rows[row.model, row.attack].adversarial_error == row.adversarial_error


def test_memory_that_runs_out_where_nothing_is_computed_ends_one_cell():
    def work(_: Any) -> None:
        raise pa.lib.ArrowMemoryError("malloc of size 64 failed")

    with pytest.raises(ProcessEndedError, match="ran out of memory"):
        InOwnProcesses(ProcessLimits()).run(work, SILENT)
    with pytest.raises(ZeroDivisionError):
        InOwnProcesses(ProcessLimits()).run(lambda _: 1 / 0, SILENT)


class DiesAtOnce(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.home = nets.linear().module, os.getpid()

    def forward(self, inputs: Tensor) -> Tensor:
        if os.getpid() != self.home:
            os._exit(5)
        return self.net(inputs)


def test_a_model_that_ends_the_process_while_it_is_loaded_is_named(data):
    with pytest.raises(RequestError, match=r"models\[0\].*'bad'.* is loaded.*exit code 5"):
        evaluate({"bad": DiesAtOnce()}, data, attack="fgsm", epsilon=EPSILON, isolate=True)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Slow(Attack):
    """Waits at each batch, and says so in a file."""

    needs_gradient: ClassVar[bool] = False
    note: ClassVar[Path]

    def propose(self, classifier, inputs, *, labels, threat, streams) -> Iterator[Tensor]:
        """Yields the inputs."""
        with type(self).note.open("a") as file:
            file.write("x")
        time.sleep(0.4)
        yield inputs.clone()


def test_an_interruption_saves_what_was_done(data, tmp_path):
    Slow.note = note = tmp_path / "batches"
    known = {
        "attack": Slow(),
        "epsilon": EPSILON,
        "batch_size": 4,
        "isolate": True,
        "output": tmp_path / "run",
        "examination": False,
        **KNOWN,
    }

    def interrupt() -> None:
        while not note.exists() or len(note.read_text()) < 4:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        evaluate(model(), data, **known)
    done = len(note.read_text())
    assert done < COUNT // 4
    found = evaluate(model(), data, **known)
    assert not found.failures
    assert len(note.read_text()) < done + COUNT // 4  # some batches were not attacked again


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Notes(Attack):
    """Waits at each batch, and writes down in which process."""

    needs_gradient: ClassVar[bool] = False
    note: ClassVar[Path]

    def propose(self, classifier, inputs, *, labels, threat, streams) -> Iterator[Tensor]:
        """Yields the inputs."""
        with type(self).note.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.4)
        yield inputs.clone()


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_termination_ends_the_processes_and_saves_what_was_done(data, tmp_path, monkeypatch):
    """As the scheduler of a cluster ends a run: by SIGTERM to the process that was started."""
    Notes.note = note = tmp_path / "batches"
    known = {
        "attack": Notes(),
        "epsilon": EPSILON,
        "batch_size": 4,
        "isolate": True,
        "output": tmp_path / "run",
        "examination": False,
        **KNOWN,
    }
    monkeypatch.setattr(cli, "app", lambda: evaluate(model(), data, **known))

    def terminate() -> None:
        while not note.exists() or note.read_text().count("\n") < 4:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        threading.Thread(target=terminate, daemon=True).start()
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 128 + signal.SIGTERM
    processes = {int(line) for line in note.read_text().split()}
    assert processes
    assert os.getpid() not in processes
    assert not any(map(is_running, processes))
    done = note.read_text().count("\n")
    assert done < COUNT // 4
    found = evaluate(model(), data, **known)
    assert not found.failures
    assert note.read_text().count("\n") < done + COUNT // 4  # some batches were saved


def test_limits_need_processes_and_are_read():
    assert [parse_bytes(each) for each in ("4GB", "512 MiB", "2k", 7)] == [
        4_000_000_000,
        536_870_912,
        2000,
        7,
    ]
    for wrong in ("", "GB", "four", "-1", "1.5.2", "0"):
        with pytest.raises(ValueError, match="an amount of memory such as 4GB"):
            parse_bytes(wrong)
    with pytest.raises(SpecError, match="cell_timeout: must be positive seconds"):
        RunSettings(cell_timeout=0)
    written = {
        "name": "s",
        "dataset": "mnist",
        "models": ["softmax"],
        "attacks": [{"name": "fgsm", "epsilon": "0.1"}],
    }
    suite = decode_suite(
        {**written, "isolate": True, "cell_timeout": 60, "cell_memory": "1GB"}, where="s.toml"
    )
    assert (suite.isolate, suite.cell_timeout, suite.cell_memory) == (True, 60.0, 10**9)
    with pytest.raises(SpecError, match="set isolate = true"):
        decode_suite({**written, "cell_timeout": 60}, where="s.toml")
    with pytest.raises(SpecError, match="an amount of memory such as 4GB"):
        decode_suite({**written, "isolate": True, "cell_memory": "much"}, where="s.toml")


def test_a_limit_without_processes_is_refused(data):
    with pytest.raises(SpecError, match="cell_timeout: limits the process of a cell"):
        evaluate(model(), data, attack="fgsm", epsilon=EPSILON, cell_timeout=3)


def test_a_request_that_is_wrong_is_refused_as_without_isolation(data):
    for isolate in (False, True):
        with pytest.raises(UnknownNameError, match="unknown attack 'fgms'; did you mean 'fgsm'"):
            evaluate(model(), data, attack="fgms", epsilon=EPSILON, isolate=isolate)
        with pytest.raises(UnknownNameError, match="unknown attack source 'foolbax'"):
            evaluate(model(), data, attack="foolbax:PGD", epsilon=EPSILON, isolate=isolate)
