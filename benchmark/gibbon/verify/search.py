"""Candidates of a minimal-norm search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gibbon.attacks.base import copied
from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.attacks.toolkit.minimal_search import within
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.datasets.base import Batch
from gibbon.metrics.distances import distances, like
from gibbon.metrics.validity import LINF_TOLERANCE, outside
from gibbon.models.classifier import Classifier, Watch
from gibbon.verify.answers import _clean_outputs


def _found(
    attack: MinimalNormAttack,
    source: Classifier,
    batch: Batch,
    *,
    threat: ThreatModel,
    streams: ExampleStreams,
) -> list[Tensor]:
    """Returns what one search finds, which serves every epsilon of the norm and box."""
    tries = attack.nearest(
        source,
        batch.inputs,
        labels=batch.labels.clone(),
        norm=threat.norm,
        bounds=threat.bounds,
        streams=streams,
    )
    return list(copied(tries, batch.inputs, what="point found"))


@dataclass(frozen=True)
class _Point:
    """What one try of a search found, and what the source says of it.

    Args:
        found: shape (N, *input_shape).
        outputs: shape (N, K): of the clean input where the point does not count.
        distance: shape (N,).
        misled: bool, shape (N,): finite, within the bounds and misclassified.
    """

    found: Tensor
    outputs: Tensor
    distance: Tensor
    misled: Tensor


@dataclass(frozen=True)
class _Asked:
    """What the source says of all that a search found, and of the clean inputs."""

    points: tuple[_Point, ...]
    clean: Tensor
    clean_wrong: Tensor
    nearest: Tensor


class _Search:
    """What one search for the nearest adversarial examples found; the source is asked once."""

    def __init__(self, found: Sequence[Tensor], *, norm: Norm, bounds: Bounds | None) -> None:
        self.found = found
        self.norm = norm
        self.bounds = bounds
        self._asked: _Asked | None = None

    def asked(self, source: Classifier, batch: Batch, *, watch: Watch | None) -> _Asked:
        """Returns the source's answers, which are asked for the first time only."""
        if self._asked is None:
            clean = _clean_outputs(source, batch, watch=watch)
            clean_wrong = clean.argmax(1) != batch.labels
            points = tuple(self._point(found, source, batch, clean) for found in self.found)
            nearest = torch.full_like(batch.labels, torch.inf, dtype=torch.float32)
            for point in points:
                reached = point.distance.float().masked_fill(~point.misled, torch.inf)
                nearest = torch.minimum(nearest, reached)
            nearest = nearest.masked_fill(clean_wrong, 0.0)
            nearest = nearest.masked_fill(torch.isinf(nearest), torch.nan)
            self._asked = _Asked(points, clean, clean_wrong, nearest)
        return self._asked

    def _point(self, found: Tensor, source: Classifier, batch: Batch, clean: Tensor) -> _Point:
        distance = distances(found, batch.inputs, norm=self.norm)
        counts = torch.isfinite(distance)
        if self.bounds is not None:
            slack = LINF_TOLERANCE * source.bounds.width
            counts &= ~outside(found, self.bounds, slack=slack)
        # Where nothing was found, or nothing that counts, the clean input stands: that is known.
        moved = counts & (found != batch.inputs).flatten(1).any(1)
        outputs = clean
        if bool(moved.any()):
            safe = torch.where(like(moved, found), found, batch.inputs)
            outputs = torch.where(moved.unsqueeze(1), source.predict(safe), clean)
        return _Point(found, outputs, distance, counts & (outputs.argmax(1) != batch.labels))


class _Near(Iterator[Tensor]):
    """The tries of a search at one epsilon, as candidates."""

    def __init__(self, search: _Search, inputs: Tensor, *, threat: ThreatModel) -> None:
        self.search = search
        self._tries = map(partial(within, inputs, threat=threat), search.found)

    def __next__(self) -> Tensor:
        return next(self._tries)
