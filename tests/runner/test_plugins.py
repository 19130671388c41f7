"""Packages of other people: found through entry points, run, and told apart when they fail."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import planted
import pytest
import torch
from pydantic.dataclasses import dataclass as checked
from safetensors.torch import save_file

from gibbon import evaluate
from gibbon.attacks.base import STRICT
from gibbon.core.errors import RequestError, SpecError
from gibbon.runner.plan.code_digest import is_library
from gibbon.specs.suite import Suite

EXAMPLE = Path(__file__).parents[1] / "plugin"
SUITE = """
name = "example"
dataset = "mnist-flipped"
models = ["cnn", "softmax"]

[[attacks]]
name = "fgm"
epsilon = "2"
step = 0.5

[[attacks]]
name = "fgsm"
epsilon = "0.1"

[transfer]
attacks = ["fgm"]
"""


def distribution(folder: Path, name: str, points: dict[str, dict[str, str]]) -> None:
    """Writes what pip would: a dist-info folder."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, entries in points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def source(folder: Path) -> Path:
    """The example's source, with weights."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    generator = torch.Generator().manual_seed(0)
    shapes = {"0.weight": (8, 1, 5, 5), "0.bias": (8,), "3.weight": (10, 512), "3.bias": (10,)}
    weights = {
        name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()
    }
    save_file(weights, folder / "gibbon_example" / "cnn.safetensors")
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages that holds the example."""
    site = tmp_path_factory.mktemp("site")
    package = source(tmp_path_factory.mktemp("source") / "example")
    shutil.copytree(package / "gibbon_example", site / "gibbon_example")
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    distribution(site, project["name"], project["entry-points"])
    return site


def gibbon(*words: str, sites: list[Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, sites))
    return subprocess.run(
        [sys.executable, "-m", "gibbon", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
    )


BUILT_HERE = """
from dataclasses import dataclass
from gibbon import Attack

@dataclass(frozen=True)
class Steps(Attack):
    needs_gradient = False
    def propose(self, classifier, inputs, *, labels, threat, streams):
        yield (inputs + threat.radius).clamp(0, 1)
"""


def test_a_finished_run_with_a_package_that_was_built_here_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as ``pip install ./folder``: its code counts, and is read each time."""
    site, origin = tmp_path / "site-packages", tmp_path / "origin"
    for folder in (site / "built_here", site / "built_here-1.0.dist-info", origin):
        folder.mkdir(parents=True)
    (site / "built_here" / "__init__.py").write_text(BUILT_HERE)
    info = site / "built_here-1.0.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: built-here\nVersion: 1.0\n")
    (info / "INSTALLER").write_text("pip\n")
    (info / "direct_url.json").write_text(json.dumps({"url": origin.as_uri(), "dir_info": {}}))
    (info / "RECORD").write_text("built_here/__init__.py,,\n")
    monkeypatch.syspath_prepend(site)
    built = importlib.import_module("built_here")
    assert not is_library(built.__file__)
    known = {"epsilon": 0.1, "examination": False, "bounds": "none", "output": tmp_path / "run"}
    net, data = planted.Rows(), planted.squares()
    evaluate(net, data, attack=built.Steps(), **known)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("it was counted again")

    monkeypatch.setattr("gibbon.runner.counting.complete_record.make_record", forbidden)
    again = evaluate(net, data, attack=built.Steps(), **known)
    assert again.record.provenance.computed_cells == 0


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("method", "act", "said"),
    [
        ("__init__", raising(ValueError("no table")), "ValueError: no table"),
        ("__init__", raising(SystemExit(0)), "it ended the program, with exit code 0"),
        ("__init__", raising(GeneratorExit()), "GeneratorExit"),
        ("__new__", lambda *_, **__: 3, "makes 3 when it is called, expected an attack"),
        ("__new__", lambda *_, **__: None, "makes None when it is called"),
        ("__new__", raising(LookupError("no table")), "LookupError: no table"),
    ],
)
def test_an_attack_that_can_not_be_made_is_named(
    plant: planted.Plant,
    run: planted.Run,
    suite: Callable[..., Suite],
    method: str,
    act: Any,
    said: str,
) -> None:
    kind = checked(frozen=True, kw_only=True, config=STRICT)(type("T", (planted._Planted,), {}))
    setattr(kind, method, act)
    plant.attack("theirs", kind)
    with pytest.raises(RequestError, match="attack 'theirs'") as raised:
        run(suite("theirs"))
    assert said in str(raised.value)
    assert "Gibbon itself" not in str(raised.value)


@pytest.mark.parametrize("thing", [object, 7, None, dict, len, planted.Rows, planted.Raises()])
def test_what_is_no_class_of_an_attack_is_named(
    plant: planted.Plant, run: planted.Run, suite: Callable[..., Suite], thing: Any
) -> None:
    plant.attack("theirs", thing)
    with pytest.raises(SpecError, match="attack 'theirs' must be a dataclass derived from"):
        run(suite("theirs"))


@pytest.mark.parametrize("name", ["model.py", "attack.py", "data.py"])
def test_a_plug_in_takes_less_than_twenty_lines(name: str) -> None:
    assert len((EXAMPLE / "gibbon_example" / name).read_text().splitlines()) < 20


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("models", "cnn          A small convolutional network for MNIST [gibbon-example]"),
        ("attacks", "fgm            One step along the gradient itself"),
        ("datasets", "mnist-flipped  MNIST upside down [gibbon-example]"),
    ],
)
def test_a_plug_in_is_listed_with_where_it_is_from(
    site: Path, tmp_path: Path, kind: str, line: str
) -> None:
    done = gibbon("list", kind, sites=[site], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert " ".join(line.split()) in " ".join(done.stdout.split())
    assert "[gibbon-example]" in done.stdout


def test_a_plug_ins_model_attack_and_dataset_run(site: Path, broken: Path, tmp_path: Path) -> None:
    """Also beside a package that can't be imported."""
    (tmp_path / "example.toml").write_text(SUITE)
    words = ("run", "example.toml", "--limit", "40", "--output", "out")
    done = gibbon(*words, sites=[broken, site], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "out" / "evaluations.csv").set_index(["model", "attack"])
    assert set(rows["status"]) == {"done"}
    assert rows.loc[("cnn", "fgm"), "norm"] == "l2"
    assert rows.loc[("softmax", "fgm"), "max_distance"] <= 1.0 + 1e-5  # half of epsilon
    assert rows.loc[("softmax", "fgm"), "adversarial_error"] > 0.5  # MNIST upside down is hard
    assert len(pd.read_csv(tmp_path / "out" / "transfer.csv")) == 4
    again = gibbon(*words, sites=[site], cwd=tmp_path)
    assert "0 cells to compute, 6 recorded already" in again.stderr


def test_a_plug_ins_parameters_are_checked(site: Path, tmp_path: Path) -> None:
    (tmp_path / "example.toml").write_text(SUITE.replace("step = 0.5", "steq = 1"))
    done = gibbon("run", "example.toml", sites=[site], cwd=tmp_path)
    assert done.returncode == 2
    assert "attack 'fgm' has no parameter 'steq'; did you mean 'step'?" in done.stderr
    assert "example.toml: attacks[0].steq:" in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_model_that_takes_a_file_is_given_one(site: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"damaged")
    mine = 'models = [{ model = "cnn", name = "mine", weights = "mine.safetensors" }]'
    (tmp_path / "example.toml").write_text(SUITE.replace('models = ["cnn", "softmax"]', mine))
    done = gibbon("run", "example.toml", sites=[site], cwd=tmp_path)
    assert done.returncode == 2
    assert "models[0]: 'mine': mine.safetensors: damaged, or not a safetensors" in done.stderr


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("broken")
    (site / "broken_package.py").write_text("import a_module_that_is_not_there\n")
    points = {f"gibbon.{kind}": {"broken": "broken_package:it"} for kind in ("models", "attacks")}
    distribution(site, "broken-package", points)
    return site


def test_a_plug_in_that_cannot_be_imported_spoils_no_other(
    site: Path, broken: Path, tmp_path: Path
) -> None:
    listed = gibbon("list", "models", sites=[broken, site], cwd=tmp_path)
    assert listed.returncode == 0
    assert "(can't be imported: ModuleNotFoundError: No module named 'a_module" in listed.stdout
    assert "cnn" in listed.stdout


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ('"cnn"', '"broken"', "model"),
        pytest.param('"fgm"', '"broken"', "attack", marks=pytest.mark.slow),
    ],
)
def test_a_plug_in_that_cannot_be_imported_is_told_when_asked_for(
    site: Path, broken: Path, tmp_path: Path, one: str, other: str, kind: str
) -> None:
    (tmp_path / "example.toml").write_text(SUITE.replace(one, other))
    done = gibbon("run", "example.toml", sites=[broken, site], cwd=tmp_path)
    assert done.returncode == 2
    assert f"{kind} 'broken' of package broken-package can't be imported" in done.stderr
    assert "No module named 'a_module_that_is_not_there'" in done.stderr
    assert "broken_package.py, line 1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("group", "name", "command", "owner"),
    [
        ("gibbon.models", "softmax", "models", "gibbon-bench"),
        ("gibbon.attacks", "fgsm", "attacks", "gibbon"),
        ("gibbon.datasets", "mnist", "datasets", "gibbon"),
    ],
)
def test_a_name_that_is_taken_is_told(
    tmp_path: Path, group: str, name: str, command: str, owner: str
) -> None:
    (tmp_path / "impostor.py").write_text("def it():\n    pass\n")
    distribution(tmp_path, "impostor", {group: {name: "impostor:it"}})
    done = gibbon("list", command, sites=[tmp_path], cwd=tmp_path)
    assert done.returncode == 0  # and blocks commands that use this name alone
    (line,) = [each for each in done.stdout.splitlines() if each.startswith(f"{name} ")]
    assert f"{name!r} is registered twice: by {owner} and by impostor" in line


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("setuptools"), reason="pip needs it to build")
def test_the_example_installs_with_pip(tmp_path: Path) -> None:
    package = source(tmp_path / "source")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(site)]
    subprocess.run([*pip, *offline, str(package)], check=True, timeout=120)
    (tmp_path / "example.toml").write_text(SUITE)
    done = gibbon("run", "example.toml", "--limit", "10", sites=[site], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
