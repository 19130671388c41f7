"""Networks of layers in a row, written in words in a suite.

    [[models]]
    name = "small-conv"
    model = "gibbon.models.sequential:sequential"
    weights = "small-conv.pth"
    arguments.input_shape = [1, 28, 28]
    arguments.layers = ["conv 16 4 stride=2 padding=1", "relu", "flatten", "linear 10"]

The tensors are called as in a ``torch.nn.Sequential``: ``0.weight``, ``0.bias``, ``3.weight``, so
that its state dict can be loaded.  A layer of another name has it in front: ``conv1: conv 16 4``
has ``conv1.weight``, and ``features.0: conv 16 4`` has ``features.0.weight``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import nn

from gibbon.core.errors import SpecError, suggest

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerKind:
    """A kind of layer: how to make it of numbers, and its options with their defaults.

    ``required`` names the numbers that come first; ``make`` takes the shape of an input and all
    values by name.
    """

    required: tuple[str, ...]
    options: Mapping[str, float]
    make: Callable[[Shape, Mapping[str, float]], nn.Module]


def sequential(input_shape: Sequence[int], layers: Sequence[str]) -> nn.Sequential:
    """Returns a network of layers, in eval mode, with random weights.

    Args:
        input_shape: shape of one input, such as [1, 28, 28].
        layers: layers in words: a kind, its numbers, then options as NAME=NUMBER; in front of it
            its name and a colon, unless that is its position.  The kinds are
            ``linear OUT``, ``conv OUT KERNEL``, ``maxpool KERNEL``, ``avgpool KERNEL``,
            ``batchnorm``, ``relu``, ``leaky-relu``, ``sigmoid``, ``tanh``, ``elu``, ``softplus``,
            ``flatten``, ``identity`` and ``dropout RATE``; ``conv`` and the pools take ``stride``
            and ``padding``, ``conv`` also ``dilation``, ``groups`` and ``bias``.

    Raises `SpecError` if a layer is unknown or does not fit the one before it.

    >>> net = sequential([1, 28, 28], ["conv 16 4 stride=2 padding=1", "relu", "flatten",
    ...     "linear 10"])
    >>> net(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    shape = tuple(input_shape)
    made: list[tuple[list[str], nn.Module]] = []
    for place, written in enumerate(layers):
        where = f"layers[{place}]"
        name, colon, words = written.rpartition(":")
        layer = _layer(words.strip(), shape, where=where)
        try:
            with torch.no_grad():
                shape = tuple(layer.eval()(torch.zeros(1, *shape)).shape[1:])
        except (RuntimeError, ValueError) as error:
            raise SpecError(
                f"{words!r} can't take inputs of shape {shape}: {error}", where=where
            ) from error
        made.append((name.strip().split(".") if colon else [str(place)], layer))
    return _nested(made, where="layers").eval()


def _nested(named: Sequence[tuple[list[str], nn.Module]], *, where: str) -> nn.Sequential:
    """Returns layers in a row; those whose names begin alike are in a row of their own."""
    found = nn.Sequential()
    for first, group in groupby(named, key=lambda each: each[0][0]):
        inside = [(name[1:], layer) for name, layer in group]
        if first in dict(found.named_children()) or not first:
            raise SpecError(f"two layers, or two groups of them, are called {first!r}", where=where)
        if inside == [([], inside[0][1])]:
            found.add_module(first, inside[0][1])
        elif all(name for name, _ in inside):
            found.add_module(first, _nested(inside, where=where))
        else:
            raise SpecError(f"{first!r} is the name of a layer and of a group", where=where)
    return found


def _layer(words: str, shape: Shape, *, where: str) -> nn.Module:
    name, *numbers = words.split() or [""]
    if name not in LAYERS:
        raise SpecError(
            f"there is no layer {name!r}{suggest(name, LAYERS)} Known: {', '.join(LAYERS)}",
            where=where,
        )
    kind = LAYERS[name]
    values, given = dict(kind.options), []
    for number in numbers:
        key, equals, text = number.rpartition("=")
        value = _number(text, where=where)
        if not equals:
            given.append(value)
        elif key in kind.options:
            values[key] = value
        else:
            known = ", ".join(kind.options) or "no options"
            raise SpecError(
                f"{name} has no option {key!r}{suggest(key, kind.options)} It has {known}",
                where=where,
            )
    if len(given) != len(kind.required):
        expected = " ".join((name, *map(str.upper, kind.required)))
        raise SpecError(f"must be written {expected}, got {words!r}", where=where)
    values |= dict(zip(kind.required, given, strict=True))
    try:
        return kind.make(shape, values)
    except (ValueError, IndexError) as error:
        raise SpecError(f"{words!r} on inputs of shape {shape}: {error}", where=where) from error


def _number(text: str, *, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise SpecError(f"must be a number, got {text!r}", where=where) from None
    return int(value) if value.is_integer() else value


def _linear(shape: Shape, values: Mapping[str, float]) -> nn.Module:
    return nn.Linear(shape[-1], int(values["out"]), bias=bool(values["bias"]))


def _conv(shape: Shape, values: Mapping[str, float]) -> nn.Module:
    settings = {key: int(values[key]) for key in ("stride", "padding", "dilation", "groups")}
    kinds = {2: nn.Conv1d, 3: nn.Conv2d}
    if len(shape) not in kinds:
        raise ValueError("a convolution takes channels and one or two axes")
    kind: Callable[..., nn.Module] = kinds[len(shape)]
    out, kernel = int(values["out"]), int(values["kernel"])
    return kind(shape[0], out, kernel, bias=bool(values["bias"]), **settings)


def _pool(kind: Callable[..., nn.Module]) -> Callable[[Shape, Mapping[str, float]], nn.Module]:
    def make(_: Shape, values: Mapping[str, float]) -> nn.Module:
        kernel = int(values["kernel"])
        return kind(kernel, stride=int(values["stride"]) or kernel, padding=int(values["padding"]))

    return make


def _norm(shape: Shape, _: Mapping[str, float]) -> nn.Module:
    kinds: dict[int, Callable[[int], nn.Module]] = {1: nn.BatchNorm1d, 3: nn.BatchNorm2d}
    if len(shape) not in kinds:
        raise ValueError("batch norm takes channels alone, or with two axes")
    return kinds[len(shape)](shape[0])


def _plain(kind: Callable[[], nn.Module]) -> LayerKind:
    return LayerKind((), {}, lambda *_: kind())


_POOL = {"stride": 0, "padding": 0}
LAYERS: Mapping[str, LayerKind] = {
    "linear": LayerKind(("out",), {"bias": 1}, _linear),
    "conv": LayerKind(
        ("out", "kernel"),
        {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": 1},
        _conv,
    ),
    "maxpool": LayerKind(("kernel",), _POOL, _pool(nn.MaxPool2d)),
    "avgpool": LayerKind(("kernel",), _POOL, _pool(nn.AvgPool2d)),
    "batchnorm": LayerKind((), {}, _norm),
    "relu": _plain(nn.ReLU),
    "leaky-relu": LayerKind((), {"slope": 0.01}, lambda _, values: nn.LeakyReLU(values["slope"])),
    "sigmoid": _plain(nn.Sigmoid),
    "tanh": _plain(nn.Tanh),
    "elu": _plain(nn.ELU),
    "softplus": _plain(nn.Softplus),
    "flatten": _plain(nn.Flatten),
    "identity": _plain(nn.Identity),
    "dropout": LayerKind(("rate",), {}, lambda _, values: nn.Dropout(values["rate"])),
}
