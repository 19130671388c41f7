"""Budgets are exact and printed as written; boxes and norms."""

import dataclasses
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gibbon.core.errors import SpecError
from gibbon.core.threat import ZERO, Bounds, Epsilon, Norm, ThreatModel

fractions = st.fractions(min_value=0, max_value=1000, max_denominator=10**6)


@given(fractions)
def test_a_fraction_is_parsed_exactly_and_printed_as_written(value):
    text = f"{value.numerator}/{value.denominator}"
    parsed = Epsilon.parse(text)
    assert (parsed.value, str(parsed), float(parsed)) == (value, text, float(value))


@given(st.decimals(min_value=0, max_value=1000, places=6))
def test_a_decimal_is_exact(value):
    assert Epsilon.parse(str(value)).value == Fraction(value)


@given(st.floats(min_value=0, max_value=1e6))
def test_a_number_means_what_it_prints(value):
    steps = Fraction(round(value * 255), 255)
    if float(steps) != value:
        assert Epsilon.parse(value).value == Fraction(repr(value))
    assert float(Epsilon.parse(value)) == value


@given(st.integers(1, 255 * 255 - 1))
def test_a_number_computed_in_steps_of_a_pixel_is_taken_for_these(steps):
    parsed = Epsilon.parse(steps / 255)
    assert parsed == Epsilon.parse(f"{steps}/255")
    assert float(parsed) == steps / 255
    if steps % 51:
        assert str(parsed) == f"{steps}/255"


@pytest.mark.parametrize(
    "written", [0.25, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 0.0, 0.007, 1e-3, 3, 255.0]
)
def test_a_short_decimal_keeps_its_text(written):
    assert str(Epsilon.parse(written)) == str(written)
    assert Epsilon.parse(written).value == Fraction(str(written))


def test_what_is_near_a_step_of_a_pixel_is_not_taken_for_it():
    near = math.nextafter(8 / 255, 1.0)
    assert str(Epsilon.parse(near)) == repr(near)
    assert Epsilon.parse(0.0314) != Epsilon.parse("8/255")


@given(fractions, fractions)
def test_budgets_order_as_their_values(one, other):
    first, second = Epsilon.parse(str(one)), Epsilon.parse(str(other))
    assert (first < second) == (one < other)
    assert (first == second) == (one == other)


def test_how_a_budget_was_written_does_not_tell_it_apart():
    assert Epsilon.parse("8/255") == Epsilon.parse(" 16 / 510 ")
    assert hash(Epsilon.parse("0.5")) == hash(Epsilon.parse("1/2"))
    assert Epsilon.parse("0.10") == Epsilon.parse(0.1)
    assert Epsilon.parse(0) == ZERO


@pytest.mark.parametrize(
    "written",
    ["", "a lot", "0.1.2", "1/0", "nan", "inf", "1e999", "8/", "0x10", None, True, [0.1], b"0.1"],
)
def test_what_is_no_number_is_refused(written):
    with pytest.raises(SpecError, match=r"^here: epsilon must be a number such as .*, got "):
        Epsilon.parse(written, where="here")


@pytest.mark.parametrize("written", ["-0.1", -1, "-8/255", -1e-9])
def test_a_negative_budget_is_refused(written):
    with pytest.raises(SpecError, match="epsilon must not be negative, got "):
        Epsilon.parse(written)


def test_a_huge_exponent_is_refused_at_once():
    with pytest.raises(SpecError, match="must be a number"):
        Epsilon.parse("1e999999999999")


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 0.0), (0.0, 0.0), (0.0, float("inf")), (float("nan"), 1.0)]
)
def test_a_box_has_a_finite_inside(low, high):
    with pytest.raises(SpecError, match="bounds must be finite and low < high"):
        Bounds(low, high)


def test_norms_have_a_symbol_and_a_written_form():
    written = [(norm.value, norm.symbol) for norm in Norm]
    assert written == [("linf", "L∞"), ("l2", "L2"), ("l1", "L1")]
    assert f"{Norm('l2')}" == "l2"


def test_a_threat_model_can_not_be_changed():
    model = ThreatModel(Norm.LINF, Epsilon.parse("8/255"), Bounds(-1.0, 1.0))
    assert model.radius == 8 / 255
    assert model.bounds is not None
    assert model.bounds.width == 2.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.bounds = None  # type: ignore[misc]
