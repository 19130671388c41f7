"""Interfaces of attacks: parameters, and one method that proposes candidates.

An attack is a frozen dataclass whose fields are its parameters, and reads like the algorithm of
its paper.  Two interfaces:

- `Attack.propose` yields candidates for one threat model.  An attack with restarts yields one
  candidate tensor a restart; the trust boundary decides which of them counts for an example.
- `DirectionAttack.direction` returns one direction for a batch, which serves every epsilon: the
  candidate is ``x + epsilon * direction``.

An attack draws its random numbers from the streams passed to it only; it never re-seeds, never
changes its inputs, and restores the model.  Some field names have a meaning for the benchmark:
``steps`` and ``restarts`` enter the estimate of the time left, ``keep`` (the iterate that is
returned) is printed in the tables.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field
from torch import Tensor

from gibbon.core.errors import AttackError, SpecError
from gibbon.core.global_state import GlobalState
from gibbon.core.plain_tensors import plain, plain_copy
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel
from gibbon.metrics.distances import clip_
from gibbon.metrics.validity import check_form
from gibbon.models.attacked_view import redraw
from gibbon.models.classifier import Classifier
from gibbon.models.reached_values import after_step, step
from gibbon.specs.suite import AttackSpec

STOPPING: Literal["first-success"] = "first-success"

OWN_MODULES, ADAPTERS = "gibbon.attacks.", "gibbon.attacks.adapters."

# For our own attacks: parameters are checked on construction, unknown ones refused.
STRICT = ConfigDict(extra="forbid", strict=True)


def _length(written: object) -> float:
    try:
        return float(Epsilon.parse(written))
    except SpecError as error:
        message = 'must be a number such as 0.01 or "2/255" and not negative'
        raise ValueError(message) from error


# A length in the units of the model's input, written as a number or as a fraction: "2/255".
Length = Annotated[float, BeforeValidator(_length)]
PositiveLength = Annotated[Length, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class MemberError(SpecError):
    """Errors in the members of a list of attacks, one a line, each after its key path."""


class SharedWork(Enum):
    """The work that an attack does once for all epsilons of a batch.

    ``DIRECTION``: the direction of a `DirectionAttack`.  ``SEARCH``: the search of a
    `MinimalNormAttack` for the nearest adversarial examples, once for each norm and box.
    """

    NOTHING = "nothing"
    DIRECTION = "direction"
    SEARCH = "search"


class SearchMethod(Enum):
    """The way in which an attack looks for adversarial examples.

    From it follows which of two attacks should find more errors
    (`gibbon.diagnostics.attack_order`).  ``UNKNOWN`` is compared with others only if it turns out
    to take no gradients.
    """

    UNKNOWN = "unknown"
    #: Draws points without asking the model.
    NOISE = "noise"
    #: Searches by the model's outputs.
    GRADIENT_FREE = "gradient-free"
    #: Takes one gradient of the model's loss.
    SINGLE_STEP = "single-step"
    #: Climbs the model's own loss by its gradients, within the budget.
    ITERATIVE = "iterative"
    #: Climbs a smoothed or transformed loss, for examples that fool other models.
    FOR_TRANSFER = "for transfer"
    #: Minimises the distance, whatever the budget.
    MINIMAL_NORM = "minimal-norm"


class Attack(ABC):
    """Proposes candidates for given inputs, labels, threat model and random streams."""

    #: Norms that the attack supports; the first is the default.
    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)
    #: Raised when equal parameters give other candidates than before: results are computed again.
    version: ClassVar[int] = 1
    #: Parameters that users may not set, each with the reason (`gibbon.attacks.adapters`).
    reserved: ClassVar[Mapping[str, str]] = {}
    #: Laws of `gibbon.conformance` that the attack does not keep, each with the reason.
    departures: ClassVar[Mapping[str, str]] = {}
    #: Number of channels that pictures must have; None for inputs of any shape.
    channels: ClassVar[int | None] = None
    #: Whether it takes gradients of the model; such attacks are refused on models without them.
    needs_gradient: ClassVar[bool] = True

    #: Whether it changes a few coordinates by design, as a patch does, where its norm allows all.
    sparse: ClassVar[bool] = False

    #: How it searches.  One that takes no gradients is gradient-free unless this is ``NOISE``.
    search_method: ClassVar[SearchMethod] = SearchMethod.UNKNOWN

    #: What it computes once for all epsilons: set by `DirectionAttack` and `MinimalNormAttack`.
    shares: ClassVar[SharedWork] = SharedWork.NOTHING

    #: The iterate that it returns, unless it has a parameter ``keep``.
    iterate: ClassVar[str] = "last"

    @property
    def made_of(self) -> tuple[Attack, ...]:
        """The attacks that it runs, in order; empty for an attack that runs no others."""
        return ()

    @property
    def members(self) -> tuple[str, ...]:
        """The names of its candidates in order, if each comes from another attack; else empty."""
        return ()

    def caveats(self, classes: int) -> Iterator[str]:
        """Yields the ways in which it differs from its paper on models with this many classes.

        Tables show them as flags.
        """
        for name, member in zip(self.members, self.made_of, strict=False):
            for caveat in member.caveats(classes):
                yield f"{name}: {caveat}"

    def path_length(self, threat: ThreatModel, *, bounds: Bounds) -> float:
        """Returns the length of the path of one run in units of epsilon.

        That is ``steps`` times ``step_size`` if the attack has both parameters and they are set,
        else infinite: its rule for step sizes leads through the whole ball.
        """
        parameters = parameters_of(self)
        steps, size = parameters.get("steps"), parameters.get("step_size")
        return relative_length(steps, size, threat=threat)

    def for_one(self, threat: ThreatModel) -> Attack:
        """Returns the variant to run if only the error rate at this threat model is needed."""
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
            threat: the norm, the budget and the box.
            streams: random numbers, one stream an example.
        """


class DirectionAttack(Attack):
    """An attack that moves along one direction for every epsilon."""

    search_method: ClassVar[SearchMethod] = SearchMethod.SINGLE_STEP
    shares: ClassVar[SharedWork] = SharedWork.DIRECTION

    @abstractmethod
    def direction(
        self, classifier: Classifier, inputs: Tensor, *, labels: Tensor, streams: ExampleStreams
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
    """Returns ``inputs + epsilon * direction``, clipped to the bounds if there are any."""
    return clip_(inputs.add(direction, alpha=threat.radius), threat.bounds)


def relative_length(steps: object, step_size: object, *, threat: ThreatModel) -> float:
    """Returns ``steps * step_size`` in units of epsilon; infinite unless all are positive numbers.

    >>> threat = ThreatModel(Norm.LINF, Epsilon.parse("0.1"), None)
    >>> relative_length(10, 0.02, threat=threat), relative_length(10, None, threat=threat)
    (2.0, inf)
    """
    if isinstance(steps, int) and isinstance(step_size, int | float) and threat.radius > 0:
        return steps * step_size / threat.radius
    return math.inf


def threats_of(spec: AttackSpec, attack: Attack, *, bounds: Bounds) -> tuple[ThreatModel, ...]:
    """Returns the threat models of a spec, one an epsilon."""
    norm = spec.norm or attack.norms[0]
    box = bounds if spec.clip else None
    return tuple(ThreatModel(norm, epsilon, box) for epsilon in spec.epsilon)


def parameters_of(attack: Attack) -> Mapping[str, Any]:
    """Returns an attack's parameters by name: its dataclass fields."""
    if not dataclasses.is_dataclass(attack):
        raise SpecError(f"attack {type(attack).__name__} must be a dataclass")
    return {field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)}


def is_targeted(attack: Attack) -> bool:
    """Returns whether an attack looks for examples of a target class only: its ``target``."""
    return bool(parameters_of(attack).get("target", "none") != "none")


def iterates_of(attack: Attack) -> tuple[str, ...]:
    """Returns the iterates that an attack returns, or that the attacks of its list return."""
    if not attack.made_of:
        return (str(parameters_of(attack).get("keep", attack.iterate)),)
    return tuple(dict.fromkeys(each for member in attack.made_of for each in iterates_of(member)))


def is_attack(thing: object) -> bool:
    """Returns whether this is the class of an attack."""
    return isinstance(thing, type) and issubclass(thing, Attack) and dataclasses.is_dataclass(thing)


def tries_of(
    attack: Attack,
    classifier: Classifier,
    inputs: Tensor,
    *,
    labels: Tensor,
    threat: ThreatModel,
    streams: ExampleStreams,
) -> Iterator[Tensor]:
    """Yields copies of the candidates of an attack, each of the inputs' shape and dtype.

    The attack gets copies of the labels and of the threat model, so that it can't widen its budget,
    and its candidates are copied: it may go on working in place on a tensor that was judged
    already.  Raises `AttackError` for anything but tensors of the inputs' shape and dtype.
    """
    redraw(classifier, 0)  # whatever step an attack before this one ended at
    ours = is_ours(attack)
    own = threat if ours else copy.deepcopy(threat)
    proposed = attack.propose(
        classifier, inputs, labels=labels.clone(), threat=own, streams=streams
    )
    yield from copied(proposed, inputs, what="candidate", ours=ours)


def copied(proposed: object, inputs: Tensor, *, what: str, ours: bool = False) -> Iterator[Tensor]:
    """Yields plain copies of the tensors that an attack returned, of the inputs' shape and dtype.

    A tensor by itself counts as one candidate: an author's ``return`` instead of ``yield``.  An
    attack that is not ``ours`` may yield while it has changed global state, such as inside of
    autocast: that state is its own until it continues.

    Raises `AttackError` for anything but tensors of the inputs' shape and dtype.
    """
    if issubclass(type(proposed), Tensor):
        yield one_copied(proposed, inputs, what=what)
        return
    if not isinstance(proposed, Iterable):
        raise AttackError(f"an attack must yield tensors, got {type(proposed).__name__}")
    for each in proposed if ours else _in_own_state(proposed):
        yield one_copied(each, inputs, what=what)


def one_copied(value: object, inputs: Tensor, *, what: str) -> Tensor:
    """Returns a plain copy of a tensor that an attack returned, of the inputs' shape and dtype.

    Raises `AttackError` for anything else.
    """
    after_step()
    tensor = plain(value, what=f"a {what}", problem=AttackError)
    check_form(tensor, inputs, what=what)
    return plain_copy(tensor.to(inputs.device))


def is_ours(attack: Attack) -> bool:
    """Returns whether an attack is written here: no plug-in, and none of another library.

    >>> from gibbon.attacks.fgsm import FGSM
    >>> is_ours(FGSM())
    True
    """
    module = type(attack).__module__
    own = module.startswith(OWN_MODULES) and not module.startswith(ADAPTERS)
    return own and all(map(is_ours, attack.made_of))


def _in_own_state(tries: Iterable[object]) -> Iterator[object]:
    """Yields an attack's tries; between two of them global state is ours, and in a step its own."""
    iterator = iter(tries)
    inside: GlobalState | None = None
    while True:
        outside = GlobalState.now()
        if inside is not None:
            inside.put_back()
        try:
            with step():
                found = next(iterator)
        except StopIteration:
            return  # what the attack leaves changed in the end is found by its guard
        inside = GlobalState.now()
        outside.put_back()
        yield found


def can_stop(attack: type) -> bool:
    """Returns whether an attack can stop at the first success: its field ``keep`` allows it.

    >>> from gibbon.attacks.bim import BIM
    >>> can_stop(BIM), can_stop(int)
    (True, False)
    """
    hint = get_type_hints(attack).get("keep")
    return get_origin(hint) is Literal and STOPPING in get_args(hint)
