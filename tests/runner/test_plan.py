"""What a cell's digest covers, and what it must not depend on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import planted
import pytest
import torch
from torch import Tensor

from gibbon.attacks.fgsm import FGSM
from gibbon.core.threat import Bounds
from gibbon.models.outputs import LOG_SCORES, PROBABILITIES
from gibbon.runner.plan.make_plan import make_plan
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

MakeSuite = Callable[..., Suite]
PGD = {"name": "pgd", "epsilon": "0.25", "steps": 3}


def digests(suite: Suite, **settings: Any) -> list[str]:
    plan = make_plan(suite, RunSettings(**{"device": "cpu", **settings}))
    return [cell.digest for each in plan.experiments for cell in each.cells]


@pytest.fixture
def before(plant: planted.Plant, suite: MakeSuite) -> list[str]:
    return digests(suite(PGD))


def test_planning_twice_gives_the_same_digests(before: list[str], suite: MakeSuite) -> None:
    assert digests(suite(PGD)) == before
    assert len(set(before)) == 2  # the unattacked cell and the attacked one


@pytest.mark.parametrize(
    "attack",
    [
        {**PGD, "epsilon": "0.26"},
        {**PGD, "steps": 4},
        {**PGD, "restarts": 2},
        {**PGD, "keep": "best-loss"},
        {**PGD, "step_size": "0.01"},
        {**PGD, "norm": "l2"},
        {**PGD, "clip": False},
        {"name": "fgsm", "epsilon": "0.25"},
    ],
    ids=str,
)
def test_another_attack_is_another_cell(
    before: list[str], suite: MakeSuite, attack: dict[str, Any]
) -> None:
    clean, attacked = digests(suite(attack))
    assert clean == before[0]
    assert attacked != before[1]


@pytest.mark.parametrize(
    "members",
    [
        [{"name": "pgd", "steps": 4}, "fgsm"],
        [{"name": "pgd", "steps": 3, "keep": "last"}, "fgsm"],
        ["fgsm", {"name": "pgd", "steps": 3}],
        [{"name": "pgd", "steps": 3}],
        [{"name": "bim", "steps": 3}, "fgsm"],
    ],
    ids=str,
)
def test_another_member_of_a_list_is_another_cell(
    plant: planted.Plant, suite: MakeSuite, members: list[Any]
) -> None:
    listed = {"name": "worst-of", "epsilon": "0.25"}
    before = digests(suite({**listed, "attacks": [{"name": "pgd", "steps": 3}, "fgsm"]}))
    clean, attacked = digests(suite({**listed, "attacks": members}))
    assert clean == before[0]
    assert attacked != before[1]


def test_a_members_version_is_part_of_a_lists_cell(
    plant: planted.Plant, suite: MakeSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = suite({"name": "worst-of", "epsilon": "0.25", "attacks": ["fgsm"]})
    before = digests(listed)
    monkeypatch.setattr(FGSM, "version", FGSM.version + 1)
    assert digests(listed)[0] == before[0]
    assert digests(listed)[1] != before[1]


def test_another_seed_is_another_attacked_cell(before: list[str], suite: MakeSuite) -> None:
    clean, attacked = digests(suite(PGD, seed=1))
    assert clean == before[0]
    assert attacked != before[1]


def test_another_version_of_an_attack_is_another_cell(
    plant: planted.Plant, suite: MakeSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, attacked = digests(suite("fgsm"))
    monkeypatch.setattr(FGSM, "version", FGSM.version + 1)
    assert digests(suite("fgsm"))[0] == clean
    assert digests(suite("fgsm"))[1] != attacked


def test_other_examples_are_other_cells(before: list[str], suite: MakeSuite) -> None:
    assert not set(digests(suite(PGD), limit=30)) & set(before)


def test_a_limit_beyond_the_dataset_takes_all_of_it(before: list[str], suite: MakeSuite) -> None:
    assert digests(suite(PGD), limit=1000) == before


def test_another_pixel_is_another_cell(
    before: list[str], plant: planted.Plant, suite: MakeSuite
) -> None:
    changed = planted.squares()
    pixels = changed.pixels.copy()
    pixels[0, 0, 3, 3] ^= 1
    other = planted.ArrayDataset(
        "squares", pixels, targets=changed.targets, classes=changed.classes
    )
    plant.dataset("squares", lambda request: other)
    assert not set(digests(suite(PGD))) & set(before)


def test_another_label_is_another_cell(
    before: list[str], plant: planted.Plant, suite: MakeSuite
) -> None:
    changed = planted.squares()
    targets = changed.targets.copy()
    targets[0] = 1
    other = planted.ArrayDataset(
        "squares", changed.pixels, targets=targets, classes=changed.classes
    )
    plant.dataset("squares", lambda request: other)
    assert not set(digests(suite(PGD))) & set(before)


def test_other_weights_are_other_cells(
    before: list[str], plant: planted.Plant, suite: MakeSuite
) -> None:
    def nudged() -> planted.Classifier:
        model = planted.rows(1)()
        with torch.no_grad():
            model.module.weight[0, 0] += 1e-6
        return model

    plant.model("one", nudged)
    assert not set(digests(suite(PGD))) & set(before)


class Negated(planted.Rows):
    def forward(self, inputs: Tensor) -> Tensor:
        return -super().forward(inputs)


@pytest.mark.parametrize(
    "module",
    [Negated(1), planted.Rows(1, factor=1.01)],
    ids=["other classes", "the same classes, surer"],
)
def test_a_changed_forward_under_the_same_weights_is_another_cell(
    before: list[str], plant: planted.Plant, suite: MakeSuite, module: torch.nn.Module
) -> None:
    plant.model("one", lambda: planted.classifier(module))
    assert not set(digests(suite(PGD))) & set(before)


class Probable(planted.Rows):
    """Log-probabilities: they keep the rule of log-scores, and their logits are themselves."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.log_softmax(super().forward(inputs), 1)


def test_outputs_that_mean_something_else_are_other_cells(
    plant: planted.Plant, suite: MakeSuite
) -> None:
    plant.model("one", lambda: planted.classifier(Probable(1)))
    logits = digests(suite(PGD))
    plant.model("one", lambda: planted.classifier(Probable(1), outputs=LOG_SCORES))
    assert not set(digests(suite(PGD))) & set(logits)
    assert PROBABILITIES.name != LOG_SCORES.name


def test_the_box_is_part_of_a_clipped_attack_alone(plant: planted.Plant, suite: MakeSuite) -> None:
    def boxed(high: float) -> list[str]:
        box = Bounds(0.0, high)
        data = planted.squares()
        plant.dataset(
            "squares",
            lambda request: planted.ArrayDataset(
                "squares", data.pixels, targets=data.targets, classes=data.classes, bounds=box
            ),
        )
        plant.model(
            "one",
            lambda: planted.Classifier(
                planted.Rows(1), classes=3, input_shape=planted.SHAPE, bounds=box
            ),
        )
        return digests(suite(PGD))

    assert boxed(1.0)[1] != boxed(2.0)[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 7},
        {"device": "auto"},
        {"device": "cpu:0"},
        {"fresh": True},
        {"save_every": 0.0},
        {"download": False},
    ],
    ids=str,
)
def test_how_a_suite_is_run_changes_no_digest(
    before: list[str], suite: MakeSuite, settings: dict[str, Any]
) -> None:
    if torch.cuda.is_available() and settings.get("device") == "auto":
        pytest.skip("auto is not the CPU here")
    assert digests(suite(PGD), **settings) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"attacks": [{**PGD, "label": "another-label"}]},
        {"attacks": [{**PGD, "epsilon": "1/4"}]},
        {"attacks": [{**PGD, "epsilon": 0.25}]},
        {"models": ({"name": "another-name", "model": "one"},)},
        {"name": "another-suite", "title": "T", "description": "D", "source": "S"},
        {"transfer": ("pgd",)},
    ],
    ids=str,
)
def test_how_things_are_called_changes_no_digest(
    before: list[str], suite: MakeSuite, changes: dict[str, Any]
) -> None:
    assert digests(suite(**{"attacks": [PGD], **changes})) == before


def test_the_order_of_models_and_attacks_changes_no_digest(
    plant: planted.Plant, suite: MakeSuite
) -> None:
    one = suite(PGD, "fgsm", models=("one", "two"))
    other = suite("fgsm", PGD, models=("two", "one"))
    assert sorted(digests(one)) == sorted(digests(other))


def test_what_a_member_of_a_list_is_called_changes_no_digest(
    plant: planted.Plant, suite: MakeSuite
) -> None:
    member = {"name": "pgd", "steps": 3}
    plain, called = (
        suite({"name": "worst-of", "epsilon": "0.25", "attacks": [each]})
        for each in (member, {**member, "label": "another"})
    )
    assert digests(plain) == digests(called)


def test_all_lists_draw_from_the_same_streams(plant: planted.Plant, suite: MakeSuite) -> None:
    lists = [["fgsm", "bim"], ["bim", "fgsm"], ["bim"]]
    keys = set()
    for members in lists:
        plan = make_plan(
            suite({"name": "worst-of", "epsilon": "0.25", "attacks": members}),
            RunSettings(device="cpu"),
        )
        keys |= {attack.stream_key for each in plan.experiments for attack in each.attacks}
    assert len(keys) == 1


def test_batch_normalisation_is_planned_in_eval_mode(
    plant: planted.Plant, suite: MakeSuite
) -> None:
    """A model that comes in training mode is neither judged nor changed in it."""

    def normalised() -> planted.Classifier:
        torch.manual_seed(0)
        layers = torch.nn.Sequential(
            torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 3)
        )
        return planted.classifier(layers.train())

    plant.model("one", normalised)
    assert digests(suite(PGD)) == digests(suite(PGD))
    layers = plant.built["one"][0].module
    assert all(module.training for module in layers.modules())
    assert int(layers[0].num_batches_tracked) == 0
