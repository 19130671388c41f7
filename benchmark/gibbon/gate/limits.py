"""Limits of a gate: how much worse a measure may become, and which flags are accepted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, model_validator

from gibbon.core.errors import SpecError, suggest
from gibbon.core.reading import check_tree
from gibbon.gate.measures import GateMeasure, Key
from gibbon.records.flag_kinds import flag_kind
from gibbon.specs.base import Name, Spec
from gibbon.specs.decoding import parse_toml, read_text
from gibbon.specs.problems import MOST_FAULTS, key_path, problem_text

MAX_INCREASE = 1.0  # percentage points

PercentagePoints = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


def _is_known(kind: str) -> str:
    try:
        return flag_kind(kind).name
    except SpecError as error:
        raise ValueError(str(error)) from error


KindName = Annotated[Name, AfterValidator(_is_known)]


class Limit(Spec):
    """The increase that is allowed, and the flags that are accepted, for some measures.

    A field that is None matches every measure.  For a transfer ``model`` is the source and
    ``target`` the model that is scored.  ``max_increase`` may be left out if there is ``accept``:
    kinds of flags that the author takes responsibility for.
    """

    max_increase: PercentagePoints | None
    accept: tuple[KindName, ...] = ()
    dataset: Name | None = None
    model: Name | None = None
    attack: Name | None = None
    measure: GateMeasure | None = None
    target: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _accepts_alone(cls, written: Any) -> Any:
        if isinstance(written, dict) and "accept" in written:
            return {"max_increase": None, **written}
        return written

    def covers(self, measured: Key) -> bool:
        """Returns whether this limit applies to a measure."""
        return all(getattr(measured, name) == value for name, value in self.named.items())

    @property
    def named(self) -> dict[str, str]:
        """The fields that restrict this limit, by name."""
        return self.model_dump(exclude={"max_increase", "accept"}, exclude_none=True)


class Limits(Spec):
    """The limits of a comparison: a general one, and limits on some measures.

    If several limits with ``max_increase`` cover a measure, the last one applies; ``accept`` of all
    of them applies.
    """

    max_increase: PercentagePoints = MAX_INCREASE
    accept: tuple[KindName, ...] = ()
    limits: tuple[Limit, ...] = ()

    def allowing(self, points: float) -> Limits:
        """Returns these limits with another general limit.  Raises `SpecError`."""
        if not 0 <= points <= 100:
            raise SpecError(f"max_increase must be 0 to 100 percentage points, got {points:g}")
        return self.model_copy(update={"max_increase": points})

    def of(self, measured: Key) -> float:
        """Returns the percentage points by which a measure may increase."""
        for each in reversed(self.limits):
            if each.max_increase is not None and each.covers(measured):
                return each.max_increase
        return self.max_increase

    def check(self, known: Iterable[Key], *, where: str = "") -> None:
        """Raises `SpecError` if a limit covers no measure: a name in it must be misspelt."""
        keys = list(known)
        for place, limit in enumerate(self.limits):
            if any(limit.covers(key) for key in keys):
                continue
            problem = "covers no measure"
            for name, value in limit.named.items():
                there = {getattr(key, name) for key in keys} - {""}
                if value not in there:
                    problem = f"{name}: no {name} {value!r} is compared{suggest(value, there)}"
                    break
            raise SpecError(f"limits[{place}]: {problem}", where=where)


def read_limits(path: Path) -> Limits:
    """Reads limits from a TOML file.  Raises `SpecError`."""
    try:
        written = parse_toml(read_text(path), where=str(path))
        check_tree(written)
        return Limits.model_validate(written)
    except ValidationError as error:
        problems = []
        for each in error.errors()[:MOST_FAULTS]:
            owner = Limit if len(each["loc"]) > 1 else Limits
            problems.append(f"{key_path(each['loc'])}: {problem_text(each, owner.model_fields)}")
        raise SpecError("; ".join(problems), where=str(path)) from error
    except ValueError as error:
        raise SpecError(str(error), where=str(path)) from error


def default_limits(baseline: Path) -> Path | None:
    """Returns the file of limits in the folder of a baseline, or None if there is none.

    ``limits.toml`` inside a run's folder; ``NAME.toml`` beside a baseline file ``NAME.json``.
    """
    place = baseline / "limits.toml" if baseline.is_dir() else baseline.with_suffix(".toml")
    return place if place.is_file() else None
