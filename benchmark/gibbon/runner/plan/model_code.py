"""Digests of the code that a model's answers and gradients come from.

`model_code` follows functions, not files: from the classes of a module's parts, from functions that
parts hold (hooks, a patched ``forward``, activations), to the functions, classes, autograd
functions and constants that these name.  So a change of ``forward`` or ``backward``, or of a helper
that they call, changes the digest, and a change of the script around them does not.

The bytecode is read, which is there for classes typed into a console or a notebook, too, and which
is what runs, whatever has become of the file.  Comments, docstrings, layout, the names of the
author's own classes and modules, and paths leave the digest as it is.
"""

from __future__ import annotations

import builtins
import dis
import enum
import functools
import hashlib
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gibbon.models.snapshot import HOOKS, Listener
from gibbon.runner.plan.code_digest import is_library

OURS = ("torch", "gibbon")  # the packages whose code goes by name
MANY = 256  # entries of a collection: larger ones go by their length
MOST = 800  # functions and classes that are followed
LARGE = 10_000_000  # numbers in a tensor: larger ones go by their shape
PATH_MARKS = ("/", "\\")

# What a class or a module holds that is no code of its author.
GENERATED = frozenset(
    [
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__"),
        *("__annotate__", "__annotate_func__", "__annotations_cache__", "__firstlineno__"),
        *("__static_attributes__", "__parameters__", "__orig_bases__", "__abstractmethods__"),
        *("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__type_params__"),
        *("_abc_impl", "_backward_cls", "training"),
    ]
)
BOOKKEEPING = frozenset(vars(nn.Module()))  # of torch: parameters, parts, hooks, mode
UNIMPORTANT = frozenset({"NOP", "CACHE", "RESUME", "EXTENDED_ARG", "PRECALL", "COPY_FREE_VARS"})
WRITES = frozenset({"STORE_ATTR", "STORE_GLOBAL", "DELETE_ATTR"})
READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))
EXACT = (torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format)


def model_code(module: nn.Module) -> str:
    """Returns a digest of the code of a module and of its parts, but for that of torch and Gibbon.

    It also covers the numbers and words that parts hold, such as a stride or the sign of a custom
    gradient, unless a method other than ``__init__`` writes them, as it does a counter of calls.

    >>> class Scaled(nn.Module):
    ...     def __init__(self, factor):
    ...         super().__init__()
    ...         self.factor = factor
    ...     def forward(self, inputs):
    ...         return self.factor * inputs
    >>> model_code(Scaled(2.0)) == model_code(Scaled(2.0)) != model_code(Scaled(3.0))
    True
    """
    reach = _Reach(packages=frozenset(_top(type(part).__module__) for part in module.modules()))
    parts = [f"{name}={reach.of(part)}" for name, part in module.named_modules()]
    text = repr([parts, reach.nodes])
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


@dataclass
class _Reach:
    """The functions, classes and objects that are reached, in the order in which they are.

    Args:
        packages: top-level packages of the parts' classes: installed code counts if it is theirs.

    Attributes:
        nodes: the text of each function, class and object.
    """

    packages: frozenset[str]
    nodes: list[list[str]] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)
    _kept: list[object] = field(default_factory=list)  # so that no id is used twice
    _open: set[int] = field(default_factory=set)
    _assigned: dict[type, frozenset[str]] = field(default_factory=dict)

    def of(self, value: object, *, held: bool = False) -> str:
        """Returns a value as a text; functions and classes go by their number.

        ``held`` values belong to an object: its paths are left out.
        """
        if isinstance(value, enum.Enum):
            return f"{type(value).__qualname__}.{value.name}"
        if isinstance(value, PLAIN):
            return "path" if held and _is_path(value) else repr(value)
        if isinstance(value, EXACT):
            return str(value)
        if isinstance(value, Tensor | np.ndarray):
            return _array(value)
        if isinstance(value, tuple | list | set | frozenset | Mapping):
            return self._collection(value, held=held)
        if isinstance(value, type):
            return self._class(value)
        return self._callable(value) or self._object(value)

    def _collection(self, value: Any, *, held: bool) -> str:
        kind = type(value).__name__
        if len(value) > MANY or id(value) in self._open:
            return f"{kind}:{len(value)}"
        self._open.add(id(value))
        try:
            if isinstance(value, Mapping):
                texts = [
                    f"{self.of(key)}:{self.of(value[key], held=held)}"
                    for key in sorted(value, key=str)
                ]
            else:
                texts = [self.of(each, held=held) for each in value]
                if isinstance(value, set | frozenset):
                    texts.sort()
        finally:
            self._open.discard(id(value))
        return f"{kind}[{','.join(texts)}]"

    def _callable(self, value: Any) -> str:
        """Returns the text of a function, or of an object made of one; empty for another object."""
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            inner = value.__func__
            return self._function(inner) if isinstance(inner, FunctionType) else "method"
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

    def _object(self, value: Any) -> str:
        kind = type(value)
        if isinstance(value, nn.Module):
            return self._part(value)
        for inner in ("py_func", "__wrapped__", "fn"):  # of a compiled or decorated function
            function = getattr(value, inner, None)
            if isinstance(function, FunctionType):
                return f"{self._class(kind)}[{self._function(function)}]"
        if isinstance(value, ModuleType):
            return f"module:{value.__name__}" if not self._is_own(value.__name__) else "module"
        name = getattr(value, "__qualname__", "")
        if isinstance(name, str) and name:  # a function of a library in C
            return f"{getattr(value, '__module__', '')}.{name}"
        if not self._is_own(kind.__module__):
            return self._class(kind)
        number, new = self._number(value)
        if new and number < MOST:
            text, written = self.nodes[number], self._written(kind)
            text.append(self._class(kind))
            for name, each in sorted(getattr(value, "__dict__", {}).items()):
                if name not in written:
                    text.append(f"{name}={self.of(each, held=True)}")
        return f"#{number}"

    def _part(self, part: nn.Module) -> str:
        """Returns the number of a module, whose text is its class, its settings and functions."""
        number, new = self._number(part)
        if not new or number >= MOST:
            return f"#{number}"
        kind, text = type(part), self.nodes[number]
        text.append(self._class(kind))
        passed = self._written(kind) | BOOKKEEPING
        for name, value in sorted(vars(part).items()):
            if name not in passed:
                text.append(f"{name}={self.of(value, held=True)}")
        for name in HOOKS:
            for hook in vars(part).get(name, {}).values():
                if not isinstance(hook, Listener):
                    text.append(f"{name}={self.of(hook)}")
        if isinstance(part, torch.jit.ScriptModule | torch.fx.GraphModule):
            text.append(str(getattr(part, "code", "")))
        for name, child in part.named_children():  # new if the part is in a list, not registered
            text.append(f"{name}={self._part(child)}")
        return f"#{number}"

    def _number(self, value: object) -> tuple[int, bool]:
        """Returns the number of a function or class, and whether it is new."""
        if id(value) in self._numbers:
            return self._numbers[id(value)], False
        self._kept.append(value)
        number = self._numbers[id(value)] = len(self.nodes)
        self.nodes.append([])
        return number, True

    def _written(self, kind: type) -> frozenset[str]:
        """Returns the names of attributes that methods other than ``__init__`` assign to."""
        if kind not in self._assigned:
            functions = chain.from_iterable(map(_functions, kind.__mro__[:-1]))
            self._assigned[kind] = frozenset(
                attribute
                for name, function in functions
                if name != "__init__" and _top(function.__globals__.get("__name__")) not in OURS
                for code in _codes(function.__code__)
                for attribute in _arguments(code, WRITES)
            )
        return self._assigned[kind]

    def _class(self, kind: type) -> str:
        if not self._is_own(kind.__module__):
            return f"class:{kind.__module__}.{kind.__qualname__}"
        number, new = self._number(kind)
        if new and number < MOST:
            written, text = self._written(kind), self.nodes[number]
            text += [self._class(base) for base in kind.__bases__]
            for name, value in sorted(vars(kind).items()):
                if name not in GENERATED and name not in written:
                    text.append(f"{name}={self.of(value)}")
        return f"#{number}"

    def _function(self, function: FunctionType) -> str:
        module = function.__globals__.get("__name__") or ""
        own = self._is_own(module, file=function.__code__.co_filename)
        number, new = self._number(function)
        if not new or number >= MOST:
            return f"#{number}"
        text = self.nodes[number]
        if own:
            text += [*_instructions(function.__code__), *self._names(function)]
        else:
            text.append(f"function:{module}.{function.__qualname__}")
        text.append(self.of(function.__defaults__))
        text.append(self.of(function.__kwdefaults__))
        names = function.__code__.co_freevars
        stored = set(_arguments(function.__code__, {"STORE_DEREF"}))
        for name, cell in zip(names, function.__closure__ or (), strict=False):
            if name not in stored:
                text.append(self.of(_content(cell)))
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            text.append(self.of(wrapped))
        return f"#{number}"

    def _names(self, function: FunctionType) -> Iterator[str]:
        """Yields what the global names of a function stand for."""
        space, codes = function.__globals__, list(_codes(function.__code__))
        read = {each for code in codes for each in _arguments(code, READS)}
        stored = {each for code in codes for each in _arguments(code, {"STORE_GLOBAL"})}
        mentioned = sorted({name for code in codes for name in code.co_names})
        for name in sorted(read - stored):
            value = space.get(name, None)
            if name not in space:
                continue
            if isinstance(value, ModuleType) and self._is_own(value.__name__):
                yield from self._members(value, mentioned)
            elif value is not getattr(builtins, name, space):
                yield f"{name}={self.of(value)}"
        for name in sorted({each for code in codes for each in _arguments(code, {"IMPORT_NAME"})}):
            package = space.get("__package__") or ""
            places = (name, f"{package}.{name}".strip("."))
            for loaded in filter(None, map(sys.modules.get, places)):
                if self._is_own(loaded.__name__):
                    yield from self._members(loaded, mentioned)

    def _members(self, module: ModuleType, mentioned: Iterable[str]) -> Iterator[str]:
        for name in mentioned:
            if name in vars(module):
                yield f".{name}={self.of(vars(module)[name])}"

    def _is_own(self, module: str, *, file: str = "") -> bool:
        """Returns whether code is the author's: it is not of torch, Gibbon or another library."""
        top = _top(module)
        if top == "__main__":
            return True
        if top in OURS or top in sys.stdlib_module_names:
            return False
        loaded = sys.modules.get(module) or sys.modules.get(top)
        place = getattr(loaded, "__file__", None) or file
        return top in self.packages or not place or not is_library(place)


def _array(value: Tensor | np.ndarray[Any, Any]) -> str:
    head = f"array:{tuple(value.shape)}:{value.dtype}"
    if isinstance(value, Tensor):
        if value.is_meta or value.numel() > LARGE or value.layout != torch.strided:
            return head
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    else:
        if value.size > LARGE or value.dtype.hasobject:
            return head
        content = np.ascontiguousarray(value).tobytes()
    return f"{head}:{hashlib.sha256(content).hexdigest()}"


def _is_path(value: object) -> bool:
    return isinstance(value, str) and any(mark in value for mark in PATH_MARKS)


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None


def _top(module: object) -> str:
    return str(module).partition(".")[0]


def _functions(kind: type) -> Iterator[tuple[str, FunctionType]]:
    for name, value in vars(kind).items():
        held = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        if isinstance(held, FunctionType):
            yield name, held


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yields a function's code and that of the functions inside of it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _arguments(code: CodeType, operations: Iterable[str]) -> Iterator[str]:
    names = frozenset(operations)
    return (str(each.argval) for each in dis.get_instructions(code) if each.opname in names)


def _instructions(code: CodeType) -> list[str]:
    """Returns the instructions of a function, each with its argument, without places in a file.

    Constants are named by their value, not by their position, which a docstring moves, and jumps by
    the number of the instruction that they go to.
    """
    kept = [each for each in dis.get_instructions(code) if each.opname not in UNIMPORTANT]
    kept = _without_labels(kept)
    offsets = [each.offset for each in kept]
    text = [f"{code.co_argcount},{code.co_posonlyargcount},{code.co_kwonlyargcount}"]
    for each in kept:
        value = each.argval
        if isinstance(value, CodeType):
            text += ["{", *_instructions(value), "}"]
        elif each.opcode in dis.hasjrel or each.opcode in dis.hasjabs:
            text.append(f"{each.opname} to {bisect_left(offsets, value)}")
        elif isinstance(value, frozenset):
            text.append(f"{each.opname} {sorted(map(repr, value))}")
        else:
            text.append(f"{each.opname} {value!r}")
    return text


def _without_labels(instructions: list[dis.Instruction]) -> list[dis.Instruction]:
    """Returns instructions without the docstring, name and line that the body of a class stores."""
    kept: list[dis.Instruction] = []
    for each in instructions:
        if each.opname == "STORE_NAME" and each.argval in GENERATED:
            if kept:
                kept.pop()
        else:
            kept.append(each)
    return kept
