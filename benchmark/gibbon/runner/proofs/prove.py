"""Computes the proofs of a plan and stores them; stored ones are not computed again.

A method is first tried on a few examples.  If it proves none of them, it is left out for the
others: they count as not proved, which is what a bound too wide to be useful says of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.bounds.certify import Certificates, certify, follows
from gibbon.bounds.network import Network, NoBoundError
from gibbon.bounds.rounding import uses_tensor_float
from gibbon.bounds.tracing import trace
from gibbon.datasets.base import Batch
from gibbon.models.memory import BatchSize
from gibbon.records.outcomes import Outcome
from gibbon.records.proofs import (
    PROOF_METHODS,
    ProofMethod,
    Proofs,
    code_of,
    read_proofs,
    write_proofs,
)
from gibbon.runner.device.precision import without_layout
from gibbon.runner.failures.batch_loop import in_batches
from gibbon.runner.failures.boundary import ENDINGS, Attempt, boundary
from gibbon.runner.failures.raised_by import attributed
from gibbon.runner.plan.planned import Plan
from gibbon.runner.plan.selection import read_batches
from gibbon.runner.proofs.plan_proofs import PlannedProof, plan_proofs
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_progress.progress import Progress

CHECKED = 8  # examples that a traced network is compared with its model on
TRIAL = 32  # examples that a method is tried on; if all fail, at most 9 % of the others succeed
RANGE_BYTES = 2**28  # of the ranges of all nodes, for the examples that are bounded together
RANGE_COPIES = 6  # of a node's range: ends, rounding, temporary values
MOST_TOGETHER = 64  # more examples save nothing
OTHER = "its outputs are not those of the operations that it was traced to"


def prove_all(
    plan: Plan, folder: RunFolder, *, progress: Progress
) -> list[tuple[PlannedProof, Proofs]]:
    """Returns the proofs of a plan; those that are not stored are computed and stored."""
    found: list[tuple[PlannedProof, Proofs]] = []
    networks: dict[tuple[str, bool], Network | str] = {}
    for planned in plan_proofs(plan):
        proofs, ids = None, planned.experiment.ids
        if not plan.settings.fresh:
            proofs = read_proofs(folder.path, planned.digest, examples=ids)
        if proofs is None:
            proofs = Proofs.none_of(ids, digest=planned.digest)
        if planned.request not in proofs.meta.settled:
            clean = folder.read(planned.clean.digest)
            if clean is None:  # it failed, and nothing is known of its mistakes
                continue
            proofs = _Prover(plan, folder, progress, planned, clean, networks).prove(proofs)
        found.append((planned, proofs))
    return found


@dataclass
class _Prover:
    """Proves examples of one model under one threat model.

    ``networks`` holds the models that were traced, or the reason why one can't be, by digest and
    whether the network is as it was traced or has been checked.
    """

    plan: Plan
    folder: RunFolder
    progress: Progress
    planned: PlannedProof
    clean: Outcome
    networks: dict[tuple[str, bool], Network | str]

    @property
    def name(self) -> str:
        """Model and threat, for notes and progress."""
        threat = self.planned.threat
        return f"{self.planned.source.name}, bounds at epsilon {threat.epsilon}"

    def prove(self, proofs: Proofs) -> Proofs:
        """Returns the proofs with what was missing, which are stored."""
        started = time.monotonic()
        network = self._known(self._traced)
        if isinstance(network, Network):
            methods, reason = self.planned.methods(network)
            if methods:  # only then it is worth a few passes
                network = self._known(partial(self._checked, network))
        if isinstance(network, Network):
            proofs = proofs.with_meta(reason=reason)
            for method in methods:
                proofs = self._try(network, method, proofs)
        else:
            proofs = proofs.with_meta(reason=network)
        seconds = proofs.meta.seconds + time.monotonic() - started
        settled = (*proofs.meta.settled, self.planned.request)
        proofs = proofs.with_meta(settled=settled, seconds=seconds)
        write_proofs(self.folder.path, proofs)
        return proofs

    def _known(self, make: Callable[[], Network]) -> Network | str:
        """Returns the traced model, or the reason why there is none, whatever is raised."""
        key = self.planned.source.digest, make == self._traced
        if key not in self.networks:
            found: list[Network | str] = []
            with boundary(lambda error: found.append(f"can't be traced: {attributed(error)}")):
                self.plan.pool.load([self.planned.source.handle])
                try:
                    found.append(make())
                except NoBoundError as error:
                    found.append(f"it {error}")
            self.networks[key] = found[0]
        return self.networks[key]

    def _traced(self) -> Network:
        classifier = self.planned.source.classifier
        if classifier.forward_only:
            raise NoBoundError(f"can't be traced: {classifier.forward_only}")
        with classifier.uncounted():
            return trace(without_layout(classifier.module), self._sample().inputs)

    def _checked(self, network: Network) -> Network:
        """Returns a network if it computes the outputs of its model on a few examples."""
        classifier, inputs = self.planned.source.classifier, self._sample().inputs
        with classifier.uncounted():
            outputs = classifier.predict(inputs)
        if not follows(network, inputs, outputs, tensor_float=uses_tensor_float(inputs.device)):
            raise NoBoundError(f"can't be traced: {OTHER}")
        return network

    def _sample(self) -> Batch:
        experiment = self.planned.experiment
        (batch,) = read_batches(experiment.dataset, [experiment.ids[:CHECKED]])
        return batch.to(self.plan.device)

    def _try(self, network: Network, method: ProofMethod, proofs: Proofs) -> Proofs:
        """Uses a method on the correctly classified examples that no method before it proved.

        Proofs that were joined from shards, or interrupted, may hold some of its results already.
        """
        correct = ~self.clean.misclassified(self.planned.source.digest)
        own = np.isin(proofs.example_id, self.clean.example_id[correct])
        before = proofs.proved & (proofs.proved_by < code_of(method))
        open_rows = np.flatnonzero(own & ~before)
        first = np.intersect1d(open_rows, spread(np.flatnonzero(own)))
        proofs = self._bound(network, method, proofs, first)
        if len(first) and len(open_rows) > len(first) and not proofs.proved[first].any():
            proofs = self._without(network, method, proofs, np.setdiff1d(open_rows, first))
            left = tuple(dict.fromkeys((*proofs.meta.left, method)))
            return proofs.with_meta(left=left)
        return self._bound(network, method, proofs, open_rows)

    def _without(
        self, network: Network, method: ProofMethod, proofs: Proofs, rows: NDArray[np.int64]
    ) -> Proofs:
        """Returns proofs without what a method found for some rows, in a shard of a run."""
        rows = rows[proofs.has_tried(method)[rows]]
        methods = PROOF_METHODS[: code_of(method) - 1]
        used = [each for each in methods if proofs.has_tried(each)[rows].any()]
        proofs = proofs.untried(rows)
        for each in used:
            proofs = self._bound(network, each, proofs, rows)
        return proofs

    def _bound(
        self, network: Network, method: ProofMethod, proofs: Proofs, rows: NDArray[np.int64]
    ) -> Proofs:
        rows = rows[~proofs.has_tried(method)[rows]]
        dataset = self.planned.experiment.dataset
        done, began = 0, time.monotonic()
        saved = began
        failed: list[str] = []
        total = sum(math.prod(node.shape) for node in network.nodes)
        size = max(1, min(MOST_TOGETHER, RANGE_BYTES // (8 * RANGE_COPIES * total)))

        def compute(stream: Iterator[Batch], attempt: Attempt) -> Certificates | None:
            found: list[Certificates] = []
            with boundary(lambda error: failed.append(attributed(error)), attempt):
                found.append(self._certified(network, next(stream), method))
            return found[0] if found else None

        batches = in_batches(
            len(rows),
            BatchSize(size, fixed=False),
            device=self.plan.device,
            fetch=lambda parts: read_batches(
                dataset, [proofs.example_id[rows[part]] for part in parts]
            ),
            compute=compute,
            note=self._note,
        )
        try:
            with closing(batches):
                for found, count in batches:
                    if found is None:
                        return proofs.with_meta(reason=f"{method} failed: {failed[-1]}")
                    proofs = _with_found(proofs, rows[done : done + count], method, found)
                    done += count
                    left = (time.monotonic() - began) * (len(rows) - done) / done
                    self.progress.advance(
                        0,
                        doing=f"{self.name} by {method}: {done} of {len(rows)} examples, "
                        f"about {left:.0f} s left",
                    )
                    if time.monotonic() - saved > self.plan.settings.save_every:
                        write_proofs(self.folder.path, proofs)
                        saved = time.monotonic()
        except ENDINGS:
            write_proofs(self.folder.path, proofs)
            raise
        return proofs

    def _certified(self, network: Network, batch: Batch, method: ProofMethod) -> Certificates:
        moved = batch.to(self.plan.device)
        with torch.no_grad():
            return certify(
                network,
                moved.inputs,
                moved.labels,
                threat=self.planned.threat,
                bounds=self.planned.source.classifier.bounds,
                method=method,
                tensor_float=uses_tensor_float(self.plan.device),
            )

    def _note(self, text: str) -> None:
        self.progress.note(f"{self.name}: {text}")


def spread(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the positions of a trial, at equal distances among those given.

    >>> spread(np.arange(100))[:3].tolist()
    [0, 3, 6]
    """
    if len(rows) <= TRIAL:
        return rows
    return rows[np.linspace(0, len(rows) - 1, TRIAL).astype(np.int64)]


def _with_found(
    proofs: Proofs, rows: NDArray[np.int64], method: ProofMethod, found: Certificates
) -> Proofs:
    proofs = proofs.found(
        rows, method, margin=found.margin.cpu().numpy(), proved=found.proved.cpu().numpy()
    )
    meta = proofs.meta
    return proofs.with_meta(
        forward_passes=meta.forward_passes + found.forward_passes,
        backward_passes=meta.backward_passes + found.backward_passes,
    )
