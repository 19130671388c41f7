"""Training recipes: small TOML files, decoded into frozen records; an unknown key is an error.

A recipe determines the weights together with the data: one recipe and seed give equal weights on
one machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from gibbon.core.errors import SpecError, UnknownNameError, suggest
from gibbon.core.reading import check_tree, read_text_file
from gibbon.specs.base import EpsilonField, Positive, Spec
from gibbon.specs.decoding import parse_toml
from gibbon.specs.problems import key_path
from gibbon_zoo.catalogue import ARCHITECTURES, RECIPES

TEXTS = ("summary", "chosen", "scaled")  # fields of a recipe that do not change the training
Count = Annotated[int, Field(ge=1)]
DropoutRate = Annotated[float, Field(ge=0, lt=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Alpha = Annotated[float, Field(gt=0, le=1)]
Arithmetic = Literal["float32", "bfloat16"]
AnyRecipe = TypeVar("AnyRecipe", bound=Spec)


def _is_registered(architecture: str) -> str:
    if architecture not in ARCHITECTURES:
        raise ValueError(str(UnknownNameError("architecture", architecture, known=ARCHITECTURES)))
    return architecture


def _without_defaults(sizes: object) -> object:
    # Cards of earlier versions list every size, with null for a default.
    if not isinstance(sizes, dict):
        return sizes
    return {name: size for name, size in sizes.items() if size is not None}


ArchitectureName = Annotated[str, AfterValidator(_is_registered)]
Sizes = Annotated[Mapping[str, Count], BeforeValidator(_without_defaults)]


class ExponentialDecay(Spec):
    """A learning rate that is divided by a factor after every update, down to a minimum.

    Args:
        factor: divisor, above 1.
        minimum: lowest learning rate.
    """

    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    minimum: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class Ramp(Spec):
    """A quantity that changes linearly over epochs, and then stays constant.

    Args:
        start: last epoch, counted from 1, with the first value.
        end: first epoch with the final value; equal to ``start``, the value changes at once.
        final: final value.
    """

    start: Count = 1
    end: Count
    final: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"a ramp can't end in epoch {self.end}, before epoch {self.start}")
        return self


class Optimiser(Spec):
    """The optimiser of a training.

    At most one of ``schedule = "linear"``, ``decay`` and ``rate_ramp`` changes the learning rate;
    `gibbon_zoo.schedules` holds their formulas.

    Args:
        name: ``"sgd"`` with classical momentum, or ``"adam"`` (Kingma and Ba, ICLR 2015) with
            its usual decay rates.
        learning_rate: at the first step.
        schedule: ``"constant"``, or ``"linear"``: falling to 0 over the whole training.
        decay: exponential decay of the learning rate, step by step.
        rate_ramp: change of the learning rate, epoch by epoch, from ``learning_rate`` on.
        momentum: of SGD, at the first step.
        momentum_ramp: change of the momentum, epoch by epoch, from ``momentum`` on.
        rates: learning rates of single parameters, by name, in place of ``learning_rate``; a
            schedule changes them by the same factor.
        weight_decay: share of each parameter that is added to its gradient.
    """

    name: Literal["sgd", "adam"]
    learning_rate: Positive
    schedule: Literal["constant", "linear"] = "constant"
    decay: ExponentialDecay | None = None
    rate_ramp: Ramp | None = None
    momentum: Momentum = 0.0
    momentum_ramp: Ramp | None = None
    rates: Mapping[str, Positive] = Field(default_factory=dict)
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _momentum_is_for_sgd(self) -> Self:
        if (self.momentum or self.momentum_ramp) and self.name != "sgd":
            raise ValueError("momentum is an option of sgd; adam has its own")
        if self.momentum_ramp and self.momentum_ramp.final >= 1:
            raise ValueError(f"the momentum must stay below 1, got {self.momentum_ramp.final:g}")
        return self

    @model_validator(mode="after")
    def _one_schedule_of_the_rate(self) -> Self:
        given = ['schedule = "linear"'] if self.schedule == "linear" else []
        given += [name for name in ("decay", "rate_ramp") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: one schedule of the rate")
        if self.rate_ramp and self.rate_ramp.final == 0:
            raise ValueError("the learning rate must stay above 0")
        return self


class Dropout(Spec):
    """Shares of units that are dropped while training, and factors of the others.

    Args:
        inputs: share of inputs that is dropped.
        hidden: share of the units of each hidden layer that is dropped.
        inputs_scale: factor of the inputs that are kept; 1 / (1 - share) if None, with which the
            mean stays the same.  With 1 inputs are not rescaled, neither then nor afterwards, so
            that the network's later inputs are larger on average than those of its training.
        hidden_scale: factor of the hidden units that are kept, likewise.
    """

    inputs: DropoutRate = 0.0
    hidden: DropoutRate = 0.0
    inputs_scale: Positive | None = None
    hidden_scale: Positive | None = None


class AdversarialObjective(Spec):
    """The adversarial objective: alpha J(x) + (1 - alpha) J(x + epsilon sign grad J(x)).

    Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015,
    section 6; https://arxiv.org/abs/1412.6572

    Args:
        alpha: weight of the clean loss, in (0, 1].
        epsilon: as in a suite: a number, a decimal or a fraction, in units of the input.
        perturbs: the inputs, or the units of every hidden layer in their place.
        masks: dropout masks of the perturbed term: those of the clean term, for which the
            perturbation was made, or its own, as a cost has them that is computed twice.
    """

    alpha: Alpha
    epsilon: EpsilonField
    perturbs: Literal["inputs", "hidden"] = "inputs"
    masks: Literal["shared", "own"] = "shared"


class RotationObjective(Spec):
    """The adversarial objective with inputs rotated towards their gradient.

    Unlike the sign, a rotation can be differentiated: the gradient goes through it, so that
    learning takes the adversary's reaction into account (Goodfellow et al. 2015, section 6).

    Args:
        alpha: weight of the clean loss, in (0, 1].
        chord: Euclidean distance moved, in units of the input (see `gibbon.attacks.rotation`).
    """

    alpha: Alpha
    chord: Positive


class WorstCaseObjective(Spec):
    """The loss of a linear model's exact worst case within epsilon in L-infinity (section 5)."""

    epsilon: EpsilonField


class Stopping(Spec):
    """Early stopping on held-out examples, and the second training that follows.

    Args:
        measure: error that is to fall: on clean held-out examples, or under FGSM.
        held_out: number of held-out examples.
        split: which examples are held out: the last ones of one seeded shuffle, or the last ones
            of the training split in its own order, equal for every seed.
        patience: epochs without a lower error after which the first training ends; it ends at
            ``epochs`` at the latest.
        epsilon: budget of that FGSM, as in a suite; by default the one of the adversarial
            objective.  With ``measure = "clean_error"`` the error under FGSM is measured and
            logged if this is given, and decides nothing.
        second: what follows.  ``"again"``: a training from the start on all examples, for as many
            epochs as were best.  ``"continue"``: from the best parameters on all examples, with
            the momentum of that epoch and the learning rate going on from there, until the mean
            objective on the formerly held-out examples is at most its mean on the others at the
            best epoch (for ``epochs`` at the latest).  ``"none"``: nothing; the best parameters
            are the result.
    """

    measure: Literal["clean_error", "adversarial_error"]
    held_out: Count = 10_000
    split: Literal["shuffled", "last"] = "shuffled"
    patience: Count
    epsilon: EpsilonField | None = None
    second: Literal["again", "continue", "none"] = "again"

    def fgsm_epsilon(self, recipe: Recipe) -> float:
        """Returns the budget of the measured FGSM, 0 if only the clean error is measured."""
        if self.epsilon is not None:
            return float(self.epsilon)
        if self.measure == "clean_error" or recipe.adversarial is None:
            return 0.0
        return float(recipe.adversarial.epsilon)


class Noise(Spec):
    """Noise that is added to the inputs of every batch, drawn anew each time.

    The controls of Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial
    examples", ICLR 2015, section 6; https://arxiv.org/abs/1412.6572

    Args:
        kind: ``"sign"`` adds epsilon or -epsilon to each coordinate, ``"uniform"`` a number
            uniform on [-epsilon, epsilon].
        epsilon: as in a suite: a number, a decimal or a fraction, in units of the input.
    """

    kind: Literal["sign", "uniform"]
    epsilon: EpsilonField


def differing_fields(before: Spec, now: Spec, *, but: Sequence[str]) -> list[str]:
    """Returns the fields that differ between two specs of a kind except some, in words."""
    one, other = (each.model_dump(exclude={*but}) for each in (before, now))
    return [f"{key} {one[key]!r}, not {other[key]!r}" for key in one if one[key] != other[key]]


class Recipe(Spec):
    """The recipe of one model's training.

    Args:
        summary: one line about the model, for lists.
        architecture: a name in `gibbon_zoo.catalogue.ARCHITECTURES`.
        dataset: registered name; the whole training split is used.
        seed: default seed of every random number.
        epochs: passes over the training split.
        members: of an ensemble, each trained by itself with a seed of its own.
        batch_size: examples a step; an epoch's last batch may be smaller.
        spread: weights start uniform on [-spread, spread].
        max_norm: bound on the L2 norm of each linear unit's incoming weights, or none.
        dtype: type of the stored weights; they are trained in float32.
        arithmetic: of the network's passes while it trains, forward and backward. With
            ``"bfloat16"`` its products take inputs and weights rounded to that, which is faster on
            processors that support it; weights, loss, optimiser and all measurements stay float32.
        chosen: how the recipe was chosen, in words.
        scaled: how the training is smaller than the paper's, in words.
        l1_decay: coefficients of the sums of absolute values added to the loss, by parameter.
    """

    summary: str = ""
    architecture: ArchitectureName
    dataset: str
    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Count
    batch_size: Count
    members: Count = 1
    spread: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    max_norm: Positive | None = None
    dtype: Literal["float32", "float16"] = "float32"
    arithmetic: Arithmetic = "float32"
    chosen: str = ""
    scaled: str = ""
    sizes: Sizes = Field(default_factory=dict)
    optimiser: Optimiser
    dropout: Dropout = Dropout()
    noise: Noise | None = None
    l1_decay: Mapping[str, Positive] = Field(default_factory=dict)
    adversarial: AdversarialObjective | None = None
    rotation: RotationObjective | None = None
    worst_case: WorstCaseObjective | None = None
    stopping: Stopping | None = None

    @model_validator(mode="after")
    def _one_objective(self) -> Self:
        given = [
            name
            for name in ("adversarial", "rotation", "worst_case")
            if getattr(self, name) is not None
        ]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: one objective a recipe")
        stopping = self.stopping
        if stopping and stopping.measure == "adversarial_error" and not stopping.fgsm_epsilon(self):
            raise ValueError(
                "stopping on the adversarial error needs an adversarial objective, or an epsilon "
                "above 0 (stopping.epsilon)"
            )
        if stopping and self.optimiser.schedule != "constant":
            raise ValueError(
                "early stopping needs a constant learning rate: schedules end at a fixed epoch"
            )
        return self

    def differences(self, other: Recipe) -> list[str]:
        """Returns what ``other`` has that this recipe has not, in words."""
        return differing_fields(self, other, but=TEXTS)

    def override(self, *, seed: int | None = None, epochs: int | None = None) -> Recipe:
        """Returns the recipe with another seed or number of epochs.  Raises `SpecError`."""
        changes = {"seed": seed, "epochs": epochs}
        kept = {key: value for key, value in changes.items() if value is not None}
        return validated(Recipe, {**self.model_dump(), **kept}, where="recipe")


def recipe_names() -> list[str]:
    """Returns the names of the shipped recipes, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def shipped_recipe(name: str) -> Recipe:
    """Returns the recipe that comes with a model.  Raises `UnknownNameError`."""
    if name not in recipe_names():
        raise UnknownNameError("recipe", name, known=recipe_names())
    return read_recipe(RECIPES / f"{name}.toml")


def read_recipe(path: Path) -> Recipe:
    """Returns the recipe in a TOML file.

    Raises `SpecError`, which names file and key, if it can't be read or is invalid.
    """
    text = read_text_file(path, SpecError)
    content = parse_toml(text, where=str(path), problem="not TOML")
    try:
        check_tree(content)
    except ValueError as error:
        raise SpecError(str(error), where=str(path)) from error
    return validated(Recipe, content, where=path.name)


def validated(
    kind: type[AnyRecipe], content: object, *, where: str, hidden: Sequence[str] = ()
) -> AnyRecipe:
    """Returns a recipe of a kind.  Raises `SpecError`, which names ``where`` and the key.

    Known keys that an error lists are without the ``hidden`` ones.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        # A misspelt key gives one missing and one unknown key: the unknown one is more helpful.
        problems = error.errors()
        first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
        key = key_path(first["loc"])
        fault, said = first["type"], first["msg"].removeprefix("Value error, ")
        message = _sentence(kind, fault, said, first["loc"], hidden)
        raise SpecError(message, where=f"{where}: {key}" if key else where) from None


def _sentence(
    kind: type[Spec],
    fault: str,
    message: str,
    location: tuple[str | int, ...],
    hidden: Sequence[str],
) -> str:
    if fault != "extra_forbidden":
        return message
    *parents, name = location
    table: object = kind
    for parent in parents:
        table = _fields(table)[str(parent)].annotation
    known = [key for key in _fields(table) if key not in hidden]
    return f"unknown key{suggest(str(name), known)} Known: {', '.join(known)}"


def _fields(table: object) -> dict[str, FieldInfo]:
    """Returns the fields of a record's type, or of the union of it and None."""
    found: dict[str, FieldInfo] = {}
    for each in (table, *get_args(table)):
        found.update(getattr(each, "model_fields", {}))
    return found
