"""What the zoo holds, as entries for the benchmark's registries.  No torch here.

The entry points ``gibbon.models`` and ``gibbon.trainers`` lead to the names of this module.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmark.models import ModelBuilder, Trainer
from benchmark.registry import Entry

WEIGHTS = Path(__file__).parent / "weights"

SUMMARIES = {
    "softmax": "softmax regression on MNIST",
    "logistic": "logistic regression, MNIST's threes against sevens",
    "maxout": "two maxout layers of 240 units x 5 pieces, dropout and max-norm, MNIST",
    "maxout-adv": "the maxout network trained on the adversarial objective at epsilon 0.25",
    "rbf": "shallow RBF network, one unit a class, confidence is the unit's own output",
}


def _model(name: str) -> Entry[ModelBuilder]:
    def load() -> ModelBuilder:
        from model_zoo.zoo import build  # late: brings torch

        return partial(build, name)

    return Entry(name, SUMMARIES[name], load, origin="model_zoo", details=partial(_card_text, name))


def _trainer(name: str) -> Entry[Trainer]:
    def load() -> Trainer:
        from model_zoo.zoo import train  # late: brings torch

        return partial(train, name)

    return Entry(name, f"trains {SUMMARIES[name]}", load, origin="model_zoo")


def _card_text(name: str) -> str:
    from model_zoo.card import read_card  # late: a list of names needs no pydantic

    return read_card(WEIGHTS / f"{name}.json").text()


softmax = _model("softmax")
logistic = _model("logistic")
maxout = _model("maxout")
maxout_adv = _model("maxout-adv")
rbf = _model("rbf")

train_softmax = _trainer("softmax")
train_logistic = _trainer("logistic")
train_maxout = _trainer("maxout")
train_maxout_adv = _trainer("maxout-adv")
train_rbf = _trainer("rbf")
