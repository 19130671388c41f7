"""Recipes say what they mean, or an error that says where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gibbon.core.errors import SpecError, UnknownNameError
from gibbon_zoo.catalogue import SUMMARIES
from gibbon_zoo.recipe import TEXTS, Recipe, read_recipe, recipe_names, shipped_recipe

GOOD = """\
architecture = "maxout"
dataset = "mnist"
epochs = 2
batch_size = 10

[optimiser]
name = "sgd"
learning_rate = 0.1
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_model_has_a_recipe_and_every_recipe_a_model() -> None:
    assert recipe_names() == sorted(SUMMARIES)


@pytest.mark.parametrize("name", sorted(SUMMARIES))
def test_shipped_recipes_survive_a_round_trip_and_say_how_they_were_chosen(name: str) -> None:
    recipe = shipped_recipe(name)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert "validation" in recipe.chosen


def test_sizes_of_earlier_cards_are_read_without_their_nulls() -> None:
    written = shipped_recipe("maxout-80-adv").model_dump()
    written["sizes"] = {"units": 80, "pieces": None, "maps": None}
    assert Recipe.model_validate(written) == shipped_recipe("maxout-80-adv")


def test_maxout_adv_is_the_network_and_objective_of_the_paper() -> None:
    recipe = shipped_recipe("maxout-adv")
    assert recipe.architecture == "maxout"
    assert recipe.adversarial is not None
    assert (recipe.adversarial.alpha, str(recipe.adversarial.epsilon)) == (0.5, "0.25")


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        (("epochs = 2", "epochs = 0"), "mine.toml: epochs", "greater than or equal to 1"),
        (("epochs = 2", "epoch = 2"), "mine.toml: ", "epochs"),
        (("learning_rate = 0.1", "learning_rate = -1"), "optimiser.learning_rate", "greater than"),
        (("learning_rate", "learnin_rate"), "mine.toml: optimiser", "learning_rate"),
        (('"sgd"', '"adma"'), "optimiser.name", "'adam'"),
        (('"maxout"', '"maxuot"'), "architecture", "did you mean 'maxout'"),
        (
            ("[optimiser]", '[stopping]\nmeasure = "clean_error"\npatince = 1\n[optimiser]'),
            "mine.toml: stopping.patince",
            "did you mean 'patience'",
        ),
        (("[optimiser]", "[sizes]\nunits = 0\n[optimiser]"), "sizes.units", "greater than"),
        (('name = "sgd"', 'name = "adam"\nmomentum = 0.5'), "optimiser", "option of sgd"),
        (
            ("[optimiser]", '[adversarial]\nalpha = 0.5\nepsilon = "x"\n[optimiser]'),
            "adversarial.epsilon",
            "must be a number",
        ),
        (
            ("[optimiser]", '[noise]\nkind = "gaussian"\nepsilon = 1\n[optimiser]'),
            "noise.kind",
            "'sign' or 'uniform'",
        ),
        (
            (
                "[optimiser]",
                "[worst_case]\nepsilon = 1\n[rotation]\nalpha = 1\nchord = 1\n[optimiser]",
            ),
            "mine.toml",
            "rotation and worst_case exclude each other",
        ),
        (
            ('"sgd"', '"adam"\nmomentum_ramp = { end = 5, final = 0.7 }'),
            "optimiser",
            "option of sgd",
        ),
        (
            ("learning_rate = 0.1", "learning_rate = 0.1\nmomentum_ramp = { end = 5, final = 1 }"),
            "optimiser",
            "must stay below 1",
        ),
        (
            ("learning_rate = 0.1", "learning_rate = 0.1\nrate_ramp = { end = 5, final = 0 }"),
            "optimiser",
            "must stay above 0",
        ),
        (
            (
                "learning_rate = 0.1",
                'learning_rate = 0.1\nschedule = "linear"\ndecay = { factor = 2 }',
            ),
            "optimiser",
            'schedule = "linear" and decay exclude each other',
        ),
        (
            (
                "learning_rate = 0.1",
                "learning_rate = 0.1\nmomentum_ramp = { start = 9, end = 5, final = 0.7 }",
            ),
            "optimiser.momentum_ramp",
            "can't end in epoch 5, before epoch 9",
        ),
        (
            ("learning_rate = 0.1", "learning_rate = 0.1\ndecay = { factor = 1.0 }"),
            "optimiser.decay.factor",
            "greater than 1",
        ),
        (
            ("learning_rate = 0.1", "learning_rate = 0.1\ndecay = { factr = 1.1 }"),
            "optimiser.decay.factr",
            "did you mean 'factor'",
        ),
        (
            ("[optimiser]", "[dropout]\ninputs_scale = 0\n[optimiser]"),
            "dropout.inputs_scale",
            "greater than 0",
        ),
        (
            (
                "[optimiser]",
                '[stopping]\nmeasure = "clean_error"\npatience = 1\nsecond = "go on"\n[optimiser]',
            ),
            "stopping.second",
            "'again', 'continue' or 'none'",
        ),
        (
            ("[optimiser]", '[stopping]\nmeasure = "adversarial_error"\npatience = 1\n[optimiser]'),
            "mine.toml",
            "needs an adversarial objective",
        ),
        (
            (
                "[optimiser]",
                '[stopping]\nmeasure = "clean_error"\npatience = 1\n'
                '[optimiser]\nschedule = "linear"',
            ),
            "mine.toml",
            "early stopping needs a constant learning rate",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_place(
    tmp_path: Path, change: tuple[str, str], where: str, says: str
) -> None:
    with pytest.raises(SpecError) as refusal:
        read_recipe(written(tmp_path, GOOD.replace(*change)))
    assert where in str(refusal.value)
    assert says in str(refusal.value)


def test_the_page_shows_the_original_recipe(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "training.md"
    _, text, _ = re.split(r"<!-- /?original recipe -->", page.read_text(encoding="utf-8"))
    recipe = read_recipe(written(tmp_path, text.strip().removeprefix("```toml").rstrip("`")))
    texts = dict.fromkeys(TEXTS, "")
    shipped = shipped_recipe("maxout")
    assert recipe.model_copy(update=texts) == shipped.model_copy(update=texts)


def test_the_adversarial_error_may_have_an_epsilon_of_its_own(tmp_path: Path) -> None:
    stopping = '[stopping]\nmeasure = "adversarial_error"\npatience = 1\nepsilon = "8/255"\n'
    recipe = read_recipe(written(tmp_path, GOOD + stopping))
    assert recipe.stopping is not None
    assert recipe.stopping.fgsm_epsilon(recipe) == pytest.approx(8 / 255)
    unset = stopping.replace('epsilon = "8/255"\n', "")
    adversarial = '[adversarial]\nalpha = 0.5\nepsilon = "0.25"\n'
    for text, expected in (
        (unset.replace("adversarial_error", "clean_error"), 0.0),
        (unset + adversarial, 0.25),
    ):
        own = read_recipe(written(tmp_path, GOOD + text))
        assert own.stopping is not None
        assert own.stopping.fgsm_epsilon(own) == expected


def test_an_unknown_key_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="did you mean 'max_norm'"):
        read_recipe(written(tmp_path, "maxnorm = 2.0\n" + GOOD))
    with pytest.raises(SpecError, match=r"optimiser\.shedule.*did you mean 'schedule'"):
        read_recipe(written(tmp_path, GOOD + 'shedule = "linear"\n'))


def test_malformed_toml_gets_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"mine\.toml: not TOML: .*line 3, column"):
        read_recipe(written(tmp_path, GOOD.replace("epochs = 2", "epochs = = 2")))


def test_a_missing_file_and_an_unknown_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="can't be read"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(UnknownNameError, match="did you mean 'maxout'"):
        shipped_recipe("maxuot")


def test_overrides_are_checked() -> None:
    recipe = shipped_recipe("maxout")
    assert recipe.override(seed=7, epochs=3).epochs == 3
    assert recipe.override() == recipe
    with pytest.raises(SpecError, match="epochs"):
        recipe.override(epochs=0)
    with pytest.raises(SpecError, match="seed"):
        recipe.override(seed=-1)
