"""What the package shows to others: exact names, and a line about everything that is registered."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import typing

import pytest

import gibbon
from gibbon.attacks import ATTACKS
from gibbon.attacks.base import Attack, DirectionAttack, SharedWork
from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.cli.options import GROUPS, OPTIONS, REQUIRED
from gibbon.core.registry import first_line
from gibbon.datasets import DATASETS
from gibbon.gate.compare import ALPHA
from gibbon.gate.limits import MAX_INCREASE
from gibbon.models.registry import MODELS, TRAINERS
from gibbon.pytest_plugin import Robustness
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import AttackSpec, DatasetSpec, ModelSpec


def modules() -> list[str]:
    found = pkgutil.walk_packages(gibbon.__path__, "gibbon.")
    return sorted(each.name for each in found if not each.name.endswith("__main__"))


def exported() -> list[str]:
    return [name for name in modules() if hasattr(importlib.import_module(name), "__all__")]


def defined(name: str) -> set[str]:
    """The public names that a module itself defines at its top level."""
    found = set()
    for node in ast.parse(inspect.getsource(importlib.import_module(name))).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {each.id for each in node.targets if isinstance(each, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return {each for each in found if not each.startswith("_")}


@pytest.mark.parametrize("name", exported())
def test_all_is_exactly_the_public_names(name):
    module = importlib.import_module(name)
    assert len(module.__all__) == len(set(module.__all__))
    assert all(hasattr(module, each) for each in module.__all__)
    assert defined(name) <= set(module.__all__)
    assert list(module.__all__) == sorted(module.__all__)


@pytest.mark.parametrize("name", modules())
def test_every_module_and_public_name_says_what_it_is(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    own = [
        (key, value)
        for key, value in vars(module).items()
        if not key.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == name
    ]
    silent = [key for key, value in own if not value.__doc__]
    assert not silent


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_attack_is_a_frozen_dataclass_with_a_docstring(name):
    attack = ATTACKS.load(name)
    assert issubclass(attack, Attack)
    assert dataclasses.is_dataclass(attack)
    assert attack.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert first_line(attack) != "(no description)"
    assert inspect.getmodule(attack).__doc__  # type: ignore[union-attr]
    assert attack.norms
    assert attack.version >= 1
    method = attack.direction if issubclass(attack, DirectionAttack) else attack.propose
    assert method.__doc__


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_attack_has_the_method_that_its_shared_work_needs(name):
    attack = ATTACKS.load(name)
    assert (attack.shares is SharedWork.DIRECTION) == issubclass(attack, DirectionAttack)
    assert (attack.shares is SharedWork.SEARCH) == issubclass(attack, MinimalNormAttack)


@pytest.mark.parametrize(
    "name", [each for each in ATTACKS.names() if ATTACKS.get(each).origin == "gibbon"]
)
def test_every_parameter_of_our_attacks_is_documented(name):
    attack = ATTACKS.load(name)
    for field in dataclasses.fields(attack):
        assert f"{field.name}:" in (attack.__doc__ or ""), field.name


@pytest.mark.parametrize("registry", [ATTACKS, DATASETS, MODELS, TRAINERS], ids=lambda r: r.kind)
def test_everything_registered_has_a_name_and_one_line(registry):
    assert registry.names()
    for entry in registry.entries():
        assert entry.name == entry.name.strip().lower()
        assert entry.summary
        assert "\n" not in entry.summary
        assert not entry.summary.startswith("(")


def test_attacks_call_random_numbers_streams_and_nothing_else():
    for name in ATTACKS.names():
        source = inspect.getsource(inspect.getmodule(ATTACKS.load(name)))  # type: ignore[arg-type]
        for forbidden in ("manual_seed", "torch.rand", "np.random", "import random"):
            assert forbidden not in source, f"{name} uses {forbidden}"


# The table of options, of which the help and the grammar are made, and what must agree with it.
# The Python signatures are written out, for editors and type checkers.

OPTION = {option.name: option for option in OPTIONS}
SIGNATURE = inspect.signature(gibbon.evaluate).parameters
# Arguments that a Python call takes in another form than the command line: objects, or by name.
OF_PYTHON = {"model", "data", "attack", "progress", "parameters"}
ARGUMENTS = {name: each for name, each in SIGNATURE.items() if name not in OF_PYTHON}
# Options of a run that are no arguments of `evaluate`, with the reason.
OF_COMMAND_LINE = {
    "models_in_memory": "the models of a call are in memory already",
    "executor": "models of a call are objects of its process: `run` builds them in each worker",
    "workers": "see executor",
    "address": "see executor",
    "gpus_per_worker": "see executor",
    "decoders": "a caller's dataset decodes images by itself, or is a `DatasetSpec`",
    "fresh": "a call without a folder reuses nothing; a folder can be removed",
    "data_folder": "the default; a caller with files elsewhere passes the dataset itself",
    "download": "a call that needs a missing dataset downloads it",
    "save_suite": "the suite of a call is `Results.record.suite`",
    "repair": "the folder of a call is repaired by `run --repair`",
}
# Arguments whose value has another form in Python than on the command line, so that only the first
# clause of the text is equal; those that are switched off by an option have a text of their own.
OTHER_FORM = {
    "epsilon": "numbers, texts or a list of these",
    "bounds": "a pair of numbers; a word is the earlier form of `certify`",
    "against": "the data themselves, too",
    "shape": "a sequence of numbers",
    "backward": "a mapping of paths to functions",
    "strict": "an exception in place of an exit code",
    "accept": "a list, which is not repeated",
    "cell_timeout": "a number of seconds, without a unit",
    "cell_memory": "a number of bytes, too",
}


def documented(function) -> dict[str, str]:
    """The texts of a function's arguments, without marks of code and line breaks."""
    text = inspect.getdoc(function).split("Args:")[1].split("\n\n")[0].replace("`", "")
    entries = re.findall(r"^    \**(\w+): (.*?)(?=^    \S|\Z)", text, re.DOTALL | re.MULTILINE)
    return {name: " ".join(entry.split()) for name, entry in entries}


def first_clause(text: str) -> str:
    return re.split(r"[.:;,](?: |$)", text)[0].lower()


def assert_same_default(option, default):
    """A default that is None stands for what the help describes in words."""
    if not option.value:
        assert default is not option.constant
    elif default is not None:
        assert option.default == str(default)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_of_evaluate_is_an_option_of_the_same_default_type_and_text(name):
    option, hint = OPTION[name], typing.get_type_hints(gibbon.evaluate)[name]
    assert_same_default(option, ARGUMENTS[name].default)
    parts = [hint, *typing.get_args(hint)]
    assert (bool in parts) is (not option.value)
    for literal in (each for each in parts if typing.get_origin(each) is typing.Literal):
        for word in typing.get_args(literal):
            assert word in option.help
    if int in parts:
        assert option.parse("7") == 7
    text = documented(gibbon.evaluate)[name]
    if option.constant is False:
        assert text.startswith("whether ")
    elif name in OTHER_FORM:
        assert text.startswith(first_clause(option.help))
    else:
        assert text.lower().startswith(option.help.removesuffix(".").lower())


def test_an_option_of_a_run_is_an_argument_of_evaluate_or_says_why_it_is_none():
    run = {option.name for option in GROUPS["Run"][1]}
    assert run - ARGUMENTS.keys() == OF_COMMAND_LINE.keys()
    assert documented(gibbon.evaluate).keys() == SIGNATURE.keys()


def test_the_check_of_a_test_has_the_defaults_and_texts_of_evaluate_and_compare():
    check = inspect.signature(Robustness.check).parameters
    texts, original = documented(Robustness.check), documented(gibbon.evaluate)
    shared = (check.keys() & SIGNATURE.keys()) - {"parameters"}
    assert {"attack", "epsilon", "limit", "seed", "accept"} <= shared
    # Inputs without a class need no attack; a check is of errors, which need one.
    assert SIGNATURE["attack"].default is None
    for name in shared - {"attack"}:
        assert (check[name].default or None) == (SIGNATURE[name].default or None)
        if name not in OF_PYTHON:
            assert original[name].startswith(first_clause(texts[name]))
    assert texts.keys() == check.keys() - {"self"}
    assert check["max_increase"].default == MAX_INCREASE
    assert check["alpha"].default == ALPHA


@pytest.mark.parametrize(
    "name",
    [each.name for each in dataclasses.fields(RunSettings) if each.name != "save_every"],
)
def test_a_run_setting_is_an_option_of_the_same_default(name):
    option, default = OPTION[name], getattr(RunSettings(), name)
    if name == "pictures":  # the command line makes a report, the Python call does not
        assert (default, option.constant) == (False, False)
    elif name == "data_folder":
        assert option.default.endswith(f"else {default}")
    else:
        assert_same_default(option, default)


@pytest.mark.parametrize(
    ("group", "spec"), [("Models", ModelSpec), ("Dataset", DatasetSpec), ("Attacks", AttackSpec)]
)
def test_an_option_sets_a_key_of_a_spec_with_the_same_default(group, spec):
    for option in GROUPS[group][1]:
        default = spec.model_fields[
            "model" if option.flag == "--model" else option.name
        ].get_default()
        if option.flag not in REQUIRED and option.name not in ("name", "label", "arguments"):
            assert_same_default(option, None if option.many else default)
