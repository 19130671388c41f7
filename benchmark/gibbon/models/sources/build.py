"""Builds the classifier of a spec, with the steps that all sources of models share."""

from __future__ import annotations

import difflib
import errno
import importlib.util
import inspect
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from gibbon.core.errors import (
    ModelError,
    RequestError,
    SpecError,
    UnknownNameError,
    WeightsError,
    suggest,
)
from gibbon.core.import_path import is_reference
from gibbon.core.reading import expanded
from gibbon.core.registry import their_code
from gibbon.core.threat import PIXEL_BOUNDS, Bounds
from gibbon.models.classifier import Classifier
from gibbon.models.ensemble import DEFAULT, check_shares, ensemble
from gibbon.models.registry import MODELS, ModelBuilder
from gibbon.models.sources import MODEL_SOURCES, BuiltModel, ModelSource, OpenedModel, Preprocessing
from gibbon.models.sources.checkpoint import load_checkpoint
from gibbon.models.sources.file_formats import SUFFIXES, kind_of
from gibbon.models.sources.python import check_arguments, identity_of
from gibbon.models.sources.weight_names import RANDOM, names_file
from gibbon.models.sources.wrap_module import SEED, complete, same_random_numbers
from gibbon.specs.naming import FILE_SUFFIXES
from gibbon.specs.suite import ModelSpec

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9_.-]+):")
FORMS = (
    "expected a registered name, a file (net.onnx, net.pt2, net.torchscript), a factory "
    "(path/to/net.py:build, package.module:Net) or SOURCE:NAME with one of the sources"
)


def check_model(spec: ModelSpec, *, where: str) -> None:
    """Checks that a spec's source and files exist, before anything is loaded.

    ``where`` names the spec in error messages, such as ``"models[0]"``.
    Raises a `RequestError`.
    """
    try:
        if spec.ensemble:
            for member in members_of(spec):
                check_model(member, where=f"member {member.name!r}")
            return
        _check_parts(spec)
        if spec.model in MODELS:
            _takes_weights(spec, MODELS.load(spec.model))
            _check_weights_file(spec)
            return
        source = _source(spec)
        if spec.weights is not None and names_file(spec.weights):
            _check_weights_file(spec)
        source.check(spec)
    except RequestError as error:
        kind = type(error) if isinstance(error, WeightsError | ModelError) else SpecError
        raise kind(f"{where}: {error}" if where else str(error)) from error


def build_model(
    spec: ModelSpec,
    *,
    input_shape: tuple[int, ...],
    bounds: Bounds = PIXEL_BOUNDS,
    seed: int = SEED,
) -> BuiltModel:
    """Returns the classifier of a spec, for inputs of a dataset's shape and bounds.

    The random numbers that a model starts from are drawn with ``seed``.  Raises a `RequestError`
    that names the source and a remedy.
    """
    if spec.ensemble:
        members = members_of(spec)
        return fuse_models(
            spec,
            [
                build_model(each, input_shape=input_shape, bounds=bounds, seed=seed)
                for each in members
            ],
        )
    with same_random_numbers(seed=seed):
        if spec.model in MODELS:
            return complete(_registered(spec), spec=spec, input_shape=input_shape, bounds=bounds)
        source = _source(spec)
        with their_code("the model can't be built"):
            found = source.open(spec)
            found = _with_weights(found, spec)
    return complete(
        found,
        spec=spec,
        input_shape=input_shape,
        bounds=bounds,
        prepared=lambda: source.preprocessing(spec),
    )


def members_of(spec: ModelSpec) -> tuple[ModelSpec, ...]:
    """Returns the members of an ensemble, completed by the options that it sets for all of them."""
    passed_on = ("outputs", "trust_code", "trust_pickle")
    said = {key: getattr(spec, key) for key in passed_on if getattr(spec, key)}
    normalised = {"mean": spec.mean, "std": spec.std} if spec.mean is not None else {}

    def completed(member: ModelSpec) -> ModelSpec:
        update = {key: value for key, value in said.items() if not getattr(member, key)}
        return member.model_copy(update=update if member.mean else {**normalised, **update})

    return tuple(map(completed, spec.ensemble))


def fuse_models(spec: ModelSpec, members: Sequence[BuiltModel]) -> BuiltModel:
    """Returns the ensemble of built models, given in the order of the spec's members.

    It can be rebuilt if all of them can.  Raises `ModelError` if they can't be fused.
    """
    way = spec.fuse or DEFAULT
    names = [each.name for each in spec.ensemble]
    classifier = ensemble(
        [each.classifier for each in members], fuse=way, shares=spec.shares, names=names
    )
    identity = {
        "fuse": way,
        "members": [[each.identity, each.classifier.outputs.name] for each in members],
        "shares": check_shares(spec.shares, count=len(members)),
    }
    shares = ", ".join(f"{each:g}" for each in spec.shares or ())
    in_shares = f", in shares of {shares}" if shares else ""
    notes = [f"fuses the {way} of {', '.join(names)}{in_shares}"]
    notes += [
        f"{name}: {note}" for name, each in zip(names, members, strict=True) for note in each.notes
    ]
    return BuiltModel(
        classifier,
        f"ensemble {json.dumps(identity, sort_keys=True)}",
        tuple(notes),
        rebuilds=all(each.rebuilds for each in members),
        class_names=_common_names(spec, members),
    )


def _common_names(spec: ModelSpec, members: Sequence[BuiltModel]) -> tuple[str, ...]:
    """Returns the class names that members state.  Raises `ModelError` if two orders differ."""
    stated = [
        (each.name, member.class_names)
        for each, member in zip(spec.ensemble, members, strict=True)
        if member.class_names
    ]
    for name, names in stated[1:]:
        for label, known in enumerate(names):
            first = stated[0][1]
            if known in first and first.index(known) != label:
                raise ModelError(
                    f"members {stated[0][0]!r} and {name!r} have their classes in another order: "
                    f"{known!r} is {first.index(known)} in one and {label} in the other"
                )
    return stated[0][1] if stated else ()


def preprocessing_of(spec: ModelSpec) -> Preprocessing | None:
    """Returns the image transforms of a model's own configuration, or None if it has none.

    The model is not built.  Raises a `RequestError`.
    """
    if spec.ensemble:
        first, *others = {preprocessing_of(each) for each in members_of(spec)}
        return None if others else first
    if spec.model in MODELS:
        return None
    with their_code("the model's configuration can't be read"):
        return _source(spec).preprocessing(spec)


def _source(spec: ModelSpec) -> ModelSource:
    name = source_of(spec)
    source: object = MODEL_SOURCES.load(name)
    if isinstance(source, type):
        with their_code(f"model source {name!r} can't be made"):
            source = source()
    if not isinstance(source, ModelSource):
        raise ModelError(
            f"model source {name!r}: its entry point must name a "
            f"gibbon.models.sources.ModelSource, got {type(source).__name__}"
        )
    return source


def source_of(spec: ModelSpec) -> str:
    """Returns the name of the source of a spec's model, which its form determines.

    Raises `UnknownNameError` or `ModelError` if it has none.
    """
    text = spec.model
    for place in (text, spec.weights or ""):
        expanded(place, ModelError)
    scheme = SCHEME.match(text)
    if scheme and _is_source(scheme[1], text):
        return scheme[1]
    if scheme and text.startswith("//", scheme.end()):
        raise ModelError(f"model {text!r} is an address: download it, and give the file")
    path = Path(text)
    if path.is_file() or path.suffix.lower() in SUFFIXES:
        kind = kind_of(path)
        if kind:
            return kind
    if scheme and (not is_reference(text) or _is_typo(scheme[1])):
        raise UnknownNameError("model source", scheme[1], known=MODEL_SOURCES.names())
    if is_reference(text):
        return "python"
    if path.is_dir():
        configured = (path / "config.json").is_file()
        cure = f": a model of transformers is given as hf:{text}" if configured else ""
        raise ModelError(f"model {text!r} is a folder{cure or f'; {_forms()}'}")
    known = sorted(MODELS.names())
    raise ModelError(
        f"unknown model {text!r}{suggest(text, known)} Known: {', '.join(known)}; {_forms()}"
    )


def _is_source(scheme: str, text: str) -> bool:
    """Returns whether a scheme is a source; no plug-in is imported for a user's own module."""
    if scheme in MODEL_SOURCES.near_names():
        return True
    top = scheme.partition(".")[0]
    own = ".py:" in text or Path(f"{top}.py").is_file() or Path(top).is_dir()
    if own or top in sys.modules or importlib.util.find_spec(top) is not None:
        return False
    return scheme in MODEL_SOURCES


def _forms() -> str:
    return f"{FORMS} {', '.join(MODEL_SOURCES.names())}"


def _is_typo(scheme: str) -> bool:
    """Returns whether a scheme is not a package, but close to the name of a source."""
    near = difflib.get_close_matches(scheme, MODEL_SOURCES.near_names(), n=1, cutoff=0.7)
    return bool(near) and scheme not in sys.modules and importlib.util.find_spec(scheme) is None


def _check_parts(spec: ModelSpec) -> None:
    """Raises `SpecError` if a part of a checkpoint is named that is not read."""
    for option in ("weights_key", "weights_prefix"):
        if getattr(spec, option) is None:
            continue
        if spec.weights is None or not names_file(spec.weights):
            raise SpecError(f"{option} is a part of a weights file: give the file with weights")
        if spec.model in MODELS.names():
            raise SpecError(
                f"{option}: the registered model {spec.model!r} reads its weights file itself: "
                "give the file of a state dict alone"
            )


def _check_weights_file(spec: ModelSpec) -> None:
    if spec.weights is None or Path(spec.weights).exists():
        return
    path = Path(spec.weights)
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    names = [each.name for each in beside if each.name.endswith(FILE_SUFFIXES)]
    near = suggest(path.name, names).removesuffix(".")
    raise WeightsError(f"{spec.name!r}: {path}: can't be read: {os.strerror(errno.ENOENT)}{near}")


def _takes_weights(spec: ModelSpec, builder: ModelBuilder) -> None:
    if spec.weights is not None:
        with their_code("the model can't be built"):
            if "weights" not in inspect.signature(builder).parameters:
                raise ModelError(f"{spec.name!r}: it takes no weights file")


def _registered(spec: ModelSpec) -> OpenedModel:
    builder = MODELS.load(spec.model)
    arguments = dict(spec.arguments)
    _takes_weights(spec, builder)
    if spec.weights is not None:
        arguments["weights"] = Path(spec.weights)
    check_arguments(builder, arguments, name=spec.model)
    with their_code("the model can't be built"):
        built: object = builder(**arguments)
    if not isinstance(built, Classifier):
        raise ModelError(
            "its entry point must return a gibbon.models.classifier.Classifier, "
            f"got {type(built).__name__}"
        )
    identity = identity_of(spec.model, spec.arguments)
    return OpenedModel(module=built, identity=identity, weights_used=True)


def _with_weights(found: OpenedModel, spec: ModelSpec) -> OpenedModel:
    """Loads the spec's weights file, unless the source has done so."""
    if spec.weights is None or found.weights_used:
        return found
    if not names_file(spec.weights):
        if spec.weights == RANDOM:
            return found
        raise WeightsError(
            f"weights {spec.weights!r}: expected a file or {RANDOM!r}; there is no such file"
        )
    module = found.module if isinstance(found.module, nn.Module) else found.module.module
    done = load_checkpoint(
        module,
        Path(spec.weights),
        key=spec.weights_key,
        prefix=spec.weights_prefix,
        trust_pickle=spec.trusted,
    )
    names = done.class_names or found.class_names
    return replace(found, notes=(*found.notes, *done.notes), class_names=names)
