"""The operations of torch that are recorded, each as nodes of a `Network`.

`RECORDED` maps the name of an operation to a function of the recording, the call and its result for
the traced inputs, which returns the position of the result's node: a list of positions if there are
several results, or the name of a final function.  It raises `NoBoundError` for what it can't
express.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gibbon.bounds.affine_operations import (
    Add,
    Convolution,
    ConvolutionSetting,
    Dense,
    Gather,
    Mean,
    Scale,
)
from gibbon.bounds.network import NoBoundError, Shape
from gibbon.bounds.nonlinear_operations import Convex, Maximum, Monotone, Rectifier
from gibbon.bounds.recording import TRACED, Call, Recording, Symbol, symbols

Handler = Callable[[Recording, Call, Any], Any]

# Operations whose result depends on the shape of a symbol alone.
CONSTANT = frozenset(["zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"])

LINEAR_ROUNDINGS = 3  # of x * c and x + c: the constant's, the operation's, a fused one's
NORM_ROUNDINGS = 8  # of batch norm: root, reciprocal, two products and two sums
BILINEAR_TERMS = 8  # four products of two weights


def _node(value: object, name: str) -> int:
    """Returns the node of an argument that must be a symbol."""
    if not isinstance(value, Symbol) or value.node is None:
        raise NoBoundError(f"uses {name} with the input in another place")
    return value.node


def _no_symbols(*values: object, name: str) -> None:
    if any(symbols(values)):
        raise NoBoundError(f"uses {name} with two values that depend on the input")


def _constant(value: Any, call: Call, *, axes: int) -> Tensor:
    """Returns a constant as float64 that is broadcastable to (1, *shape) of a result.

    A constant with a row for each example must have equal rows.
    """
    device = next(symbols((call.arguments, call.options))).value.device
    if isinstance(value, Tensor) and value.ndim > axes:
        raise NoBoundError("broadcasts the examples of a batch")
    constant = torch.as_tensor(value, device=device).detach().double()
    if constant.ndim == axes and axes and constant.shape[0] == TRACED:
        if not torch.equal(constant[0], constant[1]):
            raise NoBoundError("adds other constants to other examples")
        return constant[:1]
    return constant


def _expanded(recording: Recording, node: int, shape: Shape) -> int:
    """Returns a node broadcast to another shape."""
    if recording.shape(node) == shape:
        return node
    return _moved(recording, [node], lambda parts: parts[0].expand(TRACED, *shape))


# Moving numbers.


def _moved(
    recording: Recording,
    nodes: Sequence[int],
    move: Callable[[list[Tensor]], Tensor],
    *,
    constants: Tensor | None = None,
) -> int:
    """Returns the node of a function that moves numbers, found by applying it to positions.

    Positions that were not moved out of their example prove that examples are kept apart.  -1
    stands for the first of the constants.
    """
    shapes = [recording.shape(each) for each in nodes]
    total = sum(math.prod(each) for each in shapes)
    device = recording.device
    fixed = torch.zeros(0, device=device) if constants is None else constants
    stride = total + len(fixed)
    parts, start = [], 0
    for shape in shapes:
        count = math.prod(shape)
        row = torch.arange(start, start + count, dtype=torch.float64, device=device)
        parts.append(torch.stack([row, row + stride]).view(TRACED, *shape))
        start += count
    index = move(parts)
    if index.ndim == 0 or index.shape[0] != TRACED:
        raise NoBoundError("mixes the examples of a batch")
    first, second = index[0].round().long(), index[1].round().long()
    padded = (first == -1) & (second == -1)
    if bool(((second - first != stride) & ~padded).any()) or bool((first >= stride).any()):
        raise NoBoundError("mixes the examples of a batch")
    first = torch.where(padded, total, first)
    gather = Gather(first, shapes=shapes, constants=fixed.double())
    if gather.is_view and gather.shape == shapes[0]:
        return nodes[0]
    return recording.add(gather, *nodes)


def _move(recording: Recording, call: Call, result: Any) -> int | list[int]:
    """Records an operation that moves the numbers of its first argument."""
    node = _node(call.arguments[0], call.name)
    _no_symbols(call.arguments[1:], call.options, name=call.name)

    def moved(parts: list[Tensor], pick: int | None = None) -> Tensor:
        found: Any = call.function(parts[0], *call.arguments[1:], **call.options)
        return found if pick is None else found[pick]  # type: ignore[no-any-return]

    if isinstance(result, Tensor):
        return _moved(recording, [node], moved)
    return [_moved(recording, [node], partial(moved, pick=place)) for place in range(len(result))]


def _keep(recording: Recording, call: Call, result: Tensor) -> int:
    """Records a copy."""
    node = _node(call.arguments[0], call.name)
    before = call.arguments[0].value
    if result.shape != before.shape or result.dtype != before.dtype:
        raise NoBoundError(f"converts a tensor to {str(result.dtype).removeprefix('torch.')}")
    return node


def _pad(recording: Recording, call: Call, result: Tensor) -> int:
    node = _node(call.arguments[0], call.name)
    pad, value = call.argument("pad"), call.argument("value", 0)
    constants = torch.tensor([float(value or 0)], dtype=torch.float64, device=result.device)
    return _moved(
        recording,
        [node],
        lambda parts: functional.pad(parts[0], list(pad), value=-1.0),
        constants=constants,
    )


def _join(recording: Recording, call: Call, result: Tensor) -> int:
    """Records cat and stack, of symbols and constants."""
    tensors, dim = call.argument("tensors"), call.argument("dim", 0)
    _no_symbols(call.options, name=call.name)
    nodes: list[int] = []
    values: list[Tensor] = []
    for each in tensors:
        if isinstance(each, Symbol):
            nodes.append(_node(each, call.name))
        else:
            constant = _constant(each, call, axes=each.ndim)
            if each.ndim == 0 or each.shape[0] != TRACED:
                raise NoBoundError("joins a constant to the examples of a batch")
            values.append(constant.flatten())
    fixed = torch.cat(values) if values else torch.zeros(0, device=result.device)
    total = sum(math.prod(recording.shape(each)) for each in nodes)
    stride = total + len(fixed)

    def joined(parts: list[Tensor]) -> Tensor:
        left, start, placed = list(parts), total, []
        for each in tensors:
            if isinstance(each, Symbol):
                placed.append(left.pop(0))
                continue
            count = each[0].numel()
            row = torch.arange(start, start + count, dtype=torch.float64, device=result.device)
            placed.append(torch.stack([row, row + stride]).view(each.shape))
            start += count
        found: Tensor = call.function(placed, dim)
        return found

    return _moved(recording, nodes, joined, constants=fixed)


# Affine operations.


def _dense(recording: Recording, node: int, weight: Tensor, bias: Any, call: Call) -> int:
    _no_symbols(weight, bias, name=call.name)
    if len(recording.shape(node)) != 1:
        raise NoBoundError(f"uses {call.name} on inputs of several axes")
    if bias is not None:
        bias = _constant(bias, call, axes=2).flatten()
        bias = bias.expand(len(weight)).contiguous()
    return recording.add(Dense(weight.detach().double().contiguous(), bias), node)


def _mm(recording: Recording, call: Call, _: Any) -> int:
    first, second = call.arguments
    return _dense(recording, _node(first, "mm"), _const_matrix(second, call).T, None, call)


def _const_matrix(value: Any, call: Call) -> Tensor:
    _no_symbols(value, name=call.name)
    matrix: Tensor = value
    return matrix


def _addmm(recording: Recording, call: Call, _: Any) -> int:
    bias, first, second = call.arguments[:3]
    beta, alpha = float(call.argument("beta", 1)), float(call.argument("alpha", 1))
    _no_symbols(bias, second, name=call.name)
    weight = second.detach().double().T * alpha
    return _dense(recording, _node(first, call.name), weight, bias.detach().double() * beta, call)


def _linear(recording: Recording, call: Call, _: Any) -> int:
    weight = _const_matrix(call.argument("weight"), call)
    return _dense(
        recording, _node(call.arguments[0], call.name), weight, call.argument("bias"), call
    )


def _mv(recording: Recording, call: Call, _: Any) -> int:
    first, vector = call.arguments
    weight = _const_matrix(vector, call).unsqueeze(0)
    node = _dense(recording, _node(first, "mv"), weight, None, call)
    return _moved(recording, [node], lambda parts: parts[0].flatten())


def _convolution(recording: Recording, call: Call, result: Tensor) -> int:
    node = _node(call.arguments[0], call.name)
    weight, bias = call.argument("weight"), call.argument("bias")
    _no_symbols(weight, bias, name=call.name)
    if call.argument("transposed"):
        raise NoBoundError("uses a transposed convolution")
    axes = weight.ndim - 2
    if len(recording.shape(node)) != axes + 1:
        raise NoBoundError("uses a convolution on inputs without a batch axis")

    def each_axis(name: str) -> tuple[int, ...]:
        given = tuple(call.argument(name))
        return given * axes if len(given) == 1 else given

    setting = ConvolutionSetting(
        each_axis("stride"), each_axis("padding"), each_axis("dilation"), call.argument("groups")
    )
    operation = Convolution(
        weight.detach().double(),
        None if bias is None else bias.detach().double(),
        setting,
        taken=recording.shape(node),
        shape=tuple(result.shape[1:]),
    )
    return recording.add(operation, node)


def _batch_norm(recording: Recording, call: Call, _: Any) -> int:
    node = _node(call.arguments[0], call.name)
    mean, variance = call.argument("running_mean"), call.argument("running_var")
    training = call.argument("training", call.argument("train", False))
    if training or mean is None or variance is None:
        raise NoBoundError("uses batch norm with the statistics of the batch")
    weight, bias = call.argument("weight"), call.argument("bias")
    eps = call.argument("eps", call.argument("epsilon"))
    _no_symbols(weight, bias, mean, variance, name=call.name)
    shape = recording.shape(node)
    factor = (variance.detach().double() + eps).rsqrt()
    if weight is not None:
        factor = factor * weight.detach().double()
    moved = mean.detach().double() * factor
    shift = -moved if bias is None else bias.detach().double() - moved
    size = moved.abs() if bias is None else bias.detach().double().abs() + moved.abs()
    view = (1, -1, *[1] * (len(shape) - 1))
    operation = Scale(
        factor.view(view),
        shift.view(view),
        shape=shape,
        roundings=NORM_ROUNDINGS,
        size=size.view(view),
    )
    return recording.add(operation, node)


def _scaled(
    recording: Recording,
    node: int,
    result: Tensor,
    *,
    factor: Tensor | float | None = None,
    shift: Tensor | None = None,
) -> int:
    """Returns the node of factor * x + shift, which is broadcast to the result's shape."""
    shape = tuple(result.shape[1:])
    node = _expanded(recording, node, shape)
    if isinstance(factor, float):
        factor = torch.tensor(factor, dtype=torch.float64, device=result.device)
    operation = Scale(factor, shift, shape=shape, roundings=LINEAR_ROUNDINGS)
    return recording.add(operation, node)


def _sum_of_two(recording: Recording, call: Call, result: Tensor, signs: tuple[int, int]) -> int:
    """Records signs[0] * first + signs[1] * alpha * second; for rsub, first and second change."""
    first, second = call.arguments[:2]
    alpha = float(call.argument("alpha", 1))
    axes = result.ndim
    factors = (float(signs[0]), signs[1] * alpha)
    if call.name == "rsub":
        first, second = second, first
    if isinstance(first, Symbol) and isinstance(second, Symbol):
        shape = tuple(result.shape[1:])
        nodes = [_expanded(recording, _node(each, call.name), shape) for each in (first, second)]
        return recording.add(Add(factors, shape=shape), *nodes)
    (symbol,) = symbols((first, second))
    mine, other = (0, second) if symbol is first else (1, first)
    shift = _constant(other, call, axes=axes) * factors[1 - mine]
    factor = None if factors[mine] == 1 else factors[mine]
    return _scaled(recording, _node(symbol, call.name), result, factor=factor, shift=shift)


def _add(recording: Recording, call: Call, result: Tensor) -> int:
    return _sum_of_two(recording, call, result, (1, 1))


def _subtract(recording: Recording, call: Call, result: Tensor) -> int:
    return _sum_of_two(recording, call, result, (1, -1))


def _multiply(recording: Recording, call: Call, result: Tensor) -> int:
    first, second = call.arguments[:2]
    if isinstance(first, Symbol) and isinstance(second, Symbol):
        if first.node != second.node:
            raise NoBoundError("multiplies two values that depend on the input")
        return _squared(recording, _node(first, "mul"))
    (symbol,) = symbols((first, second))
    other = second if symbol is first else first
    factor = _constant(other, call, axes=result.ndim)
    return _scaled(recording, _node(symbol, call.name), result, factor=factor)


def _divide(recording: Recording, call: Call, result: Tensor) -> int:
    first, second = call.arguments[:2]
    if call.argument("rounding_mode") is not None:
        raise NoBoundError("rounds values that depend on the input")
    if isinstance(second, Symbol):
        raise NoBoundError("divides by a value that depends on the input")
    factor = 1 / _constant(second, call, axes=result.ndim)
    return _scaled(recording, _node(first, call.name), result, factor=factor)


def _negate(recording: Recording, call: Call, result: Tensor) -> int:
    return _scaled(recording, _node(call.arguments[0], "neg"), result, factor=-1.0)


def _mean(terms: Callable[[Call, Tensor, Tensor], int]) -> Handler:
    """Returns the handler of a linear function without negative coefficients."""

    def recorded(recording: Recording, call: Call, result: Tensor) -> int:
        node = _node(call.arguments[0], call.name)
        before = call.arguments[0].value
        rest, options = call.arguments[1:], call.options
        _no_symbols(rest, options, name=call.name)
        if options.get("dtype") is not None:
            raise NoBoundError(f"uses {call.name} in another number format")

        def function(values: Tensor) -> Tensor:
            found: Tensor = call.function(values, *rest, **options)
            return found

        _check_apart(function, before, result)
        operation = Mean(
            function,
            taken=recording.shape(node),
            shape=tuple(result.shape[1:]),
            terms=terms(call, before, result),
        )
        return recording.add(operation, node)

    return recorded


def _check_apart(function: Callable[[Tensor], Tensor], before: Tensor, result: Tensor) -> None:
    """Raises `NoBoundError` if a function lets an example influence another."""
    if result.ndim == 0 or result.shape[0] != TRACED:
        raise NoBoundError("mixes the examples of a batch")
    ones = torch.ones_like(before, dtype=torch.float64)
    one, two = function(ones), function(torch.cat([ones[:1], 0 * ones[:1]]))
    if not torch.equal(one[0], two[0]) or bool(two[1].any()):
        raise NoBoundError("mixes the examples of a batch")


def _all_terms(_: Call, before: Tensor, result: Tensor) -> int:
    return max(1, math.ceil(before.numel() / max(1, result.numel())))


def _window_terms(call: Call, before: Tensor, _: Tensor) -> int:
    kernel = call.argument("kernel_size")
    axes = before.ndim - 2
    return math.prod(kernel * axes if len(kernel) == 1 else kernel)


def _adaptive_terms(_: Call, before: Tensor, result: Tensor) -> int:
    pairs = zip(before.shape[2:], result.shape[2:], strict=True)
    return math.prod(taken // made + 2 for taken, made in pairs)


# Nonlinear operations.


def _relu(recording: Recording, call: Call, _: Any) -> int:
    node = _node(call.arguments[0], call.name)
    return recording.add(Rectifier(recording.shape(node)), node)


def _leaky_relu(recording: Recording, call: Call, _: Any) -> int:
    node = _node(call.arguments[0], call.name)
    below = float(call.argument("negative_slope", 0.01))
    if not 0 <= below < 1:
        raise NoBoundError(f"uses a leaky ReLU of slope {below:g}")
    return recording.add(Rectifier(recording.shape(node), below=below), node)


def _clamped(
    recording: Recording, node: int, result: Tensor, low: float | None, high: float | None
) -> int:
    """Returns the node of min(max(x, low), high), made of ReLUs."""
    shape = recording.shape(node)
    if low is not None:
        lifted = _shifted(recording, node, result, -low)
        node = _shifted(recording, recording.add(Rectifier(shape), lifted), result, low)
    if high is not None:
        left = _scaled(recording, node, result, factor=-1.0, shift=_number(high, result))
        rest = recording.add(Rectifier(shape), left)
        node = _scaled(recording, rest, result, factor=-1.0, shift=_number(high, result))
    return node


def _number(value: float, result: Tensor) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, device=result.device)


def _shifted(recording: Recording, node: int, result: Tensor, by: float) -> int:
    if by == 0:
        return node
    return _scaled(recording, node, result, shift=_number(by, result))


def _clamp(recording: Recording, call: Call, result: Tensor) -> int:
    node = _node(call.arguments[0], call.name)
    low = call.argument("min", call.argument("min_val"))
    high = call.argument("max", call.argument("max_val"))
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        raise NoBoundError("clamps by a tensor")
    ends = (None if each is None else float(each) for each in (low, high))
    return _clamped(recording, node, result, *ends)


def _monotone(function: Callable[[Tensor], Tensor]) -> Handler:
    def recorded(recording: Recording, call: Call, _: Any) -> int:
        node = _node(call.arguments[0], call.name)
        for declared in call.function._schema.arguments[1:]:
            if call.argument(declared.name) != declared.default_value:
                raise NoBoundError(f"uses {call.name} with another {declared.name}")
        return recording.add(Monotone(function, recording.shape(node), exact=False), node)

    return recorded


def _squared(recording: Recording, node: int) -> int:
    operation = Convex(torch.square, lambda x: 2 * x, recording.shape(node), exact=False)
    return recording.add(operation, node)


def _power(recording: Recording, call: Call, _: Any) -> int:
    base, exponent = call.arguments
    if isinstance(exponent, Tensor | Symbol) or float(exponent) != 2:
        raise NoBoundError("uses a power other than the square")
    return _squared(recording, _node(base, call.name))


def _absolute(recording: Recording, call: Call, _: Any) -> int:
    node = _node(call.arguments[0], call.name)
    return recording.add(Convex(torch.abs, torch.sign, recording.shape(node), exact=True), node)


def _some(part: slice, parts: list[Tensor]) -> Tensor:
    return parts[0][..., part]


def _largest(recording: Recording, node: int) -> int:
    """Returns the node of the largest number along the last axis, by a tournament."""
    while True:
        *kept, count = recording.shape(node)
        if count == 1:
            return _moved(recording, [node], lambda parts: parts[0].squeeze(-1))
        half = count // 2
        first = _moved(recording, [node], partial(_some, slice(0, half)))
        second = _moved(recording, [node], partial(_some, slice(half, 2 * half)))
        winners = recording.add(Maximum((*kept, half)), first, second)
        if count % 2:
            node = _moved(
                recording,
                [winners, node],
                lambda parts: torch.cat([parts[0], parts[1][..., -1:]], dim=-1),
            )
        else:
            node = winners


def _extremum(sign: float) -> Handler:
    """Returns the handler of max (1) or min (-1) along axes, or of two tensors."""

    def recorded(recording: Recording, call: Call, result: Any) -> int:
        if isinstance(call.argument("other"), Tensor):
            return _of_two(recording, call, result, sign)
        node = _node(call.arguments[0], call.name)
        made = result if isinstance(result, Tensor) else result[0]
        given = call.argument("dim")
        given = [] if given is None else [given] if isinstance(given, int) else list(given)
        axes = len(recording.shape(node)) + 1
        dims = sorted(each % axes for each in given)
        if not dims or dims[0] == 0:
            raise NoBoundError("mixes the examples of a batch")
        kept = [each for each in range(axes) if each not in dims]
        node = node if sign > 0 else _scaled(recording, node, call.arguments[0].value, factor=sign)
        node = _moved(
            recording,
            [node],
            lambda parts: parts[0].permute(*kept, *dims).flatten(len(kept)),
        )
        node = _largest(recording, node)
        node = _moved(recording, [node], lambda parts: parts[0].reshape(made.shape))
        return node if sign > 0 else _scaled(recording, node, made, factor=sign)

    return recorded


def _of_two(recording: Recording, call: Call, result: Tensor, sign: float) -> int:
    first, second = call.arguments[:2]
    shape = tuple(result.shape[1:])
    if isinstance(first, Symbol) and isinstance(second, Symbol):
        nodes = [_expanded(recording, _node(each, call.name), shape) for each in (first, second)]
        if sign < 0:
            nodes = [_scaled(recording, each, result, factor=sign) for each in nodes]
        node = recording.add(Maximum(shape), *nodes)
        return node if sign > 0 else _scaled(recording, node, result, factor=sign)
    (symbol,) = symbols((first, second))
    other = _constant(second if symbol is first else first, call, axes=result.ndim)
    # max(x, c) = c + relu(x - c), and min(x, c) = c - relu(c - x)
    node = _node(symbol, call.name)
    left = _scaled(recording, node, result, factor=sign, shift=-sign * other)
    rest = recording.add(Rectifier(shape), left)
    return _scaled(recording, rest, result, factor=sign, shift=other)


def _windows(recording: Recording, node: int, places: Sequence[Tensor]) -> int:
    """Returns the largest numbers of windows.

    ``places`` holds for each axis the positions of the windows, shape (windows, size).
    """
    channels, *sides = recording.shape(node)
    index = torch.arange(channels, device=recording.device).view(-1, *[1] * (2 * len(sides)))
    for axis, (side, place) in enumerate(zip(sides, places, strict=True)):
        shape = [1] * (1 + 2 * len(sides))
        shape[1 + axis], shape[1 + len(sides) + axis] = place.shape
        index = index * side + place.to(index.device).view(shape)
    index = index.flatten(1 + len(sides))
    flat = index.flatten()
    node = _moved(
        recording,
        [node],
        lambda parts: parts[0].flatten(1)[:, flat].view(TRACED, *index.shape),
    )
    return _largest(recording, node)


def _max_pool(recording: Recording, call: Call, result: Any) -> int:
    node = _node(call.arguments[0], call.name)
    made = result if isinstance(result, Tensor) else result[0]
    sides = recording.shape(node)[1:]
    if len(sides) != made.ndim - 2:
        raise NoBoundError("uses pooling on inputs without a batch axis")

    def each_axis(name: str, default: Sequence[int]) -> Sequence[int]:
        given = call.argument(name) or default
        given = [given] if isinstance(given, int) else list(given)
        return given * len(sides) if len(given) == 1 else given

    kernel = each_axis("kernel_size", ())
    settings = zip(
        sides,
        made.shape[2:],
        kernel,
        each_axis("stride", kernel),
        each_axis("padding", [0]),
        each_axis("dilation", [1]),
        strict=True,
    )
    places = []
    for side, count, size, stride, padding, dilation in settings:
        starts = torch.arange(count).unsqueeze(1) * stride - padding
        places.append(_inside(starts + torch.arange(size) * dilation, side))
    return _windows(recording, node, places)


def _adaptive_max_pool(recording: Recording, call: Call, result: Any) -> int:
    node = _node(call.arguments[0], call.name)
    made = result[0]
    places = []
    for side, count in zip(recording.shape(node)[1:], made.shape[2:], strict=True):
        steps = torch.arange(count)
        starts, ends = steps * side // count, ((steps + 1) * side + count - 1) // count
        offsets = torch.arange(int((ends - starts).max()))
        place = starts.unsqueeze(1) + offsets
        places.append(torch.minimum(place, ends.unsqueeze(1) - 1))
    return _windows(recording, node, places)


def _inside(place: Tensor, side: int) -> Tensor:
    """Returns positions with those in the padding replaced by another one of their window."""
    valid = (place >= 0) & (place < side)
    some = torch.where(valid, place, -1).amax(1, keepdim=True)
    return torch.where(valid, place, some)


def _final(name: str) -> Handler:
    def recorded(_: Recording, call: Call, result: Tensor) -> str:
        if result.ndim != 2 or call.argument("dim") not in (1, -1):
            raise NoBoundError(f"uses a {name.replace('_', '-')} that is not over its outputs")
        return name

    return recorded


_MOVES = (
    *("view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t"),
    *("unsqueeze", "squeeze", "select", "slice", "expand", "flip", "roll", "repeat"),
    *("split", "split_with_sizes", "chunk", "unbind", "index_select", "index", "unfold"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "im2col"),
    *("reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"),
    *("upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact2d"),
)
_COPIES = ("clone", "contiguous", "alias", "detach", "_to_copy", "lift_fresh")
_NORMS = (
    *("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
    *("cudnn_batch_norm", "miopen_batch_norm", "_batch_norm_no_update"),
)
_POOLS = ("max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool1d", "max_pool2d")

RECORDED: dict[str, Handler] = {
    **dict.fromkeys(_MOVES, _move),
    **dict.fromkeys(_COPIES, _keep),
    "constant_pad_nd": _pad,
    "cat": _join,
    "stack": _join,
    "mm": _mm,
    "addmm": _addmm,
    "linear": _linear,
    "mv": _mv,
    "convolution": _convolution,
    **dict.fromkeys(_NORMS, _batch_norm),
    "add": _add,
    "sub": _subtract,
    "rsub": _subtract,
    "mul": _multiply,
    "div": _divide,
    "neg": _negate,
    "mean": _mean(_all_terms),
    "sum": _mean(_all_terms),
    "avg_pool2d": _mean(_window_terms),
    "avg_pool3d": _mean(_window_terms),
    "_adaptive_avg_pool2d": _mean(_adaptive_terms),
    "upsample_bilinear2d": _mean(lambda *_: BILINEAR_TERMS),
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "hardtanh": _clamp,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp,
    "sigmoid": _monotone(torch.sigmoid),
    "tanh": _monotone(torch.tanh),
    "elu": _monotone(functional.elu),
    "softplus": _monotone(functional.softplus),
    "abs": _absolute,
    "pow": _power,
    "square": lambda recording, call, _: _squared(recording, _node(call.arguments[0], "square")),
    "amax": _extremum(1.0),
    "amin": _extremum(-1.0),
    "max": _extremum(1.0),
    "min": _extremum(-1.0),
    "maximum": _extremum(1.0),
    "minimum": _extremum(-1.0),
    **dict.fromkeys(_POOLS, _max_pool),
    "adaptive_max_pool2d": _adaptive_max_pool,
    "_softmax": _final("softmax"),
    "_log_softmax": _final("log_softmax"),
}
