"""From a library's attack to one of ours: what all adapters share.

`adapt` makes a frozen dataclass of an attack: its fields are the parameters of the library's own
signature, with the library's names and defaults, plus ``release``, the library and its version, so
that both are part of what results are filed under.  What the benchmark sets itself (the budget, the
model, the labels, ...) is reserved, with the reason.

A library gets a `View` of the classifier and a copy of the inputs (`Task`), and returns candidates.
Nothing else that it says is read: whether a candidate is adversarial, and how far it is, is
measured at the trust boundary, as for every attack.  What a library gives back where it failed (the
clean input, zeros, NaN) goes there as it is.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, ClassVar, Literal, cast, get_args, get_origin

import torch
from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass as checked
from torch import Tensor, nn

from gibbon.attacks.adapters.isolation import isolated, silence
from gibbon.attacks.base import STRICT, Attack
from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.attacks.toolkit.gradients import refuse_no_numbers
from gibbon.core.errors import AttackError, MissingLibraryError, UnknownNameError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.models.classifier import PIXELS, Classifier

PICTURE_AXES = 3  # channels, height, width: what most libraries take for granted

BY_BATCH = (
    "the library treats a batch as a whole, in its random numbers or in when it stops, so that "
    "candidates change when it is split or reordered"
)

# Names that mean the same in every library.
RESERVED = {
    "model": "it is the suite's model",
    "device": "attacks run where the model is",
    "targeted": "labels are the true classes here, and the attack leads away from them",
    "seed": "random numbers follow from the suite's `seed`",
    "verbose": "libraries are kept silent",
}
REQUIRED = inspect.Parameter.empty
BUDGET = "the budget is the suite's `epsilon`"
NORM = "the norm is the suite's `norm`"


@dataclass(frozen=True)
class Library:
    """A library, how it is installed, and what stands in the way.

    Args:
        module: what is imported.
        distribution: what pip calls it.
        install: the line that installs it.
        note: a known conflict, as a sentence.
    """

    module: str
    distribution: str
    install: str
    note: str = ""

    def load(self, submodule: str = "") -> types.ModuleType:
        """Returns the library's module.

        Raises `MissingLibraryError` with the line that installs it.
        """
        name = f"{self.module}.{submodule}" if submodule else self.module
        try:
            with silence():
                return importlib.import_module(name)
        except ImportError as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name == self.module
            what = "is not installed" if absent else f"can't be imported ({error})"
            note = f" {self.note}" if self.note else ""
            raise MissingLibraryError(
                f"{self.distribution} {what}: {self.install}.{note}"
            ) from error

    @property
    def release(self) -> str:
        """The library and the version that is imported: ``"foolbox 3.3.4"``."""
        number = getattr(self.load(), "__version__", None)
        if number is None:
            try:
                number = version(self.distribution)
            except PackageNotFoundError:
                number = "unknown"
        return f"{self.distribution} {number}"

    def unknown(self, name: str, *, known: list[str]) -> UnknownNameError:
        """Returns the error for an attack that the library does not have."""
        return UnknownNameError(f"attack of {self.distribution}", name, known=known)


class View(nn.Module):
    """A classifier as a library sees it: a module that maps a batch to logits, shape (N, K).

    Its passes are the classifier's and are counted there.  The classifier's module is no part of
    it: modes, hooks, gradients and devices that a library sets on the view never reach the model.
    Outputs that are not logits are made so (`gibbon.models.outputs.OutputRule.as_logits`).

    ``gradients`` is a number that is NaN or infinite where the model, given a finite gradient in
    its outputs, gave none in its inputs: libraries go on with that, and return the clean input.
    """

    def __init__(self, classifier: Classifier, frame: Frame) -> None:
        super().__init__()
        self.classifier = classifier  # no module itself, so that nn.Module does not adopt it
        self.frame = frame
        # Some libraries ask the first parameter where the model is, and fail where there is none.
        home = torch.zeros((), device=frame.inputs.device)
        self.anchor = nn.Parameter(home, requires_grad=False)
        self.gradients = torch.zeros((), device=frame.inputs.device)
        self.eval()

    def forward(self, pictures: Tensor) -> Tensor:
        """Returns logits, shape (N, K), for pictures as the frame makes them."""
        points = self.frame.inside(pictures)
        points = points.view_as(points)  # no leaf: its hooks end with this pass
        outputs = self.classifier(points)
        if outputs.requires_grad and points.requires_grad:
            self._watch(points, outputs)
        return self.classifier.outputs.as_logits(outputs)

    def _watch(self, points: Tensor, outputs: Tensor) -> None:
        given: list[Tensor] = []

        def note(gradient: Tensor) -> None:
            # Looked at once, in the end; what a library's own loss makes of NaN is its affair.
            self.gradients = self.gradients + torch.where(
                given[-1].isfinite(), gradient.sum(), torch.zeros_like(self.gradients)
            )

        outputs.register_hook(lambda gradient: given.append(gradient.sum()))  # type: ignore[no-untyped-call]
        points.register_hook(note)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Frame:
    """Between the model's inputs and the pictures that a library works on.

    Args:
        inputs: shape (N, *input_shape).
        box: where inputs live.
        unit: whether the library works in [0, 1], whatever the box.
    """

    inputs: Tensor
    box: Bounds
    unit: bool

    @property
    def scaled(self) -> bool:
        """Whether pictures are other numbers than inputs."""
        return self.unit and self.box != PIXELS

    @property
    def bounds(self) -> Bounds:
        """The box that the library has to stay in; in float32 it holds the inputs in any case."""
        if self.unit:
            return PIXELS
        least, most = self.inputs.aminmax()
        return Bounds(min(self.box.low, float(least)), max(self.box.high, float(most)))

    def pictures(self) -> Tensor:
        """Returns a copy of the inputs as the library gets them, with three axes an example."""
        shape = self.inputs.shape[1:]
        axes = shape if len(shape) == PICTURE_AXES else (1, 1, shape.numel())
        points = self.inputs.detach().reshape(-1, *axes).clone()  # no view: some detach in place
        if self.scaled:
            points = (points - self.box.low) / self.box.width
        return points.clamp_(0.0, 1.0) if self.unit else points

    def radius(self, radius: float) -> float:
        """Returns a length among inputs as one among pictures."""
        return radius / self.box.width if self.scaled else radius

    def inside(self, pictures: Tensor) -> Tensor:
        """Returns the inputs that pictures stand for, as the model takes them."""
        points = pictures.to(self.inputs.dtype).reshape(-1, *self.inputs.shape[1:])
        return points * self.box.width + self.box.low if self.scaled else points

    def back(self, pictures: Tensor) -> Tensor:
        """Returns candidates, of the inputs' shape and dtype, for the pictures of all examples.

        Where the scale is another, what did not move stays as it was, bit for bit, and what is
        inside the library's box is inside ours, whatever rounding says; nothing else is clipped.
        """
        own = pictures.detach().to(self.inputs.device, self.inputs.dtype)
        if not self.scaled:
            return own.reshape(self.inputs.shape).clone()
        steps = (own - self.pictures()).reshape(self.inputs.shape) * self.box.width
        moved = self.inputs + steps
        inside = ((own >= 0) & (own <= 1)).reshape(self.inputs.shape)
        return torch.where(inside, moved.clamp(self.box.low, self.box.high), moved)


@dataclass(frozen=True)
class Task:
    """What a library is asked for, in its own units.

    Args:
        model: gives logits.
        inputs: a copy, shape (N, channels, height, width).
        labels: a copy, int64, shape (N,): the true classes.
        norm: the norm.
        epsilon: the budget; infinite for an attack that looks for the nearest example.
        bounds: the box to stay in.
        seed: what the global generators were seeded with.
        parameters: the attack's parameters by the library's names.
    """

    model: View
    inputs: Tensor
    labels: Tensor
    norm: Norm
    epsilon: float
    bounds: Bounds
    seed: int
    parameters: Mapping[str, Any]

    @property
    def classes(self) -> int:
        """Number of classes of the model."""
        return self.model.classifier.classes


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """An attack of a library.

    Args:
        name: what a suite calls it, without the scheme.
        library: where it is from.
        norms: what it can be asked for.
        run: does what a task asks for and returns the candidates.
        signature: whose parameters are the attack's.
        minimal: whether it looks for the nearest adversarial example instead of using a budget.
        unit: whether it works in [0, 1] only.
        needs_gradient: whether it takes gradients of the model.
        channels: how many channels pictures must have, where it works on no others.
        reserved: parameters that the benchmark sets, with the reason, besides `RESERVED`.
        departures: the laws that it does not keep, with the reason.
        about: its own documentation.
    """

    name: str
    library: Library
    norms: tuple[Norm, ...]
    run: Callable[[Task], Tensor]
    signature: inspect.Signature
    minimal: bool = False
    unit: bool = False
    needs_gradient: bool = True
    channels: int | None = None
    reserved: Mapping[str, str] = dataclasses.field(default_factory=dict)
    departures: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"batch": BY_BATCH})
    about: str = ""


class FixedBudget(Attack):
    """A library's attack that stays within a budget."""

    iterate: ClassVar[str] = "the library's"
    foreign: ClassVar[Foreign]

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields what the library returns; at epsilon 0 the inputs, and the library isn't asked."""
        if threat.radius == 0:
            yield inputs.clone()
            return
        # A box so wide that nothing in the ball meets it is the same as none.
        own, reach = classifier.bounds, threat.radius
        box = threat.bounds or Bounds(own.low - reach, own.high + reach)
        frame = Frame(inputs, box, self.foreign.unit)
        yield _asked(
            self, classifier, frame, labels=labels, norm=threat.norm, radius=reach, streams=streams
        )


class NearestExample(MinimalNormAttack):
    """A library's attack that looks for the nearest adversarial example."""

    iterate: ClassVar[str] = "the library's"
    foreign: ClassVar[Foreign]

    def nearest(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        norm: Norm,
        bounds: Bounds | None,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields what the library returns; without bounds it has three times the room."""
        own = classifier.bounds
        box = bounds or Bounds(own.low - own.width, own.high + own.width)
        frame = Frame(inputs, box, self.foreign.unit)
        yield _asked(
            self, classifier, frame, labels=labels, norm=norm, radius=torch.inf, streams=streams
        )


def adapt(foreign: Foreign, *, module: str) -> type[Attack]:
    """Returns the class of a library's attack; ``module`` is the adapter's own name.

    The class belongs to that module, so that results are computed again after a change of it.
    """
    reserved = {**RESERVED, **foreign.reserved}
    parameters = [
        each
        for each in foreign.signature.parameters.values()
        if each.name not in reserved and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    annotations = {each.name: _type(each, foreign.about) for each in parameters}
    defaults = {each.name: _default(each) for each in parameters}
    release = foreign.library.release
    namespace = {
        "__doc__": f"{foreign.name} of {release}.",
        "__module__": module,
        "__annotations__": {**annotations, "release": str},
        **{name: default for name, default in defaults.items() if default is not REQUIRED},
        "release": dataclasses.field(init=False, default=release),
        "foreign": foreign,
        "norms": foreign.norms,
        "reserved": reserved,
        "departures": foreign.departures,
        "needs_gradient": foreign.needs_gradient,
        "channels": foreign.channels,
    }
    base: type[Attack] = NearestExample if foreign.minimal else FixedBudget
    plain = types.new_class(foreign.name, (base,), exec_body=lambda body: body.update(namespace))
    made: Any = checked(plain, frozen=True, kw_only=True, config=STRICT)
    return cast("type[Attack]", made)


def parameters_given(attack: Attack) -> dict[str, Any]:
    """Returns the parameters of an adapted attack by the library's names."""
    fields = dataclasses.fields(attack)  # type: ignore[arg-type]  # adapt made it a dataclass
    return {each.name: getattr(attack, each.name) for each in fields if each.init}


def _asked(
    attack: FixedBudget | NearestExample,
    classifier: Classifier,
    frame: Frame,
    *,
    labels: Tensor,
    norm: Norm,
    radius: float,
    streams: ExampleStreams,
) -> Tensor:
    foreign = attack.foreign
    seed = int(streams.keys[0])
    task = Task(
        model=View(classifier, frame),
        inputs=frame.pictures(),
        labels=labels.clone(),
        norm=norm,
        epsilon=frame.radius(radius),
        bounds=frame.bounds,
        seed=seed,
        parameters=parameters_given(attack),
    )
    expected = task.inputs.shape
    if foreign.channels not in (None, expected[1]):
        raise AttackError(
            f"{foreign.name} of {foreign.library.release} works on pictures with "
            f"{foreign.channels} channels only, these have {expected[1]}"
        )
    with isolated(seed, device=frame.inputs.device):
        returned: object = foreign.run(task)
    refuse_no_numbers(task.model.gradients)
    if not isinstance(returned, Tensor) or returned.shape != expected:
        came = tuple(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
        raise AttackError(
            f"{foreign.name} of {foreign.library.release} must return a tensor of shape "
            f"{tuple(expected)}, got {came}"
        )
    return frame.back(returned)


def _number(written: object) -> int | float:
    """Returns a number; a length is often written as a fraction: ``"2/255"``."""
    if isinstance(written, int | float) and not isinstance(written, bool):
        return written  # an integer stays one: what is documented as a number may be a count
    try:
        return float(Fraction(str(written)))
    except (ValueError, ZeroDivisionError):
        raise ValueError('must be a number such as 0.01 or "2/255"') from None


def _number_or_none(written: object) -> int | float | None:
    return None if written is None else _number(written)


def _listed(written: object) -> object:
    """Returns a list: the command line writes one as ``apgd-ce,fab``."""
    if not isinstance(written, str):
        return written
    return [each.strip() for each in written.split(",")]


Number = Annotated[Any, BeforeValidator(_number)]
NumberOrNone = Annotated[Any, BeforeValidator(_number_or_none)]
_TYPES: dict[str, Any] = {"int": int, "bool": bool, "str": str, "float": Number}


def _type(parameter: inspect.Parameter, about: str) -> Any:
    """Returns what a parameter may be, by its annotation, its documentation, or its default."""
    names = _list_of_names(parameter.annotation)
    if names is not None:
        return Annotated[names | None, BeforeValidator(_listed)]
    named = _annotated(parameter)
    if not named:
        written = re.search(rf"^\s*{re.escape(parameter.name)}\s*\((\w+)\)", about, re.MULTILINE)
        named = {written[1]} & _TYPES.keys() if written is not None else set()
    if not named and parameter.annotation is REQUIRED and parameter.default is not REQUIRED:
        kind = type(parameter.default).__name__
        named = {"float"} if kind == "int" else {kind} & _TYPES.keys()
    optional = parameter.default is None
    if "float" in named and "str" not in named:
        return NumberOrNone if optional else Number
    if len(named) != 1:
        return Any
    (name,) = named
    return _TYPES[name] | None if optional else _TYPES[name]


def _list_of_names(annotation: object) -> Any:
    """Returns the part of an annotation that is a list of certain names, None where none is."""
    for part in (annotation, *get_args(annotation)):
        if get_origin(part) is list and get_origin(get_args(part)[0]) is Literal:
            return part
    return None


def _annotated(parameter: inspect.Parameter) -> set[str]:
    """Returns the names of the plain types in an annotation, whether it is text or not."""
    annotation = parameter.annotation
    parts = get_args(annotation) or (annotation,)
    words = annotation.split("|") if isinstance(annotation, str) else map(_name_of, parts)
    return {word.strip() for word in words} & _TYPES.keys()


def _name_of(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) else ""


def _default(parameter: inspect.Parameter) -> Any:
    default = parameter.default
    if default is parameter.empty:
        return REQUIRED
    if type(default).__hash__ is None:
        return dataclasses.field(default_factory=lambda: copy.copy(default))
    return default
