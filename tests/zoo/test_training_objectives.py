"""What a step descends, against formulas written out and closed forms."""

from __future__ import annotations

import pytest
import torch
from operations import Calls
from torch import Tensor

from gibbon.attacks.rotation import rotate
from gibbon_zoo.logistic import Logistic
from gibbon_zoo.maxout import Maxout
from gibbon_zoo.recipe import Noise, Recipe
from gibbon_zoo.softmax import Softmax
from gibbon_zoo.training_objectives import descend, draw_noise, worst_case_outputs

PARTS = {
    "dataset": "mnist",
    "epochs": 1,
    "batch_size": 8,
    "optimiser": {"name": "sgd", "learning_rate": 0.1},
}
cross_entropy = torch.nn.functional.cross_entropy


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate({**PARTS, "architecture": "maxout", **changes})


def examples(classes: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.rand(8, 1, 3, 4, generator=random), torch.arange(8) % classes


def net() -> Maxout:
    random = torch.Generator().manual_seed(1)
    module = Maxout(inputs=12, classes=3, units=5, pieces=2)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random)
    return module


def gradients(module: torch.nn.Module) -> list[Tensor]:
    return [p.grad for p in module.parameters() if p.grad is not None]


def test_hidden_layers_are_perturbed_by_the_sign_of_their_own_gradient() -> None:
    x, y = examples()
    plan = recipe(adversarial={"alpha": 0.3, "epsilon": "0.2", "perturbs": "hidden"})
    module, again = net(), net()
    value = descend(module, plan, inputs=x, labels=y, masks=())

    first = again.hidden1(x.flatten(1))
    second = again.hidden2(first)
    loss = cross_entropy(second @ again.weight.T + again.bias, y)
    steps = [0.2 * g.sign() for g in torch.autograd.grad(loss, (first, second), retain_graph=True)]
    moved = again.hidden2(again.hidden1(x.flatten(1)) + steps[0]) + steps[1]
    attacked = cross_entropy(moved @ again.weight.T + again.bias, y)
    objective = 0.3 * loss + 0.7 * attacked
    expected = torch.autograd.grad(objective, list(again.parameters()))
    assert float(value) == pytest.approx(objective.item(), rel=1e-6)
    for got, wanted in zip(gradients(module), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_a_rotation_is_differentiated_through() -> None:
    """Its gradient is that of the whole objective, as differences of its values have it."""
    x, y = examples()
    plan = recipe(rotation={"alpha": 0.4, "chord": 0.3})
    module = net().double()

    def objective() -> float:
        leaf = x.double().requires_grad_()
        outputs = module(leaf)
        (towards,) = torch.autograd.grad(cross_entropy(outputs, y, reduction="sum"), leaf)
        twins = rotate(x.double(), towards, chord=0.3)
        with torch.no_grad():
            return float(0.4 * cross_entropy(outputs, y) + 0.6 * cross_entropy(module(twins), y))

    value = descend(module, plan, inputs=x.double(), labels=y, masks=())
    assert float(value) == pytest.approx(objective(), rel=1e-12)
    step = 1e-6
    for parameter in (module.weight, module.hidden1.weight):
        assert parameter.grad is not None
        steepest = int(parameter.grad.abs().argmax())
        flat = parameter.data.view(-1)
        kept = float(flat[steepest])
        ends = []
        for side in (step, -step):
            flat[steepest] = kept + side
            ends.append(objective())
        flat[steepest] = kept
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float(parameter.grad.view(-1)[steepest]) == pytest.approx(slope, rel=1e-4)


def test_the_worst_case_of_two_classes_is_where_fgsm_goes() -> None:
    x, y = examples(classes=2)
    module = Logistic(inputs=12)
    module.weight.data = torch.linspace(-1, 2, 12)
    leaf = x.clone().requires_grad_()
    outputs = module(leaf)
    (gradient,) = torch.autograd.grad(cross_entropy(outputs, y), leaf)
    closed = worst_case_outputs(outputs, module.linear_weights(), labels=y, epsilon=0.25)
    torch.testing.assert_close(
        module.outputs.loss(closed, y),
        module.outputs.loss(module(x + 0.25 * gradient.sign()), y),
    )
    signs = 2.0 * y - 1
    scores = x.flatten(1) @ module.weight + module.bias
    softplus = torch.nn.functional.softplus(0.25 * module.weight.abs().sum() - signs * scores)
    plan = recipe(architecture="logistic", worst_case={"epsilon": "1/4"})
    value = descend(module, plan, inputs=x, labels=y, masks=())
    assert float(value) == pytest.approx(softplus.mean().item(), rel=1e-6)


def test_the_worst_case_of_more_classes_bounds_every_point_within_epsilon() -> None:
    x, y = examples()
    module = Softmax(inputs=12, classes=3)
    module.weight.data = torch.randn(3, 12, generator=torch.Generator().manual_seed(2))
    bound = worst_case_outputs(module(x), module.linear_weights(), labels=y, epsilon=0.1)
    for seed in range(20):
        random = torch.Generator().manual_seed(seed)
        moved = x + 0.1 * torch.randn(x.shape, generator=random).sign()
        # The bound leaves the true class where it is: what counts is how far others are ahead.
        ahead = module(moved) - module(moved).gather(1, y.unsqueeze(1))
        assert bool((ahead <= bound - bound.gather(1, y.unsqueeze(1)) + 1e-6).all())


def test_l1_decay_adds_the_sign_of_the_weights() -> None:
    x, y = examples()
    plain, decayed = net(), net()
    descend(plain, recipe(), inputs=x, labels=y, masks=())
    plan = recipe(l1_decay={"hidden1.weight": 0.01})
    descend(decayed, plan, inputs=x, labels=y, masks=())
    pairs = zip(plain.named_parameters(), decayed.parameters(), strict=True)
    for (name, before), after in pairs:
        assert before.grad is not None
        assert after.grad is not None
        decay = 0.01 * before.detach().sign() if name == "hidden1.weight" else 0.0
        torch.testing.assert_close(after.grad, before.grad + decay)


def test_bfloat16_rounds_what_is_multiplied_and_nothing_that_is_kept() -> None:
    """Numbers of few digits have the same products in it; of others its own digits are left."""
    x, y = examples()
    plan = recipe(arithmetic="bfloat16")
    short, again = net(), net()
    for module in (short, again):
        for parameter in module.parameters():
            parameter.data = parameter.data.sign()
    value = descend(short, plan, inputs=(x > 0.5).float(), labels=y, masks=())
    expected = descend(again, recipe(), inputs=(x > 0.5).float(), labels=y, masks=())
    assert float(value) == pytest.approx(float(expected), rel=1e-6)

    long, exact = net(), net()
    value = descend(long, plan, inputs=x, labels=y, masks=())
    expected = descend(exact, recipe(), inputs=x, labels=y, masks=())
    assert value.dtype == torch.float32
    assert value != expected
    assert float(value) == pytest.approx(float(expected), rel=2e-2)
    for kept, before in zip(long.parameters(), exact.parameters(), strict=True):
        assert torch.equal(kept, before)
        assert kept.grad is not None
        assert kept.grad.dtype == torch.float32


def test_a_step_in_bfloat16_converts_each_parameter_once_with_the_gradient_of_both_terms() -> None:
    x, y = examples()
    halves = {"alpha": 0.5, "epsilon": "0.2"}
    plan = recipe(arithmetic="bfloat16", adversarial=halves)
    module = net()
    with Calls() as calls:
        descend(module, plan, inputs=x, labels=y, masks=())
    converted = [
        tuple(args[0].shape)
        for operation, args, given in calls.made
        if operation is torch.ops.aten._to_copy.default and given["dtype"] == torch.bfloat16
    ]
    shapes = [tuple(parameter.shape) for parameter in module.parameters()]
    assert sorted(each for each in converted if each in shapes) == sorted(shapes)

    exact = net()
    descend(exact, recipe(adversarial=halves), inputs=x, labels=y, masks=())
    for got, wanted in zip(gradients(module), gradients(exact), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0.1, atol=0.02)


def test_noise_is_what_it_says_and_new_at_every_step() -> None:
    x = torch.zeros(50, 1, 20, 20)
    sign = draw_noise(x, Noise(kind="sign", epsilon="1/4"), seed=0, step=0)
    assert set(sign.flatten().tolist()) == {-0.25, 0.25}
    uniform = draw_noise(x, Noise(kind="uniform", epsilon="1/4"), seed=0, step=0)
    assert -0.25 <= float(uniform.min()) < -0.249
    assert 0.249 < float(uniform.max()) <= 0.25
    # 20,000 draws: the means are within five standard errors of 0.
    for noise, deviation in ((sign, 0.25), (uniform, 0.25 / 3**0.5)):
        assert abs(float(noise.double().mean())) < 5 * deviation / noise.numel() ** 0.5
    later = draw_noise(x, Noise(kind="sign", epsilon="1/4"), seed=0, step=1)
    assert not torch.equal(sign, later)
