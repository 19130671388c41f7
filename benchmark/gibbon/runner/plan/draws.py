"""Chooses the draws that a model with random answers is judged by."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from gibbon.core.rng import derive_key
from gibbon.models.classifier import Classifier
from gibbon.models.random_draws import DEFAULT_DRAWS, Draws, draws_by_row
from gibbon.models.repeatability import Cause
from gibbon.runner.plan.cell_digest import digest_of
from gibbon.runner.plan.load_model import LoadedModel

DRAWN_BY = "example"  # of attacks' passes too; older results of attacks were drawn by batch
NOTE = "its answers are random: each example is judged by {} draws"


def with_draws(model: LoadedModel, inputs: Tensor, *, draws: int | None, seed: int) -> LoadedModel:
    """Returns a model that is judged by several draws if its answers are random, else the model.

    Answers that change by state alone are no draws.

    Args:
        model: the model.
        inputs: shape (N, *input_shape): a few examples, on the device that it is evaluated on.
        draws: number of draws; `DEFAULT_DRAWS` if None.
        seed: the suite's seed.
    """
    count = DEFAULT_DRAWS if draws is None else draws
    if model.probed.steady or count == 1 or model.probed.observed.cause is Cause.STATE:
        return model
    classifier, key = model.classifier, derive_key(seed, "draws of a model")
    with classifier.uncounted(), classifier.evaluating(inputs.device):
        chosen = Draws(count, key, draws_by_row(classifier.module, inputs))

    def change(built: Classifier) -> Classifier:
        return replace(built, draws=chosen)

    digest = digest_of(model=model.digest, draws=[count, key, DRAWN_BY])
    notes = (NOTE.format(count), *model.card.notes)
    card = model.card.model_copy(update={"digest": digest, "notes": notes})
    return replace(
        model, handle=model.handle.changed(change), digest=digest, card=card, draws=count
    )
