"""Parses a command line into a request: a suite of one experiment, and run settings.

Options belong to what stands before them: options after a ``--model`` to that model, options after
an ``--attack`` to that attack; options before the first of these to all of them.  After an
``--attack``, an unknown option is a parameter of that attack.  Nothing here imports torch; whether
an attack has such a parameter is checked once attacks are loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from gibbon.cli.aliases import known_spelling
from gibbon.cli.options import (
    BY_FLAG,
    GROUP_OF,
    GROUPS,
    KEY_FLAGS,
    RENAMED,
    REQUIRED,
    Option,
    OptionGroup,
    run_settings,
    scalar,
)
from gibbon.core.errors import SpecError, suggest
from gibbon.core.reading import expanded
from gibbon.core.threat import Norm
from gibbon.datasets import DATASETS
from gibbon.datasets.open import OF_CLASSES, kind_of
from gibbon.models.registry import MODELS
from gibbon.records.stores import Store
from gibbon.runner.settings import Bounding, RunSettings
from gibbon.specs.customary import EXAMPLES, customary_attacks, customary_epsilon, customary_text
from gibbon.specs.decoding import AGAINST, WHERE, decode_request
from gibbon.specs.naming import PYTHON_FILE, RUBBISH, label_from, name_of, unlike
from gibbon.specs.paths import is_path
from gibbon.specs.suite import Suite

# Options of a run that are keys of its experiment.
OF_EXPERIMENT = ("seed", "error_only", "draws", "accept", "threshold")
UNREADABLE = "skip_unreadable"


@dataclass(frozen=True)
class CommandRequest:
    """A request made on the command line: a suite, how to run it, and where files go.

    ``strict`` says whether a serious flag that is not accepted makes exit code 1; ``notes`` are
    sentences about what was chosen for the user.
    """

    suite: Suite
    settings: RunSettings
    output: Store | None = None
    save_suite: Path | None = None
    strict: bool = False
    notes: tuple[str, ...] = ()

    def in_options(self, message: str) -> str:
        """Returns an error message with its key paths replaced by the options they came from."""
        experiment = self.suite.experiments[-1]
        models = [each.model for each in experiment.models]
        return _in_options(message, models, [each.name for each in experiment.attacks])


def parse_request(
    words: Sequence[str], *, data_folder: Path | None = None, customary: bool = False
) -> CommandRequest:
    """Returns the request that the arguments of a command line describe.

    ``data_folder`` holds datasets unless ``--data-dir`` is given.  With ``customary``, a request
    without an attack gets the attacks, the budget and the number of examples that are customary.

    Raises `SpecError` that names the option, what was expected, what came, and the nearest option.

    >>> words = "--model rbf --dataset mnist --attack pgd --epsilon 0.1 --steps 20".split()
    >>> suite = parse_request(words).suite
    >>> suite.name, suite.experiments[0].attacks[0].parameters
    ('mnist-rbf', {'steps': 20})
    """
    given = _GivenOptions(customary=customary)
    for flag, text in _split(words, known=BY_FLAG):
        # "--bounds all" was --certify before inputs had bounds.
        renamed = flag in RENAMED and text in get_args(Bounding)
        given.add(RENAMED[flag] if renamed else flag, text)
    given.check_required()
    (dataset,), (run,) = given.scopes["Dataset"], given.scopes["Run"]
    against = None
    if "against" in run:
        dataset, against = _divided(dataset, run["against"])
    models, attacks = given.complete_models(), given.complete_attacks()
    source = dataset["source"]
    written: dict[str, Any] = {
        "dataset": _dataset(source, dataset),
        "models": models,
        "attacks": attacks,
        **{key: run[key] for key in OF_EXPERIMENT if key in run},
    }
    if "fooling_direction" in run and "fooling" not in run:
        raise SpecError("--fooling-direction: is that of a step: give its size, --fooling STEP")
    if "fooling" in run:
        written["fooling"] = {"step": run["fooling"]}
        if "fooling_direction" in run:
            written["fooling"]["direction"] = run["fooling_direction"]
    settings = run_settings(run, data_folder=data_folder)
    try:
        suite = decode_request(
            written,
            transfer=run.get("transfer", True),
            precision=settings.precision,
            against=against,
        )
    except SpecError as error:
        sources, names = [each["model"] for each in models], [each["name"] for each in attacks]
        raise SpecError(_in_options(str(error), sources, names)) from error
    return CommandRequest(
        suite,
        settings,
        run.get("output"),
        run.get("save_suite"),
        strict=run.get("strict", False),
        notes=tuple(given.notes),
    )


def _dataset(source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of a dataset's spec."""
    return {"name": name_of(source), **options, "source": as_source(source, DATASETS)}


def _divided(given: Mapping[str, Any], against: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the options of inputs without a class, and the spec that they are compared with.

    Each option describes both datasets, as far as they take it: ``--resize`` both of two folders,
    ``--count`` the noise alone, ``--class-map`` the classes alone.
    """
    source = given["source"]
    own = kind_of(as_source(source, DATASETS), where="--dataset")
    other = kind_of(as_source(against, DATASETS), where="--against")
    clean = {key: value for key, value in given.items() if key in (*other.options, UNREADABLE)}
    taken = {*own.options, "source", "classes", UNREADABLE} - set(OF_CLASSES)
    kept = {key: value for key, value in given.items() if key in taken or key not in clean}
    return kept, _dataset(against, clean)


def read_parameters(words: Sequence[str]) -> dict[str, Any]:
    """Returns an attack's own parameters, written as options of `evaluate`.

    Raises `SpecError` if a word belongs to no option, or an option is given twice.

    >>> read_parameters("--steps 20 --step-size 2/255 --no-random-start".split())
    {'steps': 20, 'step_size': '2/255', 'random_start': False}
    """
    parameters: dict[str, Any] = {}
    for flag, text in _split(words, known={}, example="--steps"):
        _set_parameter(parameters, flag, text)
    return parameters


def as_flag(parameter: str) -> str:
    """Returns the option that sets an attack's parameter: ``--step-size`` for ``step_size``."""
    return "--" + parameter.replace("_", "-")


def misspelt(flag: str, known: Iterable[str] = ()) -> str:
    """Returns ``"; did you mean '--steps'?"`` with the option nearest to a flag, or ``"."``."""
    return suggest(flag, [*BY_FLAG, *known])


def _split(
    words: Sequence[str], *, known: Mapping[str, Option], example: str = "--model"
) -> Iterator[tuple[str, str | None]]:
    """Yields flags with their values, written ``--key value`` or ``--key=value``, or None."""
    place = 0
    while place < len(words):
        word = words[place]
        if not re.match(r"--[A-Za-z]", word):
            raise SpecError(
                f"unexpected {word!r}: every value belongs to an option, such as {example} {word}"
            )
        flag, equals, value = word.partition("=")
        place += 1
        flag = known_spelling(flag, known)
        takes_value = flag not in known or known[flag].value
        if equals:
            yield flag, value
        elif takes_value and place < len(words) and not re.match(r"--[A-Za-z]", words[place]):
            yield flag, words[place]
            place += 1
        else:
            yield flag, None


@dataclass
class _GivenOptions:
    """The options read so far, by what they describe."""

    # Of each group: what holds for all, then the models or attacks in order.
    scopes: dict[OptionGroup, list[dict[str, Any]]] = field(
        default_factory=lambda: {group: [{}] for group in GROUPS}
    )
    unknown: list[str] = field(default_factory=list)
    customary: bool = False
    notes: list[str] = field(default_factory=list)

    def add(self, flag: str, text: str | None) -> None:
        """Adds an option to what it describes; an unknown one is a parameter of an attack."""
        option = BY_FLAG.get(flag)
        if option is None:
            self.unknown.append(flag)
            _set_parameter(self.scopes["Attacks"][-1], flag, text)
            return
        scopes = self.scopes[GROUP_OF[flag]]
        if flag in ("--model", "--attack"):
            scopes.append({})
        scope, value = scopes[-1], option.parse(text)
        if isinstance(value, tuple):
            key, part = value
            _set(scope.setdefault(option.name, {}), key, part, flag=f"{flag} {key}")
        elif option.many:
            scope[option.name] = [*scope.get(option.name, []), *value]
        else:
            _set(scope, option.name, value, flag=flag)

    def check_required(self) -> None:
        """Raises `SpecError` if a required option is missing, or was perhaps misspelt."""
        missing = [
            flag for flag in REQUIRED if BY_FLAG[flag].name not in self.scopes[GROUP_OF[flag]][-1]
        ]
        (dataset,) = self.scopes["Dataset"]
        if "classes" in dataset or str(dataset.get("source", "")).startswith(RUBBISH):
            missing = [flag for flag in missing if flag != "--attack"]  # it would need classes
        if not missing:
            return
        for flag in self.unknown:
            if "--attack" in missing or suggest(flag, missing) != ".":
                raise SpecError(
                    f"{flag}: no such option{misspelt(flag)} A parameter of an attack comes after "
                    f"its name: --attack pgd {flag} ... The options: {', '.join(BY_FLAG)}"
                )
        if missing == ["--attack"] and self.customary:
            self._take_customary_attacks()
            return
        raise SpecError(
            f"missing: {', '.join(missing)}. For example: "
            "--model softmax --dataset mnist --attack fgsm --epsilon 0.1"
        )

    def _take_customary_attacks(self) -> None:
        """Adds the customary attacks at their budget, on a sample, and notes what was chosen."""
        common = self.scopes["Attacks"][0]
        try:
            norm = Norm(str(common.get("norm", Norm.LINF)))
        except ValueError:
            norm = Norm.LINF  # refused, with its name, when the attacks are decoded
        (dataset,), (run,) = self.scopes["Dataset"], self.scopes["Run"]
        attacks = customary_attacks(norm)
        self.scopes["Attacks"] += attacks
        budget = ", ".join(common.get("epsilon", ()))
        where = ""
        if not budget:
            source = str(dataset["source"])
            budget, known = customary_epsilon(source, norm, bounds=dataset.get("bounds"))
            common["epsilon"] = [budget]
            where = f", the customary budget{f' of {known}' if known else ''}"
        examples = ""
        if "limit" not in run:
            run["limit"] = EXAMPLES
            examples = f", on at most {EXAMPLES:,} examples"
        self.notes.append(
            f"no attack is given: {customary_text(attacks)} at {norm.symbol} {budget}{where}"
            f"{examples}; choose with --attack, --epsilon, --limit"
        )

    def complete_models(self) -> list[dict[str, Any]]:
        """Returns the models with the options for all of them, names, and paths marked as such."""
        common, *models = self.scopes["Models"]
        found = [{**common, **own} for own in models]
        for model, own in zip(found, models, strict=True):
            if "arguments" in common:
                model["arguments"] = common["arguments"] | own.get("arguments", {})
        for model in _with_unique(found, "name", lambda model: name_of(model["model"])):
            model["model"] = as_source(model["model"], MODELS)
            if "weights" in model:
                model["weights"] = as_source(model["weights"], ())
        return found

    def complete_attacks(self) -> list[dict[str, Any]]:
        """Returns the attacks with the options for all of them, epsilons and labels.

        An attack without an epsilon takes that of the attack before it, else of the one after it.
        """
        common, *attacks = self.scopes["Attacks"]
        found = [{**common, **own} for own in attacks]
        for ordered in (found, found[::-1]):
            budget = None
            for attack in ordered:
                budget = attack.get("epsilon", budget)
                if budget is not None:
                    attack["epsilon"] = budget
        if any("epsilon" not in attack for attack in found):
            for flag in self.unknown:
                if (nearest := misspelt(flag)) == suggest("--epsilon", ["--epsilon"]):
                    raise SpecError(f"{flag}: no such option{nearest}")
            raise SpecError("missing: --epsilon, how far an attack may go, such as 8/255")
        for attack in found:
            attack["name"] = _attack_name(attack["name"])
        return _with_unique(found, "label", lambda attack: label_from(attack["name"]))


def _attack_name(written: str) -> str:
    """Returns the name of an attack; the home folder in a reference to a file is written out."""
    path, python, name = written.rpartition(PYTHON_FILE)
    if not python or not written.startswith("~"):
        return written
    return f"{expanded(path, SpecError)}{python}{name}"


def _set(scope: dict[str, Any], key: str, value: Any, *, flag: str) -> None:
    if key in scope:
        raise SpecError(f"{flag} is given twice")
    scope[key] = value


def _set_parameter(scope: dict[str, Any], flag: str, text: str | None) -> None:
    key = flag.removeprefix("--").replace("-", "_")
    if text is not None:
        _set(scope, key, scalar(text), flag=flag)
    else:
        _set(scope, key.removeprefix("no_"), not key.startswith("no_"), flag=flag)


def _with_unique(
    written: list[dict[str, Any]], key: str, make: Callable[[dict[str, Any]], str]
) -> list[dict[str, Any]]:
    """Sets a key of which each has another value; values that were given stay."""
    taken = [each[key] for each in written if key in each]
    open_ = [each for each in written if key not in each]
    for each, name in zip(open_, unlike(list(map(make, open_)), taken=taken), strict=True):
        each[key] = name
    return written


def as_source(source: str, names: Container[str]) -> str:
    """Returns a source; that of a file or folder which is named like a word begins with ``./``."""
    expanded(source, SpecError)
    bare = not is_path(source) and Path(source).exists() and source not in names
    return f"./{source}" if bare else source


def _in_options(message: str, models: Sequence[str], attacks: Sequence[str]) -> str:
    """Returns an error message with its key paths replaced by the options they came from."""
    lines = (_line_in_options(line, models, attacks) for line in message.splitlines())
    return "\n".join(lines)


def _line_in_options(line: str, models: Sequence[str], attacks: Sequence[str]) -> str:
    found = re.match(
        rf"(?:{WHERE}|(?P<against>{AGAINST})): (?:experiments\[(?P<first>0)?\d*\]\.)?"
        r"(?:(?P<list>models|attacks)\[(?P<place>\d+)\]|(?P<one>dataset))?"
        r"(?:\.?(?P<key>[A-Za-z_]\w*)(?:\[\d+\]|\.\w+)*)?: ",
        line,
    )
    if found is None:
        return re.sub(r"`(name|label)`", r"`--\1`", line.removeprefix(f"{WHERE}: "))
    place = int(found["place"] or 0)
    group: OptionGroup = "Run"
    owner = []
    if found["list"] == "models":
        group, owner = "Models", [f"--model {models[place]}"]
    elif found["list"]:
        group, owner = "Attacks", [f"--attack {attacks[place]}"]
    elif found["one"]:
        clean = found["against"] or found["first"]
        group, owner = "Dataset", ["--against" if clean else "--dataset"]
    key = found["key"]
    flag = KEY_FLAGS.get((group, key), as_flag(key)) if key else ""
    if flag and flag not in REQUIRED:
        owner = [*owner, flag] if found["list"] else [flag]
    return f"{' '.join(owner)}: {line[found.end() :]}"
