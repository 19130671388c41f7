"""Watches one pass: active training layers, and calls of autograd inside of ``forward``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gibbon.core.plain_text import message_of
from gibbon.diagnostics.examination.subject import CheckNotes, CheckReport, Subject, counted
from gibbon.models.memory import is_shortage
from gibbon.records.examination import ExaminedFlag

LAYERS, INNER = "layers of training", "autograd inside of forward"
PASSES = 2  # one without and one with gradients

# Functions of torch that act otherwise in training, with the name of the argument that says so.
# Of the functions in C, which have no signature, the position of the argument is given.
SWITCHES = {
    "dropout": "training",
    "alpha_dropout": "training",
    "dropout1d": "training",
    "dropout2d": "training",
    "dropout3d": "training",
    "feature_alpha_dropout": "training",
    "batch_norm": "training",
    "rrelu": "training",
    "multi_head_attention_forward": "training",
    "scaled_dot_product_attention": "dropout_p",  # which is 0 unless it is training
}
POSITIONS = {
    "dropout": 2,
    "feature_dropout": 2,
    "alpha_dropout": 2,
    "native_dropout": 2,
    "batch_norm": 5,
    "scaled_dot_product_attention": 4,
}
SHARES, SHARE_POSITION = ("p", "dropout_p"), 1  # of the numbers that dropout removes
NO_SHARE = ("batch_norm", "rrelu", "scaled_dot_product_attention")


class _Layers(TorchFunctionMode):
    """Records calls of dropout and batch normalisation that act as in training."""

    def __init__(self, place: Callable[[], str]) -> None:
        super().__init__()
        self.seen: dict[tuple[str, str], None] = {}
        self._place = place

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name, keywords = getattr(func, "__name__", ""), kwargs or {}
        known = name in SWITCHES or name in POSITIONS
        if known and _is_active(func, name, args, keywords):
            self.seen[name, self._place()] = None
        return func(*args, **keywords)


def _is_active(func: Any, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    try:
        given = inspect.signature(func).bind(*args, **keywords)
        given.apply_defaults()
        values: dict[str, Any] = given.arguments
    except (TypeError, ValueError):  # a function in C
        values = dict(keywords)
        place = POSITIONS.get(name, len(args))
        if len(args) > place:
            values[SWITCHES.get(name, "train")] = args[place]
        if len(args) > SHARE_POSITION:
            values.setdefault(SHARES[0], args[SHARE_POSITION])
    active = values.get(SWITCHES.get(name, ""), values.get("train", False))
    share = next((values[each] for each in SHARES if each in values), 1.0)
    removes = name in NO_SHARE or not (isinstance(share, int | float) and share == 0)
    return bool(active) and removes


def inner_work(subject: Subject) -> tuple[CheckReport, CheckReport]:
    """Watches one pass without and one with gradients, of one example each.

    Raises ``training-layers`` and ``autograd-in-forward``.
    """
    layers, inner = CheckNotes(LAYERS), CheckNotes(INNER)
    if subject.left < PASSES:
        return layers.leave_out(PASSES), inner.leave_out(PASSES)
    module = subject.classifier.module
    inputs = subject.batch(subject.rows(1)).inputs
    modes: dict[str, Callable[[Tensor], Tensor]] = {"without gradients": subject.ask}
    if subject.differentiable:
        modes["with gradients"] = subject.ask_with_gradients
    seen: dict[tuple[str, str], None] = {}
    engine: dict[str, None] = {}
    error = ""
    for run in modes.values():
        with _following(module) as place, _Layers(place) as watch, _engine_calls(place) as calls:
            try:
                run(inputs)
            except Exception as raised:
                if is_shortage(raised):
                    raise
                error = f"{type(raised).__name__}: {message_of(raised)}".splitlines()[0]
        seen |= watch.seen
        engine |= calls
    looked_at = f"1 example {' and '.join(modes)}, all calls of torch's functions"
    layers.looked_at = inner.looked_at = looked_at
    active = _in_training(module)
    layers.figures["active layers"] = len(seen)
    layers.figures["parts in training mode"] = len(active)
    if seen:
        layers.found.append(_layers_flag(seen, active))
    inner.figures["calls"] = len(engine)
    if engine:
        path = next(iter(engine))
        place_text = f" (in {path})" if path else ""
        inner.found.append(
            ExaminedFlag(
                kind="autograd-in-forward",
                sentence=f"forward itself differentiates or optimises{place_text}",
            )
        )
    if error and not (seen or engine):
        reason = f"the pass raised an exception: {error}"
        return layers.abstain(reason), inner.abstain(reason)
    return layers.report(), inner.report()


def _layers_flag(seen: dict[tuple[str, str], None], active: list[str]) -> ExaminedFlag:
    names = sorted({name for name, _ in seen})
    places = sorted({place or "the model's own forward" for _, place in seen})
    hidden = sorted(set(active))
    words = f"{' and '.join(names)} acts as in training, in {', '.join(places[:3])}"
    more = f" and {counted(len(places) - 3, 'other part')}" if len(places) > 3 else ""
    left = f"; eval() does not reach {', '.join(hidden[:3])}" if hidden else ""
    return ExaminedFlag(
        kind="training-layers",
        figure=counted(len(seen), "layer"),
        sentence=f"{words}{more}{left}",
    )


def _in_training(module: nn.Module) -> list[str]:
    """Returns the names of parts in training mode, also of those that are not registered."""
    found = [name for name, part in module.named_modules() if part.training]
    for outer, part in module.named_modules():
        for name, value in vars(part).items():
            if name.startswith("_") and name in vars(nn.Module()):
                continue
            for place, hidden in _held(value):
                label = ".".join(filter(None, (outer, name + place)))
                found += [
                    ".".join(filter(None, (label, inner)))
                    for inner, each in hidden.named_modules()
                    if each.training
                ]
    return list(dict.fromkeys(found))


def _held(value: object) -> Iterator[tuple[str, nn.Module]]:
    """Yields the modules in a plain list, tuple, dictionary, or in what a function holds."""
    if isinstance(value, nn.Module):
        yield "", value
    elif isinstance(value, list | tuple):
        for place, each in enumerate(value):
            for more, module in _held(each) if isinstance(each, nn.Module) else ():
                yield f"[{place}]{more}", module
    elif isinstance(value, dict):
        for key, each in value.items():
            if isinstance(each, nn.Module):
                yield f"[{key!r}]", each
    elif inspect.isfunction(value):
        for cell in value.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # empty
                continue
            yield from _held(content)


@contextmanager
def _following(module: nn.Module) -> Iterator[Callable[[], str]]:
    """Lends a function that returns the name of the part that is running, for a ``with`` block."""
    running: list[str] = []
    with ExitStack() as stack:
        for name, part in module.named_modules():
            if isinstance(part, torch.jit.ScriptModule):
                continue

            def begin(_: nn.Module, __: object, name: str = name) -> None:
                running.append(name)

            def end(_: nn.Module, __: object, ___: object) -> None:
                if running:
                    running.pop()

            handles = part.register_forward_pre_hook(begin), part.register_forward_hook(end)
            for handle in handles:
                stack.callback(handle.remove)
        yield lambda: running[-1] if running else ""


@contextmanager
def _engine_calls(place: Callable[[], str]) -> Iterator[dict[str, None]]:
    """Records the parts that call autograd's engine, for a ``with`` block.

    Both ``torch.autograd.grad`` and ``backward`` look the engine up by name when they are called,
    also if a model imported them before.
    """
    calls: dict[str, None] = {}
    names = [each for each in ("_engine_run_backward",) if hasattr(torch.autograd, each)]
    names = names or ["grad", "backward"]

    def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **keywords: Any) -> Any:
            calls[place()] = None
            return function(*arguments, **keywords)

        return run

    before = {name: getattr(torch.autograd, name) for name in names}
    try:
        for name, function in before.items():
            setattr(torch.autograd, name, recorded(function))
        yield calls
    finally:
        for name, function in before.items():
            setattr(torch.autograd, name, function)
