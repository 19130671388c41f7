"""The functions, classes and values that answers come from, followed from where they start.

`Reach` follows functions, not files: from an object to the functions, classes, autograd functions
and constants that its code names, and from these on.  So a change of a function or of a helper that
it calls changes the text, and a change of the script around them does not.

The bytecode is read, which is there for classes typed into a console or a notebook, too, and which
is what runs, whatever has become of the file.  Comments, docstrings, layout, the names of the
author's own classes and modules, and paths leave the text as it is.
"""

from __future__ import annotations

import builtins
import enum
import functools
import hashlib
import logging
import os
import random
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from gibbon.attacks.base import Attack
from gibbon.models.snapshot import HOOKS, OUR_HOOKS
from gibbon.runner.plan.bytecode import arguments_of, codes_in, instructions
from gibbon.runner.plan.code_digest import is_library

OURS = ("torch", "gibbon")  # the packages whose code goes by name
MOST = 10_000  # functions, classes and objects that are followed
PATH_MARKS = ("/", "\\")
COPYING = 4  # the protocol in which an object of a library gives its state

# What a class or a module holds that is no code of its author.
GENERATED = frozenset(
    [
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__"),
        *("__annotate__", "__annotate_func__", "__annotations_cache__", "__firstlineno__"),
        *("__static_attributes__", "__parameters__", "__orig_bases__", "__abstractmethods__"),
        *("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__type_params__"),
        *("_abc_impl", "_backward_cls", "training", "__slots__"),
    ]
)
DECLARED = {"needs_gradient"}  # by an attack, which changes no candidate
GENERATED_BY = "__pydantic_"
# Names of a module that say where it is, not what it does.
OF_PLACE = frozenset({"__name__", "__file__", "__spec__", "__package__", "__loader__", "__doc__"})
OF_ENVIRONMENT = frozenset({"environ", "environb", "getenv", "getenvb"})
# Variables that differ between processes and machines of one run.
OF_PROCESSES = frozenset(
    [
        *("CUDA_VISIBLE_DEVICES", "HOSTNAME", "USER", "PWD", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
        *("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_JOB_ID", "SLURM_PROCID"),
    ]
)
BOOKKEEPING = frozenset(vars(nn.Module()))  # of torch: parameters, parts, hooks, mode
WRITES = frozenset({"STORE_ATTR", "STORE_GLOBAL", "DELETE_ATTR"})
READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), np.generic)
COLLECTIONS = (tuple, list, set, frozenset, Mapping)
EXACT = (torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format)
# Objects of libraries without a part in any answer, and those whose state is made by drawing.
STATELESS = (logging.Logger, type(threading.Lock()), type(threading.RLock()), threading.local)
DRAWING = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)


@dataclass
class Reach:
    """The functions, classes and objects that are reached, in the order in which they are.

    Args:
        packages: top-level packages of the author: installed code counts if it is theirs.
        registered: ids of modules whose tensors are compared elsewhere.
        everything: whether attributes and variables count that functions write as they run, but
            for a counter of calls in an attack, the state of random generators, and objects of
            torch.
        in_file: returns a text for a function whose code is that of its file, which then goes by
            it and not by its bytecode; None for another function.

    Attributes:
        nodes: the text of each function, class and object.
        functions: the author's own functions, without those that are generated.
        unknown: what could not be read, in words.
    """

    packages: frozenset[str] = frozenset()
    registered: frozenset[int] = frozenset()
    everything: bool = False
    in_file: Callable[[FunctionType], str | None] = lambda _: None
    nodes: list[list[str]] = field(default_factory=list)
    functions: list[FunctionType] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)
    _kept: list[object] = field(default_factory=list)  # so that no id is used twice
    _open: set[int] = field(default_factory=set)
    _assigned: dict[type, frozenset[str]] = field(default_factory=dict)
    _later: deque[Callable[[], None]] = field(default_factory=deque)
    _words: set[str] = field(default_factory=set)
    _environment: bool = False

    @property
    def is_full(self) -> bool:
        """Whether there was more to follow than `MOST`."""
        return len(self.nodes) > MOST

    def follow(self) -> None:
        """Follows what is reached, to the end."""
        while self._later:
            self._later.popleft()()

    def digest(self, *starts: str) -> str:
        """Returns a digest of texts that `of` returned, and of everything reached from there."""
        self.follow()
        text = repr([list(starts), self.nodes, *self._variables()])
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()

    def _variables(self) -> list[str]:
        """Returns the environment variables that functions may read: a word of theirs names each.

        Empty if none mentions the environment.
        """
        if not self._environment:
            return []
        names = sorted((self._words & os.environ.keys()) - OF_PROCESSES)
        return [f"environ:{name}={_without_place(os.environ[name])}" for name in names]

    def of(self, value: object, *, held: bool = False) -> str:
        """Returns a value as a text; functions and classes go by their number.

        ``held`` values belong to an object: its paths are left out.
        """
        if isinstance(value, enum.Enum):
            inside = self.of(value.value) if self._is_own(type(value).__module__) else ""
            return f"{type(value).__qualname__}.{value.name}{inside and f'={inside}'}"
        if isinstance(value, type):
            return self._class(value)
        text = self._value(value, held=held)
        if text:
            return text if not self._is_own(type(value).__module__) else self._derived(value, text)
        return self._callable(value) or self._object(value)

    def _value(self, value: object, *, held: bool) -> str:
        """Returns the text of a number, a word, an array or a collection; empty for others."""
        if isinstance(value, str):
            self._words.add(value)
        if value is os.environ:
            return "environ"
        if isinstance(value, PLAIN):
            return _without_place(value) if held and _may_be_path(value) else repr(value)
        if isinstance(value, EXACT):
            return str(value)
        if isinstance(value, os.PathLike):
            return f"path:{Path(value).name}" if self.everything else "path"
        if isinstance(value, Tensor | np.ndarray):
            return self._array(value)
        if isinstance(value, COLLECTIONS):
            return self._collection(value, held=held)
        return ""

    def _derived(self, value: object, text: str) -> str:
        """Returns the text of a value whose class the author derived from a plain one."""
        more = [
            f"{name}={self.of(each, held=True)}"
            for name, each in sorted(getattr(value, "__dict__", {}).items())
        ]
        return f"{self._class(type(value))}({text}{','.join(['', *more])})"

    def _collection(self, value: Any, *, held: bool) -> str:
        kind = type(value).__name__
        if id(value) in self._open:
            return f"{kind}:{len(value)}"
        self._open.add(id(value))
        try:
            if isinstance(value, Mapping):
                texts = [
                    f"{self.of(key)}:{self.of(value[key], held=held)}"
                    for key in sorted(value, key=str)
                ]
                if isinstance(value, defaultdict):
                    texts.append(self.of(value.default_factory))
            else:
                texts = [self.of(each, held=held) for each in value]
                if isinstance(value, set | frozenset):
                    texts.sort()
        finally:
            self._open.discard(id(value))
        return f"{kind}[{','.join(texts)}]"

    def _array(self, value: Tensor | np.ndarray[Any, Any]) -> str:
        head = f"array:{tuple(value.shape)}:{value.dtype}"
        if isinstance(value, Tensor):
            if value.is_meta:
                return head
            try:
                return f"{head}:{_hash(_bytes(value))}"
            except (RuntimeError, TypeError, NotImplementedError):
                return self._unread(f"a tensor of layout {value.layout}", head)
        if value.dtype.hasobject:
            return f"{head}:{self.of(value.tolist())}"
        return f"{head}:{_hash(np.ascontiguousarray(value).tobytes())}"

    def _callable(self, value: Any) -> str:
        """Returns the text of a function, or of an object made of one; empty for another object."""
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            return self._method(value)
        if isinstance(value, staticmethod | classmethod):
            return self.of(value.__func__)
        if isinstance(value, property):
            accessors = (value.fget, value.fset)
            return f"property[{','.join(self.of(each) for each in accessors if each)}]"
        if isinstance(value, functools.partial):
            return f"partial[{self.of(value.func)},{self.of(value.args)},{self.of(value.keywords)}]"
        if isinstance(value, functools.cached_property):
            return self.of(value.func)
        if isinstance(value, torch.jit.ScriptFunction):
            return str(value.code)
        return ""

    def _method(self, value: MethodType) -> str:
        inner = value.__func__
        text = self._function(inner) if isinstance(inner, FunctionType) else "method"
        # A part's own method says nothing new; another object's depends on what it holds.
        bound = value.__self__
        if id(bound) in self._numbers or id(bound) in self.registered:
            return text
        return f"{text} of {self.of(bound)}"

    def _object(self, value: Any) -> str:
        kind = type(value)
        if isinstance(value, nn.Module):
            return self._part(value)
        for inner in ("py_func", "__wrapped__", "fn"):  # of a compiled or decorated function
            function = _attribute(value, inner)
            if isinstance(function, FunctionType):
                return f"{self._class(kind)}[{self._function(function)}]"
        if isinstance(value, ModuleType):
            return f"module:{value.__name__}" if not self._is_own(value.__name__) else "module"
        name = _attribute(value, "__qualname__")
        if isinstance(name, str) and name:  # a function of a library in C
            return self._named(value, name)
        return self._node(value, self._about_object)

    def _about_object(self, value: Any) -> Iterator[str]:
        yield self._class(type(value))
        yield from self._state(value)

    def _named(self, value: Any, name: str) -> str:
        """Returns the text of a function in C; a method of an object counts with the object."""
        text, bound = (
            f"{_attribute(value, '__module__') or ''}.{name}",
            _attribute(value, "__self__"),
        )
        if bound is None or isinstance(bound, ModuleType | type):
            return text
        return f"{text} of {self.of(bound)}"

    def _state(self, value: Any) -> Iterator[str]:
        """Yields the attributes of an object, or what a library says of it to copy it."""
        kind = type(value)
        if isinstance(value, STATELESS):
            return
        if not self.everything and (isinstance(value, DRAWING) or _goes_by_class(kind)):
            return
        if isinstance(value, torch.Generator):
            yield self.of(value.get_state())
            return
        held = dict(_attributes(value))
        if self._is_own(kind.__module__) or (held and not self.everything):
            passed = self._written(kind) | GENERATED
            for name, each in sorted(held.items()):
                if name not in passed:
                    yield f"{name}={self.of(each, held=True)}"
            return
        try:
            reduced = value.__reduce_ex__(COPYING)
            parts = [reduced] if isinstance(reduced, str) else list(reduced)[:5]
            # The last two are iterators over the entries of a list and of a mapping.
            parts[3:] = [each and list(each) for each in parts[3:]]
        except Exception:  # noqa: BLE001  an object of any library
            self._unread(f"an object of {kind.__module__}.{kind.__qualname__}", "")
        else:
            yield self.of(parts, held=True)

    def _part(self, part: nn.Module) -> str:
        """Returns the number of a module, whose text is its class, its settings and functions."""
        return self._node(part, self._about_part)

    def _about_part(self, part: nn.Module) -> Iterator[str]:
        kind = type(part)
        yield self._class(kind)
        passed = self._written(kind) | BOOKKEEPING
        for name, value in sorted(vars(part).items()):
            if name not in passed:
                yield f"{name}={self.of(value, held=True)}"
        for name in HOOKS:
            for hook in vars(part).get(name, {}).values():
                if not isinstance(hook, OUR_HOOKS):
                    yield f"{name}={self.of(hook)}"
        if isinstance(part, torch.jit.ScriptModule | torch.fx.GraphModule):
            yield str(getattr(part, "code", ""))
        if id(part) not in self.registered:
            for name, each in (*part.named_parameters("", False), *part.named_buffers("", False)):
                yield f"{name}={self._array(each)}"
        for name, child in part.named_children():  # new if the part is in a list, not registered
            yield f"{name}={self._part(child)}"

    def _node(self, value: Any, about: Callable[[Any], Iterable[str]]) -> str:
        """Returns the number of a function, a class or an object, whose text `follow` fills in."""
        if id(value) in self._numbers:
            return f"#{self._numbers[id(value)]}"
        self._kept.append(value)
        number = self._numbers[id(value)] = len(self.nodes)
        text: list[str] = []
        self.nodes.append(text)
        if number < MOST:
            self._later.append(lambda: text.extend(about(value)))
        elif number == MOST:
            self._unread(f"more than {MOST:,} functions, classes and objects", "")
        return f"#{number}"

    def _unread(self, what: str, text: str) -> str:
        self.unknown.append(what)
        return text

    def _written(self, kind: type) -> frozenset[str]:
        """Returns the names of attributes that methods other than ``__init__`` assign to.

        Of a module only methods that torch calls, and those that these mention: what another
        method assigns, as one that reads settings, is a setting.

        With ``everything``, only those of attacks, which are frozen: they hold no settings there.
        """
        if self.everything and not issubclass(kind, Attack):
            return frozenset()
        if kind not in self._assigned:
            functions = list(chain.from_iterable(map(_functions, kind.__mro__[:-1])))
            if issubclass(kind, nn.Module):
                functions = _called(functions)
            self._assigned[kind] = frozenset(
                attribute
                for name, function in functions
                if name != "__init__" and _top(function.__globals__.get("__name__")) not in OURS
                for code in codes_in(function.__code__)
                for attribute in arguments_of(code, WRITES)
            )
        return self._assigned[kind]

    def _class(self, kind: type) -> str:
        if not self._is_own(kind.__module__):
            return f"class:{kind.__module__}.{kind.__qualname__}"
        return self._node(kind, self._about_class)

    def _about_class(self, kind: type) -> Iterator[str]:
        passed = self._written(kind) | GENERATED
        if issubclass(kind, Attack):
            passed |= DECLARED
        yield from map(self._class, kind.__bases__)
        if self._is_own(type(kind).__module__):
            yield self._class(type(kind))
        for name, value in sorted(vars(kind).items()):
            if name not in passed and not name.startswith(GENERATED_BY) and not _is_slot(value):
                yield f"{name}={self.of(value)}"

    def _function(self, function: FunctionType) -> str:
        return self._node(function, self._about_function)

    def _about_function(self, function: FunctionType) -> Iterator[str]:
        module = function.__globals__.get("__name__") or ""
        if self._is_own(module, file=function.__code__.co_filename):
            if not is_generated(function):
                self.functions.append(function)
            written = self.in_file(function)
            yield from instructions(function.__code__) if written is None else [written]
            yield from self._names(function)
        else:
            yield f"function:{module}.{function.__qualname__}"
        yield self.of(function.__defaults__)
        yield self.of(function.__kwdefaults__)
        names = function.__code__.co_freevars
        stored = () if self.everything else set(arguments_of(function.__code__, {"STORE_DEREF"}))
        for name, cell in zip(names, function.__closure__ or (), strict=False):
            if name not in stored:
                yield self.of(_content(cell))
        yield from self._attributes_of(function)

    def _attributes_of(self, function: FunctionType) -> Iterator[str]:
        """Yields the function that a function wraps, and attributes that it does not write."""
        held, passed = vars(function), {"__wrapped__", *GENERATED}
        if "__wrapped__" in held:
            yield self.of(held["__wrapped__"])
        if not self.everything:
            passed |= set(arguments_of(function.__code__, WRITES))
        for name in sorted(held.keys() - passed):
            yield f"{name}={self.of(held[name])}"

    def _names(self, function: FunctionType) -> Iterator[str]:
        """Yields what the global names of a function stand for."""
        space, codes = function.__globals__, list(codes_in(function.__code__))
        read = {each for code in codes for each in arguments_of(code, READS)} - OF_PLACE
        if not self.everything:
            read -= {each for code in codes for each in arguments_of(code, {"STORE_GLOBAL"})}
        mentions = {name for code in codes for name in code.co_names}
        words = {each for code in codes for each in code.co_consts if isinstance(each, str)}
        self._words |= words
        self._environment |= not mentions.isdisjoint(OF_ENVIRONMENT)
        mentioned = sorted(mentions | words)  # a word may be the name in ``getattr``
        for name in sorted(read):
            value = space.get(name, None)
            if name not in space:
                continue
            if isinstance(value, ModuleType) and self._is_own(value.__name__):
                yield from self._members(value, mentioned, {value})
            elif value is not getattr(builtins, name, space):
                yield f"{name}={self.of(value)}"
        for name in sorted(
            {each for code in codes for each in arguments_of(code, {"IMPORT_NAME"})}
        ):
            package = space.get("__package__") or ""
            places = (name, f"{package}.{name}".strip("."))
            for loaded in filter(None, map(sys.modules.get, places)):
                if self._is_own(loaded.__name__):
                    yield from self._members(loaded, mentioned, {loaded})

    def _members(
        self, module: ModuleType, mentioned: Iterable[str], seen: set[ModuleType]
    ) -> Iterator[str]:
        """Yields what names stand for in a module, and in the modules that it names itself."""
        for name in mentioned:
            if name not in vars(module) or name in OF_PLACE:
                continue
            value = vars(module)[name]
            if isinstance(value, ModuleType) and self._is_own(value.__name__):
                if value not in seen:
                    seen.add(value)
                    yield from self._members(value, mentioned, seen)
            else:
                yield f".{name}={self.of(value)}"

    def _is_own(self, module: object, *, file: str = "") -> bool:
        """Returns whether code is the author's: it is not of torch, Gibbon or another library."""
        name = str(module)
        top = _top(name)
        if top == "__main__":
            return True
        if top in OURS or top in sys.stdlib_module_names:
            return False
        loaded = sys.modules.get(name) or sys.modules.get(top)
        place = getattr(loaded, "__file__", None) or file
        return top in self.packages or not place or not is_library(place)


def is_generated(function: FunctionType) -> bool:
    """Returns whether a function is made by a decorator or by the standard library, not written.

    Such as the ``__init__`` of a dataclass: its file has a name in angle brackets.
    """
    name = function.__code__.co_name
    return (
        function.__code__.co_filename.startswith("<")
        and name.startswith("__")
        and (
            not function.__code__.co_filename.startswith(
                ("<stdin", "<ipython", "<input", "<python")
            )
        )
    )


def _bytes(value: Tensor) -> bytes:
    if value.is_quantized:
        value = value.dequantize()
    if value.layout != torch.strided:
        value = value.to_dense()
    plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
    return plain.view(torch.uint8).numpy().tobytes()


def _goes_by_class(kind: type) -> bool:
    module = kind.__module__
    return _top(module) in OURS and not module.startswith("torch.distributions")


def _attribute(value: object, name: str) -> object:
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001  an object of any library
        return None


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    """Yields the attributes that an object holds, in its dictionary or in slots of its classes."""
    yield from getattr(value, "__dict__", {}).items()
    for kind in type(value).__mro__:
        for name, each in vars(kind).items():
            if _is_slot(each):
                with_value = _attribute(value, name)
                if with_value is not None:
                    yield name, with_value


def _is_slot(value: object) -> bool:
    return type(value).__name__ == "member_descriptor"


def _may_be_path(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and any(mark in value for mark in PATH_MARKS)


def _without_place(value: str) -> str:
    """Returns a text, but for where a file or a folder is, which another machine may not have."""
    path = Path(value)
    try:
        return "path" if path.is_absolute() or path.exists() else value
    except (OSError, ValueError):  # too long for a name, or a character that no name has
        return value


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None


def _top(module: object) -> str:
    return str(module).partition(".")[0]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _functions(kind: type) -> Iterator[tuple[str, FunctionType]]:
    for name, value in vars(kind).items():
        held = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        if isinstance(held, FunctionType):
            yield name, held


def _called(functions: list[tuple[str, FunctionType]]) -> list[tuple[str, FunctionType]]:
    """Returns the methods of a module that torch calls, and those whose names they mention."""
    names = {name for name, _ in functions if hasattr(nn.Module, name) and name != "__init__"}
    known: set[str] = set()
    while names - known:
        known |= names
        codes = [
            code for name, each in functions if name in known for code in codes_in(each.__code__)
        ]
        names |= {name for code in codes for name in code.co_names} - {"__init__"}
    return [(name, each) for name, each in functions if name in known]
