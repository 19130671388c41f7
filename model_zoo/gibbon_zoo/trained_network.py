"""A user's network in training: its module, its passes, and the modes that they are made in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gibbon.core.errors import ModelError
from gibbon.core.rng import seeded_globals
from gibbon.core.threat import Bounds
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import OutputRule
from gibbon.models.sources.exported_module import is_program
from gibbon.models.sources.wrap_module import ConvertedInput, Normalised
from gibbon_zoo.recipe import Arithmetic

TRIED = 2  # examples of the trial in training mode


@contextmanager
def put_back(module: nn.Module) -> Iterator[None]:
    """Restores the modes and the device of a module, for a ``with`` block."""
    modes = [(part, part.training) for part in module.modules()]
    device = next(module.parameters()).device
    try:
        yield
    finally:
        module.to(device)
        for part, training in modes:
            part.training = training


@dataclass(frozen=True)
class TrainedNetwork:
    """A network and how its outputs are read.

    Args:
        whole: takes inputs in the dataset's bounds; contains the normalisation.
        module: the user's own module, whose parameters are trained and stored.
        rule: interprets the outputs.
        bounds: lowest and highest value of an input.
        arithmetic: of the passes.
    """

    whole: nn.Module
    module: nn.Module
    rule: OutputRule
    bounds: Bounds
    arithmetic: Arithmetic = "float32"

    @classmethod
    def of(cls, classifier: Classifier, *, arithmetic: Arithmetic = "float32") -> TrainedNetwork:
        """Returns the network of a classifier.  Raises `ModelError` if it can't be trained."""
        if classifier.forward_only:
            raise ModelError(f"it can't be trained: {classifier.forward_only}")
        module = classifier.module
        while isinstance(module, Normalised | ConvertedInput):
            if isinstance(module, ConvertedInput):
                raise ModelError(
                    f"its parameters are {module.dtype}: training needs float32; convert it with "
                    ".float()"
                )
            module = module.network
        parts = list(module.modules())
        if any(is_program(part) or isinstance(part, torch.jit.ScriptModule) for part in parts):
            raise ModelError(
                "an exported program can't be trained, since it was exported in one mode: give the "
                "factory of the module that it was made from"
            )
        if not any(each.requires_grad for each in module.parameters()):
            raise ModelError("it has no parameter that can be trained (requires_grad)")
        return cls(classifier.module, module, classifier.outputs, classifier.bounds, arithmetic)

    def outputs(self, inputs: Tensor) -> Tensor:
        """Returns the outputs, float32, shape (N, K), in the mode that the module is in."""
        # A backward pass computes each operation in the type that its forward pass had.
        with torch.autocast(
            inputs.device.type, dtype=torch.bfloat16, enabled=self.arithmetic == "bfloat16"
        ):
            outputs: object = self.whole(inputs)
        if not isinstance(outputs, Tensor):
            mode = "training" if self.module.training else "evaluation"
            raise ModelError(
                f"in {mode} mode it must return a tensor of shape (N, K), got "
                f"{type(outputs).__name__}: wrap it in a module that returns the outputs alone"
            )
        return outputs.float()

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of each example, shape (N,)."""
        return self.rule.loss(outputs, labels)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Puts the module into evaluation mode, for a ``with`` block, and restores all modes."""
        with put_back(self.whole):
            self.whole.eval()
            yield

    def try_training(self, inputs: Tensor) -> None:
        """Checks one pass in training mode, and restores the module.

        Args:
            inputs: a few examples, shape (N, ...).

        Raises `ModelError` if the module can't be trained.
        """
        before = {key: value.clone() for key, value in self.module.state_dict().items()}
        try:
            with put_back(self.whole), seeded_globals(0, inputs.device):
                self.whole.train()
                outputs = self.outputs(inputs)
        except (RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"in training mode it can't be run on inputs of shape {tuple(inputs.shape)}: "
                f"{type(error).__name__}: {reason}"
            ) from error
        finally:
            self.module.load_state_dict(before)
        if not outputs.requires_grad:
            raise ModelError(
                "its outputs don't depend on a parameter that can be trained: does forward detach, "
                "or run under torch.no_grad()?"
            )
