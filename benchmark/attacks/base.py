"""What an attack is: parameters, and one method that proposes candidates.

An attack is a frozen dataclass whose fields are its parameters, and reads like the algorithm of
its paper.  Two interfaces:

- `Attack.propose` yields candidates for one threat model.  An attack with restarts yields one
  candidate tensor a restart; which of them counts for an example is decided outside.
- `DirectionAttack.direction` returns one direction for a batch, which serves every epsilon: the
  candidate is ``x + epsilon * direction``.

An attack draws its random numbers from the streams that it is given and from nowhere else; it
never re-seeds, never changes its inputs, and leaves the model as it found it.  Some field names
mean something to the benchmark: ``steps`` and ``restarts`` go into the estimate of the time left,
``keep`` (which iterate is returned) is named in the tables.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass
from torch import Tensor

from benchmark.attacks import ATTACKS, IN_NORM
from benchmark.attacks.adapters import ATTACK_SOURCES
from benchmark.classifier import Classifier
from benchmark.errors import MissingLibraryError, RequestError, SpecError, suggest
from benchmark.registry import their_code
from benchmark.rng import ExampleStreams
from benchmark.specs import WORDS, AttackSpec, key_path
from benchmark.threat import Bounds, Epsilon, Norm, ThreatModel

# For our own attacks: parameters are checked when an attack is made, unknown ones refused.
STRICT = ConfigDict(extra="forbid", strict=True)


def _length(written: object) -> float:
    try:
        return float(Epsilon.parse(written))
    except SpecError as error:
        message = 'must be a number such as 0.01 or "2/255" and not negative'
        raise ValueError(message) from error


# A length in the units of the model's input, written as a number or as a fraction: "2/255".
Length = Annotated[float, BeforeValidator(_length)]


class MemberError(SpecError):
    """What is wrong with the attacks that one is made of, each line with its key path in front."""


class Attack(ABC):
    """Proposes candidates for given inputs, labels, threat model and random streams."""

    #: Norms that the attack can be asked for; the first is what it does unless told otherwise.
    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)
    #: Goes up when the same parameters begin to give other candidates: recorded results are redone.
    version: ClassVar[int] = 1
    #: Parameters that a user may not set, each with the reason (`benchmark.attacks.adapters`).
    reserved: ClassVar[Mapping[str, str]] = {}
    #: Laws of `benchmark.conformance` that the attack does not keep, each with the reason.
    departures: ClassVar[Mapping[str, str]] = {}
    #: How many channels pictures must have; None where inputs of any shape will do.
    channels: ClassVar[int | None] = None
    #: Whether it takes gradients of the model: such attacks are refused on models without them.
    needs_gradient: ClassVar[bool] = True

    #: Which of its points it returns, where it has no parameter ``keep`` that says so.
    iterate: ClassVar[str] = "last"

    @property
    def made_of(self) -> tuple[Attack, ...]:
        """The attacks that it runs, in order: what they are made of is part of what it is."""
        return ()

    @property
    def members(self) -> tuple[str, ...]:
        """The names of its tries in order, where each try is another attack's."""
        return ()

    def caveats(self, classes: int) -> Iterator[str]:
        """Yields what it does otherwise than its name says on models of so many classes.

        Tables show them as flags.
        """
        for name, member in zip(self.members, self.made_of, strict=False):
            for caveat in member.caveats(classes):
                yield f"{name}: {caveat}"

    def for_one(self, threat: ThreatModel) -> Attack:
        """Returns the attack for one who asks for errors alone, and at one threat model alone."""
        return self

    @abstractmethod
    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterable[Tensor]:
        """Yields one or more candidates, each of the inputs' shape and dtype.

        Args:
            classifier: the model under attack, in eval mode, parameters frozen.
            inputs: float32, shape (N, *input_shape); not to be changed.
            labels: int64, shape (N,): the true classes.
            threat: the norm, the budget and the box to stay in.
            streams: random numbers, one stream an example.
        """


class DirectionAttack(Attack):
    """An attack that moves along one direction, whatever the epsilon."""

    @abstractmethod
    def direction(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        streams: ExampleStreams,
    ) -> Tensor:
        """Returns the direction, of the inputs' shape, every coordinate in [-1, 1]."""

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields the one candidate."""
        direction = self.direction(classifier, inputs, labels=labels, streams=streams)
        yield move(inputs, direction, threat=threat)


def move(inputs: Tensor, direction: Tensor, *, threat: ThreatModel) -> Tensor:
    """Returns ``inputs + epsilon * direction``, clipped to the bounds where there are any."""
    candidates = inputs.add(direction, alpha=threat.radius)
    if threat.bounds is None:
        return candidates
    return candidates.clamp_(threat.bounds.low, threat.bounds.high)


def build_attack(spec: AttackSpec, *, where: str = "") -> Attack:
    """Returns the attack that a spec asks for, its parameters checked against its fields.

    A name with a colon is an attack of another library (see `attack_class`).  ``"pgd"`` in L1 is
    another class than in L∞ and L2 (`benchmark.attacks.IN_NORM`).

    Raises `UnknownNameError` for an unknown attack and `SpecError` for an unknown parameter, a
    wrong value, or a norm that the attack can't do.
    """
    name = IN_NORM.get((spec.name, spec.norm), spec.name)
    return make_attack(
        attack_class(name, where=f"{where}.name" if where else ""), spec, where=where
    )


def make_attack(attack: type[Attack], spec: AttackSpec, *, where: str = "") -> Attack:
    """Returns the attack of this class that a spec asks for, as `build_attack` does."""
    prefix = f"{where}." if where else ""
    if not is_attack(attack):
        raise SpecError(
            f"attack {spec.name!r} must be a dataclass derived from benchmark.attacks.base.Attack, "
            f"got {attack!r}",
            where=where,
        )
    if not attack.norms or not all(isinstance(each, Norm) for each in attack.norms):
        raise SpecError(
            f"attack {spec.name!r} must say in which norms it works, as `norms = (Norm.LINF,)`, "
            f"got {attack.norms!r}",
            where=where,
        )
    known = _parameter_names(attack)
    for key in spec.parameters:
        if key in attack.reserved:
            raise SpecError(
                f"attack {spec.name!r} takes no {key!r} here: {attack.reserved[key]}",
                where=f"{prefix}{key}",
            )
        if key not in known:
            choices = [*known, *AttackSpec.model_fields]
            raise SpecError(
                f"attack {spec.name!r} has no parameter {key!r}{suggest(key, choices)} "
                f"Its parameters: {', '.join(known) or 'none'}",
                where=f"{prefix}{key}",
            )
    _check_norm(spec, attack, where=f"{prefix}norm")
    try:
        built: Attack = _make(attack, spec.parameters)
    except (ValidationError, SpecError) as error:
        raise explained(error, where=where) from error
    _check_norm(spec, built, where=f"{prefix}norm")  # an attack made of others does what all can
    return built


def _check_norm(spec: AttackSpec, attack: Attack | type[Attack], *, where: str) -> None:
    if spec.norm is None or spec.norm in attack.norms:
        return
    told = f"attack {spec.name!r} works in {', '.join(attack.norms)}, not in {spec.norm}"
    members = () if isinstance(attack, type) else attack.made_of
    without = [type(each).__name__ for each in members if spec.norm not in each.norms]
    if without:
        told += f": {', '.join(without)} among its members can't"
        told += "".join(
            f"; {other!r} is {name} in {norm}"
            for (name, norm), other in IN_NORM.items()
            if norm == spec.norm
        )
    raise SpecError(told, where=where)


def attack_class(name: str, *, where: str = "") -> type[Attack]:
    """Returns the class of a registered attack, or of another library's: ``"foolbox:LinfPGD"``.

    Raises a `RequestError` where there is none of that name, or it can't be imported; a
    `MissingLibraryError` where that is for want of its library.
    """
    scheme, colon, rest = name.partition(":")
    if not colon:
        return ATTACKS.load(name, where=where)
    source = ATTACK_SOURCES.load(scheme, where=where)
    try:
        with their_code(f"attack {name!r} can't be had"):
            return source.attack(rest)
    except MissingLibraryError as error:
        raise MissingLibraryError(str(error), where=where) from error
    except RequestError as error:
        raise SpecError(str(error), where=where) from error


def threats_of(spec: AttackSpec, attack: Attack, *, bounds: Bounds) -> tuple[ThreatModel, ...]:
    """Returns the threat models that a spec asks for, one an epsilon."""
    norm = spec.norm or attack.norms[0]
    box = bounds if spec.clip else None
    return tuple(ThreatModel(norm, epsilon, box) for epsilon in spec.epsilon)


def parameters_of(attack: Attack) -> Mapping[str, Any]:
    """Returns an attack's parameters by name: its dataclass fields."""
    if not dataclasses.is_dataclass(attack):
        raise SpecError(f"attack {type(attack).__name__} must be a dataclass")
    return {field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)}


def iterates_of(attack: Attack) -> tuple[str, ...]:
    """Returns which of its points an attack returns, or those that it is made of."""
    if not attack.made_of:
        return (str(parameters_of(attack).get("keep", attack.iterate)),)
    return tuple(dict.fromkeys(each for member in attack.made_of for each in iterates_of(member)))


def is_attack(thing: object) -> bool:
    """Says whether this is the class of an attack."""
    return isinstance(thing, type) and issubclass(thing, Attack) and dataclasses.is_dataclass(thing)


def _make(attack: Any, parameters: Mapping[str, Any]) -> Any:
    if is_pydantic_dataclass(attack):
        return attack(**parameters)
    return TypeAdapter(attack).validate_python(dict(parameters))


def _parameter_names(attack: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(attack) if field.init]


def explained(error: ValidationError | SpecError, *, where: str) -> SpecError:
    """Returns what is wrong with an attack's parameters, in lines that begin with a key path."""
    if isinstance(error, MemberError):
        prefix = f"{where}." if where else ""
        return SpecError("\n".join(f"{prefix}{line}" for line in str(error).splitlines()))
    if isinstance(error, SpecError):
        return SpecError(str(error), where=where)
    lines = []
    for problem in error.errors():
        parts = [where, key_path(list(problem["loc"]))]
        place = ".".join(part for part in parts if part)
        what = f"{problem['msg'].removeprefix('Value error, ')}, got {problem['input']!r}"
        if problem["type"] == "missing":
            what = WORDS["missing"]
        lines.append(f"{place}: {what}" if place else what)
    return SpecError("\n".join(lines))
