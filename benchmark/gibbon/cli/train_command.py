"""The part of `train` that reads a model of the user's own from the words of a command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gibbon.cli.grammar import as_source
from gibbon.cli.options import OF_OWN, OF_OWN_DATA, OF_OWN_MODEL, OF_OWN_RECIPE, Option
from gibbon.core.errors import SpecError
from gibbon.datasets import DATASETS
from gibbon.models.registry import MODELS, OwnTraining
from gibbon.specs.decoding import decode_spec
from gibbon.specs.naming import name_of
from gibbon.specs.suite import DatasetSpec, ModelSpec

EPILOG = """\
A model of the zoo, by its recipe:
    train maxout --seeds 0-2 --parallel 3
Your own model, adversarially:
    train --model nets/small.py:build --dataset photos/train --validation photos/val \\
        --objective pgd --epsilon 8/255 --epochs 30 --output small
The weights that it writes:
    evaluate --model nets/small.py:build --weights small/build.safetensors \\
        --dataset photos/val --attack pgd --epsilon 8/255"""
EXAMPLE = "train --model net.py:build --dataset photos/train --objective pgd --epsilon 8/255"
WHERE = "train"


def own_training(given: Mapping[str, Any]) -> OwnTraining:
    """Returns the model, the data and the recipe that options say, by flag.

    Raises `SpecError` that names the option.
    """
    for flag, what in (("--model", "a source of the model"), ("--dataset", "training examples")):
        if flag not in given:
            raise SpecError(f"missing: {flag}, {what}. For example: {EXAMPLE}")
    model, data, settings = (
        _fields(options, given) for options in (OF_OWN_MODEL, OF_OWN_DATA, OF_OWN_RECIPE)
    )
    source, validation = data.pop("source"), settings.pop("validation", None)
    settings |= settings.pop("set", {})
    model = {**model, "model": as_source(model["model"], MODELS)}
    model.setdefault("name", name_of(given["--model"]))
    if "weights" in model:
        model["weights"] = as_source(model["weights"], ())
    try:
        return OwnTraining(
            decode_spec(ModelSpec, model, where=WHERE),
            _dataset({**data, "source": source}, split="train"),
            None if validation is None else _dataset({**data, "source": validation}, split="test"),
            settings,
        )
    except SpecError as error:
        raise SpecError(in_training_options(str(error))) from error


def _dataset(written: dict[str, Any], *, split: str) -> DatasetSpec:
    source = written["source"]
    keys = {**written, "name": name_of(source), "source": as_source(source, DATASETS)}
    if source in DATASETS or source.startswith("torchvision:"):
        keys["split"] = split
    return decode_spec(DatasetSpec, keys, where=WHERE)


def _fields(options: Sequence[Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of options by field; a repeated KEY=VALUE makes a mapping."""
    found: dict[str, Any] = {}
    for option in options:
        if option.flag not in given:
            continue
        value = given[option.flag]
        if option.many:
            pairs = [option.parse(text) for text in value]
            keys = [key for key, _ in pairs]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise SpecError(f"{option.flag} {twice} is given twice")
            value = dict(pairs)
        found[option.name] = value
    return found


def in_training_options(message: str) -> str:
    """Returns an error message with the key path that it begins with replaced by its option."""
    found = re.match(rf"(?:{WHERE}|recipe): (?P<key>[\w.]+): ", message)
    if found is None:
        return message.removeprefix(f"{WHERE}: ")
    flags = {option.name: option.flag for option in OF_OWN} | {"objective": "--objective"}
    flag = flags.get(found["key"], f"--set {found['key']}" if "." in found["key"] else "")
    text = message[found.end() :].replace("Field required", "is missing")
    return f"{flag or found['key']}: {text}"
