"""Faults planted into models that their examination must find, and near misses that it must not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gibbon.datasets.base import Batch
from gibbon.diagnostics.examination.examine import FULL_BUDGET, examine
from gibbon.models.classifier import Classifier
from gibbon.records.examination import Examination
from gibbon.records.flags import Flag
from gibbon.runner.plan.probe_model import probe_model

BUDGET = 134  # a tenth of the passes of PGD with 10 steps on 64 examples
Build = Callable[[nn.Module], nn.Module]


class Around(nn.Module):
    """Functions before and after a network."""

    def __init__(
        self,
        net: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda inputs: inputs,
        after: Callable[[Tensor], Tensor] = lambda outputs: outputs,
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, inputs: Tensor) -> Tensor:
        return self.after(self.net(self.before(inputs)))


def backward(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The identity, whose backward pass changes the gradient, given the gradient and the inputs."""

    class Changed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, inputs: Tensor) -> Tensor:
            ctx.save_for_backward(inputs)
            return inputs.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return change(gradient, *ctx.saved_tensors)

    return Changed.apply  # type: ignore[no-any-return]


def signs(like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, like.shape[1:], generator=generator).mul(2).sub(1).to(like)


# Gradients.


def flipped(net: nn.Module) -> nn.Module:
    return Around(net, backward(lambda gradient, _: -gradient))


def shattered(net: nn.Module) -> nn.Module:
    return Around(net, backward(lambda gradient, _: gradient * signs(gradient)))


def lost(net: nn.Module) -> nn.Module:
    return Around(net, lambda inputs: inputs.detach() + 0 * inputs)


def detached_half(net: nn.Module) -> nn.Module:
    def before(inputs: Tensor) -> Tensor:
        return torch.cat([inputs[..., :14, :].detach(), inputs[..., 14:, :]], dim=2)

    return Around(net, before)


class Branches(nn.Module):
    """Adds the outputs of a network for the whole picture and for one shifted by a pixel."""

    def __init__(self, net: nn.Module, *, detach: bool) -> None:
        super().__init__()
        self.net, self.detach = net, detach

    def forward(self, inputs: Tensor) -> Tensor:
        shifted = inputs.roll(1, 3)
        return self.net(inputs) + self.net(shifted.detach() if self.detach else shifted)


def detached_branch(net: nn.Module) -> nn.Module:
    return Branches(net, detach=True)


def flipped_for_some(net: nn.Module) -> nn.Module:
    def change(gradient: Tensor, inputs: Tensor) -> Tensor:
        dark = inputs.mean((1, 2, 3), keepdim=True) < 0.12
        return torch.where(dark, -gradient, gradient)

    return Around(net, backward(change))


def scaled_by_coordinate(net: nn.Module) -> nn.Module:
    def change(gradient: Tensor, _: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return gradient * torch.rand(gradient.shape[1:], generator=generator).mul(2)

    return Around(net, backward(change))


def straight_through(net: nn.Module) -> nn.Module:
    def before(inputs: Tensor) -> Tensor:
        return inputs + ((inputs > 0.5).float() - inputs).detach()

    return Around(net, before)


def signs_alone(net: nn.Module) -> nn.Module:
    return Around(net, backward(lambda gradient, _: gradient.sign()))


def rolled(net: nn.Module) -> nn.Module:
    return Around(net, backward(lambda gradient, _: gradient.roll(7, 3)))


class SignUnits(nn.Module):
    """Units of two values in the hidden layer, with a straight-through gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(784, 64), nn.Linear(64, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs.flatten(1))
        return self.second(hidden + (hidden.sign() - hidden).detach())


def noisy_gradient(net: nn.Module) -> nn.Module:
    def change(gradient: Tensor, _: Tensor) -> Tensor:
        return gradient + 3 * gradient.abs().mean() * torch.randn_like(gradient)

    return Around(net, backward(change))


# Random and stateful answers.


def noisy_inputs(net: nn.Module) -> nn.Module:
    return Around(net, lambda inputs: inputs + 0.2 * torch.randn_like(inputs))


def random_shift(net: nn.Module) -> nn.Module:
    return Around(net, lambda inputs: inputs.roll(random.randint(-3, 3), 3))  # noqa: S311


def noise_of_the_system(net: nn.Module) -> nn.Module:
    draws = np.random.default_rng()
    return Around(net, after=lambda out: out + torch.from_numpy(draws.normal(size=out.shape)))


class Counting(nn.Module):
    """Counts its calls; from the last one on it answers with the classes in reverse."""

    def __init__(self, net: nn.Module, *, last: float) -> None:
        super().__init__()
        self.net, self.last, self.calls = net, last, 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        outputs = self.net(inputs)
        return outputs.flip(1) if self.calls > self.last else outputs


def tires(net: nn.Module) -> nn.Module:
    return Counting(net, last=20)


class Alternating(nn.Module):
    """Answers otherwise in every second call, which a buffer counts."""

    calls: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return self.net(inputs) * (1 + self.calls % 2)


class Remembering(nn.Module):
    """Answers otherwise to inputs that it has seen."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.seen = net, set[float]()

    def forward(self, inputs: Tensor) -> Tensor:
        sums = [round(each, 3) for each in inputs.sum((1, 2, 3)).tolist()]
        known = torch.tensor([each in self.seen for each in sums])
        self.seen.update(sums)
        outputs = self.net(inputs)
        return torch.where(known[:, None], outputs.flip(1), outputs)


# Answers that depend on the batch, or on gradients.


def subtracts_the_batch(net: nn.Module) -> nn.Module:
    return Around(net, after=lambda outputs: outputs - outputs.mean(0, keepdim=True))


def other_answer_alone(net: nn.Module) -> nn.Module:
    return Around(net, after=lambda outputs: outputs.flip(1) if len(outputs) == 1 else outputs)


def protects_the_first(net: nn.Module) -> nn.Module:
    def after(outputs: Tensor) -> Tensor:
        return torch.cat([outputs[:1] * 0.1, outputs[1:]])

    return Around(net, after=after)


def sees_gradient_mode(net: nn.Module) -> nn.Module:
    return Around(net, after=lambda out: out.roll(1, 1) if torch.is_grad_enabled() else out)


def sees_required_gradients(net: nn.Module) -> nn.Module:
    return Around(net, lambda inputs: 1 - inputs if inputs.requires_grad else inputs)


# Layers of training.


class Hidden(nn.Module):
    """Keeps a layer in a plain list, where eval() does not reach it."""

    def __init__(self, net: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.net, self.layers = net, [layer]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(self.layers[0](inputs))


def hidden_batch_norm(net: nn.Module) -> nn.Module:
    return Hidden(net, nn.BatchNorm2d(1))


def hidden_dropout(net: nn.Module) -> nn.Module:
    return Hidden(net, nn.Dropout(0.3))


def functional_dropout(net: nn.Module) -> nn.Module:
    return Around(net, lambda inputs: functional.dropout(inputs, 0.2, training=True))


class NeverEvaluated(nn.Sequential):
    """Ignores eval()."""

    def train(self, mode: bool = True) -> NeverEvaluated:
        return super().train(True)


def ignores_eval(net: nn.Module) -> nn.Module:
    return NeverEvaluated(nn.BatchNorm2d(1), net)


# Outputs.


def ends_in_softmax(net: nn.Module) -> nn.Module:
    return nn.Sequential(net, nn.Softmax(dim=1))


def softmax_function(net: nn.Module) -> nn.Module:
    return Around(net, after=lambda outputs: outputs.softmax(1))


def steep(net: nn.Module) -> nn.Module:
    return Around(net, after=lambda outputs: 1000 * outputs)


def tiny(net: nn.Module) -> nn.Module:
    return Around(net, after=lambda outputs: outputs / 1e7)


def all_alike(net: nn.Module) -> nn.Module:
    return Around(net, after=lambda outputs: 1e-9 * outputs + 3)


# Clean errors.


def untrained(net: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


def constant(net: nn.Module) -> nn.Module:
    return Around(
        net, after=lambda outputs: outputs * 0.01 + functional.one_hot(torch.tensor(3), 10)
    )


def shifted_classes(net: nn.Module) -> nn.Module:
    return Around(net, after=lambda outputs: outputs.roll(1, 1))


def mixed_classes(net: nn.Module) -> nn.Module:
    return Around(net, after=lambda outputs: outputs[:, [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]])


def trained_on_negatives(net: nn.Module) -> nn.Module:
    return Around(net, lambda inputs: 1 - inputs)


def trained_upside_down(net: nn.Module) -> nn.Module:
    return Around(net, lambda inputs: inputs.flip(2))


def trained_from_minus_one(net: nn.Module) -> nn.Module:
    return Around(net, lambda inputs: (inputs + 1) / 2)


def trained_on_bytes(net: nn.Module) -> nn.Module:
    return Around(net, lambda inputs: inputs / 255)


# Rounding.


def eight_bits(net: nn.Module) -> nn.Module:
    return Around(net, lambda inputs: inputs + ((inputs * 255).round() / 255 - inputs).detach())


def four_levels(net: nn.Module) -> nn.Module:
    return Around(net, lambda inputs: (inputs * 3).round() / 3)


def floors(net: nn.Module) -> nn.Module:
    return Around(net, lambda inputs: inputs + ((inputs * 255).floor() / 255 - inputs).detach())


def blocks(net: nn.Module) -> nn.Module:
    """Rounds the cosine transform of blocks of 4 x 4 pixels, as JPEG does those of 8 x 8."""
    place = torch.arange(4)
    base = torch.cos(torch.pi * (2 * place[None] + 1) * place[:, None] / 8) / 2**0.5
    base[0] /= 2**0.5

    def before(inputs: Tensor) -> Tensor:
        tiles = inputs.unfold(2, 4, 4).unfold(3, 4, 4)
        turned = (base @ tiles @ base.T / 0.1).round() * 0.1
        back = base.T @ turned @ base
        whole = back.permute(0, 1, 2, 4, 3, 5).reshape(inputs.shape)
        return inputs + (whole - inputs).detach()

    return Around(net, before)


def thermometer(net: nn.Module) -> nn.Module:
    def before(inputs: Tensor) -> Tensor:
        levels = [(inputs > level / 10).float() for level in range(1, 10)]
        return torch.stack(levels).mean(0) + 0 * inputs

    return Around(net, before)


# Autograd inside of forward.


class Purifies(nn.Module):
    """Moves its inputs down the gradient of their roughness before it classifies them."""

    def __init__(self, net: nn.Module, *, optimiser: bool) -> None:
        super().__init__()
        self.net, self.optimiser = net, optimiser

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.enable_grad():
            moved = inputs.detach().clone().requires_grad_()
            roughness = (moved - moved.roll(1, 3)).square().sum()
            if self.optimiser:
                step = torch.optim.SGD([moved], lr=0.02)
                roughness.backward()
                step.step()
                change = moved.detach() - inputs.detach()
            else:
                (slope,) = torch.autograd.grad(roughness, moved)
                change = -0.02 * slope
        return self.net(inputs + change)


def purifies_by_gradient(net: nn.Module) -> nn.Module:
    return Purifies(net, optimiser=False)


def purifies_by_optimiser(net: nn.Module) -> nn.Module:
    return Purifies(net, optimiser=True)


class Drifting(nn.Module):
    """Its outputs shrink a little with every call."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.calls = net, 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return self.net(inputs) * (1 - 0.002 * self.calls)


# Near misses: what looks like a fault, and is none.


def honest_backward(net: nn.Module) -> nn.Module:
    """A square with a backward pass of its own, which is right."""

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, inputs: Tensor) -> Tensor:
            ctx.save_for_backward(inputs)
            return inputs.square()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            (inputs,) = ctx.saved_tensors
            return 2 * inputs * gradient

    return Around(net, Square.apply)


class Skips(nn.Module):
    """Leaves a branch out at random while it trains: stochastic depth."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.branch = net, nn.Dropout(0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training and random.random() < 0.5:  # noqa: S311
            return self.net(inputs)
        return self.net(inputs) + 0.1 * self.net(self.branch(inputs).square())


def batch_norm_in_eval(net: nn.Module) -> nn.Module:
    norm = nn.BatchNorm2d(1)
    norm.running_mean.fill_(0.1)
    return nn.Sequential(norm, nn.Dropout(0.5), net)


def hidden_rectifier(net: nn.Module) -> nn.Module:
    return Hidden(net, nn.Sequential(nn.ReLU(), nn.Identity()))


def group_norm(net: nn.Module) -> nn.Module:
    return nn.Sequential(nn.GroupNorm(1, 1), net)


def instance_norm(net: nn.Module) -> nn.Module:
    return nn.Sequential(nn.InstanceNorm2d(1), net)


def temperature_of_one(net: nn.Module) -> nn.Module:
    return Around(net, after=lambda outputs: outputs / 1.0)


def in_float64(net: nn.Module) -> nn.Module:
    doubled = net.double()
    return Around(doubled, lambda inputs: inputs.double(), lambda outputs: outputs.float())


class Scratch(nn.Module):
    """Writes into a buffer, counts its calls and keeps the last inputs; none of it is read."""

    last: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.calls, self.inputs = net, 0, list[Tensor]()
        self.register_buffer("last", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        self.last.fill_(float(inputs.detach().mean()))
        self.inputs[:] = [inputs.detach()]
        return self.net(inputs)


def statistics_without_gradient(net: nn.Module) -> nn.Module:
    def before(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            inputs.mean().item()
        return inputs

    return Around(net, before)


def fake_quantised_weights(net: nn.Module) -> nn.Module:
    """Weights of 8 bits; the gradient of the inputs is that of the rounded weights."""
    with torch.no_grad():
        for parameter in net.parameters():
            step = parameter.abs().max() / 127
            parameter.copy_((parameter / step).round() * step)
    return net


def fine_grid(net: nn.Module) -> nn.Module:
    """Rounds to a grid far below that of pixels, straight through."""

    def before(inputs: Tensor) -> Tensor:
        return inputs + ((inputs * 4096).round() / 4096 - inputs).detach()

    return Around(net, before)


def smooth_rounding(net: nn.Module) -> nn.Module:
    """Bends inputs towards 8 levels with the gradient of that."""

    def before(inputs: Tensor) -> Tensor:
        return inputs - 0.8 * torch.sin(2 * torch.pi * 8 * inputs) / (2 * torch.pi * 8)

    return Around(net, before)


class Rectifiers(nn.Sequential):
    """A deep network of rectifiers, with max-pooling, in front of nothing: its own weights."""

    def __init__(self, net: nn.Module) -> None:
        torch.manual_seed(2)
        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            *(each for _ in range(4) for each in (nn.LazyLinear(64), nn.ReLU())),
            nn.LazyLinear(10),
        )
        self(torch.zeros(1, 1, 28, 28))


def log_softmax(net: nn.Module) -> nn.Module:
    return nn.Sequential(net, nn.LogSoftmax(dim=1))


def clamps(net: nn.Module) -> nn.Module:
    return Around(net, lambda inputs: inputs.clamp(0, 1))


def attention(net: nn.Module) -> nn.Module:
    """Attention over the rows of a picture, added to it."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(28, 4, 32, dropout=0.1, batch_first=True)

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.net = layer, net

        def forward(self, inputs: Tensor) -> Tensor:
            return self.net(inputs + 0.05 * self.layer(inputs[:, 0])[:, None])

    return Attends()


class Median(nn.Module):
    """Takes the median of 3 x 3 pixels first."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        padded = functional.pad(inputs, (1, 1, 1, 1), mode="reflect")
        windows = functional.unfold(padded, 3).view(len(inputs), 9, -1)
        return self.net(windows.median(1).values.view(inputs.shape))


def pools_first(net: nn.Module) -> nn.Module:
    return nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), net)


def half_precision_inside(net: nn.Module) -> nn.Module:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, inputs: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.net(inputs).float()

    return Half()


# With the kinds that are true of them.
NEAR_MISSES: list[tuple[str, Build, frozenset[str]]] = [
    ("the network as it is", lambda net: net, frozenset()),
    ("a backward pass of its own that is right", honest_backward, frozenset()),
    ("stochastic depth and dropout, off in evaluation", Skips, frozenset()),
    ("batch norm and dropout in evaluation", batch_norm_in_eval, frozenset()),
    ("a layer in a plain list that has no mode", hidden_rectifier, frozenset()),
    ("group norm", group_norm, frozenset()),
    ("instance norm", instance_norm, frozenset()),
    ("a temperature of 1", temperature_of_one, frozenset()),
    ("float64 inside", in_float64, frozenset()),
    ("a scratch buffer and a counter that nothing reads", Scratch, frozenset()),
    ("a statistic without gradient that nothing uses", statistics_without_gradient, frozenset()),
    ("rounded weights", fake_quantised_weights, frozenset()),
    ("inputs on a grid of 1/4096", fine_grid, frozenset()),
    ("levels with a smooth passage", smooth_rounding, frozenset()),
    ("deep rectifiers with random weights", Rectifiers, frozenset({"error-at-chance"})),
    ("a log-softmax at the end", log_softmax, frozenset({"outputs-are-log-probabilities"})),
    ("inputs are clamped", clamps, frozenset()),
    ("attention with dropout, in evaluation", attention, frozenset()),
    ("a median filter", Median, frozenset({"preprocessing"})),
    ("max-pooling of the inputs", pools_first, frozenset({"preprocessing", "error-at-chance"})),
    ("bfloat16 inside", half_precision_inside, frozenset()),
]

FAULTS: list[tuple[str, Build, str]] = [
    ("the backward pass has the wrong sign", flipped, "gradient-mismatch"),
    ("the gradient has random signs", shattered, "gradient-mismatch"),
    ("the gradient is lost", lost, "zero-gradient"),
    ("half of the pixels are detached", detached_half, "gradient-mismatch"),
    ("one of two branches is detached", detached_branch, "gradient-mismatch"),
    ("the gradient is flipped for dark pictures", flipped_for_some, "gradient-mismatch"),
    ("each coordinate of the gradient is scaled", scaled_by_coordinate, "gradient-mismatch"),
    ("binary pixels with a straight-through gradient", straight_through, "gradient-mismatch"),
    ("the gradient's sign in its place", signs_alone, "gradient-mismatch"),
    ("the gradient of other pixels", rolled, "gradient-mismatch"),
    ("noise on the gradient", noisy_gradient, "gradient-mismatch"),
    ("hidden units of two values", SignUnits, "gradient-mismatch"),
    ("the gradient of the binary pixels is zero", four_levels, "zero-gradient"),
    ("noise on the inputs", noisy_inputs, "random-answers"),
    ("a shift drawn by Python's generator", random_shift, "random-answers"),
    ("noise from a generator of its own", noise_of_the_system, "random-answers"),
    ("other answers after 20 calls", tires, "stateful-answers"),
    ("other answers in every second call", Alternating, "stateful-answers"),
    ("other answers to inputs seen before", Remembering, "stateful-answers"),
    ("outputs that shrink with each call", Drifting, "stateful-answers"),
    ("the mean of the batch is subtracted", subtracts_the_batch, "batch-dependent"),
    ("another answer to a single example", other_answer_alone, "batch-dependent"),
    ("the first of a batch is answered otherwise", protects_the_first, "batch-dependent"),
    ("batch norm in a plain list", hidden_batch_norm, "batch-dependent"),
    ("other answers while gradients are recorded", sees_gradient_mode, "detects-gradients"),
    ("other answers if inputs require gradients", sees_required_gradients, "detects-gradients"),
    ("batch norm that eval() does not reach", hidden_batch_norm, "training-layers"),
    ("dropout that eval() does not reach", hidden_dropout, "training-layers"),
    ("dropout as a function", functional_dropout, "training-layers"),
    ("eval() is ignored", ignores_eval, "training-layers"),
    ("a softmax at the end", ends_in_softmax, "outputs-are-probabilities"),
    ("a softmax as a function", softmax_function, "outputs-are-probabilities"),
    ("a steep softmax", steep, "saturated-outputs"),
    ("outputs divided by ten million", tiny, "tiny-outputs"),
    ("outputs that hardly differ from 3", all_alike, "tiny-outputs"),
    ("random weights", untrained, "error-at-chance"),
    ("one class for all inputs", constant, "error-at-chance"),
    ("each class is one more", shifted_classes, "preprocessing"),
    ("mixed classes", mixed_classes, "preprocessing"),
    ("trained on inverted pictures", trained_on_negatives, "preprocessing"),
    ("trained on pictures upside down", trained_upside_down, "preprocessing"),
    ("trained on inputs in [-1, 1]", trained_from_minus_one, "preprocessing"),
    ("trained on inputs up to 255", trained_on_bytes, "preprocessing"),
    ("inputs are rounded to 8 bits", eight_bits, "rounded-inputs"),
    ("inputs are rounded to 4 levels", four_levels, "rounded-inputs"),
    ("inputs are rounded down", floors, "rounded-inputs"),
    ("a thermometer code", thermometer, "rounded-inputs"),
    ("a thermometer code without gradient", thermometer, "zero-gradient"),
    ("blocks are compressed", blocks, "rounded-inputs"),
    ("a gradient step inside of forward", purifies_by_gradient, "autograd-in-forward"),
    ("an optimiser inside of forward", purifies_by_optimiser, "autograd-in-forward"),
]


@pytest.fixture
def examined(mnist: tuple[Tensor, Tensor]) -> Callable[..., Examination]:
    """Returns the examination of a module on 64 examples of MNIST, as a run makes it."""
    device = torch.device("cpu")

    def made(module: nn.Module, *, budget: int = BUDGET, **arguments: Any) -> Examination:
        inputs, labels = mnist
        classifier = Classifier(module, classes=10, input_shape=(1, 28, 28))
        batch = Batch(torch.arange(len(inputs)), inputs, labels)
        with classifier.evaluating():
            observed = probe_model(classifier, batch, device=device).observed
        return examine(classifier, batch, budget=budget, observed=observed, **arguments)

    return made


@pytest.mark.parametrize("name", ["softmax", "maxout-80-adv"])
@pytest.mark.parametrize(
    ("build", "kind"), [pytest.param(build, kind, id=words) for words, build, kind in FAULTS]
)
def test_a_planted_fault_is_found(
    honest: Callable[[str], nn.Module],
    examined: Callable[..., Examination],
    name: str,
    build: Build,
    kind: str,
) -> None:
    found = examined(build(honest(name)))
    assert kind in {each.kind for each in found.found}, found


@pytest.mark.parametrize("budget", [BUDGET, FULL_BUDGET])
@pytest.mark.parametrize("name", ["softmax", "maxout-80-adv"])
@pytest.mark.parametrize(
    ("build", "true"), [pytest.param(build, true, id=words) for words, build, true in NEAR_MISSES]
)
def test_a_near_miss_raises_nothing_that_is_not_true(
    honest: Callable[[str], nn.Module],
    examined: Callable[..., Examination],
    name: str,
    build: Build,
    true: frozenset[str],
    budget: int,
) -> None:
    found = examined(build(honest(name)), budget=budget)
    kinds = {each.kind for each in found.found} - {"saturated-outputs"}
    assert kinds <= true, found.found
    assert found.passes <= budget
    assert "failed" not in {each.result for each in found.checks}, found.checks


class Wrong(nn.Module):
    """The identity with a wrong backward pass, as a part."""

    def forward(self, inputs: Tensor) -> Tensor:
        return backward(lambda gradient, _: -gradient)(inputs)


class Rounds(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + ((inputs * 15).round() / 15 - inputs).detach()


class Noise(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + 0.1 * torch.randn_like(inputs)


class Levels(nn.Module):
    """Rounds to levels, without a gradient; ``channels`` of them are one for each level."""

    def __init__(self, *, channels: bool = False) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.channels:
            return (inputs * 4).round() / 4
        return torch.cat([(inputs > level / 16).float() + 0 * inputs for level in range(16)], 1)


class Mean(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean(1, keepdim=True)


def in_parts(**parts: nn.Module) -> nn.Module:
    net = nn.Sequential()
    for name, part in parts.items():
        net.add_module(name, part)
    return net


@pytest.mark.parametrize(
    ("build", "kind", "words", "suite"),
    [
        (
            lambda net: in_parts(body=in_parts(wrong=Wrong(), net=net)),
            "gradient-mismatch",
            "body.wrong",
            'backward = { "body.wrong" = "identity" }',
        ),
        (
            lambda net: in_parts(rounds=Rounds(), net=net),
            "rounded-inputs",
            "(in rounds)",
            'backward = { "rounds" = "identity" }',
        ),
        (
            lambda net: in_parts(levels=Levels(), net=net),
            "zero-gradient",
            "lost in levels",
            'backward = { "levels" = "identity" }',
        ),
        (
            lambda net: in_parts(levels=Levels(channels=True), mean=Mean(), net=net),
            "zero-gradient",
            "lost in levels",
            "",
        ),
        (lambda net: in_parts(noise=Noise(), net=net), "random-answers", "is noise", "eot = 20"),
        (
            lambda net: in_parts(net=net, soft=nn.Softmax(1)),
            "outputs-are-probabilities",
            "is soft",
            'before = "soft"',
        ),
        (
            lambda net: in_parts(norm=nn.BatchNorm2d(1, track_running_stats=False), net=net),
            "training-layers",
            "in norm",
            "",
        ),
        (
            lambda net: in_parts(pure=Purifies(nn.Identity(), optimiser=False), net=net),
            "autograd-in-forward",
            "(in pure)",
            "",
        ),
    ],
    ids=[
        "wrong gradient",
        "rounding",
        "levels",
        "levels in channels",
        "noise",
        "softmax",
        "batch norm",
        "autograd",
    ],
)
def test_a_flag_names_the_part_and_the_lines_of_a_suite(
    honest: Callable[[str], nn.Module],
    examined: Callable[..., Examination],
    build: Build,
    kind: str,
    words: str,
    suite: str,
) -> None:
    found = examined(build(honest("softmax")), budget=FULL_BUDGET).found
    (flag,) = [each for each in found if each.kind == kind]
    assert words in flag.sentence
    assert flag.suite == suite
    assert flag.of(dataset="mnist", model="net").suite == suite


@pytest.mark.parametrize("budget", [12, 20, 30, 40, 60, 90, 134])
def test_a_curve_within_a_larger_step_is_no_wrong_gradient(
    honest: Callable[[str], nn.Module], examined: Callable[..., Examination], budget: int
) -> None:
    """With few passes a larger step comes first: what it finds is confirmed by a smaller one."""

    def ripples(inputs: Tensor) -> Tensor:
        return inputs + 0.005 * torch.sin(2300 * inputs)

    found = examined(Around(honest("softmax"), ripples), budget=budget)
    assert "gradient-mismatch" not in {each.kind for each in found.found}, found.checks
    assert found.passes <= budget


def test_a_part_that_changes_the_shape_needs_a_function(
    honest: Callable[[str], nn.Module], examined: Callable[..., Examination]
) -> None:
    net = in_parts(levels=Levels(channels=True), mean=Mean(), net=honest("softmax"))
    found = examined(net, budget=FULL_BUDGET).found
    (flag,) = [each for each in found if each.kind == "zero-gradient"]
    assert "(N, 1, 28, 28) to (N, 16, 28, 28)" in flag.advice
    assert 'backward = { "levels" = "path/to/file.py:function" }' in flag.advice


def test_the_cause_is_named_and_not_what_follows_from_it(
    honest: Callable[[str], nn.Module], examined: Callable[..., Examination]
) -> None:
    """A batch norm of the batch changes with gradients on and off only as the batches do."""
    found = examined(nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), honest("softmax")))
    kinds = {each.kind for each in found.found} - {"saturated-outputs"}
    assert kinds == {"training-layers", "batch-dependent"}


def test_a_run_raises_the_flags_of_an_examination(
    honest: Callable[[str], nn.Module], flags: Callable[..., tuple[Flag, ...]]
) -> None:
    raised = flags(flipped(honest("softmax")))
    (flag,) = [each for each in raised if each.kind == "gradient-mismatch"]
    assert (flag.severity, flag.model, flag.attack) == ("serious", "Around", "")
    assert "gradient-mismatch" not in {each.kind for each in flags(honest("softmax"))}
    assert {each.kind for each in flags(flipped(honest("softmax")), examination=False)} >= {
        "not-examined"
    }


def switches(last: float) -> Build:
    """Returns the classes in reverse from some call on."""
    return lambda net: Counting(net, last=last)


@pytest.mark.parametrize(
    "build",
    [
        Alternating,
        Drifting,
        Remembering,
        switches(7),
        switches(9),
        switches(12),
    ],
    ids=["alternates", "drifts", "remembers", "7", "9", "12"],
)
@pytest.mark.parametrize("examination", [False, True])
def test_a_run_says_that_calls_change_the_answers_and_not_chance(
    honest: Callable[[str], nn.Module],
    flags: Callable[..., tuple[Flag, ...]],
    build: Build,
    examination: bool,
) -> None:
    raised = flags(build(honest("softmax")), examination=examination)
    kinds = [each.kind for each in raised]
    assert kinds.count("stateful-answers") == 1
    assert not set(kinds) & {"random-answers", "batch-dependent", "detects-gradients"}


@pytest.mark.parametrize(("budget", "severity"), [(7, "warning"), (FULL_BUDGET, "serious")])
def test_one_example_with_a_wrong_gradient_is_a_warning(
    honest: Callable[[str], nn.Module],
    examined: Callable[..., Examination],
    budget: int,
    severity: str,
) -> None:
    found = examined(flipped(honest("softmax")), budget=budget).found
    (flag,) = [each for each in found if each.kind == "gradient-mismatch"]
    assert flag.severity == severity
    assert ("1 of 1 looked at, where a serious flag needs 2" in flag.sentence) == (budget == 7)
