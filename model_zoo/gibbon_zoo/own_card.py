"""Cards of users' own models: how the weights were trained, and their figures on validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from gibbon.core.errors import WeightsError
from gibbon.core.files import reading
from gibbon.specs.base import Spec
from gibbon_zoo.atomic import write_in_folder
from gibbon_zoo.card import percent_text
from gibbon_zoo.own_measurement import OwnFigures
from gibbon_zoo.own_recipe import OwnRecipe


class OwnCard(Spec):
    """Description of the weights of a user's own model.

    Args:
        model: the model's name.
        sha256: of the weights file.
        recipe: the recipe, with the seed and epochs that were used.
        parameters: number of parameters that were trained.
        versions: of Python and of the packages that made it.
        device: device of the training.
        threads: torch's threads on the CPU, on which the rounding of sums depends.
        seconds: duration of the training.
        measured_on: the examples of the figures, in words.
        figures: of the stored weights.
        epochs: number of epochs that was best; None without early stopping.
        watched: the error that decided, after each epoch.
        notes: sentences about the model, its data and its training.
    """

    model: str
    sha256: str
    recipe: OwnRecipe
    parameters: int
    versions: Mapping[str, str]
    device: str
    threads: int
    seconds: float
    measured_on: str
    figures: OwnFigures
    epochs: int | None = None
    watched: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Returns a line with the figures and the examples that they were measured on."""
        figures, epsilon = self.figures, self.recipe.objective.epsilon
        best = "" if self.epochs is None else f"best after epoch {self.epochs}: "
        parts = [f"clean error {self._rate(figures.clean_error)}"]
        if figures.fgsm_error is not None and figures.pgd_error is not None:
            parts += [
                f"FGSM {self._rate(figures.fgsm_error)}",
                f"PGD-{figures.pgd_steps} {self._rate(figures.pgd_error)} at epsilon {epsilon}",
            ]
        return f"{self.model}: {best}{', '.join(parts)}, on {self.measured_on}"

    def _rate(self, error: float) -> str:
        low, high = self.figures.interval(error)
        return f"{percent_text(error)} [{100 * low:.1f}-{100 * high:.1f}]"


def read_own_card(path: Path) -> OwnCard:
    """Returns the card in a JSON file.  Raises `WeightsError` if it can't be read."""
    try:
        with reading(path, WeightsError):
            return OwnCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise WeightsError(f"{path}: not a card: {key}: {first['msg']}") from None


def write_own_card(path: Path, card: OwnCard) -> None:
    """Writes a card as JSON, atomically.  Raises `RunFolderError` if it can't be written."""
    write_in_folder(path, (card.model_dump_json(indent=2) + "\n").encode())
