"""The training of a user's own network: its steps, its held-out examples and its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from gibbon.core.errors import ModelError, SpecError, suggest
from gibbon.core.rng import derive_key, seeded_globals
from gibbon.models.memory import is_shortage
from gibbon_zoo.early_stopping import HeldOutFigures, held_out_positions
from gibbon_zoo.learner import ExampleFeed, Learner, sample_of
from gibbon_zoo.monitor_settings import MonitorSettings
from gibbon_zoo.own_measurement import measure_network, overfitting_note
from gibbon_zoo.own_objectives import adversarial_loss, augment, objective_threat, replay
from gibbon_zoo.own_recipe import OwnRecipe
from gibbon_zoo.procedure import TrainingTask
from gibbon_zoo.recipe import Stopping
from gibbon_zoo.trained_network import TrainedNetwork
from gibbon_zoo.training import Weights
from gibbon_zoo.training_objectives import draw_noise


class OwnLearner(Learner[nn.Module]):
    """A user's module, trained by a recipe.

    Batch normalisation: the update is made in training mode, so that running statistics are those
    of the batches that are trained on, adversarial ones for most objectives.

    Args:
        network: on the device to train on.
        recipe: recipe of the training.
        examples: on that device.
        start: the module's tensors to start from.
    """

    smallest_batch = 2  # batch normalisation has no variance of one example

    def __init__(
        self, network: TrainedNetwork, recipe: OwnRecipe, examples: ExampleFeed, *, start: Weights
    ) -> None:
        self.network, self.module = network, network.module
        self.recipe: OwnRecipe = recipe
        self.examples, self.initial = examples, start
        self.replays = recipe.objective.updates_a_batch
        self.perturbation: Tensor | None = None

    def check(self) -> None:
        """Raises `SpecError` if the recipe names a parameter that is not there.

        Puts the module into training mode.
        """
        names = [name for name, _ in self.module.named_parameters()]
        fields = {"optimiser.rates": self.recipe.optimiser.rates, "l1_decay": self.recipe.l1_decay}
        for key, given in fields.items():
            for name in given:
                if name not in names:
                    raise SpecError(
                        f"the model has no parameter {name!r}{suggest(name, names)} It has "
                        f"{', '.join(names)}",
                        where=f"recipe: {key}",
                    )
        self.network.whole.train()

    def start(self) -> None:
        """Loads the tensors to start from."""
        self.module.load_state_dict(dict(self.initial))

    def descend(self, inputs: Tensor, labels: Tensor, *, key: int) -> Tensor:
        """Adds the gradient of the recipe's objective and returns its value."""
        recipe = self.recipe
        try:
            # The module may draw from global generators, as dropout does.
            with seeded_globals(derive_key(recipe.seed, "step", key), inputs.device):
                inputs = self._varied(inputs, key)
                if recipe.objective.name == "free":
                    loss = self._replay(inputs, labels)
                else:
                    loss = self._loss(inputs, labels, key)
                    torch.autograd.backward(loss)
                for name, coefficient in recipe.l1_decay.items():
                    decay = coefficient * self.module.get_parameter(name).abs().sum()
                    torch.autograd.backward(decay)
                    loss = loss + decay
        except RuntimeError as error:
            if not is_shortage(error):
                raise ModelError(
                    f"it failed in training, on inputs of shape {tuple(inputs.shape)}: "
                    f"{type(error).__name__}: {' '.join(str(error).split())}"
                ) from error
            raise SpecError(
                f"memory ran out with batches of {recipe.batch_size}: give a smaller one",
                where="recipe: batch_size",
            ) from error
        return loss.detach()

    def objective(self, inputs: Tensor, labels: Tensor, *, key: int) -> Tensor:
        """Returns the recipe's objective in evaluation mode, without augmentation and noise.

        That of ``free`` is the loss after one step, as of ``fgsm``.
        """
        trained = [each for each in self.module.parameters() if each.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            with self.network.evaluating():
                return self._loss(inputs, labels, key).detach()
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)

    def for_examples(self, module: nn.Module, examples: ExampleFeed) -> OwnLearner:
        """Returns a learner of this module on other examples."""
        return OwnLearner(self.network, self.recipe, examples, start=self.initial)

    def constrain(self) -> None:
        """Bounds the norms of the incoming weights of each unit and filter."""
        limit = self.recipe.max_norm
        if limit is None:
            return
        with torch.no_grad():
            for parameter in self.module.parameters():
                if parameter.ndim >= 2 and parameter.requires_grad:
                    norms = torch.linalg.vector_norm(parameter.flatten(1), dim=1)
                    factors = (limit / norms).clamp_(max=1.0)
                    parameter.mul_(factors.view(-1, *(1,) * (parameter.ndim - 1)))

    def carried(self) -> dict[str, Tensor]:
        """Returns the perturbation of ``free``."""
        return {} if self.perturbation is None else {"perturbation": self.perturbation}

    def restore(self, carried: dict[str, Tensor]) -> None:
        """Takes the perturbation of ``free``."""
        self.perturbation = carried.get("perturbation")

    def _varied(self, inputs: Tensor, key: int) -> Tensor:
        """Returns inputs with augmentation and noise, equal in all replays of a batch.

        An adversary starts from inputs inside the bounds, so that noise does not leave them then.
        """
        recipe, batch = self.recipe, key // self.replays
        low, high = self.network.bounds.low, self.network.bounds.high
        drawn = derive_key(recipe.seed, batch)
        inputs = augment(inputs, recipe.augmentation, key=drawn, low=low)
        if recipe.noise is not None:
            inputs = inputs + draw_noise(inputs, recipe.noise, seed=recipe.seed, step=batch)
            if recipe.objective.name != "standard":
                inputs = inputs.clamp(low, high)
        return inputs

    def _loss(self, inputs: Tensor, labels: Tensor, key: int) -> Tensor:
        drawn = derive_key(self.recipe.seed, "adversary", key)
        return adversarial_loss(self.network, self.recipe.objective, inputs, labels, key=drawn)

    def _replay(self, inputs: Tensor, labels: Tensor) -> Tensor:
        held = self.perturbation
        if held is None:
            size = min(self.recipe.batch_size, len(self.examples))
            held = inputs.new_zeros(max(size, len(inputs)), *inputs.shape[1:])
        loss, self.perturbation = replay(
            self.network, self.recipe.objective, inputs, labels, perturbation=held
        )
        return loss


@dataclass(frozen=True)
class OwnTask(TrainingTask[nn.Module]):
    """A user's network by its recipe.

    Args:
        recipe: recipe of the training.
        network: on the device to train on.
        start: tensors of its module to start from.
        examples: training examples.
        validation: examples of the user's that are held out; None if they are taken of the others.
        monitor: what is written for TensorBoard, if anything is.
    """

    recipe: OwnRecipe
    network: TrainedNetwork
    start: Weights
    examples: ExampleFeed
    validation: ExampleFeed | None = None
    monitor: MonitorSettings | None = None

    @property
    def stopping(self) -> Stopping | None:
        """The recipe's early stopping."""
        return self.recipe.stopping_of(len(self.examples))

    def learner(self, examples: ExampleFeed) -> OwnLearner:
        """Returns the module at its start, to be trained on these examples."""
        return OwnLearner(self.network, self.recipe, examples, start=self.start)

    def divide(self, stopping: Stopping) -> tuple[ExampleFeed, ExampleFeed]:
        """Returns the training examples, and the user's validation examples or held-out ones."""
        if self.validation is not None:
            return self.examples, self.validation
        kept, unseen = held_out_positions(stopping, len(self.examples), seed=self.recipe.seed)
        return self.examples.take(kept), self.examples.take(unseen)

    def figures(self, unseen: ExampleFeed) -> Callable[[nn.Module], HeldOutFigures]:
        """Returns a function that measures errors on a fixed sample: clean, FGSM and PGD."""
        recipe, watched = self.recipe, self.recipe.watched
        sample = sample_of(unseen, watched.examples)
        threat = objective_threat(self.network, recipe.objective)

        def measure(module: nn.Module) -> HeldOutFigures:
            found = measure_network(
                self.network, sample, threat, steps=watched.steps, batch_size=recipe.batch_size
            )
            resists = recipe.objective.name != "standard"
            return HeldOutFigures(
                clean_error=found.clean_error,
                adversarial_error=found.pgd_error,
                adversarial_confidence=found.pgd_confidence,
                loss_held_out=found.loss,
                fgsm_error=found.fgsm_error,
                fgsm_confidence=found.fgsm_confidence,
                note=overfitting_note(found) if resists else "",
            )

        return measure

    def lasting(self, epochs: int) -> Self:
        """Returns the task with another number of epochs."""
        return replace(self, recipe=self.recipe.lasting(epochs))

    def watched(self, module: nn.Module) -> tuple[MonitorSettings, TrainedNetwork] | None:
        """Returns what is written for TensorBoard, of the network."""
        return None if self.monitor is None else (self.monitor, self.network)
