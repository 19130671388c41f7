"""The catalogue: names without torch, models and trainers through entry points."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from benchmark.errors import DeviceError, SpecError, WeightsError
from benchmark.models import MODELS, TRAINERS, TrainingProgress, TrainingRequest
from benchmark.registry import Entry
from benchmark.weights import file_digest
from model_zoo import catalogue
from model_zoo.card import read_card
from model_zoo.catalogue import SUMMARIES, WEIGHTS
from model_zoo.zoo import build, publish, train

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def ignore(progress: TrainingProgress) -> None:
    """Reports to nobody."""


def test_listing_imports_no_torch() -> None:
    listing = (
        "import sys; from model_zoo import catalogue;"
        "assert catalogue.maxout_adv.summary and catalogue.train_rbf.summary;"
        "assert 'torch' not in sys.modules and 'pydantic' not in sys.modules;"
        "assert 'sha256' in catalogue.maxout_adv.details();"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", listing], check=True, cwd=PROJECT.parent)


@pytest.mark.parametrize("group", ["models", "trainers"])
def test_entry_points_lead_to_every_model(group: str) -> None:
    points = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["entry-points"]
    assert set(points[f"gibbon.{group}"]) == set(SUMMARIES)
    for name, reference in points[f"gibbon.{group}"].items():
        module, _, attribute = reference.partition(":")
        assert module == "model_zoo.catalogue"
        entry = getattr(catalogue, attribute)
        assert isinstance(entry, Entry)
        assert entry.name == name


def test_the_registries_know_them() -> None:
    assert set(SUMMARIES) <= set(MODELS.names())
    assert set(SUMMARIES) <= set(TRAINERS.names())


@pytest.mark.parametrize("name", sorted(SUMMARIES))
def test_details_are_the_card_or_say_how_to_make_one(name: str) -> None:
    entry = getattr(catalogue, name.replace("-", "_"))
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
    monkeypatch.setattr("model_zoo.zoo.WEIGHTS", tmp_path / "none")
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
    assert trained.worded(told).recipe == told
    other = told.model_copy(update={"batch_size": 7})
    assert trained.worded(other) == trained


def test_train_writes_weights_and_card_that_fit(tmp_path: Path) -> None:
    reports: list[TrainingProgress] = []
    request = TrainingRequest(tmp_path, reports.append, seed=5, epochs=2)
    result = train("logistic", request)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "logistic.json",
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


def test_weights_of_another_model_do_not_fit(tmp_path: Path) -> None:
    weights = train("logistic", TrainingRequest(tmp_path, ignore, epochs=1)).weights
    with pytest.raises(WeightsError, match="missing"):
        build("rbf", weights=weights)
