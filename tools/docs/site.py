"""Hooks of mkdocs: pages that are generated, the navigation, and links that leave ``docs/``.

Pages about suites and attacks and the reference are made at each build and never stored.  A link
from ``docs/`` to a file elsewhere in the repository becomes an address of the repository; one to a
file that does not exist stays as it is, so that the strict build reports it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gibbon
from gibbon.core.errors import SpecError
from tools.docs.attack_pages import FOLDER as ATTACK_PAGES
from tools.docs.attack_pages import attack_pages, own_attacks
from tools.docs.suite_pages import TABLES, page_path, suite_pages

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_LINK = re.compile(r"(\]\()(?!https?://|#|mailto:)([^)\s#]+)(#[^)\s]*)?(\))")
_FENCE = re.compile(r"(^ *```.*?^ *```[^\n]*$)", re.DOTALL | re.MULTILINE)

# Pages of the root that the site has too.
_FROM_ROOT = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "reporting.md",
    "examples/README.md": "examples.md",
}
# Public names that are described together, by page.
REFERENCE = {
    "evaluating": ("evaluate", "Results", "Examples"),
    "models": ("Classifier", "ModelSpec", "Bounds"),
    "data": ("Dataset", "Batch", "DatasetSpec"),
    "attacks": (
        *("Attack", "DirectionAttack", "MinimalNormAttack", "AttackSpec", "check_attack"),
        *("ThreatModel", "Norm", "Epsilon", "ExampleStreams"),
    ),
    "runs": ("Suite", "RunRecord", "compare"),
    "training": ("train", "TrainingResult"),
    "errors": (
        *("GibbonError", "RequestError", "SpecError", "UnknownNameError", "MissingLibraryError"),
        *("ModelError", "OutputError", "WeightsError", "DatasetError", "AttackError", "CellError"),
        *("DeviceError", "MemoryShortageError", "FlagError", "RecordError", "RunFolderError"),
        *("IncompleteError", "ProcessEndedError"),
    ),
}
_MODULES = ("report",)  # public names that are modules


def anchor(text: str, separator: str = "-") -> str:
    """Returns the anchor of a heading, as the pages' own links name it.

    >>> anchor("What `make bench` prints")
    'what-make-bench-prints'
    """
    return re.sub(r"[^\w -]", "", text.lower().replace("`", "")).strip().replace(" ", separator)


def on_config(config: Any) -> Any:
    """Sets the navigation."""
    config["nav"] = navigation()
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages."""
    from mkdocs.structure.files import File

    for path, content in generated_pages():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Returns a page whose links to files outside of ``docs/`` lead to the repository."""
    place = page.file.src_uri
    roots = {site: source for source, site in _FROM_ROOT.items()}
    folder = (ROOT / roots[place]).parent if place in roots else (DOCS / place).parent
    return with_links(markdown, folder=folder, place=place, repository=config["repo_url"])


def with_links(markdown: str, *, folder: Path, place: str, repository: str) -> str:
    """Returns markdown with its links rewritten for the site.

    Args:
        markdown: the text.
        folder: the folder that its links are relative to.
        place: the path of its page on the site.
        repository: the address of the repository.
    """
    up = "../" * place.count("/")

    def rewritten(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        if not target.exists() or not target.is_relative_to(ROOT):
            return link[0]
        inside = target.relative_to(ROOT).as_posix()
        heading = link[3] or ""
        if inside == "README.md":
            return f"{link[1]}{repository}/blob/main/README.md{heading}{link[4]}"
        if inside in _FROM_ROOT:
            return f"{link[1]}{up}{_FROM_ROOT[inside]}{heading}{link[4]}"
        if target.is_relative_to(DOCS) and target.is_file():
            return f"{link[1]}{up}{target.relative_to(DOCS).as_posix()}{heading}{link[4]}"
        kind = "tree" if target.is_dir() else "blob"
        return f"{link[1]}{repository}/{kind}/main/{inside}{heading}{link[4]}"

    parts = _FENCE.split(markdown)
    return "".join(
        part if place % 2 else _LINK.sub(rewritten, part) for place, part in enumerate(parts)
    )


def generated_pages() -> Iterator[tuple[str, str]]:
    """Yields path and content of every generated page.  Raises `SpecError` if words are missing."""
    for source, path in _FROM_ROOT.items():
        yield path, (ROOT / source).read_text(encoding="utf-8")
    yield from suite_pages()
    yield from attack_pages()
    yield from reference_pages()


def reference_pages() -> Iterator[tuple[str, str]]:
    """Yields the pages of the public names.

    Raises `SpecError` if a public name is on no page, or it or a public member has no docstring.
    """
    named = {name for names in REFERENCE.values() for name in names} | {*_MODULES}
    if lacking := sorted(set(gibbon.__all__) - named):
        raise SpecError(f"public names are on no page of the reference: {', '.join(lacking)}")
    for page, names in REFERENCE.items():
        parts = [f"# {page.capitalize()}\n"]
        for name in names:
            thing = getattr(gibbon, name)
            _check_docstrings(thing)
            parts.append(f"::: {thing.__module__}.{thing.__qualname__}\n")
        yield f"reference/python/{page}.md", "\n".join(parts)


def _check_docstrings(thing: Any) -> None:
    if not inspect.getdoc(thing):
        raise SpecError(f"{thing.__module__}.{thing.__qualname__}: has no docstring")
    if not inspect.isclass(thing):
        return
    for name, member in vars(thing).items():
        function = member.fget if isinstance(member, property) else member
        documented = isinstance(member, property) or inspect.isroutine(function)
        if documented and not name.startswith("_") and not inspect.getdoc(getattr(thing, name)):
            raise SpecError(f"{thing.__module__}.{thing.__qualname__}.{name}: has no docstring")


def _heading(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    head = next((line for line in lines if line.startswith("# ")), f"# {file.stem}")
    return head.removeprefix("# ").replace("`", "")


def _pages(*names: str) -> list[dict[str, str]]:
    return [{_heading(DOCS / name): name} for name in names]


def _folder(name: str) -> list[str | dict[str, str]]:
    files = sorted(each.name for each in (DOCS / name).glob("*.md") if each.name != "README.md")
    return [f"{name}/README.md", *_pages(*(f"{name}/{each}" for each in files))]


def navigation() -> list[Any]:
    """Returns the navigation in four groups: start, guides, reference and background."""
    keys = [
        {table.name: [{key: page_path(table, key)} for key in table.spec.model_fields]}
        for table in TABLES
    ]
    attacks = [{name: f"{ATTACK_PAGES}/{name}.md"} for name in own_attacks()]
    return [
        {
            "Start": [
                "index.md",
                *_pages("your-model.md", "commands.md"),
                {"Examples": "examples.md"},
            ]
        },
        {
            "Guides": _pages(
                *("attacks.md", "adaptive-attacks.md", "other-libraries.md", "other-inputs.md"),
                *("no-class.md", "report.md", "ci.md", "audit.md", "verified.md"),
                *("clusters.md", "training.md", "isolation.md"),
            )
        },
        {
            "Reference": [
                {
                    "Python": [
                        {page.capitalize(): f"reference/python/{page}.md"} for page in REFERENCE
                    ]
                },
                {"Keys of a suite": ["reference/suite/index.md", *keys]},
                {"Every attack": [f"{ATTACK_PAGES}/index.md", *attacks]},
                {"Kinds of flags": _folder("flags")},
            ]
        },
        {
            "Background": [
                *_pages(
                    *("paper-table.md", "the-paper.md", "what-the-paper-could-not-see.md"),
                    *("performance.md", "architecture.md", "security.md"),
                ),
                {"Decisions": _folder("decisions")},
                {"Contributing": "contributing.md"},
                {"Changes": "changelog.md"},
                {"Reporting a vulnerability": "reporting.md"},
            ]
        },
    ]
