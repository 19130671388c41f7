"""The keys of an adapted attack: what a suite may say, and what it says then."""

from __future__ import annotations

from pathlib import Path

import pytest

from gibbon.core.errors import SpecError
from gibbon.specs.adaptation import Adaptation
from gibbon.specs.decoding import parse_suite
from gibbon.specs.suite import AttackSpec, Suite

HEAD = 'name = "x"\ndataset = "mnist"\nmodels = ["rbf"]\n[[attacks]]\nname = "pgd"\nepsilon = 0.1\n'


def suite(lines: str, folder: Path = Path()) -> Suite:
    return parse_suite(HEAD + lines, where="x.toml", folder=folder)


def attack(lines: str, folder: Path = Path()) -> AttackSpec:
    return suite(lines, folder).experiments[0].attacks[0]


def test_without_keys_nothing_changes_and_nothing_is_dumped() -> None:
    spec = attack("steps = 3")
    assert not spec.adaptation()
    assert not {"eot", "backward", "before"} & spec.model_dump().keys()
    assert "draws" not in suite("").experiments[0].model_dump()


def test_keys_are_not_parameters() -> None:
    spec = attack('eot = 20\nbackward = { "a.b" = "identity" }\nbefore = "c"\nsteps = 3')
    assert spec.parameters == {"steps": 3}
    assert spec.adaptation() == Adaptation(20, (("a.b", "identity"),), "c")
    assert AttackSpec.model_validate(spec.model_dump()) == spec
    assert str(spec.adaptation()) == "eot 20, backward a.b = identity, before c"


def test_what_is_not_given_is_inherited() -> None:
    whole = Adaptation(20, (("a", "identity"),), "c")
    assert attack("").adaptation(whole) == whole
    assert attack("eot = 1").adaptation(whole) == Adaptation(1, (("a", "identity"),), "c")
    assert attack('before = "d"').adaptation(whole).before == "d"
    assert attack('backward = { "b" = "identity" }').adaptation(whole).backward == (
        ("b", "identity"),
    )


def test_one_draw_changes_nothing() -> None:
    assert not attack("eot = 1").adaptation()
    assert not attack("backward = {}").adaptation()


def test_paths_are_relative_to_the_suite() -> None:
    lines = 'backward = { "a" = "nets/f.py:soft", "b" = "pkg.mod:soft", "c" = "identity" }'
    spec = attack(lines, Path("suites"))
    assert spec.backward == {"a": "suites/nets/f.py:soft", "b": "pkg.mod:soft", "c": "identity"}


def test_paths_of_a_lists_members_are_too() -> None:
    members = '[{ name = "pgd", backward = { "a" = "f.py:soft" } }, "square", { name = "fgsm" }]'
    text = HEAD.replace('"pgd"', '"worst-of"') + f"attacks = {members}"
    suite = parse_suite(text, where="x.toml", folder=Path("suites"))
    found = suite.experiments[0].attacks[0].parameters["attacks"]
    assert found == [
        {"name": "pgd", "backward": {"a": "suites/f.py:soft"}},
        "square",
        {"name": "fgsm"},
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("eot = 0", "x.toml: attacks[0].eot: Input should be greater than or equal to 1, got 0"),
        ('eot = "20"', "x.toml: attacks[0].eot: "),
        ("eot = true", "x.toml: attacks[0].eot: "),
        ('backward = "identity"', "x.toml: attacks[0].backward: "),
        ("backward = { a = 3 }", "x.toml: attacks[0].backward.a: "),
        ('before = ""', "x.toml: attacks[0].before: "),
    ],
)
def test_wrong_values_are_named(lines: str, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        suite(lines)
    assert str(raised.value).startswith(message)


def test_draws_belong_to_the_experiment() -> None:
    text = HEAD.replace("models", "draws = 5\nmodels")
    assert parse_suite(text, where="x.toml").experiments[0].draws == 5
    with pytest.raises(SpecError, match=r"x\.toml: draws: "):
        parse_suite(HEAD.replace("models", "draws = 0\nmodels"), where="x.toml")
