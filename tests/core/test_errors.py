"""The tree of exceptions and the sentences that they make."""

import inspect
import pickle

import pytest

from gibbon.core import errors
from gibbon.core.errors import (
    FlagError,
    GibbonError,
    ProcessEndedError,
    SpecError,
    UnknownNameError,
    suggest,
)


def tree_of(root: type) -> list[tuple[int, str]]:
    found = [(0, root.__name__)]
    for child in root.__subclasses__():
        found += [(depth + 1, name) for depth, name in tree_of(child)]
    return found


def test_the_docstring_draws_the_tree_as_it_is():
    drawn = []
    for line in (errors.__doc__ or "").splitlines():
        stem = line.lstrip(" │├└─")
        name = stem.split(" ")[0]
        if name.endswith("Error") and line.startswith("    "):
            drawn.append(((len(line) - len(stem)) // 4 - 1, name))
    ours = [
        (depth, name)
        for depth, name in tree_of(GibbonError)
        if getattr(errors, name, None) is not None
    ]
    assert drawn == ours


def test_every_exception_of_the_package_hangs_in_the_tree():
    exceptions = [
        thing
        for _, thing in inspect.getmembers(errors, inspect.isclass)
        if issubclass(thing, BaseException)
    ]
    assert all(issubclass(each, GibbonError) for each in exceptions)


def test_a_spec_error_says_where_first():
    assert str(SpecError("is missing", where="x.toml: seed")) == "x.toml: seed: is missing"
    assert str(SpecError("is missing")) == "is missing"


def test_an_unknown_name_is_told_with_the_nearest_and_all_known():
    error = UnknownNameError("model", "maxuot", known=["rbf", "maxout"], where="x.toml: models[0]")
    assert str(error) == (
        "x.toml: models[0]: unknown model 'maxuot'; did you mean 'maxout'? Known: maxout, rbf"
    )


@pytest.mark.parametrize("name", ["zebra", ""])
def test_nothing_is_suggested_for_a_name_like_no_other(name):
    assert suggest(name, ["maxout", "rbf"]) == "."
    assert suggest(name, []) == "."


@pytest.mark.parametrize(
    "error",
    [
        SpecError("is wrong", where="there"),
        UnknownNameError("attack", "fgms", known=["fgsm"], where="s.toml"),
        FlagError("is serious", flags=("one",)),
        ProcessEndedError("ended", "loading"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_of_any_kind_comes_back_from_another_process(error):
    found = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    assert type(found) is type(error)
    assert (str(found), vars(found)) == (str(error), vars(error))


def test_every_exception_with_arguments_of_its_own_is_among_those():
    own = {kind for kind in vars(errors).values() if "__init__" in getattr(kind, "__dict__", ())}
    assert own == {SpecError, UnknownNameError, FlagError, ProcessEndedError}
