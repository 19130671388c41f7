"""Stores a request from the command line: a suite file, and a folder of results."""

from __future__ import annotations

import os
import re
from itertools import count
from pathlib import Path
from typing import Any

import tomli_w

from gibbon.core.errors import RecordError, RunFolderError
from gibbon.core.files import write_atomically
from gibbon.records.run import RUN_FILE, RunRecord
from gibbon.specs.naming import PYTHON_FILE, label_from
from gibbon.specs.paths import is_path, with_attack_paths
from gibbon.specs.suite import AttackSpec, DatasetSpec, Experiment, ModelSpec, Suite

# Keys of an experiment that change its results.
SAME = ("dataset", "error_only", "draws", "against", "threshold", "fooling")


def save_suite(suite: Suite, file: Path) -> None:
    """Writes a suite as TOML, with paths relative to the file.

    Raises `RunFolderError` if it can't be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise RunFolderError(f"{file}: can't be written: {reason}") from error
    write_atomically(file, suite_toml(suite, folder=file.parent))


def suite_toml(suite: Suite, *, folder: Path) -> str:
    """Returns a suite as TOML, with paths relative to a folder.

    ``parse_suite`` makes the same suite of the text if it is given the folder, from anywhere.

    >>> suite = Suite.model_validate({"name": "mine", "dataset": "mnist", "models": ["rbf"]})
    >>> print(suite_toml(suite, folder=Path()))
    name = "mine"
    dataset = "mnist"
    models = ["rbf"]
    <BLANKLINE>
    """
    own = suite.model_dump(exclude_defaults=True, exclude={"experiments"})
    written = [_experiment(each, folder) for each in suite.experiments]
    tables = written[0] if len(written) == 1 else {"experiments": written}
    return _short_arrays_inline(tomli_w.dumps({**own, **tables}))


def _experiment(experiment: Experiment, folder: Path) -> dict[str, Any]:
    more: dict[str, Any] = {"error_only": True} if experiment.error_only else {}
    more |= {"draws": experiment.draws} if experiment.draws is not None else {}
    more |= experiment.model_dump(
        exclude_defaults=True, include={"against", "threshold", "fooling"}
    )
    models = [_source(each, "model", folder) for each in experiment.models]
    if not all(isinstance(each, str) for each in models):
        models = [{"model": each} if isinstance(each, str) else each for each in models]
    tables = {
        "dataset": _source(experiment.dataset, "source", folder),
        "models": models,
        "attacks": [_attack(each, folder) for each in experiment.attacks],
        "transfer": experiment.transfer and experiment.transfer.model_dump(),
    }
    return {**more, **{key: table for key, table in tables.items() if table}}


def results_folder(root: Path, suite: Suite, *, limit: int | None) -> Path:
    """Returns the folder for the results of a suite if none was chosen: one that loses nothing.

    It is ``root/NAME``, or ``root/NAME-2`` and so on if that folder holds anything that the suite
    would not compute too.
    """
    for number in count(1):
        folder = root / (suite.name if number == 1 else f"{suite.name}-{number}")
        if not folder.exists() or _continues(folder, suite, limit):
            return folder
    raise AssertionError("there is no last number")


def _continues(folder: Path, suite: Suite, limit: int | None) -> bool:
    if not (folder / RUN_FILE).exists():
        return folder.is_dir() and not any(folder.glob("[!.]*"))
    try:
        record = RunRecord.read(folder)
    except RecordError:
        return False
    same_sample = record.provenance.limit == limit
    return same_sample and _includes(suite, record.suite)


def _includes(suite: Suite, before: Suite) -> bool:
    """Returns whether the suite of a request holds everything of an earlier one."""
    both = suite.experiments, before.experiments
    if (suite.name, suite.seed) != (before.name, before.seed) or len(both[0]) != len(both[1]):
        return False
    return all(_continues_experiment(new, old) for new, old in zip(*both, strict=True))


def _continues_experiment(new: Experiment, old: Experiment) -> bool:
    attacks = {each.label: each for each in new.attacks}
    transferred = new.transfer.attacks if new.transfer else ()
    return (
        all(getattr(new, key) == getattr(old, key) for key in SAME)
        and all(model in new.models for model in old.models)
        and all(
            each.label in attacks and _same_attack(each, attacks[each.label])
            for each in old.attacks
        )
        and set(old.transfer.attacks if old.transfer else ()) <= set(transferred)
    )


def _same_attack(old: AttackSpec, new: AttackSpec) -> bool:
    """Returns whether two attacks differ at most in epsilons that the new one adds."""
    same = old.model_copy(update={"epsilon": new.epsilon}) == new
    return same and set(old.epsilon) <= set(new.epsilon)


def _source(spec: ModelSpec | DatasetSpec, key: str, folder: Path) -> str | dict[str, Any]:
    """Returns a model or dataset as a table, or its name alone if the source has that name."""
    dumped = spec.model_dump(exclude_none=True)
    written = {"name": dumped, key: dumped} if isinstance(dumped, str) else dumped
    written |= {
        each: _relative(written[each], folder)
        for each in (key, "weights", "class_map", "labels")
        if each in written
    }
    if isinstance(spec, ModelSpec) and spec.ensemble:
        del written["model"]
        written["ensemble"] = [_source(each, key, folder) for each in spec.ensemble]
    return spec.name if written == {"name": spec.name, key: spec.name} else written


def _attack(spec: AttackSpec, folder: Path) -> dict[str, Any]:
    dumped = spec.model_dump(exclude_defaults=True)
    written: dict[str, Any] = with_attack_paths(dumped, lambda each: _relative(each, folder))
    if spec.label == label_from(spec.name):
        del written["label"]
    return written


def _relative(written: str, folder: Path) -> str:
    """Returns a path as seen from a folder; a word, or an absolute path, as it is."""
    path, python, factory = written.partition(PYTHON_FILE)
    path += python.removesuffix(":")
    if not is_path(path) or Path(path).is_absolute():
        return written
    seen = os.path.relpath(path, folder)
    if os.path.realpath(folder / seen) != os.path.realpath(path):
        seen = str(Path(path).absolute())  # a link stands between the two
    seen = seen if is_path(seen) else f"./{seen}"
    return f"{seen}:{factory}" if python else seen


def _short_arrays_inline(text: str) -> str:
    """Returns TOML with arrays of plain values on one line, which tomli-w spreads over several.

    Only arrays have line breaks after an opening bracket or a comma: strings have none.
    """
    text = re.sub(r"(?<=\[)\n +(?![ {])", "", text)
    text = re.sub(r"(?<!\}),\n +(?![ {])", ", ", text)
    return re.sub(r"(?<!\}),\n *\]", "]", text)
