"""Merges the shards of a run into the folder of the whole run.

Shards hold the results of their examples.  What looks at all of them, such as flags, the attack on
survivors, tables and pictures, is made here, as at the end of one run; the models are loaded for
that, and no attack of the suite is run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gibbon.core.errors import IncompleteError, RunFolderError
from gibbon.core.global_state import calculating
from gibbon.core.package_digest import package_digest
from gibbon.records.acceptance import check_kinds
from gibbon.records.run import Provenance, RunRecord
from gibbon.runner.counting.complete_record import Completion
from gibbon.runner.counting.provenance import ended, provenance
from gibbon.runner.folder_state.claim_folder import claim, examples_of, mark_running
from gibbon.runner.folder_state.finished import remember_inputs
from gibbon.runner.folder_state.publish import Publish, published
from gibbon.runner.model_checks.examine_models import examine_models
from gibbon.runner.no_class.plan_no_class import count_cells
from gibbon.runner.own_processes.in_workers import in_workers
from gibbon.runner.own_processes.worker import Worker
from gibbon.runner.plan.make_plan import make_plan
from gibbon.runner.plan.planned import NOTHING_SUPPLIED, Supplied
from gibbon.runner.proofs.published_proofs import check_published_proofs
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_progress.progress import SILENT, Progress
from gibbon.runner.settings import RunSettings
from gibbon.runner.shards.check_code import check_code
from gibbon.runner.shards.join_results import JoinedShards
from gibbon.runner.shards.read_shards import ReadShard, ShardSet, differing, read_shards
from gibbon.runner.shards.restrict import card_of
from gibbon.specs.suite import Suite


@calculating()
def merge_shards(
    folders: Sequence[Path],
    output: Path,
    *,
    settings: RunSettings,
    accept: Sequence[str] = (),
    trust_code: bool = False,
    supplied: Supplied = NOTHING_SUPPLIED,
    progress: Progress = SILENT,
    publish: Publish | None = None,
) -> RunRecord:
    """Merges shards, and returns the record of the whole run, which is written into a folder.

    Args:
        folders: the folders of all shards, in any order.
        output: folder of the whole run.
        settings: how models are loaded and run on this machine; what affects results is taken from
            the shards.
        accept: kinds of flags that are accepted, besides those of the suite.
        trust_code: whether the files of models that the suite vouches for may run code here.
        supplied: models, datasets and attacks in place of those that the suite names.
        progress: receives the progress.
        publish: writes tables and figures into the folder, while it is still locked.

    Nothing is written unless all shards are finished: then `IncompleteError` says which are not.
    Raises `RunFolderError` if folders are not shards of one run, if the suite, a dataset, a model
    or Gibbon is another here, if the suite vouches for files and ``trust_code`` does not, or if a
    result is damaged, and another `RequestError` if the suite can't be loaded here.
    """
    found = read_shards(folders)
    first = found.first
    if first.card.code != package_digest():
        raise RunFolderError(
            f"{first.path}: was computed by another version of Gibbon (code "
            f"{first.card.code[:12]}) than this one ({package_digest()[:12]}): merge with that "
            "version, or run the shards again with this one: what is still valid is not computed "
            "again"
        )
    if found.missing:
        raise IncompleteError("; ".join(found.missing))
    check_code(found.shards, trust_code=trust_code)
    suite = first.record.suite
    kinds = tuple(dict.fromkeys((*suite.accept, *accept)))
    suite = suite.model_copy(update={"accept": kinds})
    check_kinds(suite.accept, where=str(first.path))
    settings = _settings_of(first, settings)
    request = _MergeRequest(found, suite, output, settings, supplied, publish)
    return in_workers(request.run, suite, settings, progress=progress, where=str(first.path))


def _settings_of(shard: ReadShard, settings: RunSettings) -> RunSettings:
    """Returns settings with those of a shard that affect results."""
    theirs: dict[str, Any] = shard.card.settings.model_dump()
    return replace(settings, **theirs, fresh=False)


@dataclass(frozen=True)
class _MergeRequest:
    """The arguments of `merge_shards` but for its progress."""

    found: ShardSet
    suite: Suite
    output: Path
    settings: RunSettings
    supplied: Supplied
    publish: Publish | None

    def run(self, progress: Progress, worker: Worker) -> RunRecord:
        """Merges the shards, and returns the record."""
        first = self.found.first
        where = str(first.path)
        plan = make_plan(
            self.suite, self.settings, where=where, supplied=self.supplied, progress=progress
        )
        check_published_proofs(plan)
        for sentence in differing(first.card, card_of(plan, first.card.shard)):
            raise RunFolderError(
                f"{first.path}: {sentence} here: merge where the shards were computed, or with the "
                "same files"
            )
        shards = JoinedShards(plan, self.found.shards)
        kept = shards.read()  # before anything is written
        opened = RunFolder.open(self.output, suite=self.suite.name, repair=self.settings.repair)
        with opened as folder, plan.pool:
            started = time.monotonic()
            origin = _origin(self.found.shards, provenance(plan))
            earlier = claim(folder, plan, origin)
            if earlier is not None:
                mark_running(folder, earlier)
            folder.examples = examples_of(plan)
            shards.join(folder)
            examined = examine_models(plan, folder, progress=progress, worker=worker)
            for model, candidates in kept.items():
                examined.candidates.put(model, candidates)
            completion = Completion(plan, folder, progress, worker)
            record = completion.record(examined, shards.failures, origin)
            origin = ended(origin, started=started, computed=count_cells(plan), reused=0)
            record = record.model_copy(update={"provenance": origin})
            record.write(folder.path)
            remember_inputs(plan, folder, record)
            published(self.publish, record, folder.path)
            return record


def _origin(shards: Sequence[ReadShard], here: Provenance) -> Provenance:
    """Returns the provenance of the shards: of the first one, with what the others differ in."""
    origins = [each.record.provenance for each in shards]
    update = {
        "device": " and ".join(dict.fromkeys(each.device for each in origins)),
        "platform": " and ".join(dict.fromkeys(each.platform for each in origins)),
        "started": min(each.started for each in origins),
        "seconds": sum(each.seconds for each in origins),
        "commit": here.commit,
        "dirty": here.dirty,
    }
    return origins[0].model_copy(update=update)
