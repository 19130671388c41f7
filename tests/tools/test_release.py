"""What a release is made of: its bill of materials, and the look-up of advisories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.release import advisories
from tools.release.check_archives import check
from tools.release.dependency_graph import with_dependencies
from tools.release.runtime_requirements import needed_packages, runtime_requirements


def pip_audit(folder: Path, *, said: str = "", found: Any = None, code: int = 0) -> str:
    """Makes a program that answers as pip-audit would."""
    program = folder / "pip-audit"
    answer = "" if found is None else json.dumps(found)
    program.write_text(f"#!/bin/sh\nprintf '%s' '{answer}'\necho '{said}' >&2\nexit {code}\n")
    program.chmod(0o755)
    return str(program)


def package(*vulnerabilities: dict[str, Any]) -> dict[str, Any]:
    return {"dependencies": [{"name": "a", "version": "1.0", "vulns": list(vulnerabilities)}]}


def test_no_advisories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert advisories.main([pip_audit(tmp_path, found=package()), "c.txt"]) == 0
    assert capsys.readouterr().out == "1 packages were looked up; no advisories\n"


def test_an_advisory_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = {"id": "PYSEC-1", "fix_versions": [], "aliases": []}
    assert advisories.main([pip_audit(tmp_path, found=package(known), code=1), "c.txt"]) == 1
    assert capsys.readouterr().out.startswith("a 1.0: PYSEC-1, not mended\n")


def test_a_look_up_that_failed_shows_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "ERROR:pip_audit._cli:a: Dependency not found on PyPI and could not be audited"
    assert advisories.main([pip_audit(tmp_path, said=said, code=1), "c.txt"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: the advisories for c.txt were not looked up")
    assert text.endswith("(a: Dependency not found on PyPI and could not be audited)\n")
    assert advisories.main([str(tmp_path / "none"), "c.txt"]) == 2


def test_the_bill_says_which_package_needs_which() -> None:
    names = [each.partition("==")[0] for each in runtime_requirements()]
    bill = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [{"name": name, "bom-ref": name} for name in names],
    }
    graph = {each["ref"]: each["dependsOn"] for each in with_dependencies(bill)["dependencies"]}
    assert graph.keys() == {"root", *names}
    assert {"torch", "pydantic"} <= set(graph["root"])
    assert "pydantic-core" in graph["pydantic"]
    reached, waiting = set(), ["root"]
    while waiting:
        each = waiting.pop()
        if each not in reached:
            reached.add(each)
            waiting += graph[each]
    assert reached == graph.keys()


def test_packages_of_an_extra_are_left_out() -> None:
    assert "timm" not in needed_packages()


def test_a_folder_without_archives_is_no_release(tmp_path: Path) -> None:
    assert "0 wheels" in check(tmp_path)[0]
