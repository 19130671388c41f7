"""Restricts a plan to a shard, and says what the shard was computed from."""

from __future__ import annotations

from dataclasses import replace

from gibbon.core.package_digest import package_digest
from gibbon.core.shard import Shard
from gibbon.records.shard_card import ShardCard, ShardData, ShardModel, ShardSettings
from gibbon.runner.model_checks.examine_models import DatasetModel
from gibbon.runner.plan.planned import Plan, PlannedExperiment
from gibbon.runner.settings import RunSettings


def restricted(plan: Plan, shard: Shard) -> Plan:
    """Returns a plan of the shard's examples alone; digests of cells stay those of the whole."""
    return replace(
        plan,
        experiments=tuple(_part(each, shard) for each in plan.experiments),
        without_classes=tuple(_part(each, shard) for each in plan.without_classes),
    )


def _part(experiment: PlannedExperiment, shard: Shard) -> PlannedExperiment:
    total = len(experiment.ids)
    return replace(experiment, ids=experiment.ids[shard.part(total)], whole=total)


def examined_by(plan: Plan, shard: Shard) -> frozenset[DatasetModel]:
    """Returns the models, each with a dataset, that a shard examines: one shard examines each."""
    keys = dict.fromkeys(
        (model.digest, experiment.dataset.digest)
        for experiment in plan.experiments
        for model in experiment.models
    )
    return frozenset(
        key for place, key in enumerate(keys) if place % shard.count == shard.index - 1
    )


def card_of(plan: Plan, shard: Shard) -> ShardCard:
    """Returns the card of a shard of a plan; the plan may be the whole one or a restricted one."""
    experiments = plan.all_experiments
    return ShardCard(
        index=shard.index,
        count=shard.count,
        code=package_digest(),
        settings=shard_settings(plan.settings),
        data=tuple(
            ShardData(
                name=each.spec.dataset.name,
                dataset=each.dataset.digest,
                digest=each.data_digest,
                examples=each.total,
            )
            for each in experiments
        ),
        models=tuple(
            ShardModel(dataset=each.spec.dataset.name, name=model.name, digest=model.digest)
            for each in experiments
            for model in each.models
        ),
    )


def shard_settings(settings: RunSettings) -> ShardSettings:
    """Returns the settings that affect results."""
    return ShardSettings(**{name: getattr(settings, name) for name in ShardSettings.model_fields})
