"""A name means one thing in the whole tree: classes and modules of both packages."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmark", "model_zoo")

# Modules that share a name, with the part that all of them play.
SAME_PART = {
    "__init__": "the package itself",
    "__main__": "what `python -m` runs",
    "base": "the interfaces of a package, which its plug-ins implement",
    "registry": "what is registered under a name",
    "torchvision": "the adapter of the library of this name, for datasets and for models",
    "autoattack": "our list of attacks, and the adapter of the library of this name",
}
# Sections of the report are named after the module whose values they show.
SECTIONS = Path("benchmark/gibbon/report/content")
SHOWN = {"distances", "gallery", "published", "transfer"}


def sources() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT)


def shared(names: dict[str, list[Path]]) -> dict[str, list[Path]]:
    return {name: places for name, places in names.items() if len(places) > 1}


def test_no_two_public_classes_share_a_name():
    places = defaultdict(list)
    for path in sources():
        for node in ast.parse((ROOT / path).read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(path)
    assert len(places) > 300
    assert not shared(places)


def test_modules_share_a_name_only_if_they_play_the_same_part():
    places = defaultdict(list)
    for path in sources():
        if path.parent != SECTIONS or path.stem not in SHOWN:
            places[path.stem].append(path)
    assert len(places) > 200
    assert shared(places).keys() == SAME_PART.keys()


def test_every_section_with_the_name_of_another_module_shows_its_values():
    names = [path.stem for path in sources()]
    assert all(names.count(each) == 2 for each in SHOWN)
