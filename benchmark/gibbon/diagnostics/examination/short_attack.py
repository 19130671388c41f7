"""A short attack on a few examples, by gradients, averaged gradients and random search.

It takes examples that all attacks of a run missed.  What it misclassifies shows that these attacks
were too weak; what it does not misclassify shows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gibbon.attacks.square import Square
from gibbon.attacks.toolkit.projections import Region, choose, region
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.core.threat import Norm, ThreatModel
from gibbon.datasets.base import Batch
from gibbon.diagnostics.examination.subject import Subject
from gibbon.models.outputs import margin, margin_ascent

# Lengths of the gradient steps in units of epsilon: the first crosses the ball.  With few passes
# there are fewer steps rather than fewer examples: each with the examples that it is worth it for.
SCHEDULES: tuple[tuple[int, tuple[float, ...]], ...] = (
    (8, (2.0, 1.0, 0.75, 0.5, 0.25, 0.25, 0.125, 0.125)),
    (6, (2.0, 1.0, 0.5, 0.25)),
    (4, (2.0, 0.75)),
)
# The same with the mean gradient at a few points around, which smooths a shattered gradient.
AVERAGED_STEPS = (1.0, 0.5, 0.25, 0.125)
DRAWS = 4
SPREAD = 0.5  # of these points, in units of epsilon
QUERIES = 100  # of the random search, for one example, at most
FEWEST_QUERIES = 8
MOST = 32  # examples


@dataclass(frozen=True)
class Effort:
    """The number of examples to attack, and the lengths of the gradient steps."""

    examples: int
    steps: tuple[float, ...]

    @property
    def cost(self) -> int:
        """Passes of the gradient steps for one example, and of two looks at their results."""
        return 2 * len(self.steps) + 2

    @classmethod
    def within(cls, budget: int, survivors: int) -> Effort | None:
        """Returns the effort that a budget of passes allows, or None if it is too small.

        >>> Effort.within(30, 100), Effort.within(20, 100)
        (Effort(examples=5, steps=(2.0, 0.75)), None)
        """
        for fewest, steps in SCHEDULES:
            effort = cls(0, steps)
            count = min(MOST, survivors, budget // effort.cost)
            if count >= min(fewest, survivors):
                return cls(count, steps)
        return None


@dataclass
class ShortAttack:
    """The state and the result of the attack on M examples.

    Args:
        subject: the model and the passes that are left.
        batch: the examples, on the model's device.
        threat: the threat model.
        steps: lengths of the gradient steps in units of epsilon.

    Attributes:
        done: bool, shape (M,): whether a point within the threat model is misclassified.
        methods: the ways of searching that were used, in words.
    """

    subject: Subject
    batch: Batch
    threat: ThreatModel
    steps: tuple[float, ...] = SCHEDULES[0][1]
    done: Tensor = field(init=False)
    methods: list[str] = field(default_factory=list, init=False)
    _best: Tensor = field(init=False)
    _margin: Tensor = field(init=False)

    def __post_init__(self) -> None:
        count, device = len(self.batch.inputs), self.batch.inputs.device
        self._best = self.batch.inputs.clone()
        self._margin = torch.full((count,), -torch.inf, device=device)
        self.done = torch.zeros(count, dtype=torch.bool, device=device)

    def run(self) -> None:
        """Attacks the examples, as far as the passes that are left allow."""
        if self.subject.differentiable:
            self._climb()
            self._climb_averaged()
        self._search()
        self._confirm()

    def _climb(self) -> None:
        """Takes projected steps from a random point, then one from the input against its gradient.

        The last one is for a backward pass with the wrong sign.  In L∞ a coordinate whose gradient
        has been zero so far, such as one that the model clamps, is drawn again at each step: the
        gradient says nothing of it, and a larger change may.
        """
        rows = self._rows(2 * len(self.steps) + 2)
        if not len(rows):
            return
        self.methods.append(f"{len(self.steps)} gradient steps")
        allowed, streams = self._part(rows)
        points = allowed.random_point(streams.child("start"))
        silent = torch.ones_like(points, dtype=torch.bool)
        for number, step in enumerate(self.steps):
            points, gradient = self._gradient(rows, points)
            open_ = ~self.done[rows]
            rows, points, gradient = rows[open_], points[open_], gradient[open_]
            if not len(rows):
                return
            silent = silent[open_] & (gradient == 0)
            allowed, streams = self._part(rows)
            points = self._step(allowed, points, gradient, step)
            if self.threat.norm is Norm.LINF and bool(silent.any()):
                corner = allowed.random_point(streams.child(f"corner {number}")) - allowed.inputs
                corner = allowed.inputs.add(corner.sign(), alpha=self.threat.radius)
                points = torch.where(silent, allowed.project(corner), points)
        self._look(rows, points)
        rows = rows[~self.done[rows]]
        if self._spare >= 3 * len(rows) > 0:
            inputs, gradient = self._gradient(rows, self.batch.inputs[rows])
            allowed = self._allowed(rows)
            self._look(rows, self._step(allowed, inputs, gradient, -1.0))

    def _climb_averaged(self) -> None:
        """Takes steps from the best point along the mean of unit gradients at points around it."""
        rows = self._rows(2 * DRAWS * len(AVERAGED_STEPS) + 2)
        if not len(rows):
            return
        self.methods.append(f"{len(AVERAGED_STEPS)} steps along {DRAWS} averaged gradients")
        points = self._best[rows]
        for number, step in enumerate(AVERAGED_STEPS):
            allowed, streams = self._part(rows)
            total = torch.zeros_like(points)
            for draw in range(DRAWS):
                noise = allowed.random_point(streams.child(f"{number}, {draw}")) - allowed.inputs
                around = allowed.project(points.add(noise, alpha=SPREAD))
                _, gradient = self._gradient(rows, around)
                size = gradient.flatten(1).norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
                total += gradient / size.view(-1, *(1,) * (gradient.dim() - 1))
            open_ = ~self.done[rows]
            rows, points, total = rows[open_], points[open_], total[open_]
            if not len(rows):
                return
            allowed = self._allowed(rows)
            points = self._step(allowed, points, total, step)
        self._look(rows, points)

    def _search(self) -> None:
        """Searches at random, without gradients, by the square attack with few queries."""
        rows = self._rows(FEWEST_QUERIES + 3)
        if not len(rows):
            return
        queries = min(QUERIES, self._spare // len(rows) - 3)
        self.methods.append(f"{queries} queries of a random search")
        _, streams = self._part(rows)
        inputs, labels = self.batch.inputs[rows], self.batch.labels[rows]
        attack = Square(queries=queries)
        with self.subject.seeded():
            (found,) = attack.propose(
                self.subject.classifier,
                inputs,
                labels=labels,
                threat=self.threat,
                streams=streams.child("search"),
            )
        allowed = region(inputs, threat=self.threat)
        self._look(rows, allowed.project(found.clone()))

    def _confirm(self) -> None:
        """Evaluates the misclassified points once more, without gradients, and keeps what holds."""
        rows = self.done.nonzero().flatten()[: max(0, self.subject.left)]
        held = torch.zeros_like(self.done)
        if len(rows):
            outputs = self.subject.ask(self._best[rows])
            held[rows] = (outputs.argmax(1) != self.batch.labels[rows].cpu()).to(held.device)
        self.done = held

    def _rows(self, cost: int) -> Tensor:
        """Returns the examples that are left, as many as the passes allow at a cost for each.

        The cost includes one pass to ask again for an example that is done by then.
        """
        return (~self.done).nonzero().flatten()[: max(0, self._spare // cost)]

    @property
    def _spare(self) -> int:
        """The passes left, less those that the final evaluation of finished examples needs."""
        return self.subject.left - int(self.done.sum())

    def _part(self, rows: Tensor) -> tuple[Region, ExampleStreams]:
        streams = ExampleStreams.derive(derive_key("gibbon", "short attack"), self.batch.ids[rows])
        return self._allowed(rows), streams

    def _allowed(self, rows: Tensor) -> Region:
        return region(self.batch.inputs[rows], threat=self.threat)

    def _step(self, allowed: Region, points: Tensor, gradient: Tensor, length: float) -> Tensor:
        return allowed.project(
            points.add(allowed.unit(gradient), alpha=length * self.threat.radius)
        )

    def _gradient(self, rows: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the points and the gradient of the margin there; zeros if it is not finite."""
        outputs, _, gradient = self.subject.ascend(points, self.batch.labels[rows], margin_ascent)
        self._record(rows, points, outputs)
        return points, gradient.to(points.device).nan_to_num(0.0, 0.0, 0.0)

    def _look(self, rows: Tensor, points: Tensor) -> None:
        if self.subject.left >= len(rows):
            self._record(rows, points, self.subject.ask(points))

    def _record(self, rows: Tensor, points: Tensor, outputs: Tensor) -> None:
        """Keeps the points whose margin is the highest so far."""
        labels = self.batch.labels[rows]
        outputs = outputs.to(labels.device, torch.float32)
        found = margin(outputs, labels).nan_to_num(-torch.inf)
        better = found > self._margin[rows]
        self._best[rows] = choose(better, points.detach(), self._best[rows])
        self._margin[rows] = torch.where(better, found, self._margin[rows])
        self.done[rows] |= (outputs.argmax(1) != labels) & outputs.isfinite().all(1)
