"""The zoo's models and trainers by name, and its architectures.  No torch here.

The entry points ``gibbon.models`` and ``gibbon.trainers`` name `MODELS` and `TRAINERS`.  There is
one of each for every file in ``recipes/``.  A new architecture takes its own module, a recipe, and
a line in `ARCHITECTURES`.
"""

from __future__ import annotations

import tomllib
from functools import partial
from pathlib import Path
from typing import Any

from gibbon.core.errors import WeightsError
from gibbon.core.registry import Entry, lazily
from gibbon.models.registry import OWN, ModelBuilder, Trainer
from gibbon_zoo.weights_folder import WEIGHTS

RECIPES = Path(__file__).parent / "recipes"

ARCHITECTURES = {
    "softmax": "gibbon_zoo.softmax:Softmax",
    "logistic": "gibbon_zoo.logistic:Logistic",
    "maxout": "gibbon_zoo.maxout:Maxout",
    "maxout-sigmoid": "gibbon_zoo.maxout_sigmoid:MaxoutSigmoid",
    "conv-maxout": "gibbon_zoo.conv_maxout:ConvMaxout",
    "rbf": "gibbon_zoo.rbf:Rbf",
}

SUMMARIES: dict[str, str] = {
    path.stem: tomllib.loads(path.read_text(encoding="utf-8"))["summary"]
    for path in sorted(RECIPES.glob("*.toml"))
}


def _of_zoo(function: str, name: str) -> Any:
    """Returns a function of `gibbon_zoo.zoo` with the name of its model."""
    return partial(lazily(f"gibbon_zoo.zoo:{function}")(), name)


def _card_text(name: str) -> str:
    missing = f"not shipped: run_benchmark.py train {name} makes them"
    path = WEIGHTS / f"{name}.json"
    if not path.exists():
        raise WeightsError(f"{name}: its weights are {missing}")
    text: str = lazily("gibbon_zoo.card:read_card")()(path).text()
    shipped = (WEIGHTS / f"{name}.safetensors").exists()
    return text if shipped else f"{text}\n  weights       {missing}"


MODELS: dict[str, Entry[ModelBuilder]] = {
    name: Entry(name, summary, partial(_of_zoo, "build", name), details=partial(_card_text, name))
    for name, summary in SUMMARIES.items()
}
TRAINERS: dict[str, Entry[Trainer]] = {
    name: Entry(name, f"trains {summary}", partial(_of_zoo, "train", name))
    for name, summary in SUMMARIES.items()
}
TRAINERS[OWN] = Entry(
    OWN, "trains a user's own model: train --model", lazily("gibbon_zoo.own:train_own")
)
