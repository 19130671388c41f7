"""The worst case over a list of attacks, each run on the survivors of the earlier ones.

.. code-block:: toml

    [[attacks]]
    name = "worst-of"
    epsilon = "8/255"
    attacks = [
      { name = "apgd-ce" },
      { name = "fab-t", steps = 50 },
      { name = "pgd", eot = 20 },
      { name = "foolbox:LinfPGD", label = "foolbox" },
    ]

A member may have its own ``eot``, ``backward`` and ``before``; those that it does not give are the
list's (`gibbon.models.attacked_view`).

A member's candidates are checked as at the trust boundary, and the model itself predicts them
again, before later members leave an example out.  `gibbon.attacks.autoattack` is such a list.

Source of the idea: F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an
ensemble of diverse parameter-free attacks", ICML 2020, section 6, https://arxiv.org/abs/2003.01690.
"""

from __future__ import annotations

from abc import abstractmethod
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
from gibbon.attacks.factory import attack_class, check_adaptation, explained, make_attack
from gibbon.attacks.toolkit.example_rows import ExampleRows
from gibbon.attacks.toolkit.minimal_search import Criterion
from gibbon.attacks.toolkit.projections import choose
from gibbon.core.errors import AttackError, RequestError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel, Verdict
from gibbon.metrics.validity import check
from gibbon.models.attacked_view import adaptation_of, attacked_view, model_behind_view
from gibbon.models.classifier import Classifier
from gibbon.models.votes import votes
from gibbon.specs.adaptation import UNCHANGED, Adaptation
from gibbon.specs.naming import label_from
from gibbon.specs.suite import AttackSpec

# Keys of an attack's spec that a member may have too.
ADAPTING = ("eot", "backward", "before")

# Keys of an attack's spec that belong to the whole list.
OF_ALL = ("epsilon", "norm", "clip", "optional", "carried")


@plain(frozen=True)
class Member:
    """An attack of a list, with its label in tables and its own keys of adaptation."""

    label: str = field(repr=False)  # no part of the text that results are filed under
    attack: Attack
    keys: AttackSpec | None = field(default=None, repr=False, hash=False)  # see `attack_part`

    def adaptation(self, inherited: Adaptation) -> Adaptation:
        """Returns the view of the model that it attacks, given that of the list."""
        whole = self.keys.adaptation(inherited) if self.keys is not None else inherited
        return whole if self.attack.needs_gradient else whole.without_gradient

    def __str__(self) -> str:
        own = self.adaptation(UNCHANGED).shown
        parameters = {**parameters_of(self.attack), **own}
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
    table = {"name": written.strip()} if isinstance(written, str) else written
    if not isinstance(table, Mapping):
        raise MemberError(f'{where}: must be a table such as {{ name = "pgd" }}, got {written!r}')
    name = table.get("name")
    if not isinstance(name, str):
        raise MemberError(f"{where}.name: is missing")
    for key in OF_ALL:
        if key in table:
            raise MemberError(
                f"{where}.{key}: belongs to the whole list: write it next to `attacks`"
            )
    label = table.get("label", label_from(name))
    try:
        loaded = attack_class(name, where=f"{where}.name")
        stopping = {"keep": STOPPING} if can_stop(loaded) else {}
        own = {key: value for key, value in table.items() if key != "label"}
        spec = AttackSpec.model_validate({**stopping, **own, "label": label, "epsilon": 0})
        attack = make_attack(loaded, spec, where=where)
        check_adaptation(spec, attack, where=where)
        return Member(spec.label, attack, spec if any(map(own.get, ADAPTING)) else None)
    except ValidationError as error:
        raise MemberError(str(explained(error, where=where))) from error
    except RequestError as error:
        raise MemberError(str(error)) from error


def members_of(attack: Attack) -> tuple[Member, ...]:
    """Returns the members of a list of attacks; empty for any other attack."""
    if isinstance(attack, AttackList):
        return attack.listed
    return tuple(map(Member, attack.members, attack.made_of))


class AttackList(Attack):
    """Interface of the attacks that run a list, and yield one candidate for each of its members."""

    @property
    @abstractmethod
    def listed(self) -> tuple[Member, ...]:
        """The members in order."""

    @property
    def made_of(self) -> tuple[Attack, ...]:
        """The members' attacks."""
        return tuple(each.attack for each in self.listed)

    @property
    def members(self) -> tuple[str, ...]:
        """The members' labels."""
        return tuple(each.label for each in self.listed)

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields one candidate a member, of the inputs' shape, made on the earlier ones' survivors.

        An example is a survivor unless the model misclassifies the clean input, or a candidate that
        is finite, in the budget and in the box; by more than rounding, as the trust boundary
        predicts again.
        """
        examples = _MemberExamples(inputs, labels, streams)
        fooling = inputs.clone()  # the point that fooled the model, else the input
        fooled = _fooled(model_behind_view(classifier), inputs, examples)[0]
        for member in self.listed:
            candidates = fooling.clone()
            rows = torch.nonzero(~fooled).squeeze(1)
            if len(rows):
                with classifier.run_on(rows):
                    view = _member_view(member, classifier, inputs)
                    found = _run_member(member, view, examples.take(rows), threat=threat)
                candidates[rows] = found.points
                now = rows[found.fooled]
                fooling[now] = found.points[found.fooled]
                fooled[now] = True
            yield candidates


@dataclass(frozen=True, kw_only=True, config=ConfigDict(**STRICT, arbitrary_types_allowed=True))
class WorstOf(AttackList):
    """Runs a list of attacks, each on the survivors of the earlier ones.

    It yields one candidate an attack, of full shape: the point that the attack found, or for an
    example that was left out the point that fooled the model before; clean mistakes are left out
    from the start.  The random numbers of an attack do not depend on the list, so that the list
    fools the model on every example on which a member does, in any order of members.

    A member costs its own passes on the survivors, and one forward pass to check each of its
    candidates; a minimal-norm attack may stop at any point in the budget.

    Args:
        attacks: the members in order: tables as in a suite, without ``epsilon``, ``norm`` and
            ``clip``, which belong to the list; names only; or attacks.  Members that can stop at
            the first success do so unless their ``keep`` says otherwise.  A ``label`` distinguishes
            two members of one name.
    """

    norms: ClassVar[tuple[Norm, ...]] = tuple(Norm)  # of a list: those that all members support

    attacks: Annotated[tuple[Member, ...], BeforeValidator(_members)]

    def __post_init__(self) -> None:
        # Class attributes of other attacks: here they depend on the members.
        kinds = self.made_of
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
    def listed(self) -> tuple[Member, ...]:
        """The members in order."""
        return self.attacks


@plain(frozen=True)
class _MemberExamples(ExampleRows):
    """Inputs with their labels and random streams."""

    inputs: Tensor
    labels: Tensor
    streams: ExampleStreams


@plain(frozen=True)
class _Scored:
    """Candidates, shape (M, *input_shape), with their score and whether they fool the model."""

    points: Tensor
    score: Tensor  # as at the trust boundary: positive if misclassified, zero if not valid
    fooled: Tensor

    def or_better(self, other: _Scored) -> _Scored:
        better = other.score > self.score
        return _Scored(
            choose(better, other.points, self.points),
            torch.where(better, other.score, self.score),
            torch.where(better, other.fooled, self.fooled),
        )


def _member_view(member: Member, classifier: Classifier, inputs: Tensor) -> Classifier:
    """Returns the model as a member sees it; ``classifier`` is the model as the list sees it."""
    inherited = adaptation_of(classifier)
    own = member.adaptation(inherited)
    return classifier if own == inherited else attacked_view(classifier, own, inputs=inputs)


def _fooled(
    classifier: Classifier, points: Tensor, examples: _MemberExamples
) -> tuple[Tensor, Tensor]:
    """Returns whether points are misclassified by more than rounding, and a score of each.

    Both have shape (N,).  A model that answers at random is evaluated on several draws: more than
    half of them must be wrong.
    """
    answers = votes(
        classifier, points, labels=examples.labels, streams=examples.streams.child("survivors")
    )
    if answers.draws > 1:
        return answers.lead > 0, answers.lead
    return Criterion(examples.labels).met(answers.outputs), answers.lead


def _run_member(
    member: Member, classifier: Classifier, examples: _MemberExamples, *, threat: ThreatModel
) -> _Scored:
    """Returns the best of a member's candidates for each example."""
    best: _Scored | None = None
    try:
        tries = tries_of(
            member.attack.for_one(threat),
            classifier,
            examples.inputs.clone(),  # a member may change its inputs; distances are from ours
            labels=examples.labels,
            threat=threat,
            streams=examples.streams,
        )
        for candidates in tries:
            scored = _score(classifier, candidates, examples, threat=threat)
            best = scored if best is None else best.or_better(scored)
        if best is None:
            raise AttackError("the attack proposed no candidate")
    except Exception as error:
        error.add_note(f"This was member {member.label!r} of the list.")
        raise
    return best


def _score(
    classifier: Classifier, candidates: Tensor, examples: _MemberExamples, *, threat: ThreatModel
) -> _Scored:
    checked = check(candidates, examples.inputs, threat=threat, bounds=classifier.bounds)
    fooled, lead = _fooled(model_behind_view(classifier), checked.candidates, examples)
    valid = checked.verdict == Verdict.VALID
    least = torch.finfo(lead.dtype).tiny
    # Invalid candidates rank above correctly classified ones: the trust boundary flags them.
    score = torch.where(lead > 0, lead, lead.clamp(max=-least)).masked_fill(~valid, 0.0)
    return _Scored(candidates, score, valid & fooled)
