"""Registries: names of our own and of installed packages, loaded late."""

import sys
from importlib.metadata import EntryPoint

import pytest

from gibbon.core import registry as registry_module
from gibbon.core.errors import RequestError, UnknownNameError
from gibbon.core.registry import Entry, Registry, first_line, lazily


class Documented:
    """A thing with a line.

    And more.
    """


ENTRY = Entry("ignored", "a line of its own", lambda: 42, details=lambda: "a card")


SHADES = {"teal": ENTRY, "azure": Documented}


def failing_load():
    raise AssertionError("loaded too early")


@pytest.fixture
def colours() -> Registry:
    found = Registry("colour", group="tests.colours")
    found.register(Entry("red", "a warm one", lambda: 1))
    found.register(Entry("blue", "a cold one", lambda: 2))
    return found


def plug_in(monkeypatch, **values: str) -> None:
    points = [EntryPoint(name, value, "tests.colours") for name, value in values.items()]
    monkeypatch.setattr(
        registry_module, "entry_points", lambda group: points if group == "tests.colours" else []
    )


def test_names_come_in_the_order_of_registration(colours):
    assert colours.names() == ["red", "blue"]
    assert [each.summary for each in colours.entries()] == ["a warm one", "a cold one"]
    assert colours.load("blue") == 2


def test_a_name_can_be_taken_once_only(colours):
    other = Entry("red", "another", lambda: 3, origin="somebody")
    with pytest.raises(RequestError, match="'red' is registered twice: by gibbon and by some"):
        colours.register(other)
    assert colours.load("red") == 1


def test_an_unknown_name_is_refused_with_the_place_and_the_nearest(colours):
    with pytest.raises(UnknownNameError, match=r"x: unknown colour 'bleu'; did you mean 'blue'"):
        colours.get("bleu", where="x")


def test_nothing_is_loaded_before_it_is_asked_for():
    late = Registry("colour", group="tests.none")
    late.register(Entry("red", "", failing_load))
    assert late.names() == ["red"]
    assert late.get("red").name == "red"


def test_lazily_imports_when_it_is_called_only():
    sys.modules.pop("colorsys", None)
    load = lazily("colorsys:rgb_to_hls")
    assert "colorsys" not in sys.modules
    assert load()(0.0, 0.0, 0.0) == (0.0, 0.0, 0.0)


def test_plug_ins_follow_our_own_in_the_order_of_their_names(colours, monkeypatch):
    here = Documented.__module__
    plug_in(monkeypatch, zinc=f"{here}:Documented", amber=f"{here}:ENTRY")
    assert colours.names() == ["red", "blue", "amber", "zinc"]


def test_a_plug_in_is_the_thing_itself_or_an_entry(colours, monkeypatch):
    here = Documented.__module__
    plug_in(monkeypatch, zinc=f"{here}:Documented", amber=f"{here}:ENTRY")
    thing, entry = colours.get("zinc"), colours.get("amber")
    assert (thing.summary, thing.load()) == ("A thing with a line", Documented)
    assert (entry.name, entry.summary, entry.load()) == ("amber", "a line of its own", 42)
    assert entry.details() == "a card"
    assert entry.origin == f"{here}:ENTRY"


def test_a_mapping_adds_all_that_it_names_among_the_other_plug_ins(colours, monkeypatch):
    here = Documented.__module__
    plug_in(monkeypatch, shades=f"{here}:SHADES", beige=f"{here}:Documented")
    assert colours.names() == ["red", "blue", "azure", "beige", "teal"]
    thing, entry = colours.get("azure"), colours.get("teal")
    assert (thing.summary, thing.load()) == ("A thing with a line", Documented)
    assert (entry.name, entry.summary, entry.load()) == ("teal", "a line of its own", 42)
    assert entry.origin == thing.origin == f"{here}:SHADES"


def test_a_name_in_a_mapping_and_of_another_entry_point_is_refused(colours, monkeypatch):
    here = Documented.__module__
    plug_in(monkeypatch, shades=f"{here}:SHADES", teal=f"{here}:Documented")
    with pytest.raises(RequestError, match="'teal' is registered twice"):
        colours.names()


def test_a_plug_in_that_takes_our_name_is_refused(colours, monkeypatch):
    plug_in(monkeypatch, red=f"{Documented.__module__}:Documented")
    with pytest.raises(RequestError, match="'red' is registered twice"):
        colours.names()


@pytest.mark.parametrize("value", ["no.such.module:Thing", "colorsys:no_such_name"])
def test_a_broken_plug_in_is_told_only_when_it_is_asked_for(colours, monkeypatch, value):
    plug_in(monkeypatch, broken=value)
    assert colours.load("red") == 1
    assert "can't be imported" in colours.get("broken").summary
    with pytest.raises(RequestError, match=r"colour 'broken' of package .* can't be imported"):
        colours.load("broken")


def test_the_first_line_of_a_docstring_has_no_full_stop():
    assert first_line(Documented) == "A thing with a line"
    assert first_line(ENTRY.load) == "(no description)"
