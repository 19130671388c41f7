"""The catalogue: names without torch, models and trainers through entry points."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gibbon.core.errors import DeviceError, RunFolderError, SpecError, WeightsError
from gibbon.core.registry import Entry, lazily
from gibbon.models.registry import (
    MODELS,
    TRAINERS,
    TrainingProgress,
    TrainingRequest,
    TrainingResult,
)
from gibbon.models.weights import file_digest
from gibbon_zoo import catalogue
from gibbon_zoo.architecture import Architecture
from gibbon_zoo.card import Card, read_card
from gibbon_zoo.catalogue import SUMMARIES
from gibbon_zoo.recipe import Recipe, read_recipe, shipped_recipe
from gibbon_zoo.weights_folder import WEIGHTS
from gibbon_zoo.zoo import build, publish, train

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def ignore(progress: TrainingProgress) -> None:
    """Reports to nobody."""


def test_listing_imports_no_torch() -> None:
    listing = (
        "import sys; from gibbon_zoo import catalogue;"
        "assert catalogue.MODELS['maxout-adv'].summary and catalogue.TRAINERS['rbf'].summary;"
        "assert 'torch' not in sys.modules and 'pydantic' not in sys.modules;"
        "assert 'sha256' in catalogue.MODELS['maxout-adv'].details();"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", listing], check=True, cwd=PROJECT.parent)


@pytest.mark.parametrize("group", ["models", "trainers"])
def test_one_entry_point_leads_to_every_model(group: str) -> None:
    points = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["entry-points"]
    assert points[f"gibbon.{group}"] == {"zoo": f"gibbon_zoo.catalogue:{group.upper()}"}
    mapping = getattr(catalogue, group.upper())
    assert list(mapping) == [*SUMMARIES, *(["own"] if group == "trainers" else [])]
    for name, entry in mapping.items():
        assert isinstance(entry, Entry)
        assert (entry.name, bool(entry.summary)) == (name, True)


def test_every_architecture_is_in_the_module_that_its_line_names() -> None:
    for reference in catalogue.ARCHITECTURES.values():
        assert issubclass(lazily(reference)(), Architecture)
    assert {shipped_recipe(name).architecture for name in SUMMARIES} == {*catalogue.ARCHITECTURES}


def test_the_registries_know_them() -> None:
    assert set(SUMMARIES) <= set(MODELS.names())
    assert set(SUMMARIES) <= set(TRAINERS.names())


@pytest.mark.parametrize("name", sorted(SUMMARIES))
def test_details_are_the_card_or_say_how_to_make_one(name: str) -> None:
    entry = catalogue.MODELS[name]
    if (WEIGHTS / f"{name}.json").exists():
        text = entry.details()
        assert text.startswith(f"{name}: ")
        assert "clean         error" in text
        assert ("seeds       mean errors: clean " in text) != ("  scaled        " in text)
        shipped = (WEIGHTS / f"{name}.safetensors").exists()
        assert shipped != (f"not shipped: run_benchmark.py train {name} makes them" in text)
    else:
        with pytest.raises(WeightsError, match=f"not shipped: run_benchmark.py train {name} "):
            entry.details()


def test_a_model_without_shipped_weights_says_how_to_make_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train("logistic", TrainingRequest(tmp_path, ignore, epochs=1))
    monkeypatch.setattr("gibbon_zoo.zoo.WEIGHTS", tmp_path / "none")
    with pytest.raises(WeightsError, match=r"don't come with Gibbon; train it .*train logistic"):
        build("logistic")
    assert build("logistic", weights=tmp_path / "logistic.safetensors").classes == 2


def test_a_record_is_published_without_its_weights(tmp_path: Path) -> None:
    train("logistic", TrainingRequest(tmp_path / "a", ignore, epochs=1))
    ship = tmp_path / "shipped"
    publish("logistic", [tmp_path / "a"], destination=ship, with_weights=False)
    assert [path.name for path in ship.iterdir()] == ["logistic.json"]


def test_a_card_gets_the_words_of_the_recipe_that_it_was_trained_by(tmp_path: Path) -> None:
    written = train("logistic", TrainingRequest(tmp_path, ignore, epochs=1)).card
    trained = read_card(written)
    told = trained.recipe.model_copy(update={"chosen": "as was seen", "scaled": "all of it"})
    assert trained.with_texts_of(told).recipe == told
    other = told.model_copy(update={"batch_size": 7})
    assert trained.with_texts_of(other) == trained


def test_train_writes_weights_and_card_that_fit(tmp_path: Path) -> None:
    reports: list[TrainingProgress] = []
    request = TrainingRequest(tmp_path, reports.append, seed=5, epochs=2)
    result = train("logistic", request)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "logistic.json",
        "logistic.log.csv",
        "logistic.safetensors",
    ]
    card = read_card(result.card)
    assert card.sha256 == file_digest(result.weights)
    assert (card.recipe.seed, card.recipe.epochs) == (5, 2)
    assert reports[-1].step == reports[-1].steps
    assert f"clean error {100 * card.training.figures.clean_error:.2f} %" in result.summary
    rebuilt = build("logistic", weights=result.weights)
    assert rebuilt.predict(torch.zeros(1, 1, 28, 28)).shape == (1, 2)

    again = train("logistic", TrainingRequest(tmp_path / "again", ignore, seed=5, epochs=2))
    assert again.weights.read_bytes() == result.weights.read_bytes()


def test_publish_joins_seeds_and_refuses_strangers(tmp_path: Path) -> None:
    for folder, seed, epochs in (("a", 0, 1), ("b", 1, 1), ("same seed", 0, 1), ("long", 1, 2)):
        train("logistic", TrainingRequest(tmp_path / folder, ignore, seed=seed, epochs=epochs))
    ship = tmp_path / "shipped"
    card = publish("logistic", [tmp_path / "a", tmp_path / "b"], destination=ship)
    assert read_card(ship / "logistic.json") == card
    assert file_digest(ship / "logistic.safetensors") == card.sha256
    assert [run.seed for run in card.other_trainings] == [1]
    errors = [run.figures.clean_error for run in (card.training, *card.other_trainings)]
    assert card.over_seeds["clean_error"].mean == pytest.approx(sum(errors) / 2)
    assert card.over_seeds["clean_error"].deviation == pytest.approx(
        abs(errors[0] - errors[1]) / 2**0.5
    )
    with pytest.raises(WeightsError, match="a seed comes twice"):
        publish("logistic", [tmp_path / "a", tmp_path / "same seed"], destination=ship)
    with pytest.raises(WeightsError, match="another recipe"):
        publish("logistic", [tmp_path / "a", tmp_path / "long"], destination=ship)


def train_by(
    changes: dict[str, object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Card, TrainingResult, list[TrainingProgress]]:
    """Trains logistic regression by a recipe that differs from the shipped one."""
    written = {**shipped_recipe("logistic").model_dump(), **changes}
    changed = Recipe.model_validate(written)
    monkeypatch.setattr("gibbon_zoo.zoo.shipped_recipe", lambda name: changed)
    reports: list[TrainingProgress] = []
    result = train("logistic", TrainingRequest(folder, reports.append))
    return read_card(result.card), result, reports


def test_an_ensemble_is_trained_member_by_member_each_with_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a spread all members would start, and nearly end, at the same weights.
    changes: dict[str, object] = {"epochs": 1, "spread": 0.1}
    single, alone, _ = train_by({**changes, "seed": 3}, tmp_path / "one", monkeypatch)
    card, result, reports = train_by({**changes, "members": 2, "seed": 1}, tmp_path, monkeypatch)
    assert sorted(path.name for path in tmp_path.glob("logistic*")) == [
        "logistic.json",
        "logistic.member-0.log.csv",
        "logistic.member-1.log.csv",
        "logistic.safetensors",
    ]
    tensors, own = load_file(result.weights), load_file(alone.weights)
    assert torch.equal(tensors["members.1.weight"], own["weight"])  # seeds 2 and 3
    assert not torch.equal(tensors["members.0.weight"], own["weight"])
    assert reports[-1].step == reports[-1].steps == 2 * 124
    assert single.training.seed == 3
    both = build("logistic", weights=result.weights)
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    probabilities = [
        torch.sigmoid(x.flatten(1) @ tensors[f"members.{k}.weight"] + tensors[f"members.{k}.bias"])
        for k in range(2)
    ]
    torch.testing.assert_close(both(x).exp()[:, 1], (probabilities[0] + probabilities[1]) / 2)
    assert "2 members" in card.text()


def test_early_stopping_trains_again_on_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimiser = {"name": "sgd", "learning_rate": 0.5}
    stopping = {"measure": "clean_error", "held_out": 2000, "patience": 1}
    card, result, reports = train_by(
        {"epochs": 4, "optimiser": optimiser, "stopping": stopping}, tmp_path, monkeypatch
    )
    watched, epochs = card.training.watched, card.training.epochs
    assert epochs == 1 + watched.index(min(watched))
    assert len(watched) == min(4, epochs + 1)
    assert all(error < 0.1 for error in watched)
    assert f"stopped       {epochs} epochs, by the errors on examples held out" in card.text()
    assert reports[-1].step == reports[-1].steps
    plain, again, _ = train_by(
        {"epochs": epochs, "optimiser": optimiser}, tmp_path / "plain", monkeypatch
    )
    assert again.weights.read_bytes() == result.weights.read_bytes()
    assert card.training.train_error == plain.training.train_error


def test_a_second_training_may_continue_from_the_best_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimiser = {"name": "sgd", "learning_rate": 0.5, "decay": {"factor": 1.001}}
    stopping = {
        "measure": "clean_error",
        "held_out": 2000,
        "split": "last",
        "patience": 1,
        "second": "continue",
    }
    card, _, reports = train_by(
        {"epochs": 3, "optimiser": optimiser, "stopping": stopping}, tmp_path, monkeypatch
    )
    training = card.training
    assert training.second_epochs is not None
    assert training.target is not None
    assert training.objective is not None
    assert (training.objective <= training.target) or training.second_epochs == 3
    assert (
        f"  continued     {training.second_epochs} epochs on all examples; objective "
        f"{training.objective:.4f} on those held out before, to match {training.target:.4f}"
    ) in card.text()
    assert "divided by 1.001 an update" in card.text()
    assert "3 epochs at most, then on from the best on all examples" in card.text()
    assert len(reports) > 5


def test_a_long_search_is_printed_in_short() -> None:
    card = read_card(WEIGHTS / "maxout-1600.json")
    errors = tuple(0.05 - 0.001 * min(epoch, 30) for epoch in range(1, 41))
    longer = card.training.model_copy(update={"watched": errors, "epochs": 30})
    text = card.model_copy(update={"training": longer}).text()
    assert "held out: 4.90, …, 2.00 (epoch 30), …, 2.00 %" in text


RECIPE = """\
architecture = "logistic"
dataset = "mnist-3v7"
epochs = 1
batch_size = 100

[optimiser]
name = "sgd"
learning_rate = 0.25
"""


def test_a_recipe_of_a_file_may_stand_in_for_the_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE, encoding="utf-8")
    result = train("logistic", TrainingRequest(tmp_path / "out", ignore, recipe=path))
    assert read_card(result.card).recipe == read_recipe(path)
    assert build("logistic", weights=result.weights).classes == 2
    with pytest.raises(RunFolderError, match="another recipe"):
        train("logistic", TrainingRequest(tmp_path / "out", ignore, epochs=1))
    with pytest.raises(SpecError, match=r"mine\.toml: architecture: maxout has 'maxout', got 'log"):
        train("maxout", TrainingRequest(tmp_path / "other", ignore, recipe=path))
    missing = TrainingRequest(tmp_path / "other", ignore, recipe=tmp_path / "none.toml")
    with pytest.raises(SpecError, match="can't be read"):
        train("logistic", missing)
    assert not (tmp_path / "other").exists()


def test_an_architecture_that_has_no_such_size_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpecError, match="logistic can't be built with units"):
        train_by({"sizes": {"units": 3}}, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", sorted(set(SUMMARIES) - {"maxout-1600", "maxout-1600-adv"}))
def test_every_recipe_is_of_a_network_that_can_be_built(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("gibbon_zoo.zoo.WEIGHTS", tmp_path)
    with pytest.raises(WeightsError, match="don't come with Gibbon"):
        build(name)


def test_a_wrong_request_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="epochs"):
        train("logistic", TrainingRequest(tmp_path, ignore, epochs=0))
    with pytest.raises(DeviceError, match="'warp'"):
        train("logistic", TrainingRequest(tmp_path, ignore, device="warp"))
    assert list(tmp_path.iterdir()) == []


def test_fresh_ignores_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "logistic.checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="start fresh"):
        train("logistic", TrainingRequest(tmp_path, ignore, epochs=1))
    train("logistic", TrainingRequest(tmp_path, ignore, epochs=1, fresh=True))
    assert not (tmp_path / "logistic.checkpoint.pt").exists()


def test_what_is_trained_already_is_neither_trained_again_nor_replaced(tmp_path: Path) -> None:
    first = train("logistic", TrainingRequest(tmp_path, ignore, seed=1, epochs=1))
    content = first.weights.read_bytes()
    reports: list[TrainingProgress] = []
    again = train("logistic", TrainingRequest(tmp_path, reports.append, seed=1, epochs=1))
    assert again.summary == f"{first.summary}; it was there already"
    assert reports == []
    for changes in ({"seed": 2, "epochs": 1}, {"seed": 1, "epochs": 2}):
        with pytest.raises(RunFolderError, match=r"another recipe.*--output.*--fresh"):
            train("logistic", TrainingRequest(tmp_path, ignore, **changes))
    assert first.weights.read_bytes() == content
    train("logistic", TrainingRequest(tmp_path, ignore, seed=2, epochs=1, fresh=True))
    assert first.weights.read_bytes() != content
    first.weights.write_bytes(b"not those of the card")
    train("logistic", TrainingRequest(tmp_path, reports.append, seed=1, epochs=1))
    assert first.weights.read_bytes() == content


def test_weights_that_are_not_those_of_their_card_are_not_shipped(tmp_path: Path) -> None:
    weights = train("logistic", TrainingRequest(tmp_path / "a", ignore, epochs=1)).weights
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(WeightsError, match="not the file that its card is of"):
        publish("logistic", [tmp_path / "a"], destination=tmp_path / "shipped")
    weights.unlink()
    with pytest.raises(WeightsError, match="can't be read"):
        publish("logistic", [tmp_path / "a"], destination=tmp_path / "shipped")
    assert not (tmp_path / "shipped").exists()


def test_weights_of_another_model_do_not_fit(tmp_path: Path) -> None:
    weights = train("logistic", TrainingRequest(tmp_path, ignore, epochs=1)).weights
    with pytest.raises(WeightsError, match="missing"):
        build("rbf", weights=weights)
