"""Field types and the base class of all specs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)
from pydantic_core import ErrorDetails

from gibbon.core.errors import SpecError
from gibbon.core.threat import Epsilon
from gibbon.specs.problems import key_path, problem_lines, problem_text

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=80)]

Source = Annotated[str, Field(min_length=1, max_length=4000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SideLength = Annotated[int, Field(gt=0, strict=True)]
Size = SideLength | tuple[SideLength, SideLength]

# A key of an attack, a published row, ... that is not an attack's own parameter.
UNATTACKED = "none"


def _parse_epsilon(written: object) -> Epsilon:
    try:
        return Epsilon.parse(written)
    except SpecError as error:
        raise ValueError(str(error)) from error


# A field that takes one value for a list of one.
OneOrMany = BeforeValidator(
    lambda written: written if isinstance(written, list | tuple) else [written]
)

EpsilonField = Annotated[
    Epsilon, BeforeValidator(_parse_epsilon), PlainSerializer(str, return_type=str)
]


class InvalidSpecError(SpecError, ValueError):
    """A spec that is made in Python is invalid; pydantic takes it for an error of a value."""


class Spec(BaseModel):
    """Base class of frozen records that refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    if not TYPE_CHECKING:  # type checkers know the arguments from the fields

        def __init__(self, /, **data: Any) -> None:
            """Makes a spec.  Raises `SpecError`, a line for each key that is wrong."""
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise InvalidSpecError(_explained(error, type(self))) from error

        # Specs inside of others are validated without a call of this method, as pydantic's own.
        __init__.__pydantic_base_init__ = True


def _explained(error: ValidationError, kind: type[Spec]) -> str:
    def line(problem: ErrorDetails) -> str:
        known = kind.model_fields if len(problem["loc"]) == 1 else ()
        where = ": ".join(each for each in (kind.__name__, key_path(problem["loc"])) if each)
        return f"{where}: {problem_text(problem, known)}"

    return problem_lines(error, line, where=kind.__name__)
