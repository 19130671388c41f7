"""What the zoo holds, as entries for the benchmark's registries.  No torch here.

The entry points ``gibbon.models`` and ``gibbon.trainers`` lead to the names of this module.
"""

from __future__ import annotations

from functools import partial

from gibbon.core.errors import WeightsError
from gibbon.core.registry import Entry
from gibbon.models.registry import ModelBuilder, Trainer
from gibbon_zoo.paths import WEIGHTS

SUMMARIES = {
    "softmax": "softmax regression on MNIST",
    "logistic": "logistic regression, MNIST's threes against sevens",
    "logistic-adv": "logistic regression trained on its exact worst case at epsilon 0.25",
    "logistic-l1": "logistic regression with L1 decay",
    "maxout": "two maxout layers of 240 units x 5 pieces, dropout and max-norm, MNIST",
    "maxout-adv": "the maxout network trained on the adversarial objective at epsilon 0.25",
    "maxout-80-adv": "80 units a layer trained on the adversarial objective at epsilon 0.25",
    "maxout-adv-hidden": "the same with its hidden layers perturbed, not its inputs",
    "maxout-rotation": "the same with inputs turned towards their gradient",
    "maxout-noise-sign": "the maxout network trained with noise of +-0.25 on each pixel",
    "maxout-noise-uniform": "the maxout network trained with noise on [-0.25, 0.25] on each pixel",
    "maxout-l1": "the maxout network with L1 decay of 0.0025 on its first layer",
    "maxout-1600": "the maxout network with 1,600 units a layer",
    "maxout-1600-adv": "1,600 units a layer trained on the adversarial objective",
    "maxout-member": "a maxout network of 80 units x 5 pieces, one of the ensemble's members",
    "maxout-ensemble": "twelve such networks that differ in their seeds, probabilities averaged",
    "conv-maxout": "a small convolutional maxout network on whitened, re-compressed CIFAR-10",
    "rbf": "shallow RBF network, one unit a class, confidence is the unit's own output",
}


def _model(name: str) -> Entry[ModelBuilder]:
    def load() -> ModelBuilder:
        from gibbon_zoo.zoo import build  # late: brings torch

        return partial(build, name)

    return Entry(name, SUMMARIES[name], load, origin="model_zoo", details=partial(_card_text, name))


def _trainer(name: str) -> Entry[Trainer]:
    def load() -> Trainer:
        from gibbon_zoo.zoo import train  # late: brings torch

        return partial(train, name)

    return Entry(name, f"trains {SUMMARIES[name]}", load, origin="model_zoo")


def _card_text(name: str) -> str:
    from gibbon_zoo.card import read_card  # late: a list of names needs no pydantic

    missing = f"not shipped: run_benchmark.py train {name} makes them"
    path = WEIGHTS / f"{name}.json"
    if not path.exists():
        raise WeightsError(f"{name}: its weights are {missing}")
    text = read_card(path).text()
    shipped = (WEIGHTS / f"{name}.safetensors").exists()
    return text if shipped else f"{text}\n  weights       {missing}"


softmax = _model("softmax")
logistic = _model("logistic")
logistic_adv = _model("logistic-adv")
logistic_l1 = _model("logistic-l1")
maxout = _model("maxout")
maxout_adv = _model("maxout-adv")
maxout_80_adv = _model("maxout-80-adv")
maxout_adv_hidden = _model("maxout-adv-hidden")
maxout_rotation = _model("maxout-rotation")
maxout_noise_sign = _model("maxout-noise-sign")
maxout_noise_uniform = _model("maxout-noise-uniform")
maxout_l1 = _model("maxout-l1")
maxout_1600 = _model("maxout-1600")
maxout_1600_adv = _model("maxout-1600-adv")
maxout_member = _model("maxout-member")
maxout_ensemble = _model("maxout-ensemble")
conv_maxout = _model("conv-maxout")
rbf = _model("rbf")

train_softmax = _trainer("softmax")
train_logistic = _trainer("logistic")
train_logistic_adv = _trainer("logistic-adv")
train_logistic_l1 = _trainer("logistic-l1")
train_maxout = _trainer("maxout")
train_maxout_adv = _trainer("maxout-adv")
train_maxout_80_adv = _trainer("maxout-80-adv")
train_maxout_adv_hidden = _trainer("maxout-adv-hidden")
train_maxout_rotation = _trainer("maxout-rotation")
train_maxout_noise_sign = _trainer("maxout-noise-sign")
train_maxout_noise_uniform = _trainer("maxout-noise-uniform")
train_maxout_l1 = _trainer("maxout-l1")
train_maxout_1600 = _trainer("maxout-1600")
train_maxout_1600_adv = _trainer("maxout-1600-adv")
train_maxout_member = _trainer("maxout-member")
train_maxout_ensemble = _trainer("maxout-ensemble")
train_conv_maxout = _trainer("conv-maxout")
train_rbf = _trainer("rbf")
