"""Any grad mode, default dtype, autocast and dtype of outputs gives the numbers made by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gibbon import evaluate
from gibbon.core.errors import ModelError
from gibbon.models.classifier import Classifier
from gibbon.models.shielding import GradientsEnabled, WithoutCudnn

COUNT = 60
EPSILON = 0.05
KNOWN = {"examination": False, "bounds": "none"}


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    batch = nets.random_batch(count=COUNT)
    labels = nets.linear().module(batch.inputs).argmax(1)
    labels[:6] = (labels[:6] + 1) % nets.CLASSES
    return batch.inputs, labels


def by_hand(model: nn.Module, data: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Returns the clean error and that under FGSM."""
    inputs, labels = data
    leaf = inputs.clone().requires_grad_()
    loss = functional.cross_entropy(model(leaf).float(), labels)
    (gradient,) = torch.autograd.grad(loss, leaf)
    points = (inputs + EPSILON * gradient.sign()).clamp(0, 1)

    def error(of: Tensor) -> float:
        return float((model(of).float().argmax(1) != labels).double().mean())

    return error(inputs), error(points)


def measured(model: nn.Module, data: tuple[Tensor, Tensor]) -> tuple[float, float]:
    found = evaluate(model, data, attack="fgsm", epsilon=EPSILON, **KNOWN)
    assert not found.failures
    assert not [each for each in found.record.flags if each.kind == "no-gradient-taken"]
    return found.clean_error, found.adversarial_error


@contextmanager
def double_by_default():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "around",
    [
        torch.no_grad,
        torch.inference_mode,
        double_by_default,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: torch.autograd.set_detect_anomaly(True),
    ],
)
def test_a_call_inside_of_a_mode_gives_the_numbers_outside(around, data):
    model = nets.linear().module
    outside = measured(model, data)
    manager: AbstractContextManager = around()
    with manager:
        given = tuple(each.clone() for each in data)
        assert measured(model, given) == outside
        inside = (
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.is_inference_mode_enabled(),
        )
    with around():
        assert inside == (
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.is_inference_mode_enabled(),
        )
    assert outside == pytest.approx(by_hand(model, data))
    assert outside[0] == 0.1


class Mixed(nn.Module):
    """Computes in another dtype, and returns outputs of it."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.dtype = nets.linear().module, dtype

    def forward(self, inputs: Tensor) -> Tensor:
        if self.dtype is torch.float64:
            return self.net(inputs).double()
        with torch.autocast("cpu", dtype=self.dtype):
            return self.net(inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_outputs_of_any_floating_dtype_are_read(dtype, data):
    clean, attacked = measured(Mixed(dtype), data)
    expected = by_hand(Mixed(dtype), data)
    assert (clean, attacked) == pytest.approx(expected, abs=2.01 / COUNT)  # ties of few digits


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_parameters_of_any_floating_dtype_get_inputs_of_it(dtype, data):
    with double_by_default():
        model = nets.linear().module.to(dtype)
        clean, attacked = measured(model, data)
    expected = by_hand(nets.linear().module, data)
    assert (clean, attacked) == pytest.approx(expected, abs=4.01 / COUNT)  # ties of few digits


class Differentiates(nn.Module):
    """Takes a gradient in ``forward``, which fails if none are recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.linear().module

    def forward(self, inputs: Tensor) -> Tensor:
        point = inputs if inputs.requires_grad else inputs.detach().requires_grad_()
        energy = -self.net(point).logsumexp(1).sum()
        (step,) = torch.autograd.grad(energy, point, create_graph=inputs.requires_grad)
        return self.net(inputs - 0.01 * step)


def test_a_model_that_differentiates_in_forward_is_evaluated(data):
    assert measured(Differentiates(), data) == pytest.approx(by_hand(Differentiates(), data))
    with torch.no_grad():
        assert not GradientsEnabled(Differentiates())(data[0]).requires_grad


def quantised() -> nn.Module:
    net = nets.linear().module.eval()
    return torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)


class Static(nn.Module):
    """Between the stubs of static quantisation."""

    def __init__(self, *, leaves: bool) -> None:
        super().__init__()
        self.first, self.net = torch.ao.quantization.QuantStub(), nets.linear().module
        self.last = nn.Identity() if leaves else torch.ao.quantization.DeQuantStub()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.net(self.first(inputs)))


def statically_quantised(*, leaves: bool) -> nn.Module:
    model = Static(leaves=leaves).eval()
    model.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    torch.ao.quantization.prepare(model, inplace=True)
    model(nets.random_batch(count=COUNT).inputs)
    torch.ao.quantization.convert(model, inplace=True)
    return model


INTEGERS: list[Callable[[], nn.Module]] = [
    quantised,
    lambda: statically_quantised(leaves=False),
    lambda: statically_quantised(leaves=True),
]
IGNORED = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:UserWarning")


@IGNORED
@pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="needs fbgemm"
)
@pytest.mark.parametrize("build", INTEGERS)
def test_networks_in_integers_are_evaluated_without_gradients(build, data):
    torch.backends.quantized.engine = "fbgemm"
    model, (inputs, labels) = build(), data
    outputs = model(inputs)
    outputs = outputs.dequantize() if outputs.is_quantized else outputs
    error = float((outputs.argmax(1) != labels).double().mean())
    for attack in ("noise-sign", {"name": "square", "queries": 5}):
        found = evaluate(model, data, attack=attack, epsilon=EPSILON, **KNOWN)
        assert not found.failures
        assert found.clean_error == pytest.approx(error)
    with pytest.raises(ModelError, match="no gradient in its inputs: attack 'pgd' needs them"):
        evaluate(model, data, attack="pgd", epsilon=EPSILON, steps=2, **KNOWN)
    models = {"float": nets.linear().module, "int8": model}
    both = evaluate(models, data, attack="fgsm", epsilon=EPSILON, **KNOWN)
    assert not both.failures
    (row,) = [row for row in both.record.transfers if row.target == "int8"]
    assert row.source == "float"
    assert row.error > error


def test_a_network_that_was_made_in_inference_mode_gets_advice(data):
    with torch.inference_mode():
        model = nets.linear().module
    with pytest.raises(ModelError, match=r"made inside of torch.inference_mode\(\).*deepcopy"):
        evaluate(model, data, attack="fgsm", epsilon=EPSILON, **KNOWN)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.last = nn.GRU(6, 8, batch_first=True), nn.Linear(8, nets.CLASSES)
        self.seen: list[bool] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(torch.backends.cudnn.enabled)
        states, _ = self.rnn(inputs[:, 0])
        return self.last(states[:, -1])


def test_recurrent_layers_have_gradients_without_cudnn(data):
    inputs, labels = data
    model = Recurrent()
    around = Classifier(WithoutCudnn(model), classes=nets.CLASSES, input_shape=(1, 6, 6))
    before = torch.backends.cudnn.enabled
    with around.evaluating():
        gradient = around.loss_gradient(inputs, labels)
    assert model.seen == [False]
    assert torch.backends.cudnn.enabled is before
    assert float(gradient.abs().max()) > 0
    assert measured(model, data)[1] >= measured(model, data)[0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda outputs: outputs.argmax(1, keepdim=True).expand(-1, 4), "floating-point numbers"),
        (
            lambda outputs: outputs.to(torch.complex64),
            "floating-point numbers, got torch.complex64",
        ),
        (lambda outputs: outputs.to("meta"), "its output must have values, got a tensor on the m"),
    ],
)
def test_outputs_that_are_no_numbers_are_refused_by_name(change, named, data):
    class Answering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nets.linear().module

        def forward(self, inputs: Tensor) -> Tensor:
            return change(self.net(inputs))

    with nullcontext(), pytest.raises(ModelError, match=named):
        evaluate(Answering(), data, attack="fgsm", epsilon=EPSILON, **KNOWN)


class ByFunctions(nn.Module):
    """Moves its input along its own gradient, which torch.func gives."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.linear().module

    def forward(self, inputs: Tensor) -> Tensor:
        gradient = torch.func.grad(lambda points: self.net(points).logsumexp(1).sum())(inputs)
        return self.net(inputs - 0.001 * gradient)


class Narrow(nn.Module):
    """Returns outputs of eight bits."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.linear().module

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs).to(torch.float8_e5m2)


def test_a_model_that_differentiates_by_functions(data):
    assert measured(ByFunctions(), data) == by_hand(ByFunctions(), data)


def test_outputs_of_eight_bits_are_read(data):
    assert measured(Narrow(), data)[0] == by_hand(Narrow(), data)[0]


def test_labels_of_another_class_of_integers(data):
    inputs, labels = data
    plain = measured(nets.linear().module, data)
    assert measured(nets.linear().module, (inputs, labels.to(torch.bfloat16))) == plain
