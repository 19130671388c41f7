"""What the README says is true: its tables, its picture, and the code that it quotes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmark.attacks.base import build_attack
from benchmark.classifier import probe
from benchmark.registry import Entry
from benchmark.report.readme import main as readme
from benchmark.rng import ExampleStreams
from benchmark.specs import AttackSpec, parse_suite, shipped_suites
from benchmark.threat import Bounds, Epsilon, Norm, ThreatModel

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
MOST_LINES = 20


def quoted(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def quoted_with(language: str, word: str) -> str:
    (block,) = [block for block in quoted(language) if word in block]
    return block


def test_tables_and_picture_are_in_step_with_the_records() -> None:
    assert readme([str(README), "--check"]) == 0


def test_the_printed_suite_is_a_suite() -> None:
    suite = parse_suite(quoted_with("toml", "[[attacks]]"), where="README.md")
    assert suite.experiments[0].transfer is not None
    assert [attack.name for attack in suite.experiments[0].attacks] == ["fgsm", "pgd"]


@pytest.mark.parametrize("name", ["small_net", "Grey"])
def test_examples_are_short(name: str) -> None:
    lines = [line for line in quoted_with("python", name).splitlines() if line.strip()]
    assert len(lines) < MOST_LINES


def test_the_model_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 5, stride=2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(2304, 10),
    )
    save_file(own.state_dict(), tmp_path / "small_net.safetensors")
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    exec(quoted_with("python", "small_net"), space)  # noqa: S102
    build = space["small_net"]
    assert callable(build)
    assert probe(build(), torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_the_attack_example_works(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.attacks import ATTACKS

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
