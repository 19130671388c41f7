"""The cells of a run for TensorBoard's dashboard of hyperparameters, one row a cell.

The hyperparameters are dataset, model, attack, epsilon, norm, clipping and the attack's parameters,
and the kinds of flags if there are any; the metrics are the measured rates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_BOOL,
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_FAILURE,
    STATUS_SUCCESS,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)

from gibbon.records.run import Evaluation, RunRecord
from gibbon.report.tensorboard.event_file import EventRun

CELLS_RUN: Final = "_cells"
NO_FLAGS: Final = "–"
Hyperparameter = bool | float | str

_TYPES: Final = {bool: DATA_TYPE_BOOL, float: DATA_TYPE_FLOAT64, str: DATA_TYPE_STRING}
_FIELDS: Final = {bool: "bool_value", float: "number_value", str: "string_value"}

_METRICS: Final[Mapping[str, Callable[[Evaluation], float | None]]] = {
    "adversarial error": lambda each: each.adversarial_error,
    "worst-case error": lambda each: each.worst_case_error,
    "success rate": lambda each: each.attack_success_rate,
    "confidence on misclassified": lambda each: each.confidence_on_misclassified,
    "clean error": lambda each: each.clean_error,
    "median distance": lambda each: each.nearest_median,
}


def cell_runs(record: RunRecord, wall_time: float) -> dict[str, EventRun]:
    """Returns a TensorBoard run for each attacked cell, by name, and one for the columns."""
    attacked = [each for each in record.evaluations if not each.unattacked]
    if not attacked:
        return {}
    flagged = any(each.flags for each in attacked)
    given = [_hyperparameters(each, flagged=flagged) for each in attacked]
    names = dict.fromkeys(name for each in given for name in each)
    head = EventRun(wall_time)
    head.hyperparameters(
        metadata.EXPERIMENT_TAG,
        HParamsPluginData(
            experiment=Experiment(
                name=record.suite.name,
                description=record.suite.title,
                time_created_secs=wall_time,
                hparam_infos=[_column(name, given) for name in names],
                metric_infos=[
                    MetricInfo(name=MetricName(tag=f"cell/{name}"), display_name=name)
                    for name, measure in _METRICS.items()
                    if any(measure(each) is not None for each in attacked)
                ],
            )
        ),
    )
    return {CELLS_RUN: head} | {
        _run_name(each): _cell(each, values, wall_time)
        for each, values in zip(attacked, given, strict=True)
    }


def _hyperparameters(each: Evaluation, *, flagged: bool) -> dict[str, Hyperparameter]:
    given: dict[str, Hyperparameter] = {
        "dataset": each.dataset,
        "model": each.model,
        "attack": each.attack,
        "epsilon": float(each.epsilon),
    }
    if each.norm is not None:
        given["norm"] = each.norm.symbol
    if each.clip is not None:
        given["clipped"] = each.clip
    if each.iterate:
        given["iterate kept"] = each.iterate
    if flagged:
        given["flags"] = each.flags or NO_FLAGS
    return given | dict(_parameters(each))


def _parameters(each: Evaluation) -> Iterator[tuple[str, Hyperparameter]]:
    for name, value in each.parameter_values.items():
        if value is None or name == "keep":
            continue
        words = name.replace("_", " ")
        if isinstance(value, bool):
            yield words, value
        elif isinstance(value, int | float):
            yield words, float(value)
        else:
            yield words, value if isinstance(value, str) else json.dumps(value)


def _column(name: str, given: list[dict[str, Hyperparameter]]) -> Any:
    values = list(dict.fromkeys(each[name] for each in given if name in each))
    # TensorBoard shows only the first of the columns that differ, sorted by name: a column that is
    # equal in all cells would hide the model.
    info = HParamInfo(name=name, differs=len(values) > 1)
    kinds = {type(value) for value in values}
    info.type = _TYPES[kinds.pop()] if len(kinds) == 1 else DATA_TYPE_STRING
    if info.type != DATA_TYPE_FLOAT64:
        info.domain_discrete.extend(values)
    return info


def _cell(each: Evaluation, given: Mapping[str, Hyperparameter], wall_time: float) -> EventRun:
    run = EventRun(wall_time)
    begin_session(run, _run_name(each), given)
    for name, measure in _METRICS.items():
        measured = measure(each) if each.status == "done" else None
        if measured is not None:
            run.scalar(f"cell/{name}", measured, step=0)
    end_session(run, done=each.status == "done")
    return run


def begin_session(run: EventRun, group: str, given: Mapping[str, Hyperparameter]) -> None:
    """Adds the hyperparameters of a TensorBoard run, a row of the dashboard.

    Args:
        run: receives the message.
        group: runs of one group are one row.
        given: hyperparameters by name.
    """
    start = SessionStartInfo(group_name=group, start_time_secs=run.wall_time)
    for name, value in given.items():
        setattr(start.hparams[name], _FIELDS[type(value)], value)
    run.hyperparameters(
        metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)
    )


def end_session(run: EventRun, *, done: bool) -> None:
    """Adds the end of a TensorBoard run, and whether it succeeded."""
    status = STATUS_SUCCESS if done else STATUS_FAILURE
    end = SessionEndInfo(status=status, end_time_secs=run.wall_time)
    run.hyperparameters(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))


def _run_name(each: Evaluation) -> str:
    epsilon = str(each.epsilon).replace("/", "_")
    return f"{CELLS_RUN}/{each.dataset}/{each.model}/{each.attack}/{epsilon}"
