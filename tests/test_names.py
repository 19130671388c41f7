"""A name means one thing in the whole tree: packages, modules, classes and functions."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmark", "model_zoo")
WITH_TOOLS = (*FOLDERS, "tools")

# Modules that share a name, with the part that all of them play.
SAME_PART = {
    "__init__": "the package itself",
    "__main__": "what `python -m` runs",
    "base": "the interfaces of a package, which its plug-ins implement",
    "registry": "what is registered under a name",
    "torchvision": "the adapter of the library of this name, for datasets and for models",
    "autoattack": "our list of attacks, and the adapter of the library of this name",
}
# Public functions that share a name, with the operation that all of them perform.
COMMAND = "the command of this name, and the function that does its work"
SAME_FUNCTION = {
    "as_array": "a value as a numpy array",
    "check": "the command; of candidates it is the check of their form and budget",
    "check_arguments": "keyword arguments against the signature of a factory",
    "clean_error": "the clean error: measured, in a record, and as a check of the examination",
    "compare": COMMAND,
    "describe": "a record or a text that describes an object",
    "digest_of": "a digest of its argument",
    "escape": "text for a markup language",
    "evaluate": COMMAND,
    "kind_of": "the kind of source that a text names, of datasets and of models",
    "listed": "names as one text",
    "load": "a split of a registered dataset; the registry loads each under this name",
    "main": "what a command runs",
    "members_of": "the members of a list of attacks, and of an ensemble of models",
    "train": COMMAND,
}
# Packages that share a name with a module: `records` stores what a package of this name computes.
STORED = {"examination", "gallery", "kept_examples", "no_class", "proofs"}
# Sections of the report are named after the module whose values they show.
SECTIONS = Path("benchmark/gibbon/report/content")
SHOWN = {"claims", "distances", "gallery", "no_class", "published", "transfer"}


def sources(folders: tuple[str, ...] = FOLDERS) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT)


def shared(names: dict[str, list[Path]]) -> dict[str, list[Path]]:
    return {name: places for name, places in names.items() if len(places) > 1}


def test_no_two_public_classes_share_a_name():
    places = defaultdict(list)
    for path in sources(WITH_TOOLS):
        for node in ast.parse((ROOT / path).read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(path)
    assert len(places) > 300
    assert not shared(places)


def test_no_type_alias_has_the_name_of_a_class():
    classes, aliases = set(), defaultdict(list)
    for path in sources(WITH_TOOLS):
        for node in ast.parse((ROOT / path).read_text()).body:
            if isinstance(node, ast.ClassDef):
                classes.add(node.name)
            elif isinstance(node, ast.Assign):
                names = (each.id for each in node.targets if isinstance(each, ast.Name))
                for name in names:
                    if name[0].isupper() and not name.isupper():
                        aliases[name].append(path)
    assert len(aliases) > 50
    assert not {name: paths for name, paths in aliases.items() if name in classes}


def test_no_two_private_classes_share_a_name():
    places = defaultdict(list)
    for path in sources():
        for node in ast.parse((ROOT / path).read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name.startswith("_"):
                places[node.name].append(path)
    assert len(places) > 50
    assert not shared(places)


def test_public_functions_share_a_name_only_if_they_perform_the_same_operation():
    places = defaultdict(list)
    for path in sources():
        for node in ast.parse((ROOT / path).read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                places[node.name].append(path)
    assert len(places) > 500
    assert shared(places).keys() == SAME_FUNCTION.keys()
    commands = {name for name, reason in SAME_FUNCTION.items() if reason == COMMAND}
    cli = Path("benchmark/gibbon/cli")
    assert all(any(cli in path.parents for path in places[name]) for name in commands)


def test_a_package_shares_a_name_with_what_is_stored_of_it_alone():
    packages = {path.parent.name: path.parent for path in sources() if path.name == "__init__.py"}
    modules = defaultdict(list)
    for path in sources():
        modules[path.stem].append(path)
    assert len(packages) > 20
    assert {name for name in packages if name in modules} == STORED
    for name in STORED:
        places = {path.parent for path in modules[name]}
        assert Path("benchmark/gibbon/records") in places
        assert all(
            each == Path("benchmark/gibbon/records") or SECTIONS in each.parents for each in places
        )


def test_modules_share_a_name_only_if_they_play_the_same_part():
    places = defaultdict(list)
    for path in sources(WITH_TOOLS):
        if SECTIONS not in path.parents or path.stem not in SHOWN:
            places[path.stem].append(path)
    assert len(places) > 200
    assert shared(places).keys() == SAME_PART.keys()


def test_every_section_with_the_name_of_another_module_shows_its_values():
    names = [path.stem for path in sources()]
    assert all(names.count(each) == 2 for each in SHOWN)
