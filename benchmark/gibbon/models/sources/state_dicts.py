"""Finds a model's state dict in the content of a checkpoint, and strips what wrappers added to it.

Training scripts nest state dicts under keys of their own, beside those of averages, optimisers and
other networks, and wrappers add prefixes to names (DataParallel, torch.compile, weight averaging,
Lightning, the robustness library).  Which dict and which prefix is meant is decided by the model:
names and shapes must fit.  If several fit and differ, nothing is guessed: the user says which.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gibbon.core.errors import WeightsError, suggest
from gibbon.models.weights import LISTED

# Batch normalisation counts batches since torch 0.4.1; the count is used in training alone.
COUNTS = "num_batches_tracked"
EXTRA_STATE = "_extra_state"  # of torch's modules: anything, not a tensor of the model
BOOKKEEPING = ("n_averaged", "num_updates", "decay", "initted", "step")  # of averaged models
DEPTH, VISITED = 5, 2000  # containers that are looked into
# Parts of names that wrappers of single layers add in the middle of them.
WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
NORMALISATION = re.compile(r"(?:^|\.)(?:normali[sz]er?|normalization)\w*\.(?:new_)?(mean|std)$")
KEY_OPTION = "--weights-key (weights_key in a suite)"
PREFIX_OPTION = "--weights-prefix (weights_prefix in a suite)"
USUAL = "state_dict, model_state_dict, model, net, ema"

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class FoundState:
    """A state dict in a checkpoint.

    Args:
        tensors: the tensors by name.
        keys: the keys that lead to it; none if the content itself is the state dict.
        notes: a sentence for each key.
    """

    tensors: StateDict
    keys: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def path(self) -> str:
        """The keys in one text, as ``weights_key`` takes it."""
        return ".".join(self.keys)


@dataclass(frozen=True)
class ModelTensors:
    """Tensors by the names of a model, with sentences about what was stripped and left aside."""

    tensors: StateDict
    notes: tuple[str, ...] = ()


def find_state(
    content: object, own: StateDict, *, key: str | None, prefix: str | None, where: str
) -> ModelTensors:
    """Returns the tensors in a checkpoint's content that belong to a model.

    Args:
        content: the content of a file.
        own: the model's state dict.
        key: the key under which the state dict is, such as ``ema`` or ``state.model``; any if None.
        prefix: the prefix to strip from names; any that fits if None.
        where: the file, for error messages.

    If nothing fits, the tensors that came nearest are returned, which can't be copied.  Raises
    `WeightsError` if there is no state dict or no such key or prefix, or if several fit and differ.
    """
    states = _candidates(content, key=key, where=where)
    fitting: list[tuple[FoundState, ModelTensors]] = []
    for state in states:
        taken = (
            _matching(state, own, where=where)
            if prefix is None
            else strip(state.tensors, prefix, own, where=where)
        )
        if taken is not None and (prefix is None or _fits(taken.tensors, own)):
            fitting.append((state, taken))
    if fitting:
        state, taken = fitting[0]
        others = [each for each, found in fitting[1:] if not _equal(found.tensors, taken.tensors)]
        if others:
            places = [each.path for each in (state, *others)]
            raise WeightsError(
                f"{where}: holds tensors that fit the model under "
                f"{' and under '.join(map(repr, places))}: which of them is not known; say it with "
                f"{KEY_OPTION}, such as {places[0]}"
            )
        return ModelTensors(taken.tensors, (*state.notes, *taken.notes))
    state = _single(states, where=where)
    taken = (
        _stripped(state.tensors, own)
        if prefix is None
        else strip(state.tensors, prefix, own, where=where)
    )
    return ModelTensors(taken.tensors, (*state.notes, *taken.notes))


def find_only_state(content: object, *, key: str | None, where: str) -> FoundState:
    """Returns the state dict in a checkpoint's content, whatever the model.

    Raises `WeightsError` if there is none, or several.
    """
    return _single(_candidates(content, key=key, where=where), where=where)


def _single(states: Sequence[FoundState], *, where: str) -> FoundState:
    """Returns the only one of several state dicts.  Raises `WeightsError` if there are several."""
    first, *others = states
    if all(_equal(each.tensors, first.tensors) for each in others):
        return first
    places = [each.path for each in states]
    raise WeightsError(
        f"{where}: holds tensors under {' and under '.join(map(repr, places[:LISTED]))}: which of "
        f"them is not known; say it with {KEY_OPTION}, such as {places[0]}"
    )


def _candidates(content: object, *, key: str | None, where: str) -> list[FoundState]:
    start: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if key is not None:
        content, start, notes = _at(content, key, where=where)
    if not isinstance(content, Mapping | nn.Module | list | tuple):
        raise WeightsError(
            f"{where}: holds a {type(content).__name__}, expected a state dict: tensors by name"
        )
    found = list(_search(content, start, notes, seen=set()))
    if found:
        return found
    if isinstance(content, list | tuple):
        raise WeightsError(
            f"{where}: holds a {type(content).__name__}, expected a state dict: tensors by name"
        )
    names = [str(name) for name in content] if isinstance(content, Mapping) else []
    raise WeightsError(
        f"{where}: holds no state dict: expected tensors by name, or those under a key, such as "
        f"{USUAL}; got the keys {_some(names)}"
    )


def _at(
    content: object, key: str, *, where: str
) -> tuple[object, tuple[str, ...], tuple[str, ...]]:
    """Returns what is under a key, whose parts are joined by dots unless a key has dots itself."""
    keys: list[str] = []
    notes: list[str] = []
    rest = key
    while rest:
        children = dict(_children(content))
        step = next(
            (each for each in sorted(children, key=len, reverse=True) if _begins(rest, each)), None
        )
        if step is None:
            known = [each for each in children if not isinstance(children[each], Tensor)] or [
                *children
            ]
            inside = f" under {'.'.join(keys)!r}" if keys else ""
            raise WeightsError(
                f"{where}: weights_key {key!r}: there is no {rest!r}{inside}"
                f"{suggest(rest, known)} Keys: {_some(known)}"
            )
        notes.append(_taken(step, children))
        keys.append(step)
        content, rest = children[step], rest[len(step) :].removeprefix(".")
    return content, tuple(keys), tuple(notes)


def _begins(text: str, key: str) -> bool:
    return bool(key) and (text == key or text.startswith(f"{key}."))


def _children(content: object) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        yield from ((str(name), each) for name, each in content.items())
    elif isinstance(content, list | tuple):
        yield from ((str(place), each) for place, each in enumerate(content))


def _search(
    content: object, keys: tuple[str, ...], notes: tuple[str, ...], *, seen: set[int]
) -> Iterator[FoundState]:
    """Yields the state dicts in a content, those of outer keys first."""
    if id(content) in seen or len(seen) > VISITED or len(keys) > DEPTH:
        return
    seen.add(id(content))
    if isinstance(content, nn.Module):
        pickled = "the weights were taken from a pickled module"
        yield FoundState(content.state_dict(), keys, (*notes, pickled))
        return
    found = _state(content)
    if found is not None:
        tensors, left = found
        said = (f"left aside next to the weights: {_some(left)}",) if left else ()
        yield FoundState(tensors, keys, (*notes, *said))
        return
    children = dict(_children(content))
    for name, each in children.items():
        if isinstance(each, Mapping | list | tuple | nn.Module):
            yield from _search(each, (*keys, name), (*notes, _taken(name, children)), seen=seen)


def _state(content: object) -> tuple[StateDict, list[str]] | None:
    """Returns the tensors of a state dict and its other keys, or None if it is none.

    Numbers and texts may be among the tensors; containers make it a checkpoint, of which the
    tensors may be anything.
    """
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        return None
    tensors = {name: each for name, each in content.items() if isinstance(each, Tensor)}
    left = [name for name in content if name not in tensors]
    others = [name for name in left if not name.endswith(EXTRA_STATE)]
    held = [content[name] for name in others]
    if not tensors or any(isinstance(each, Mapping | nn.Module) and each for each in held):
        return None
    if others and not any("." in name for name in tensors):
        return None  # an optimiser's state, or metrics: one tensor beside numbers
    return tensors, others


def _taken(name: str, among: Mapping[str, Any]) -> str:
    others = [each for each in among if each != name]
    left = f"; left aside: {', '.join(others[:LISTED])}" if others else ""
    more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
    return f"the weights were taken from {name!r} in the checkpoint{left}{more}"


def _matching(state: FoundState, own: StateDict, *, where: str) -> ModelTensors | None:
    """Returns the tensors whose names fit a model once a prefix is stripped, or None.

    Raises `WeightsError` if several prefixes fit and their tensors differ.
    """
    for cleaned in (False, True):
        tensors = state.tensors
        if cleaned:
            tensors = _without_wrappers(tensors)
            if len(tensors) != len(state.tensors) or tensors.keys() == state.tensors.keys():
                return None
        covering = {
            prefix: part
            for prefix in _prefixes(tensors, own)
            if _covers(part := _part(tensors, prefix), own)
        }
        if not covering:
            continue
        prefix, taken = next(iter(covering.items()))
        others = [each for each, part in covering.items() if not _equal_on(part, taken, own)]
        if others:
            raise WeightsError(
                f"{where}: holds tensors that fit the model under the prefixes "
                f"{' and '.join(repr(each) for each in (prefix, *others))}: which of them is not "
                f"known; say it with {PREFIX_OPTION}, such as {prefix or others[0]}"
            )
        unknown = [name for name in taken if name not in own and name not in BOOKKEEPING]
        if unknown:
            return None
        known = {name: each for name, each in taken.items() if name in own}
        removed = (_wrapper_note(state.tensors),) if cleaned else ()
        return ModelTensors(known, (*removed, *_notes(tensors, prefix, known)))
    return None


def _stripped(tensors: StateDict, own: StateDict) -> ModelTensors:
    """Returns tensors that do not fit, without a prefix that all have and the model has not."""
    notes: list[str] = []
    while tensors:
        first = next(iter(tensors)).partition(".")[0] + "."
        common = all(name.startswith(first) for name in tensors)
        if not common or first[:-1] not in (*WRAPPERS, "model", "net", "network"):
            break
        if all(name.startswith(first) for name in own):
            break
        notes += _notes(tensors, first, tensors)
        tensors = _part(tensors, first)
    return ModelTensors(tensors, tuple(notes))


def strip(tensors: StateDict, prefix: str, own: StateDict, *, where: str) -> ModelTensors:
    """Returns the tensors with a prefix, which is stripped.  Raises `WeightsError` without any."""
    full = prefix if prefix.endswith(".") else f"{prefix}."
    part = _part(tensors, full)
    if not part:
        found = sorted({name.rpartition(".")[0] for name in tensors} - {""}, key=len)
        starts = sorted({name.partition(".")[0] for name in tensors})
        raise WeightsError(
            f"{where}: weights_prefix {prefix!r}: no name of a tensor starts with it"
            f"{suggest(prefix.rstrip('.'), [*starts, *found])} Names start with {_some(starts)}"
        )
    notes = _notes(tensors, full, part)
    if not _fits(part, own):
        cleaned = _without_wrappers(part)
        if _fits(cleaned, own):
            return ModelTensors(cleaned, (*notes, _wrapper_note(part)))
    return ModelTensors(part, notes)


def _prefixes(tensors: StateDict, own: StateDict) -> list[str]:
    """Returns the prefixes that make one of the names a name of the model, shortest first."""
    name = next((each for each in own if not each.endswith(COUNTS)), None)
    if name is None:
        return [""]
    tails = [each for each in tensors if each == name or each.endswith(f".{name}")]
    return sorted({each[: len(each) - len(name)] for each in tails}, key=lambda each: len(each))


def _part(tensors: StateDict, prefix: str) -> dict[str, Tensor]:
    return {
        name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)
    }


def _covers(part: StateDict, own: StateDict) -> bool:
    """Returns whether tensors have all names of a model, in its shapes; more names may be there."""
    shared = {each.data_ptr() for name, each in own.items() if name in part}
    return all(
        part[name].shape == each.shape
        if name in part
        else name.endswith(COUNTS) or (each.numel() > 0 and each.data_ptr() in shared)
        for name, each in own.items()
    )


def _fits(part: StateDict, own: StateDict) -> bool:
    return _covers(part, own) and all(name in own for name in part)


def _without_wrappers(tensors: StateDict) -> dict[str, Tensor]:
    """Returns tensors without the parts of names that wrappers of single layers add."""
    return {
        ".".join(part for part in name.split(".") if part not in WRAPPERS): tensor
        for name, tensor in tensors.items()
    }


def _wrapper_note(tensors: StateDict) -> str:
    parts = {part for name in tensors for part in name.split(".") if part in WRAPPERS}
    return f"{' and '.join(map(repr, sorted(parts)))} was stripped from within the names of tensors"


def _notes(tensors: StateDict, prefix: str, taken: Collection[str]) -> tuple[str, ...]:
    """Returns sentences about a stripped prefix, and about the tensors that are left aside."""
    left = [name for name in tensors if name.removeprefix(prefix) not in taken]
    left += [name for name in tensors if not name.startswith(prefix) and name not in left]
    notes = []
    which = "" if left else "all "
    rest = prefix
    while rest:
        # A prefix of several wrappers is said one by one, as each of them is known by its own.
        head, _, rest = rest.partition(".")
        notes.append(
            f"the prefix {head + '.'!r} was stripped from the names of {which}{len(taken)} tensors"
        )
    if left:
        notes.append(f"left aside were tensors that the model has not: {_groups(left)}")
    notes += _normalisation(tensors, left)
    return tuple(notes)


def _groups(names: Sequence[str]) -> str:
    """Returns a text of names, those of one module as one."""
    counts: dict[str, int] = {}
    for name in names:
        head, dot, _ = name.rpartition(".")
        top = ".".join(head.split(".")[:2]) + ".*" if dot else name
        counts[top] = counts.get(top, 0) + 1
    texts = [f"{top} ({count})" if count > 1 else top for top, count in counts.items()]
    return _some(texts)


def _normalisation(tensors: StateDict, left: Collection[str]) -> Iterator[str]:
    """Yields a sentence if the tensors that are left aside hold a normalisation of inputs."""
    found: dict[str, str] = {}
    for name in left:
        kind = NORMALISATION.search(name)
        if kind is not None and tensors[name].numel() <= LISTED:
            numbers = tensors[name].detach().float().flatten().tolist()
            found.setdefault(kind[1], ",".join(f"{each:.4g}" for each in numbers))
    if len(found) == 2:
        yield (
            f"the checkpoint normalises inputs by mean {found['mean']} and std {found['std']}, "
            f"which was left aside: give --mean {found['mean']} --std {found['std']}, unless the "
            "model normalises them itself"
        )


def _equal(tensors: StateDict, others: StateDict) -> bool:
    return tensors.keys() == others.keys() and _equal_on(tensors, others, tensors)


def _equal_on(tensors: StateDict, others: StateDict, names: Collection[str]) -> bool:
    shared = [name for name in names if name in tensors and name in others]
    return all(_same(tensors[name], others[name]) for name in shared)


def _same(one: Tensor, other: Tensor) -> bool:
    if one is other:
        return True
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(torch.equal(one, other) or torch.allclose(one, other, 0.0, 0.0, equal_nan=True))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "") or "(none)"
