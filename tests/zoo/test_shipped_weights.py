"""The shipped weights are those of their cards, and measure what the cards say."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gibbon.datasets import DATASETS, DataRequest
from gibbon.datasets.base import Batch
from gibbon.models.classifier import probe
from gibbon.models.weights import file_digest
from gibbon.records.run import RunRecord
from gibbon_zoo.card import Card, read_card
from gibbon_zoo.catalogue import SUMMARIES
from gibbon_zoo.early_stopping import best_epoch
from gibbon_zoo.measurement import measure
from gibbon_zoo.recipe import shipped_recipe
from gibbon_zoo.weights_folder import WEIGHTS
from gibbon_zoo.zoo import DTYPES, build

NAMES = sorted(name for name in SUMMARIES if (WEIGHTS / f"{name}.safetensors").exists())
# Networks whose weights are too large: their cards are the records of what was trained.
RECORDED = sorted(name for name in {*SUMMARIES} - {*NAMES} if (WEIGHTS / f"{name}.json").exists())
LARGER = Path(__file__).parents[2] / "results" / "goodfellow2015-1600"
CLASSES = {"mnist": 10, "mnist-3v7": 2}
# Left to the slow tests: the others are of the same kinds.
LARGE = {
    *("maxout-ensemble", "maxout-l1", "maxout-noise-sign", "maxout-noise-uniform"),
    *("maxout-label-leaking", "maxout-adv-hidden", "maxout-rotation"),
}
# What is trained on other data is measured where the data are: they don't come along.
MEASURED = [name for name in NAMES if shipped_recipe(name).dataset in CLASSES]


def card(name: str) -> Card:
    return read_card(WEIGHTS / f"{name}.json")


@functools.cache
def test_split(dataset: str) -> Batch:
    data = DATASETS.load(dataset)(DataRequest(split="test"))
    return data.batch(np.arange(len(data), dtype=np.int64))


test_split.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_the_one_on_the_card(name: str) -> None:
    path = WEIGHTS / f"{name}.safetensors"
    assert card(name).model == name
    assert card(name).sha256 == file_digest(path)
    tensors = load_file(path)
    assert card(name).parameters == sum(tensor.numel() for tensor in tensors.values())
    assert {tensor.dtype for tensor in tensors.values()} == {DTYPES[card(name).recipe.dtype]}


@pytest.mark.parametrize("name", NAMES)
def test_the_card_holds_the_shipped_recipe_and_its_seeds(name: str) -> None:
    assert card(name).recipe == shipped_recipe(name)
    seeds = [run.seed for run in (card(name).training, *card(name).other_trainings)]
    assert seeds == list(range(len(seeds)))
    # One training alone says nothing of the spread: then the card says what was scaled down.
    assert len(seeds) >= 3 or card(name).recipe.scaled
    assert ("clean_error" in card(name).over_seeds) == (len(seeds) > 1)


@pytest.mark.parametrize("name", RECORDED)
def test_a_card_without_weights_records_the_shipped_recipe(name: str) -> None:
    recorded = card(name)
    assert recorded.recipe == shipped_recipe(name)
    assert recorded.recipe.scaled
    training = recorded.training
    assert training.epochs == best_epoch(training.watched)
    found = {
        row.attack: row.adversarial_error
        for row in RunRecord.read(LARGER).evaluations
        if row.model == name and not row.unattacked
    }
    figures = training.figures
    assert (found["fgsm"], found["fgsm-naive"], found["fgsm-clipped"]) == (
        figures.fgsm_error,
        figures.fgsm_naive_error,
        figures.fgsm_clipped_error,
    )


@pytest.mark.parametrize("name", MEASURED)
def test_the_weights_measure_what_the_card_says(name: str) -> None:
    split = test_split(card(name).recipe.dataset)
    classifier = build(name)
    with classifier.evaluating():
        outputs = torch.cat([classifier.predict(x) for x in torch.split(split.inputs, 1000)])
    error = float((outputs.argmax(1) != split.labels).double().mean())
    # Two examples of 10,000 may fall on the other side where another processor rounds otherwise.
    assert error == pytest.approx(card(name).training.figures.clean_error, abs=2e-4)
    assert classifier.outputs.problem(outputs) is None


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in MEASURED],
)
def test_attacked_figures_are_those_of_the_card(name: str) -> None:
    split = test_split(card(name).recipe.dataset)
    figures = measure(build(name), inputs=split.inputs, labels=split.labels, epsilon=0.25)
    for key, stored in card(name).training.figures:
        measured = getattr(figures, key)
        # Signs of tiny gradients may turn with the rounding of another processor.
        assert measured == pytest.approx(stored, abs=5e-3), key


@pytest.mark.parametrize("name", MEASURED)
def test_a_built_model_keeps_its_declaration(name: str) -> None:
    classifier = build(name)
    split = test_split(card(name).recipe.dataset)
    outputs = probe(classifier, split.inputs[:16])
    assert outputs.shape == (16, CLASSES[card(name).recipe.dataset])
    assert outputs.dtype == torch.float32


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(MEASURED)))
def test_what_is_trained_on_other_data_answers_and_says_what_data(name: str) -> None:
    classifier = build(name)
    random = torch.Generator().manual_seed(0)
    outputs = probe(classifier, torch.randn(16, *classifier.input_shape, generator=random))
    assert outputs.shape == (16, 10)
    assert "compressed again" in card(name).recipe.scaled


def test_the_cards_meet_what_the_paper_found() -> None:
    """Goodfellow et al. (2015), sections 4 to 7, within the margins that the zoo is held to."""
    figures = {name: card(name).training.figures for name in NAMES}
    softmax, rbf = figures["softmax"], figures["rbf"]
    assert softmax.fgsm_error >= 0.998
    assert softmax.fgsm_confidence == pytest.approx(0.793, abs=0.025)
    assert figures["logistic"].clean_error <= 0.019
    assert figures["logistic"].fgsm_error >= 0.99
    assert figures["maxout"].clean_error <= 0.0125
    assert figures["maxout"].fgsm_error >= 0.99
    assert figures["maxout-adv"].clean_error <= 0.025
    assert figures["maxout-adv"].fgsm_error <= 0.179
    assert rbf.fgsm_error == pytest.approx(0.554, abs=0.06)
    assert rbf.fgsm_confidence is not None
    assert rbf.fgsm_confidence <= 0.02
    assert rbf.mean_clean_confidence == pytest.approx(0.606, abs=0.04)
