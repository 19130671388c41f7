"""Image classifiers of transformers, ``hf:org/name`` or ``hf:path/to/folder``.

Weights are those of the repository or folder, a file, or ``random``.  Normalisation and image
transforms are those of its image processor.  Code in a repository is never run; a user who trusts
it can load it in a factory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gibbon.core.errors import ModelError, WeightsError
from gibbon.models.sources import ModelSource, OpenedModel, Preprocessing, Size, place_of
from gibbon.models.sources.checkpoint import read_checkpoint
from gibbon.models.sources.class_names import names_in
from gibbon.models.sources.optional_libraries import (
    check_library,
    fetching,
    library,
    without_pickles,
)
from gibbon.models.sources.state_dicts import ModelTensors, find_only_state, strip
from gibbon.models.sources.weight_names import DEFAULT, RANDOM, word_of
from gibbon.models.weights import listed
from gibbon.specs.suite import ModelSpec

SCHEME = "hf"
WHITE = 255.0  # of the 8-bit images that processors expect

# Pillow's numbers for its filters.
INTERPOLATIONS: Mapping[int, Literal["nearest", "bilinear", "bicubic", "lanczos"]] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}
WHOLE_FROM = 384  # ConvNeXt's processors do not crop from this side on
NOT_NORMALISED = "it has no image processor, so that its inputs are not normalised"
OWN_CODE = "trust_remote_code"


class HuggingFace(ModelSource):
    """Image classifiers of transformers, from the hub or from a folder."""

    def check(self, spec: ModelSpec) -> None:
        """Raises a `RequestError` if a folder holds no model or transformers is not installed."""
        check_library("transformers", package="transformers", scheme=SCHEME)
        place = Path(place_of(spec, SCHEME))
        if place.is_dir() and not (place / "config.json").is_file():
            raise ModelError(f"{place}: holds no model of transformers: it has no config.json")
        if not place.is_dir() and (len(place.parts) > 2 or place.is_absolute()):
            raise ModelError(f"{place}: there is no such folder")
        word = word_of(spec)
        if word not in (None, DEFAULT):
            raise WeightsError(
                f"weights {word!r}: expected a file, {DEFAULT!r} or 'random' for {spec.model!r}"
            )

    def open(self, spec: ModelSpec) -> OpenedModel:
        """Returns the model as a module that returns logits.  Raises a `RequestError`."""
        self.check(spec)
        notes: tuple[str, ...] = ()
        with _explained(spec), _quiet():
            if word_of(spec) is not None:
                network = _pretrained(spec)
            elif spec.weights == RANDOM:
                network = _unweighted(spec)
            else:
                network, notes = _filled(spec)
        processor = _processor(spec)
        mean, std = _normalisation(processor) if processor is not None else (None, None)
        return OpenedModel(
            module=LogitsOnly(network),
            identity=SCHEME,
            mean=mean,
            std=std,
            weights_used=True,
            class_names=names_in(network) if spec.weights != RANDOM else (),
            notes=notes if processor is not None else (*notes, NOT_NORMALISED),
        )

    def preprocessing(self, spec: ModelSpec) -> Preprocessing | None:
        """Returns the resizing and cropping of its image processor."""
        self.check(spec)
        processor = _processor(spec)
        if processor is None or not getattr(processor, "do_resize", False):
            return None
        resize = _size(processor.size)
        crop = _size(processor.crop_size) if getattr(processor, "do_center_crop", False) else None
        share = getattr(processor, "crop_pct", None)
        if share and isinstance(resize, int) and resize < WHOLE_FROM:
            resize, crop = int(resize / share), resize
        elif share and isinstance(resize, int):
            resize = (resize, resize)
        interpolation = INTERPOLATIONS.get(int(getattr(processor, "resample", 2) or 0), "bilinear")
        return Preprocessing(resize, crop, interpolation)


class LogitsOnly(nn.Module):
    """A classifier of transformers as a module that returns only its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the logits, shape (N, K)."""
        logits: Tensor = self.network(pixel_values=inputs).logits
        return logits


def _pretrained(spec: ModelSpec) -> nn.Module:
    kind = _transformers().AutoModelForImageClassification
    with without_pickles(), fetching(spec.model):
        return _loaded(kind, place_of(spec, SCHEME), spec.arguments, where=spec.model)


def _filled(spec: ModelSpec) -> tuple[nn.Module, tuple[str, ...]]:
    """Returns the model with a file's weights, and notes on reading them.

    transformers copies them itself, since it knows the names that older versions used.
    """
    path = Path(str(spec.weights))
    read = read_checkpoint(path, trust_pickle=spec.trusted)
    where, prefix = str(path), spec.weights_prefix
    state = find_only_state(read.content, key=spec.weights_key, where=where)
    unweighted: Any = _unweighted(spec)
    found = ModelTensors(state.tensors)
    if prefix is not None:
        found = strip(state.tensors, prefix, unweighted.state_dict(), where=where)
    options = {"config": unweighted.config, "state_dict": dict(found.tensors)}
    network = _loaded(type(unweighted), None, options, where=where)
    return network, (*read.notes, *state.notes, *found.notes)


def _loaded(kind: Any, place: str | None, options: dict[str, Any], *, where: str) -> nn.Module:
    """Returns a network with its weights, all of which must fit.  Raises `WeightsError`."""
    network, loading = kind.from_pretrained(
        place,
        trust_remote_code=False,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported below
        dtype=torch.float32,
        **options,
    )
    for what in ("missing", "mismatched", "unexpected"):
        names = sorted(map(str, loading.get(f"{what}_keys") or ()))
        if names:
            raise WeightsError(f"{where}: tensors do not fit the model: {what} {listed(names)}")
    made: nn.Module = network
    return made


def _unweighted(spec: ModelSpec) -> nn.Module:
    transformers = _transformers()
    with fetching(spec.model):
        config = transformers.AutoConfig.from_pretrained(
            place_of(spec, SCHEME), trust_remote_code=False, **spec.arguments
        )
    made: nn.Module = transformers.AutoModelForImageClassification.from_config(
        config, trust_remote_code=False, dtype=torch.float32
    )
    return made


def _processor(spec: ModelSpec) -> Any:
    """Returns the image processor, or None if the model has none."""
    transformers = _transformers()
    place = place_of(spec, SCHEME)
    if Path(place).is_dir() and not (Path(place) / "preprocessor_config.json").is_file():
        return None
    with _explained(spec), _quiet(), fetching(spec.model):
        return transformers.AutoImageProcessor.from_pretrained(place, trust_remote_code=False)


def _normalisation(processor: Any) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Returns the processor's mean and std, converted to pixels in [0, 1].

    It computes ``(255 x f - o - m) / s``, which is ``(x - (m + o) / 255 f) / (s / 255 f)``.
    """
    rescales = getattr(processor, "do_rescale", True)
    factor = WHITE * float(processor.rescale_factor) if rescales else WHITE
    offset = 1.0 if rescales and getattr(processor, "rescale_offset", False) else 0.0
    normalises = getattr(processor, "do_normalize", False)
    mean = tuple(processor.image_mean) if normalises else (0.0, 0.0, 0.0)
    std = tuple(processor.image_std) if normalises else (1.0, 1.0, 1.0)
    if not normalises and abs(factor - 1) < 1e-6 and not offset:
        return None, None
    return (
        tuple(_unscaled((each + offset) / factor) for each in mean),
        tuple(_unscaled(each / factor) for each in std),
    )


def _unscaled(number: float) -> float:
    # 255 * (1 / 255) is not quite 1: 0.485 stays 0.485.
    return float(f"{number:.12g}")


def _size(written: Any) -> Size | None:
    size = {key: getattr(written, key, None) for key in ("shortest_edge", "height", "width")}
    if isinstance(written, Mapping):
        size = {key: written.get(key) for key in size}
    if size["shortest_edge"]:
        return int(size["shortest_edge"])
    if size["height"] and size["width"]:
        return (int(size["height"]), int(size["width"]))
    return int(written) if isinstance(written, int) else None


def _transformers() -> Any:
    return library("transformers", package="transformers", scheme=SCHEME)


@contextmanager
def _explained(spec: ModelSpec) -> Iterator[None]:
    """Turns known errors of transformers into a `ModelError`, for a ``with`` block."""
    try:
        yield
    except (ValueError, OSError) as error:
        if OWN_CODE in str(error):
            raise ModelError(
                f"{spec.model}: it brings Python code of its own, which is not run: if you trust "
                "it, load it in a factory, --model net.py:build"
            ) from error
        if "Unrecognized configuration class" in str(error):
            raise ModelError(f"{spec.model}: is no image classifier") from error
        raise


@contextmanager
def _quiet() -> Iterator[None]:
    """Switches off transformers' progress bars and warnings, for a ``with`` block."""
    logger = logging.getLogger("transformers")
    level, bars = logger.level, _transformers().utils.logging
    shown = bars.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    bars.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if shown:
            bars.enable_progress_bar()
