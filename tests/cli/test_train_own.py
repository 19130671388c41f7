"""`train --model` and `gibbon.train`: a user's own model from images to an evaluation."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import gibbon
from gibbon.cli import app as cli
from gibbon.cli import tensorboard_server
from gibbon.core.errors import RunFolderError, SpecError

NET = """
from torch import nn

def build(width=8):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(),
        nn.Linear(9 * width, 2),
    )
"""
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs a command in a folder with a network and pictures: exit code, output and messages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("net.py").write_text(NET, encoding="utf-8")
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 10)):
        for place, name in enumerate(("dark", "light")):
            folder = Path("photos", split, name)
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (8, 8, 3)) + 120 * place
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gibbon", *words])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


WORDS = (
    *("train", "--model", "net.py:build", "--arg", "width=4", "--name", "small"),
    *("--dataset", "photos/train", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"),
    *("--epochs", "3", "--batch-size", "16", "--output", "out"),
)
VALIDATED = (*WORDS, "--validation", "photos/val")


@pytest.mark.parametrize("objective", ["fgsm", "free"])
def test_one_command_trains_and_another_evaluates_the_weights(
    command: Command, objective: str
) -> None:
    words = (*VALIDATED, "--objective", objective, "--epsilon", "8/255", "--flip", "--shift", "1")
    code, out, err = command(*words, "--set", "optimiser.weight_decay=0.001")
    assert code == 0, err
    assert "on 20 validation examples" in out
    assert "weights: out/small.safetensors" in out
    card = json.loads(Path("out/small.json").read_text(encoding="utf-8"))
    assert card["recipe"]["objective"]["epsilon"] == "8/255"
    assert card["recipe"]["optimiser"]["weight_decay"] == 0.001
    assert card["recipe"]["augmentation"] == {"flip": True, "shift": 1}
    stored = load_file("out/small.safetensors")
    assert "0.weight" in stored  # the user's names, without those of the normalisation
    code, out, err = command(
        *("evaluate", "--model", "net.py:build", "--arg", "width=4", "--name", "small"),
        *("--weights", "out/small.safetensors", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"),
        *("--dataset", "photos/val", "--attack", "fgsm", "--epsilon", "8/255", "--output", "run"),
        "--no-examination",
    )
    assert code == 0, err
    rows = json.loads(Path("run/run.json").read_text(encoding="utf-8"))["evaluations"]
    assert rows[0]["clean_error"] == card["figures"]["clean_error"]
    assert command(*words, "--set", "optimiser.weight_decay=0.001")[1].count("there already") == 1


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ((), "out/tensorboard"),
        (("--tensorboard", "events"), "events"),
        (("--no-tensorboard",), None),
        (("--tensorboard", "events", "--seeds", "3"), "events/seed-3"),
    ],
)
def test_tensorboard_is_written_beside_the_weights_elsewhere_or_not_at_all(
    command: Command, options: tuple[str, ...], folder: str | None
) -> None:
    code, _, err = command(*WORDS, "--objective", "standard", *options)
    assert code == 0, err
    written = {each.parent.parent for each in Path().rglob("*tfevents*")}
    assert written == (set() if folder is None else {Path(folder)})
    code, _, err = command("train", "maxout", "--no-tensorboard", "--watch")
    assert (code, "--no-tensorboard excludes" in err) == (2, True)


@pytest.mark.slow
def test_watching_prints_an_address_that_answers(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[bytes] = []
    say = tensorboard_server.say

    def visit(text: str, **named: bool) -> None:
        address = re.search(r"http://\S+", text)
        if address is not None:
            with urllib.request.urlopen(address[0]) as page:  # noqa: S310  on this machine
                answers.append(page.read())
        say(text, **named)

    monkeypatch.setattr(tensorboard_server, "say", visit)
    code, _, err = command(*WORDS, "--objective", "standard", "--watch")
    assert code == 0, err
    assert b"TensorBoard" in answers[0]
    assert "to see it again: tensorboard --logdir out/tensorboard" in err


def test_a_server_that_does_not_start_is_an_error(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard_server.sys, "executable", "/bin/false")
    code, _, err = command(*WORDS, "--objective", "standard", "--watch")
    assert code == 2
    assert "--watch: TensorBoard did not start" in err


def test_several_seeds_have_a_folder_each(command: Command) -> None:
    code, out, err = command(*WORDS, "--objective", "standard", "--seeds", "0,1")
    assert code == 0, err
    first, second = (load_file(f"out/seed-{seed}/small.safetensors") for seed in (0, 1))
    assert not torch.equal(first["0.weight"], second["0.weight"])
    assert out.count("held-out training examples") == 2


def test_a_recipe_file_holds_every_field(command: Command) -> None:
    Path("recipe.toml").write_text(
        'epochs = 9\nbatch_size = 8\n[objective]\nname = "pgd"\nepsilon = "4/255"\nsteps = 2\n'
        '[optimiser]\nname = "sgd"\nlearning_rate = 0.01\nmomentum = 0.5\n'
        "rate_ramp = { end = 3, final = 0.001 }\n[stopping]\npatience = 2\n",
        encoding="utf-8",
    )
    code, _, err = command(*VALIDATED, "--recipe", "recipe.toml", "--steps", "3")
    assert code == 0, err
    recipe = json.loads(Path("out/small.json").read_text(encoding="utf-8"))["recipe"]
    assert recipe["epochs"] == 3
    assert recipe["objective"]["steps"] == 3
    assert recipe["objective"]["epsilon"] == "4/255"
    assert recipe["optimiser"]["rate_ramp"]["final"] == 0.001


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train",), "say which model to train"),
        (("train", "maxout", "--dataset", "photos/train"), "--dataset is for your own model"),
        (("train", "--model", "net.py:build"), "missing: --dataset"),
        (("train", "--dataset", "photos/train"), "missing: --model"),
        (WORDS, "--objective: is missing"),
        ((*WORDS, "--objective", "pgd"), "--objective: the objective pgd needs a budget"),
        ((*WORDS, "--objective", "trade"), "--objective: unknown objective 'trade'; did you mean"),
        ((*WORDS, "--objective", "pgd", "--epsilon", "x"), "--epsilon: epsilon must be a number"),
        ((*WORDS, "--objective", "pgd", "--epsilon=-1"), "--epsilon: epsilon must not be negative"),
        ((*WORDS, "--objective", "pgd", "--steps", "0"), "--steps: expected a whole number"),
        ((*WORDS, "--objective", "standard", "--set", "epoch=3"), "did you mean 'epochs'"),
        ((*WORDS, "--objective", "standard", "--set", "x"), "--set: expected KEY=VALUE"),
        ((*WORDS, "--objective", "standard", "--norm", "l1"), "--norm: Input should be"),
        ((*WORDS, "--objective", "standard", "--validation", "photos/train"), "--validation: the"),
        ((*WORDS, "--objective", "standard", "--validation", "photos/vla"), "photos/vla"),
        ((*WORDS, "--objective", "standard", "--weights", "no.pt"), "no.pt"),
        ((*WORDS, "--objective", "standard", "--arg", "widht=3"), "widht"),
        (("train", "own"), "own trains a model of yours"),
        ((*WORDS, "--objective", "standard", "--set", "seed=3", "--seeds", "0,1"), "--seeds: excl"),
        ((*WORDS, "--objective", "standard", "--set", "seed=3", "--seed", "0"), "--seed: excludes"),
        ((*WORDS, "--objective", "standard", "--set", "objective.name=pgd"), "--objective: excl"),
        ((*WORDS, "--objective", "standard", "--no-stopping", "--patience", "3"), "--patience: it"),
        (
            ("train", "--model", "net.py:build", "--dataset", "rubbish:gaussian"),
            "--objective: is missing",
        ),
        (
            (
                *("train", "--model", "net.py:build", "--dataset", "rubbish:gaussian"),
                *("--objective", "standard", "--output", "out"),
            ),
            "training needs labels",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_request_is_refused(command: Command, words: tuple[str, ...], said: str) -> None:
    code, _, err = command(*words)
    assert code == 2, err
    assert said in err.replace("\n", " ")
    assert "Traceback" not in err
    assert not Path("out").exists()


def test_damaged_files_are_named_and_nothing_is_lost(command: Command) -> None:
    Path("out").mkdir()
    checkpoint = Path("out/small.search.checkpoint.pt")
    checkpoint.write_bytes(b"damaged")
    code, _, err = command(*VALIDATED, "--objective", "standard")
    assert code == 2
    assert "small.search.checkpoint.pt: damaged" in err
    assert checkpoint.read_bytes() == b"damaged"
    Path("photos/train/dark/0.png").write_bytes(b"no picture")
    code, _, err = command(*VALIDATED, "--objective", "standard", "--fresh")
    assert code == 2
    assert "1 examples can't be read" in err
    code, _, err = command(*VALIDATED, "--objective", "standard", "--fresh", "--skip-unreadable")
    assert code == 0, err
    assert "left out, since it can't be read" in err


def test_classes_in_another_order_are_refused(command: Command) -> None:
    Path("photos/val/dark").rename("photos/val/zebra")
    code, _, err = command(*VALIDATED, "--objective", "standard")
    assert code == 2
    assert "must have equal classes" in err
    assert "only one of them has dark, zebra" in err


def test_a_module_is_trained_in_place_from_python(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)
    )
    inputs = torch.rand(120, 3, 2, 2)
    labels = (inputs.mean((1, 2, 3)) > 0.5).long()
    before = net[1].weight.clone()
    net.eval()

    def train(**more: object) -> gibbon.TrainingResult:
        return gibbon.train(
            net,
            (inputs, labels),
            output=tmp_path / "out",
            name="net",
            objective="pgd",
            epsilon=8 / 255,
            epochs=3,
            recipe={"objective.steps": 2, "optimiser": {"name": "adam", "learning_rate": 0.01}},
            progress=False,
            tensorboard=None,
            **more,  # type: ignore[arg-type]
        )

    result = train(validation=(inputs[:40], labels[:40]))
    stored = load_file(result.weights)
    assert all(torch.equal(value, stored[key]) for key, value in net.state_dict().items())
    assert not torch.equal(net[1].weight, before)
    assert not any(part.training for part in net.modules())
    assert "at epsilon 8/255, on 40 validation examples" in result.summary
    with torch.no_grad():
        net[1].weight.zero_()
    again = train(validation=(inputs[:40], labels[:40]))
    assert again.summary.endswith("it was there already")
    assert torch.equal(net[1].weight, stored["1.weight"])
    with pytest.raises(RunFolderError, match="another recipe"):
        train()
    with pytest.raises(SpecError, match="epsilon must be a number"):
        gibbon.train(net, (inputs, labels), output=tmp_path, objective="pgd", epsilon="x")
