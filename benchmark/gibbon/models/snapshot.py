"""Detects and undoes changes to a module's state.

`Snapshot` holds copies of the state, attributes included (`gibbon.models.attributes`), and reports
changes that an attack makes.  `ModuleReferences` holds references to the parts of a module, which
evaluation moves or changes, and restores them.

Attacks may be third-party code.  One that trains, normalises anew, unfreezes, hooks or patches the
model would invalidate every later result, so the state is compared after each batch.  Tensors are
compared by version counter, which every in-place operation raises, and by value, since writes
through ``.data`` or numpy bypass the counter; the latter is left out if all code is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from gibbon.core.plain_tensors import each_equal
from gibbon.models.attributes import Attributes
from gibbon.models.held_values import Place

METHODS = ("forward", "__call__")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class _Place:
    owner: nn.Module
    name: str
    tensor: Tensor
    storage: Tensor
    copy: Tensor
    requires_grad: bool

    @property
    def key(self) -> Place:
        return id(self.owner), self.name


CHANGED_TENSORS = "changed the model's parameters or buffers"
CHANGED_ATTRIBUTES = "changed the model's attributes"
PATCHED = "hooked or patched the model"


class Snapshot:
    """A copy of a module's mode, parameters and buffers.

    >>> layer = nn.Linear(2, 1).eval()
    >>> snapshot = Snapshot(layer)
    >>> snapshot.difference() is None
    True
    >>> _ = layer.train()
    >>> snapshot.difference()
    'left the model in another mode (training or eval)'
    >>> snapshot.restore()
    >>> layer.training
    False
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._places = [
            _Place(owner, name, tensor, tensor.data, tensor.detach().clone(), tensor.requires_grad)
            for owner, name, tensor in _tensors(module)
        ]
        self._ways = [(each, _ways(each)) for each in module.modules()]
        self._versions = [place.tensor._version for place in self._places]
        self._attributes = Attributes(module)

    def difference(self, *, but: frozenset[Place] = frozenset(), values: bool = True) -> str | None:
        """Returns a verb phrase for the change since the snapshot, or None if there is none.

        Tensors at the places ``but`` may change; ``values`` as for `changed_places`.
        """
        if any(module.training != ways.training for module, ways in self._ways):
            return "left the model in another mode (training or eval)"
        parts = list(self._module.modules())
        same_parts = parts == [each for each, _ in self._ways]
        if not same_parts or any(ways.differ(_ways(each)) for each, ways in self._ways):
            return PATCHED
        if changed := self.changed_places(values=values) - but:
            tensors = changed - self._attributes.changed()
            return CHANGED_TENSORS if tensors else CHANGED_ATTRIBUTES
        if any(place.tensor.requires_grad != place.requires_grad for place in self._places):
            return "changed which of the model's parameters are frozen"
        return None

    def changed_places(self, *, values: bool = True) -> frozenset[Place]:
        """Returns the places of parameters, buffers and attributes that changed since then.

        Without ``values`` the content of parameters and buffers is not compared: enough for code
        that is known to change tensors by operations of torch only, which their versions count.
        """
        now = {(id(owner), name): tensor for owner, name, tensor in _tensors(self._module)}
        before = {place.key for place in self._places}
        changed = (now.keys() ^ before) | self._attributes.changed()
        alike: list[_Place] = []
        for place, version in zip(self._places, self._versions, strict=True):
            tensor = now.get(place.key)
            if tensor is None:
                continue
            same = tensor is place.tensor and tensor.data_ptr() == place.storage.data_ptr()
            if same and tensor._version == version:
                alike.append(place)
            else:
                changed.add(place.key)
        if values:
            equals = each_equal([(place.tensor, place.copy) for place in alike])
            changed |= {place.key for place, same in zip(alike, equals, strict=True) if not same}
        return frozenset(changed)

    @torch.no_grad()
    def restore(self) -> None:
        """Restores the state of the snapshot."""
        for module, ways in self._ways:
            module.training = ways.training
            ways.restore(module)
        before = {place.key for place in self._places}
        for owner, name, _ in list(_tensors(self._module)):
            if (id(owner), name) not in before:
                delattr(owner, name)
        for place in self._places:
            if getattr(place.owner, place.name, None) is not place.tensor:
                setattr(place.owner, place.name, place.tensor)
            place.tensor.data = place.storage
            place.tensor.copy_(place.copy)
            place.tensor.requires_grad_(place.requires_grad)
        self._versions = [place.tensor._version for place in self._places]
        self._attributes.restore()


class Listener:
    """A forward hook that observes calls and changes nothing.

    A snapshot ignores listeners that are added later, since two models that share a part both
    register one.

    Args:
        saw: called with the module, its arguments and its outputs.
    """

    def __init__(self, saw: Callable[[nn.Module, tuple[object, ...], object], None]) -> None:
        self._saw = saw

    def __call__(self, module: nn.Module, arguments: tuple[object, ...], *rest: Any) -> None:
        """Calls ``saw``; the outputs come last, after arguments by name."""
        named = rest[0].values() if len(rest) > 1 else ()
        self._saw(module, (*arguments, *named), rest[-1])


class Lender:
    """A hook before each call that gives a module another tensor in place of its inputs.

    Args:
        lend: maps the first tensor among the arguments to the one that the module gets.
    """

    def __init__(self, lend: Callable[[Tensor], Tensor]) -> None:
        self._lend = lend

    def __call__(
        self,
        module: nn.Module,
        arguments: tuple[object, ...],
        named: dict[str, object] | None = None,
    ) -> object:
        """Returns the arguments that the module gets, by position and by name.

        Only those by position if torch has lost the note that it takes names.
        """
        given, words = list(arguments), dict(named or {})
        place = next((at for at, each in enumerate(given) if isinstance(each, Tensor)), None)
        word = next((key for key, each in words.items() if isinstance(each, Tensor)), None)
        if place is not None:
            given[place] = self._lend(cast(Tensor, given[place]))
        elif word is not None:
            words[word] = self._lend(cast(Tensor, words[word]))
        return tuple(given) if named is None else (tuple(given), words)


OUR_HOOKS = (Listener, Lender)


@dataclass(frozen=True)
class _CallSettings:
    """The state that determines a call of a module: mode, class, hooks, patched ``forward``."""

    training: bool
    kind: type
    patch: object
    methods: tuple[tuple[type, str, object], ...]
    hooks: tuple[tuple[str, tuple[tuple[object, object], ...]], ...]

    def differ(self, now: _CallSettings) -> bool:
        """Returns whether class, hooks or patch have changed."""
        known = {
            hook for _, items in self.hooks for _, hook in items if isinstance(hook, OUR_HOOKS)
        }

        def relevant(items: Iterable[tuple[object, object]]) -> list[tuple[object, object]]:
            return [
                (key, hook)
                for key, hook in items
                if not isinstance(hook, OUR_HOOKS) or hook in known
            ]

        hooks = tuple((name, tuple(relevant(items))) for name, items in now.hooks)
        own = self.kind, self.patch, self.methods, self.hooks
        return (now.kind, now.patch, now.methods, hooks) != own

    def restore(self, module: nn.Module) -> None:
        module.__class__ = self.kind
        before = {(kind, name): method for kind, name, method in self.methods}
        for kind, name, _ in _methods(self.kind):
            if (kind, name) not in before:
                delattr(kind, name)
        for (kind, name), method in before.items():
            if vars(kind).get(name) is not method:
                setattr(kind, name, method)
        if self.patch is None:
            module.__dict__.pop("forward", None)
        else:
            module.__dict__["forward"] = self.patch
        for name, items in self.hooks:
            registered = module.__dict__[name]
            ours = {key: hook for key, hook in registered.items() if isinstance(hook, OUR_HOOKS)}
            registered.clear()
            registered.update({**ours, **dict(items)})


def _ways(module: nn.Module) -> _CallSettings:
    own = module.__dict__
    hooks = tuple((name, tuple(own[name].items())) for name in HOOKS if name in own)
    kind = type(module)
    return _CallSettings(module.training, kind, own.get("forward"), _methods(kind), hooks)


def _methods(kind: type) -> tuple[tuple[type, str, object], ...]:
    """Returns the methods that a call runs, of a class and its bases, each with its class."""
    return tuple(
        (each, name, vars(each)[name])
        for each in kind.__mro__
        for name in METHODS
        if name in vars(each)
    )


@dataclass(frozen=True)
class _Content:
    """A tensor's data, gradient and ``requires_grad``, which moving it replaces."""

    tensor: Tensor
    data: Tensor
    grad: Tensor | None
    grad_data: Tensor | None
    requires_grad: bool

    def put_back(self) -> None:
        self.tensor.data = self.data
        self.tensor.requires_grad_(self.requires_grad)
        if self.grad is not None and self.grad_data is not None:
            self.grad.data = self.grad_data
        if self.tensor.grad is not self.grad:
            self.tensor.grad = self.grad


class ModuleReferences:
    """References to all parts of a module that evaluation changes; nothing is copied.

    >>> layer = nn.Linear(2, 1)
    >>> references, weight = ModuleReferences(layer), layer.weight
    >>> _ = layer.eval().requires_grad_(False).to("meta")
    >>> references.put_back()
    >>> layer.weight is weight, layer.training, weight.requires_grad, weight.device.type
    (True, True, True, 'cpu')
    """

    def __init__(self, module: nn.Module) -> None:
        modules = list(module.modules())
        self._ways = [(each, _ways(each)) for each in modules]
        self._attributes = [
            (own, {name: own[name] for name in own.keys()})  # noqa: SIM118
            for each in modules
            for own in (each._parameters, each._buffers, each.__dict__)
        ]
        self._contents = [
            _Content(
                each,
                each.data,
                each.grad,
                each.grad.data if each.grad is not None else None,
                each.requires_grad,
            )
            for each in (*module.parameters(), *module.buffers())
        ]

    @torch.no_grad()
    def put_back(self) -> None:
        """Restores all parts."""
        for own, before in self._attributes:
            _put_tensors_back(own, before)
        for content in self._contents:
            content.put_back()
        for module, ways in self._ways:
            if ways.differ(_ways(module)):
                ways.restore(module)
            module.training = ways.training


def move_attributes(module: nn.Module, device: torch.device) -> None:
    """Moves tensor attributes that are neither parameters nor buffers, which `Module.to` skips."""
    for each in module.modules():
        for name, value in list(each.__dict__.items()):
            if isinstance(value, Tensor):
                each.__dict__[name] = value.to(device)  # unchanged if it is there already


def _put_tensors_back(own: MutableMapping[str, Any], before: dict[str, Any]) -> None:
    """Restores tensors by name; other attributes of a module are left alone."""
    for name in dict.fromkeys((*before, *own.keys())):
        old, new = before.get(name), own[name] if name in own else None  # noqa: SIM401
        if old is new or not (isinstance(old, Tensor) or isinstance(new, Tensor)):
            continue
        if name in before:
            own[name] = old
        else:
            del own[name]


def _tensors(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            yield owner, name, parameter
        for name, buffer in owner.named_buffers(recurse=False):
            yield owner, name, buffer
