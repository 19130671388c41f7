"""Checks that the adaptations of an attack and of its members fit a model."""

from __future__ import annotations

from torch import Tensor

from gibbon.attacks.worst_of import members_of
from gibbon.core.errors import ModelError
from gibbon.core.registry import their_code
from gibbon.models.attacked_view import check_view
from gibbon.models.classifier import Classifier
from gibbon.runner.plan.planned import PlannedAttack

CHECKED = 2  # examples of the forward pass that an adaptation is checked by


def check_views(planned: PlannedAttack, source: Classifier, inputs: Tensor, *, where: str) -> None:
    """Checks the adaptations of an attack, and of its members, on a model.

    Args:
        planned: the attack.
        source: the model, under evaluation.
        inputs: shape (N, *input_shape): a few examples.
        where: the place that starts the error message.

    Raises `ModelError` if one of them does not fit.
    """
    members = members_of(planned.attack)
    needing = [each.attack.needs_gradient for each in members] or [planned.attack.needs_gradient]
    for name, view, needs in zip(
        [f", member {each.label!r}" for each in members] or [""],
        planned.views,
        needing,
        strict=True,
    ):
        try:
            with their_code("the model can't be run as the attack sees it"):
                check_view(source, view, inputs, needs_gradient=needs)
        except ModelError as error:
            raise ModelError(f"{where}{name}: {error}") from error
