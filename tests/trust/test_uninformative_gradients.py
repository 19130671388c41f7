"""Gradients that agree with differences and lead nowhere are flagged; those of networks are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from gibbon.datasets.base import Batch
from gibbon.diagnostics.examination.examine import FULL_BUDGET, examine
from gibbon.diagnostics.examination.gradient_sums import NAME
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import LOGITS, PROBABILITIES, OutputRule
from gibbon.records.examination import Examination, ExaminedCheck
from gibbon.runner.device.precision import Variant, in_float32, vary
from gibbon.runner.plan.probe_model import probe_model
from gibbon.runner.settings import Precision

KIND = "uninformative-gradient"
SMALL_BUDGET = 140  # that of PGD with 20 steps on 50 examples
MEDIUM_BUDGET = 560  # on 200 examples


class Around(nn.Module):
    """A network with something around it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


class Lookup(Around):
    """Answers what it stored for the nearest of some pictures, and a little of the input's own."""

    def __init__(self, net: nn.Module, stored: Tensor) -> None:
        super().__init__(net)
        self.register_buffer("stored", stored.flatten(1))

    def forward(self, inputs: Tensor) -> Tensor:
        nearest = torch.cdist(inputs.flatten(1), self.stored).argmin(1)
        outputs: Tensor = self.net(self.stored[nearest].view_as(inputs))
        return outputs + 1e-3 * self.net(inputs)


class HardLabel(Around):
    """Answers its class alone, and outputs that are too small to matter."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.net(inputs)
        return 10 * functional.one_hot(outputs.argmax(1), 10).float() + 1e-5 * outputs


class Flat(Around):
    """Outputs that are flat but for narrow slopes."""

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.softsign(1e4 * self.net(inputs))


class Oscillating(Around):
    """The input is overlaid with an oscillation that is too rapid for any step."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.net(inputs + 0.02 * torch.sin(2000 * inputs))
        return outputs


class Probabilities(Around):
    def forward(self, inputs: Tensor) -> Tensor:
        return functional.softmax(self.net(inputs), 1)


class Small(Around):
    def forward(self, inputs: Tensor) -> Tensor:
        return 1e-2 * self.net(inputs)


class Shifted(Around):
    def forward(self, inputs: Tensor) -> Tensor:
        return 1000 + 10 * self.net(inputs)


class Median(Around):
    def forward(self, inputs: Tensor) -> Tensor:
        patches = functional.unfold(inputs, 3, padding=1)
        outputs: Tensor = self.net(patches.median(1).values.view_as(inputs))
        return outputs


class Half(Around):
    """Computes in bfloat16 itself."""

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            outputs: Tensor = self.net(inputs)
        return outputs.float()


def examined(
    net: nn.Module,
    batch: Batch,
    *,
    budget: int = FULL_BUDGET,
    precision: Precision = "float32",
    outputs: OutputRule = LOGITS,
) -> Examination:
    shape = tuple(batch.inputs.shape[1:])
    plain = Classifier(net.eval(), classes=10, input_shape=shape, outputs=outputs)
    classifier = vary(plain, Variant(precision))
    with classifier.evaluating():
        observed = probe_model(classifier, batch, device=torch.device("cpu")).observed
        found = examine(
            classifier, batch, budget=budget, observed=observed, exact=in_float32(classifier)
        )
    assert "failed" not in {each.result for each in found.checks}, found.checks
    assert found.passes <= budget
    return found


def check_of(found: Examination) -> ExaminedCheck:
    (check,) = (each for each in found.checks if each.name == NAME)
    return check


@pytest.fixture
def batch(mnist: tuple[Tensor, Tensor]) -> Batch:
    return Batch(torch.arange(64), *mnist)


FAULTS: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "stored answers": Lookup,
    "a hard label": lambda net, _: HardLabel(net),
    "flat outputs": lambda net, _: Flat(net),
    "an oscillation": lambda net, _: Oscillating(net),
}


@pytest.mark.parametrize("budget", [MEDIUM_BUDGET, FULL_BUDGET])
@pytest.mark.parametrize("name", FAULTS)
def test_a_gradient_that_leads_nowhere_is_flagged(
    batch: Batch, honest: Any, name: str, budget: int
) -> None:
    found = examined(FAULTS[name](honest("maxout"), batch.inputs), batch, budget=budget)
    named = {each.kind for each in found.found} & {KIND, "gradient-mismatch"}
    assert named, found.checks  # of flat outputs differences show it, too, if there are passes
    assert KIND in named or name == "flat outputs"


def test_a_small_run_spends_no_passes_on_a_suspicion(batch: Batch, honest: Any) -> None:
    found = examined(Oscillating(honest("maxout")), batch, budget=SMALL_BUDGET)
    assert check_of(found).result in ("left out", "flagged")


@pytest.mark.parametrize("name", ["stored answers", "a hard label"])
def test_it_is_seen_in_few_digits_too(batch: Batch, honest: Any, name: str) -> None:
    net = FAULTS[name](honest("maxout"), batch.inputs)
    found = examined(net, batch, precision="bfloat16")
    assert KIND in {each.kind for each in found.found}, found.checks


NEAR_MISSES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "the network itself": lambda net: net,
    "small outputs": Small,
    "outputs far from zero": Shifted,
    "a median": Median,
    "bfloat16 inside": Half,
}


@pytest.mark.parametrize("budget", [SMALL_BUDGET, FULL_BUDGET])
@pytest.mark.parametrize("name", NEAR_MISSES)
@pytest.mark.parametrize("model", ["softmax", "maxout-adv", "rbf"])
def test_gradients_of_networks_add_up(
    batch: Batch, honest: Any, model: str, name: str, budget: int
) -> None:
    found = examined(NEAR_MISSES[name](honest(model)), batch, budget=budget)
    assert KIND not in {each.kind for each in found.found}, found.found
    assert check_of(found).result in ("passed", "left out")


@pytest.mark.parametrize("outputs", [PROBABILITIES, LOGITS], ids=["declared", "not declared"])
def test_the_logarithms_of_probabilities_add_up(
    batch: Batch, honest: Any, outputs: OutputRule
) -> None:
    found = examined(Probabilities(honest("softmax")), batch, outputs=outputs)
    assert check_of(found).result == "passed"
    assert (check_of(found).figures["part of the change"] or 0) > 0.8


def test_a_gradient_that_is_wrong_has_a_flag_of_its_own(batch: Batch, honest: Any) -> None:
    class Detached(Around):
        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.net(inputs.detach())
            return outputs + 0.02 * self.net(inputs)

    found = examined(Detached(honest("maxout")), batch)
    kinds = {each.kind for each in found.found}
    assert "gradient-mismatch" in kinds
    assert KIND not in kinds
    assert check_of(found).result == "abstained"


def test_too_few_pairs_of_answers_decide_nothing(batch: Batch, honest: Any) -> None:
    class One(Around):
        def forward(self, inputs: Tensor) -> Tensor:
            first = torch.zeros(10)
            first[0] = 1e3
            outputs: Tensor = self.net(inputs) + first
            return outputs

    found = examined(One(honest("softmax")), batch)
    assert KIND not in {each.kind for each in found.found}


def test_an_examination_without_these_checks_is_made_again() -> None:
    assert not Examination().outdated
    for earlier in (1, 2, 3, 4):
        assert Examination.model_validate({"format": earlier}).outdated


@pytest.mark.slow
@pytest.mark.parametrize("budget", [134, FULL_BUDGET])
@pytest.mark.parametrize("steps", [0, 20])
@pytest.mark.parametrize(
    "name",
    ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "densenet121"],
)
def test_gradients_of_deep_networks_add_up(name: str, steps: int, budget: int) -> None:
    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(num_classes=10)
    coarse = torch.rand(40, 3, 8, 8)
    inputs = functional.interpolate(coarse, size=(64, 64), mode="bilinear").clamp(0, 1)
    labels = torch.arange(40) % 10
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        functional.cross_entropy(net(inputs), labels).backward()
        optimiser.step()
    found = examined(net, Batch(torch.arange(40), inputs, labels), budget=budget)
    assert KIND not in {each.kind for each in found.found}, found.checks
