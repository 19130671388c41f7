"""Laws that every kind of model source keeps, its own network beside the one that was given."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from made_models import KINDS, Made
from torch import Tensor, nn

from gibbon.models.classifier import Classifier
from gibbon.models.weights import state_digest
from gibbon.specs.suite import ModelSpec

NEAR = {"rtol": 1e-4, "atol": 1e-4}
COUNT = 7  # no multiple of any batch that a file is fixed to


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    (tmp_path / "here").mkdir()
    return KINDS[request.param](tmp_path / "here", monkeypatch)


def some_inputs(made: Made) -> Tensor:
    return torch.rand(COUNT, *made.shape, generator=torch.Generator().manual_seed(1))


def test_it_answers_as_the_original_does(made: Made) -> None:
    inputs, classifier = some_inputs(made), made.built().classifier
    with torch.no_grad():
        wanted = made.answers(inputs)
    with classifier.evaluating("cpu"):
        torch.testing.assert_close(classifier.predict(inputs), wanted, **NEAR)
    assert classifier.classes == wanted.shape[1]
    assert classifier.input_shape == made.shape
    assert wanted.std() > 0.01  # so that the comparison says something


def test_its_input_gradient_is_the_originals(made: Made) -> None:
    inputs, classifier = some_inputs(made), made.built().classifier
    labels = torch.arange(COUNT) % classifier.classes
    if made.forward_only:
        assert "forward only" in classifier.forward_only
        with classifier.evaluating("cpu"), torch.enable_grad():
            assert not classifier(inputs.requires_grad_()).requires_grad
        return
    assert classifier.forward_only == ""
    leaf = inputs.clone().requires_grad_()
    loss = nn.functional.cross_entropy(made.answers(leaf), labels, reduction="sum")
    (wanted,) = torch.autograd.grad(loss, leaf)
    with classifier.evaluating("cpu"):
        came = classifier.loss_gradient(inputs, labels)
    torch.testing.assert_close(came, wanted, **NEAR)
    assert wanted.abs().max() > 0.001


def test_splitting_a_batch_changes_nothing(made: Made) -> None:
    inputs, classifier = some_inputs(made), made.built().classifier
    with classifier.evaluating("cpu"):
        whole = classifier.predict(inputs)
        for size in (1, 2, 3, 5):
            parts = torch.cat([classifier.predict(part) for part in inputs.split(size)])
            torch.testing.assert_close(parts, whole, **NEAR)


def test_passes_are_counted_by_example(made: Made) -> None:
    inputs, classifier = some_inputs(made), made.built().classifier
    assert classifier.passes.forward == 0
    with classifier.evaluating("cpu"):
        classifier.predict(inputs)
        assert (classifier.passes.forward, classifier.passes.backward) == (COUNT, 0)
        if not made.forward_only:
            classifier.loss_gradient(inputs, torch.zeros(COUNT, dtype=torch.int64))
            assert (classifier.passes.forward, classifier.passes.backward) == (2 * COUNT, COUNT)


def test_building_it_twice_gives_the_same_model(made: Made) -> None:
    torch.manual_seed(1)
    one = made.built()
    torch.manual_seed(2)
    other = made.built()
    inputs = some_inputs(made)
    assert one.identity == other.identity
    assert state_digest(one.classifier.module) == state_digest(other.classifier.module)
    with one.classifier.evaluating("cpu"), other.classifier.evaluating("cpu"):
        came = one.classifier.predict(inputs)
        assert torch.equal(came, other.classifier.predict(inputs))


def test_what_it_is_filed_under_is_no_path(made: Made, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(here, there)
    own_file = Path(made.spec.model)
    moved = {
        key: json.loads(json.dumps(value).replace(str(here), str(there)))
        for key, value in made.spec.model_dump().items()
    }
    if own_file.is_file():
        renamed = there / f"renamed{own_file.suffix}"
        (there / own_file.name).rename(renamed)
        moved["model"] = str(renamed)
    built, again = made.built(), dataclasses.replace(made, spec=ModelSpec(**moved)).built()
    assert built.identity == again.identity
    assert str(tmp_path) not in built.identity
    assert state_digest(built.classifier.module) == state_digest(again.classifier.module)


def test_other_weights_are_filed_elsewhere(made: Made) -> None:
    def filed() -> tuple[str, str]:
        built = made.built()
        return built.identity, state_digest(built.classifier.module)

    before = filed()
    assert filed() == before
    made.rewrite(8)
    assert filed() != before


def state(classifier: Classifier) -> list[object]:
    module = classifier.module
    return [
        [(name, each.training) for name, each in module.named_modules()],
        [(name, each.requires_grad, each.device) for name, each in module.named_parameters()],
        [(name, each.device) for name, each in module.named_buffers()],
        [dict(each._forward_hooks) for each in module.modules()],
        state_digest(module),
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back_after_an_evaluation(made: Made, fails: bool) -> None:
    classifier = made.built().classifier
    for place, part in enumerate(classifier.module.modules()):
        part.training = place % 2 == 0
    before = copy.deepcopy(state(classifier))
    inputs = some_inputs(made)

    def evaluate() -> None:
        with classifier.evaluating("cpu"):
            classifier.predict(inputs)
            assert classifier.snapshot is not None
            assert classifier.snapshot.difference() is None
            if fails:
                raise KeyError("in the middle")

    if fails:
        with pytest.raises(KeyError):
            evaluate()
    else:
        evaluate()
    assert state(classifier) == before


def test_what_an_attack_does_to_it_is_seen_and_undone(made: Made) -> None:
    classifier, inputs = made.built().classifier, some_inputs(made)
    with classifier.evaluating("cpu"):
        wanted = classifier.predict(inputs)
        tensors = list(classifier.module.parameters())
        if not tensors:  # of a file that another library runs
            return
        with torch.no_grad():
            tensors[0].add_(1.0)
        classifier.module.train()
        assert classifier.snapshot is not None
        assert classifier.snapshot.difference() is not None
        classifier.snapshot.restore()
        torch.testing.assert_close(classifier.predict(inputs), wanted, rtol=0, atol=0)
