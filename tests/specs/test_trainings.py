"""Several trainings of a suite's models from a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from gibbon.core.errors import SpecError
from gibbon.specs.decoding import parse_suite
from gibbon.specs.suite import Suite
from gibbon.specs.trainings import finished_trainings, trainings_folder, with_trainings
from tools.records.remake import trainings_of

TEXT = """
name = "x"

[[experiments]]
dataset = "mnist"
models = ["maxout", "rbf", { name = "own", model = "net.py:build" }]
attacks = [{ name = "fgsm", epsilon = "0.25" }]

[[experiments]]
dataset = { name = "noise", source = "rubbish:gaussian", count = 10 }
models = ["maxout"]
"""


@pytest.fixture
def suite() -> Suite:
    return parse_suite(TEXT, where="x.toml")


def trained(folder: Path, model: str, *seeds: int) -> None:
    for seed in seeds:
        place = folder / model / f"seed-{seed}"
        place.mkdir(parents=True)
        (place / f"{model}.safetensors").touch()


def test_models_are_replaced_by_their_finished_trainings(tmp_path: Path, suite: Suite) -> None:
    trained(tmp_path, "maxout", 10, 2, 1)
    (tmp_path / "maxout" / "seed-3").mkdir()  # not finished
    (tmp_path / "maxout" / "seed-x").mkdir()
    found = with_trainings(suite, tmp_path)
    for experiment in found.experiments:
        own = [each for each in experiment.models if each.seeds_of == "maxout"]
        assert [each.name for each in own] == ["maxout", "maxout-seed-2", "maxout-seed-10"]
        assert [Path(str(each.weights)).parent.name for each in own] == [
            "seed-1",
            "seed-2",
            "seed-10",
        ]
        assert experiment.trainings_of("maxout") == tuple(each.name for each in own)
    assert found.experiments[0].models[3:] == suite.experiments[0].models[1:]
    assert list(finished_trainings(tmp_path, "maxout")) == [1, 2, 10]


def test_one_training_replaces_the_shipped_weights(tmp_path: Path, suite: Suite) -> None:
    trained(tmp_path, "rbf", 4)
    found = with_trainings(suite, tmp_path).experiments[0].models
    assert [each.name for each in found] == ["maxout", "rbf", "own"]
    assert found[1].weights == (tmp_path / "rbf/seed-4/rbf.safetensors").as_posix()
    assert found[0].weights is None


def test_a_folder_without_a_training_is_refused(tmp_path: Path, suite: Suite) -> None:
    trained(tmp_path, "softmax", 0)
    with pytest.raises(SpecError, match=r"no finished training .*maxout, own, rbf"):
        with_trainings(suite, tmp_path)


def test_names_that_two_models_would_share_are_refused(tmp_path: Path) -> None:
    trained(tmp_path, "rbf", 0, 1)
    text = TEXT.replace('"maxout", "rbf",', '"rbf", { name = "rbf-seed-1", model = "softmax" },')
    with pytest.raises(ValueError, match="'rbf-seed-1'"):
        with_trainings(parse_suite(text, where="x.toml"), tmp_path)


def test_a_record_says_which_folder_its_trainings_came_from(tmp_path: Path, suite: Suite) -> None:
    assert trainings_of(suite.model_dump(mode="json")) == ""
    trained(tmp_path, "maxout", 0, 1)
    found = with_trainings(suite, tmp_path)
    assert trainings_of(found.model_dump(mode="json")) == tmp_path.as_posix()
    assert [trainings_folder(each) for each in found.experiments[1].models] == [
        tmp_path.as_posix(),
        tmp_path.as_posix(),
    ]


def test_trainings_of_a_users_model_go_by_its_name(tmp_path: Path, suite: Suite) -> None:
    trained(tmp_path, "own", 0, 2)
    models = with_trainings(suite, tmp_path).experiments[0].models
    assert [each.name for each in models] == ["maxout", "rbf", "own", "own-seed-2"]
    assert [each.model for each in models[2:]] == ["net.py:build", "net.py:build"]
    assert {each.seeds_of for each in models[2:]} == {"own"}
    assert trainings_folder(models[3]) == tmp_path.as_posix()
