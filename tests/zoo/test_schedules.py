"""Each schedule against values computed by hand, and the updates that come of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from small_trainings import ORIGINAL, SGD, blobs, build, fitted, recipe

from gibbon_zoo.architecture import Masks, constrain_norms, draw_masks
from gibbon_zoo.optimisers import make_optimiser, set_schedules
from gibbon_zoo.recipe import Optimiser, Recipe
from gibbon_zoo.schedules import Position, learning_rate, momentum
from gibbon_zoo.training import step_masks
from gibbon_zoo.training_objectives import descend

DECAY = {"factor": 1.000004, "minimum": 1e-6}


def sgd(**fields: object) -> Optimiser:
    return Optimiser.model_validate({"name": "sgd", "learning_rate": 0.1, **fields})


def rate(optimiser: Optimiser, *, updates: int = 0, epoch: int = 1, progress: float = 0.0) -> float:
    return learning_rate(optimiser, Position(updates, epoch, progress), base=0.1)


@pytest.mark.parametrize(
    ("updates", "value"),
    [
        (0, 0.1),
        (1, 0.1 / 1.000004),
        (3, 0.1 / 1.000004 / 1.000004 / 1.000004),
        # The authors' second script starts with this rate, after 243 epochs of 500 updates, which
        # was computed in float32.
        (121_500, 0.0615082606673),
        (3_000_000, 1e-6),  # 0.1 / 1.000004 ** 3e6 is 6.1e-7, below the minimum
        (10**9, 1e-6),  # whose power overflows
    ],
)
def test_the_rate_is_divided_after_every_update_down_to_its_minimum(
    updates: int, value: float
) -> None:
    assert rate(sgd(decay=DECAY), updates=updates) == pytest.approx(value, rel=1e-6)


def test_a_linear_schedule_falls_to_zero_over_the_training() -> None:
    falling = sgd(schedule="linear")
    values = [rate(falling, progress=share) for share in (0.0, 0.25, 0.9)]
    assert values == pytest.approx([0.1, 0.075, 0.01])
    assert rate(sgd(), updates=10**6, epoch=500, progress=0.99) == 0.1


def test_a_ramp_of_the_rate_is_linear_and_then_constant() -> None:
    """From 0.17 to a hundredth of it over 500 epochs, as for the convolutional network."""
    ramp = sgd(learning_rate=0.17, rate_ramp={"start": 1, "end": 500, "final": 0.0017})
    for epoch, value in ((1, 0.17), (2, 0.17 - 0.1683 / 499), (500, 0.0017), (785, 0.0017)):
        assert learning_rate(ramp, Position(0, epoch, 0.0), base=0.17) == pytest.approx(value)
    # A parameter with a rate of its own keeps its proportion.
    assert learning_rate(ramp, Position(0, 500, 0.0), base=0.34) == pytest.approx(0.0034)


def test_momentum_rises_linearly_from_its_start_and_saturates() -> None:
    rising = sgd(momentum=0.5, momentum_ramp={"start": 1, "end": 250, "final": 0.7})
    for epoch, value in ((1, 0.5), (2, 0.5 + 0.2 / 249), (125, 0.5 + 0.2 * 124 / 249), (250, 0.7)):
        assert momentum(rising, epoch=epoch) == pytest.approx(value, rel=1e-12)
    assert momentum(rising, epoch=1000) == 0.7
    # The authors' second script starts with the momentum of epoch 243, in float32 at the time.
    assert momentum(rising, epoch=243) == pytest.approx(0.694376766682, abs=1e-6)
    late = sgd(momentum=0.2, momentum_ramp={"start": 5, "end": 7, "final": 0.4})
    values = [momentum(late, epoch=epoch) for epoch in (1, 5, 6, 7, 8)]
    assert values == pytest.approx([0.2, 0.2, 0.3, 0.4, 0.4])
    step = sgd(momentum=0.2, momentum_ramp={"start": 3, "end": 3, "final": 0.9})
    assert [momentum(step, epoch=epoch) for epoch in (2, 3)] == [0.2, 0.9]
    assert momentum(sgd(momentum=0.3), epoch=50) == 0.3


@pytest.mark.parametrize("first", [0.0, 0.5])
def test_the_velocity_is_the_classical_one_while_rate_and_momentum_change(first: float) -> None:
    """v <- mu v - eta g, with the rate of the time inside of the velocity."""
    ramp = {"start": 1, "end": 4, "final": 0.9}
    plan = sgd(learning_rate=0.5, decay={"factor": 1.5}, momentum=first, momentum_ramp=ramp)
    module = torch.nn.Linear(3, 2).double()
    gradients = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    weight = module.weight.detach().clone()
    velocity = torch.zeros_like(weight)
    optimiser = make_optimiser(module, plan)
    for step, gradient in enumerate(gradients):  # an epoch has one step here
        mu = min(first + step / 3 * (0.9 - first), 0.9)
        velocity = mu * velocity - 0.5 / 1.5**step * gradient
        weight = weight + velocity
        module.weight.grad, module.bias.grad = gradient.clone(), torch.zeros(2).double()
        before = Position(step - 1, step, 0.0) if step else None
        now = Position(step, step + 1, 0.0)
        set_schedules(optimiser, plan, now=now, before=before, momentum_epoch=step + 1)
        optimiser.step()
        torch.testing.assert_close(module.weight.detach(), weight, rtol=1e-12, atol=1e-12)


def test_a_training_with_all_of_these_fields_is_its_formulas(tmp_path: Path) -> None:
    """Two epochs written out: order, masks, gradient, velocity, decay, momentum, norms."""
    plan = recipe(**{**ORIGINAL, "epochs": 2, "max_norm": 0.4})
    result = fitted(plan, tmp_path)
    from gibbon.core.rng import derive_key

    net = build(plan)
    inputs, labels = blobs()
    net.start(
        inputs, labels, spread=0.1, generator=torch.Generator().manual_seed(derive_key(0, "start"))
    )
    velocities = [torch.zeros_like(p) for p in net.parameters()]
    for step in range(26):
        epoch = step // 13
        if step % 13 == 0:
            key = derive_key(0, "order", epoch)
            order = torch.randperm(200, generator=torch.Generator().manual_seed(key))
        rows = order[step % 13 * 16 : step % 13 * 16 + 16]
        masks = draw_masks(
            net.layer_widths,
            len(rows),
            input_rate=0.2,
            hidden_rate=0.3,
            input_scale=1.0,
            generator=torch.Generator().manual_seed(derive_key(0, "masks", step)),
        )
        net.zero_grad()
        descend(net, plan, inputs=inputs[rows], labels=labels[rows], masks=masks)
        eta, mu = max(0.2 / 1.01**step, 0.12), 0.5 + 0.2 * epoch / 2
        with torch.no_grad():
            for velocity, parameter in zip(velocities, net.parameters(), strict=True):
                velocity.mul_(mu).sub_(eta * parameter.grad)
                parameter.add_(velocity)
        constrain_norms(net.unit_weights(), 0.4)
    for got, expected in zip(result.module.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
    records = result.history
    assert [record.epoch for record in records] == [1, 2]
    assert [record.momentum for record in records] == pytest.approx([0.5, 0.6])
    rates = [max(0.2 / 1.01**step, 0.12) for step in (12, 25)]
    assert [record.learning_rate for record in records] == pytest.approx(rates)


def test_the_loss_of_an_epoch_is_the_mean_over_its_steps(tmp_path: Path) -> None:
    # One batch an epoch, and a rate so small that nothing changes.
    still = {"name": "sgd", "learning_rate": 1e-12}
    plan = recipe(architecture="softmax", batch_size=200, epochs=2, spread=0.0, optimiser=still)
    losses = [record.loss for record in fitted(plan, tmp_path).history]
    assert losses == pytest.approx([math.log(4)] * 2, rel=1e-6)


def masks_of(plan: Recipe) -> Masks:
    drawn = step_masks(build(plan), plan, 0, 400, torch.device("cpu"))
    assert list(drawn) == ["masks"]
    return drawn["masks"]


def test_dropout_keeps_inputs_as_they_are_or_scales_what_is_kept() -> None:
    dropout = {"inputs": 0.2, "inputs_scale": 1.0, "hidden": 0.5, "hidden_scale": 3.0}
    plan = recipe(architecture="maxout", dropout=dropout, optimiser=SGD)
    masks = masks_of(plan)
    values = [sorted(set(mask.flatten().tolist())) for mask in masks if mask is not None]
    assert values == [[0.0, 1.0], [0.0, 3.0], [0.0, 3.0]]
    # The draws are those of the rescaled form, and so is the default of the hidden layers: 2.
    plain = recipe(architecture="maxout", dropout={"inputs": 0.2, "hidden": 0.5}, optimiser=SGD)
    others = masks_of(plain)
    for mask, other in zip(masks, others, strict=True):
        assert mask is not None
        assert other is not None
        assert torch.equal(mask > 0, other > 0)
    assert others[1] is not None
    assert float(others[1].max()) == 2.0
    # A scale without dropout is a constant factor.
    scaled = recipe(architecture="maxout", dropout={"inputs_scale": 0.5}, optimiser=SGD)
    first, second, third = masks_of(scaled)
    assert first is not None
    assert set(first.flatten().tolist()) == {0.5}
    assert second is third is None
