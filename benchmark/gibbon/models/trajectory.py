"""Evidence from the passes of an attack: margins, successes and gradients along its path.

A `Trajectory` receives the points at which an attack calls the model, with the outputs, and the
input gradients that the attack takes.  It makes no pass of its own.  On a GPU, where starting a
small operation costs as much as a layer of a network, calls on all tracks wait to be evaluated
together (`gibbon.models.pending_calls`), and nothing is read back to the host while the attack is
at work; on a CPU, where reading costs nothing, only the misclassified points are looked at.

A *run* is one run of an algorithm on some rows of the batch (`Trajectory.run_on`): a restart, a
member of a list, or all targets that share a batch.  Each row of a run is a *track*.  Runs count
for an example up to the first one with a success, a misclassified point within box and budget:
whether later runs share its batch, and stop with it, or are never made, makes no difference.

The measures of a path are those of M. Pintor et al., "Indicators of attack failure: debugging and
improving optimization of adversarial examples", NeurIPS 2022, https://arxiv.org/abs/2106.09947.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.metrics.distances import distances
from gibbon.metrics.validity import LINF_TOLERANCE, outside, tolerance
from gibbon.models.outputs import margin
from gibbon.models.pending_calls import PendingCalls

# A success must exceed rounding, relative to the largest output: the trust boundary predicts again,
# in a batch of another size, which may round the outputs otherwise.
RESOLUTION = 1e-5
COARSE_RESOLUTION = 2.0**-6  # of outputs with the eight bits of bfloat16
LAST_PART = 4  # the last quarter of the gradients of a run
PACE_SAMPLES = frozenset({1, 32, 256})  # gradients after which the distance is measured
SAMPLED, SAMPLE_EVERY = 64, 8  # coordinates: of more, one in eight gives the length of a step
HOST = ("cpu",)  # types of devices from which reading back costs nothing
BUFFERED = 64  # gradients that wait to be counted, and the least number of snapshots


@dataclass(frozen=True)
class PathTensors:
    """The evidence for each example, tensors of shape (N,); NaN if not known.

    Args:
        start_margin: the margin of the best wrong class over the true one, at the first point.
        start_distance: the distance of the first point from the input, roughly.
        best_margin: the largest margin at any point.
        success_distance: the least distance of a misclassified point within the box, for a search
            of the nearest; else epsilon if there is one within box and budget; infinite if there is
            none.
        success_at: int64: gradients of its run that were taken before the first such point; -1 if
            there is none, or if it is not known which calls were about the example.
        steps: int64: gradients of the longest run without such a point; 0 if there is none.
        pace: the distance from the start of such a run, divided by the number of gradients,
            roughly.
        rise: the increase of the best margin in these runs, summed.
        late_rise: the part of it in the last quarter of the gradients of each run.
        zero_share: the share of the gradients that were zero, NaN or infinite at a correctly
            classified point.
    """

    start_margin: Tensor
    start_distance: Tensor
    best_margin: Tensor
    success_distance: Tensor
    success_at: Tensor
    steps: Tensor
    pace: Tensor
    rise: Tensor
    late_rise: Tensor
    zero_share: Tensor


@dataclass
class ModelCall:
    """A call of the model by an attack.

    Args:
        run: the run that it belongs to.
        tracks: int64, shape (M,): the tracks of the run that the points belong to.
        margins: shape (M,); None if the labels are not known, and while the call waits.
        has_upstream: bool, shape (M,): which rows had a gradient in the outputs; None if not known.
        finite_upstream: bool, shape (M,): which rows had a finite one.
    """

    run: _Run
    tracks: Tensor
    margins: Tensor | None
    has_upstream: Tensor | None = None
    finite_upstream: Tensor | None = None


class Trajectory:
    """The path of an attack on a batch of clean inputs.

    Args:
        inputs: shape (N, *input_shape).
        labels: int64, shape (N,): the true classes; None to record gradients only.
        threat: the norm and the box.
        bounds: the model's bounds, whose width scales the tolerance for rounding.
        reach: the largest distance of a success; infinite for a search of the nearest.
        outputs_stay: whether the attack is trusted not to change outputs in place; else calls that
            wait keep copies of them.
    """

    def __init__(
        self,
        inputs: Tensor,
        *,
        labels: Tensor | None = None,
        threat: ThreatModel | None = None,
        bounds: Bounds | None = None,
        reach: float = torch.inf,
        outputs_stay: bool = False,
    ) -> None:
        self.inputs, self.labels = inputs, labels
        self.outputs_stay = outputs_stay
        self.norm, self.box = Norm.LINF, None
        self.reach, self.slack = reach, 0.0
        if threat is not None and bounds is not None:
            self.norm, self.box = threat.norm, threat.bounds
            self.slack = LINF_TOLERANCE * bounds.width
            self.reach += tolerance(threat, bounds=bounds, coordinates=inputs[0].numel())
        self._off = self._own = self._any_run = False
        self._all = torch.arange(len(inputs), device=inputs.device)
        self._on: list[Tensor] = []  # rows of the batch that the runs being made are on
        self._asked: Tensor | None = None  # tracks that the next calls are about
        self._run: _Run | None = None
        self.targets: Tensor | None = None
        self._aimed = False
        self._hooked: dict[int, tuple[weakref.ref[Tensor], list[ModelCall]]] = {}

    def aim(self, targets: Tensor) -> None:
        """Records the target classes of the attack, int64, shape (N,).

        Afterwards ``targets`` holds them; None if they are of a part of the batch, or if several
        attacks aim at different ones.
        """
        whole = len(targets) == len(self._all) and not self._on
        if self._aimed and self.targets is not None:
            whole &= torch.equal(targets, self.targets)
        elif self._aimed:
            whole = False
        self._aimed, self.targets = True, targets if whole else None

    @cached_property
    def _over(self) -> _Examples:
        return _Examples(self.inputs)

    @contextmanager
    def run_on(self, rows: Tensor | None) -> Iterator[None]:
        """Begins a run, for a ``with`` block: on rows of the run around it, or on all of them.

        Rows may occur several times: as several runs that share a batch, one after another.
        """
        around = self._on[-1] if self._on else self._all
        self._on.append(around if rows is None else around[rows])
        self._close()
        asked, self._asked = self._asked, None
        try:
            yield
        finally:
            self._asked = asked
            self._on.pop()
            if rows is not None:  # else the last candidates are still to be predicted
                self._close()

    @contextmanager
    def on_rows(self, tracks: Tensor) -> Iterator[None]:
        """Declares the rows of a run that calls are about, rising, for a ``with`` block."""
        before, self._asked = self._asked, tracks
        try:
            yield
        finally:
            self._asked = before

    @contextmanager
    def off(self) -> Iterator[None]:
        """Records nothing in a ``with`` block."""
        before, self._off = self._off, True
        try:
            yield
        finally:
            self._off = before

    @contextmanager
    def own_gradient(self) -> Iterator[None]:
        """Marks the gradient taken in a ``with`` block as one of an objective of ours.

        Such an objective has a gradient in the outputs everywhere: a zero is the model's.
        """
        self._own = True
        try:
            yield
        finally:
            self._own = False

    @torch.no_grad()
    def saw(self, points: Tensor, outputs: Tensor) -> ModelCall | None:
        """Records a call, and returns it; None if it can't be about these inputs.

        Args:
            points: shape (M, *input_shape).
            outputs: shape (M, K).
        """
        if self._off or points.shape[1:] != self.inputs.shape[1:] or outputs.ndim != 2:
            return None
        if self._run is None:
            rows = self._on[-1] if self._on else self._all
            every = rows is self._all
            labels = self.labels if every or self.labels is None else self.labels[rows]
            inputs = self.inputs if every else self.inputs[rows]
            self._run = _Run(rows, inputs, labels, reach=self.reach)
        run, points, outputs = self._run, points.detach(), outputs.detach()
        tracks = self._tracks(run, points)
        if run.labels is None:
            return ModelCall(run, tracks, None)
        visit = _Visit(self, points, outputs, tracks)
        if tracks is run.all_tracks and not run.on_host:
            call = ModelCall(run, tracks, None)
            run.defer(visit, call)
            return call
        labels = run.labels if tracks is run.all_tracks else run.labels[tracks]
        margins = margin(outputs, labels).float()
        run.visit(visit, margins)
        return ModelCall(run, tracks, margins)

    def follow(self, points: Tensor, call: ModelCall) -> None:
        """Records the gradients that will be taken in the points of a call.

        A tensor that an attack uses in several calls gets one hook: it has one gradient.
        """
        known = self._hooked.get(id(points))
        if known is not None and known[0]() is points:
            known[1][0] = call
            return
        if len(self._hooked) >= BUFFERED:
            self._hooked = {key: each for key, each in self._hooked.items() if each[0]()}
        latest = [call]
        self._hooked[id(points)] = weakref.ref(points), latest
        points.register_hook(lambda gradient: self._took(latest[0], gradient))  # type: ignore[no-untyped-call]

    def took_upstream(self, call: ModelCall, gradient: Tensor) -> None:
        """Records a gradient in the outputs of a call, shape (M, K)."""
        if not self._own:
            sizes = gradient.detach().abs().sum(1)
            call.has_upstream, call.finite_upstream = sizes != 0, sizes.isfinite()

    def _took(self, call: ModelCall, gradient: Tensor) -> None:
        if call.run is self._run and call.tracks.shape[0] == gradient.shape[0] and not self._off:
            call.run.took(call, gradient.detach(), own=self._own)

    @property
    def faulty(self) -> Tensor | None:
        """A number that is NaN if the model gave a gradient that is not finite, and 0 else.

        It is None if no gradient was taken.  A gradient of ours is the model's fault; one of
        another library's loss is, if its gradient in the outputs was finite.
        """
        self._close()
        return self._over.faulty if self._any_run and self._over.taken_any else None

    @property
    def zero_gradient(self) -> Tensor | None:
        """Which examples had a first gradient of zeros, bool, shape (N,); None without gradients.

        A zero counts unless a library's loss had no gradient at a misclassified point.
        """
        self._close()
        return self._over.first_zero if self._any_run and self._over.taken_any else None

    @property
    def evidence(self) -> PathTensors:
        """The evidence so far."""
        self._close()
        return self._over.evidence()

    @torch.no_grad()
    def _close(self) -> None:
        if self._run is not None:
            self._run.count_gradients()
            if self._run.rows is self._all and not self._any_run:
                self._over.set_first(self._run)
            else:
                self._over.add(self._run)
            self._run, self._any_run = None, True

    def _tracks(self, run: _Run, points: Tensor) -> Tensor:
        """Returns the tracks of points: declared, or all of them, or those of the nearest inputs.

        Libraries may call the model on any part of the batch.  A point that is taken for another
        example's is a success of that example if it is within its budget, whoever made it.
        """
        count = points.shape[0]  # `len` of a tensor takes three times as long
        if count == run.count:
            return run.all_tracks
        if self._asked is not None and self._asked.shape[0] == count:
            return self._asked
        run.declared = False
        inputs = run.inputs.flatten(1)
        return torch.cdist(points.flatten(1).to(inputs.dtype), inputs).argmin(1)


@dataclass(frozen=True)
class _Visit:
    """Points that an attack called the model on, for M tracks of a run."""

    path: Trajectory
    points: Tensor
    outputs: Tensor
    tracks: Tensor

    def take(self, places: Tensor) -> _Visit:
        """Returns the visit of some of the points."""
        return _Visit(self.path, self.points[places], self.outputs[places], self.tracks[places])

    def sample(self, points: Tensor) -> Tensor:
        """Returns a copy of points, shape (M, D): in L∞ of some coordinates, if there are many.

        The largest of few is nearly the largest of all, and takes an eighth of the time.
        """
        flat = points.flatten(1)
        some = self.path.norm is Norm.LINF and flat.shape[1] > SAMPLED
        return (flat[:, ::SAMPLE_EVERY] if some else flat).clone()

    def roughly_away_from(self, sample: Tensor) -> Tensor:
        """Returns the points' distances from others, given as a sample."""
        return distances(self.sample(self.points), sample, norm=self.path.norm).float()

    def away(self, run: _Run) -> Tensor:
        """Returns the points' distances from their inputs."""
        whole = self.tracks is run.all_tracks
        inputs = run.inputs if whole else run.inputs[self.tracks]
        if not run.on_host and self.path.norm is Norm.LINF:  # an operation less than `distances`
            change = (self.points - inputs).flatten(1)
            lengths: Tensor = torch.linalg.vector_norm(change, ord=torch.inf, dim=1)
            return lengths.float()
        return distances(self.points, inputs, norm=self.path.norm).float()

    def inside(self, *, on_host: bool) -> Tensor | None:
        """Returns which points are in the box; None if all are known to be."""
        box, slack = self.path.box, self.path.slack
        if box is None:
            return None
        if on_host:  # a tenth of the time of the extremes of each point
            least, most = (float(each) for each in self.points.aminmax())
            if least >= box.low - slack and most <= box.high + slack:
                return None
        return ~outside(self.points, box, slack=slack)


@dataclass(frozen=True)
class _Gradient:
    """A gradient of one call.

    Args:
        call: the call.
        zero: bool, shape (M,): which rows are zero; None if none is, or not on the host.
        sizes: shape (M,): numbers that are finite if the gradient is; not on the host, the largest
            coordinates, which are zero if the gradient is.
        margins: shape (M,): a copy of the margins of the call; None if there is none.
        own: whether its objective is one of ours.
    """

    call: ModelCall
    zero: Tensor | None
    sizes: Tensor
    margins: Tensor | None
    own: bool


class _Run:
    """One run on some rows of the batch; tensors have one element a track.

    Args:
        rows: int64, shape (M,): the examples of the tracks.
        inputs: shape (M, *input_shape): their inputs.
        labels: int64, shape (M,): their true classes; None if they are not known.
        reach: the largest distance of a success.

    Attributes:
        count: number of tracks.
        declared: whether it is known which tracks the calls were about.
        clock: gradients taken so far.
        start: a sample of the points of the first call, if it was about all tracks.
        best: the largest margin so far.
        success_at: the clock at the first success, else -1.
        pace: the largest distance from the start, divided by the clock.
        on_host: whether reading a value back costs nothing.
        taken, useless: gradients so far, and those that led nowhere.
        first_zero: whether the first gradient was zero.
    """

    def __init__(
        self, rows: Tensor, inputs: Tensor, labels: Tensor | None, *, reach: float
    ) -> None:
        self.rows, self.inputs, self.labels, self.reach = rows, inputs, labels, reach
        self.count = len(rows)
        self.all_tracks = torch.arange(self.count, device=rows.device)
        unknown = torch.full(rows.shape, torch.nan, device=rows.device)
        self.declared = True
        self.clock = 0
        self.start: Tensor | None = None
        self.start_margin, self.start_distance, self.pace = unknown, unknown, unknown.clone()
        self.best = torch.full_like(unknown, -torch.inf)
        self._away = torch.full_like(unknown, torch.inf)
        self.success_at = torch.full_like(rows, -1)
        self.taken, self.useless = torch.zeros_like(rows), torch.zeros_like(rows)
        self.first_zero = torch.zeros_like(rows, dtype=torch.bool)
        self.fault = torch.zeros_like(rows[:1], dtype=torch.bool)
        # Tensors that stay are rows of these: small ones between the large ones of a pass would
        # keep the allocator from using the memory of the pass before again.
        self._snapshots = unknown.new_empty(2 * BUFFERED, len(rows))  # of ``best``
        self._kept = 0  # snapshots, one every so many gradients
        self._every = 1
        self._sizes = unknown.new_empty(BUFFERED, len(rows))
        self._margins = unknown.new_empty(BUFFERED, len(rows))
        self._waiting: list[_Gradient] = []
        self._resolution: Tensor | None = None
        self._least: Tensor | None = None  # margins of successes, one a track
        self._visits = 0
        self.on_host = rows.device.type in HOST
        self._pending = PendingCalls[ModelCall]()

    def defer(self, visit: _Visit, call: ModelCall) -> None:
        """Records points of all tracks, to be evaluated together with other calls."""
        self._measure(visit)
        path = visit.path
        self._pending.add(
            call,
            visit.outputs if path.outputs_stay else visit.outputs.clone(),
            clock=self.clock,
            away=visit.away(self),
            extremes=None if path.box is None else visit.points.flatten(1).aminmax(dim=1),
        )
        self._box, self._slack = path.box, path.slack
        if len(self._pending) == BUFFERED:
            self.evaluate_pending()

    def evaluate_pending(self) -> None:
        """Evaluates the calls that wait."""
        if not len(self._pending) or self.labels is None:
            return
        found = self._pending.evaluate(self.labels, best=self.best)
        for call, margins in zip(found.calls, found.margins.unbind(), strict=True):
            call.margins = margins
        if self._visits == len(found.calls):
            self.start_margin = found.margins[0]
        if self._least is None:
            self._least = self._resolved(found.outputs)
        found.fill(self._snapshots)
        self.best = found.bests[-1]
        met = (found.margins > self._least) & (found.away <= self.reach)
        if self._box is not None and found.lowest is not None and found.highest is not None:
            met &= found.lowest >= self._box.low - self._slack
            met &= found.highest <= self._box.high + self._slack
        self.success_at = found.first(met, before=self.success_at)
        if self.reach == torch.inf:
            nearest = found.away.masked_fill(~met, torch.inf).amin(0)
            self._away = torch.minimum(self._away, nearest)

    def visit(self, visit: _Visit, margins: Tensor) -> None:
        """Records points with their outputs and margins."""
        self.evaluate_pending()
        whole = visit.tracks is self.all_tracks
        self._measure(visit)
        if whole and self._visits == 1:
            self.start_margin = margins
        if whole:
            torch.fmax(self.best, margins, out=self.best)
        else:
            numbers = margins.nan_to_num(nan=-torch.inf)
            self.best.scatter_reduce_(0, visit.tracks, numbers, "amax")
        if self.on_host:  # look at the misclassified points only
            wrong = margins > 0
            if self.reach != torch.inf:  # later successes change nothing
                wrong &= (self.success_at if whole else self.success_at[visit.tracks]) < 0
            places = wrong.nonzero().squeeze(1)
            if not len(places):
                return
            visit, margins = visit.take(places), margins[places]
        self._note_successes(visit, margins)

    def _measure(self, visit: _Visit) -> None:
        """Measures the first point, and in some calls the distance from it."""
        whole = visit.tracks is self.all_tracks
        self._visits += 1
        if whole and self._visits == 1:
            self.start = visit.sample(visit.points)
            self.start_distance = visit.roughly_away_from(visit.sample(self.inputs))
        elif self.start is not None and (
            not self.declared or (self.clock or self._visits) in PACE_SAMPLES
        ):
            self._measure_pace(visit, self.start if whole else self.start[visit.tracks])

    def _measure_pace(self, visit: _Visit, start: Tensor) -> None:
        pace = visit.roughly_away_from(start) / max(1, self.clock)
        before = self.pace[visit.tracks]
        self.pace.index_copy_(0, visit.tracks, torch.fmax(before, pace))

    def _note_successes(self, visit: _Visit, margins: Tensor) -> None:
        whole = visit.tracks is self.all_tracks
        if self._least is None or not whole:
            least = self._resolved(visit.outputs)
            self._least = least if whole else self._least
        else:
            least = self._least
        away, inside = visit.away(self), visit.inside(on_host=self.on_host)
        met = (margins > least) & (away <= self.reach)
        if inside is not None:
            met &= inside
        before = self.success_at if whole else self.success_at[visit.tracks]
        now = torch.where(met & (before < 0), self.clock, before)
        if whole:
            self.success_at.copy_(now)
        else:
            self.success_at.index_copy_(0, visit.tracks, now)
        if self.reach == torch.inf:
            away = away.masked_fill(~met, torch.inf)
            self._away.scatter_reduce_(0, visit.tracks, away, "amin")

    def _resolved(self, outputs: Tensor) -> Tensor:
        """Returns the least margins that exceed rounding, shape (M,)."""
        if self._resolution is None:
            coarse = (outputs == outputs.bfloat16()).all()
            self._resolution = torch.where(coarse, COARSE_RESOLUTION, RESOLUTION)
        return self._resolution * outputs.abs().amax(1)

    @property
    def away(self) -> Tensor:
        """The least distance of a success, in a search; the reach for a success in a budget."""
        if self.reach == torch.inf:
            return self._away
        return torch.where(self.success_at < 0, torch.inf, self.reach)

    def took(self, call: ModelCall, gradient: Tensor, *, own: bool) -> None:
        """Records a gradient, shape (M, *input_shape)."""
        flat, count, place = gradient.flatten(1), call.tracks.shape[0], len(self._waiting)
        margins: Tensor | None = None
        if not self.on_host:
            sizes = torch.linalg.vector_norm(flat, ord=torch.inf, dim=1)
        elif count > self.count:  # several points of a track in one call
            sizes, margins = flat.new_empty(count), call.margins
        else:
            sizes = self._sizes[place, :count]
            margins = None if call.margins is None else self._margins[place, :count]
            if margins is not None and call.margins is not None:
                margins.copy_(call.margins)
        zero: Tensor | None = None
        if self.on_host:
            sizes.copy_(flat.sum(1))  # a tenth of the time of sizes, but others may add up to zero
            if not sizes.all():
                zero = sizes == 0
                places = zero.nonzero().squeeze(1)
                zero[places] = (flat[places] == 0).all(1)
        self._waiting.append(_Gradient(call, zero, sizes, margins, own))
        if self.clock % self._every == 0:
            if len(self._pending):
                self._pending.mark(self._kept)
            else:
                self._snapshots[self._kept].copy_(self.best)
            self._kept += 1
        self.clock += 1
        if len(self._waiting) >= BUFFERED:
            self.count_gradients()
        if self._kept == self._snapshots.shape[0]:
            self.evaluate_pending()
            self._snapshots[:BUFFERED] = self._snapshots[::2].clone()
            self._kept, self._every = BUFFERED, 2 * self._every

    def count_gradients(self) -> None:
        """Counts the gradients that were recorded since the last time."""
        self.evaluate_pending()
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        calls = [each.call for each in waiting]
        tracks = torch.cat([each.tracks for each in calls])
        sizes = torch.cat([each.sizes for each in waiting])
        finite = sizes.isfinite()
        zero = torch.zeros_like(finite) if self.on_host else sizes == 0
        if any(each.zero is not None for each in waiting):
            none = torch.zeros_like(self.first_zero)
            zeros = [none[each.call.tracks] if each.zero is None else each.zero for each in waiting]
            zero = torch.cat(zeros)
        useless, counts, fault = zero | ~finite, zero, ~finite
        known = [each.call.margins if each.margins is None else each.margins for each in waiting]
        margins = [each for each in known if each is not None]
        if len(margins) == len(waiting):
            wrong = torch.cat(margins) > 0
            useless &= ~wrong
            counts = zero & (~wrong | _marks(waiting, [each.has_upstream for each in calls]))
        self.fault = (
            self.fault | (fault & _marks(waiting, [each.finite_upstream for each in calls])).any()
        )
        positions = torch.arange(len(tracks), device=tracks.device)
        first = _least(positions, tracks, size=len(self.rows))
        found = counts[first.clamp(max=len(tracks) - 1)]
        new = (self.taken == 0) & (first < len(tracks))
        self.first_zero = torch.where(new, found, self.first_zero)
        self.taken.scatter_add_(0, tracks, torch.ones_like(tracks))
        self.useless.scatter_add_(0, tracks, useless.to(tracks.dtype))

    def rises(self) -> tuple[Tensor, Tensor]:
        """Returns the rise of the best margin, and that in the last quarter of the gradients."""
        quarter = self.clock - max(1, self.clock // LAST_PART)
        before, first = self._snapshots[quarter // self._every], self._snapshots[0]
        return (self.best - first).nan_to_num(nan=0.0), (self.best - before).nan_to_num(nan=0.0)


class _Examples:
    """The evidence of the runs that are over; tensors have one element an example."""

    def __init__(self, inputs: Tensor) -> None:
        count, device = len(inputs), inputs.device
        unknown = torch.full((count,), torch.nan, device=device)
        self.taken_any = False
        self.faulty = torch.zeros((), device=device)
        flags = torch.zeros(2, count, dtype=torch.bool, device=device)
        self.done, self.first_zero = flags.unbind()
        self.start_margin, self.start_distance = unknown, unknown
        self.best, self.away = torch.full((2, count), -torch.inf, device=device).unbind()
        self.away.neg_()
        self.pace = torch.full_like(unknown, -1.0)
        self.rise, self.late_rise = torch.zeros(2, count, device=device).unbind()
        counts = torch.zeros(3, count, dtype=torch.int64, device=device)
        self.steps, self.taken, self.useless = counts.unbind()
        self.success_at = torch.full_like(self.steps, -1)

    def set_first(self, run: _Run) -> None:
        """Sets the evidence of the first run, which is on each example once, in order.

        It is that of `add`, in a third of the operations.
        """
        self.done = run.success_at >= 0
        survived = ~self.done
        self.start_margin, self.start_distance = run.start_margin, run.start_distance
        self.best, self.away = run.best, run.away
        self.pace = run.pace.nan_to_num(nan=-1.0).masked_fill(self.done, -1.0)
        if run.declared:
            self.success_at = run.success_at
        if not run.clock:
            return
        self.taken_any = True
        self.faulty = torch.where(run.fault.any(), torch.nan, self.faulty)
        self.first_zero = run.first_zero
        self.taken, self.useless, self.steps = run.taken, run.useless, run.taken * survived
        if run.declared:
            rise, late = run.rises()
            self.rise = rise.masked_fill(self.done, 0.0)
            self.late_rise = late.masked_fill(self.done, 0.0)

    def add(self, run: _Run) -> None:
        """Adds a run, of which later tracks of an example count until one has a success."""
        rows, tracks, none = run.rows, run.all_tracks, len(run.rows)
        if not none:
            return
        count = len(self.done)
        succeeded = run.success_at >= 0
        first = _least(tracks, rows, size=count)  # track of each example
        winner = _least(torch.where(succeeded, tracks, none), rows, size=count)
        kept = ~self.done[rows] & (tracks <= winner[rows])
        begin, win = first.clamp(max=none - 1), winner.clamp(max=none - 1)

        unseen = (first < none) & self.start_margin.isnan()
        self.start_margin = torch.where(unseen, run.start_margin[begin], self.start_margin)
        self.start_distance = torch.where(unseen, run.start_distance[begin], self.start_distance)
        self.best.scatter_reduce_(0, rows, run.best.masked_fill(~kept, -torch.inf), "amax")
        self.away.scatter_reduce_(0, rows, run.away.masked_fill(~kept, torch.inf), "amin")
        if run.declared:
            new = ~self.done & (winner < none)
            self.success_at = torch.where(new, run.success_at[win], self.success_at)
        survived = kept & ~succeeded
        pace = run.pace.nan_to_num(nan=-1.0).masked_fill(~survived, -1.0)
        self.pace.scatter_reduce_(0, rows, pace, "amax")
        if run.clock:
            self._add_gradients(run, begin, kept, survived=survived)
        self.done = self.done | (winner < none)

    def _add_gradients(self, run: _Run, begin: Tensor, kept: Tensor, *, survived: Tensor) -> None:
        rows = run.rows
        self.taken_any = True
        self.faulty = torch.where(run.fault.any(), torch.nan, self.faulty)
        new = (self.taken == 0) & _any(rows, size=len(self.done)) & (run.taken[begin] > 0)
        self.first_zero = torch.where(new, run.first_zero[begin], self.first_zero)
        self.taken.scatter_add_(0, rows, run.taken * kept)
        self.useless.scatter_add_(0, rows, run.useless * kept)
        self.steps.scatter_reduce_(0, rows, run.taken * survived, "amax")
        if run.declared:
            rise, late = run.rises()
            self.rise.scatter_add_(0, rows, rise.masked_fill(~survived, 0.0))
            self.late_rise.scatter_add_(0, rows, late.masked_fill(~survived, 0.0))

    def evidence(self) -> PathTensors:
        """Returns the evidence."""
        return PathTensors(
            start_margin=self.start_margin,
            start_distance=self.start_distance,
            best_margin=self.best,
            success_distance=self.away,
            success_at=self.success_at,
            steps=self.steps,
            pace=torch.where(self.pace > 0, self.pace, torch.nan),
            rise=self.rise,
            late_rise=self.late_rise,
            zero_share=self.useless / self.taken,
        )


def _marks(gradients: Sequence[_Gradient], upstream: Sequence[Tensor | None]) -> Tensor:
    """Returns marks of gradients in the outputs, true where they are not known or not needed."""
    marks = []
    for each, mark in zip(gradients, upstream, strict=True):
        known = None if each.own else mark
        every = torch.ones_like(each.call.tracks, dtype=torch.bool)
        marks.append(every if known is None else known)
    return torch.cat(marks)


def _least(values: Tensor, places: Tensor, *, size: int) -> Tensor:
    """Returns the least of the values at each place, int64, shape (size,); huge without any."""
    none = torch.full((size,), torch.iinfo(torch.int64).max, device=values.device)
    return none.scatter_reduce_(0, places, values, "amin")


def _any(places: Tensor, *, size: int) -> Tensor:
    """Returns which places occur, bool, shape (size,)."""
    return torch.zeros(size, dtype=torch.bool, device=places.device).index_fill_(0, places, True)
