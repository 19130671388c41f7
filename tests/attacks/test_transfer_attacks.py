"""DI-, TI- and VMI-FGSM: reduced to MI-FGSM where they should be, and their own parts by hand."""

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gibbon.attacks.base import Attack
from gibbon.attacks.di_mi_fgsm import DIMIFGSM
from gibbon.attacks.mi_fgsm import MIFGSM, accumulate
from gibbon.attacks.ti_mi_fgsm import TIMIFGSM, _smoothed
from gibbon.attacks.vmi_fgsm import VMIFGSM
from gibbon.core.errors import AttackError, OutputError, SpecError
from gibbon.core.rng import ExampleStreams
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.models.pass_count import PassCount


def proposed(
    attack: Attack, classifier: Classifier, batch: Batch, *, epsilon: str = "0.1", seed: int = 0
) -> Tensor:
    streams = ExampleStreams.derive(seed, batch.ids)
    with classifier.evaluating():
        (candidates,) = attack.propose(
            classifier, batch.inputs, labels=batch.labels, threat=nets.threat(epsilon),
            streams=streams,
        )  # fmt: skip
    return candidates


@pytest.mark.parametrize(
    "attack",
    [DIMIFGSM(probability=0), TIMIFGSM(kernel=1), VMIFGSM(reach=0, neighbours=1)],
    ids=["di", "ti", "vmi"],
)
def test_without_its_own_part_each_is_mi_fgsm(attack, mlp, batch):
    expected = proposed(MIFGSM(), mlp, batch)
    torch.testing.assert_close(proposed(attack, mlp, batch), expected)


@pytest.mark.parametrize(
    "attack",
    [DIMIFGSM(probability=1, smallest=0.5), TIMIFGSM(), VMIFGSM()],
    ids=["di", "ti", "vmi"],
)
def test_with_it_each_goes_elsewhere_and_still_misleads(attack):
    classifier = nets.mlp()
    batch = nets.labelled(classifier, nets.random_batch(100))
    found = proposed(attack, classifier, batch)
    assert not torch.allclose(found, proposed(MIFGSM(), classifier, batch), atol=1e-3)
    with classifier.evaluating():
        assert int((classifier.predict(found).argmax(1) != batch.labels).sum()) > 20


@pytest.mark.parametrize(
    ("attack", "passes"),
    [(DIMIFGSM(steps=4), 4), (TIMIFGSM(steps=4), 4), (VMIFGSM(steps=4, neighbours=3), 4 + 3 * 3)],
    ids=["di", "ti", "vmi"],
)
def test_passes_are_those_of_the_algorithm(attack, passes, mlp, batch):
    proposed(attack, mlp, batch)
    count = len(batch.labels)
    assert mlp.passes == PassCount(forward=passes * count, backward=passes * count)


PICTURES = torch.arange(1.0, 1 + 2 * 20 * 16).view(1, 2, 20, 16).repeat(300, 1, 1, 1)


def transformed(attack: DIMIFGSM, pictures: Tensor = PICTURES) -> Tensor:
    streams = ExampleStreams.derive(0, torch.arange(len(pictures)))
    return next(attack._drawn(pictures, streams)).of(pictures)


def test_half_of_the_pictures_are_transformed_each_in_its_own_way():
    found = transformed(DIMIFGSM())
    changed = (found != PICTURES).flatten(1).any(1)
    assert 110 < int(changed.sum()) < 190
    assert len({tuple(each.flatten().tolist()) for each in found[changed]}) > 8


def test_a_transformed_picture_is_a_smaller_one_between_zeros():
    """Each row and column that is shown comes from the nearest place of the original."""
    found = transformed(DIMIFGSM(probability=1, smallest=0.6))
    sizes, places = set(), set()
    for picture in found:
        rows = (picture[0] != 0).any(1).nonzero().flatten()
        columns = (picture[0] != 0).any(0).nonzero().flatten()
        height, width = len(rows), len(columns)
        assert rows.tolist() == list(range(int(rows[0]), int(rows[0]) + height))
        assert columns.tolist() == list(range(int(columns[0]), int(columns[0]) + width))
        shrunk = functional.interpolate(PICTURES[:1], size=(height, width), mode="nearest")[0]
        expected = torch.zeros_like(picture)
        expected[:, rows[:, None], columns] = shrunk
        assert torch.equal(picture, expected)
        sizes.add(height)
        places.add(int(rows[0]))
    assert sizes == set(range(12, 20))
    assert {0, 1, 2, 3} <= places


def test_sizes_of_299_pixels_are_those_that_the_paper_leaves_room_for():
    pictures = torch.ones(400, 1, 330, 1)
    found = transformed(DIMIFGSM(probability=1), pictures)
    heights = set((found != 0).flatten(1).sum(1).tolist()) - {0}
    assert heights == set(range(299, 330))


def test_the_gradient_goes_back_through_the_transformation():
    """Of a linear model, whose gradient at the transformed picture is the same everywhere."""
    classifier = nets.linear(classes=2)
    batch = nets.labelled(classifier, nets.random_batch(30))
    attack = DIMIFGSM(steps=1, probability=1, smallest=0.5)
    found = (proposed(attack, classifier, batch, epsilon="0.001") - batch.inputs).sign()
    weights = classifier.module[1].weight
    streams = ExampleStreams.derive(0, batch.ids)
    for number, label in enumerate(batch.labels.tolist()):
        leaf = batch.inputs[number : number + 1].clone().requires_grad_()
        drawn = next(attack._drawn(leaf, streams.take(torch.tensor([number]))))
        rise = weights[1 - label] - weights[label]
        (drawn.of(leaf).flatten(1) @ rise).sum().backward()
        inner = (batch.inputs[number] > 0.001) & (batch.inputs[number] < 0.999)
        assert torch.equal(found[number][inner], leaf.grad[0].sign()[inner])


def test_a_smoothed_gradient_is_the_mean_over_a_gaussian():
    gradient = torch.randn(3, 2, 9, 8, generator=nets.generator(1), dtype=torch.float64)
    attack = TIMIFGSM(kernel=5)
    weights = attack._weights(gradient)
    k = 2
    offsets = torch.arange(-k, k + 1, dtype=torch.float64)
    squares = offsets[:, None] ** 2 + offsets[None, :] ** 2
    kernel = torch.exp(-squares / (2 * (k / 3**0.5) ** 2))
    kernel /= kernel.sum()
    expected = functional.conv2d(
        gradient.flatten(0, 1).unsqueeze(1), kernel[None, None], padding=k
    ).view_as(gradient)
    torch.testing.assert_close(_smoothed(gradient, weights), expected)


@pytest.mark.parametrize(
    ("shape", "width"), [((28, 28), 15), ((15, 40), 15), ((14, 14), 13), ((6, 9), 5), ((1, 1), 1)]
)
def test_the_kernel_fits_into_the_picture(shape, width):
    weights = TIMIFGSM()._weights(torch.zeros(1, 1, *shape))
    assert len(weights) == width
    assert float(weights.sum()) == pytest.approx(1)


def test_the_kernel_has_a_middle():
    with pytest.raises(SpecError, match="kernel must be an odd number of pixels, got 4"):
        TIMIFGSM(kernel=4)


def test_variance_tuning_is_algorithm_1(mlp, batch):
    """Written out once more, with all gradients of a step in one batch."""
    attack = VMIFGSM(steps=3, neighbours=4, step_size=0.05)
    found = proposed(attack, mlp, batch)
    streams = ExampleStreams.derive(0, batch.ids)
    low, high = (batch.inputs - 0.1).clamp(min=0), (batch.inputs + 0.1).clamp(max=1)

    def gradient_at(points: Tensor) -> Tensor:
        return mlp.ascend(points, lambda outputs: mlp.outputs.ascent(outputs, batch.labels))[1]

    with mlp.evaluating():
        points, momentum, variance = batch.inputs, torch.zeros(1), torch.zeros(1)
        for number in range(3):
            gradient = gradient_at(points)
            momentum = accumulate(momentum, gradient + variance, decay=1.0)
            shifts = [
                streams.child(number).child(each).uniform(nets.SHAPE) * 0.3 - 0.15
                for each in range(4)
            ]
            variance = sum(gradient_at(points + shift) for shift in shifts) / 4 - gradient
            points = (points + 0.05 * momentum.sign()).clamp(low, high)
    torch.testing.assert_close(found, points, rtol=0, atol=1e-6)


@pytest.mark.parametrize("attack", [DIMIFGSM(), TIMIFGSM()], ids=["di", "ti"])
def test_what_is_no_picture_is_refused(attack):
    classifier = nets.logistic(torch.ones(5, dtype=torch.float64), bias=0.0)
    batch = Batch(torch.arange(2), torch.rand(2, 5).double(), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(AttackError, match=r"pictures of shape .*, got inputs of shape \(5,\)"):
        proposed(attack, classifier, batch)


class Rooted(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs) + (inputs.abs().sqrt() * 0).flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("attack", [DIMIFGSM(), TIMIFGSM(), VMIFGSM()], ids=["di", "ti", "vmi"])
def test_nan_gradients_fail_rather_than_look_robust(attack, mlp, batch):
    rooted = Classifier(Rooted(mlp.module), classes=nets.CLASSES, input_shape=nets.SHAPE)
    batch.inputs[3, 0, 2, 2] = 0.0
    with pytest.raises(OutputError, match="gradient is NaN or infinite"):
        proposed(attack, rooted, batch)
