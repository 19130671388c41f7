"""Limits of a gate: how much worse a measure may become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from gibbon.core.errors import SpecError, suggest
from gibbon.gate.baseline import Key, Measure
from gibbon.specs.base import Name, Spec
from gibbon.specs.decoding import WORDS, key_path, parse_toml, read_text

MAX_INCREASE = 1.0  # percentage points

Points = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Limit(Spec):
    """How much worse some measures may become; what is not named matches everything.

    Of a transfer ``model`` is the source and ``target`` the model that is scored.
    """

    max_increase: Points
    dataset: Name | None = None
    model: Name | None = None
    attack: Name | None = None
    measure: Measure | None = None
    target: Name | None = None

    def covers(self, measured: Key) -> bool:
        """Says whether this limit is about a measure."""
        return all(
            asked is None or asked == getattr(measured, name) for name, asked in self.named.items()
        )

    @property
    def named(self) -> dict[str, str]:
        """What this limit names, by key."""
        keys = ("dataset", "model", "attack", "measure", "target")
        return {key: asked for key in keys if (asked := getattr(self, key)) is not None}


class Limits(Spec):
    """The limits of a comparison: a general one, and those of single measures.

    Of several limits that cover a measure the last one counts.
    """

    max_increase: Points = MAX_INCREASE
    limits: tuple[Limit, ...] = ()

    def allowing(self, points: float) -> Limits:
        """Returns these with another general limit.  Raises `SpecError`."""
        if not 0 <= points <= 100:
            raise SpecError(f"max_increase must be 0 to 100 percentage points, got {points:g}")
        return self.model_copy(update={"max_increase": points})

    def of(self, measured: Key) -> float:
        """Returns by how many percentage points a measure may increase."""
        fitting = [limit.max_increase for limit in self.limits if limit.covers(measured)]
        return fitting[-1] if fitting else self.max_increase

    def check(self, known: Iterable[Key], *, where: str = "") -> None:
        """Raises `SpecError` where a limit covers nothing: a name in it must be misspelt."""
        keys = list(known)
        for place, limit in enumerate(self.limits):
            if any(limit.covers(key) for key in keys):
                continue
            problem = "covers no measure"
            for name, asked in limit.named.items():
                there = {getattr(key, name) for key in keys} - {""}
                if asked not in there:
                    problem = f"{name}: no {name} {asked!r} is compared{suggest(asked, there)}"
                    break
            raise SpecError(f"limits[{place}]: {problem}", where=where)


def read_limits(path: Path) -> Limits:
    """Returns the limits in a TOML file.  Raises `SpecError`."""
    try:
        return Limits.model_validate(parse_toml(read_text(path), where=str(path)))
    except ValidationError as error:
        raise SpecError("; ".join(_explain(error)), where=str(path)) from error


def limits_beside(baseline: Path) -> Path | None:
    """Returns the file of limits that stands beside a baseline, if there is one.

    ``limits.toml`` inside a run's folder; ``NAME.toml`` beside a baseline file ``NAME.json``.
    """
    place = baseline / "limits.toml" if baseline.is_dir() else baseline.with_suffix(".toml")
    return place if place.is_file() else None


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        location = list(problem["loc"])
        if problem["type"] == "extra_forbidden":
            owner = Limit if len(location) > 1 else Limits
            message = "unknown key" + suggest(str(location[-1]), owner.model_fields)
        else:
            message = WORDS.get(problem["type"], problem["msg"])
            if isinstance(problem["input"], str | int | float):
                message += f", got {problem['input']!r}"
        yield f"{key_path(location)}: {message}"
