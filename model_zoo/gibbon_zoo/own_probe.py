"""Numbers by which a user's network is known again, whatever its weights are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from gibbon.core.rng import derive_key, seeded_globals
from gibbon_zoo.trained_network import TrainedNetwork, put_back

PROBED = 8  # inputs
# Two processors round differently; a unit that is dropped, or another activation, moves far more.
RELATIVE, ABSOLUTE = 1e-3, 1e-5
CPU = torch.device("cpu")

Probe = tuple[float, ...]


def probe_network(network: TrainedNetwork, input_shape: tuple[int, ...]) -> Probe:
    """Returns what a network computes with fixed weights on fixed inputs, in both modes.

    The numbers are the root mean squares of the outputs and of the gradients by the inputs and by
    each trained parameter, in evaluation mode and in training mode, where layers such as dropout
    draw from a fixed seed.  They depend on the network's code and structure, not on its weights:
    these are put back, as are the modes and the device.  Empty if the network fails on them.
    """
    plain = TrainedNetwork(network.whole, network.module, network.rule, network.bounds)
    before = {key: _cloned(value) for key, value in network.module.state_dict().items()}
    try:
        # A user's code can raise any exception; training names what is wrong.
        with suppress(Exception), put_back(network.whole):
            network.whole.to(CPU)
            with seeded_globals(derive_key("probe"), CPU):
                low, high = network.bounds.low, network.bounds.high
                inputs = low + (high - low) * torch.rand(PROBED, *input_shape)
                _fill(network.module)
                filled = {key: _cloned(each) for key, each in network.module.state_dict().items()}
            found = _measured(plain, inputs, training=False)
            network.module.load_state_dict(filled)
            return (*found, *_measured(plain, inputs, training=True))
        return ()
    finally:
        network.module.load_state_dict(before)


def is_same_probe(one: Sequence[float], other: Sequence[float]) -> bool:
    """Returns whether two probes are equal up to rounding, or one of them is not known.

    >>> is_same_probe((1.0, 0.0), (1.0001, 0.0)), is_same_probe((1.0,), ())
    (True, True)
    >>> is_same_probe((1.0,), (1.1,)), is_same_probe((1.0,), (1.0, 2.0))
    (False, False)
    """
    if not one or not other:
        return True
    return len(one) == len(other) and all(
        math.isclose(*pair, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
        for pair in zip(one, other, strict=True)
    )


def _measured(network: TrainedNetwork, inputs: Tensor, *, training: bool) -> list[float]:
    network.whole.train(training)
    with seeded_globals(derive_key("probe", int(training)), CPU), torch.enable_grad():
        leaf = inputs.clone().requires_grad_()
        outputs = network.outputs(leaf)
        weights = torch.linspace(-1.0, 1.0, outputs.numel()).view_as(outputs)
        trained = [each for each in network.module.parameters() if each.requires_grad]
        found = torch.autograd.grad(
            (torch.tanh(outputs) * weights).sum(), [leaf, *trained], allow_unused=True
        )
    return [_size(each) for each in (outputs, *found)]


def _size(values: Tensor | None) -> float:
    """Returns the root mean square, to six digits; 0 of nothing, -1 if it is not finite."""
    if values is None or values.numel() == 0:
        return 0.0
    size = float(values.detach().double().square().mean().sqrt())
    return float(f"{size:.6g}") if math.isfinite(size) else -1.0


def _fill(module: nn.Module) -> None:
    """Sets all parameters, and what is stored beside them, to draws of a usual size."""
    with torch.no_grad():
        for value in module.state_dict().values():
            if not isinstance(value, Tensor) or not value.is_floating_point():
                continue
            if value.ndim < 2:
                value.uniform_(0.5, 1.5)
            else:
                value.normal_().div_(math.sqrt(math.prod(value.shape[1:])))


def _cloned(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value
