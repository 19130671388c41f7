"""Keeps a few candidates of each model's first attack with gradients, to examine them later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gibbon.datasets.base import Batch
from gibbon.records.outcomes import Outcome
from gibbon.runner.execute.scorer import Scorer
from gibbon.runner.failures.boundary import Attempt
from gibbon.runner.job_results.target_scores import TargetScores
from gibbon.runner.plan.planned import Cell

MOST = 8


@dataclass(frozen=True, eq=False)
class KeptCandidates:
    """Candidates on the CPU, with the ids and labels of their examples, and the cell's digest."""

    inputs: Tensor
    ids: Tensor
    labels: Tensor
    cell: str = ""


class CandidateScorer(Scorer):
    """A scorer that passes candidates to a keeper, too."""

    def __init__(self, scorer: Scorer, keeper: CandidateKeeper) -> None:
        self.resumes = scorer.resumes
        self._scorer = scorer
        self._keeper = keeper

    def score(self, cell: Cell, candidates: Batch, attempt: Attempt) -> TargetScores:
        """Returns the answers of targets."""
        self._keeper.offer(cell, candidates)
        return self._scorer.score(cell, candidates, attempt)

    def needs(self, cell: Cell) -> int:
        """Returns how many candidates the scorer or the keeper needs."""
        return max(self._scorer.needs(cell), self._keeper.needs(cell))

    def take(self, cell: Cell, candidates: Batch) -> None:
        """Passes candidates to both."""
        self._keeper.offer(cell, candidates)
        self._scorer.take(cell, candidates)

    def accept(self, cells: Mapping[str, Outcome]) -> None:
        """Accepts the last batch."""
        self._keeper.accept(cells)
        self._scorer.accept(cells)


@dataclass
class CandidateKeeper:
    """Keeps the first candidates of the first attack with gradients on each model in demand.

    Args:
        store: stores all that were kept, whenever there are more; by default nothing is stored.
    """

    store: Callable[[Mapping[str, KeptCandidates]], object] = len
    _wanted: set[str] = field(default_factory=set)
    _offered: dict[str, tuple[str, Tensor]] = field(default_factory=dict)
    _kept: dict[str, KeptCandidates] = field(default_factory=dict)

    def around(self, scorer: Scorer) -> Scorer:
        """Returns a scorer that offers the candidates to this keeper."""
        return CandidateScorer(scorer, self) if self._wanted else scorer

    def wants(self, model: str) -> bool:
        """Returns whether candidates on the model of this digest are still in demand."""
        return model in self._wanted

    def want(self, model: str) -> None:
        """Keeps candidates that are made on the model of this digest."""
        self._wanted.add(model)

    def needs(self, cell: Cell) -> int:
        """Returns how many candidates of a cell are kept at most, if they are accepted."""
        gradient = cell.attack is not None and cell.attack.attack.needs_gradient
        return MOST if gradient and cell.source.digest in self._wanted else 0

    def offer(self, cell: Cell, candidates: Batch) -> None:
        """Takes note of candidates, the inputs of a batch, until it is accepted."""
        model = cell.source.digest
        if self.needs(cell) and cell.digest not in self._offered:
            self._offered[cell.digest] = (model, candidates.inputs[:MOST].detach().cpu().clone())

    def accept(self, outcomes: Mapping[str, Outcome]) -> None:
        """Keeps the candidates of the cells that have an outcome; others are discarded."""
        before = len(self._kept)
        for digest, (model, inputs) in self._offered.items():
            outcome = outcomes.get(digest)
            if outcome is None or model not in self._wanted:
                continue
            ids = torch.from_numpy(outcome.example_id[: len(inputs)].copy())
            labels = torch.from_numpy(outcome.label[: len(inputs)].astype("int64"))
            self._kept[model] = KeptCandidates(inputs, ids, labels, digest)
            self._wanted.discard(model)
        self._offered.clear()
        if len(self._kept) > before:
            self.store(self._kept)

    @property
    def kept(self) -> Mapping[str, KeptCandidates]:
        """The candidates that were kept, by the digest of their model."""
        return self._kept

    def put(self, model: str, candidates: KeptCandidates) -> None:
        """Keeps candidates of an earlier run for the model of this digest."""
        self._kept[model] = candidates
        self._wanted.discard(model)

    def of(self, model: str) -> KeptCandidates | None:
        """Returns the candidates that were kept for a model, or None if there are none."""
        return self._kept.get(model)
