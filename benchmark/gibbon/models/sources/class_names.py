"""The names of a model's classes, in the order of its outputs, as far as it states them.

Stated are they by a library's configuration, by an attribute of the module, or by a checkpoint,
into which training scripts put the ``class_to_idx`` of their dataset.  They are compared with the
names of the dataset's classes, whose order need not be the model's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

ATTRIBUTES = ("class_to_idx", "idx_to_class", "id2label", "label2id", "class_names", "classes")
NESTS = ("config", "hparams", "hyper_parameters", "meta", "args", "model_config")
MMLAB = "CLASSES"
UNNAMED = re.compile(r"label_\d+", re.IGNORECASE)  # of transformers, if nobody named the classes


def names_in(thing: Any) -> tuple[str, ...]:
    """Returns the names of classes that a module, a configuration or a checkpoint states.

    Empty if it states none, or no complete ones.

    >>> names_in({"class_to_idx": {"dog": 1, "cat": 0}})
    ('cat', 'dog')
    """
    for place in (thing, *(_get(thing, nest) for nest in NESTS)):
        for attribute in (*ATTRIBUTES, MMLAB):
            found = _ordered(_get(place, attribute))
            if found and not all(UNNAMED.fullmatch(name) for name in found):
                return found
    return ()


def _get(thing: Any, name: str) -> Any:
    if isinstance(thing, Mapping):
        return thing.get(name)
    # Of a module only what it holds itself: a property may compute anything.
    held = getattr(thing, "__dict__", {})
    return held.get(name) if isinstance(held, dict) else None


def _ordered(stated: Any) -> tuple[str, ...]:
    """Returns names by index, from a list or from a mapping in either direction."""
    if isinstance(stated, list | tuple):
        names = tuple(stated)
        return names if len(names) > 1 and all(isinstance(each, str) for each in names) else ()
    if not isinstance(stated, Mapping) or len(stated) < 2:
        return ()
    pairs = [_pair(key, value) for key, value in stated.items()]
    by_index = {pair[0]: pair[1] for pair in pairs if pair is not None}
    if len(by_index) != len(stated) or sorted(by_index) != list(range(len(stated))):
        return ()
    return tuple(by_index[index] for index in range(len(stated)))


def _pair(key: Any, value: Any) -> tuple[int, str] | None:
    if isinstance(value, int) and not isinstance(value, bool) and isinstance(key, str):
        return value, key
    if isinstance(value, str) and isinstance(key, int) and not isinstance(key, bool):
        return key, value
    if isinstance(value, str) and isinstance(key, str) and key.isdecimal():
        return int(key), value
    return None
