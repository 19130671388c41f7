"""The model as an adaptive attack sees it: closed forms, passes, hooks and errors."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gibbon.core.errors import ModelError
from gibbon.core.rng import ExampleStreams
from gibbon.models.attacked_view import (
    adaptation_of,
    attacked_view,
    check_view,
    find_part,
    model_behind_view,
    redraw,
    stand_in,
)
from gibbon.models.classifier import Classifier
from gibbon.models.ensemble import ensemble
from gibbon.models.outputs import LOGITS, PROBABILITIES
from gibbon.models.pass_count import PassCount
from gibbon.models.sources.torchscript_module import Script
from gibbon.specs.adaptation import Adaptation

PIXELS, CLASSES = 6, 3
INPUTS = torch.rand(5, PIXELS, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1])
IDENTITY = (("quantise", "identity"),)


class Round(nn.Module):
    """Rounds to eighths, by numpy: it has no gradient and fails on a graph."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.from_numpy((inputs.numpy() * 8).round() / 8)


class Defended(nn.Module):
    """A linear model behind a quantiser, before a softmax with a temperature."""

    def __init__(self, *, temperature: float = 0.01, noise: float = 0.0) -> None:
        super().__init__()
        self.quantise = Round()
        self.linear = nn.Linear(PIXELS, CLASSES)
        self.softmax = nn.Softmax(1)
        self.temperature, self.noise = temperature, noise

    def forward(self, inputs: Tensor) -> Tensor:
        clean = self.quantise(inputs)
        if self.noise:
            clean = clean + self.noise * torch.randn_like(clean)
        return self.softmax(self.linear(clean) / self.temperature)


class Linear(nn.Module):
    """A linear model of inputs with noise."""

    def __init__(self, noise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.noise = nn.Linear(PIXELS, CLASSES), noise

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs + self.noise(inputs))
        return outputs


def classifier(net: nn.Module, **keys: object) -> Classifier:
    return Classifier(net, classes=CLASSES, input_shape=(PIXELS,), **keys)  # type: ignore[arg-type]


def by_row(inputs: Tensor) -> Tensor:
    return torch.randn_like(inputs)


def for_all(inputs: Tensor) -> Tensor:
    return torch.randn(1, PIXELS)


def gradient_at(model: Classifier, points: Tensor = INPUTS, labels: Tensor = LABELS) -> Tensor:
    return model.loss_gradient(points, labels)


def hooks(net: nn.Module) -> int:
    parts = list(net.modules())
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in parts)


def test_an_adaptation_that_changes_nothing_is_the_model_itself() -> None:
    model = classifier(nn.Linear(PIXELS, CLASSES))
    assert attacked_view(model, Adaptation(), inputs=INPUTS) is model
    assert model_behind_view(model) is model
    assert not adaptation_of(model)


# backward


def test_identity_gives_the_gradient_without_the_quantiser() -> None:
    net = Defended(temperature=1.0).eval()
    with torch.no_grad():
        rounded = torch.from_numpy((INPUTS.numpy() * 8).round() / 8)
    model = classifier(net, outputs=PROBABILITIES)
    with model.evaluating():
        view = attacked_view(model, Adaptation(backward=IDENTITY), inputs=INPUTS)
        found = gradient_at(view)
        outputs = view.predict(INPUTS)
        assert torch.equal(outputs, model.predict(INPUTS))  # forward is unchanged
    leaf = rounded.clone().requires_grad_()
    loss = nn.functional.nll_loss(net.softmax(net.linear(leaf)).log(), LABELS, reduction="sum")
    (expected,) = torch.autograd.grad(loss, leaf)
    assert torch.allclose(found, expected, atol=1e-6)
    assert bool(expected.any())


STAND_INS = """
import torch

def doubled(inputs):
    return 2 * inputs

def pair(inputs):
    return inputs, inputs

def shorter(inputs):
    return inputs[:, 1:]

def constant(inputs):
    return torch.zeros_like(inputs)

class Soft(torch.nn.Module):
    def forward(self, inputs):
        return 3 * inputs

soft, number = Soft(), 3
"""


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    path = tmp_path / "functions.py"
    path.write_text(STAND_INS)
    return path


@pytest.mark.parametrize(("name", "factor"), [("doubled", 2.0), ("soft", 3.0)])
def test_a_function_stands_in_for_the_gradient_only(
    functions: Path, name: str, factor: float
) -> None:
    model = classifier(Defended(temperature=1.0), outputs=PROBABILITIES)
    with model.evaluating():
        same = attacked_view(model, Adaptation(backward=IDENTITY), inputs=INPUTS)
        other = Adaptation(backward=(("quantise", f"{functions}:{name}"),))
        view = attacked_view(model, other, inputs=INPUTS)
        assert torch.allclose(gradient_at(view), factor * gradient_at(same))
        assert torch.equal(view.predict(INPUTS), model.predict(INPUTS))


def test_a_part_that_is_called_twice_is_replaced_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quantise, self.linear = Round(), nn.Linear(PIXELS, CLASSES)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.linear(self.quantise(self.quantise(inputs) * 0.5))
            return outputs

    net = Twice()
    model = classifier(net)
    with model.evaluating():
        view = attacked_view(model, Adaptation(backward=IDENTITY), inputs=INPUTS)
        _, found = view.ascend(INPUTS, torch.ones_like)
    assert torch.allclose(found, (0.5 * net.linear.weight.sum(0)).expand_as(found))


def test_an_in_place_operation_after_the_part_works() -> None:
    net = nn.Sequential(Round(), nn.ReLU(inplace=True), nn.Linear(PIXELS, CLASSES))
    model = classifier(net)
    with model.evaluating():
        view = attacked_view(model, Adaptation(backward=(("0", "identity"),)), inputs=INPUTS)
        assert bool(gradient_at(view).any())


# before


def test_before_a_softmax_with_a_temperature_is_the_linear_model() -> None:
    net = nn.Sequential(nn.Linear(PIXELS, CLASSES), nn.Softmax(1))
    with torch.no_grad():
        net[0].weight.mul_(1000)  # saturated: the naive gradient is zero
    model = classifier(net, outputs=PROBABILITIES)
    plain = classifier(net[0])
    with model.evaluating():
        view = attacked_view(model, Adaptation(before="1"), inputs=INPUTS)
        assert view.outputs is LOGITS
        assert torch.equal(view(INPUTS), plain(INPUTS))
        rule = view.outputs
        _, found = view.ascend(INPUTS, lambda outputs: rule.ascent(outputs, LABELS))
        _, expected = plain.ascend(INPUTS, lambda outputs: rule.ascent(outputs, LABELS))
    assert torch.allclose(found, expected)
    assert bool((found != 0).any(1).all())


def test_both_keys_work_together() -> None:
    net = Defended()
    model = classifier(net, outputs=PROBABILITIES)
    adaptation = Adaptation(backward=IDENTITY, before="softmax")
    with model.evaluating():
        view = attacked_view(model, adaptation, inputs=INPUTS)
        _, found = view.ascend(INPUTS, torch.ones_like)
    assert torch.allclose(found, (net.linear.weight.sum(0) / 0.01).expand_as(found))


# eot


@pytest.mark.parametrize("noise", [by_row, for_all])
def test_the_gradient_is_the_mean_over_draws(noise: Callable[[Tensor], Tensor]) -> None:
    """Of a linear model in the loss of mean logits: its closed form at the mean of the noise."""
    net = Linear(noise)
    model = classifier(net)
    with model.evaluating():
        view = attacked_view(model, Adaptation(eot=400), inputs=INPUTS, key=3)
        outputs, found = view.ascend(INPUTS, lambda each: LOGITS.ascent(each, LABELS))
        with torch.no_grad():
            exact = net.linear(INPUTS)
    assert torch.allclose(outputs, exact, atol=0.25)
    expected = LOGITS.ascent(outputs, LABELS) @ net.linear.weight
    assert torch.allclose(found, expected, atol=1e-5)


def test_it_is_the_mean_of_nonlinear_gradients() -> None:
    """Half of the draws are flipped: the gradients of a square cancel but for their mean."""

    class Flipped(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            sign = 1 - 2 * (torch.rand(len(inputs), 1) < 0.25).float()
            return (sign * inputs**2)[:, :CLASSES]

    model = classifier(Flipped())
    with model.evaluating():
        view = attacked_view(model, Adaptation(eot=500), inputs=INPUTS)
        _, found = view.ascend(INPUTS, torch.ones_like)
    assert torch.allclose(found[:, :CLASSES], INPUTS[:, :CLASSES], atol=0.12)  # 2 x (3/4 - 1/4)


def test_passes_are_counted_for_every_draw() -> None:
    for noise in (by_row, for_all):
        model = classifier(Linear(noise))
        with model.evaluating():
            view = attacked_view(model, Adaptation(eot=7), inputs=INPUTS)
            view.ascend(INPUTS, torch.ones_like)
            assert (model.passes.forward, model.passes.backward) == (35, 35)
            view.predict(INPUTS)
            assert (model.passes.forward, model.passes.backward) == (70, 35)
    model = classifier(Defended(), outputs=PROBABILITIES)
    with model.evaluating():
        keys = Adaptation(2, IDENTITY, "softmax")
        attacked_view(model, keys, inputs=INPUTS).ascend(INPUTS, torch.ones_like)
        assert (model.passes.forward, model.passes.backward) == (10, 10)


def test_passes_are_counted_outside_of_an_evaluation_too() -> None:
    model = classifier(nn.Sequential(nn.Linear(PIXELS, CLASSES), nn.Softmax(1)))
    for keys in (Adaptation(eot=3), Adaptation(before="1")):
        model.passes = PassCount()
        attacked_view(model, keys, inputs=INPUTS).ascend(INPUTS, torch.ones_like)
        assert (model.passes.forward, model.passes.backward) == (5 * keys.eot, 5 * keys.eot)


@pytest.mark.parametrize("noise", [by_row, for_all])
def test_draws_belong_to_the_clean_input(noise: Callable[[Tensor], Tensor]) -> None:
    """Batch size, order, and how many points of an example are evaluated change nothing."""
    model = classifier(Linear(noise))
    moved = INPUTS + 0.05 * torch.randn(INPUTS.shape, generator=torch.Generator().manual_seed(1))
    with model.evaluating():
        whole = attacked_view(model, Adaptation(eot=4), inputs=INPUTS, key=3)
        part = attacked_view(model, Adaptation(eot=4), inputs=INPUTS[[3, 1]], key=3)
        expected = whole(moved)
        assert torch.allclose(part(moved[[1, 3]]), expected[[1, 3]], atol=1e-6)
        several = whole(torch.cat([moved[2:], moved[:1], moved[2:]]))
        assert torch.allclose(several, expected[[2, 3, 4, 0, 2, 3, 4]], atol=1e-6)
        assert torch.allclose(whole(moved), expected)  # one function throughout the attack
        other = attacked_view(model, Adaptation(eot=4), inputs=INPUTS, key=4)
        assert not torch.allclose(other(moved), expected)
        redraw(whole, 1)
        assert not torch.allclose(whole(moved), expected)
        redraw(whole, 0)
        assert torch.allclose(whole(moved), expected)


def test_examples_have_draws_of_their_own() -> None:
    model = classifier(Linear(by_row))
    inputs = torch.stack([torch.full((PIXELS,), value) for value in (0.2, 0.2, 0.6)])
    with model.evaluating():
        outputs = attacked_view(model, Adaptation(eot=2), inputs=inputs)(inputs)
        exact = model.module.get_submodule("linear")(inputs)
    noise = outputs - exact
    assert torch.allclose(noise[0], noise[1], atol=1e-6)  # equal inputs are one example
    assert not torch.allclose(noise[0], noise[2], atol=1e-3)


def test_no_points_make_no_pass() -> None:
    model = classifier(Linear(by_row))
    with model.evaluating():
        view = attacked_view(model, Adaptation(eot=4), inputs=INPUTS)
        assert view(INPUTS[:0]).shape == (0, CLASSES)


# what stays as it was


@pytest.mark.parametrize(
    "keys", [Adaptation(3, IDENTITY, "softmax"), Adaptation(backward=IDENTITY)]
)
def test_hooks_are_removed_after_each_pass_and_after_exceptions(keys: Adaptation) -> None:
    net = Defended(noise=0.1)
    model = classifier(net, outputs=PROBABILITIES)
    with model.evaluating():
        before = hooks(net)
        view = attacked_view(model, keys, inputs=INPUTS)
        gradient_at(view)
        assert hooks(net) == before

        def fail(inputs: Tensor) -> Tensor:
            raise RuntimeError("planted trouble")

        net.linear.forward = fail  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="planted trouble"):
            gradient_at(view)
        assert hooks(net) == before
        del net.linear.forward
    assert hooks(net) == 0


def test_the_watch_sees_gradients_of_the_view_and_outputs_of_the_model() -> None:
    net = Defended()
    model = classifier(net, outputs=PROBABILITIES)
    for keys in (Adaptation(1, IDENTITY, "softmax"), Adaptation(3, IDENTITY, "softmax")):
        with model.evaluating(), model.watching(INPUTS, room=50) as watch:
            view = attacked_view(model, keys, inputs=INPUTS)
            assert (view.room, view.watched) == (50, True)
            view.ascend(INPUTS, torch.ones_like)
            assert watch.zero_gradient is not None
            assert not watch.zero_gradient.any()
            if watch.outputs is not None:  # never the logits that the attack saw
                assert torch.equal(watch.outputs, model.predict(INPUTS))


def test_a_view_of_a_view_is_of_the_model() -> None:
    model = classifier(Defended(), outputs=PROBABILITIES)
    with model.evaluating():
        first = attacked_view(model, Adaptation(before="softmax"), inputs=INPUTS, key=5)
        second = attacked_view(first, Adaptation(eot=2), inputs=INPUTS[:1], key=6)
        assert model_behind_view(second) is model
        assert adaptation_of(second) == Adaptation(eot=2)
        assert second.outputs is PROBABILITIES
        assert attacked_view(second, Adaptation(), inputs=INPUTS) is model


def test_an_ensemble_has_the_parts_of_its_members() -> None:
    both = ensemble(
        [classifier(Defended(temperature=1.0), outputs=PROBABILITIES) for _ in range(2)]
    )
    paths = [f"members.{number}.quantise" for number in range(2)]
    keys = Adaptation(backward=tuple((path, "identity") for path in paths))
    with both.evaluating():
        check_view(both, keys, INPUTS, needs_gradient=True)
        assert bool(gradient_at(attacked_view(both, keys, inputs=INPUTS)).any())
    with pytest.raises(ModelError, match=r"several submodules 'quantise'.*members\.1\.quantise"):
        find_part(both.module, "quantise")
    assert find_part(both.module, "0.quantise") is find_part(both.module, paths[0])


# errors


def refused(keys: Adaptation, net: nn.Module | None = None, *, gradient: bool = True) -> str:
    model = classifier(Defended() if net is None else net, outputs=PROBABILITIES)
    with model.evaluating(), pytest.raises(ModelError) as raised:
        check_view(model, keys, INPUTS[:2], needs_gradient=gradient)
    assert hooks(model.module) == 0
    assert model.passes.forward == 0
    return str(raised.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            Adaptation(before="sofmax"),
            "it has no submodule 'sofmax'; did you mean 'softmax'? Its submodules: quantise, "
            "linear, softmax",
        ),
        (Adaptation(backward=(("quantize", "identity"),)), "did you mean 'quantise'?"),
        (
            Adaptation(before="linear"),
            "before = 'linear': the input of that submodule must be logits of shape (N, 3), got "
            "(N, 6); submodules that take this shape: softmax",
        ),
        (Adaptation(before="softmax"), "it can't be run with gradients on (Can't call numpy()"),
        (Adaptation(eot=3), "give the part that loses it another backward pass, backward = {"),
        (
            Adaptation(backward=(("quantise", "idenity"),)),
            "expected 'identity', path/to/file.py:function or package.module:function, got "
            "'idenity'; did you mean 'identity'?",
        ),
    ],
)
def test_what_does_not_fit_is_refused(keys: Adaptation, message: str) -> None:
    assert message in refused(keys)


class Detached(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.detach()


@pytest.mark.parametrize(
    ("part", "keys", "message"),
    [
        (
            nn.Identity(),
            Adaptation(backward=(("linear", "identity"),)),
            "'identity' needs an input and an output of one shape, got (2, 6) and (2, 3): name a "
            "function",
        ),
        (
            Detached(),
            Adaptation(before="softmax"),
            "the outputs that 'softmax' takes have no gradient in the inputs: give the part that",
        ),
        (Detached(), Adaptation(eot=3), "the outputs have no gradient in the inputs"),
    ],
)
def test_a_gradient_that_is_lost_is_refused(
    part: nn.Module, keys: Adaptation, message: str
) -> None:
    net = Defended()
    net.quantise = part
    assert message in refused(keys, net)


def test_a_part_without_gradient_may_be_attacked_without_gradients() -> None:
    model = classifier(Defended(), outputs=PROBABILITIES)
    with model.evaluating():
        check_view(model, Adaptation(before="softmax"), INPUTS, needs_gradient=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pair", "must return a tensor of the submodule's output's shape (2, 6), got tuple"),
        ("shorter", "shape (2, 6), got (2, 5)"),
        ("constant", "its function has no gradient in its input"),
        ("Soft", "must be a function of what the submodule takes, got a class"),
        ("number", "got int"),
        ("dubled", "has no 'dubled'; did you mean 'doubled'?"),
    ],
)
def test_a_wrong_function_is_refused(functions: Path, name: str, message: str) -> None:
    keys = Adaptation(backward=(("quantise", f"{functions}:{name}"),))
    try:
        found = refused(keys)
    except Exception as error:  # noqa: BLE001  # what can't be imported is no fault of the model
        found = str(error)
    assert message in found


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=re.escape("no file")):
        stand_in(f"{tmp_path}/none.py:function")


class Unused(nn.Module):
    """Has a part that it never calls, one that it calls twice, and one that returns two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.linear = nn.Softmax(1), nn.Linear(PIXELS, CLASSES)
        self.again, self.split = nn.Softmax(1), Split()

    def forward(self, inputs: Tensor) -> Tensor:
        inputs, _ = self.split(inputs)
        outputs: Tensor = self.again(self.again(self.linear(inputs)))
        return outputs


class Split(nn.Module):
    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, inputs


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (Adaptation(before="unused"), "that submodule is never called"),
        (Adaptation(backward=(("unused", "identity"),)), "that submodule is never called"),
        (Adaptation(before="again"), "is called 2 times in a forward pass, expected once"),
        (
            Adaptation(backward=(("split", "identity"),)),
            "must return one tensor of floating-point numbers to have a gradient, got tuple",
        ),
    ],
)
def test_a_part_that_can_not_be_replaced_is_refused(keys: Adaptation, message: str) -> None:
    assert message in refused(keys, Unused())


def test_the_parts_of_a_script_are_not_called_one_by_one() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scripts
        net = torch.jit.script(nn.Sequential(nn.Linear(PIXELS, CLASSES), nn.Softmax(1)).eval())
    whole = Script.around(net, own=True)
    assert "never called" in refused(Adaptation(before="0"), whole, gradient=False)


def test_the_streams_of_the_judge_are_others() -> None:
    """The attack must not know the draws that it is judged by."""
    model = classifier(Linear(by_row))
    with model.evaluating():
        view = attacked_view(model, Adaptation(eot=2), inputs=INPUTS, key=0)
        seen = view(INPUTS)
        judging = model.draws.streams(torch.arange(5), "judging")
        assert isinstance(judging, ExampleStreams)
        from gibbon.models.random_draws import predicted_draws

        judged = predicted_draws(model.predict, INPUTS, streams=judging, count=2, by_row=True).mean(
            0
        )
    assert (seen - judged).abs().max() > 0.1  # a single pair of draws may lie close together
