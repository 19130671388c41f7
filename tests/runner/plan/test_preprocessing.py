"""What is told of a request with attacks and configurations at hand, before it is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from gibbon.cli.grammar import parse_request
from gibbon.cli.parameters import check_parameters
from gibbon.core.errors import SpecError, UnknownNameError
from gibbon.runner.plan.preprocessing import with_preprocessing
from gibbon.specs.suite import DatasetSpec, Suite

RESNET = "--model torchvision:resnet18 --weights random"
ATTACK = "--attack fgsm --epsilon 8/255"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pictures(folder: str, *sizes: tuple[int, int]) -> None:
    for name in ("a", "b"):
        place = Path(folder, name)
        place.mkdir(parents=True)
        for number, size in enumerate(sizes):
            Image.new("RGB", size).save(place / f"{number}.png")


def suite(words: str) -> Suite:
    return parse_request(words.split()).suite


def data(found: Suite) -> DatasetSpec:
    return found.experiments[0].dataset


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--stepz 3", "--stepz: no such option, and attack 'pgd' has no such parameter; did you"),
        ("--stepz 3", "did you mean '--steps'? Its parameters: --steps, "),
        ("--ouput x", "did you mean '--output'?"),
        ("--no-random-strat", "--random-strat: no such option"),
        ("--no-random-strat", "did you mean '--random-start'?"),
    ],
)
def test_an_option_that_is_nobodys_is_told_with_the_nearest(words: str, message: str) -> None:
    asked = parse_request(f"--model rbf --dataset mnist --attack pgd --epsilon 1 {words}".split())
    with pytest.raises(SpecError) as caught:
        check_parameters(asked)
    assert message in str(caught.value)


def test_parameters_that_are_there_pass() -> None:
    words = "--model rbf --dataset mnist --epsilon 1 --attack pgd --steps 3 --step-size 2/255"
    check_parameters(parse_request([*words.split(), "--attack", "fgsm"]))


def test_an_attack_that_is_not_there_is_told() -> None:
    asked = parse_request(f"{RESNET} --dataset mnist --attack fgms --epsilon 1".split())
    with pytest.raises(UnknownNameError, match=r"--attack: unknown attack 'fgms'; did you mean"):
        check_parameters(asked)


def test_pictures_of_different_sizes_are_prepared_as_the_model_says() -> None:
    pictures("photos", (30, 40), (40, 30))
    asked = suite(f"{RESNET} --dataset photos {ATTACK}")
    found, (note,) = with_preprocessing(asked)
    assert (data(found).resize, data(found).crop) == (256, 224)
    assert note == "resize 256, crop 224: as the configuration of torchvision:resnet18 says"
    assert data(asked).resize is None
    Path("list.csv").write_text("path,label\nphotos/a/0.png,1\nphotos/b/1.png,2\n")
    found, _ = with_preprocessing(suite(f"{RESNET} --dataset list.csv {ATTACK}"))
    assert (data(found).resize, data(found).crop) == (256, 224)


def test_models_that_say_the_same_count_as_one() -> None:
    pictures("photos", (30, 40), (40, 30))
    more = f"{RESNET} --model torchvision:resnet34 --weights random --dataset photos {ATTACK}"
    found, (note,) = with_preprocessing(suite(more))
    assert data(found).crop == 224
    assert note.endswith("of torchvision:resnet18 and torchvision:resnet34 says")


@pytest.mark.parametrize(
    "words",
    [
        f"{RESNET} --dataset same {ATTACK}",
        f"{RESNET} --dataset photos --resize 30 {ATTACK}",
        f"{RESNET} --dataset photos --crop 30 {ATTACK}",
        f"{RESNET} --dataset mnist {ATTACK}",
        f"{RESNET} --model rbf --dataset photos {ATTACK}",
        f"{RESNET} --model torchvision:inception_v3 --weights random --dataset photos {ATTACK}",
        f"--model nowhere:net --dataset photos {ATTACK}",
    ],
    ids=["one size", "resize", "crop", "registered", "no word", "no one word", "not there"],
)
def test_otherwise_nothing_is_added(words: str) -> None:
    pictures("photos", (30, 40), (40, 30))
    pictures("same", (30, 40), (30, 40))
    asked = suite(words)
    assert with_preprocessing(asked) == (asked, ())


def test_a_file_that_is_no_picture_is_left_to_be_told_later() -> None:
    pictures("photos", (30, 40), (40, 30))
    Path("photos/a/00.png").write_text("not a picture")
    found, notes = with_preprocessing(suite(f"{RESNET} --dataset photos {ATTACK}"))
    assert data(found).crop == 224
    assert notes
