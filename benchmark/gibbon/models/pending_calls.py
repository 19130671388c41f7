"""Calls of a model that wait to be evaluated together, for the evidence of an attack's path.

On a GPU an operation on a hundred numbers takes as long to start as one on a million.  The margins,
the best of them and the first successes of many calls are therefore computed at once, from what is
kept of each call: its outputs, distances and extremes.  Nothing is read back to the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from gibbon.models.outputs import margin

PendingCall = TypeVar("PendingCall")


@dataclass(frozen=True)
class EvaluatedCalls(Generic[PendingCall]):
    """The results of V calls on the same N points' tracks, in order.

    Args:
        calls: the calls.
        clocks: gradients taken before each.
        outputs: those of the first call, shape (N, K).
        margins: of the best wrong class over the true one, float32, shape (V, N).
        away: distances from the inputs, shape (V, N).
        lowest, highest: the extremes of each point, shape (V, N); None if they were not kept.
        bests: the largest margin before each call and after the last one, shape (V + 1, N).
        marks: places, each with the number of calls that were made before it was marked.
    """

    calls: list[PendingCall]
    clocks: list[int]
    outputs: Tensor
    margins: Tensor
    away: Tensor
    lowest: Tensor | None
    highest: Tensor | None
    bests: Tensor
    marks: list[tuple[int, int]]

    def first(self, met: Tensor, *, before: Tensor) -> Tensor:
        """Returns the clock of the first call that met a condition, int64, shape (N,).

        Args:
            met: bool, shape (V, N).
            before: int64, shape (N,): the earlier result, which stays where it is not negative; -1
                if there was none.
        """
        start, never = self.clocks[0], torch.iinfo(torch.int64).max
        clocks = torch.arange(start, start + len(self.clocks), device=met.device)
        if self.clocks != list(range(start, start + len(self.clocks))):
            clocks = torch.tensor(self.clocks, device=met.device)
        earliest = torch.where(met, clocks.unsqueeze(1), never).amin(0)
        return torch.where((before < 0) & (earliest != never), earliest, before)

    def fill(self, snapshots: Tensor) -> None:
        """Writes the largest margin at each mark to its place, shape (places, N)."""
        places = [place for place, _ in self.marks]
        made = [made for _, made in self.marks]
        if (steps := _progression(places)) and (rows := _progression(made)):
            snapshots[steps].copy_(self.bests[rows])
            return
        for place, row in self.marks:
            snapshots[place].copy_(self.bests[row])


class PendingCalls(Generic[PendingCall]):
    """Keeps calls until they are evaluated.

    >>> pending = PendingCalls[str]()
    >>> outputs, near = torch.tensor([[0.0, 1.0]]), torch.zeros(1)
    >>> pending.add("first", outputs, clock=0, away=near, extremes=None)
    >>> pending.add("second", -outputs, clock=1, away=near, extremes=None)
    >>> found = pending.evaluate(torch.tensor([0]), best=torch.tensor([0.5]))
    >>> found.margins.flatten().tolist(), found.bests.flatten().tolist(), len(pending)
    ([1.0, -1.0], [0.5, 1.0, 1.0], 0)
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._calls: list[PendingCall] = []
        self._clocks: list[int] = []
        self._outputs: list[Tensor] = []
        self._away: list[Tensor] = []
        self._extremes: list[tuple[Tensor, Tensor]] = []
        self._marks: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def add(
        self,
        call: PendingCall,
        outputs: Tensor,
        *,
        clock: int,
        away: Tensor,
        extremes: tuple[Tensor, Tensor] | None,
    ) -> None:
        """Keeps a call.

        Args:
            call: the call.
            outputs: shape (N, K); they must not change until `evaluate`.
            clock: gradients taken so far.
            away: distances from the inputs, shape (N,).
            extremes: the lowest and the highest coordinate of each point, shape (N,) each.
        """
        self._calls.append(call)
        self._clocks.append(clock)
        self._outputs.append(outputs)
        self._away.append(away)
        if extremes is not None:
            self._extremes.append(extremes)

    def mark(self, place: int) -> None:
        """Asks `EvaluatedCalls.fill` for the largest margin so far, at this place."""
        self._marks.append((place, len(self._calls)))

    def evaluate(self, labels: Tensor, *, best: Tensor) -> EvaluatedCalls[PendingCall]:
        """Returns the results of all calls, and forgets them.

        Args:
            labels: int64, shape (N,): the true classes.
            best: shape (N,): the largest margin of earlier calls; NaN counts as none.
        """
        count = len(self._calls)
        outputs = torch.cat(self._outputs)
        margins = margin(outputs, labels.repeat(count)).float().view(count, -1)
        bests = torch.cat([best.unsqueeze(0), margins])
        shift = 1
        while shift <= count:  # the largest of 1, 2, 4, … calls; not every device has cummax
            larger = torch.fmax(bests[shift:], bests[:-shift])
            bests, shift = torch.cat([bests[:shift], larger]), 2 * shift
        kept = bool(self._extremes)
        found = EvaluatedCalls(
            calls=self._calls,
            clocks=self._clocks,
            outputs=self._outputs[0],
            margins=margins,
            away=torch.stack(self._away),
            lowest=torch.stack([low for low, _ in self._extremes]) if kept else None,
            highest=torch.stack([high for _, high in self._extremes]) if kept else None,
            bests=bests,
            marks=self._marks,
        )
        self._clear()
        return found


def _progression(numbers: list[int]) -> slice | None:
    """Returns the slice that takes these rising numbers; None if their distances differ."""
    if not numbers:
        return None
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    wanted = slice(numbers[0], numbers[-1] + 1, max(step, 1))
    return wanted if numbers == list(range(wanted.start, wanted.stop, wanted.step)) else None
