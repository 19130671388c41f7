"""Durations, sizes and numbers with their ranges, as text."""

from __future__ import annotations

from gibbon.runner.estimate.attack_passes import NumberRange

_UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def duration(seconds: NumberRange) -> str:
    """Returns a time with its range, in the unit that fits its likely value.

    >>> duration(NumberRange(3000, 5400, 9000))
    '1.5 hours (0.83 to 2.5)'
    """
    factor, unit = next((each for each in _UNITS if seconds.likely >= 1.5 * each[0]), _UNITS[-1])
    low, likely, high = (
        f"{each / factor:.2g}" if each < 99.5 * factor else f"{each / factor:,.0f}"
        for each in (seconds.low, seconds.likely, seconds.high)
    )
    return f"{likely} {unit}" + ("" if low == high else f" ({low} to {high})")


def size(count: float) -> str:
    """Returns a number of bytes in words.

    >>> size(2_500_000), size(12e9), size(99_700_000)
    ('2.5 MB', '12 GB', '100 MB')
    """
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= factor:
            return (
                f"{count / factor:.2g} {unit}"
                if count < 99.5 * factor
                else (f"{count / factor:,.0f} {unit}")
            )
    return f"{max(1, round(count / 1e3)):,} kB"


def number(count: NumberRange) -> str:
    """Returns a number with its range, to three digits.

    >>> number(NumberRange(900, 1234, 5000)), number(NumberRange.exactly(20))
    ('1,230 (900 to 5,000)', '20')
    """
    low, likely, high = (_rounded(each) for each in (count.low, count.likely, count.high))
    return likely + ("" if low == high else f" ({low} to {high})")


def money(amount: NumberRange) -> str:
    """Returns an amount of money with its range, without a currency.

    >>> money(NumberRange(0.5, 1.25, 3))
    '1.25 (0.50 to 3.00)'
    """
    low, likely, high = (f"{each:,.2f}" for each in (amount.low, amount.likely, amount.high))
    return likely + ("" if low == high else f" ({low} to {high})")


def _rounded(value: float) -> str:
    return f"{float(f'{value:.3g}'):,.0f}"
