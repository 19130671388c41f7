"""What is asked for in words on the command line, as a suite.

Order tells what belongs to what.  What stands after a ``--model`` belongs to that model, what
stands after an ``--attack`` to that attack; where it stands before the first of them it holds for
all.  After an ``--attack``, an option that is nobody else's is that attack's own parameter.
Nothing here imports torch; whether an attack has a parameter is told once attacks are loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gibbon.cli.options import _KEY_FLAGS, BY_FLAG, REQUIRED, Group, Option, scalar
from gibbon.core.errors import SpecError, suggest
from gibbon.datasets import DATASETS
from gibbon.models.registry import MODELS
from gibbon.runner.settings import RunOptions
from gibbon.specs.decoding import decode_suite
from gibbon.specs.naming import WHERE, label_from, name_of, suite_name, transferable, unlike
from gibbon.specs.paths import is_path
from gibbon.specs.suite import Suite


@dataclass(frozen=True)
class Asked:
    """What was asked for: a suite, how to run it, and where to write it down."""

    suite: Suite
    run: RunOptions
    save_suite: Path | None = None

    def in_options(self, message: str) -> str:
        """Returns an error message with key paths of the suite as the options they came from."""
        return "\n".join(self._in_options(line) for line in message.splitlines())

    def _in_options(self, line: str) -> str:
        (experiment,) = self.suite.experiments
        return _in_options(
            line,
            models=[each.model for each in experiment.models],
            attacks=[each.name for each in experiment.attacks],
        )


def read_parameters(words: Sequence[str]) -> dict[str, Any]:
    """Returns an attack's own parameters, which `evaluate` takes in the same words.

    Raises `SpecError` where a word belongs to no option, or an option is given twice.

    >>> read_parameters("--steps 20 --step-size 2/255 --no-random-start".split())
    {'steps': 20, 'step_size': '2/255', 'random_start': False}
    """
    scope = _Scope()
    for flag, value in _split(words, known={}, example="--steps"):
        scope.say_parameter(flag, None if value is None else scalar(value))
    return scope.said


def read_batch_size(text: str) -> int | None:
    """Returns the batch size that an option asks for; None for ``auto``.  Raises `SpecError`."""
    read: int | None = _read(BY_FLAG["--batch-size"], text)
    return read


class _Word(NamedTuple):
    """An option as it stands on the line; no value where none followed."""

    flag: str
    value: str | None


@dataclass
class _Scope:
    """What was said of one thing, or of all things of a kind."""

    said: dict[str, Any] = field(default_factory=dict)

    def say(self, option: Option, value: Any) -> None:
        if not option.many and option.name in self.said:
            raise SpecError(f"{option.flag} is given twice")
        if isinstance(value, tuple):
            key, part = value
            arguments = self.said.setdefault(option.name, {})
            if key in arguments:
                raise SpecError(f"{option.flag} {key} is given twice")
            arguments[key] = part
        elif option.many:
            self.said[option.name] = [*self.said.get(option.name, []), *value]
        else:
            self.said[option.name] = value

    def say_parameter(self, flag: str, value: Any) -> None:
        key = flag.removeprefix("--").replace("-", "_")
        if value is None:
            key, value = (key.removeprefix("no_"), not key.startswith("no_"))
        if key in self.said:
            raise SpecError(f"{flag} is given twice")
        self.said[key] = value


def ask(words: Sequence[str]) -> Asked:
    """Returns what the words of a command line ask for.

    Raises `SpecError` that names the option, what was expected, what came, and the nearest option.

    >>> asked = ask("--model rbf --dataset mnist --attack pgd --epsilon 0.1 --steps 20".split())
    >>> asked.suite.name, asked.suite.experiments[0].attacks[0].parameters
    ('mnist-rbf', {'steps': 20})
    """
    said = _Said()
    for word in _split(words, known=BY_FLAG):
        said.take(word)
    return said.asked()


def as_flag(parameter: str) -> str:
    """Returns an attack's parameter as the option that sets it: ``step_size``, ``--step-size``."""
    return "--" + parameter.replace("_", "-")


def misspelt(flag: str, known: Iterable[str] = ()) -> str:
    """Returns ``"; did you mean '--steps'?"`` with the option nearest to a flag, or ``"."``."""
    return suggest(flag, [*BY_FLAG, *known])


def _split(
    words: Sequence[str], *, known: Mapping[str, Option], example: str = "--model"
) -> Iterable[_Word]:
    """Yields options with their values, written ``--key value`` or ``--key=value``."""
    place = 0
    while place < len(words):
        word = words[place]
        if not re.match(r"--[A-Za-z]", word):
            raise SpecError(
                f"unexpected {word!r}: every word belongs to an option, such as {example} {word}"
            )
        flag, equals, value = word.partition("=")
        place += 1
        option = known.get(flag)
        if equals:
            yield _Word(flag, value)
        elif option is not None and not option.value:
            yield _Word(flag, None)
        elif place < len(words) and not re.match(r"--[A-Za-z]", words[place]):
            yield _Word(flag, words[place])
            place += 1
        else:
            yield _Word(flag, None)


class _Said:
    """All that was said so far, sorted by what it is about."""

    def __init__(self) -> None:
        self.models: list[_Scope] = []
        self.attacks: list[_Scope] = []
        self.all_models, self.all_attacks = _Scope(), _Scope()
        self.dataset, self.run = _Scope(), _Scope()
        self.parameters: list[str] = []

    def take(self, word: _Word) -> None:
        option = BY_FLAG.get(word.flag)
        if option is None:
            self.parameters.append(word.flag)
            value = None if word.value is None else scalar(word.value)
            self._scope("Attacks").say_parameter(word.flag, value)
            return
        if option.flag in ("--model", "--attack"):
            (self.models if option.flag == "--model" else self.attacks).append(_Scope())
        self._scope(option.group).say(option, _read(option, word.value))

    def _scope(self, group: Group) -> _Scope:
        if group == "Models":
            return self.models[-1] if self.models else self.all_models
        if group == "Attacks":
            return self.attacks[-1] if self.attacks else self.all_attacks
        return self.dataset if group == "Dataset" else self.run

    def asked(self) -> Asked:
        self._refuse_what_is_missing()
        run = dict(self.run.said)
        models, attacks = self._models(), self._attacks()
        source = self.dataset.said["source"]
        dataset = {
            "name": name_of(source),
            **self.dataset.said,
            "source": _as_path(source, DATASETS.names()),
        }
        error_only = run.pop("error_only", False)
        crossed = transferable(attacks, models=len(models), error_only=error_only)
        crossed = crossed if run.pop("transfer", True) else []
        written = {
            "name": suite_name(
                dataset["name"],
                [each["name"] for each in models],
                precision=run.get("precision", "float32"),
            ),
            "dataset": dataset,
            "models": models,
            "attacks": attacks,
            "seed": run.pop("seed", 0),
            "error_only": error_only,
            **({"transfer": {"attacks": crossed}} if crossed else {}),
        }
        save = run.pop("save_suite", None)
        try:
            suite = decode_suite(written, where=WHERE)
        except SpecError as error:
            names = [each["model"] for each in models], [each["name"] for each in attacks]
            lines = str(error).splitlines()
            raise SpecError(
                "\n".join(_in_options(line, models=names[0], attacks=names[1]) for line in lines)
            ) from error
        return Asked(suite, RunOptions(**run), save)

    def _refuse_what_is_missing(self) -> None:
        there = {
            "--model": bool(self.models),
            "--dataset": "source" in self.dataset.said,
            "--attack": bool(self.attacks),
        }
        missing = [flag for flag in REQUIRED if not there[flag]]
        if not missing:
            return
        for flag in self.parameters:  # rather than to ask for what stands there misspelt
            if not self.attacks or suggest(flag, missing) != ".":
                raise SpecError(f"{flag}: no such option{misspelt(flag)}")
        raise SpecError(
            f"missing: {', '.join(missing)}. For example: "
            "--model softmax --dataset mnist --attack fgsm --epsilon 0.1"
        )

    def _models(self) -> list[dict[str, Any]]:
        found = []
        for scope in self.models:
            said = {**self.all_models.said, **scope.said}
            both = (self.all_models.said.get("arguments"), scope.said.get("arguments"))
            if all(both):
                said["arguments"] = {**both[0], **both[1]}  # type: ignore[dict-item]
            found.append(said)
        given = [each["name"] for each in found if "name" in each]
        made = iter(
            unlike([name_of(each["model"]) for each in found if "name" not in each], taken=given)
        )
        return [
            {
                **each,
                "name": each["name"] if "name" in each else next(made),
                "model": _as_path(each["model"], MODELS.names()),
                **({"weights": _as_path(each["weights"], ())} if "weights" in each else {}),
            }
            for each in found
        ]

    def _attacks(self) -> list[dict[str, Any]]:
        found = [{**self.all_attacks.said, **scope.said} for scope in self.attacks]
        for ordered in (found, found[::-1]):
            budget = None
            for each in ordered:
                budget = each.get("epsilon", budget)
                if budget is not None:
                    each["epsilon"] = budget
        if any("epsilon" not in each for each in found):
            raise SpecError("missing: --epsilon, how far an attack may go, such as 8/255")
        given = [each["label"] for each in found if "label" in each]
        made = iter(
            unlike([label_from(each["name"]) for each in found if "label" not in each], taken=given)
        )
        return [
            {**each, "label": each["label"] if "label" in each else next(made)} for each in found
        ]


def _read(option: Option, text: str | None) -> Any:
    if not option.value:
        if text is not None:
            raise SpecError(f"{option.flag} takes no value, got {text!r}")
        return option.constant
    if text is None or text == "":
        raise SpecError(f"{option.flag} needs a value: {option.flag} {option.value}")
    try:
        return option.read(text)
    except ValueError as error:
        raise SpecError(f"{option.flag}: expected {error}, got {text!r}") from error


def _as_path(source: str, names: Iterable[str]) -> str:
    """Returns a file or folder that is called like a word so that it can't be taken for one."""
    bare = not is_path(source) and source not in names and Path(source).exists()
    return f"./{source}" if bare else source


def _in_options(line: str, *, models: Sequence[str], attacks: Sequence[str]) -> str:
    """Returns a line of an error message with its key path as the options it came from."""
    found = re.match(
        rf"{WHERE}: (?:(?P<list>models|attacks)\[(?P<place>\d+)\]|(?P<one>dataset))?"
        r"(?:\.?(?P<key>[A-Za-z_]\w*)(?:\[\d+\]|\.\w+)*)?: ",
        line,
    )
    if found is None:
        return re.sub(r"`(name|label)`", r"`--\1`", line.removeprefix(f"{WHERE}: "))
    group: Group = "Dataset" if found["one"] else "Attacks"
    words = ["--dataset"] if found["one"] else []
    if found["list"] == "models":
        group, words = "Models", [f"--model {models[int(found['place'])]}"]
    elif found["list"]:
        words = [f"--attack {attacks[int(found['place'])]}"]
    elif not found["one"]:
        group = "Run"
    key = found["key"]
    flag = _KEY_FLAGS.get((group, key), as_flag(key)) if key else ""
    if flag and flag not in REQUIRED:
        words = [*words, flag] if found["list"] else [flag]
    return f"{' '.join(words)}: {line[found.end() :]}"
