"""Options about inputs without a class, and the arguments of the Python call."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gibbon import DatasetSpec, evaluate
from gibbon.cli import app
from gibbon.cli.grammar import parse_request
from gibbon.cli.suite_writer import suite_toml
from gibbon.core.errors import SpecError
from gibbon.records.no_class import FoolingRate, NoClassEvaluation, NoClassShare
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.decoding import parse_suite

Main = Callable[[list[str]], int]


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Main:
    """Runs a command in this process and returns its exit code."""

    def run(words: list[str]) -> int:
        monkeypatch.setattr(sys, "argv", ["gibbon", *words])
        try:
            app.main()
        except SystemExit as leaving:
            return int(leaving.code or 0)
        return 0

    return run


NOISE = "--model rbf --dataset rubbish:gaussian"


def test_noise_needs_no_attack_and_is_compared_with_a_dataset() -> None:
    words = f"{NOISE} --count 50 --against mnist --threshold 0.3 --fooling 8/255 --seed 4"
    suite = parse_request([*words.split(), "--fooling-direction", "unit"]).suite
    clean, noise = suite.experiments
    assert (clean.dataset.name, clean.attacks, clean.models) == ("mnist", (), noise.models)
    assert (noise.dataset.source, noise.dataset.count, noise.against) == (
        "rubbish:gaussian", 50, "mnist",
    )  # fmt: skip
    assert noise.fooling is not None
    assert (noise.threshold, str(noise.fooling.step), noise.fooling.direction) == (
        0.3, "8/255", "unit",
    )  # fmt: skip
    assert suite.name == "rubbish-gaussian-rbf"
    written = suite_toml(suite, folder=Path())
    assert parse_suite(written, where="x.toml") == suite


def test_options_describe_each_dataset_that_takes_them(tmp_path: Path) -> None:
    for place in ("seen/a", "seen/b", "unseen"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / place / "one.png")
    words = ["--model", "rbf", "--dataset", str(tmp_path / "unseen"), "--classes", "none"]
    words += ["--against", str(tmp_path / "seen"), "--resize", "8", "--class-order", "text"]
    seen, unseen = parse_request(words).suite.experiments
    assert (seen.dataset.resize, unseen.dataset.resize) == (8, 8)
    assert (seen.dataset.class_order, unseen.dataset.class_order) == ("text", None)
    assert (seen.dataset.classes, unseen.dataset.classes) == (None, "none")
    words = ["--model", "rbf", "--dataset", "mnist", "--classes", "none", "--against", "mnist"]
    both = parse_request(words)
    assert [each.dataset.name for each in both.suite.experiments] == ["mnist-2", "mnist"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"{NOISE} --attack fgsm --epsilon 1", "attack 'fgsm' needs the true class"),
        ("--model rbf --dataset mnist --classes some", "--classes: expected none, got 'some'"),
        (f"{NOISE} --threshold 1", "--threshold: expected a probability"),
        (f"{NOISE} --fooling-direction sign", "--fooling-direction: is that of a step"),
        (f"{NOISE} --fooling 1 --fooling-direction up", "--fooling-direction: expected gradient"),
        (f"{NOISE} --fooling 0", "--fooling: a step must be longer than 0"),
        (f"{NOISE} --against mnits", "--against: unknown dataset 'mnits'; did you mean 'mnist'"),
        (f"{NOISE} --against rubbish:uniform", "--against: 'rubbish-uniform' has no classes"),
        (f"{NOISE} --shape 3,x", "--shape: expected whole numbers"),
        ("--model rbf --dataset rubbish:gausian", "--dataset: unknown noise"),
        (
            "--model rbf --dataset mnist --attack fgsm --epsilon 1 --against mnist",
            "--against: is for inputs without a class",
        ),
    ],
)
def test_a_wrong_request_names_the_option(
    main: Main, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: str, message: str
) -> None:
    assert main(["evaluate", *words.split(), "--output", str(tmp_path / "run")]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_command_prints_and_writes_what_it_measured(
    main: Main, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = f"{NOISE} --model softmax --count 40 --against mnist --limit 40 --output {tmp_path}"
    assert main(["evaluate", *words.split()]) == 0
    out = capsys.readouterr()
    assert "Inputs without a class on rubbish-gaussian" in out.out
    assert "40 draws of N(0, I), seed 0, not clipped" in out.err
    assert (tmp_path / "no_class.csv").read_text().count("\n") == 3
    assert main(["evaluate", *words.split()]) == 0
    assert "0 cells to compute" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 0


def test_an_audit_needs_data_with_classes(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rbf", "--unit-test", "--dataset", "rubbish:gaussian"]
    assert main(["audit", *words]) == 2
    assert "examples are planted in data with classes" in capsys.readouterr().err


NET = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
with torch.no_grad():
    NET[1].weight.copy_(torch.eye(3).repeat(1, 4) * 3)
DATA = torch.rand(30, 3, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3


def test_a_call_takes_a_tensor_a_spec_or_noise() -> None:
    inputs = DATA[0][:20]
    one = evaluate(NET, inputs, classes="none", against=DATA, fooling=0.5, threshold=0.4)
    expected = NET(inputs).softmax(1).amax(1) > 0.4
    (row,) = one.no_class
    assert row.false_positives == int(expected.sum())
    assert (row.clean_examples, row.against, len(one.fooling)) == (30, "data-2", 3)
    assert one.no_class_frame()["examples"].tolist() == [20]
    assert "Inputs without a class" in str(one)
    assert one.select(model=row.model).no_class == one.no_class
    array = evaluate(NET, np.asarray(inputs), classes="none", threshold=0.4)
    assert array.no_class[0].false_positives == row.false_positives
    spec = DatasetSpec(name="n", source="rubbish:uniform", count=25, shape=(3, 2, 2))
    assert evaluate(NET, spec).no_class[0].examples == 25
    assert evaluate(NET, "rubbish:uniform", count=9, against=DATA).no_class[0].auroc is not None
    assert evaluate("rbf", "rubbish:gaussian", count=9).no_class[0].false_positives == 0


def test_a_call_says_what_is_missing_or_does_not_apply() -> None:
    with pytest.raises(SpecError, match=r"declared by classes=.none."):
        evaluate(NET, DATA)
    assert evaluate(NET, DATA, attack=[]).clean_error >= 0
    with pytest.raises(SpecError, match="needs the true class"):
        evaluate(NET, DATA[0], classes="none", attack="fgsm", epsilon=0.1)
    with pytest.raises(SpecError, match="the shape of one draw is not known"):
        evaluate(NET, "rubbish:gaussian")
    with pytest.raises(SpecError, match="against: is for inputs without a class"):
        evaluate(NET, DATA, attack=[], against=DATA)
    with pytest.raises(SpecError, match="fooling: "):
        evaluate(NET, DATA[0], classes="none", fooling="far")


PAGE = Path(__file__).parents[2] / "docs" / "no-class.md"


def quoted(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_python_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks, names = quoted("python"), dict[str, object]()
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)  # noqa: S102
    assert "false_positives" in capsys.readouterr().out
    (row,) = names["results"].no_class  # type: ignore[attr-defined]
    assert row.examples == 20


def test_the_suite_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    clothes = np.zeros((9, 28, 28), np.uint8)
    np.savez(tmp_path / "photos" / "clothes.npz", inputs=clothes)
    (text,) = quoted("toml")
    suite = parse_suite(text, where="page.toml")
    record = run_suite(suite, tmp_path / "run", settings=RunSettings(limit=20, examination=False))
    assert [each.dataset for each in record.no_class] == ["rubbish-gaussian"] * 2 + ["clothes"] * 2
    assert {each.against for each in record.no_class} == {"mnist"}
    assert len(record.fooling) == 20


def test_the_command_of_the_page_runs(main: Main, tmp_path: Path) -> None:
    (command,) = quoted("sh")
    words = command.replace("\\\n", " ").split()
    assert words[:3] == ["python", "run_benchmark.py", "evaluate"]
    few = ["--count", "20", "--limit", "20", "--output", str(tmp_path)]
    given = [each for each in words[3:] if each != "1000"]
    given = [each for each in given if each not in ("--count", "--limit")]
    assert main(["evaluate", *given, *few]) == 0


def test_the_page_names_every_column() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for kind in (NoClassEvaluation, NoClassShare, FoolingRate):
        for name in kind.model_fields:
            if name.endswith(("_low", "_high", "_passes")) or name in ("seconds",):
                continue
            if name in ("dataset", "model"):
                continue
            assert f"`{name}`" in text, name
