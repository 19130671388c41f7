"""The worst of several attacks: each sees only what no earlier one misled.

.. code-block:: toml

    [[attacks]]
    name = "worst-of"
    epsilon = "8/255"
    attacks = [
      { name = "apgd-ce" },
      { name = "fab-t", steps = 50 },
      { name = "foolbox:LinfPGD", label = "foolbox" },
    ]

An example is misled if any member misleads it.  What a member claims is not believed: its
candidates are checked as at the trust boundary, and the model is asked again, before an example is
taken out of the later members' work.  `gibbon.attacks.autoattack` is such a list.

Source of the idea: F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an
ensemble of diverse parameter-free attacks", ICML 2020, section 6, https://arxiv.org/abs/2003.01690.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass as plain
from dataclasses import field
from typing import Annotated, ClassVar

import torch
from pydantic import BeforeValidator, ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import (
    STOPPING,
    STRICT,
    Attack,
    MemberError,
    can_stop,
    parameters_of,
    tries_of,
)
from gibbon.attacks.factory import attack_class, explained, make_attack
from gibbon.attacks.toolkit.minimal_search import Aim
from gibbon.core.errors import AttackError, RequestError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel, Verdict
from gibbon.metrics.distances import like
from gibbon.metrics.validity import Checked, check
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin
from gibbon.specs.naming import label_from
from gibbon.specs.suite import AttackSpec

# Keys of an attack's spec that belong to the whole list.
OF_ALL = ("epsilon", "norm", "clip", "optional", "carried")


@plain(frozen=True)
class Member:
    """One attack of a list, and what tables call it."""

    label: str = field(repr=False)  # results are filed under what it does, not what it is called
    attack: Attack

    def __str__(self) -> str:
        parameters = parameters_of(self.attack)
        listed = ", ".join(
            f"{name.replace('_', ' ')} {value}"
            for name, value in parameters.items()
            if value is not None and name != "keep"
        )
        return f"{self.label} ({listed})" if listed else self.label


def _members(written: object) -> tuple[Member, ...]:
    names = written.split(",") if isinstance(written, str) else written
    if not isinstance(names, Sequence) or not names:
        message = 'must be a list of attacks, such as [{ name = "apgd-ce" }, { name = "square" }]'
        raise MemberError(f"attacks: {message}, got {written!r}")
    members = tuple(
        _member(each, where=f"attacks[{at}]", before=names[:at]) for at, each in enumerate(names)
    )
    labels = [each.label for each in members]
    for at, label in enumerate(labels):
        if label in labels[:at]:
            raise MemberError(
                f"attacks[{at}]: two attacks of the list have the label {label!r}; give each its "
                "own `label`"
            )
    return members


def _member(written: object, *, where: str, before: Sequence[object]) -> Member:
    if isinstance(written, Member):
        return written
    if isinstance(written, Attack):
        alike = sum(type(each) is type(written) for each in before)
        kind = type(written).__name__
        return Member(f"{kind}-{alike + 1}" if alike else kind, written)
    asked = {"name": written.strip()} if isinstance(written, str) else written
    if not isinstance(asked, Mapping):
        raise MemberError(f'{where}: must be a table such as {{ name = "pgd" }}, got {written!r}')
    name = asked.get("name")
    if not isinstance(name, str):
        raise MemberError(f"{where}.name: is missing")
    for key in OF_ALL:
        if key in asked:
            raise MemberError(
                f"{where}.{key}: belongs to the whole list: write it beside `attacks`"
            )
    label = asked.get("label", label_from(name))
    try:
        loaded = attack_class(name, where=f"{where}.name")
        stopping = {"keep": STOPPING} if can_stop(loaded) else {}
        own = {key: value for key, value in asked.items() if key != "label"}
        spec = AttackSpec.model_validate({**stopping, **own, "label": label, "epsilon": 0})
        return Member(spec.label, make_attack(loaded, spec, where=where))
    except ValidationError as error:
        raise MemberError(str(explained(error, where=where))) from error
    except RequestError as error:
        raise MemberError(str(error)) from error


@dataclass(frozen=True, kw_only=True, config=ConfigDict(**STRICT, arbitrary_types_allowed=True))
class WorstOf(Attack):
    """Runs a list of attacks, each on the examples that no earlier one misled.

    It yields one try an attack, of full shape: what the attack found, and where an example was left
    out the point that had misled it; clean mistakes are left out from the start.  Each attack draws
    the same random numbers in every list, so that the list misleads what any of its members
    misleads, in whatever order they stand.

    A member costs its own passes on what it is given, and one forward pass to check each of its
    tries; one that looks for the nearest point may stop at any in the budget.

    Args:
        attacks: the members in order: tables as in a suite, without ``epsilon``, ``norm`` and
            ``clip``, which belong to the list; names alone; or attacks.  Members that can stop at
            the first success do so unless their ``keep`` says otherwise.  A ``label`` tells two of
            one name apart.
    """

    norms: ClassVar[tuple[Norm, ...]] = tuple(Norm)  # of a list: those that all its members do

    attacks: Annotated[tuple[Member, ...], BeforeValidator(_members)]

    def __post_init__(self) -> None:
        # What other attacks say as a class follows from the members here.
        kinds = [each.attack for each in self.attacks]
        common = tuple(norm for norm in kinds[0].norms if all(norm in each.norms for each in kinds))
        if not common:
            does = "; ".join(f"{m.label} in {', '.join(m.attack.norms)}" for m in self.attacks)
            raise MemberError(f"attacks: must work in one norm, got {does}")
        own = {
            "norms": common,
            "needs_gradient": any(each.needs_gradient for each in kinds),
            "departures": dict(ChainMap(*(dict(each.departures) for each in kinds))),
        }
        for name, value in own.items():
            object.__setattr__(self, name, value)

    @property
    def made_of(self) -> tuple[Attack, ...]:
        """The members."""
        return tuple(each.attack for each in self.attacks)

    @property
    def members(self) -> tuple[str, ...]:
        """The members' labels."""
        return tuple(each.label for each in self.attacks)

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields one try a member."""
        return in_turn(
            self.attacks, classifier, inputs, labels=labels, threat=threat, streams=streams
        )


def in_turn(
    members: Sequence[Member],
    classifier: Classifier,
    inputs: Tensor,
    *,
    labels: Tensor,
    threat: ThreatModel,
    streams: ExampleStreams,
) -> Iterator[Tensor]:
    """Yields one try a member, of the inputs' shape, each made on what no earlier one misled.

    An example counts as misled where the model gets the clean input wrong, or a candidate that is
    finite, in the budget and in the box; by more than rounding, as the trust boundary asks again.
    """
    standing = inputs.clone()  # what misled an example, else its input
    misled = Aim(labels).reached(classifier.predict(inputs))
    for member in members:
        candidates = standing.clone()
        rows = torch.nonzero(~misled).squeeze(1)
        if len(rows):
            if len(rows) < len(inputs):
                classifier.ask_of_a_part()
            found = _found(
                member,
                classifier,
                inputs[rows],
                labels=labels[rows],
                threat=threat,
                streams=streams.take(rows),
            )
            candidates[rows] = found.points
            now = rows[found.misled]
            standing[now] = found.points[found.misled]
            misled[now] = True
        yield candidates


@plain(frozen=True)
class _Found:
    """What counts of a member's tries: points (M, *input_shape), and what they are worth."""

    points: Tensor
    worth: Tensor  # as at the trust boundary: positive where misled, zero where not valid
    misled: Tensor

    def or_better(self, other: _Found) -> _Found:
        take = other.worth > self.worth
        return _Found(
            torch.where(like(take, self.points), other.points, self.points),
            torch.where(take, other.worth, self.worth),
            torch.where(take, other.misled, self.misled),
        )


def _found(
    member: Member,
    classifier: Classifier,
    inputs: Tensor,
    *,
    labels: Tensor,
    threat: ThreatModel,
    streams: ExampleStreams,
) -> _Found:
    best: _Found | None = None
    try:
        tries = tries_of(
            member.attack.for_one(threat),
            classifier,
            inputs.clone(),  # whatever a member does to what it gets, distances are from the inputs
            labels=labels,
            threat=threat,
            streams=streams,
        )
        for candidates in tries:
            checked = check(candidates, inputs, threat=threat, bounds=classifier.bounds)
            found = _asked(classifier, candidates, checked, labels=labels)
            best = found if best is None else best.or_better(found)
        if best is None:
            raise AttackError("the attack proposed no candidate")
    except Exception as error:
        error.add_note(f"This was member {member.label!r} of the list.")
        raise
    return best


def _asked(
    classifier: Classifier, candidates: Tensor, checked: Checked, *, labels: Tensor
) -> _Found:
    outputs = classifier.predict(checked.candidates)
    valid = checked.verdict == Verdict.VALID
    margins = margin(outputs, labels)
    least = torch.finfo(margins.dtype).tiny
    worth = torch.where(margins > 0, margins, margins.clamp(max=-least))
    # What is not valid stands before what does not mislead: it is to be seen, and flagged.
    worth = worth.masked_fill(~valid, 0.0)
    return _Found(candidates, worth, valid & Aim(labels).reached(outputs))
