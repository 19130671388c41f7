"""Recipes for a user's own model: data, objective, stopping and optimiser, decoded and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from gibbon.core.errors import SpecError, UnknownNameError
from gibbon.core.reading import check_tree, read_text_file
from gibbon.core.threat import Epsilon
from gibbon.specs.base import EpsilonField, Positive, Spec
from gibbon.specs.decoding import parse_toml
from gibbon.specs.suite import DatasetSpec, ModelSpec
from gibbon_zoo.own_probe import is_same_probe
from gibbon_zoo.recipe import (
    Arithmetic,
    Count,
    Noise,
    Optimiser,
    Stopping,
    differing_fields,
    validated,
)

ATTACK_STEPS = 10  # of pgd and trades
FAST_STEP = 1.25  # step size of fgsm in epsilons: Wong et al. 2020, section 5
STEP_SHARE = 2.5  # steps times step size of pgd in epsilons: Madry et al. 2018, appendix
TRADES_BETA = 6.0  # 1 / lambda: Zhang et al. 2019, section 5
FREE_REPLAYS = 8  # m: Shafahi et al. 2019, on CIFAR-10
HELD_OUT_SHARE, MOST_HELD_OUT = 10, 10_000  # a tenth of the training examples, at most so many
BY_PARAMETER = ("l1_decay", "optimiser.rates")  # tables whose keys are names of parameters
USUAL_ADAM: Mapping[str, Any] = {"name": "adam", "learning_rate": 0.001, "schedule": "linear"}
USUAL_SGD: Mapping[str, Any] = {**USUAL_ADAM, "name": "sgd", "learning_rate": 0.05, "momentum": 0.9}
# The parameters of each objective besides epsilon, norm and adversary_mode.
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "standard": (),
    "fgsm": ("step_size", "alpha", "random_start"),
    "pgd": ("steps", "step_size", "alpha", "random_start"),
    "trades": ("steps", "step_size", "beta"),
    "free": ("replays",),
}


def _known_objective(name: object) -> object:
    if isinstance(name, str) and name not in PARAMETERS:
        raise ValueError(str(UnknownNameError("objective", name, known=PARAMETERS)))
    return name


ObjectiveName = Annotated[
    Literal["standard", "fgsm", "pgd", "trades", "free"], BeforeValidator(_known_objective)
]


class OwnObjective(Spec):
    """The objective of a training, and its adversary.

    Args:
        name: ``standard``, the loss on clean examples; ``fgsm``, fast adversarial training with a
            random start (Wong et al. 2020); ``pgd`` (Madry et al. 2018); ``trades`` (Zhang et al.
            2019); ``free`` (Shafahi et al. 2019).
        epsilon: budget, in units of the input.  With ``standard`` it is that of the measured
            attacks; without it only clean figures are measured.
        norm: norm of the budget.
        steps: gradient steps of ``pgd`` and ``trades``; 10 by default.
        step_size: of each step; by default 1.25 epsilon for ``fgsm`` and 2.5 epsilon / steps
            otherwise, which is epsilon / 4 for 10 steps.
        beta: weight of the divergence in ``trades``; 6 by default.
        replays: steps in succession on each batch of ``free``; 8 by default.
        alpha: weight of the clean loss in ``fgsm`` and ``pgd``, as in Goodfellow et al. 2015; 0 by
            default.
        random_start: whether ``fgsm`` and ``pgd`` start from a random point of the ball; from the
            example itself otherwise.
        adversary_mode: mode of the network in the passes that make the perturbation: ``eval``
            takes the running statistics of batch normalisation and changes nothing in them, and
            drops no units; ``train`` is the mode of the update.  ``free`` has no such passes.
    """

    name: ObjectiveName
    epsilon: EpsilonField | None = None
    norm: Literal["linf", "l2"] = "linf"
    steps: Count | None = None
    step_size: EpsilonField | None = None
    beta: Positive | None = None
    replays: Annotated[int, Field(ge=2)] | None = None
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.0
    random_start: bool = True
    adversary_mode: Literal["eval", "train"] = "eval"

    @field_validator("epsilon", "step_size")
    @classmethod
    def _above_zero(cls, budget: Epsilon | None) -> Epsilon | None:
        if budget is not None and budget.value == 0:
            raise ValueError("must be above 0")
        return budget

    @model_validator(mode="after")
    def _takes_what_is_given(self) -> Self:
        if self.epsilon is None and self.name != "standard":
            raise ValueError(
                f"the objective {self.name} needs a budget: epsilon (--epsilon 8/255), in units of "
                "the input"
            )
        for key in ("steps", "step_size", "beta", "replays", "alpha", "random_start"):
            usual = type(self).model_fields[key].default
            if getattr(self, key) != usual and key not in PARAMETERS[self.name]:
                of = [name for name, keys in PARAMETERS.items() if key in keys]
                raise ValueError(f"{key} is a parameter of {' and '.join(of)}, not of {self.name}")
        return self

    @property
    def steps_taken(self) -> int:
        """Gradient steps of the adversary."""
        return self.steps or (ATTACK_STEPS if self.name in ("pgd", "trades") else 1)

    @property
    def step_length(self) -> float:
        """Length of each step in units of the input."""
        if self.step_size is not None:
            return float(self.step_size)
        epsilon = float(self.epsilon or 0)
        return (
            FAST_STEP * epsilon if self.name == "fgsm" else STEP_SHARE * epsilon / self.steps_taken
        )

    @property
    def weight(self) -> float:
        """Weight of the divergence in ``trades``."""
        return TRADES_BETA if self.beta is None else self.beta

    def taken(self) -> dict[str, object]:
        """Returns the parameters that the objective has, with the values that it takes."""
        if self.epsilon is None:
            return {"name": self.name}
        usual: dict[str, object] = {
            "steps": self.steps_taken,
            "step_size": self.step_length,
            "beta": self.weight,
            "replays": self.updates_a_batch,
            "alpha": self.alpha,
            "random_start": self.random_start,
        }
        shared = {"name": self.name, "epsilon": str(self.epsilon), "norm": self.norm}
        if PARAMETERS[self.name] and self.name != "free":
            shared["adversary_mode"] = self.adversary_mode
        return {**shared, **{key: usual[key] for key in PARAMETERS[self.name]}}

    @property
    def updates_a_batch(self) -> int:
        """Steps in succession on each batch."""
        return (self.replays or FREE_REPLAYS) if self.name == "free" else 1


class OwnStopping(Spec):
    """Early stopping of the training of a user's own model.

    Args:
        measure: error that is to fall: under PGD, or clean; by default under PGD, and clean for the
            objective ``standard``.
        patience: epochs without a lower error after which training ends.
        held_out: examples that are held out of the training examples, if there are no others; a
            tenth by default, at most 10,000.
        split: which examples are held out: the last ones of one seeded shuffle, or the last ones.
        second: what follows, as in `gibbon_zoo.recipe.Stopping`; ``"none"`` by default.
    """

    measure: Literal["clean_error", "adversarial_error"] | None = None
    patience: Count = 10
    held_out: Count | None = None
    split: Literal["shuffled", "last"] = "shuffled"
    second: Literal["again", "continue", "none"] = "none"


class Augmentation(Spec):
    """Random changes of pictures, drawn anew at every step.

    Args:
        flip: whether half of the pictures are mirrored from left to right.
        shift: pictures move by up to so many pixels in both directions; what comes in is 0, or
            the lower bound of the inputs.
    """

    flip: bool = False
    shift: Annotated[int, Field(ge=0)] = 0


class WatchedFigures(Spec):
    """The measurement after each epoch.

    Args:
        examples: number of held-out examples that are measured, a fixed sample; all if fewer.
        steps: gradient steps of PGD.
    """

    examples: Count = 2000
    steps: Count = 10


def _off(written: object) -> object:
    return None if written is False else written


# What a difference of a digest means; one that is not known, of an earlier version, is none.
WORDS: Mapping[str, str] = {
    "dataset_digest": "the training examples had other content",
    "validation_digest": "the validation examples had other content",
    "weights_digest": "the weights file that it starts from had other content",
}
FILLED_IN = (*WORDS, "model_probe")


class OwnRecipe(Spec):
    """The recipe of the training of a user's own model.

    Args:
        model: source of the model.
        dataset: training examples.
        validation: examples that decide which epoch was best; held out of the others if None.
        seed: seed of every random number.
        epochs: passes over the training examples; with ``free``, as many steps as these have.
        batch_size: examples a step.
        optimiser: optimiser with its schedules; Adam at a rate of 0.001 falling to 0 by default;
            of SGD alone the name is enough, with 0.05 and a momentum of 0.9.
        objective: objective, with its adversary.
        stopping: early stopping; false or None trains on all examples for all epochs.
        augmentation: random changes of pictures.
        watched: measurement after each epoch.
        noise: noise that is added to the inputs.
        l1_decay: coefficients of the sums of absolute values added to the loss, by parameter.
        max_norm: bound on the L2 norm of the incoming weights of each unit or filter.
        arithmetic: of the network's passes while it trains.
        dataset_digest, validation_digest, weights_digest: content of the data and of the weights
            file that it starts from, filled in by the training.
        model_probe: what `gibbon_zoo.own_probe.probe_network` finds of the model's code, filled in
            by the training.
    """

    model: ModelSpec
    dataset: DatasetSpec
    validation: DatasetSpec | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Count = 30
    batch_size: Count = 128
    optimiser: Optimiser = Optimiser.model_validate(USUAL_ADAM)
    objective: OwnObjective
    stopping: Annotated[OwnStopping | None, BeforeValidator(_off)] = OwnStopping()
    augmentation: Augmentation = Augmentation()
    watched: WatchedFigures = WatchedFigures()
    noise: Noise | None = None
    l1_decay: Mapping[str, Positive] = Field(default_factory=dict)
    max_norm: Positive | None = None
    arithmetic: Arithmetic = "float32"
    dataset_digest: str = ""
    validation_digest: str = ""
    weights_digest: str = ""
    model_probe: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        stopping = self.stopping
        if stopping is None:
            if self.validation is not None:
                raise ValueError("validation examples have no use without stopping")
            return self
        if stopping.measure == "adversarial_error" and self.objective.epsilon is None:
            raise ValueError("stopping on the adversarial error needs objective.epsilon")
        if stopping.held_out is not None and self.validation is not None:
            raise ValueError(
                "stopping.held_out and validation exclude each other: examples are held out only "
                "if there are no others"
            )
        if stopping.second != "none" and self.validation is not None:
            raise ValueError(
                f'stopping.second = "{stopping.second}" trains on the held-out examples too: leave '
                "out validation"
            )
        if stopping.second != "none" and self.optimiser.schedule != "constant":
            raise ValueError(
                f'stopping.second = "{stopping.second}" needs a constant learning rate, a decay or '
                'a ramp: optimiser.schedule = "linear" ends at a fixed epoch'
            )
        return self

    def stopping_of(self, count: int) -> Stopping | None:
        """Returns early stopping with its defaults filled in, for ``count`` training examples."""
        given = self.stopping
        if given is None:
            return None
        usual = "clean_error" if self.objective.name == "standard" else "adversarial_error"
        return Stopping(
            measure=given.measure or usual,
            held_out=given.held_out or max(1, min(MOST_HELD_OUT, count // HELD_OUT_SHARE)),
            split=given.split,
            patience=given.patience,
            epsilon=self.objective.epsilon,
            second=given.second,
        )

    def lasting(self, epochs: int) -> Self:
        """Returns the recipe with another number of epochs."""
        return self.model_copy(update={"epochs": epochs})

    def differences(self, other: Self) -> list[str]:
        """Returns what ``other`` has that this recipe has not, in words."""
        found = differing_fields(self, other, but=FILLED_IN)
        for key, words in WORDS.items():
            before, now = getattr(self, key), getattr(other, key)
            if before and now and before != now:
                found.append(words)
        if not is_same_probe(self.model_probe, other.model_probe):
            found.append("the model's code or structure was another")
        return found


def own_recipe(settings: Mapping[str, Any], *, file: Path | None = None) -> OwnRecipe:
    """Returns the recipe of settings, which replace those of a TOML file field by field.

    Args:
        settings: fields by name; those of tables as mappings, or as one dotted name.
        file: TOML file of a recipe.

    Raises `SpecError` that names the key.

    >>> parts = {"model": "mlp.py:build", "dataset": "digits.npz", "objective.name": "standard"}
    >>> own_recipe(parts).epochs
    30
    """
    written: dict[str, Any] = {}
    if file is not None:
        written = parse_toml(read_text_file(file, SpecError), where=str(file), problem="not TOML")
    written = _with_optimiser(written, settings)
    _check_stopping(settings)
    for key, value in settings.items():
        _put(written, _key_path(key), value)
    where = "recipe" if file is None else file.name
    try:
        check_tree(written)
    except ValueError as error:
        raise SpecError(str(error), where=where) from error
    filled_in = next((key for key in FILLED_IN if key in written), None)
    if filled_in is not None:
        raise SpecError("it is filled in by the training", where=f"{where}: {filled_in}")
    return validated(OwnRecipe, written, where=where, hidden=FILLED_IN)


def _check_stopping(settings: Mapping[str, Any]) -> None:
    """Raises `SpecError` if early stopping is turned off and a field of it is given."""
    given = next((key for key in settings if key.startswith("stopping.")), None)
    if given is not None and settings.get("stopping", True) is False:
        raise SpecError("it has no use without early stopping", where=f"recipe: {given}")


def _with_optimiser(written: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns fields with the usual optimiser, unless a table gives more of one than its name."""
    named = settings.get("optimiser.name")
    for each in (settings, written):
        table = each.get("optimiser", {})
        if not isinstance(table, Mapping) or set(table) - {"name"}:
            return dict(written)
        named = table.get("name") if named is None else named
    usual = {**USUAL_SGD} if named == "sgd" else {**USUAL_ADAM}
    if named is not None:
        usual["name"] = named
    if _goes_on(written, settings) or any(
        key.startswith(("optimiser.decay", "optimiser.rate_ramp")) for key in settings
    ):
        del usual["schedule"]
    return {**written, "optimiser": usual}


def _goes_on(written: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Returns whether a second part follows, whose last epoch is not known."""
    second: object = "none"
    for each in (written, settings):
        table = each.get("stopping", {})
        second = table.get("second", second) if isinstance(table, Mapping) else "none"
    return bool(settings.get("stopping.second", second) != "none")


def _key_path(key: str) -> list[str]:
    """Returns the parts of a dotted name; what follows a table by parameters is one of these.

    >>> _key_path("optimiser.rates.fc.weight"), _key_path("stopping.patience")
    (['optimiser', 'rates', 'fc.weight'], ['stopping', 'patience'])
    """
    for table in BY_PARAMETER:
        if key.startswith(f"{table}."):
            name = key.removeprefix(f"{table}.")
            quoted = len(name) > 2 and name[0] == name[-1] == '"'
            return [*table.split("."), name[1:-1] if quoted else name]
    return key.split(".")


def _put(table: dict[str, Any], path: list[str], value: Any) -> None:
    first, *rest = path
    if not rest and isinstance(value, Mapping) and isinstance(table.get(first), dict):
        for key, each in value.items():
            _put(table[first], [key], each)
    elif not rest:
        table[first] = value
    else:
        inner = table.get(first)
        table[first] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        _put(inner, rest, value)
