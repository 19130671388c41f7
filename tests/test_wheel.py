"""The wheel beside projects that have a `benchmark` and a `model_zoo` of their own.

Such names are common.  Gibbon's plug-in for pytest is loaded in every project of an environment, so
that none of its packages may hide, or be hidden by, what a project calls so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
OWN_TESTS = ("tests/core", "tests/specs", "tests/metrics", "tests/test_interfaces.py")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the files that git tracks, without old build folders."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    names = ["benchmark", "model_zoo", "pyproject.toml", "README.md", "LICENSE"]
    run(["git", "-C", str(ROOT), "checkout-index", "--all", f"--prefix={copy}/"], folder)
    for name in names:
        assert (copy / name).exists()
    build = f"import setuptools.build_meta as b; print(b.build_wheel({str(folder)!r}))"
    run([sys.executable, "-c", build], copy)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel, and the libraries of this one but no editable Gibbon."""
    folder = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    place = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run([str(python), "-c", place], folder).strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # A path line adds the folder itself; the editable installation in it is not looked at.
    libraries = {str(Path(module.__file__ or "").parents[1]) for module in (torch, pytest)}
    (site / "libraries.pth").write_text("\n".join(sorted(libraries)) + "\n")
    return python


def run(command: list[str], folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(params=["module", "package"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project with a `benchmark` and a `model_zoo`, both modules or both packages, and a test."""
    for name in ("benchmark", "model_zoo"):
        place = tmp_path / f"{name}.py"
        if request.param == "package":
            (tmp_path / name).mkdir()
            place = tmp_path / name / "__init__.py"
        place.write_text(f"OWNER = 'the project, {name}'\n")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\n"
        "def build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))\n"
    )
    (tmp_path / "test_project.py").write_text(
        "import benchmark, model_zoo, torch\n"
        "from net import build\n\n\n"
        "def test_names_are_the_projects_own():\n"
        "    assert benchmark.OWNER == 'the project, benchmark'\n"
        "    assert model_zoo.OWNER == 'the project, model_zoo'\n\n\n"
        "def test_robustness(robustness):\n"
        "    torch.manual_seed(0)\n"
        "    data = torch.rand(8, 1, 2, 2), torch.arange(8) % 2\n"
        "    robustness.check(build(), data, attack='fgsm', epsilon=0.01, max_error=1.0)\n"
    )
    return tmp_path


def test_the_wheel_installs_two_packages_and_no_other_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"gibbon", "gibbon_zoo"}
    assert "gibbon/suites/smoke.toml" in names
    assert "gibbon/report/html/templates/page.html" in names
    assert "gibbon/py.typed" in names
    assert any(name.startswith("gibbon/datasets/registered/data/mnist/") for name in names)
    assert "gibbon_zoo/weights/softmax.safetensors" in names


def test_a_project_with_the_same_names_runs_its_tests(python: Path, project: Path) -> None:
    output = run([str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider"], project)
    assert "2 passed" in output


def test_the_command_line_finds_the_zoo_beside_such_a_project(python: Path, project: Path) -> None:
    words = [
        "evaluate",
        "--model",
        "softmax",
        "--dataset",
        "mnist",
        "--attack",
        "fgsm",
        "--epsilon",
        "0.1",
        "--limit",
        "50",
    ]
    output = run([str(python), "-m", "gibbon", *words, "--output", "out"], project)
    assert "fgsm" in output
    assert (project / "out" / "evaluations.csv").exists()


def test_our_tests_pass_on_the_installed_wheel(python: Path) -> None:
    where = run([str(python), "-c", "import gibbon; print(gibbon.__file__)"], ROOT)
    assert Path(where.strip()).is_relative_to(python.parents[1])
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *OWN_TESTS]
    assert " passed" in run([str(python), *words], ROOT)
