"""Attacks of other libraries behind one small protocol, one file a library.

A suite names one by scheme and by the library's own name: ``foolbox:LinfPGD``.  An `AttackSource`
turns that name into a class derived from `gibbon.attacks.base.Attack` whose dataclass fields are
the attack's parameters under the library's own names.  `gibbon.attacks.adapters.adapting` is
the part that all adapters share.

torch is not imported before a source is loaded, and a library not before one of its attacks is
needed.  Packages add their own sources through the entry-point group ``gibbon.attack_sources``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from gibbon.core.registry import Entry, Registry, lazily

if TYPE_CHECKING:
    from gibbon.attacks.base import Attack


class AttackSource(ABC):
    """A library of attacks."""

    @abstractmethod
    def attack(self, name: str) -> type[Attack]:
        """Returns the class of the library's attack called ``name``.

        Raises a `RequestError` if the library is not installed (with the line that installs it),
        has no attack of that name, or has one that can't be used here (with the reason).
        """


# By scheme, the part of a name before the colon.
ATTACK_SOURCES: Registry[AttackSource] = Registry("attack source", group="gibbon.attack_sources")

_SCHEMES: dict[str, str] = {}  # by module

for _name, _package, _summary in [
    ("foolbox", "foolbox", "foolbox's attacks: foolbox:LinfPGD (Rauber et al. 2020)"),
    ("torchattacks", "torchattacks", "torchattacks' attacks: torchattacks:DIFGSM (Kim 2020)"),
    ("art", "art", "ART's attacks: art:ProjectedGradientDescentPyTorch (Nicolae et al. 2018)"),
    ("advlib", "adv_lib", "adversarial-library's attacks: advlib:fmn (Rony et al.)"),
    (
        "autoattack",
        "pyautoattack",
        "the authors' AutoAttack: autoattack:standard (Croce and Hein 2020)",
    ),
]:
    _module = f"gibbon.attacks.adapters.{_name}"
    _load = lazily(f"{_module}:{_name.upper()}")
    ATTACK_SOURCES.register(Entry(_name, _summary, _load, package=_package))
    _SCHEMES[_module] = _name


def adapter_scheme(module: str) -> str | None:
    """Returns the scheme of an adapter of this package by its module, or None for another module.

    >>> adapter_scheme("gibbon.attacks.adapters.foolbox")
    'foolbox'
    """
    return _SCHEMES.get(module)


__all__ = ["ATTACK_SOURCES", "AttackSource", "adapter_scheme"]
