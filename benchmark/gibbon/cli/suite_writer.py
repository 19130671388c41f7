"""What is kept of a request that was made in words: a suite in a file, and a folder of results."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from gibbon.core.errors import RecordError, RunFolderError
from gibbon.core.files import write_atomically
from gibbon.records.run import RUN_FILE, RunRecord
from gibbon.specs.naming import label_from
from gibbon.specs.paths import is_path
from gibbon.specs.suite import AttackSpec, DatasetSpec, Experiment, ModelSpec, Suite

PYTHON_FILE = ".py:"


def save_suite(suite: Suite, file: Path) -> None:
    """Writes a suite of one experiment as TOML, paths in it relative to the file.

    Raises `RunFolderError` where it can't be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise RunFolderError(f"{file}: can't be written: {reason}") from error
    write_atomically(file, suite_toml(suite, folder=file.parent))


def suite_toml(suite: Suite, *, folder: Path) -> str:
    """Returns a suite of one experiment as TOML, to stand in a folder.

    ``parse_suite`` makes the same suite of it, read in that folder from wherever.

    >>> suite = Suite.model_validate({"name": "mine", "dataset": "mnist", "models": ["rbf"]})
    >>> print(suite_toml(suite, folder=Path()))
    name = "mine"
    dataset = "mnist"
    models = ["rbf"]
    <BLANKLINE>
    """
    (experiment,) = suite.experiments
    keys: dict[str, Any] = {"name": suite.name}
    keys |= {key: text for key in ("title", "description") if (text := getattr(suite, key))}
    keys |= {"seed": suite.seed} if suite.seed else {}
    keys |= {"error_only": True} if experiment.error_only else {}
    dataset = _dataset(experiment.dataset, folder)
    models = [_model(each, folder) for each in experiment.models]
    tables = list(_tables(experiment))
    if isinstance(dataset, str):
        keys["dataset"] = dataset
    else:
        tables.insert(0, ("[dataset]", dataset))
    words = [each for each in models if isinstance(each, str)]
    if len(words) == len(models):
        keys["models"] = words
    else:
        place = 1 if tables and tables[0][0] == "[dataset]" else 0
        tables[place:place] = [
            ("[[models]]", {"model": each} if isinstance(each, str) else each) for each in models
        ]
    return "\n".join([_lines(keys), *(f"{heading}\n{_lines(table)}" for heading, table in tables)])


def results_folder(root: Path, suite: Suite, *, limit: int | None) -> Path:
    """Returns the folder for a suite that nobody chose one for: where nothing else is lost.

    It is ``root/NAME``, or ``root/NAME-2`` and so on where that holds something that the suite
    does not ask for too.
    """
    for number in count(1):
        folder = root / (suite.name if number == 1 else f"{suite.name}-{number}")
        if not folder.exists() or _goes_on(folder, suite, limit):
            return folder
    raise AssertionError("there is no last number")


def _goes_on(folder: Path, suite: Suite, limit: int | None) -> bool:
    if not (folder / RUN_FILE).exists():
        return folder.is_dir() and not any(folder.glob("[!.]*"))
    try:
        record = RunRecord.read(folder)
    except RecordError:
        return False
    same_sample = record.provenance.limit == limit
    return same_sample and _includes(suite, record.suite)


def _includes(suite: Suite, before: Suite) -> bool:
    """Says whether a suite asks for all that another of one experiment asked for."""
    if (suite.name, suite.seed) != (before.name, before.seed) or len(before.experiments) != 1:
        return False
    (new,), (old,) = suite.experiments, before.experiments
    attacks = {each.label: each for each in new.attacks}
    transferred = new.transfer.attacks if new.transfer else ()
    return (
        (new.dataset, new.error_only) == (old.dataset, old.error_only)
        and all(model in new.models for model in old.models)
        and all(each.label in attacks and _at(each, attacks[each.label]) for each in old.attacks)
        and set(old.transfer.attacks if old.transfer else ()) <= set(transferred)
    )


def _at(old: AttackSpec, new: AttackSpec) -> bool:
    same = old.model_copy(update={"epsilon": new.epsilon}) == new
    return same and set(old.epsilon) <= set(new.epsilon)


def _dataset(spec: DatasetSpec, folder: Path) -> str | dict[str, Any]:
    dumped = spec.model_dump(exclude_none=True)
    written = {"name": spec.name, "source": spec.source} if isinstance(dumped, str) else dumped
    for key in ("source", "class_map", "labels"):
        if key in written:
            written[key] = _seen(written[key], folder)
    return spec.name if written == {"name": spec.name, "source": spec.name} else written


def _model(spec: ModelSpec, folder: Path) -> str | dict[str, Any]:
    written = spec.model_dump(exclude_none=True)
    for key in ("model", "weights"):
        if key in written:
            written[key] = _seen(written[key], folder)
    if spec.ensemble:
        del written["model"]
        written["ensemble"] = [_model(each, folder) for each in spec.ensemble]
    return spec.name if written == {"name": spec.name, "model": spec.name} else written


def _tables(experiment: Experiment) -> Iterator[tuple[str, dict[str, Any]]]:
    for attack in experiment.attacks:
        epsilons = [str(each) for each in attack.epsilon]
        written: dict[str, Any] = {"name": attack.name}
        written |= {"label": attack.label} if attack.label != label_from(attack.name) else {}
        written |= {"epsilon": epsilons[0] if len(epsilons) == 1 else epsilons}
        written |= {"norm": str(attack.norm)} if attack.norm is not None else {}
        written |= {} if attack.clip else {"clip": False}
        written |= {"carried": True} if attack.carried else {}
        yield "[[attacks]]", {**written, **attack.parameters}
    if experiment.transfer is not None:
        yield "[transfer]", {"attacks": list(experiment.transfer.attacks)}


def _seen(written: str, folder: Path) -> str:
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


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items())


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "a").replace("-", "a").isalnum()
    return key if bare else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        parts = (f"{_key(key)} = {_value(part)}" for key, part in value.items())
        return f"{{ {', '.join(parts)} }}"
    return repr(value)  # numbers are written in TOML as in Python


def _text(text: str) -> str:
    # A JSON string is a TOML string, but for the one control character that JSON leaves alone.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
