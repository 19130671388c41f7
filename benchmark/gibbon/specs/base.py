"""Field types and the base class of all specs."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from gibbon.core.errors import SpecError
from gibbon.core.threat import Epsilon

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


class Spec(BaseModel):
    """Base class of frozen records that refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
