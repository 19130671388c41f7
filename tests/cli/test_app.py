"""The command line: what it answers, and what it says to a request that is wrong."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

import gibbon_zoo
from gibbon.attacks.adapters.adapting import Library
from gibbon.cli import app as cli
from gibbon.cli.options import OPTIONS
from gibbon.core.endings import ENDING
from gibbon.core.threat import Bounds
from gibbon.datasets.base import Batch
from gibbon.models.outputs import LOG_SCORES, PROBABILITIES
from gibbon.records.run import RunRecord
from gibbon.runner.run_folder import LOCK_FILE
from gibbon.runner.settings import RunSettings

ROOT = Path(__file__).parents[2]
ZOO = Path(gibbon_zoo.__file__).parent / "weights"
HEAD = 'name = "mine"\ndataset = "squares"\nmodels = ["one"]\n'
FGSM = '[[attacks]]\nname = "fgsm"\nepsilon = "0.1"\n'
PGD = '[[attacks]]\nname = "pgd"\nepsilon = "0.1"\n'


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Gibbon = Callable[..., Said]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> planted.Plant:
    planting = planted.Plant(monkeypatch)
    planting.dataset("squares", lambda request: planted.squares())
    planting.model("one", planted.rows(1))
    planting.model("two", planted.rows(2))
    planting.attack("raises", planted.Raises)
    return planting


@pytest.fixture
def gibbon(
    plant: planted.Plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Gibbon:
    """Runs a command in this process: its exit code and what it said."""

    def command(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["gibbon", *words])
        capsys.readouterr()
        try:
            cli.main()
            code: Any = 0
        except SystemExit as leaving:
            code = leaving.code
        said = capsys.readouterr()
        return Said(code or 0, said.out, said.err)

    return command


def suite(text: str, name: str = "mine.toml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def assert_refused(said: Said, *parts: str) -> None:
    """Exit code 2, an error that holds these parts, no traceback, and nothing written."""
    assert said.code == 2, said
    assert "Traceback" not in said.err
    for part in parts:
        assert part in said.err
    assert not Path("results").exists()


# What works


def test_a_run_prints_tables_and_writes_files(gibbon: Gibbon) -> None:
    said = gibbon("run", suite(HEAD + FGSM))
    assert said.code == 0, said.err
    assert "fgsm" in said.out
    assert "results/runs/mine/tables.md" in said.out.replace("\n", "")
    assert "2 cells to compute, 0 recorded already" in said.err
    folder = Path("results/runs/mine")
    for name in (
        "run.json",
        "evaluations.csv",
        "transfer.csv",
        "worst_case.csv",
        "agreement.csv",
        "tables.md",
        "tensorboard",
        "outcomes",
    ):
        assert (folder / name).exists(), name
    assert RunRecord.read(folder).status == "done"
    assert "0 cells to compute, 2 recorded already" in gibbon("run", "mine.toml").err


def test_options_are_obeyed_and_recorded(gibbon: Gibbon, tmp_path: Path) -> None:
    words = ("--output", "some where/else", "--limit", "9", "--batch-size", "4", "--device", "cpu")
    assert gibbon("run", suite(HEAD + FGSM), *words).code == 0
    record = RunRecord.read(tmp_path / "some where" / "else")
    assert (record.provenance.limit, record.provenance.batch_size) == (9, 4)
    assert {row.examples for row in record.evaluations} == {9}
    assert "2 cells to compute" in gibbon("run", "mine.toml", *words, "--fresh").err


@pytest.mark.parametrize(
    "text",
    [
        HEAD,
        HEAD + FGSM.replace('"0.1"', '"1e-3"'),
        HEAD + FGSM.replace('"0.1"', '["8/255", 0.2, 1]'),
        HEAD + FGSM.replace('"0.1"', "0"),
        "\ufeff" + HEAD + FGSM,
        (HEAD + FGSM).replace("\n", "\r\n"),
        HEAD.replace('"mine"', '"1.mine_A+b-c"') + 'title = "Tïtle ∞ [bold]"\n' + FGSM,
        HEAD + FGSM + FGSM + 'label = "again"\n',
        HEAD + "seed = 9223372036854775807\n" + PGD + 'norm = "l2"\nsteps = 2\n',
    ],
    ids=[
        "no attacks",
        "exponent",
        "epsilons",
        "zero",
        "byte-order mark",
        "CRLF",
        "odd names",
        "labels",
        "seed, norm",
    ],
)
def test_unusual_suites_run(gibbon: Gibbon, text: str) -> None:
    said = gibbon("run", suite(text, "a suite's naïve name.toml"))
    assert said.code == 0, said.err


def test_a_failed_cell_is_told_and_makes_exit_code_1(gibbon: Gibbon) -> None:
    said = gibbon("run", suite(HEAD + FGSM + FGSM.replace("fgsm", "raises")))
    assert said.code == 1
    told = "failed: squares, one, raises at epsilon 0.1: RuntimeError: planted trouble"
    assert said.err.count(told) == 2  # at once, and at the end
    assert "(traceback in run.json)" in said.err
    assert re.search(r"raises .*failed", said.out)
    folder = Path("results/runs/mine")
    assert "failed" in (folder / "tables.md").read_text()
    (failure,) = RunRecord.read(folder).failures
    assert failure.traceback.startswith("Traceback")
    assert gibbon("run", "mine.toml").code == 1


FOREIGN = '[[attacks]]\nname = "foolbox:NeverSeen"\nepsilon = "0.1"\n'


def test_an_optional_attack_without_its_library_is_left_out_and_told(
    gibbon: Gibbon, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = Library("no_such_foolbox", "foolbox", "pip install foolbox")
    monkeypatch.setattr("gibbon.attacks.adapters.foolbox.LIBRARY", absent)
    said = gibbon("run", suite(HEAD + FGSM + FOREIGN + "optional = true\n"))
    assert said.code == 0, said.err
    assert "2 cells to compute" in said.err
    assert re.search(r"foolbox-NeverSeen .*not run", said.out)
    record = RunRecord.read(Path("results/runs/mine"))
    (flag,) = (each for each in record.flags if each.kind == "attack-left-out")
    assert flag.severity == "note"
    assert str(flag) == (
        "squares, foolbox-NeverSeen: the optional attack was not run: foolbox is not installed: "
        "pip install foolbox."
    )
    assert record.suite.experiments[0].attacks[1].optional


def test_an_attack_without_its_library_is_refused_unless_it_is_optional(
    gibbon: Gibbon, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = Library("no_such_foolbox", "foolbox", "pip install foolbox")
    monkeypatch.setattr("gibbon.attacks.adapters.foolbox.LIBRARY", absent)
    said = gibbon("run", suite(HEAD + FGSM + FOREIGN))
    assert_refused(said, "mine.toml: attacks[1].name", "not installed: pip install foolbox")


@pytest.mark.slow
def test_attacks_are_compared_whichever_libraries_are_there(gibbon: Gibbon) -> None:
    said = gibbon("run", "attack-comparison", "--limit", "4")
    assert said.code == 0, said.err
    assert "Attacks compared on mnist: maxout-label-leaking" in said.out
    record = RunRecord.read(Path("results/runs/attack-comparison"))
    done = {row.attack for row in record.evaluations}
    for attack in record.suite.experiments[0].attacks:
        told = any(
            (each.kind, each.attack) == ("attack-left-out", attack.label) for each in record.flags
        )
        assert (attack.label in done) != told


def test_a_run_takes_how_to_run_it(gibbon: Gibbon) -> None:
    words = "--batch-size auto --precision bfloat16 --models-in-memory 1 --decoders 0"
    said = gibbon("run", suite(HEAD + FGSM), *words.split(), "--skip-unreadable")
    assert said.code == 0, said.err
    assert "2 cells to compute, 0 recorded already" in gibbon("run", "mine.toml").err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {"pictures": True}),
        ("--pictures", {"pictures": True}),
        ("--no-pictures", {"pictures": False}),
        ("--keep-examples misclassified", {"pictures": True, "keep_examples": "misclassified"}),
        ("--offline --fresh", {"pictures": True, "download": False, "fresh": True}),
        (
            "--device cpu --batch-size 3 --precision bfloat16 --compile --models-in-memory 2 "
            "--decoders 0 --skip-unreadable --limit 9 --data-dir d --no-pictures "
            "--keep-examples 16",
            {
                "keep_examples": 16,
                "device": "cpu",
                "batch_size": 3,
                "precision": "bfloat16",
                "compile": True,
                "models_in_memory": 2,
                "decoders": 0,
                "skip_unreadable": True,
                "limit": 9,
                "data_folder": Path("d"),
            },
        ),
    ],
)
def test_the_options_of_run_are_its_settings(
    gibbon: Gibbon, monkeypatch: pytest.MonkeyPatch, words: str, expected: dict[str, Any]
) -> None:
    seen: list[RunSettings] = []

    def run_suite(*_: Any, settings: RunSettings, **__: Any) -> None:
        seen.append(settings)
        raise SystemExit(0)

    monkeypatch.setattr("gibbon.runner.run_suite.run_suite", run_suite)
    monkeypatch.delenv("GIBBON_DATA", raising=False)
    assert gibbon("run", suite(HEAD), *words.split()).code == 0
    assert seen == [RunSettings(**expected)]


# Flags: strict runs, and kinds that are accepted


class Masked(planted.Rows):
    """Answers as `Rows`, with a gradient of zero."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs).detach() + super().forward(0.0 * inputs)


@pytest.fixture
def masked(plant: planted.Plant) -> None:
    plant.model("masked", lambda: planted.classifier(Masked(1)))


MASKED = HEAD.replace('"one"', '"masked"') + FGSM
OF_MASKED = "evaluate --model masked --dataset squares --attack fgsm --epsilon 0.1"


def serious(folder: str) -> list[str]:
    """The kinds of the serious flags of a run, whether they are accepted or not."""
    flags = RunRecord.read(Path(folder)).flags
    return sorted({each.kind for each in flags if each.severity == "serious"})


def accepting(folder: str) -> list[str]:
    return [word for kind in serious(folder) for word in ("--accept", kind)]


@pytest.mark.usefixtures("masked")
@pytest.mark.parametrize(
    ("words", "folder"), [(["run", "mine.toml"], "mine"), (OF_MASKED.split(), "squares-masked")]
)
def test_a_serious_flag_fails_a_strict_run_unless_it_is_accepted(
    gibbon: Gibbon, monkeypatch: pytest.MonkeyPatch, words: list[str], folder: str
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    suite(MASKED)
    folder = f"results/runs/{folder}"
    assert gibbon(*words).code == 0
    assert "zero-gradient" in serious(folder)
    said = gibbon(*words, "--strict")
    assert said.code == 1
    assert "0 cells to compute, 2 recorded already" in said.err
    assert "serious flag: zero-gradient: squares, masked, fgsm at epsilon 0.1: the grad" in said.err
    assert "Attack the outputs before the part that loses the gradient" in said.err
    assert ": done" in Path("summary.md").read_text().partition("\n")[0]
    assert re.search("^## Robustness of .*: failed$", Path("summary.md").read_text(), re.MULTILINE)
    said = gibbon(*words, "--strict", *accepting(folder))
    assert said.code == 0, said.err
    assert "0 cells to compute, 2 recorded already" in said.err  # nor is the folder another one
    assert "accepted: zero-gradient (--accept): 2 flags" in said.err
    assert RunRecord.read(Path(folder)).suite.accept == tuple(serious(folder))
    assert gibbon(*words, "--strict", "--accept", "wide-budget").code == 1


@pytest.mark.usefixtures("masked")
def test_a_suite_accepts_and_the_command_line_adds_to_it(gibbon: Gibbon) -> None:
    gibbon("run", suite(MASKED))
    first, *others = serious("results/runs/mine")
    said = gibbon("run", suite(f'accept = ["{first}", "wide-budget"]\n{MASKED}'), "--strict")
    assert said.code == (1 if others else 0)
    assert f"accepted: {first} (mine.toml): 1 flag" in said.err
    assert "accepted: wide-budget (mine.toml): not raised" in said.err
    more = [word for kind in others for word in ("--accept", kind)]
    said = gibbon("run", "mine.toml", "--strict", *more, "--accept", "not-converged")
    assert said.code == 0, said.err
    assert "accepted: not-converged (--accept): " in said.err
    accepted = RunRecord.read(Path("results/runs/mine")).suite.accept
    assert accepted == (first, "wide-budget", *others, "not-converged")
    assert "0 cells to compute, 2 recorded already" in said.err


@pytest.mark.usefixtures("masked")
def test_a_saved_suite_keeps_what_is_accepted(gibbon: Gibbon) -> None:
    gibbon(*OF_MASKED.split())
    words = accepting("results/runs/squares-masked")
    assert gibbon(*OF_MASKED.split(), *words, "--save-suite", "s.toml").code == 0
    assert "zero-gradient" in Path("s.toml").read_text()
    said = gibbon("run", "s.toml", "--strict", "--output", "results/runs/squares-masked")
    assert said.code == 0, said.err
    assert "accepted: zero-gradient (s.toml): 2 flags" in said.err
    assert "0 cells to compute, 2 recorded already" in said.err


def test_a_strict_run_without_serious_flags_is_done(gibbon: Gibbon) -> None:
    said = gibbon("run", suite(HEAD), "--strict", "--no-examination")  # its labels are made up
    assert said.code == 0, said.err
    assert "accepted" not in said.err


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (
            'accept = ["zero-gradent"]',
            ["mine.toml: accept[0]: there is no kind of flag 'zero-gradent'; did you mean 'zero-g"],
        ),
        ('accept = ["zero-gradient", "nonsense-9"]', ["mine.toml: accept[1]: ", "'nonsense-9'"]),
        ('accept = "zero-gradient"', ["mine.toml: accept: must be a list, got 'zero-gradient'"]),
        ("accept = true", ["mine.toml: accept: must be a list, got True"]),
        ("accept = [1]", ["mine.toml: accept[0]: ", "got 1"]),
        ("acept = []", ["mine.toml: acept: unknown key; did you mean 'accept'?"]),
    ],
)
def test_a_wrong_acceptance_in_a_suite_is_refused_before_anything_is_loaded(
    gibbon: Gibbon, plant: planted.Plant, line: str, parts: list[str]
) -> None:
    assert_refused(gibbon("run", suite(f"{line}\n{HEAD}{FGSM}")), *parts)
    assert plant.built == {}


@pytest.mark.parametrize("words", ["run mine.toml", OF_MASKED.replace("masked", "one")])
def test_a_wrong_acceptance_on_the_command_line_is_refused(
    gibbon: Gibbon, plant: planted.Plant, words: str
) -> None:
    suite(HEAD)
    said = gibbon(*words.split(), "--accept", "zero-gradent")
    assert_refused(said, "--accept: there is no kind of flag 'zero-gradent'; did you mean 'zero-g")
    assert_refused(gibbon(*words.split(), "--accept="), "--accept needs a value: --accept KIND")
    assert plant.built == {}


# Evaluate: a request in words

EVALUATE = "evaluate --model one --dataset squares --attack fgsm --epsilon 0.1"


def test_evaluate_is_a_run_of_the_same_suite(gibbon: Gibbon) -> None:
    words = f"{EVALUATE},8/255 --model two --attack pgd --steps 3".split()
    said = gibbon(*words)
    assert said.code == 0, said.err
    assert "10 cells to compute, 0 recorded already" in said.err
    assert "Transfer on squares, pgd, ε = 8/255: error" in said.out
    folder = Path("results/runs/squares-one+two")
    assert "results/runs/squares-one+two/tables.md" in said.out.replace("\n", "")
    text = (
        'name = "squares-one+two"\ndataset = "squares"\nmodels = ["one", "two"]\n'
        '[[attacks]]\nname = "fgsm"\nepsilon = ["0.1", "8/255"]\n'
        '[[attacks]]\nname = "pgd"\nepsilon = ["0.1", "8/255"]\nsteps = 3\n'
        '[transfer]\nattacks = ["fgsm", "pgd"]\n'
    )
    assert gibbon("run", suite(text), "--output", "run").code == 0
    assert RunRecord.read(folder).suite == RunRecord.read(Path("run")).suite
    assert {each.name for each in folder.iterdir()} == {each.name for each in Path("run").iterdir()}
    for name in ("transfer.csv", "worst_case.csv", "agreement.csv", "tables.md"):
        assert (folder / name).read_text() == (Path("run") / name).read_text()
    assert "0 cells to compute, 10 recorded already" in gibbon(*words).err


def test_evaluate_saves_the_suite_that_it_ran(gibbon: Gibbon) -> None:
    said = gibbon(*EVALUATE.split(), "--save-suite", "suites/s.toml", "--limit", "9")
    assert said.code == 0
    assert "the suite is in suites/s.toml: run it with `run`" in said.err
    said = gibbon(*("run", "suites/s.toml", "--limit", "9", "--output", "results/runs/squares-one"))
    assert "0 cells to compute, 2 recorded already" in said.err


def test_evaluate_goes_on_where_nothing_is_lost_and_else_elsewhere(gibbon: Gibbon) -> None:
    assert gibbon(*EVALUATE.split()).code == 0
    said = gibbon(*EVALUATE.split(), "--attack", "pgd")
    assert "1 cell to compute, 2 recorded already" in said.err
    folder = Path("results/runs/squares-one")
    before = {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}
    other = f"{EVALUATE.replace('one', 'two')} --name one"
    said = gibbon(*other.split())
    assert said.code == 0
    assert "results/runs/squares-one-2/tables.md" in said.out.replace("\n", "")
    assert {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()} == before
    assert "0 cells to compute, 2 recorded already" in gibbon(*other.split()).err


def test_evaluate_takes_a_factory_with_weights_and_normalisation(gibbon: Gibbon) -> None:
    Path("net.py").write_text(
        "import torch\n"
        "def build(spread=1.0):\n"
        "    linear = torch.nn.Linear(16, 3)\n"
        "    torch.nn.init.normal_(linear.weight, std=spread)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), linear)\n"
    )
    save_file({"1.weight": torch.randn(3, 16), "1.bias": torch.zeros(3)}, "w.safetensors")
    words = (
        "evaluate --model net.py:build --arg spread=2.0 --weights w.safetensors --mean 0.5 "
        "--std 0.25 --model net.py:build --dataset squares --attack fgsm --epsilon 0.1"
    )
    said = gibbon(*words.split())
    assert said.code == 0, said.err
    record = RunRecord.read(Path("results/runs/squares-build+build-2"))
    assert [card.name for card in record.models] == ["build", "build-2"]
    assert record.models[0].weights_digest != record.models[1].weights_digest
    assert len(record.transfers) == 4


def test_evaluate_tells_a_failed_cell(gibbon: Gibbon) -> None:
    said = gibbon(*EVALUATE.split(), "--attack", "raises")
    assert said.code == 1
    told = "failed: squares, one, raises at epsilon 0.1: RuntimeError: planted trouble"
    assert said.err.count(told) == 2


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("evaluate", ["error: missing: --model, --dataset, --attack"]),
        (f"{EVALUATE} --modell x", ["--modell: no such option", "did you mean '--model'?"]),
        (f"{EVALUATE} --attack pgd --stepz 3", ["--stepz: no such option", "mean '--steps'?"]),
        (f"{EVALUATE} --attack pgd --steps 0", ["error: --attack pgd --steps: ", "got 0"]),
        (f"{EVALUATE} --attack pgd --steps x", ["--attack pgd --steps: ", "got 'x'"]),
        (f"{EVALUATE} --norm l2", ["--attack fgsm --norm: attack 'fgsm' works in linf"]),
        (EVALUATE.replace("fgsm", "fgms"), ["--attack: unknown attack 'fgms'; did you mean 'fgsm"]),
        (EVALUATE.replace("one", "on"), ["error: --model on: unknown model 'on'", "'one'"]),
        (EVALUATE.replace("squares", "sqares"), ["--dataset: unknown dataset 'sqares'", "squares"]),
        (EVALUATE.replace("squares", "no/where"), ["--dataset: ", "no file or folder 'no/where'"]),
        (f"{EVALUATE} --weights w.pt", ["--model one: ", "it takes no weights file"]),
        (f"{EVALUATE} --class-map imagenet", ["--dataset: ", "has no use for class_map"]),
        (f"{EVALUATE} --device gpu", ["--device: expected auto, cpu, cuda, cuda:1 or mps"]),
        (f"{EVALUATE} --batch-size 0", ["--batch-size: expected auto or a whole number"]),
        (f"{EVALUATE} --mean 0.5 --std 1", ["--model one", "mean and std are declared"]),
        (
            f"evaluate extra {EVALUATE[9:]}",
            ["'extra': every value belongs to an option"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_request_is_told_in_options(gibbon: Gibbon, words: str, parts: list[str]) -> None:
    said = gibbon(*words.split(), "--save-suite", "s.toml")
    assert_refused(said, *parts)
    assert "evaluate:" not in said.err
    assert not Path("s.toml").exists()


def test_an_error_holds_what_was_written(gibbon: Gibbon) -> None:
    said = gibbon(*EVALUATE.replace("one", "a:x:b[bold].py:x").split())
    assert_refused(said, "a:x:b[bold].py:x")


def test_the_help_of_evaluate_names_every_option(gibbon: Gibbon) -> None:
    said = gibbon("evaluate", "--model", "x", "--help")
    assert said.code == 0
    for option in OPTIONS:
        assert option.flag in said.out
    for part in ("Models:", "Dataset:", "Attacks:", "Run:", "Examples:", "--steps 20"):
        assert part in said.out


def test_the_data_folder_comes_from_the_environment(
    gibbon: Gibbon, plant: planted.Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def load(request: Any) -> Any:
        seen.append((request.folder, request.download))
        return planted.squares()

    plant.dataset("squares", load)
    monkeypatch.setenv("GIBBON_DATA", "elsewhere")
    assert gibbon(*EVALUATE.split()).code == 0
    assert gibbon(*EVALUATE.split(), "--data-dir", "here", "--offline").code == 0
    assert seen == [(Path("elsewhere"), True), (Path("here"), False)]


def test_termination_is_told_and_what_was_started_is_left_in_order(
    gibbon: Gibbon, plant: planted.Plant
) -> None:
    left: list[bool] = []

    def load(request: Any) -> Any:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            left.append(True)
        return planted.squares()

    plant.dataset("squares", load)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        said = gibbon(*EVALUATE.split())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (said.code, left) == (143, [True])
    assert "interrupted; what was done is kept" in said.err


@pytest.mark.parametrize("command", ["evaluate", "check"])
def test_termination_inside_an_attack_is_no_failure_of_it(
    gibbon: Gibbon, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """What an attack's own call to exit would be, but for who asked for it."""

    def propose(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    monkeypatch.setattr("gibbon.attacks.pgd.PGD.propose", propose)
    words = {
        "evaluate": "evaluate --model softmax --dataset mnist --limit 4 --attack pgd --epsilon 0.1",
        "check": "check pgd --law zero",
    }
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        said = gibbon(*words[command].split())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert said.code == 143
    assert ("what was done is kept" in said.err) == (command == "evaluate")
    assert "interrupted" in said.err


def test_termination_of_a_report_changes_no_file(
    gibbon: Gibbon, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gibbon(*EVALUATE.split()).code == 0
    (run,) = (path.parent for path in Path().rglob("run.json"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def replace(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", replace)
            said = gibbon("report", str(run))
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert said.code == 143
    assert said.err.strip().endswith("interrupted")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_ctrl_c_is_told_and_what_was_done_is_kept(
    gibbon: Gibbon, plant: planted.Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.attack("interrupts", planted.Interrupts)
    monkeypatch.setattr(planted.INTERRUPTS, "after", 1)
    monkeypatch.setattr(planted.INTERRUPTS, "asked", [])
    monkeypatch.setattr(planted.INTERRUPTS, "press", lambda: ENDING.interrupt(2, None))
    words = [*EVALUATE.split(), "--attack", "interrupts"]
    said = gibbon(*words)
    assert said.code == 130
    assert "interrupted; what was done is kept" in said.err
    assert "1 cell to compute, 2 recorded already" in gibbon(*words).err


def test_an_attack_that_raises_what_ctrl_c_raises_fails_alone(
    gibbon: Gibbon, plant: planted.Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.attack("interrupts", planted.Interrupts)
    monkeypatch.setattr(planted.INTERRUPTS, "after", 1)
    monkeypatch.setattr(planted.INTERRUPTS, "asked", [])
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # of no background job
    try:
        said = gibbon(*EVALUATE.split(), "--attack", "interrupts")
    finally:
        signal.signal(signal.SIGINT, handler)
    assert said.code == 1
    assert "KeyboardInterrupt" in said.out + said.err


def test_warnings_are_a_line_each(gibbon: Gibbon, plant: planted.Plant) -> None:
    def warned() -> Any:
        warnings.warn("mind\n the gap", stacklevel=1)
        return planted.rows(1)()

    plant.model("one", warned)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        said = gibbon(*EVALUATE.split())
    assert said.code == 0
    assert "warning: mind the gap" in said.err.splitlines()


# What is wrong with the suite


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name = \n", ["malformed TOML", "line 1, column 8"]),
        (HEAD + "[[attacks]\n", ["malformed TOML", "line 4, column"]),
        ("", ["name: is missing", "dataset: is missing", "models: is missing"]),
        (HEAD + "sede = 1\n", ["sede: unknown key; did you mean 'seed'?"]),
        (HEAD.replace("one", "on"), ["models[0]: unknown model 'on'; did you mean 'one'?"]),
        (
            HEAD.replace("squares", "sqares"),
            ["dataset: unknown dataset 'sqares'; did you mean 'squares'?", "Known: ", "mnist"],
        ),
        (
            HEAD + FGSM.replace("fgsm", "fgms"),
            ["attacks[0].name: unknown attack 'fgms'; did you mean 'fgsm'?", "pgd"],
        ),
        (
            HEAD + PGD + "step = 4\n",
            ["attacks[0].step: attack 'pgd' has no parameter 'step'; did you mean 'steps'?"],
        ),
        (HEAD + PGD + "steps = 0\n", ["attacks[0].steps: ", "greater than or equal to 1", "got 0"]),
        (HEAD + PGD + 'steps = "ten"\n', ["attacks[0].steps: ", "valid integer", "got 'ten'"]),
        (HEAD + PGD + "steps = 1.5\n", ["attacks[0].steps: ", "valid integer", "got 1.5"]),
        (HEAD + PGD + "steps = true\n", ["attacks[0].steps: ", "valid integer", "got True"]),
        (HEAD + PGD + 'loss = "hinge"\n', ["attacks[0].loss: ", "'cross-entropy' or 'margin'"]),
        (HEAD + PGD + 'step_size = "a"\n', ["attacks[0]", "must be a number", "got 'a'"]),
        (
            HEAD + FGSM + 'norm = "l2"\n',
            ["attacks[0].norm: attack 'fgsm' works in linf, not in l2"],
        ),
        (HEAD + FGSM + 'norm = "l7"\n', ["attacks[0].norm: ", "'linf'", "'l2'", "got 'l7'"]),
        (HEAD + FGSM + 'clip = "no"\n', ["attacks[0].clip: ", "boolean", "got 'no'"]),
        (HEAD + "seed = true\n", ["seed: ", "integer", "got True"]),
        (HEAD + "seed = -1\n", ["seed: ", "greater than or equal to 0", "got -1"]),
        (HEAD + FGSM + FGSM, ["two attacks have the label 'fgsm'", "`label`"]),
        (HEAD.replace('["one"]', '["one", "one"]'), ["two models have the name 'one'", "`name`"]),
        (HEAD + FGSM + 'label = "none"\n', ["attacks[0]: 'none' is the unattacked row"]),
        (
            HEAD + FGSM + '[transfer]\nattacks = ["fgms"]\n',
            ["transfer names attack 'fgms'", "did you mean 'fgsm'?"],
        ),
        (HEAD.replace('["one"]', '"one"'), ["models: must be a list, got 'one'"]),
        (HEAD.replace('["one"]', "[]"), ["models: must not be empty"]),
        (HEAD.replace('["one"]', "[3]"), ["models[0]: must be a table, got 3"]),
        (HEAD.replace('"mine"', '"../mine"'), ["name: must be made of letters", "got '../mine'"]),
        (HEAD.replace('"mine"', '"naïve"'), ["name: must be made of letters", "got 'naïve'"]),
        (HEAD.replace('"mine"', "5"), ["name: ", "string", "got 5"]),
        (HEAD + 'attacks = "fgsm"\n', ["attacks: must be a list, got 'fgsm'"]),
        ('name = "mine"\nexperiments = []\n', ["experiments: must not be empty"]),
        (
            'name = "mine"\n[[experiments]]\ndataset = "squares"\nmodels = ["one"]\n'
            '[[experiments]]\ndataset = "mnist"\nmodels = ["one"]\n'
            '[[experiments.attacks]]\nname = "pgd"\nepsilon = 1\nstep = 1\n',
            ["experiments[1].attacks[0].step: attack 'pgd' has no parameter 'step'"],
        ),
        (
            HEAD.replace('"one"', '{ model = "one", wieghts = "a" }'),
            ["models[0].wieghts: unknown key; did you mean 'weights'?"],
        ),
        (
            HEAD.replace('"one"', '{ model = "one", weights = "a.safetensors" }'),
            ["models[0]: 'one': it takes no weights file"],
        ),
    ],
)
def test_a_wrong_suite_is_refused(gibbon: Gibbon, text: str, parts: list[str]) -> None:
    assert_refused(gibbon("run", suite(text)), "error: mine.toml: ", *parts)


@pytest.mark.parametrize(
    "written",
    ['"big"', "nan", "inf", "-inf", '"1/0"', "true", "[[0.1]]", "{ a = 1 }", '""', "2020-01-01"],
)
def test_an_epsilon_that_is_no_number_is_refused(gibbon: Gibbon, written: str) -> None:
    said = gibbon("run", suite(HEAD + FGSM.replace('"0.1"', written)))
    assert_refused(said, "mine.toml: attacks[0].epsilon[0]: epsilon must be a number such as 0.25")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("-0.1", "attacks[0].epsilon[0]: epsilon must not be negative, got -0.1"),
        ('["0.1", "-8/255"]', "attacks[0].epsilon[1]: epsilon must not be negative, got '-8/255'"),
        ("[]", "attacks[0].epsilon: must not be empty"),
        ('[0.1, "1/10"]', "attacks[0].epsilon: epsilon 0.1 and 1/10 are the same"),
    ],
)
def test_an_epsilon_that_makes_no_sense_is_refused(
    gibbon: Gibbon, written: str, message: str
) -> None:
    assert_refused(gibbon("run", suite(HEAD + FGSM.replace('"0.1"', written))), message)


def test_an_epsilon_must_be_there(gibbon: Gibbon) -> None:
    said = gibbon("run", suite(HEAD + '[[attacks]]\nname = "fgsm"\n'))
    assert_refused(said, "mine.toml: attacks[0].epsilon: is missing")


def test_an_unknown_suite_is_refused(gibbon: Gibbon) -> None:
    assert_refused(gibbon("run", "smok"), "unknown suite 'smok'; did you mean 'smoke'?", "Known:")
    assert_refused(gibbon("run", "not/there.toml"), "not/there.toml: can't be read: No such file")
    Path("folder.toml").mkdir()
    assert_refused(gibbon("run", "folder.toml"), "folder.toml: can't be read: Is a directory")
    Path("latin.toml").write_bytes(b'name = "na\xefve"')
    assert_refused(gibbon("run", "latin.toml"), "latin.toml: is not UTF-8: 'utf-8' codec")


# What is wrong with the options


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["run", "--limt", "5"], ["No such option", "--limit"]),
        (["run", "--limit", "0"], ["--limit", "greater than or equal to 1"]),
        (["run", "--limit", "-3"], ["--limit", "greater than or equal to 1"]),
        (["run", "--limit", "ten"], ["--limit", "expected a whole number", "got 'ten'"]),
        (["run", "--batch-size", "0"], ["--batch-size", "greater than or equal to 1"]),
        (
            ["run", "--device", "gpu"],
            ["--device: expected auto, cpu, cuda, cuda:1 or mps", "'gpu'"],
        ),
        (["run", "--device", "cuda:x"], ["--device: expected auto, cpu", "got 'cuda:x'"]),
        (["run", "--device", "meta"], ["--device: expected auto, cpu", "got 'meta'"]),
        (["run", "--device", "cuda:99"], ["--device: 'cuda:99' is not there: torch sees"]),
        (["list", "modles"], ["did you mean 'models'"]),
        (["train", "sofmax"], ["unknown model with a recipe 'sofmax'; did you mean 'softmax'?"]),
        (["train", "softmax", "--parallel", "2"], ["--parallel: there is one training without"]),
        (
            ["train", "softmax", "--seeds", "1,x"],
            ["--seeds: seeds are numbers and ranges", "'1,x'"],
        ),
        (
            ["train", "softmax", "--seed", "1", "--seeds", "1,2"],
            ["--seed and --seeds exclude each other"],
        ),
        (["train", "softmax", "--recipe", "none.toml"], ["none.toml: can't be read"]),
        (["rum"], ["No such command 'rum'"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_wrong_option_is_refused(gibbon: Gibbon, words: list[str], parts: list[str]) -> None:
    assert_refused(gibbon(*words), *parts)


def test_several_seeds_are_trained_with_one_command(gibbon: Gibbon) -> None:
    words = ("train", "logistic", "--epochs", "1", "--seeds", "0-1", "--output", "out")
    said = gibbon(*words)
    assert said.code == 0, said.err
    assert said.out.count("logistic: clean error") == 2
    for seed in (0, 1):
        assert f"weights: out/seed-{seed}/logistic.safetensors" in said.out
        assert Path(f"out/seed-{seed}/logistic.json").exists()
    assert gibbon(*words).out.count("it was there already") == 2


def test_a_cuda_device_that_is_not_there_is_refused(
    gibbon: Gibbon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    said = gibbon("run", suite(HEAD), "--device", "cuda")
    assert_refused(said, "--device: 'cuda' is not there: torch sees 0 CUDA devices")


# What is wrong with weights


def weighted(path: str) -> str:
    models = f'[{{ model = "softmax", weights = "{path}" }}]'
    return suite(HEAD.replace('["one"]', models).replace("squares", "mnist"))


def test_weights_that_are_missing_or_damaged_are_refused(gibbon: Gibbon) -> None:
    where = "error: mine.toml: models[0]: 'softmax': mine.safetensors: "
    assert_refused(gibbon("run", weighted("mine.safetensors")), where + "can't be read: No such")
    content = (ZOO / "softmax.safetensors").read_bytes()
    for damaged in (b"", b"\x00", content[:-1], content[:100], b"not weights" + content):
        Path("mine.safetensors").write_bytes(damaged)
        said = gibbon("run", weighted("mine.safetensors"))
        assert_refused(said, where + "damaged, or not a safetensors file")


def test_weights_of_another_shape_are_refused(gibbon: Gibbon) -> None:
    own = load_file(ZOO / "softmax.safetensors")
    save_file({**own, "bias": torch.zeros(9)}, "mine.safetensors")
    said = gibbon("run", weighted("mine.safetensors"))
    assert_refused(said, "tensor 'bias' has shape (9,), the model needs (10,)")
    save_file({"bias": own["bias"], "wait": own["weight"]}, "mine.safetensors")
    said = gibbon("run", weighted("mine.safetensors"))
    assert_refused(said, "missing ['weight'], unexpected ['wait']")
    save_file({**own, "bias": torch.full((10,), torch.nan)}, "mine.safetensors")
    said = gibbon("run", weighted("mine.safetensors"))
    assert_refused(said, "tensor 'bias' holds NaN or infinity")


def test_weights_are_found_beside_their_suite(gibbon: Gibbon) -> None:
    weighted("my weights.safetensors")
    Path("a folder").mkdir()
    Path("mine.toml").rename("a folder/mine.toml")
    own = load_file(ZOO / "softmax.safetensors")
    save_file({**own, "bias": own["bias"] + 1}, "a folder/my weights.safetensors")
    said = gibbon("run", "a folder/mine.toml", "--limit", "20")
    assert said.code == 0, said.err
    (card,) = RunRecord.read(Path("results/runs/mine")).models
    assert (card.name, card.model) == ("softmax", "softmax")


class Bomb:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("it went off"),)


def test_weights_in_a_pickle_are_refused_and_not_opened(gibbon: Gibbon) -> None:
    Path("mine.safetensors").write_bytes(pickle.dumps(Bomb()))
    assert_refused(gibbon("run", weighted("mine.safetensors")), "this is a pickle (torch.save)")
    torch.save({"weight": torch.zeros(1)}, "mine.pt")
    said = gibbon("run", weighted("mine.pt"))
    assert_refused(said, "mine.pt: this is a pickle (torch.save)", "safetensors.torch.save_file")
    assert not Path("it went off").exists()


# What is wrong with the output folder


def test_a_folder_that_cannot_be_used_is_refused(gibbon: Gibbon, tmp_path: Path) -> None:
    name = suite(HEAD + FGSM)
    Path("file").write_text("mine")
    assert_refused(gibbon("run", name, "--output", "file"), "file: is a file, expected a folder")
    assert_refused(gibbon("run", name, "--output", "file/x"), "file/x: can't be written: Not a dir")
    Path("foreign").mkdir()
    Path("foreign/tables.md").write_text("theirs")
    said = gibbon("run", name, "--output", "foreign")
    assert_refused(said, "foreign: holds tables.md but no run.json", "choose another with --output")
    assert [each.name for each in Path("foreign").iterdir()] == ["tables.md"]
    assert Path("file").read_text() == "mine"


def test_a_folder_of_another_suite_is_refused_and_kept(gibbon: Gibbon) -> None:
    assert gibbon("run", suite(HEAD + FGSM), "--output", "out").code == 0
    before = {each: each.read_bytes() for each in Path("out").rglob("*") if each.is_file()}
    other = suite(HEAD.replace("mine", "other") + FGSM, "other.toml")
    for words in ([], ["--fresh"]):
        said = gibbon("run", other, "--output", "out", *words)
        assert_refused(said, "out: belongs to suite 'mine', not to 'other'; choose another folder")
    assert {each: each.read_bytes() for each in Path("out").rglob("*") if each.is_file()} == before


def test_a_wrong_request_loses_nothing(gibbon: Gibbon) -> None:
    """Not even with --fresh: everything is checked before anything is thrown away."""
    assert gibbon("run", suite(HEAD + FGSM), "--output", "out").code == 0
    before = {each: each.read_bytes() for each in Path("out").rglob("*") if each.is_file()}
    for text in (HEAD + FGSM + PGD + "steps = 0\n", HEAD.replace("one", "none-such")):
        assert gibbon("run", suite(text), "--output", "out", "--fresh").code == 2
    assert {each: each.read_bytes() for each in Path("out").rglob("*") if each.is_file()} == before


def test_a_damaged_record_is_refused(gibbon: Gibbon) -> None:
    assert gibbon("run", suite(HEAD), "--output", "out").code == 0
    Path("out/run.json").write_text('{"format": 1')
    said = gibbon("run", "mine.toml", "--output", "out")
    assert_refused(said, "out/run.json: damaged: not JSON")


def test_a_second_run_says_so_and_leaves(gibbon: Gibbon) -> None:
    assert gibbon("run", suite(HEAD), "--output", "out").code == 0
    with FileLock(Path("out") / LOCK_FILE):
        said = gibbon("run", "mine.toml", "--output", "out")
    assert_refused(said, "out: another run is using this folder")
    assert gibbon("run", "mine.toml", "--output", "out").code == 0


def test_a_full_disk_is_told(gibbon: Gibbon, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = gibbon("run", suite(HEAD), "--output", "out")
    assert_refused(said, "out/run.json: can't be written: No space left on device")


# What is wrong with a model or a dataset


class Says(torch.nn.Module):
    """Returns what a function makes of plain logits."""

    def __init__(self, change: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.inner = planted.Rows(1)
        self.change = change

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.change(self.inner(inputs))


def trouble(_: torch.Tensor) -> Any:
    return {}["the key"]


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (
            lambda: planted.classifier(Says(lambda z: z * torch.nan)),
            ["NaN or infinity for 60 of 60"],
        ),
        (lambda: planted.classifier(Says(lambda z: z[:, :2])), ["shape (60, 3), got (60, 2)"]),
        (lambda: planted.classifier(Says(lambda z: [z])), ["shape (60, 3), got list"]),
        (lambda: planted.classifier(Says(lambda z: z), outputs=PROBABILITIES), ["declares prob"]),
        (
            lambda: planted.classifier(Says(lambda z: z.softmax(1) / 2), outputs=PROBABILITIES),
            ["declares probabilities", "must sum to 1, got a sum of 0.5"],
        ),
        (
            lambda: planted.classifier(Says(lambda z: z.abs() + 1), outputs=LOG_SCORES),
            ["declares log-scores", "must not exceed 0"],
        ),
        (lambda: planted.classifier(Says(trouble)), ["can't be run", "KeyError: 'the key'"]),
        (lambda: planted.classifier(torch.nn.Linear(7, 3)), ["can't be run", "cannot be mult"]),
        (
            lambda: planted.Classifier(planted.Rows(1), classes=3, input_shape=(16,)),
            ["it takes inputs of shape (16,), dataset 'squares' has (1, 4, 4)"],
        ),
        (
            lambda: planted.classifier(planted.Rows(1), classes=10),
            ["it has 10 classes, dataset 'squares' has 3"],
        ),
        (
            lambda: planted.Classifier(
                planted.Rows(1),
                classes=3,
                input_shape=planted.SHAPE,
                bounds=Bounds(-1.0, 1.0),
            ),
            ["it takes inputs in [-1.0, 1.0], dataset 'squares' has them in [0.0, 1.0]"],
        ),
        (lambda: planted.Rows(1), ["must return a gibbon.models.classifier.Classifier, got Rows"]),
        (lambda: trouble(torch.zeros(1)), ["can't be built: KeyError: 'the key' (", "test_app.py"]),
    ],
)
def test_a_model_that_breaks_its_word_is_refused(
    gibbon: Gibbon, plant: planted.Plant, build: Callable[[], Any], parts: list[str]
) -> None:
    plant.model("one", build)
    assert_refused(
        gibbon("run", suite(HEAD + FGSM)), "error: mine.toml: models[0]: 'one': ", *parts
    )


class Odd(planted.ArrayDataset):
    """The squares with something wrong about them."""

    wrong = ""

    @property
    def labels(self) -> Any:
        labels = super().labels
        if self.wrong == "empty":
            return labels[:0]
        return labels + 1 if self.wrong == "labels" else labels

    def batch(self, ids: Any) -> Any:
        batch = super().batch(ids)
        inputs, labels = batch.inputs, batch.labels + (self.wrong == "labels")
        if self.wrong == "float64":
            inputs = inputs.double()
        if self.wrong == "outside":
            inputs = inputs * 255
        if self.wrong == "NaN":
            inputs = inputs * torch.nan
        if self.wrong == "int32":
            labels = labels.int()
        if self.wrong == "flat":
            inputs = inputs.flatten(1)
        if self.wrong == "order":
            return Batch(batch.ids.flip(0), inputs, labels)
        if self.wrong == "raises":
            return trouble(inputs)
        return Batch(batch.ids, inputs, labels)


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ("empty", "dataset 'squares' is empty"),
        ("labels", "labels must be 0 to 2, got 1 to 3"),
        ("float64", "inputs must be torch.float32, got torch.float64"),
        ("outside", "inputs must be in [0, 1], got ["),
        ("NaN", "inputs must be in [0, 1], got [nan, nan]"),
        ("int32", "labels must be torch.int64, got torch.int32"),
        ("flat", "a batch's shape must be (60, 1, 4, 4), got (60, 16)"),
        ("order", "a batch must hold the requested examples, in their order"),
        ("raises", "dataset: 'squares' can't be loaded: KeyError: 'the key'"),
    ],
)
def test_a_dataset_that_breaks_its_word_is_refused(
    gibbon: Gibbon, plant: planted.Plant, monkeypatch: pytest.MonkeyPatch, wrong: str, part: str
) -> None:
    monkeypatch.setattr(Odd, "wrong", wrong)
    data = planted.squares()
    plant.dataset(
        "squares",
        lambda request: Odd("squares", data.pixels, targets=data.targets, classes=data.classes),
    )
    assert_refused(gibbon("run", suite(HEAD + FGSM)), part)


def test_an_empty_dataset_is_refused(gibbon: Gibbon, plant: planted.Plant) -> None:
    nothing = np.zeros((0, *planted.SHAPE), dtype=np.uint8)
    plant.dataset(
        "squares",
        lambda request: planted.ArrayDataset(
            "squares", nothing, targets=np.zeros(0, dtype=np.int64), classes=("a", "b", "c")
        ),
    )
    assert_refused(gibbon("run", suite(HEAD + FGSM)), "'squares'", "empty")


# Check: an attack against the laws

ATTACKS_OF_MINE = """
from dataclasses import dataclass
import torch
from gibbon.attacks.base import Attack
from gibbon.core.threat import Norm

@dataclass(frozen=True)
class Good(Attack):
    norms = (Norm.LINF, Norm.L2)
    length: float = 1.0

    def propose(self, classifier, inputs, *, labels, threat, streams):
        moved = inputs + self.length * threat.radius / 6 * (0.5 - inputs).sign()
        yield moved if threat.bounds is None else moved.clamp(threat.bounds.low, threat.bounds.high)

@dataclass(frozen=True)
class Draws(Good):
    def propose(self, classifier, inputs, *, labels, threat, streams):
        yield (inputs + threat.radius * (torch.rand_like(inputs) - 0.5)).clamp(0, 1)

def function(): ...
"""


@pytest.fixture
def mine() -> None:
    Path("mine.py").write_text(ATTACKS_OF_MINE, encoding="utf-8")


def test_an_attack_that_keeps_the_laws_passes(gibbon: Gibbon, mine: None) -> None:
    laws = ["--law", "budget", "--law", "seed", "--law", "batch"]
    said = gibbon("check", "mine.py:Good", "--norm", "linf", "--norm", "l2", *laws, "--length", "1")
    assert said.code == 0, said
    assert "Conformance of mine.py:Good" in said.out
    assert re.search(r"budget .*L∞, L2 +kept +at most 0.1667 ε / at most 1 ε", said.out)
    assert "Parameters: length = 1.0." in said.out
    assert "mine.py:Good: 6 of 6 laws and norms kept, none broken" in said.out


def test_an_attack_that_breaks_a_law_is_told_what_to_do(gibbon: Gibbon, mine: None) -> None:
    said = gibbon("check", "mine:Draws", "--norm", "linf", "--law", "generators", "--law", "seed")
    assert said.code == 1
    assert re.search(r"generators .*L∞ +BROKEN", said.out)
    assert (
        "BROKEN, generators in L∞: the global generator of torch moved. "
        "Draw every random number from `streams`" in said.out
    )
    assert "0 of 2 laws and norms kept, 2 broken" in said.out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("mine.py:Goof", ["no 'Goof'", "did you mean 'Good'?"]),
        ("mine.py:function", ["'mine.py:function' must be a dataclass derived from"]),
        ("nine.py:Good", ["no file 'nine.py'", "did you mean 'mine.py'?"]),
        ("fgsn", ["unknown attack 'fgsn'; did you mean 'fgsm'?"]),
        ("fulbox:PGD", ["'fulbox'"]),
        ("pgd --step 4", ["no parameter 'step'", "'steps'"]),
        ("pgd --steps few", ["steps", "'few'"]),
        ("pgd --epsilon 0.1", ["epsilon is no parameter", "budgets of their own"]),
        ("fgsm --norm l2", ["'fgsm' works in linf, not in l2"]),
        ("fgsm --norm l3", ["l3"]),
        ("fgsm --law seeds", ["unknown law 'seeds'; did you mean 'seed'?"]),
        ("fgsm 20", ["unexpected '20'", "--steps 20"]),
        ("--steps 20 pgd", ["say which attack first"]),
    ],
)
def test_a_wrong_check_is_refused(gibbon: Gibbon, mine: None, words: str, parts: list[str]) -> None:
    assert_refused(gibbon("check", *words.split()), *parts)


def test_the_help_of_check_holds_examples(gibbon: Gibbon) -> None:
    said = gibbon("check", "--help")
    assert said.code == 0
    assert "check attacks/mine.py:MyAttack\n" in said.out
    assert "check foolbox:LinfPGD --steps 20" in said.out


# Lists, help and the ways in


def python(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], check=False, capture_output=True, text=True, timeout=60, **options
    )


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "run --help",
        "list models",
        "list models --long",
        "list attacks",
        "list datasets",
        "list suites",
        "run no-such-suite",
        "evaluate --help",
        "check --help",
        "evaluate --model rbf --dataset mnist --attack fgsm --epsilon big",
    ],
)
def test_what_needs_no_torch_imports_none(words: str) -> None:
    script = (
        "import sys\n"
        f"sys.argv = ['gibbon', *{words.split()!r}]\n"
        "from gibbon.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'torchvision', 'matplotlib', 'pandas', 'tensorboard'}\n"
        "sys.exit(f'imported {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)\n"
    )
    before = os.times()
    done = python("-c", script)
    after = os.times()
    assert done.returncode == 0, done.stderr
    # Of work, not of waiting: the machine may be busy.
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 1


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("models", ["softmax", "logistic", "maxout", "maxout-adv", "rbf"]),
        ("attacks", ["fgsm", "fgsm-naive", "noise-uniform", "noise-sign", "pgd"]),
        ("datasets", ["mnist", "mnist-3v7", "fashion-mnist", "cifar10"]),
        ("suites", ["goodfellow2015", "mnist-linf", "smoke"]),
    ],
)
def test_a_list_holds_a_line_about_each(gibbon: Gibbon, kind: str, names: list[str]) -> None:
    said = gibbon("list", kind)
    assert said.code == 0
    lines = {line.split()[0]: line for line in said.out.splitlines() if line}
    assert set(names) <= set(lines)
    assert all(len(lines[name].split()) > 3 for name in names)


@pytest.mark.parametrize(
    ("kind", "sources"),
    [
        ("models", ["python", "onnx", "torchvision", "timm", "hf"]),
        ("attacks", ["foolbox:NAME", "torchattacks:NAME", "art:NAME", "advlib:NAME"]),
        ("datasets", ["photos/val", "data.npz", "torchvision:CIFAR100", "path/to/data.py:load"]),
    ],
)
def test_a_list_says_where_else_they_come_from(
    gibbon: Gibbon, kind: str, sources: list[str]
) -> None:
    _, _, others = gibbon("list", kind).out.partition("\n\n")
    assert set(sources) <= {line.split()[0] for line in others.splitlines()}


def test_a_list_says_what_is_not_installed(gibbon: Gibbon, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "art" else find("math")
    )
    (line,) = (each for each in gibbon("list", "attacks").out.splitlines() if "art:NAME" in each)
    assert line.endswith(" [not installed]")
    assert gibbon("list", "attacks").out.count("[not installed]") == 1


def test_a_long_list_holds_the_cards(gibbon: Gibbon) -> None:
    said = gibbon("list", "models", "--long")
    assert said.code == 0
    for word in ("softmax: ", "recipe", "trained", "clean", "FGSM", "sha256"):
        assert word in said.out


def test_a_card_that_is_missing_hides_no_other(
    gibbon: Gibbon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "softmax.json").write_bytes((ZOO / "softmax.json").read_bytes())
    monkeypatch.setattr("gibbon_zoo.catalogue.WEIGHTS", tmp_path)
    said = gibbon("list", "models", "--long")
    assert said.code == 0
    assert "(no card: " in said.out
    assert "sha256" in said.out


def test_all_ways_in_are_one() -> None:
    script = Path(sys.executable).with_name("gibbon")
    ways = [[sys.executable, "-m", "gibbon"], [sys.executable, str(ROOT / "run_benchmark.py")]]
    if script.exists():
        ways.append([str(script)])
    for words in (["list", "suites"], ["list", "models"], ["run", "smok"]):
        answers = {
            (done.returncode, done.stdout, done.stderr)
            for way in ways
            if (done := subprocess.run([*way, *words], check=False, capture_output=True, text=True))
        }
        assert len(answers) == 1


def test_a_second_run_leaves_and_ctrl_c_ends_the_first(gibbon: Gibbon, tmp_path: Path) -> None:
    text = (
        'name = "mine"\ndataset = "mnist"\nmodels = ["softmax"]\n'
        '[[attacks]]\nname = "pgd"\nepsilon = "0.1"\nsteps = 100000\n'
    )
    words = ["run", suite(text), "--limit", "100", "--output", "out"]
    with subprocess.Popen(
        [sys.executable, "-m", "gibbon", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "2 cells to compute" in process.stderr.readline()
        assert_refused(gibbon(*words), "error: out: another run is using this folder")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted; what was done is kept" in err
    assert "Traceback" not in err
    assert RunRecord.read(tmp_path / "out").status == "running"
