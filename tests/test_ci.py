"""The documentation of the gate: what it shows works, and its numbers are what the library says."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from gibbon.cli.app import app
from gibbon.gate.limits import read_limits
from gibbon.specs.decoding import parse_suite

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "ci.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def shown(kind: str, start: str) -> str:
    """The block of the page that starts so."""
    (text,) = (text for each, text in BLOCKS if each == kind and text.startswith(start))
    return text


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    return yaml.safe_load((DOCS / "robustness.yml").read_text(encoding="utf-8"))


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_the_workflow_may_read_and_nothing_else(workflow: dict[Any, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow[True]) == {"pull_request", "push", "workflow_dispatch"}  # "on" is a truth
    assert all("permissions" not in job for job in workflow["jobs"].values())
    assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())


def test_its_actions_are_pinned_to_a_major_version(workflow: dict[Any, Any]) -> None:
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert len(used) == 6
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", each) for each in used)


def test_its_steps_are_commands_of_ours(workflow: dict[Any, Any]) -> None:
    commands = [shlex.split(step["run"]) for step in steps(workflow) if "run" in step]
    ours = [words[1:] for words in commands if words[0] == "gibbon"]
    assert [words[0] for words in ours] == ["run", "compare"]
    assert_known(ours)


def test_the_commands_of_the_page_are_ours() -> None:
    lines = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    ours = [shlex.split(line)[1:] for line in lines if line.startswith("gibbon ")]
    assert len(ours) == 7
    assert_known(ours)


def test_the_commands_of_the_page_do_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("robustness").mkdir()
    Path("robustness/suite.toml").write_text(shown("toml", "# robustness/suite.toml"))
    lines = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    for line in (each for each in lines if each.startswith("gibbon ")):
        words = shlex.split(line)[1:]
        if words[0] == "run":
            words = [*words, "--limit", "40", "--no-pictures"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (line, done.output)
        if "--accept" in words and words[0] == "compare":
            assert "accepted: zero-gradient (--accept): not raised" in done.stderr
    limits = shown("toml", "# in robustness/baseline.toml")
    Path("robustness/baseline.toml").write_text(limits)
    done = CliRunner().invoke(app, ["compare", "robustness/baseline.json", "robustness-run"])
    assert done.exit_code == 0, done.output
    assert "accepted: zero-gradient (robustness/baseline.toml: limits[0]): not rai" in done.stderr


def assert_known(commands: list[list[str]]) -> None:
    """Each is parsed by the command that it names, without being run."""
    for words in commands:
        command: Any = get_command(app)
        while hasattr(command, "commands"):
            command, words = command.commands[words[0]], words[1:]
        command.make_context("gibbon", list(words), resilient_parsing=False)


def test_the_suite_and_the_limits_of_the_page_are_read(tmp_path: Path) -> None:
    suite = parse_suite(shown("toml", "# robustness/suite.toml"), where="ci.md")
    assert suite.name == "gate"
    (tmp_path / "baseline.toml").write_text(shown("toml", "# robustness/baseline.toml"))
    assert len(read_limits(tmp_path / "baseline.toml").limits) == 3


def test_the_table_is_what_its_command_prints() -> None:
    script = shown("sh", "python - <<'END'").partition("\n")[2].rpartition("END")[0]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(script, {})  # noqa: S102  # our own page
    assert printed.getvalue().count("\n") == 8
    assert printed.getvalue() in PAGE
