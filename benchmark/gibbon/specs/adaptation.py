"""The keys that adapt an attack to a defence: ``eot``, ``backward`` and ``before``."""

from __future__ import annotations

from dataclasses import dataclass, replace

IDENTITY = "identity"  # a backward pass that hands the gradient on unchanged


@dataclass(frozen=True)
class Adaptation:
    """How the model that an attack sees differs from the model that judges its candidates.

    Args:
        eot: number of draws of the model's random numbers that outputs and gradients are averaged
            over (expectation over transformations).
        backward: pairs of a submodule's path and the function that gives its gradient, a reference
            or ``identity`` (backward pass differentiable approximation).
        before: path of the submodule whose input is attacked in place of the model's outputs; empty
            for the outputs themselves.

    An adaptation that changes nothing is false.

    >>> bool(Adaptation()), str(Adaptation(eot=20, before="softmax"))
    (False, 'eot 20, before softmax')
    """

    eot: int = 1
    backward: tuple[tuple[str, str], ...] = ()
    before: str = ""

    def __bool__(self) -> bool:
        return self != Adaptation()

    def __str__(self) -> str:
        return ", ".join(
            f"{key} {value}" if not isinstance(value, dict) else f"{key} {pairs_text(value)}"
            for key, value in self.shown.items()
        )

    @property
    def shown(self) -> dict[str, object]:
        """The keys that change something, as a suite has them."""
        keys: dict[str, object] = {}
        if self.eot > 1:
            keys["eot"] = self.eot
        if self.backward:
            keys["backward"] = dict(self.backward)
        if self.before:
            keys["before"] = self.before
        return keys

    @property
    def without_gradient(self) -> Adaptation:
        """The part that concerns an attack that takes no gradients."""
        return replace(self, eot=1, backward=())


UNCHANGED = Adaptation()


def pairs_text(pairs: dict[str, str]) -> str:
    """Returns the pairs of ``backward`` for a sentence.

    >>> pairs_text({"quantiser": "identity"})
    'quantiser = identity'
    """
    return ", ".join(f"{path} = {function}" for path, function in pairs.items())
