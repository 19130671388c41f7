"""``plugin new`` writes a package that can be built, installed and tested without a network."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from gibbon.cli.commands.plugin_command import new_plugin, package_name
from gibbon.conformance import check_attack
from gibbon.conformance.laws import LAWS
from gibbon.core.errors import SpecError


def test_the_attack_keeps_laws_and_everything_is_named(tmp_path: Path) -> None:
    said = new_plugin("my-attacks", tmp_path / "new")
    assert "my-attacks-ascent" in said
    files = {
        str(each.relative_to(tmp_path / "new")) for each in tmp_path.rglob("*") if each.is_file()
    }
    assert files == {
        ".gitignore",
        ".github/workflows/tests.yml",
        "README.md",
        "pyproject.toml",
        "src/my_attacks/__init__.py",
        "src/my_attacks/attacks.py",
        "src/my_attacks/models.py",
        "tests/test_plugin.py",
    }
    for each in files:
        text = (tmp_path / "new" / each).read_text()
        assert "@" not in text.replace("@dataclass", "").replace("actions/", "").replace("@v", "")
    project = tomllib.loads((tmp_path / "new" / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {
        "gibbon.attacks": {"my-attacks-ascent": "my_attacks.attacks:Ascent"},
        "gibbon.models": {"my-attacks-net": "my_attacks.models:small_net"},
    }
    steps = yaml.safe_load((tmp_path / "new" / ".github/workflows/tests.yml").read_text())["jobs"]
    assert any(each.get("run") == "pytest" for each in steps["tests"]["steps"])
    laws = [each for each in LAWS if each.name in ("optimum", "budget")]
    attack = f"{tmp_path / 'new/src/my_attacks/attacks.py'}:Ascent"
    assert check_attack(attack, laws=laws).passed


def test_nothing_is_overwritten_and_names_are_those_of_packages(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").touch()
    with pytest.raises(SpecError, match="nothing is overwritten"):
        new_plugin("there", tmp_path / "there")
    for name in ("", "1st", "a b", "../x", "torch", "json", "gibbon", "class", "x" * 80):
        with pytest.raises(SpecError, match="NAME"):
            package_name(name)


@pytest.mark.slow
def test_it_is_built_installed_and_tested_without_a_network(tmp_path: Path) -> None:
    new_plugin("my-attacks", tmp_path / "new")
    install = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps"]
    install += ["--no-build-isolation", "--target", str(tmp_path / "installed"), "./new"]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(install, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    environment["PYTHONPATH"] = str(tmp_path / "installed")
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        test, cwd=tmp_path / "new", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
