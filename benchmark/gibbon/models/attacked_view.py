"""The model as an adaptive attack sees it; it is judged on the model itself.

An attack that follows the gradient needs a useful one.  Three changes give it one where a defence
does not (`gibbon.specs.adaptation.Adaptation`):

- ``eot``: outputs are the mean over draws of the model's random numbers, and so is their gradient
  (expectation over transformations).
- ``backward``: a submodule's output is unchanged, and its gradient is that of a function that
  stands in for it (backward pass differentiable approximation).
- ``before``: the outputs are the logits that a submodule takes.

A view is a `Classifier` around the model's own module.  It makes all passes on that module, where
they are counted.  Hooks are registered for one forward pass at a time and removed afterwards, also
after an exception, so that the model can be judged while the attack is still at work.

A model that answers at random is always seen through a view, so that each pass of an attack draws
for the examples and not for the batch; without ``eot`` it is one draw.

The draws of an example are seeded by the attack's key and by the example's clean input.  A point
belongs to the clean input of the batch that is nearest to it, because attacks evaluate some of the
examples, or several points of each, in any order.  All passes of an attack use the same draws,
unless it says which step it is at (`redraw`): a search that compares points needs one function.

Sources: A. Athalye, N. Carlini and D. Wagner, "Obfuscated gradients give a false sense of security:
circumventing defenses to adversarial examples", ICML 2018, sections 4.1 and 4.2,
https://arxiv.org/abs/1802.00420; A. Athalye, L. Engstrom, A. Ilyas and K. Kwok, "Synthesizing
robust adversarial examples", ICML 2018, https://arxiv.org/abs/1707.07397.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gibbon.core.errors import ModelError, suggest
from gibbon.core.import_path import importing, is_reference, load_reference
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.models.classifier import Classifier
from gibbon.models.memory import is_shortage
from gibbon.models.outputs import LOGITS
from gibbon.models.pass_count import uncounted
from gibbon.models.random_draws import draws_by_row, row_numbers, shared_seed
from gibbon.specs.adaptation import IDENTITY, UNCHANGED, Adaptation

NAMED = 12  # submodules that an error names
CURE = (
    'give the part that loses it another backward pass, backward = { "module.path" = "identity" }'
)
StandIn = Callable[..., Any]


class Attacked(nn.Module):
    """The module of a view.

    Args:
        source: the model; it must outlive the view.
        adaptation: what the view changes.
        clean: shape (N, *input_shape): the inputs under attack.
        key: key of the random streams.

    Raises `ModelError` if a path or a function of the adaptation is wrong.
    """

    def __init__(
        self, source: Classifier, adaptation: Adaptation, *, clean: Tensor, key: int
    ) -> None:
        super().__init__()
        self.source = source  # a classifier is no module
        self.adaptation, self.key, self.step = adaptation, key, 0
        self.inner = source.module if source.eager is None else source.eager
        self.training = self.inner.training
        self._clean = clean.detach()
        self._keys: Tensor | None = None
        self._is_random, self._by_row = source.draws.count > 1, source.draws.by_row
        self._before = find_part(self.inner, adaptation.before) if adaptation.before else None
        self._replaced = [
            (path, find_part(self.inner, path), stand_in(reference))
            for path, reference in adaptation.backward
        ]

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the outputs of the model as the attack sees them, shape (N, K)."""
        eot, count = self.adaptation.eot, len(inputs)
        if (eot == 1 and not self._is_random) or not count:
            return self._outputs(inputs)
        owners = self._owners(inputs)
        streams = [owners.child(f"{self.step} {number}") for number in range(eot)]
        if self._rows_draw(inputs):
            keys = torch.cat([each.keys for each in streams])
            rows = inputs.repeat(eot, *(1,) * (inputs.ndim - 1))
            with row_numbers(ExampleStreams(keys), seed=shared_seed(self.key, self.step)):
                return self._outputs(rows).view(eot, count, -1).mean(0)
        drawn = []
        for number, own in enumerate(streams):
            with row_numbers(own, seed=shared_seed(self.key, self.step, number)):
                drawn.append(self._outputs(inputs))
        return torch.stack(drawn).mean(0)

    def _rows_draw(self, inputs: Tensor) -> bool:
        if self._by_row is None:
            with uncounted(self.source.passes):
                self._by_row = draws_by_row(self.inner, inputs)
        return self._by_row

    def _owners(self, inputs: Tensor) -> ExampleStreams:
        """Returns the stream of the example that each point belongs to."""
        if self._keys is None:
            self._keys = _content_keys(self._clean, self.key)
        points, clean = inputs.detach().flatten(1), self._clean.flatten(1)
        nearest = torch.cdist(points.float(), clean.float()).argmin(1)
        return ExampleStreams(self._keys[nearest])

    def _outputs(self, rows: Tensor) -> Tensor:
        """Returns the outputs of one forward pass of the model, with hooks for its duration."""
        source, seen = self.source, list[Tensor]()
        with ExitStack() as hooks:
            if rows.requires_grad and torch.is_grad_enabled():
                for path, part, function in self._replaced:
                    hooks.enter_context(_another_backward(part, function, path=path))
            if self._before is not None:
                hooks.enter_context(_noting_input(self._before, seen))
            hooks.enter_context(source.counting_only())
            outputs: object = self.inner(rows)
            if self.inner is not source.module or not source.listening:
                source.note_pass(rows, outputs)
        if self._before is None:
            return source.checked(outputs, rows)
        logits = self._logits(seen, len(rows))
        if logits.requires_grad:
            source.note_backward(logits)
        return logits

    def _logits(self, seen: list[Tensor], count: int) -> Tensor:
        path, shape = self.adaptation.before, (count, self.source.classes)
        if len(seen) != 1:
            raise ModelError(_calls_text(f"before = {path!r}", path, len(seen)))
        if tuple(seen[0].shape) != shape:
            raise ModelError(
                f"before = {path!r}: the input of that submodule must be logits of shape {shape}, "
                f"got {tuple(seen[0].shape)}"
            )
        return seen[0].float() if seen[0].dtype in (torch.float16, torch.bfloat16) else seen[0]


def attacked_view(
    source: Classifier, adaptation: Adaptation, *, inputs: Tensor, key: int = 0
) -> Classifier:
    """Returns the model as an attack with this adaptation sees it.

    Args:
        source: the model, or a view of it, whose adaptation is replaced.
        adaptation: what the view changes; if it changes nothing, the model itself is returned,
            unless it answers at random.
        inputs: shape (N, *input_shape): the clean inputs under attack.
        key: key of the random streams.

    Raises `ModelError` if a path or a function of the adaptation is wrong.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Softmax(1))
    >>> model = Classifier(net, classes=3, input_shape=(1, 2, 2))
    >>> inputs = torch.rand(5, 1, 2, 2)
    >>> view = attacked_view(model, Adaptation(before="2"), inputs=inputs)
    >>> bool((view(inputs) == net[1](net[0](inputs))).all()), model.passes.forward
    (True, 5)
    """
    whole = model_behind_view(source)
    before = source.module if isinstance(source.module, Attacked) else None
    if not adaptation and whole.draws.count == 1:
        return whole
    module = Attacked(
        whole,
        adaptation,
        clean=inputs if before is None else before._clean,
        key=key if before is None else before.key,
    )
    view = Classifier(
        module,
        classes=whole.classes,
        input_shape=whole.input_shape,
        outputs=LOGITS if adaptation.before else whole.outputs,
        bounds=whole.bounds,
        passes=whole.passes,
        draws=whole.draws,
        foreign=whole.foreign,
    )
    view.show(whole, unchanged=adaptation.eot == 1 and not adaptation.before)
    return view


def model_behind_view(classifier: Classifier) -> Classifier:
    """Returns the model that a view shows; any other classifier itself."""
    module = classifier.module
    return module.source if isinstance(module, Attacked) else classifier


def adaptation_of(classifier: Classifier) -> Adaptation:
    """Returns the adaptation of a view; one that changes nothing for any other classifier."""
    module = classifier.module
    return module.adaptation if isinstance(module, Attacked) else UNCHANGED


def redraw(classifier: Classifier, step: int) -> None:
    """Uses other draws from here on, if the classifier is a view of a model that has any.

    Args:
        classifier: the model under attack.
        step: number of the attack's step, which the draws depend on.
    """
    if isinstance(classifier.module, Attacked):
        classifier.module.step = step


def check_view(
    source: Classifier, adaptation: Adaptation, inputs: Tensor, *, needs_gradient: bool
) -> None:
    """Checks that an adaptation fits a model, by one forward pass on these inputs.

    Args:
        source: the model.
        adaptation: the adaptation.
        inputs: shape (N, *input_shape).
        needs_gradient: whether the attack takes gradients.

    Raises `ModelError` if a path or a function is wrong, if a submodule is not called, or if
    shapes do not fit.  The passes are not counted.
    """
    view = attacked_view(source, adaptation, inputs=inputs)
    module = view.module
    if not isinstance(module, Attacked):
        return
    with source.uncounted():
        calls = _calls(module.inner, inputs)
        for path, _ in adaptation.backward:
            if not calls.get(id(find_part(module.inner, path))):
                raise ModelError(_calls_text(f"backward: {path!r}", path, 0))
        if adaptation.before:
            _check_logits(module, calls, len(inputs))
        if not needs_gradient:
            return
        outputs = _with_graph(view, inputs)
    if not outputs.requires_grad:
        where = f" that {adaptation.before!r} takes" if adaptation.before else ""
        raise ModelError(f"the outputs{where} have no gradient in the inputs: {CURE}")


def _with_graph(view: Classifier, inputs: Tensor) -> Tensor:
    leaf = inputs.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            return view(leaf)
    except (RuntimeError, TypeError, ValueError) as error:
        if is_shortage(error):
            raise
        raise ModelError(f"it can't be run with gradients on ({error}): {CURE}") from error


def find_part(module: nn.Module, path: str) -> nn.Module:
    """Returns the submodule at a path, such as ``"features.0"``.

    A path inside a module that Gibbon wrapped, such as in a normalisation, need not name the
    wrapping: the end of a full path is enough if only one submodule has it.

    Raises `ModelError` with the nearest path if there is none.

    >>> net = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    >>> find_part(net, "1.1")
    ReLU()
    >>> find_part(net, "1.3")
    Traceback (most recent call last):
    ...
    gibbon.core.errors.ModelError: it has no submodule '1.3'; did you mean '1.1'? Its submodules: \
0, 1, 1.0, 1.1
    """
    named: Iterator[tuple[str, nn.Module]] = module.named_modules(remove_duplicate=False)
    parts = {name: each for name, each in named if name}
    if path in parts:
        return parts[path]
    ending = {name: each for name, each in parts.items() if name.endswith(f".{path}")}
    if ending and len({id(each) for each in ending.values()}) == 1:
        return next(iter(ending.values()))
    if ending:
        names = ", ".join(ending)
        raise ModelError(f"it has several submodules {path!r}: give the full path, one of {names}")
    raise ModelError(f"it has no submodule {path!r}{suggest(path, parts)} {_listed(parts)}")


def stand_in(reference: str) -> StandIn | None:
    """Returns the function that gives a submodule's gradient; None for ``"identity"``.

    Raises `ModelError` if the text is neither that nor a reference, or the object can't be called.
    """
    if reference == IDENTITY:
        return None
    if not is_reference(reference):
        raise ModelError(
            f"backward: expected {IDENTITY!r}, path/to/file.py:function or "
            f"package.module:function, got {reference!r}{suggest(reference, [IDENTITY])}"
        )
    with importing(reference):
        function: object = load_reference(reference, what="backward")
    if not callable(function) or isinstance(function, type):
        raise ModelError(
            f"backward: {reference!r} must be a function of what the submodule takes, got "
            f"{'a class' if isinstance(function, type) else type(function).__name__}"
        )
    return function


class _Graft(torch.autograd.Function):
    """Has the value of one tensor and the gradient of another."""

    @staticmethod
    def forward(context: Any, value: Tensor, surrogate: Tensor) -> Tensor:
        """Returns the value."""
        context.dtype = surrogate.dtype
        return value.clone()  # the model may change it in place

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[None, Tensor]:
        """Returns the gradient for the surrogate."""
        return None, gradient.to(context.dtype)


@contextmanager
def _another_backward(part: nn.Module, function: StandIn | None, *, path: str) -> Iterator[None]:
    """Gives calls of a submodule another backward pass, for a ``with`` block.

    The submodule itself is run without a graph: it may leave torch.
    """
    waiting: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def cut(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        waiting.append((args, kwargs))
        return tuple(map(_cut, args)), {key: _cut(each) for key, each in kwargs.items()}

    def graft(module: nn.Module, args: Any, kwargs: Any, outputs: object) -> Tensor:
        given, named = waiting.pop()
        return _grafted(outputs, given, named, function, path=path)

    first = part.register_forward_pre_hook(cut, with_kwargs=True, prepend=True)
    last = part.register_forward_hook(graft, with_kwargs=True)
    try:
        yield
    finally:
        first.remove()
        last.remove()


def _grafted(
    outputs: object,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    function: StandIn | None,
    *,
    path: str,
) -> Tensor:
    what = f"backward: {path!r}"
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        kind = outputs.dtype if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ModelError(
            f"{what} must return one tensor of floating-point numbers to have a gradient, got "
            f"{kind}"
        )
    if function is None:
        surrogate: object = _first_tensor(args, kwargs)
    else:
        surrogate = function(*args, **kwargs)
    if not isinstance(surrogate, Tensor) or surrogate.shape != outputs.shape:
        came = tuple(surrogate.shape) if isinstance(surrogate, Tensor) else None
        if function is None:
            raise ModelError(
                f"{what}: {IDENTITY!r} needs an input and an output of one shape, got "
                f"{came} and {tuple(outputs.shape)}: name a function, path/to/file.py:function"
            )
        raise ModelError(
            f"{what}: its function must return a tensor of the submodule's output's shape "
            f"{tuple(outputs.shape)}, got {came or type(surrogate).__name__}"
        )
    if any(isinstance(each, Tensor) and each.requires_grad for each in (*args, *kwargs.values())):
        if not surrogate.requires_grad:
            raise ModelError(f"{what}: its function has no gradient in its input")
        grafted: Tensor = _Graft.apply(outputs.detach(), surrogate)
        return grafted
    return outputs


@contextmanager
def _noting_input(part: nn.Module, seen: list[Tensor]) -> Iterator[None]:
    """Appends the first input of each call of a submodule, for a ``with`` block.

    The rest of the model is run without a graph.
    """

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = _first_tensor(args, kwargs)
        if found is not None:
            seen.append(found)
        return tuple(map(_cut, args)), {key: _cut(each) for key, each in kwargs.items()}

    handle = part.register_forward_pre_hook(note, with_kwargs=True, prepend=True)
    try:
        yield
    finally:
        handle.remove()


def _cut(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    return next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None)


@torch.no_grad()
def _calls(module: nn.Module, inputs: Tensor) -> dict[int, list[tuple[int, ...]]]:
    """Returns the shapes of the first inputs of all calls of each submodule, by its id."""
    calls: dict[int, list[tuple[int, ...]]] = {}

    def note(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found = _first_tensor(args, kwargs)
        calls.setdefault(id(part), []).append(() if found is None else tuple(found.shape))

    with ExitStack() as hooks:
        for part in module.modules():
            if not isinstance(part, torch.jit.ScriptModule):
                hooks.callback(part.register_forward_pre_hook(note, with_kwargs=True).remove)
        module(inputs)
    return calls


def _check_logits(module: Attacked, calls: Mapping[int, list[tuple[int, ...]]], count: int) -> None:
    path, shape = module.adaptation.before, (count, module.source.classes)
    shapes = calls.get(id(find_part(module.inner, path)), [])
    fitting = [
        name
        for name, part in module.inner.named_modules()
        if name and calls.get(id(part)) == [shape]
    ]
    others = f"; submodules that take this shape: {', '.join(fitting) or 'none'}"
    if len(shapes) != 1:
        raise ModelError(_calls_text(f"before = {path!r}", path, len(shapes)) + others)
    if shapes[0] != shape:
        raise ModelError(
            f"before = {path!r}: the input of that submodule must be logits of shape "
            f"(N, {shape[1]}), got {('N', *shapes[0][1:])}{others}".replace("'N'", "N")
        )


def _calls_text(what: str, path: str, count: int) -> str:
    if count:
        return f"{what}: that submodule is called {count} times in a forward pass, expected once"
    return (
        f"{what}: that submodule is never called in a forward pass: the model uses it in another "
        "way, or is compiled as a whole"
    )


def _listed(parts: Mapping[str, nn.Module]) -> str:
    names = list(parts)
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"Its submodules: {', '.join(names[:NAMED]) or 'none'}{more}"


def _content_keys(inputs: Tensor, key: int) -> Tensor:
    """Returns a key for each input that depends on its values alone, int64, shape (N,)."""
    rows = inputs.flatten(1).cpu().contiguous().numpy()
    keys = [derive_key(key, hashlib.sha256(row.tobytes()).hexdigest()) for row in rows]
    return torch.tensor(keys, dtype=torch.int64, device=inputs.device)
