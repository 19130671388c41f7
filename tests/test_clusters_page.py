"""What the page on clusters shows works, as far as it can be run without a cluster."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from gibbon.cli.app import app
from gibbon.records.run import RunRecord
from tools.records.estimates import BAR, RECORD, SUITES

PAGE = (Path(__file__).parents[1] / "docs" / "clusters.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
SCRIPTS = [text for kind, text in BLOCKS if kind == "sh"]
COMMANDS = ("run", "merge", "compare", "report", "baseline")


def block(kind: str, *holds: str) -> str:
    """The block of the page that holds these texts."""
    (text,) = (each for one, each in BLOCKS if one == kind and all(word in each for word in holds))
    return text


def commands(text: str) -> list[list[str]]:
    """The commands of ours in a script."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [
        line.partition("gibbon ")[2] for line in lines if re.search(r"(^|exec |: )gibbon ", line)
    ]
    return [shlex.split(each, comments=True) for each in found]


def test_its_commands_are_known() -> None:
    found = [words for _, text in BLOCKS for words in commands(text)]
    assert {words[0] for words in found} == set(COMMANDS)
    known = get_command(app)
    for words in found:
        command = known.commands[words[0]]  # type: ignore[attr-defined]
        options = {flag for each in command.params for flag in each.opts}
        assert {word for word in words if word.startswith("--")} <= options, words


@pytest.mark.parametrize("text", SCRIPTS)
def test_bash_reads_its_scripts(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, text=True, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_workflow_merges_the_shards_that_it_uploads() -> None:
    workflow = yaml.safe_load(block("yaml", "matrix"))
    shard, merge = workflow["jobs"]["shard"], workflow["jobs"]["merge"]
    assert workflow["permissions"] == {"contents": "read"}
    assert merge["needs"] == "shard"
    numbers = shard["strategy"]["matrix"]["shard"]
    (merged,) = (
        shlex.split(each["run"]) for each in merge["steps"] if "gibbon merge" in each.get("run", "")
    )
    assert [each for each in merged if each.startswith("shards/")] == [
        f"shards/shard-{number}" for number in numbers
    ]
    (run,) = (each["run"] for each in shard["steps"] if "--shard" in each.get("run", ""))
    assert f"}}}}/{len(numbers)} " in run
    used = [each["uses"] for job in (shard, merge) for each in job["steps"] if "uses" in each]
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", each) for each in used)


def test_the_ray_job_has_the_keys_of_its_kind() -> None:
    job = yaml.safe_load(block("yaml", "RayJob"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    (words,) = commands(spec["entrypoint"])
    assert words[:2] == ["run", "/volume/suites/large.toml"]
    replicas = sum(each["replicas"] for each in cluster["workerGroupSpecs"])
    assert words[words.index("--workers") + 1] == str(replicas)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounted = {each["name"] for one in pod["containers"] for each in one["volumeMounts"]}
        assert mounted == {each["name"] for each in pod["volumes"]}


@pytest.mark.slow
def test_the_job_array_and_its_merge(tmp_path: Path) -> None:
    """As SLURM runs them: one script a task, with its variables, then the merge."""
    tools = tmp_path / "bin"
    tools.mkdir()
    gibbon = tools / "gibbon"
    gibbon.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gibbon "$@"\n')
    gibbon.chmod(0o755)
    suite = tmp_path / "small.toml"
    suite.write_text(
        'name = "small"\ndataset = "mnist"\nmodels = ["softmax"]\n'
        '[[attacks]]\nname = "fgsm"\nepsilon = "0.1"\n'
    )
    environment = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
        "SUITE": str(suite),
        "SHARDS": "3",
    }

    def ran(text: str, **more: str) -> int:
        return subprocess.run(
            ["bash", "-c", text], cwd=tmp_path, env=environment | more, check=False
        ).returncode

    (tmp_path / "shards").mkdir()
    task, merge = block("sh", "--array"), block("sh", "gibbon-merge")
    for index in ("1", "3"):
        assert ran(task, SLURM_ARRAY_TASK_ID=index) == 0
    assert ran(merge) == 3
    assert not (tmp_path / "results").exists()
    assert ran(task, SLURM_ARRAY_TASK_ID="2") == 0
    assert ran(merge) == 0
    assert RunRecord.read(tmp_path / "results" / "runs" / "large").status == "done"


def test_the_recorded_estimates_are_within_a_quarter_of_their_runs() -> None:
    rows = json.loads(RECORD.read_text())["rows"]
    assert len(rows) == len(SUITES) >= 5
    for each in rows:
        guess, real = each["estimated"], each["measured"]
        assert abs(guess["seconds"] / real["seconds"] - 1) <= BAR, each["name"]
        assert guess["seconds_low"] <= real["seconds"] <= guess["seconds_high"], each["name"]
