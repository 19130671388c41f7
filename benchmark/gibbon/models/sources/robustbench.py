"""RobustBench's models, ``robustbench:Standard``, if robustbench is installed.

A model is identified by its name and the arguments ``dataset`` (default ``cifar10``) and
``threat_model`` (default ``Linf``); ``model_dir`` is an argument, too.  The models take pixels in
[0, 1] and contain their normalisation.

F. Croce and others, "RobustBench: a standardized adversarial robustness benchmark", NeurIPS 2021
datasets and benchmarks, https://arxiv.org/abs/2010.09670.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from gibbon.core.errors import ModelError, SpecError, WeightsError, suggest
from gibbon.models.sources import ModelSource, OpenedModel, Preprocessing, place_of
from gibbon.models.sources.file_formats import VOUCH
from gibbon.models.sources.optional_libraries import (
    check_library,
    fetching,
    library,
    without_pickles,
)
from gibbon.models.sources.weight_names import DEFAULT, RANDOM, names_file
from gibbon.specs.suite import ModelSpec

SCHEME = "robustbench"
CHOICES = {"dataset": "cifar10", "threat_model": "Linf"}

# By RobustBench's names (`robustbench/data.py`).
PREPARED = {
    "Res256Crop224": Preprocessing(256, 224),
    "BicubicRes256Crop224": Preprocessing(256, 224, "bicubic"),
    "Crop288": Preprocessing(None, 288),
    "Res224": Preprocessing((224, 224), None),
}
FOLDER = Path("~/.cache/gibbon/robustbench")


class RobustBench(ModelSource):
    """Models of RobustBench, by name."""

    def check(self, spec: ModelSpec) -> None:
        """Raises a `RequestError` if arguments are unknown or robustbench is not installed."""
        check_library("robustbench", package="robustbench", scheme=SCHEME)
        known = [*CHOICES, "model_dir"]
        for name in spec.arguments:
            if name not in known:
                raise SpecError(
                    f"robustbench models take no argument {name!r}{suggest(name, known)} "
                    f"They take {', '.join(known)}."
                )
        if spec.weights is not None and spec.weights not in (DEFAULT, RANDOM):
            if names_file(spec.weights):
                return
            raise WeightsError(
                f"weights {spec.weights!r}: expected a file, {DEFAULT!r} or {RANDOM!r}"
            )

    def open(self, spec: ModelSpec) -> OpenedModel:
        """Returns the model.  Raises a `RequestError` if it is not available."""
        self.check(spec)
        name = place_of(spec, SCHEME)
        entry = _entry(spec)
        if spec.weights not in (None, DEFAULT):
            module: nn.Module = entry["model"]()
            return OpenedModel(module=module, identity=SCHEME)
        utils = library("robustbench.utils", package="robustbench", scheme=SCHEME)
        arguments = {"model_dir": FOLDER.expanduser(), **CHOICES, **spec.arguments}
        notes = [f"its weights are RobustBench's, {_chosen(spec)}"]

        def load(*, trusted: bool) -> nn.Module:
            with (
                contextlib.redirect_stdout(io.StringIO()),  # it prints messages
                without_pickles(trusted=trusted),
                fetching(spec.model),
            ):
                made: nn.Module = utils.load_model(model_name=name, **arguments)
                return made

        try:
            module = load(trusted=False)
        except pickle.UnpicklingError as error:
            if not spec.trusted:
                raise WeightsError(
                    f"the checkpoint of {name!r} is a pickle that refers to code, which can do "
                    f"anything when it is loaded: vouch for it with {VOUCH}"
                ) from error
            said = f"the checkpoint of {name!r} is a pickle that refers to code; it is trusted"
            warnings.warn(said, stacklevel=2)
            notes.append("the checkpoint was loaded as a trusted pickle, running its code")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns, too
                module = load(trusted=True)
        return OpenedModel(module=module, identity=SCHEME, weights_used=True, notes=tuple(notes))

    def preprocessing(self, spec: ModelSpec) -> Preprocessing | None:
        """Returns RobustBench's image transforms for the model, if it has any."""
        return PREPARED.get(str(_entry(spec).get("preprocessing")))


def _entry(spec: ModelSpec) -> dict[str, Any]:
    """Returns a model's entry in RobustBench's table of models.  Raises a `RequestError`."""
    zoo = library("robustbench.model_zoo", package="robustbench", scheme=SCHEME)
    enums = library("robustbench.model_zoo.enums", package="robustbench", scheme=SCHEME)
    name = place_of(spec, SCHEME)
    chosen = {**CHOICES, **spec.arguments}
    try:
        table = zoo.model_dicts[enums.BenchmarkDataset(chosen["dataset"])][
            enums.ThreatModel(chosen["threat_model"])
        ]
    except (KeyError, ValueError) as error:
        raise SpecError(
            f"RobustBench has no models for {_chosen(spec)}: datasets are "
            f"{', '.join(each.value for each in enums.BenchmarkDataset)}, threat models "
            f"{', '.join(each.value for each in enums.ThreatModel)}"
        ) from error
    if name not in table:
        raise ModelError(
            f"RobustBench has no model {name!r} for {_chosen(spec)}{suggest(name, table)}"
        )
    entry: dict[str, Any] = table[name]
    return entry


def _chosen(spec: ModelSpec) -> str:
    chosen = {**CHOICES, **spec.arguments}
    return f"{chosen['dataset']}, {chosen['threat_model']}"
