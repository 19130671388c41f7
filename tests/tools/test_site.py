"""The site: its generated pages say what the code says, and its strict build passes offline."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import gibbon
from gibbon.attacks import ATTACKS
from gibbon.core.errors import SpecError
from gibbon.specs.base import Spec
from gibbon.specs.decoding import parse_suite
from tools.docs import site
from tools.docs.suite_examples import example
from tools.docs.suite_pages import TABLES, described, page_path

ROOT = Path(__file__).parents[2]
KEYS = [(table.name, key) for table in TABLES for key in table.spec.model_fields]


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_the_example_of_a_key_is_a_suite_with_that_key(table: str, key: str) -> None:
    text = example(table, key)
    parse_suite(text, where=f"{table}-{key}")
    assert re.search(rf"\b{key}( = |\]\])|\[{key}\]", text)


def test_every_key_is_described() -> None:
    for table in TABLES:
        for key in table.spec.model_fields:
            assert len(described(table.spec, key)) > 10


def test_a_key_without_a_description_fails() -> None:
    class Undescribed(Spec):
        """A table."""

        key: int = 0

    with pytest.raises(SpecError, match="says nothing of the key 'key'"):
        described(Undescribed, "key")


def test_every_attack_of_ours_has_a_small_picture() -> None:
    ours = [entry.name for entry in ATTACKS.entries() if entry.origin == "gibbon"]
    files = {name: ROOT / "docs" / "attack-pictures" / f"{name}.png" for name in ours}
    assert [name for name in ours if not files[name].is_file()] == []
    assert all(file.stat().st_size < 8_000 for file in files.values())


def test_every_public_name_is_in_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    named = [name for names in site.REFERENCE.values() for name in names]
    assert sorted([*named, "report"]) == sorted(gibbon.__all__)
    monkeypatch.setattr(gibbon, "__all__", [*gibbon.__all__, "another"])
    with pytest.raises(SpecError, match="on no page of the reference: another"):
        list(site.reference_pages())


def test_a_public_member_without_a_docstring_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gibbon.Results, "bare", lambda self: None, raising=False)
    with pytest.raises(SpecError, match=r"Results\.bare: has no docstring"):
        list(site.reference_pages())


def in_navigation(nav: object) -> set[str]:
    if isinstance(nav, str):
        return {nav}
    inside = nav.values() if isinstance(nav, dict) else nav
    assert isinstance(inside, list | type({}.values()))
    return {path for each in inside for path in in_navigation(each)}


def test_the_navigation_has_four_groups_and_every_page_once() -> None:
    nav = site.navigation()
    assert [next(iter(each)) for each in nav] == ["Start", "Guides", "Reference", "Background"]
    docs = ROOT / "docs"
    stored = {each.relative_to(docs).as_posix() for each in docs.rglob("*.md")}
    made = {path for path, _ in site.generated_pages()} if has_mathml() else set()
    assert stored <= in_navigation(nav)
    assert not made or in_navigation(nav) == stored | made
    assert {page_path(table, key) for table in TABLES for key in table.spec.model_fields} <= (
        in_navigation(nav)
    )


def has_mathml() -> bool:
    try:
        import latex2mathml  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[a](attacks.md#compare-attacks)", "[a](../attacks.md#compare-attacks)"),
        ("[a](../README.md)", "[a](https://r/blob/main/README.md)"),
        ("[a](../CONTRIBUTING.md#fuzzing)", "[a](../contributing.md#fuzzing)"),
        ("[a](../benchmark/gibbon/api/evaluate.py)", None),
        ("[a](../results)", "[a](https://r/tree/main/results)"),
        ("[a](gone.md)", "[a](gone.md)"),
        ("[a](https://example.org) [b](#here)", "[a](https://example.org) [b](#here)"),
        ("```\n[a](../README.md)\n```", "```\n[a](../README.md)\n```"),
    ],
)
def test_links_are_those_of_the_site(link: str, expected: str | None) -> None:
    found = site.with_links(link, folder=ROOT / "docs", place="one/page.md", repository="https://r")
    known = "[a](https://r/blob/main/benchmark/gibbon/api/evaluate.py)"
    assert found == (known if expected is None else expected)


class Loaded(HTMLParser):
    """Collects what a page loads when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        loads = {"script": "src", "img": "src", "iframe": "src"}
        if tag == "link" and found.get("rel") in {"stylesheet", "preload", "icon", "preconnect"}:
            self.addresses.append(found.get("href") or "")
        elif tag in loads:
            self.addresses.append(found.get(loads[tag]) or "")


@pytest.mark.slow
def test_the_strict_build_passes_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    for name in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(name)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 150
    assert (tmp_path / "search" / "search_index.json").is_file()
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert [each for each in loaded.addresses if each.startswith(("http", "//"))] == []
    said = (tmp_path / "reference" / "python" / "evaluating.html").read_text(encoding="utf-8")
    assert "perturbation budgets in units of the input" in said
    assert "<math" in (tmp_path / "reference/attacks/mi-fgsm.html").read_text(encoding="utf-8")


def test_addresses_of_the_site_are_those_of_the_package() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("!!python/name:", "")
    settings = yaml.safe_load(text)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'Documentation = "{settings["site_url"]}"' in project
    assert f'Repository = "{settings["repo_url"]}"' in project
    assert settings["theme"]["font"] is False
    assert settings["strict"] is True
