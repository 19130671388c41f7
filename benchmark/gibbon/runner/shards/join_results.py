"""Joins the stored results of shards into the folder of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import RecordError, RunFolderError
from gibbon.core.files import remove_file, remove_folder
from gibbon.records.examination import (
    Examination,
    examination_file,
    load_examination,
    write_examination,
)
from gibbon.records.joined_outcomes import joined
from gibbon.records.kept_examples import EXAMPLES, KeptExamples, clean_folder, whole_part
from gibbon.records.no_class_answers import (
    NoClassAnswers,
    answers_file,
    load_answers,
    write_answers,
)
from gibbon.records.outcomes import OUTCOMES, Outcome, load_outcome
from gibbon.records.proofs import Proofs, load_proofs, proofs_file, write_proofs
from gibbon.records.run import Failure
from gibbon.runner.model_checks.keep_candidates import KeptCandidates
from gibbon.runner.no_class.plan_no_class import plan_answers
from gibbon.runner.plan.planned import Plan, PlannedExperiment
from gibbon.runner.proofs.plan_proofs import plan_proofs
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.shards.kept_file import KEPT_FILE, joined_kept, read_kept
from gibbon.runner.shards.read_shards import AGAIN, ReadShard

Part = TypeVar("Part")
Write = Callable[[RunFolder], None]

SHOWN = 5  # damaged files that are named; of the others the number is given


@dataclass
class JoinedShards:
    """Joins the results of all shards of a plan into a folder.

    A result is joined if each shard with examples of its dataset has it; else it failed in one.
    ``damaged`` collects the files of results that a shard has made and that can't be read.
    """

    plan: Plan
    shards: Sequence[ReadShard]
    damaged: list[str] = field(default_factory=list)

    def read(self) -> dict[str, KeptCandidates]:
        """Reads everything once, and returns the kept candidates by the digest of their model.

        Raises `RunFolderError` that names the shards and files that are damaged or lost.
        """
        for _ in self._results():
            pass
        kept = self._joined_kept()
        self._check()
        return kept

    def join(self, folder: RunFolder) -> None:
        """Writes every joined result into a folder.  Raises `RunFolderError` as `read` does."""
        for write in self._results():
            self._check()  # a file may have been lost since it was read
            write(folder)
        self._check()

    def _check(self) -> None:
        if self.damaged:
            more = f"; and {len(self.damaged) - SHOWN} more" if len(self.damaged) > SHOWN else ""
            raise RunFolderError(f"{'; '.join(self.damaged[:SHOWN])}{more}: {AGAIN}")

    def _results(self) -> Iterator[Write]:
        """Reads one result after the other, and yields what writes, or removes, the joined one."""
        yield from self._outcomes()
        yield from self._answers()
        yield from self._proofs()
        yield from self._examinations()
        yield from self._kept_examples()

    @property
    def failures(self) -> list[Failure]:
        """The failures of all shards, each cell's once, as the first shard reports it."""
        found: dict[tuple[str, ...], Failure] = {}
        for shard in self.shards:
            for each in shard.record.failures:
                key = each.dataset, each.model, each.attack, str(each.epsilon)
                found.setdefault(key, each)
        return list(found.values())

    def _parts(
        self,
        experiment: PlannedExperiment,
        load: Callable[[Path, NDArray[np.int64]], Part],
        file: Callable[[Path], Path],
    ) -> list[Part]:
        """Returns the parts of a result, in the order of shards; empty if one of them lacks it."""
        parts: list[Part] = []
        whole = True
        for shard, ids in self._examples(experiment):
            name = file(shard.path).relative_to(shard.path).as_posix()
            try:
                parts.append(load(shard.path, ids))
            except RecordError as error:
                whole = False
                if name in shard.card.stored:
                    self.damaged.append(f"{shard}: {name} {error}")
        return parts if whole else []

    def _examples(
        self, experiment: PlannedExperiment
    ) -> Iterator[tuple[ReadShard, NDArray[np.int64]]]:
        """Yields the shards that have examples of an experiment, with the ids of these."""
        for shard in self.shards:
            ids = experiment.ids[shard.card.shard.part(len(experiment.ids))]
            if len(ids):
                yield shard, ids

    def _outcomes(self) -> Iterator[Write]:
        done: set[str] = set()
        for experiment in self.plan.experiments:
            for cell in experiment.cells:
                for digest in dict.fromkeys(part.digest for part in (*cell.members, cell)):
                    if digest in done:
                        continue
                    done.add(digest)
                    parts = self._parts(
                        experiment,
                        partial(_outcome, digest=digest),
                        partial(_outcome_file, digest=digest),
                    )
                    yield partial(_write_outcome, parts, digest=digest)

    def _answers(self) -> Iterator[Write]:
        for planned in {each.digest: each for each in plan_answers(self.plan)}.values():
            parts = self._parts(
                planned.experiment,
                partial(_answers, digest=planned.digest),
                partial(answers_file, digest=planned.digest),
            )
            yield partial(_write_answers, parts, digest=planned.digest)

    def _proofs(self) -> Iterator[Write]:
        for planned in {each.digest: each for each in plan_proofs(self.plan)}.values():
            parts = self._parts(
                planned.experiment,
                partial(_proofs, digest=planned.digest),
                partial(proofs_file, digest=planned.digest),
            )
            nothing = Proofs.none_of(planned.experiment.ids[:0], digest=planned.digest)
            yield partial(_write_proofs, parts, nothing, digest=planned.digest)

    def _examinations(self) -> Iterator[Write]:
        keys = {
            (model.digest, experiment.dataset.digest): None
            for experiment in self.plan.experiments
            for model in experiment.models
        }
        for model, dataset in keys:
            found = None
            for shard in self.shards:
                file = examination_file(shard.path, model=model, dataset=dataset)
                name = file.relative_to(shard.path).as_posix()
                try:
                    found = load_examination(shard.path, model, dataset=dataset)
                except RecordError as error:
                    if name in shard.card.stored:
                        self.damaged.append(f"{shard}: {name} {error}")
                else:
                    break
            yield partial(_write_examination, found, model=model, dataset=dataset)

    def _kept_examples(self) -> Iterator[Write]:
        """Reads the kept adversarial examples, which a shard may have or not."""
        names = [
            *(each.digest for cell in self.plan.cells for each in (*cell.members, cell)),
            *(clean_folder(each.dataset.digest) for each in self.plan.experiments),
        ]
        for name in dict.fromkeys(names):
            yield partial(_remove_examples, name=name)
            for shard in self.shards:
                files = {
                    path.relative_to(shard.path).as_posix(): path
                    for path in KeptExamples(shard.path, name).files
                }
                stored = {
                    each
                    for each in shard.card.stored
                    if Path(each).parent == Path(EXAMPLES, name)  # and no further, by ".."
                }
                for each in sorted(stored | files.keys()):
                    try:
                        part = whole_part(shard.path / each)
                    except RecordError as error:
                        self.damaged.append(f"{shard}: {each} {error}")
                    else:
                        yield partial(_add_examples, part, name=name)

    def _joined_kept(self) -> dict[str, KeptCandidates]:
        kept = []
        for shard in self.shards:
            try:
                if KEPT_FILE in shard.card.stored and not (shard.path / KEPT_FILE).exists():
                    raise RecordError("is missing")
                kept.append(read_kept(shard.path, self.plan))
            except RecordError as error:
                self.damaged.append(f"{shard}: {KEPT_FILE} {error}")
        parts = (part for cell in self.plan.cells for part in (*cell.members, cell))
        places = {digest: at for at, digest in enumerate(dict.fromkeys(p.digest for p in parts))}
        return joined_kept(kept, order=places)


def _outcome(path: Path, ids: NDArray[np.int64], *, digest: str) -> Outcome:
    return load_outcome(path / OUTCOMES, digest, examples=ids)


def _outcome_file(path: Path, *, digest: str) -> Path:
    return path / OUTCOMES / f"{digest}.parquet"


def _proofs(path: Path, ids: NDArray[np.int64], *, digest: str) -> Proofs:
    return load_proofs(path, digest, examples=ids)


def _answers(path: Path, ids: NDArray[np.int64], *, digest: str) -> NoClassAnswers:
    found = load_answers(path, digest)
    if not found.covers(ids) or not np.isin(found.example_id, ids).all():
        raise RecordError("holds other examples than the shard has")
    return found


def _write_outcome(parts: list[Outcome], folder: RunFolder, *, digest: str) -> None:
    if parts:
        folder.write(digest, joined(parts))
    else:
        folder.drop(digest)


def _write_answers(parts: list[NoClassAnswers], folder: RunFolder, *, digest: str) -> None:
    if parts:
        write_answers(folder.path, reduce(NoClassAnswers.then, parts))
    else:
        remove_file(answers_file(folder.path, digest))


def _write_proofs(parts: list[Proofs], nothing: Proofs, folder: RunFolder, *, digest: str) -> None:
    if parts:
        write_proofs(folder.path, reduce(Proofs.then, parts, nothing))
    else:
        remove_file(proofs_file(folder.path, digest))


def _write_examination(
    found: Examination | None, folder: RunFolder, *, model: str, dataset: str
) -> None:
    if found is None:
        remove_file(examination_file(folder.path, model=model, dataset=dataset))
    else:
        write_examination(folder.path, found)


def _remove_examples(folder: RunFolder, *, name: str) -> None:
    remove_folder(KeptExamples(folder.path, name).folder)


def _add_examples(part: bytes, folder: RunFolder, *, name: str) -> None:
    KeptExamples(folder.path, name).add_file(part)
