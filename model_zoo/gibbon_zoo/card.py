"""Cards, which describe how a weights file was trained and its error rates.  No torch here."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from gibbon.core.errors import WeightsError
from gibbon.core.reading import TEXT_BYTES, read_bytes
from gibbon.specs.base import Spec
from gibbon.specs.problems import key_path
from gibbon_zoo.atomic import write_in_folder
from gibbon_zoo.recipe import TEXTS, Optimiser, Ramp, Recipe

SHOWN_ERRORS = 20  # of a longer search, the first, best and last error are shown
SECONDS = {
    "again": " at most, then again on all examples",
    "continue": " at most, then on from the best on all examples",
    "none": " at most, of which the best",
}
ATTACKS = {"fgsm": "FGSM", "fgsm_naive": "FGSM naive", "fgsm_clipped": "FGSM clipped"}


class Figures(Spec):
    """Measured figures, fractions of 1, over all examples of the test split.

    Args:
        clean_error: share misclassified unattacked.
        mean_clean_confidence: mean confidence on all clean examples.
        fgsm_error: share misclassified under FGSM, exact direction, not clipped.
        fgsm_confidence: mean confidence on the examples misclassified under FGSM; None if there are
            none.
        fgsm_naive_error: share misclassified under FGSM, plain float32 gradient of the loss.
        fgsm_naive_confidence: mean confidence on these examples.
        fgsm_clipped_error: share misclassified under FGSM, exact direction, clipped to the bounds.
        fgsm_clipped_confidence: mean confidence on these examples.
    """

    clean_error: float
    mean_clean_confidence: float
    fgsm_error: float
    fgsm_confidence: float | None
    fgsm_naive_error: float
    fgsm_naive_confidence: float | None
    fgsm_clipped_error: float
    fgsm_clipped_confidence: float | None


class Training(Spec):
    """A training by the card's recipe.

    Args:
        seed: its seed.
        seconds: its duration.
        figures: error rates and confidences of its stored weights on the test split.
        train_error: share of the training split that the weights misclassify unattacked.
        epochs: number of epochs, if early stopping chose it.
        watched: the error on the held-out examples, after each epoch of the search for that number.
        second_epochs: number of epochs of the second training, if it continued from the best
            parameters.
        target: the mean objective on the formerly held-out examples that was to end it.
        objective: the mean objective that it ended with.
    """

    seed: int
    seconds: float
    figures: Figures
    train_error: float | None = None
    epochs: int | None = None
    watched: tuple[float, ...] = ()
    second_epochs: int | None = None
    target: float | None = None
    objective: float | None = None


class Spread(Spec):
    """Mean and sample standard deviation over trainings with different seeds."""

    mean: float
    deviation: float


class Card(Spec):
    """Description of a weights file.

    Args:
        model: the model's name.
        sha256: of the weights file.
        recipe: the recipe that made it, with the seed and epochs that were used.
        parameters: number of parameters.
        versions: of Python and of the packages that made it.
        device: device of the training.
        threads: torch's threads on the CPU, on which the rounding of sums depends.
        epsilon: epsilon of the figures' FGSM, as text.
        training: the training of these weights.
        other_trainings: trainings by this recipe with other seeds.
        over_seeds: mean and deviation over all of these trainings, by figure.
    """

    model: str
    sha256: str
    recipe: Recipe
    parameters: int
    versions: Mapping[str, str]
    device: str
    threads: int
    epsilon: str
    training: Training
    other_trainings: Sequence[Training] = ()
    over_seeds: Mapping[str, Spread] = {}

    def with_other_seeds(self, others: Sequence[Card]) -> Self:
        """Returns the card with the trainings of other cards of its recipe added.

        Raises `WeightsError` if a recipe differs in more than its seed, or a seed comes twice.
        """
        for other in others:
            if other.recipe.override(seed=self.recipe.seed) != self.recipe:
                raise WeightsError(
                    f"{other.model}, seed {other.training.seed}: trained by another recipe"
                )
        runs = [self.training, *(other.training for other in others)]
        if len({run.seed for run in runs}) < len(runs):
            raise WeightsError(f"{self.model}: a seed comes twice: {[run.seed for run in runs]}")
        columns = {
            name: [value for run in runs if (value := getattr(run.figures, name)) is not None]
            for name in Figures.model_fields
        }
        spreads = {
            name: Spread(mean=statistics.mean(column), deviation=statistics.stdev(column))
            for name, column in columns.items()
            if len(column) >= 2
        }
        return self.model_copy(update={"other_trainings": runs[1:], "over_seeds": spreads})

    def with_texts_of(self, recipe: Recipe) -> Self:
        """Returns the card with its recipe's texts replaced by those of an otherwise equal recipe.

        If more differs, the card is returned unchanged.
        """
        words = {name: getattr(recipe, name) for name in TEXTS}
        own = self.recipe.model_copy(update=words)
        if own.override(seed=recipe.seed) != recipe:
            return self
        return self.model_copy(update={"recipe": own})

    def text(self) -> str:
        """Returns the card for people to read."""
        recipe, figures = self.recipe, self.training.figures
        lines = [
            f"{self.model}: {recipe.architecture} on {recipe.dataset}, "
            f"{self.parameters:,} parameters, {recipe.dtype}",
            f"  recipe        {_describe(recipe)}",
            f"  trained       seed {self.training.seed}, {self.training.seconds:.0f} s on "
            f"{self.device} ({self.threads} thread{'s' if self.threads != 1 else ''}), "
            + ", ".join(f"{name} {version}" for name, version in self.versions.items()),
            f"  clean         error {percent_text(figures.clean_error)}, mean confidence "
            f"{percent_text(figures.mean_clean_confidence)}",
        ]
        if self.training.train_error is not None:
            lines.append(f"  training set  error {percent_text(self.training.train_error)}")
        lines += [
            f"  {title:<13} error {percent_text(getattr(figures, f'{name}_error'))}, confidence on "
            f"misclassified {percent_text(getattr(figures, f'{name}_confidence'))} "
            f"(epsilon {self.epsilon})"
            for name, title in ATTACKS.items()
        ]
        if self.over_seeds:
            seeds = 1 + len(self.other_trainings)
            parts = [
                f"{title} {100 * spread.mean:.2f} ± {100 * spread.deviation:.2f} %"
                for name, title in {"clean": "clean", **ATTACKS}.items()
                if (spread := self.over_seeds.get(f"{name}_error")) is not None
            ]
            lines.append(f"  {f'{seeds} seeds':<13} mean errors: {', '.join(parts)}")
        lines += _stopped(self.training)
        if recipe.scaled:
            lines.append(f"  scaled        {' '.join(recipe.scaled.split())}")
        if recipe.chosen:
            lines.append(f"  chosen        {' '.join(recipe.chosen.split())}")
        lines.append(f"  sha256        {self.sha256}")
        return "\n".join(lines)


def write_card(path: Path, card: Card) -> None:
    """Writes a card as JSON, atomically.  Raises `RunFolderError` if it can't be written."""
    write_in_folder(path, (card.model_dump_json(indent=2) + "\n").encode())


def read_card(path: Path) -> Card:
    """Returns the card in a JSON file.  Raises `WeightsError` if it can't be read."""
    try:
        return Card.model_validate_json(read_bytes(path, WeightsError, limit=TEXT_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        raise WeightsError(
            f"{path}: not a card: {key_path(first['loc'])}: {first['msg']}"
        ) from None


def percent_text(fraction: float | None) -> str:
    """Returns a fraction as text in per cent; a dash for None."""
    return "–" if fraction is None else f"{100 * fraction:.2f} %"


def _describe(recipe: Recipe) -> str:
    optimiser, dropout = recipe.optimiser, recipe.dropout
    rates = "".join(f", {name} {rate:g}" for name, rate in optimiser.rates.items())
    parts = [
        f"{recipe.members} members" if recipe.members > 1 else "",
        *(f"{value} {name}" for name, value in recipe.sizes.items()),
        f"{optimiser.name} {optimiser.learning_rate:g}{rates}{_schedule(optimiser)}",
        f"momentum {optimiser.momentum:g}{_ramped(optimiser.momentum_ramp)}"
        if optimiser.momentum or optimiser.momentum_ramp
        else "",
        f"batch {recipe.batch_size}",
        recipe.arithmetic if recipe.arithmetic != "float32" else "",
        f"{recipe.epochs} epoch{'s' if recipe.epochs != 1 else ''}"
        + (SECONDS[recipe.stopping.second] if recipe.stopping else ""),
        f"start ±{recipe.spread:g}" if recipe.spread else "",
        f"dropout {dropout.inputs:g}/{dropout.hidden:g}"
        if dropout.inputs or dropout.hidden
        else "",
        f"inputs times {dropout.inputs_scale:g}" if dropout.inputs_scale is not None else "",
        f"hidden units times {dropout.hidden_scale:g}" if dropout.hidden_scale is not None else "",
        f"max-norm {recipe.max_norm:g}" if recipe.max_norm is not None else "",
        f"{recipe.noise.kind} noise of {recipe.noise.epsilon} on the inputs"
        if recipe.noise is not None
        else "",
        *(f"L1 decay {value:g} on {name}" for name, value in recipe.l1_decay.items()),
        *_objective(recipe),
    ]
    return ", ".join(part for part in parts if part)


def _schedule(optimiser: Optimiser) -> str:
    if optimiser.schedule == "linear":
        return " falling to 0"
    if optimiser.decay is not None:
        return f" divided by {optimiser.decay.factor:.9g} an update"
    return _ramped(optimiser.rate_ramp)


def _ramped(ramp: Ramp | None) -> str:
    return "" if ramp is None else f" to {ramp.final:g} in epoch {ramp.end}"


def _stopped(training: Training) -> Iterator[str]:
    if training.epochs is None:
        return
    errors = [f"{100 * error:.2f}" for error in training.watched]
    if len(errors) > SHOWN_ERRORS:
        best = training.epochs
        errors = [errors[0], "…", f"{errors[best - 1]} (epoch {best})", "…", errors[-1]]
    yield (
        f"  stopped       {training.epochs} epochs, by the errors on examples held out: "
        f"{', '.join(errors)} %"
    )
    if training.second_epochs is not None:
        yield (
            f"  continued     {training.second_epochs} epochs on all examples; objective "
            f"{training.objective:.4f} on those held out before, to match {training.target:.4f}"
        )


def _objective(recipe: Recipe) -> Iterator[str]:
    adversarial, rotation, worst_case = recipe.adversarial, recipe.rotation, recipe.worst_case
    if adversarial is not None:
        where = " on hidden layers" if adversarial.perturbs == "hidden" else ""
        own = ", dropout masks of its own" if adversarial.masks == "own" else ""
        yield (
            f"adversarial objective{where} (alpha {adversarial.alpha:g}, "
            f"epsilon {adversarial.epsilon}{own})"
        )
    if rotation is not None:
        yield f"rotated inputs (alpha {rotation.alpha:g}, chord {rotation.chord:g})"
    if worst_case is not None:
        yield f"exact worst case (epsilon {worst_case.epsilon})"
