"""Tiny stand-ins for other libraries, planted where the adapters import them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from gibbon.attacks.adapters import ATTACK_SOURCES

SCHEMES = ("foolbox", "torchattacks", "art", "advlib", "autoattack")


def forget() -> None:
    for scheme in SCHEMES:
        type(ATTACK_SOURCES.load(scheme)).attack.cache_clear()


@pytest.fixture
def plant(monkeypatch) -> Callable[..., ModuleType]:
    """Puts a module of these contents where ``import name`` finds it, for the time of a test."""
    forget()

    def put(name: str, **contents: object) -> ModuleType:
        module = ModuleType(name)
        module.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, last = name.rpartition(".")
        if parent:
            monkeypatch.setattr(sys.modules[parent], last, module, raising=False)
        return module

    yield put
    forget()


@pytest.fixture
def absent(monkeypatch) -> Callable[[str], None]:
    """Makes ``import name`` fail as where it is not installed."""
    forget()

    def hide(name: str) -> None:
        for each in [each for each in sys.modules if each.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, each)
        monkeypatch.setattr(sys, "meta_path", [_Hidden(name), *sys.meta_path])

    yield hide
    forget()


class _Hidden:
    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
