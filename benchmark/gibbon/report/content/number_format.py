"""How numbers and measures are worded: percentages, intervals, counts, differences."""

from __future__ import annotations

import json
import math
from typing import Final

from gibbon.report.content.layout import NOTHING
from gibbon.specs.published import Measure

MEASURES: Final[dict[Measure, str]] = {
    "clean_error": "clean error",
    "adversarial_error": "adversarial error",
    "confidence_on_misclassified": "confidence on misclassified",
    "mean_confidence": "mean confidence",
    "transfer_error": "transfer error",
    "same_class_given_source_misclassified": "same wrong class, given source misled",
    "same_class_given_both_misclassified": "same wrong class, given both misled",
    "one_picture": "one picture",
}

# Clean errors below this are compared in hundredths of a point, as the literature does.
_SMALL_CLEAN_ERROR = 0.1
_MOST_DECIMALS = 4
_MOST_PLACES = 6  # of a distance; smaller ones are written with a power of ten


def decimals_of(rate: float | None, *, clean: bool = False) -> int:
    """Returns how many decimals a rate is printed with, as a percentage.

    One; two for a clean error below 10 %; and as many as it takes for a rate that is not 0 or 1
    not to read as if it were.

    >>> decimals_of(0.894), decimals_of(0.0094, clean=True), decimals_of(0.9998), decimals_of(1.0)
    (1, 2, 2, 1)
    """
    if rate is None:
        return 1
    decimals = 2 if clean and rate < _SMALL_CLEAN_ERROR else 1
    while decimals < _MOST_DECIMALS and _reads_as_an_end(rate, decimals):
        decimals += 1
    return decimals


def _reads_as_an_end(rate: float, decimals: int) -> bool:
    ends = (f"{0:.{decimals}f}", f"{100:.{decimals}f}")
    return 0 < rate < 1 and f"{100 * rate:.{decimals}f}" in ends


def _hundredths(rate: float, decimals: int) -> str:
    if not _reads_as_an_end(rate, decimals):
        return f"{100 * rate:.{decimals}f}"
    least = 10**-decimals
    return f"<{least:.{decimals}f}" if rate < 1 / 2 else f">{100 - least:.{decimals}f}"


def percent(rate: float | None, *, clean: bool = False) -> str:
    """Returns a rate as it is printed; None prints as a dash.

    Only 0 and 1 print as 0 % and 100 %: a rate that four decimals can't tell from them prints as
    below or above the nearest that they can.

    >>> percent(0.894), percent(0.0113, clean=True), percent(None), percent(0.9998)
    ('89.4 %', '1.13 %', '–', '99.98 %')
    >>> percent(0.9999999), percent(1e-9), percent(1.0)
    ('>99.9999 %', '<0.0001 %', '100.0 %')
    """
    if rate is None:
        return NOTHING
    return f"{_hundredths(rate, decimals_of(rate, clean=clean))} %"


def as_published(rate: float) -> str:
    """Returns a published rate with the decimals that it was published with.

    >>> as_published(0.016), as_published(0.0094), as_published(0.99)
    ('1.6 %', '0.94 %', '99 %')
    """
    return f"{round(100 * rate, 6):g} %"


def interval(
    low: float | None, high: float | None, *, rate: float | None, clean: bool = False
) -> str:
    """Returns an interval with the decimals of the rate that it is for.

    More where an end would read as 0 or 100 and is not: the interval of 10,000 in 10,000 has a
    width.

    >>> interval(0.8878, 0.8999, rate=0.894), interval(0.999616, 1.0, rate=1.0)
    ('[88.8–90.0]', '[99.96–100.00]')
    """
    if low is None or high is None:
        return NOTHING
    decimals = max(decimals_of(rate, clean=clean), decimals_of(low), decimals_of(high))
    return f"[{_hundredths(low, decimals)}–{_hundredths(high, decimals)}]"


def points(measured: float | None, published: float, *, clean: bool = False) -> str:
    """Returns by how many percentage points the measured rate is above the published one.

    >>> points(0.991, 0.894), points(0.0084, 0.0094, clean=True), points(0.894, 0.894)
    ('+9.7', '−0.10', '0.0')
    """
    if measured is None:
        return NOTHING
    decimals = 2 if clean and max(measured, published) < _SMALL_CLEAN_ERROR else 1
    text = f"{100 * (measured - published):+.{decimals}f}"
    if float(text) == 0:
        return text[1:]
    return text.replace("-", "−")


def count(number: int | None) -> str:
    """Returns a count with its thousands marked.

    >>> count(10000), count(None)
    ('10,000', '–')
    """
    return NOTHING if number is None else f"{number:,}"


def share(part: int | None, whole: int | None) -> str:
    """Returns a count beside what it is a share of.

    >>> share(8940, 10000), share(None, 10000)
    ('8,940 / 10,000', '–')
    """
    return NOTHING if part is None or whole is None else f"{part:,} / {whole:,}"


def counted(rate: float | None, whole: int | None) -> int | None:
    """Returns the count that a rate was made from.

    >>> counted(0.894, 10000)
    8940
    """
    return None if rate is None or whole is None else round(rate * whole)


def length(distance: float | None) -> str:
    """Returns a distance with three digits; None prints as a dash.

    >>> length(0.0823529), length(1.5), length(0.0), length(12345.6), length(None)
    ('0.0824', '1.50', '0', '12346', '–')
    """
    if distance is None:
        return NOTHING
    if distance == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(distance)))
    return f"{distance:.{decimals}f}" if decimals <= _MOST_PLACES else f"{distance:.2e}"


def yes_no(truth: bool | None) -> str:
    """Returns ``yes``, ``no`` or a dash."""
    return NOTHING if truth is None else "yes" if truth else "no"


def parameters_in_words(written: str) -> str:
    """Returns an attack's parameters, stored as JSON, as they read in a sentence.

    What is null takes the attack's own default; the iterate kept is named in a place of its own.

    >>> parameters_in_words('{"steps": 20, "step_size": null, "random_start": true}')
    'steps 20, random start yes'
    >>> parameters_in_words('{"attacks": ["pgd (steps 3)", "square (queries 20)"]}')
    'attacks pgd (steps 3), square (queries 20)'
    """
    try:
        parameters: dict[str, object] = json.loads(written or "{}")
    except ValueError:
        return written
    return ", ".join(
        f"{name.replace('_', ' ')} {_value_in_words(value)}"
        for name, value in parameters.items()
        if value is not None and name != "keep"
    )


def _value_in_words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value_in_words, value))
    return yes_no(value) if isinstance(value, bool) else str(value)
