"""The plan of a worker: the datasets, models and cells of single shards, loaded once each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from gibbon.datasets.base import Batch, Dataset
from gibbon.models.memory import BatchSize
from gibbon.runner.device.choose_device import choose_device
from gibbon.runner.device.model_pool import ModelPool
from gibbon.runner.execute.jobs import Job
from gibbon.runner.executors.protocol import DataOfRun, ShardTask, WorkerRequest
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.make_cells import make_cells
from gibbon.runner.plan.make_plan import CheckedExperiment, PlanLoader, checked_experiments
from gibbon.runner.plan.planned import Cell, Plan, PlannedExperiment
from gibbon.runner.plan.probe_model import probe_ids
from gibbon.runner.plan.selection import Selection, read_batch
from gibbon.runner.run_progress.progress import SILENT


class AnotherRunError(Exception):
    """A worker has loaded something else than the run: its results must not be used."""


@dataclass(frozen=True)
class _Loaded:
    """A dataset of the run with the examples that models are probed on."""

    checked: CheckedExperiment
    dataset: Dataset
    selection: Selection
    models: dict[str, LoadedModel] = field(default_factory=dict)
    batch_sizes: dict[str, BatchSize] = field(default_factory=dict)
    eot_sizes: dict[tuple[str, int], BatchSize] = field(default_factory=dict)


class PartPlan:
    """Makes jobs of tasks; a dataset or a model is loaded by the first task that needs it."""

    def __init__(self, request: WorkerRequest) -> None:
        self._request = request
        self.device = choose_device(request.settings.device)
        places = request.settings.models_in_memory
        self.pool = ModelPool(self.device, places=places, sharing=request.sharing)
        self._loaded: dict[str, _Loaded] = {}

    def job(self, task: ShardTask) -> Job:
        """Returns the job of a task, for its examples alone.

        Raises `AnotherRunError` if data, models or cells have another digest than in the run, and
        whatever loading raises.
        """
        loaded = self._data(task.dataset)
        models = tuple(self._model(loaded, name, task) for name in task.models)
        checked, dataset = loaded.checked, loaded.dataset
        attacks = tuple(
            replace(each, threats=self._loader.threats(each, dataset))
            for each in checked.attacks
            if each.label == task.attack
        )
        of_run = self._request.data[task.dataset]
        experiment = PlannedExperiment(
            checked.spec,
            dataset,
            task.ids,
            models,
            attacks,
            (),
            self._sizes(loaded, models[0], task.halvings),
            data_digest=of_run.data_digest,
            eot_sizes={} if task.halvings else loaded.eot_sizes,
        )
        found = {
            (part.digest, part.member): part
            for cell in make_cells(checked.spec, of_run.data_digest, models[:1], attacks)
            for part in (*cell.members, cell)
        }
        by_name = {each.name: each for each in models}
        return Job(experiment, tuple(_cells(task, found, by_name)), task.follows)

    def plan(self, job: Job) -> Plan:
        """Returns a plan of one job, for executors."""
        request = self._request
        return Plan(request.suite, request.settings, self.device, (job.experiment,), self.pool)

    @property
    def in_memory(self) -> frozenset[str]:
        """The names of the models on the device."""
        return frozenset(
            name
            for loaded in self._loaded.values()
            for name, model in loaded.models.items()
            if self.pool.has_loaded(model.handle)
        )

    @cached_property
    def _checked(self) -> dict[str, CheckedExperiment]:
        request = self._request
        found = checked_experiments(request.suite, request.supplied, where=request.where)
        return {each.spec.dataset.name: each for each in found}

    @cached_property
    def _loader(self) -> PlanLoader:
        request = self._request
        return PlanLoader(
            request.settings, self.device, self.pool, request.supplied, SILENT, request.suite.seed
        )

    def _data(self, name: str) -> _Loaded:
        if name in self._loaded:
            return self._loaded[name]
        of_run, checked = self._request.data[name], self._checked[name]
        dataset = self._loader.dataset(checked.spec, where=checked.where)
        if dataset.digest != of_run.digest:
            raise AnotherRunError(
                f"its dataset {name!r} has the digest {dataset.digest[:12]}, that of the run "
                f"{of_run.digest[:12]}"
            )
        selection = Selection(np.array([of_run.first]), _sample(dataset, of_run))
        self._loaded[name] = _Loaded(checked, dataset, selection)
        return self._loaded[name]

    def _sizes(self, loaded: _Loaded, source: LoadedModel, halvings: int) -> dict[str, BatchSize]:
        """Returns the batch size of a source; one that was halved stays so."""
        if source.name not in loaded.batch_sizes:
            loaded.batch_sizes.update(self._loader.batch_sizes([source], loaded.dataset))
        usual = loaded.batch_sizes[source.name]
        smaller = usual if usual.fixed else usual.divided(1 << halvings)
        return {source.name: smaller if halvings else usual}

    def _model(self, loaded: _Loaded, name: str, task: ShardTask) -> LoadedModel:
        model = loaded.models.get(name)
        if model is None:
            spec, where = loaded.checked.spec, f"{loaded.checked.where}models: {name!r}"
            wanted = next(each for each in spec.models if each.name == name)
            selection = loaded.selection
            model = self._loader.model(wanted, loaded.dataset, selection, spec.draws, where=where)
            loaded.models[name] = model
        if model.digest != task.models[name]:
            raise AnotherRunError(
                f"its model {name!r} has the digest {model.digest[:12]}, that of the run "
                f"{task.models[name][:12]}"
            )
        return model


def _sample(dataset: Dataset, of_run: DataOfRun) -> Batch:
    """Returns the examples that models are probed on, as `gibbon.runner.plan.selection.select`."""
    nothing = np.empty(0, dtype=np.int64)
    bad = dataset.unreadable(probe_ids(dataset, unreadable=nothing), progress=lambda count: None)
    probed = probe_ids(dataset, unreadable=np.array(sorted(bad), dtype=np.int64))
    return read_batch(dataset, probed if len(probed) else np.array([of_run.first]))


def _cells(
    task: ShardTask, found: dict[tuple[str, int | None], Cell], models: dict[str, LoadedModel]
) -> Iterator[Cell]:
    for each in task.cells:
        cell = found.get((each.digest, each.member))
        if cell is None:
            raise AnotherRunError(
                f"its attack {task.attack!r} makes other cells than {each.digest[:12]}, that of "
                "the run"
            )
        yield replace(cell, targets=tuple(models[name] for name in each.targets))
