"""The order of a model's classes against that of a dataset's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from gibbon import evaluate
from gibbon.core.errors import ModelError
from gibbon.datasets.array_dataset import HeldDataset
from gibbon.models.sources.class_names import names_in
from gibbon.records.run import RunRecord
from gibbon.report.text.markdown import tables_markdown
from gibbon.runner.plan.class_agreement import check_class_names
from gibbon.specs.suite import DatasetSpec

QUICK: dict[str, Any] = {"examination": False, "certify": "none", "attack": "fgsm", "epsilon": 0.1}


def data(classes: tuple[str, ...], labels: list[int] | None = None) -> HeldDataset:
    held = np.arange(len(classes)) if labels is None else np.array(labels)
    return HeldDataset("mine", np.zeros((len(held), 1, 2, 2)), labels=held, classes=classes)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ((), ("cat", "dog")),
        (("cat", "dog"), ("cat", "dog")),
        (("Cat", "polar_bear"), ("cat", "Polar Bear")),
        (("tench, Tinca tinca", "goldfish"), ("tench", "goldfish")),
        (("tench", "goldfish"), ("n01440764", "n01443537")),
        (("crane", "dog", "crane"), ("crane", "dog", "x")),
        (("0", "1", "10", "2"), ()),
    ],
)
def test_names_in_one_order_or_without_a_meaning_pass(
    names: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    check_class_names(names, data(classes) if classes else data((), [0, 1, 2, 3]))


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("dog", "cat"), ("cat", "dog")),
        (("dog", "cat", "eel"), ("cat", "x", "eel")),
        (("polar-bear", "ant"), ("ant", "Polar Bear")),
        (("0", "1", "2", "10"), ("0", "1", "10", "2")),
    ],
)
def test_names_in_another_order_are_refused_with_the_map(
    names: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    with pytest.raises(ModelError) as raised:
        check_class_names(names, data(classes))
    told = str(raised.value)
    assert "its classes are in another order than those of dataset 'mine'" in told
    assert "--class-map map.json with {" in told


def test_a_class_without_an_example_decides_nothing() -> None:
    check_class_names(("dog", "eel", "cat"), data(("cat", "eel", "dog"), [1, 1]))


@pytest.mark.parametrize(
    "held",
    [
        {"classes": ["dog", "cat"]},
        {"class_to_idx": {"cat": 1, "dog": 0}},
        {"idx_to_class": {1: "cat", 0: "dog"}},
        {"config": {"id2label": {"0": "dog", "1": "cat"}}},
        {"hparams": {"class_names": ("dog", "cat")}},
    ],
)
def test_a_module_states_its_classes_in_the_usual_attributes(held: dict[str, Any]) -> None:
    net = nn.Linear(1, 2)
    for name, value in held.items():
        setattr(net, name, value)
    assert names_in(net) == ("dog", "cat")


@pytest.mark.parametrize(
    "held",
    [
        {"classes": 2},
        {"classes": [1, 2]},
        {"class_to_idx": {"cat": 1, "dog": 5}},
        {"id2label": {0: "LABEL_0", 1: "LABEL_1"}},
        {"id2label": None},
    ],
)
def test_other_attributes_state_none(held: dict[str, Any]) -> None:
    net = nn.Linear(1, 2)
    for name, value in held.items():
        setattr(net, name, value)
    assert names_in(net) == ()


def folder(root: Path) -> Path:
    for place, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (4, 4), 60 + 120 * place + number).save(root / name / f"{number}.png")
    return root


def network(classes: list[str] | None) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 16))
        net[1].bias.copy_(torch.tensor([8.0, -8.0]))
    if classes is not None:
        net.classes = classes  # type: ignore[assignment]
    return net


def test_an_image_folder_in_another_order_than_the_models_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path)
    grey = lambda picture: ToTensor()(picture.convert("L"))  # noqa: E731
    torch_data = ImageFolder(str(root), transform=grey)
    spec = DatasetSpec(name="pets", source=str(root))
    for source in (torch_data, spec):
        with pytest.raises(ModelError, match="'cat' is 1 of the model and 0 of the dataset"):
            evaluate(network(["dog", "cat"]), source, **QUICK)
        assert evaluate(network(["cat", "dog"]), source, **QUICK).clean_error == 0
        assert evaluate(network(None), source, **QUICK).clean_error == 0


def test_the_order_is_stored_and_said_by_the_table(tmp_path: Path) -> None:
    spec = DatasetSpec(name="pets", source=str(folder(tmp_path / "pets")))
    notes: list[str] = []

    class Listener:
        def note(self, text: str) -> None:
            notes.append(text)

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: None

    evaluate(network(["cat", "dog"]), spec, output=tmp_path / "out", progress=Listener(), **QUICK)
    record = RunRecord.read(tmp_path / "out")
    (card,) = record.datasets
    sentence = "names sorted as text, as torchvision's ImageFolder does: 0 is cat, 1 is dog"
    assert card.classes == ("cat", "dog")
    assert card.class_order == sentence
    assert record.models[0].class_names == ("cat", "dog")
    assert f"Classes: {sentence}." in tables_markdown(record)
    assert f"pets: classes: {sentence}" in notes
