"""Chooses the bounds to compute for each model and threat model.

A bound is cheap if it takes at most a tenth of the passes of the attacks on its model, or so few
multiplications that nobody waits for them.  These are estimates from the suite, not measured times,
so that the choice does not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gibbon.bounds.cost import bounding_passes
from gibbon.bounds.network import Network
from gibbon.core.threat import Norm, ThreatModel
from gibbon.records.proofs import ProofMethod
from gibbon.runner.plan.cell_digest import digest_of
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Cell, Plan, PlannedExperiment
from gibbon.runner.settings import Bounding

BOUND_VERSION = 1  # goes up when the bounds change
SHARE = 0.1  # of the passes of the attacks on the model
FREE = 3e10  # multiplications in float32 that take a second or two on one core
MOST = 1e13  # multiplications for one example that a requested bound may take: some minutes


@dataclass(frozen=True)
class PlannedProof:
    """The proofs of one model under one threat model.

    Args:
        experiment: the experiment.
        source: the model.
        threat: the threat model.
        clean: the unattacked cell, whose mistakes can't be proved robust.
        digest: the name that the proofs are stored under.
        request: which bounds are computed, and the work that they are compared with; proofs that
            were made for an equal request are complete.
        rivals: number of threat models that share the work.
    """

    experiment: PlannedExperiment
    source: LoadedModel
    threat: ThreatModel
    clean: Cell
    digest: str
    bounding: Bounding
    work: int
    rivals: int

    @property
    def request(self) -> str:
        """The request as a text, equal for equal requests: it decides whether proofs are reused."""
        return "all" if self.bounding == "all" else f"cheap beside {self.work / self.rivals:.6g}"

    def methods(self, network: Network) -> tuple[tuple[ProofMethod, ...], str]:
        """Returns the methods to use, and why one is left out; empty if none is."""
        norm = self.threat.norm
        found: list[ProofMethod] = []
        wanted: tuple[ProofMethod, ...] = ("exact",) if network.is_affine else ("ibp", "crown")
        for method in wanted:
            cost = bounding_passes(network, method, norm)
            if not self._is_affordable(cost, network.work):
                if self.bounding == "all":
                    size = f"{cost * network.work:.0e}".replace("e+", "e")
                    return tuple(found), f"{method} would take {size} multiplications an example"
                return tuple(found), f"{method} costs more than a tenth of the attacks"
            found.append(method)
        return tuple(found), ""

    def _is_affordable(self, cost: float, work: int) -> bool:
        if self.bounding == "all":
            return cost * work <= MOST
        total = cost * self.rivals
        few = total * work * self.experiment.total <= FREE
        return few or total <= SHARE * self.work


def plan_proofs(plan: Plan) -> Iterator[PlannedProof]:
    """Yields the proofs of a plan, by experiment and model; none if no bounds are wanted."""
    bounding = wanted_bounds(plan)
    if bounding == "none":
        return
    for experiment in plan.experiments:
        for source in experiment.models:
            own = [each for each in experiment.cells if each.source is source]
            threats = dict.fromkeys(each.threat for each in own if each.threat is not None)
            clean = next(each for each in own if each.attack is None)
            if not source.probed.steady:
                continue
            for threat in threats:
                yield PlannedProof(
                    experiment,
                    source,
                    threat,
                    clean,
                    _digest(experiment, source, threat),
                    bounding,
                    work=_work(experiment, own),
                    rivals=len(threats),
                )


def wanted_bounds(plan: Plan) -> Bounding:
    """Returns which bounds a plan computes: the setting's, else the suite's, else cheap ones."""
    if plan.settings.certify is not None:
        return plan.settings.certify
    suite: dict[bool | None, Bounding] = {True: "all", False: "none", None: "cheap"}
    return suite[plan.suite.certify]


def _work(experiment: PlannedExperiment, cells: list[Cell]) -> int:
    """Returns the passes of the attacks on a model for one example."""
    attacks = {id(each.attack): each.attack for each in cells if each.attack is not None}
    return sum(each.passes(len(each.threats)) for each in attacks.values())


def _digest(experiment: PlannedExperiment, source: LoadedModel, threat: ThreatModel) -> str:
    return digest_of(
        bound=BOUND_VERSION,
        data=experiment.data_digest,
        source=source.digest,
        norm=Norm(threat.norm).value,
        epsilon=str(threat.epsilon.value),
        bounds=threat.bounds and [threat.bounds.low, threat.bounds.high],
    )
