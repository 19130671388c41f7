"""A classifier counts its passes, watches clean inputs, and leaves its module as it found it."""

import copy

import nets
import pytest
import torch
from torch import nn

from gibbon.core.errors import ModelError, OutputError
from gibbon.core.threat import Bounds
from gibbon.models.classifier import Classifier, probe
from gibbon.models.outputs import LOG_SCORES, PROBABILITIES
from gibbon.models.pass_count import PassCount

INPUTS = nets.random_batch(7).inputs
LABELS = nets.random_batch(7).labels


class Returning(nn.Module):
    """Returns what it was given, whatever the input."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, inputs):
        return self.answer


def returning(answer, **parts) -> Classifier:
    return Classifier(Returning(answer), classes=4, input_shape=nets.SHAPE, **parts)


def state_of(module: nn.Module) -> dict:
    """Everything that must come back: modes, flags, and the very tensors with their content."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {
        "modes": [each.training for each in module.modules()],
        "frozen": [each.requires_grad for each in module.parameters()],
        "identities": [(name, id(tensor), tensor.data_ptr()) for name, tensor in tensors],
        "devices": [tensor.device.type for _, tensor in tensors],
        "content": copy.deepcopy(module.state_dict()),
    }


def assert_same_state(one: dict, other: dict) -> None:
    for key in ("modes", "frozen", "identities", "devices"):
        assert one[key] == other[key], key
    assert one["content"].keys() == other["content"].keys()
    for name, tensor in one["content"].items():
        assert torch.equal(tensor, other["content"][name]), name


def mixed_state_module() -> nn.Module:
    """Some parts in training mode, some not; some parameters frozen, some not."""
    module = nets.conv().module
    module[1].eval()
    module[0].weight.requires_grad_(False)
    module[5].register_buffer("scratch", torch.ones(3), persistent=False)
    return module


def test_passes_are_counted_by_example(mlp):
    with mlp.evaluating():
        mlp(INPUTS)
        mlp.predict(INPUTS)
        assert mlp.passes == PassCount(14, 0)
        mlp.loss_gradient(INPUTS, LABELS)
        assert mlp.passes == PassCount(21, 7)
        mlp.ascend(INPUTS, torch.ones_like)
        assert mlp.passes == PassCount(28, 14)


def test_an_attack_of_ones_own_with_autograd_is_counted_too(mlp):
    with mlp.evaluating():
        leaf = INPUTS.clone().requires_grad_()
        mlp(leaf).sum().backward()
    assert mlp.passes == PassCount(7, 7)


def test_ascend_gives_the_gradient_of_what_was_asked(classifier):
    weights = torch.randn(7, 4, generator=nets.generator(0))
    with classifier.evaluating():
        outputs, gradient = classifier.ascend(INPUTS, lambda outputs: weights)
        leaf = INPUTS.clone().requires_grad_()
        expected_outputs = classifier.module(leaf)
        (expected,) = torch.autograd.grad((expected_outputs * weights).sum(), leaf)
    torch.testing.assert_close(gradient, expected)
    assert torch.equal(outputs, expected_outputs.detach())
    assert not outputs.requires_grad
    assert not gradient.requires_grad


def test_loss_gradient_is_plain_autograd(mlp):
    with mlp.evaluating():
        leaf = INPUTS.clone().requires_grad_()
        loss = nn.functional.cross_entropy(mlp.module(leaf), LABELS, reduction="sum")
        (expected,) = torch.autograd.grad(loss, leaf)
        torch.testing.assert_close(mlp.loss_gradient(INPUTS, LABELS), expected)


def test_inputs_are_not_changed_and_stay_leaves_without_a_gradient(mlp):
    before = INPUTS.clone()
    with mlp.evaluating():
        mlp.ascend(INPUTS, torch.ones_like)
        mlp.loss_gradient(INPUTS, LABELS)
    assert torch.equal(INPUTS, before)
    assert not INPUTS.requires_grad
    assert INPUTS.grad is None


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("device", [None, "cpu"])
def test_evaluating_puts_everything_back(fails, device):
    module = mixed_state_module()
    classifier = Classifier(module, classes=4, input_shape=nets.SHAPE)
    before = state_of(module)

    def use() -> None:
        with classifier.evaluating(device):
            assert not any(each.training for each in module.modules())
            assert not any(each.requires_grad for each in module.parameters())
            classifier.predict(INPUTS)
            if fails:
                raise KeyError("inside")

    if fails:
        with pytest.raises(KeyError, match="inside"):
            use()
    else:
        use()
    assert_same_state(state_of(module), before)


def test_evaluating_brings_tensors_home_from_another_device_and_dtype():
    module = mixed_state_module()
    before = state_of(module)
    with Classifier(module, classes=4, input_shape=nets.SHAPE).evaluating("cpu"):
        module.double()  # moves every tensor, as a device does
        assert module[1].running_mean.dtype == torch.float64
    assert_same_state(state_of(module), before)


def test_evaluating_puts_everything_back_where_the_device_is_not_there():
    module = mixed_state_module()
    before = state_of(module)
    classifier = Classifier(module, classes=4, input_shape=nets.SHAPE)
    with pytest.raises(RuntimeError), classifier.evaluating("no-such-device"):
        pass
    assert_same_state(state_of(module), before)


def test_evaluating_can_be_nested(conv):
    with conv.evaluating():
        outer = conv.snapshot
        with conv.evaluating():
            assert conv.snapshot is not outer
        assert conv.snapshot is outer
        assert not any(each.training for each in conv.module.modules())
    assert conv.snapshot is None


def test_a_watch_keeps_what_was_said_of_the_clean_inputs(mlp):
    with mlp.evaluating(), mlp.watching(INPUTS) as watch:
        mlp(INPUTS + 0.1)
        assert watch.outputs is None
        outputs, gradient = mlp.ascend(INPUTS, torch.ones_like)
        assert watch.outputs is not None
        assert torch.equal(watch.outputs, outputs)
        assert watch.zero_gradient is not None
        assert watch.zero_gradient.tolist() == [False] * 7
        assert gradient.shape == INPUTS.shape


def test_a_watch_keeps_the_first_only(mlp):
    with mlp.evaluating(), mlp.watching(INPUTS) as watch:
        first, _ = mlp.ascend(INPUTS, torch.zeros_like)
        mlp.ascend(INPUTS, torch.ones_like)
        assert watch.outputs is not None
        assert torch.equal(watch.outputs, first)
        assert watch.zero_gradient is not None
        assert watch.zero_gradient.tolist() == [True] * 7


def test_a_watch_does_not_cover_changed_or_other_inputs(mlp):
    inputs = INPUTS.clone()
    with mlp.evaluating(), mlp.watching(inputs) as watch:
        assert watch.covers(inputs)
        assert watch.covers(inputs.detach())
        assert not watch.covers(inputs.clone())
        assert not watch.covers(inputs[:3])
        assert not watch.covers(inputs.transpose(2, 3))
        inputs.add_(0.1)
        assert not watch.covers(inputs)
        mlp(inputs)
        assert watch.outputs is None


def test_a_watch_ignores_what_was_said_in_training_mode(conv):
    with conv.evaluating(), conv.watching(INPUTS) as watch:
        conv.module[3].train()
        conv(INPUTS)
        assert watch.outputs is None
        conv.module[3].eval()
        conv(INPUTS)
        assert watch.outputs is not None


def test_gradients_of_a_part_of_the_batch_are_those_of_its_rows(linear):
    inputs = torch.rand(6, *linear.input_shape)
    zeros = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0]).unsqueeze(1)
    rows = torch.tensor([5, 1, 3]).repeat(2)
    with linear.evaluating(), linear.watching(inputs) as watch, linear.run_on(rows):
        twice = torch.cat([inputs[[5, 1, 3]]] * 2)
        linear.ascend(twice, lambda outputs: zeros * torch.ones_like(outputs))
    assert watch.zero_gradient is not None
    assert watch.zero_gradient.tolist() == [False, False, False, True, False, True]
    assert watch.gradients is not None


def test_zero_gradients_are_marked_example_by_example(linear):
    marks = torch.tensor([0.0, 1.0, 0.0, -1.0, 0.0, float("nan"), 1e-30])
    with linear.evaluating(), linear.watching(INPUTS) as watch:
        linear.ascend(INPUTS, lambda outputs: marks.unsqueeze(1) * torch.ones_like(outputs))
    assert watch.zero_gradient is not None
    assert watch.zero_gradient.tolist() == [True, False, True, False, True, False, False]


def test_the_first_of_several_tries_abreast_is_marked(linear):
    marks = torch.tensor([0.0, 1.0, 0.0, -1.0, 0.0, 1.0, 1.0])
    with linear.evaluating(), linear.watching(INPUTS, room=20) as watch:
        linear.ascend(
            torch.cat([INPUTS] * 2),
            lambda outputs: torch.cat([marks, 1 - marks]).unsqueeze(1) * torch.ones_like(outputs),
        )
    assert watch.zero_gradient is not None
    assert watch.zero_gradient.tolist() == [True, False, True, False, True, False, False]


def test_room_is_that_of_a_full_batch(mlp):
    assert mlp.room == 0
    with mlp.watching(INPUTS):
        assert mlp.room == len(INPUTS)
    with mlp.watching(INPUTS, room=100):
        assert mlp.room == 100
    assert mlp.room == 0


def test_watches_end(mlp):
    with mlp.evaluating():
        with mlp.watching(INPUTS) as watch:
            pass
        mlp(INPUTS)
        assert watch.outputs is None


@pytest.mark.parametrize(
    ("answer", "came"),
    [
        (torch.zeros(7, 3), r"got \(7, 3\)"),
        (torch.zeros(6, 4), r"got \(6, 4\)"),
        (torch.zeros(7, 4, 1), r"got \(7, 4, 1\)"),
        ((torch.zeros(7, 4),), "got tuple"),
        (None, "got NoneType"),
    ],
)
def test_outputs_of_another_shape_are_refused(answer, came):
    with pytest.raises(OutputError, match=rf"must return a tensor of shape \(7, 4\), {came}"):
        returning(answer)(INPUTS)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_outputs_that_are_not_finite_are_refused_and_counted(bad):
    answer = torch.zeros(7, 4)
    answer[2, 1] = answer[5, 0] = answer[5, 3] = bad
    with pytest.raises(OutputError, match="the model returned NaN or infinity for 2 of 7 examples"):
        returning(answer).predict(INPUTS)


def test_infinities_that_cancel_are_seen():
    answer = torch.zeros(7, 4)
    answer[0, 0], answer[0, 1] = float("inf"), float("-inf")
    with pytest.raises(OutputError, match="for 1 of 7"):
        returning(answer).predict(INPUTS)


def test_large_finite_outputs_are_outputs():
    answer = torch.full((7, 4), 3e38)  # their sum overflows
    assert torch.equal(returning(answer).predict(INPUTS), answer)


def test_predict_makes_no_graph(mlp):
    assert not mlp.predict(INPUTS.clone().requires_grad_()).requires_grad


@pytest.mark.parametrize(
    ("classifier", "fault"),
    [
        (returning(torch.zeros(7, 3)), r"shape \(7, 4\)"),
        (returning(torch.full((7, 4), float("nan"))), "NaN or infinity for 7 of 7"),
        (returning(torch.ones(7, 4), outputs=PROBABILITIES), "declares probabilities, but each"),
        (returning(torch.ones(7, 4), outputs=LOG_SCORES), "declares log-scores, but the log"),
        (
            Classifier(nn.Linear(5, 4), classes=4, input_shape=(5,)),
            r"can't be run on inputs of shape \(7, 1, 6, 6\)",
        ),
    ],
)
def test_a_probe_tells_what_breaks_the_declaration(classifier, fault):
    with pytest.raises(ModelError, match=fault):
        probe(classifier, INPUTS)


def test_a_probe_returns_the_outputs(mlp):
    with mlp.evaluating():
        assert torch.equal(probe(mlp, INPUTS), mlp.predict(INPUTS))


def test_inputs_are_pixels_unless_said_otherwise(linear):
    assert linear.bounds == Bounds(0.0, 1.0)
