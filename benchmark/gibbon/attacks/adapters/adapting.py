"""Adapter of a library's attack to the `Attack` interface, shared by all libraries.

An `Adapter` is the source of a library's attacks, given a function that describes them.  `adapt`
makes a frozen dataclass of an attack: its fields are the parameters of the library's own signature,
with the library's names and defaults, plus ``release``, the library and its version, so that
results of different versions are kept apart.  Parameters that the benchmark sets (the budget, the
model, the labels, ...) are reserved, with the reason.

A library gets a `View` of the classifier and a copy of the inputs (`Task`), and returns candidates.
Its own report of success is ignored: the trust boundary decides whether a candidate is adversarial,
as for every attack.  Results of failed searches (the clean input, zeros, NaN) are passed on
unchanged.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, ClassVar, Literal, cast, get_args, get_origin

import torch
from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass as checked
from torch import Tensor, nn

from gibbon.attacks.adapters import AttackSource
from gibbon.attacks.adapters.isolation import isolated, silence
from gibbon.attacks.base import STRICT, Attack, SearchMethod, parameters_of, relative_length
from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.attacks.toolkit.gradients import check_finite_gradients
from gibbon.core.errors import AttackError, MissingLibraryError, UnknownNameError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.models.attacked_view import redraw
from gibbon.models.classifier import PIXELS, Classifier

PICTURE_AXES = 3  # channels, height, width: most libraries require them

BY_BATCH = (
    "the library's random numbers or stopping rules depend on the whole batch, so that "
    "candidates change when it is split or reordered"
)

# Parameters with one meaning in every library.
RESERVED = {
    "model": "it is the suite's model",
    "device": "attacks run where the model is",
    "targeted": "labels are the true classes here, and the attack leads away from them",
    "seed": "random numbers follow from the suite's `seed`",
    "verbose": "libraries are kept silent",
}
REQUIRED = inspect.Parameter.empty
STEPS = ("steps", "max_iter", "n_iter")  # the libraries' names of the number of steps
# Their names of the length of a step, and whether it is in units of epsilon; the first that is set.
STEP_SIZES = {
    **dict.fromkeys(("abs_stepsize", "absolute_step_size"), False),
    **dict.fromkeys(("rel_stepsize", "relative_step_size"), True),
    **dict.fromkeys(("alpha", "eps_step"), False),
}
BUDGET = "the budget is the suite's `epsilon`"
NORM = "the norm is the suite's `norm`"


@dataclass(frozen=True)
class Library:
    """A library and how it is installed.

    Args:
        module: the module to import.
        distribution: its name for pip.
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
        """The library and its imported version: ``"foolbox 3.3.4"``."""
        number = getattr(self.load(), "__version__", None)
        if number is None:
            try:
                number = version(self.distribution)
            except PackageNotFoundError:
                number = "unknown"
        return f"{self.distribution} {number}"

    def unknown(self, name: str, *, known: list[str]) -> UnknownNameError:
        """Returns the error for an unknown attack of the library."""
        return UnknownNameError(f"attack of {self.distribution}", name, known=known)


class View(nn.Module):
    """A classifier as a module that maps a batch to logits, shape (N, K), for a library.

    The classifier counts its passes.  The classifier's module is not a submodule: modes, hooks,
    gradients and devices that a library sets on the view do not reach the model.  Outputs are
    converted to logits (`gibbon.models.outputs.OutputRule.as_logits`).

    If draws of the model's random numbers are averaged (``eot``), they are ``fresh`` in each call,
    or those of the first one.

    ``gradients`` becomes NaN or infinite if a finite gradient in the outputs gives a non-finite one
    in the inputs: libraries ignore that and return the clean input.
    """

    def __init__(
        self, classifier: Classifier, scaling: InputScaling, *, fresh: bool = False
    ) -> None:
        super().__init__()
        self.classifier = classifier  # not a module, so that nn.Module does not register it
        self.scaling = scaling
        self.fresh, self.calls = fresh, 0
        # Some libraries read the model's device from its first parameter, and fail without one.
        home = torch.zeros((), device=scaling.inputs.device)
        self.anchor = nn.Parameter(home, requires_grad=False)
        self.gradients = torch.zeros((), device=scaling.inputs.device)
        self.eval()

    def forward(self, pictures: Tensor) -> Tensor:
        """Returns logits, shape (N, K), for pictures in the library's scale."""
        points = self.scaling.to_inputs(pictures)
        points = points.view_as(points)  # no leaf: its hooks end with this pass
        redraw(self.classifier, self.calls if self.fresh else 0)
        self.calls += 1
        outputs = self.classifier(points)
        if outputs.requires_grad and points.requires_grad:
            self._watch(points, outputs)
        return self.classifier.outputs.as_logits(outputs)

    def _watch(self, points: Tensor, outputs: Tensor) -> None:
        given: list[Tensor] = []

        def note(gradient: Tensor) -> None:
            # Read once at the end; NaN from a library's own loss is not the model's fault.
            self.gradients = self.gradients + torch.where(
                given[-1].isfinite(), gradient.sum(), torch.zeros_like(self.gradients)
            )

        outputs.register_hook(lambda gradient: given.append(gradient.sum()))  # type: ignore[no-untyped-call]
        points.register_hook(note)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class InputScaling:
    """The map between the model's inputs and the pictures that a library works on.

    Args:
        inputs: shape (N, *input_shape).
        box: the bounds of the inputs.
        unit: whether the library works in [0, 1] for every box.
    """

    inputs: Tensor
    box: Bounds
    unit: bool

    @property
    def scaled(self) -> bool:
        """Whether pictures and inputs differ in scale."""
        return self.unit and self.box != PIXELS

    @property
    def bounds(self) -> Bounds:
        """The library's box, which contains the inputs also after rounding to float32."""
        if self.unit:
            return PIXELS
        least, most = self.inputs.aminmax()
        return Bounds(min(self.box.low, float(least)), max(self.box.high, float(most)))

    def pictures(self) -> Tensor:
        """Returns a copy of the inputs in the library's scale, with three axes an example."""
        shape = self.inputs.shape[1:]
        axes = shape if len(shape) == PICTURE_AXES else (1, 1, shape.numel())
        points = (
            self.inputs.detach().reshape(-1, *axes).clone()
        )  # not a view: some libraries detach in place
        if self.scaled:
            points = (points - self.box.low) / self.box.width
        return points.clamp_(0.0, 1.0) if self.unit else points

    def radius(self, radius: float) -> float:
        """Converts a length of the inputs' scale to the pictures' scale."""
        return radius / self.box.width if self.scaled else radius

    def to_inputs(self, pictures: Tensor) -> Tensor:
        """Converts pictures to inputs of the model."""
        points = pictures.to(self.inputs.dtype).reshape(-1, *self.inputs.shape[1:])
        return points * self.box.width + self.box.low if self.scaled else points

    def to_candidates(self, pictures: Tensor) -> Tensor:
        """Converts the pictures of all examples to candidates of the inputs' shape and dtype.

        If the scales differ, unmoved coordinates stay equal bit for bit, and those inside the
        library's box are clipped to ours against rounding; nothing else is clipped.
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
    """An attack to run by a library, in the library's units.

    Args:
        model: maps pictures to logits.
        inputs: a copy, shape (N, channels, height, width).
        labels: a copy, int64, shape (N,): the true classes.
        norm: the norm.
        epsilon: the budget; infinite for a minimal-norm attack.
        bounds: the box.
        seed: the seed of the global generators.
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

    def arguments(self, function: Callable[..., object], **settings: object) -> dict[str, Any]:
        """Returns the attack's parameters, and those of the settings that the function takes."""
        known = inspect.signature(function).parameters
        return {**self.parameters, **{key: settings[key] for key in settings if key in known}}


@dataclass(frozen=True, kw_only=True)
class LibraryAttack:
    """An attack of a library.

    Args:
        name: its name in a suite, without the scheme.
        library: its library.
        norms: the norms that it supports.
        run: runs a task and returns the candidates.
        signature: the signature with the attack's parameters.
        minimal: whether it looks for the nearest adversarial example, without a budget.
        unit: whether it works in [0, 1] only.
        needs_gradient: whether it takes gradients of the model.
        search_method: how it searches; minimal-norm if None and ``minimal``, else unknown.
        channels: the number of channels that pictures must have; None for any.
        reserved: parameters that the benchmark sets, with the reason, besides `RESERVED`.
        departures: the laws that it does not keep, with the reason, besides `BY_BATCH`.
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
    search_method: SearchMethod | None = None
    channels: int | None = None
    reserved: Mapping[str, str] = dataclasses.field(default_factory=dict)
    departures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    about: str = ""


class FixedBudget(Attack):
    """A library's attack that stays within a budget."""

    iterate: ClassVar[str] = "the library's"
    foreign: ClassVar[LibraryAttack]

    def path_length(self, threat: ThreatModel, *, bounds: Bounds) -> float:
        """Returns the length of the path of one run in units of epsilon; infinite if unknown."""
        parameters = parameters_of(self)
        steps = next((parameters[name] for name in STEPS if name in parameters), None)
        for name, relative in STEP_SIZES.items():
            size = parameters.get(name)
            if isinstance(size, int | float):
                unit = threat.radius if relative else bounds.width if self.foreign.unit else 1.0
                return relative_length(steps, size * unit, threat=threat)
        return math.inf

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields the library's candidates; at epsilon 0 the inputs, without calling the library."""
        if threat.radius == 0:
            yield inputs.clone()
            return
        # A box that contains the ball has no effect.
        own, reach = classifier.bounds, threat.radius
        box = threat.bounds or Bounds(own.low - reach, own.high + reach)
        scaling = InputScaling(inputs, box, self.foreign.unit)
        yield _run(
            self, classifier, scaling, labels, norm=threat.norm, radius=reach, streams=streams
        )


class NearestExample(MinimalNormAttack):
    """A library's attack that looks for the nearest adversarial example."""

    iterate: ClassVar[str] = "the library's"
    foreign: ClassVar[LibraryAttack]

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
        """Yields the library's candidates; without bounds the box is three times as wide."""
        own = classifier.bounds
        box = bounds or Bounds(own.low - own.width, own.high + own.width)
        scaling = InputScaling(inputs, box, self.foreign.unit)
        yield _run(self, classifier, scaling, labels, norm=norm, radius=torch.inf, streams=streams)


@dataclass(frozen=True)
class Adapter(AttackSource):
    """The attacks of a library.

    Args:
        describe: returns the attack of a name; raises as `AttackSource.attack` does.
    """

    describe: Callable[[str], LibraryAttack]

    @cache  # noqa: B019  one source a process, and a class must be one and the same each time
    def attack(self, name: str) -> type[Attack]:
        """Returns the class of the library's attack called ``name``."""
        return adapt(self.describe(name), module=self.describe.__module__)


def adapt(foreign: LibraryAttack, *, module: str) -> type[Attack]:
    """Returns the class of a library's attack; ``module`` is the adapter's own name.

    The class belongs to that module: `gibbon.attacks.registered_name` knows its scheme by it.
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
    minimal, unknown = SearchMethod.MINIMAL_NORM, SearchMethod.UNKNOWN
    namespace = {
        "__doc__": f"{foreign.name} of {release}.",
        "__module__": module,
        "__annotations__": {**annotations, "release": str},
        **{name: default for name, default in defaults.items() if default is not REQUIRED},
        "release": dataclasses.field(init=False, default=release),
        "foreign": foreign,
        "norms": foreign.norms,
        "reserved": reserved,
        "departures": {"batch": BY_BATCH, **foreign.departures},
        "needs_gradient": foreign.needs_gradient,
        "search_method": foreign.search_method or (minimal if foreign.minimal else unknown),
        "channels": foreign.channels,
    }
    base: type[Attack] = NearestExample if foreign.minimal else FixedBudget
    plain = types.new_class(foreign.name, (base,), exec_body=lambda body: body.update(namespace))
    made: Any = checked(plain, frozen=True, kw_only=True, config=STRICT)
    return cast("type[Attack]", made)


def _run(
    attack: FixedBudget | NearestExample, classifier: Classifier, scaling: InputScaling,
    labels: Tensor, *, norm: Norm, radius: float, streams: ExampleStreams,
) -> Tensor:  # fmt: skip
    """Runs an attack in the library's units, and returns the candidates."""
    foreign, pictures = attack.foreign, scaling.pictures()
    name = f"{foreign.name} of {foreign.library.release}"
    if foreign.channels not in (None, pictures.shape[1]):
        raise AttackError(
            f"{name} works on pictures with {foreign.channels} channels only, these have "
            f"{pictures.shape[1]}"
        )
    parameters = parameters_of(attack)
    task = Task(
        model=View(classifier, scaling, fresh=not foreign.minimal),
        inputs=pictures,
        labels=labels.clone(),
        norm=norm,
        epsilon=scaling.radius(radius),
        bounds=scaling.bounds,
        seed=int(streams.keys[0]),
        parameters={key: parameters[key] for key in parameters if key != "release"},
    )
    expected = tuple(pictures.shape)
    with isolated(task.seed, device=pictures.device):
        returned: object = foreign.run(task)
    check_finite_gradients(task.model.gradients)
    if not isinstance(returned, Tensor) or returned.shape != expected:
        came = tuple(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
        raise AttackError(f"{name} must return a tensor of shape {expected}, got {came}")
    return scaling.to_candidates(returned)


def _number(written: object) -> int | float:
    """Returns a number, also from a fraction such as ``"2/255"``."""
    if isinstance(written, int | float) and not isinstance(written, bool):
        return written  # an integer stays one: a documented number may be a count
    try:
        return float(Fraction(str(written)))
    except (ValueError, ZeroDivisionError):
        raise ValueError('must be a number such as 0.01 or "2/255"') from None


def _number_or_none(written: object) -> int | float | None:
    return None if written is None else _number(written)


def _listed(written: object) -> object:
    """Returns a list, also from the command line's ``apgd-ce,fab``."""
    if not isinstance(written, str):
        return written
    return [each.strip() for each in written.split(",")]


Number = Annotated[Any, BeforeValidator(_number)]
NumberOrNone = Annotated[Any, BeforeValidator(_number_or_none)]
_TYPES: dict[str, Any] = {"int": int, "bool": bool, "str": str, "float": Number}


def _type(parameter: inspect.Parameter, about: str) -> Any:
    """Returns the type of a parameter from its annotation, documentation or default."""
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
    """Returns the part of an annotation that is a list of literals, or None."""
    for part in (annotation, *get_args(annotation)):
        if get_origin(part) is list and get_origin(get_args(part)[0]) is Literal:
            return part
    return None


def _annotated(parameter: inspect.Parameter) -> set[str]:
    """Returns the names of the plain types in an annotation, which may be text."""
    annotation = parameter.annotation
    parts = get_args(annotation) or (annotation,)
    names = [part.__name__ for part in parts if isinstance(part, type)]
    words = annotation.split("|") if isinstance(annotation, str) else names
    return {word.strip() for word in words} & _TYPES.keys()


def _default(parameter: inspect.Parameter) -> Any:
    default = parameter.default
    if type(default).__hash__ is None:
        return dataclasses.field(default_factory=lambda: copy.copy(default))
    return default
