"""Suites, decoded from TOML into frozen records.

Imports no torch.  An unknown key or an invalid value fails at once, with the file, the key path,
the expected value and the nearest name.  The names of models, attacks and datasets are checked
later against the registries, before anything is computed (`gibbon.runner.plan.planned`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from functools import partial
from operator import is_, not_
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from gibbon.core.errors import suggest
from gibbon.core.threat import Epsilon, Norm
from gibbon.specs.adaptation import UNCHANGED, Adaptation
from gibbon.specs.base import (
    UNATTACKED,
    EpsilonField,
    Finite,
    Name,
    OneOrMany,
    Positive,
    SideLength,
    Size,
    Source,
    Spec,
)
from gibbon.specs.claims import Claim
from gibbon.specs.keep_examples import KeepExamples, parse_keep_examples
from gibbon.specs.memory_sizes import parse_bytes
from gibbon.specs.naming import (
    ENSEMBLE,
    RUBBISH,
    is_composed,
    label_from,
    members_in_text,
    name_from,
)
from gibbon.specs.published import PublishedRow

# "pgd", an attack of another library, "foolbox:LinfPGD", or a class: "attacks/mine.py:Mine".
ATTACK_PATTERN = (
    r"^([A-Za-z0-9][A-Za-z0-9._+-]*(:[A-Za-z0-9_][A-Za-z0-9._+-]*)?"
    r"|[^\x00-\x1f\x7f]*\.py:[A-Za-z_][A-Za-z0-9_.]*)$"
)
Direction = Literal["gradient", "unit", "sign"]
THRESHOLD = 0.5  # probability above which a model claims to see a class, as in appendix A
_Outputs = Literal["logits", "probabilities", "log-scores"]
_Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
ModulePath = Annotated[str, Field(min_length=1, max_length=400)]
StandInText = Annotated[str, Field(min_length=1, max_length=4000)]
_not_given = partial(is_, None)  # an empty value may turn off what a list says
AttackName = Annotated[str, Field(pattern=ATTACK_PATTERN, max_length=400)]


class ModelSpec(Spec):
    """A model and the options to build it.

    Args:
        name: name in tables and messages.
        model: its source: a registered name, or a source such as ``torchvision:resnet50``,
            ``path/to/net.py:build``, ``package.module:Net`` or ``net.onnx`` (see
            `gibbon.models.sources`).
        weights: a weights file, or a name that the source knows, such as ``random``.
        weights_key: key of the state dict in the weights file, such as ``ema`` or ``state.model``;
            that which fits the model by default.
        weights_prefix: prefix to strip from the names of its tensors, such as ``module.model``;
            that which fits the model by default.
        arguments: keyword arguments for the model's factory.
        mean, std: the model's normalisation, a number for each channel: its input is
            (x - mean) / std.
        outputs: rule of its outputs, unless the source declares it; logits by default.
        trust_code: whether files that can run any code when they are loaded are accepted: exported
            programs, pickles, and TorchScript that accesses files.
        trust_pickle: an earlier name of ``trust_code``.
        ensemble: members of an ensemble (see `gibbon.models.ensemble`): models like this one, or
            names of other models of the experiment.  ``model`` is then ``ensemble:`` and their
            names, and may be given instead.
        fuse: quantity of the members that is fused; ``probabilities`` by default.
        shares: weights of the members, a number each; equal by default.
        seeds_of: a name that models share which differ in their training seed alone; the tables
            show their mean and spread under it.

    ``mean``, ``std``, ``outputs``, ``trust_code`` and ``trust_pickle`` of an ensemble are defaults
    for its members.
    """

    name: Name
    model: Source
    weights: str | None = Field(default=None, min_length=1)
    weights_key: str | None = Field(default=None, min_length=1, exclude_if=not_)
    weights_prefix: str | None = Field(default=None, min_length=1, exclude_if=not_)
    arguments: dict[str, Any] = Field(default_factory=dict, exclude_if=not_)
    mean: tuple[Finite, ...] | None = Field(default=None, min_length=1, exclude_if=not_)
    std: tuple[Positive, ...] | None = Field(default=None, min_length=1, exclude_if=not_)
    outputs: _Outputs | None = Field(default=None, exclude_if=not_)
    trust_code: bool = Field(default=False, strict=True, exclude_if=not_)
    trust_pickle: bool = Field(default=False, strict=True, exclude_if=not_)
    ensemble: tuple[ModelSpec, ...] = Field(default=(), exclude_if=not_)
    fuse: Literal["probabilities", "logits", "loss"] | None = Field(default=None, exclude_if=not_)
    shares: tuple[Positive, ...] | None = Field(default=None, min_length=1, exclude_if=not_)
    seeds_of: Name | None = Field(default=None, exclude_if=not_)

    @property
    def trusted(self) -> bool:
        """Whether the user vouches for the model's files, which may then run any code."""
        return self.trust_code or self.trust_pickle

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, written: Any) -> Any:
        return _named(_with_members(written), key="model")

    @model_validator(mode="after")
    def _members_say_what_they_are(self) -> Self:
        if not self.ensemble:
            for key in ("fuse", "shares"):
                if getattr(self, key) is not None:
                    raise ValueError(
                        f"{key} is for an ensemble: give its members, ensemble = [...]"
                    )
            return self
        for key in ("weights", "weights_key", "weights_prefix", "arguments"):
            if getattr(self, key):
                raise ValueError(f"{key} are for one model: give them to a member of the ensemble")
        if any(member.ensemble for member in self.ensemble):
            raise ValueError("a member of an ensemble is an ensemble itself: name its members here")
        if self.shares is not None and len(self.shares) != len(self.ensemble):
            raise ValueError(
                f"shares has {len(self.shares)} numbers and ensemble {len(self.ensemble)} members: "
                "give each its own"
            )
        return self

    @model_validator(mode="after")
    def _mean_and_std_belong_together(self) -> Self:
        if (self.mean is None) != (self.std is None):
            given, lacking = ("mean", "std") if self.std is None else ("std", "mean")
            raise ValueError(f"{given} is given without {lacking}: give both, a number a channel")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {len(self.mean)} numbers and std {len(self.std)}: "
                "give both, a number a channel"
            )
        return self


class DatasetSpec(Spec):
    """A dataset and the options to read it.

    Args:
        name: name in tables and messages.
        source: a registered name, the path of an image folder, of a CSV file of paths and labels,
            of an ``.npz`` or ``.npy`` file, ``torchvision:NAME``, or a factory such as
            ``path/to/data.py:load`` (see `gibbon.datasets.open`).
        split: the split, if the source has several.
        class_map: JSON or CSV file with the index of each class among the model's classes, or
            ``imagenet``.
        class_order: order of the classes of a folder or CSV file without a class map: ``text``,
            ``numeric``, or ``index`` if names are the positions among the model's classes.
        labels: an ``.npy`` file of labels; in an ``.npz`` file, the array of that name.
        inputs: in an ``.npz`` file, the name of the array of inputs.
        layout: the order of the axes of an array.
        bounds: lowest and highest value of an input, of arrays and factories; [0, 1] by default.
        resize: new length of the shorter side of images, or (height, width).
        crop: side of a square that is cropped from the centre, or (height, width).
        interpolation: filter that resizes.
        colour: colour mode that images are converted to; without it they must all have one mode.
        skip_unreadable: whether to leave out images that can't be read, with a flag.
        arguments: keyword arguments for the factory.
        classes: ``none`` for inputs that belong to no class: labels are not read, and models are
            measured by the classes that they claim to see (`Experiment`).
        count: number of draws of ``rubbish:gaussian`` and ``rubbish:uniform``; 10,000 if None.
        shape: shape of one draw; that of the models' inputs if None.
    """

    name: Name
    source: Source
    split: Literal["train", "test"] = Field(default="test", exclude_if="test".__eq__)
    class_map: str | None = Field(default=None, min_length=1, exclude_if=not_)
    class_order: Literal["text", "numeric", "index"] | None = Field(default=None, exclude_if=not_)
    labels: str | None = Field(default=None, min_length=1, exclude_if=not_)
    inputs: str | None = Field(default=None, min_length=1, exclude_if=not_)
    layout: Literal["NCHW", "NHWC", "NHW"] | None = Field(default=None, exclude_if=not_)
    bounds: tuple[Finite, Finite] | None = Field(default=None, exclude_if=not_)
    resize: Size | None = Field(default=None, exclude_if=not_)
    crop: Size | None = Field(default=None, exclude_if=not_)
    interpolation: _Interpolation = Field(default="bilinear", exclude_if="bilinear".__eq__)
    colour: Literal["grey", "rgb"] | None = Field(default=None, exclude_if=not_)
    skip_unreadable: bool = Field(default=False, strict=True, exclude_if=not_)
    arguments: dict[str, Any] = Field(default_factory=dict, exclude_if=not_)
    classes: Literal["none"] | None = Field(default=None, exclude_if=_not_given)
    count: SideLength | None = Field(default=None, exclude_if=_not_given)
    shape: Annotated[tuple[SideLength, ...], Field(min_length=1)] | None = Field(
        default=None, exclude_if=_not_given
    )

    @property
    def no_class(self) -> bool:
        """Whether its inputs belong to no class."""
        return self.classes is not None or self.source.startswith(RUBBISH)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, written: Any) -> Any:
        return _named(written, key="source")

    @field_validator("bounds")
    @classmethod
    def _low_before_high(cls, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError(f"the lower one must come first, got {bounds[0]:g}, {bounds[1]:g}")
        return bounds

    @model_serializer(mode="wrap")
    def _shortened(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any] | str:
        written: dict[str, Any] = handler(self)
        return self.name if written == {"name": self.name, "source": self.name} else written


def _with_members(written: Any) -> Any:
    """Completes an ensemble: ``model`` from ``ensemble``, or ``ensemble`` from ``model``."""
    if isinstance(written, str) and is_composed(written):
        written = {"model": written}
    if not isinstance(written, dict):
        return written
    source = written.get("model")
    in_words = members_in_text(source) if isinstance(source, str) and is_composed(source) else None
    members = written.get("ensemble", in_words)
    if not isinstance(members, list | tuple):
        return written
    if not members:
        raise ValueError("ensemble must not be empty: name its members")
    if source is not None and in_words is None:
        raise ValueError("model and ensemble are both given: an ensemble is made of its members")
    called = ",".join(map(_called, members))
    return {**written, "model": f"{ENSEMBLE}{called}", "ensemble": members}


def _called(member: Any) -> str:
    """Returns the name of a member; an invalid member is reported when it is decoded."""
    named = member.name if isinstance(member, ModelSpec) else _named(member, key="model")
    return str(named.get("name", "")) if isinstance(named, dict) else str(named)


def _named(written: Any, *, key: str) -> Any:
    """Completes a spec given as a source alone, a source without a name, or a name alone."""
    if isinstance(_as_text(written), str):
        written = {key: written}
    if not isinstance(written, dict):
        return written
    texts = {name: _as_text(value) for name, value in written.items()}
    if isinstance(texts.get(key), str):
        return {"name": name_from(texts[key]), **texts}
    return {key: texts["name"], **texts} if "name" in texts else texts


def _as_text(written: Any) -> Any:
    return os.fspath(written) if isinstance(written, os.PathLike) else written


def _with_named_members(model: ModelSpec, named: Mapping[str, ModelSpec]) -> ModelSpec:
    """Returns a model whose members that are names of models are replaced by these models."""
    members = []
    for member in model.ensemble:
        alone = member == ModelSpec(name=member.name, model=member.name)
        members.append(named.get(member.name, member) if alone else member)
        if members[-1].ensemble:
            raise ValueError(
                f"member {member.name!r} of {model.name!r} is an ensemble itself: name its members"
            )
    return model.model_copy(update={"ensemble": tuple(members)})


class AttackSpec(Spec):
    """An attack at one or more epsilons.

    Args:
        epsilon: the largest size of a perturbation in units of the model's input, exactly as
            written, such as ``"8/255"``; one, or a list.
        norm: norm of the perturbation, ``linf``, ``l2`` or ``l1``; the attack's first norm if it is
            left out.
        clip: whether adversarial examples stay in the bounds of the inputs.

    ``name`` is a registered name, a library's scheme and name such as ``foolbox:LinfPGD``, or a
    reference to a class, ``path/to/mine.py:Mine`` or ``my_package.attacks:Mine``.
    Besides these keys it takes the attack's own parameters (its dataclass fields), which are
    checked when the attack is built.  ``label`` distinguishes entries of one attack in tables.
    If the library of an ``optional`` attack is not installed, the run continues without it, and
    the tables carry a flag.

    If it is ``carried``, the epsilons are run in ascending order: an example that is misclassified
    unattacked or at a smaller epsilon counts as misclassified at every larger one, with the
    candidate found there, and is not attacked again.

    Three keys adapt it to a defence (`gibbon.specs.adaptation`): ``eot``, the number of draws that
    a random model's gradient is averaged over; ``backward``, which gives submodules another
    backward pass; and ``before``, the submodule whose input is attacked in place of the outputs.
    """

    model_config = ConfigDict(frozen=True, extra="allow", arbitrary_types_allowed=True)

    name: AttackName
    epsilon: Annotated[tuple[EpsilonField, ...], Field(min_length=1), OneOrMany]
    label: Name = ""
    norm: Norm | None = None
    clip: bool = Field(default=True, strict=True)
    optional: bool = Field(default=False, strict=True, exclude_if=not_)
    carried: bool = Field(default=False, strict=True, exclude_if=not_)
    eot: int | None = Field(default=None, ge=1, strict=True, exclude_if=_not_given)
    backward: dict[ModulePath, StandInText] | None = Field(default=None, exclude_if=_not_given)
    before: ModulePath | None = Field(default=None, exclude_if=_not_given)

    @field_validator("epsilon")
    @classmethod
    def _no_twins(cls, epsilons: tuple[Epsilon, ...]) -> tuple[Epsilon, ...]:
        for earlier, later in zip(sorted(epsilons), sorted(epsilons)[1:], strict=False):
            if earlier == later:
                raise ValueError(f"epsilon {earlier} and {later} are the same")
        return epsilons

    @model_validator(mode="before")
    @classmethod
    def _label_defaults_to_name(cls, written: Any) -> Any:
        if not isinstance(written, dict):
            return written
        for other in ("eps", "epsilons"):
            if other in written and "epsilon" not in written:
                written = {**written, "epsilon": written[other]}
                del written[other]
        if isinstance(written.get("name"), str):
            return {"label": label_from(written["name"]), **written}
        return written

    @model_validator(mode="after")
    def _not_the_unattacked(self) -> Self:
        if self.label == UNATTACKED:
            raise ValueError(f"{UNATTACKED!r} is the unattacked row: it is always there")
        return self

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The attack's own parameters, as written."""
        return self.model_extra or {}

    def adaptation(self, inherited: Adaptation = UNCHANGED) -> Adaptation:
        """Returns the view of the model that it attacks; keys that are not given are inherited."""
        return Adaptation(
            inherited.eot if self.eot is None else self.eot,
            inherited.backward if self.backward is None else tuple(self.backward.items()),
            inherited.before if self.before is None else self.before,
        )


class TransferSpec(Spec):
    """Labels of the attacks whose adversarial examples are scored on every other model.

    Args:
        attacks: labels of attacks of the experiment.
    """

    attacks: tuple[Name, ...] = Field(min_length=1)


class FoolingSpec(Spec):
    r"""Fooling images: one gradient step from each input towards each class.

    Args:
        step: size of the step, above 0, in units of the input.
        direction: of the step towards class k: ``sign`` is the sign of
            :math:`\nabla_x p(k \mid x)`, as in the paper's figure 5; ``gradient`` is the gradient
            itself, as in its text, so that the step is as long as the step size times its norm;
            ``unit`` is the gradient divided by its L2 norm.

    Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015,
    appendix A; https://arxiv.org/abs/1412.6572
    """

    step: EpsilonField
    direction: Direction = "sign"

    @model_validator(mode="before")
    @classmethod
    def _step_alone(cls, written: Any) -> Any:
        return {"step": written} if isinstance(written, str | int | float | Epsilon) else written

    @field_validator("step")
    @classmethod
    def _moves(cls, step: Epsilon) -> Epsilon:
        if step.value <= 0:
            raise ValueError("a step must be longer than 0")
        return step


class Experiment(Spec):
    """Models against attacks on one dataset.

    Args:
        dataset: the dataset: a registered name, a source such as a folder, or a table of options.
        models: the models: registered names, sources such as ``net.py:build``, or tables of
            options.
        attacks: the attacks, each at one epsilon or more; none for inputs without a class.
        transfer: the attacks whose examples are scored on every other model; none if it is left
            out.

    On a dataset of inputs without a class (`DatasetSpec.no_class`) there is no error and no attack:
    an input counts as a false positive if the model gives its predicted class a probability above
    ``threshold``.  ``against`` names the dataset with classes, of another experiment of the suite,
    whose inputs the confidences are compared with; the only other one that shares a model, if None.
    ``fooling`` measures how often one gradient step from such an input makes the model see a wanted
    class.

    If it is ``error_only``, only error rates are measured: attacks that can stop at an example's
    first success do so, unless they set ``keep``, and a list of attacks is run member by member,
    each on the remaining examples of the whole dataset.

    ``draws`` is the number of times that a model is evaluated on each input if its answers are
    random: an example's outcome is the share of wrong answers.  20 by default.
    ``headline`` holds the epsilons that the first lines of a report are about, one or several.
    """

    dataset: DatasetSpec
    models: tuple[ModelSpec, ...] = Field(min_length=1)
    attacks: tuple[AttackSpec, ...] = ()
    transfer: TransferSpec | None = None
    error_only: bool = Field(default=False, strict=True, exclude_if=not_)
    draws: int | None = Field(default=None, ge=1, strict=True, exclude_if=_not_given)
    against: Name | None = Field(default=None, exclude_if=_not_given)
    threshold: float = Field(default=THRESHOLD, ge=0, lt=1, exclude_if=THRESHOLD.__eq__)
    fooling: FoolingSpec | None = Field(default=None, exclude_if=_not_given)
    headline: Annotated[tuple[EpsilonField, ...], OneOrMany] = Field(default=(), exclude_if=not_)

    @property
    def no_class(self) -> bool:
        """Whether the inputs belong to no class."""
        return self.dataset.no_class

    def trainings_of(self, name: str) -> tuple[str, ...]:
        """Returns the models whose ``seeds_of`` is a name, else the model of that name.

        Empty if the experiment has neither.
        """
        group = tuple(each.name for each in self.models if each.seeds_of == name)
        return group or tuple(each.name for each in self.models if each.name == name)

    @model_validator(mode="after")
    def _errors_need_classes(self) -> Self:
        name = self.dataset.name
        if not self.no_class:
            for key in ("against", "threshold", "fooling"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(
                        f"{key} is for inputs without a class, and {name!r} has classes: give it "
                        'classes = "none", or leave out ' + key
                    )
            return self
        if self.attacks:
            raise ValueError(
                f"{name!r} has inputs without a class, and attack {self.attacks[0].label!r} needs "
                "the true class of each: leave out the attacks; fooling (--fooling STEP, in a "
                "suite fooling = { step = ... }) takes one gradient step towards each class"
            )
        if self.error_only:
            raise ValueError(
                f"{name!r} has inputs without a class, and an error needs the true class: leave "
                "out error_only"
            )
        return self

    @field_validator("models")
    @classmethod
    def _members_by_name(cls, models: tuple[ModelSpec, ...]) -> tuple[ModelSpec, ...]:
        named = {model.name: model for model in models}
        return tuple(_with_named_members(model, named) for model in models)

    @model_validator(mode="after")
    def _names_tell_apart(self) -> Self:
        _refuse_twins("model", [model.name for model in self.models], key="name")
        labels = [attack.label for attack in self.attacks]
        _refuse_twins("attack", labels, key="label")
        for label in self.transfer.attacks if self.transfer else ():
            if label not in labels:
                raise ValueError(
                    f"transfer names attack {label!r}, which this experiment does not run"
                    + suggest(label, labels)
                )
        return self

    @model_validator(mode="after")
    def _headline_is_measured(self) -> Self:
        epsilons = {epsilon for attack in self.attacks for epsilon in attack.epsilon}
        for epsilon in self.headline:
            if epsilon not in epsilons:
                known = ", ".join(map(str, sorted(epsilons))) or "none"
                raise ValueError(
                    f"headline names epsilon {epsilon}, at which no attack of the experiment runs: "
                    f"expected one of its epsilons ({known})"
                )
        return self

    @model_validator(mode="after")
    def _what_is_transferred_is_whole(self) -> Self:
        if self.transfer is None:
            return self
        if self.error_only:
            raise ValueError(
                "error_only = true leaves no transfer to measure: an attack that stops at its "
                "first success makes examples that fool this model and barely any other; leave "
                "out one of the two"
            )
        for label in (each.label for each in self.attacks if each.carried):
            if label in self.transfer.attacks:
                raise ValueError(
                    f"transfer names attack {label!r}, which is carried: its examples at a larger "
                    "epsilon are mostly those of a smaller one, and would understate the transfer; "
                    "give it a second entry that is not carried"
                )
        return self


def _is_none(value: object) -> bool:
    return value is None


def _parse_kept(written: object) -> KeepExamples | None:
    return None if written is None else parse_keep_examples(written)


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=1)]
KeptField = Annotated[KeepExamples | None, BeforeValidator(_parse_kept)]


class Suite(Spec):
    """A named list of experiments, with one seed.

    Args:
        name: name of the suite, and of its folder under ``results/runs/``.
        experiments: the experiments, one for each dataset.  A suite of one experiment has its keys
            at the top instead.
        title: heading of its reports; the name if empty.
        description: one or two sentences on its purpose.
        seed: seed of every random number of the run.
        source: where the published numbers are from, as a reference.

    ``published`` are numbers that tables show next to the measured ones, and ``claims`` orders of
    two measures that are tested.  ``accept`` lists the kinds of flags that the author takes
    responsibility for.  ``certify`` says which certified bounds are computed: true for all, false
    for none; those that cost little next to the attacks if it is missing.  It was called
    ``bounds``, which is still read.

    ``keep_examples`` says which adversarial examples are kept in the run's folder: ``"all"``,
    ``"misclassified"``, or a number of each cell; none if it is missing.

    With ``isolate`` each attack and each model runs in a process of its own, and a cell that exits,
    crashes or exceeds a limit fails alone.  ``cell_timeout`` is in seconds, ``cell_memory`` a text
    such as ``"4GB"`` or a number of bytes; both limit the process of one cell.
    """

    name: Name
    experiments: tuple[Experiment, ...] = Field(min_length=1)
    title: str = ""
    description: str = ""
    seed: int = Field(default=0, ge=0, lt=2**63, strict=True)
    published: tuple[PublishedRow, ...] = ()
    claims: tuple[Claim, ...] = Field(default=(), exclude_if=not_)
    source: str = ""
    accept: tuple[Name, ...] = Field(default=(), exclude_if=not_)
    certify: bool | None = Field(default=None, strict=True, exclude_if=_is_none)
    keep_examples: KeptField = Field(default=None, exclude_if=_is_none)
    isolate: bool = Field(default=False, strict=True, exclude_if=not_)
    cell_timeout: Seconds | None = Field(default=None, exclude_if=_is_none)
    cell_memory: Bytes | None = Field(default=None, exclude_if=_is_none)

    @model_validator(mode="after")
    def _limits_are_of_processes(self) -> Self:
        for key in ("cell_timeout", "cell_memory"):
            if getattr(self, key) is not None and not self.isolate:
                raise ValueError(f"{key} limits the process of a cell: set isolate = true")
        return self

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, written: Any) -> Any:
        written = _with_certify(written)
        if not isinstance(written, dict) or "experiments" in written:
            return written
        own = {key: value for key, value in written.items() if key in Experiment.model_fields}
        rest = {key: value for key, value in written.items() if key not in own}
        return {**rest, "experiments": [own]}

    @model_validator(mode="after")
    def _datasets_tell_apart(self) -> Self:
        _refuse_twins("experiment", [each.dataset.name for each in self.experiments], key="dataset")
        return self

    @model_validator(mode="after")
    def _effects_are_claims(self) -> Self:
        names = [claim.id for claim in self.claims]
        _refuse_twins("claim", names, key="id")
        for place, row in enumerate(self.published):
            if row.effect is not None and row.effect not in names:
                raise ValueError(
                    f"published[{place}]: effect {row.effect!r} is no claim of the suite"
                    + suggest(row.effect, names)
                )
        return self

    @model_validator(mode="after")
    def _compared_with_classes(self) -> Self:
        names = [each.dataset.name for each in self.with_classes]
        for experiment in self.without_classes:
            name, against = experiment.dataset.name, experiment.against
            if against is None:
                continue
            if against not in names:
                classless = {each.dataset.name for each in self.without_classes}
                reason = "has no classes itself" if against in classless else "is not in the suite"
                raise ValueError(
                    f"{name!r} is compared against {against!r}, which {reason}: name the dataset "
                    f"of an experiment with classes{suggest(against, names)}"
                )
            if self.clean_experiment(experiment) is None:
                raise ValueError(
                    f"{name!r} is compared against {against!r}, whose experiment has none of its "
                    "models: name one of them there, too, or leave out against"
                )
        return self

    @property
    def with_classes(self) -> tuple[Experiment, ...]:
        """The experiments whose inputs have classes."""
        return tuple(each for each in self.experiments if not each.no_class)

    @property
    def without_classes(self) -> tuple[Experiment, ...]:
        """The experiments whose inputs belong to no class."""
        return tuple(each for each in self.experiments if each.no_class)

    def clean_experiment(self, experiment: Experiment) -> Experiment | None:
        """Returns the experiment whose inputs those without a class are compared with, or None.

        It is the one that ``against`` names, else the only one that has one of the models.
        """
        found = [
            each
            for each in self.with_classes
            if experiment.against in (None, each.dataset.name)
            and any(model in each.models for model in experiment.models)
        ]
        return found[0] if len(found) == 1 else None


def _with_certify(written: Any) -> Any:
    """Returns a suite in which ``bounds = true`` or ``false`` is called ``certify``."""
    if not isinstance(written, dict) or "bounds" not in written:
        return written
    if not isinstance(written["bounds"], bool):
        raise ValueError(
            "bounds of inputs belong to the dataset: dataset = { source = "
            '"data.npz", bounds = [-1, 1] }; certified bounds are certify = true'
        )
    if "certify" in written:
        raise ValueError("certify and bounds, its earlier name, are both given")
    return {("certify" if key == "bounds" else key): each for key, each in written.items()}


def _refuse_twins(kind: str, names: list[str], *, key: str) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"two {kind}s have the {key} {name!r}; give each its own `{key}`")
