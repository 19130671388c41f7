"""What is asked for in words on the command line, as a suite.

Order tells what belongs to what.  What stands after a ``--model`` belongs to that model, what
stands after an ``--attack`` to that attack; where it stands before the first of them it holds for
all.  After an ``--attack``, an option that is nobody else's is that attack's own parameter.
Nothing here imports torch; whether an attack has a parameter is told once attacks are loaded.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from benchmark.datasets import DATASETS
from benchmark.errors import SpecError, suggest
from benchmark.models import MODELS
from benchmark.specs import Suite, decode_suite, is_path, label_from, name_from

LONGEST_NAME = 80
WHERE = "evaluate"  # what error messages of a decoded suite call the request
Group = Literal["Models", "Dataset", "Attacks", "Run"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class RunOptions:
    """How to run what was asked for; None is what is chosen by default."""

    output: Path | None = None
    device: str = "auto"
    batch_size: int | None = None
    precision: Precision = "float32"
    compile: bool = False
    models_in_memory: int | None = None
    workers: int | None = None
    skip_unreadable: bool = False
    limit: int | None = None
    fresh: bool = False
    data_dir: Path | None = None
    offline: bool = False
    pictures: bool = True


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


@dataclass(frozen=True)
class Option:
    """One option: its flag, whose it is, what it takes, and what it means.

    ``value`` is what the help calls its value; it takes none if empty.  ``read`` makes of the text
    what a suite holds, and raises ValueError with what it expected.
    """

    flag: str
    group: Group
    help: str
    value: str = ""
    read: Callable[[str], Any] = str
    key: str = ""
    many: bool = False
    constant: object = True

    @property
    def name(self) -> str:
        """The key that it sets."""
        return self.key or self.flag.removeprefix("--").replace("-", "_")


def scalar(text: str) -> Any:
    """Returns what a text means in a TOML file, or the text itself where it means nothing there.

    >>> scalar("20"), scalar("0.5"), scalar("false"), scalar("2/255"), scalar('"20"')
    (20, 0.5, False, '2/255', '20')
    """
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = read["value"]
    return value if len(read) == 1 and isinstance(value, bool | int | float | str | list) else text


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


def _batch_size(text: str) -> int | None:
    return None if text == "auto" else _whole(text, least=1, otherwise="auto or ")


def _whole(text: str, *, least: int, otherwise: str = "") -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or int(text) < least:
        raise ValueError(f"{otherwise}a whole number greater than or equal to {least}")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, least=1)


def _count_or_none(text: str) -> int:
    return _whole(text, least=0)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError("numbers with commas between them, such as 0.485,0.456,0.406") from None


def _size(text: str) -> int | list[int]:
    try:
        sides = [_whole(part, least=1) for part in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise ValueError("one side such as 224, or height and width such as 224x160")
    return sides[0] if len(sides) == 1 else sides


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise ValueError("KEY=VALUE, such as depth=18")
    return key, scalar(value)


def _precision(text: str) -> Precision:
    if text not in ("float32", "bfloat16"):
        raise ValueError("float32 or bfloat16")
    return cast(Precision, text)


def _budgets(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


OPTIONS: tuple[Option, ...] = (
    Option(
        "--model",
        "Models",
        "Where a model comes from: a name of `list models`, path/to/net.py:build, "
        "package.module:Net, torchvision:resnet50, timm:NAME, robustbench:NAME, hf:ORG/NAME, a "
        "file: net.torchscript, net.pt2, net.onnx, or ensemble:A,B of such, or of other models by "
        "name. Several make a transfer matrix.",
        "SOURCE",
    ),
    Option("--name", "Models", "What the tables call it. [default: made from the source]", "NAME"),
    Option(
        "--weights",
        "Models",
        "A weights file: safetensors, or a state dict by torch.save; or a word that the source "
        "knows, such as random.",
        "FILE",
    ),
    Option(
        "--mean",
        "Models",
        "The model is given (x - mean) / std, a number a channel; x is in [0, 1].",
        "R,G,B",
        _numbers,
    ),
    Option("--std", "Models", "See --mean.", "R,G,B", _numbers),
    Option(
        "--outputs",
        "Models",
        "What its outputs are: logits, probabilities or log-scores. [default: what the source "
        "says, else logits]",
        "KIND",
    ),
    Option(
        "--arg",
        "Models",
        "An argument for the model's factory; may be given several times.",
        "KEY=VALUE",
        _pair,
        "arguments",
        many=True,
    ),
    Option(
        "--fuse",
        "Models",
        "In what an ensemble's members are fused: probabilities, logits or loss. "
        "[default: probabilities]",
        "KIND",
    ),
    Option(
        "--shares",
        "Models",
        "Of an ensemble's members in the whole, a number each. [default: equal]",
        "N[,N...]",
        _numbers,
    ),
    Option(
        "--trust-pickle",
        "Models",
        "Load a pickle that can run any code when it is loaded: you vouch for it.",
    ),
    Option(
        "--dataset",
        "Dataset",
        "Where the data come from: a name of `list datasets`, a folder of pictures "
        "(CLASS/picture.png), a CSV file of paths and labels, an .npz or .npy file, "
        "torchvision:NAME, or a factory such as path/to/data.py:load.",
        "SOURCE",
        key="source",
    ),
    Option("--split", "Dataset", "test or train, where there are both. [default: test]", "SPLIT"),
    Option(
        "--class-map",
        "Dataset",
        "JSON or CSV file of each class's index among the model's classes, or imagenet.",
        "FILE",
    ),
    Option(
        "--labels",
        "Dataset",
        "An .npy file of labels; in an .npz file, the array of that name.",
        "FILE",
    ),
    Option("--inputs", "Dataset", "In an .npz file, the array of inputs.", "NAME"),
    Option("--layout", "Dataset", "Axes of an array: NCHW, NHWC or NHW.", "AXES"),
    Option(
        "--resize",
        "Dataset",
        "Resize pictures: the shorter side to N, or to HxW. [default: as the models' own "
        "configuration says where pictures are of different sizes, else not at all]",
        "N|HxW",
        _size,
    ),
    Option(
        "--crop", "Dataset", "Then crop from the centre. [default: see --resize]", "N|HxW", _size
    ),
    Option(
        "--interpolation",
        "Dataset",
        "How pictures are resized: nearest, bilinear, bicubic or lanczos. [default: bilinear]",
        "KIND",
    ),
    Option("--colour", "Dataset", "Convert pictures to grey or rgb.", "KIND"),
    Option("--skip-unreadable", "Dataset", "Leave out pictures that can't be read, and say which."),
    Option(
        "--dataset-arg",
        "Dataset",
        "An argument for the dataset's factory; may be given several times.",
        "KEY=VALUE",
        _pair,
        "arguments",
        many=True,
    ),
    Option(
        "--attack",
        "Attacks",
        "A name of `list attacks`. Several are run one after the other.",
        "NAME",
        key="name",
    ),
    Option(
        "--epsilon",
        "Attacks",
        "How far it may go, in units of the input: 8/255, 0.1 or 2/255,8/255. [default: as the "
        "attack before it, else after it]",
        "E[,E...]",
        _budgets,
        many=True,
    ),
    Option("--norm", "Attacks", "linf or l2. [default: the attack's own first]", "NORM"),
    Option(
        "--no-clip",
        "Attacks",
        "Adversarial examples may leave the range of pixels.",
        key="clip",
        constant=False,
    ),
    Option(
        "--carried",
        "Attacks",
        "What succeeds at a smaller epsilon counts at every larger one, and is not tried again.",
    ),
    Option("--label", "Attacks", "What the tables call it. [default: its name]", "NAME"),
    Option(
        "--output", "Run", "Where results go. [default: results/runs/DATASET-MODELS]", "DIR", Path
    ),
    Option("--device", "Run", "auto, cpu, cuda, cuda:1 or mps. [default: auto]", "DEVICE"),
    Option(
        "--batch-size",
        "Run",
        "Examples in one pass; auto begins with a guess and halves it where memory runs out. "
        "Changes no result. [default: auto]",
        "auto|N",
        _batch_size,
    ),
    Option(
        "--precision",
        "Run",
        "What models compute in: float32 or bfloat16. [default: float32]",
        "KIND",
        _precision,
    ),
    Option("--compile", "Run", "Send models through torch.compile."),
    Option(
        "--models-in-memory",
        "Run",
        "Models kept on the device at once. [default: what fits]",
        "N",
        _count,
    ),
    Option(
        "--workers",
        "Run",
        "Processes that read pictures. [default: by the number of processors]",
        "N",
        _count_or_none,
    ),
    Option("--limit", "Run", "Take a fixed sample of this many examples.", "N", _count),
    Option("--fresh", "Run", "Compute everything again."),
    Option(
        "--data-dir",
        "Run",
        "Folder of datasets that are not embedded. [environment: GIBBON_DATA]",
        "DIR",
        Path,
    ),
    Option("--offline", "Run", "Download no dataset."),
    Option("--seed", "Run", "Of every random number. [default: 0]", "N", _count_or_none),
    Option(
        "--no-transfer",
        "Run",
        "Don't score models on each other's adversarial examples.",
        key="transfer",
        constant=False,
    ),
    Option(
        "--error-only",
        "Run",
        "Measure errors alone, faster: attacks stop at an example's first success. No confidence, "
        "no transfer.",
    ),
    Option(
        "--no-pictures",
        "Run",
        "Keep no pictures of a few examples for the report.",
        key="pictures",
        constant=False,
    ),
    Option("--save-suite", "Run", "Write the same as a suite, for `run FILE`.", "FILE", Path),
)
BY_FLAG = {option.flag: option for option in OPTIONS}
GROUPS: dict[Group, str] = {
    "Models": "What stands after a --model is about that model; before the first, about all.",
    "Dataset": "What is evaluated. Resizing and cropping belong to it, normalisation to models.",
    "Attacks": "What stands after an --attack is about that attack; before the first, about all. "
    "Any other option is the attack's own parameter, such as --steps 20.",
    "Run": "How it is done: none of this changes a result but --limit, --precision, --seed and "
    "--error-only.",
}
EXAMPLES = (
    "A model that comes with the package:",
    "    evaluate --model maxout --dataset mnist --attack fgsm --epsilon 0.1,0.25",
    "Your own network and pictures, two attacks:",
    "    evaluate --model nets/small.py:build --weights small.safetensors \\",
    "        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 \\",
    "        --dataset photos/val --resize 256 --crop 224 \\",
    "        --attack fgsm --epsilon 8/255 --attack pgd --steps 20",
    "How far examples made for one fool the other, kept as a suite:",
    "    evaluate --model torchvision:resnet50 --model timm:vit_small_patch16_224 \\",
    "        --dataset photos/val --class-map imagenet --attack pgd --epsilon 4/255 \\",
    "        --save-suite suites/transfer.toml",
)
REQUIRED = ("--model", "--dataset", "--attack")
_KEY_FLAGS = {(each.group, each.name): each.flag for each in OPTIONS}


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


def name_of(source: str) -> str:
    """Returns a name for a source; ``.`` is called what that folder is called."""
    return name_from(source) or name_from(str(Path(source).resolve())) or "data"


def suite_name(dataset: str, models: Sequence[str], *, precision: Precision = "float32") -> str:
    """Returns what a suite is called that nobody named: after its dataset and its models.

    In another precision they are other models, whose results don't take the place of these.

    >>> suite_name("mnist", ["softmax", "maxout"])
    'mnist-softmax+maxout'
    """
    words = re.sub(r"[^A-Za-z0-9._+-]+", "-", f"{dataset}-{'+'.join(models)}")
    ending = "" if precision == "float32" else f"-{precision}"
    return words[: LONGEST_NAME - len(ending)] + ending


def unlike(names: Sequence[str], *, taken: Iterable[str] = ()) -> list[str]:
    """Returns names that are all different: what comes again gets a number.

    ``taken`` are names that may not be used besides.

    >>> unlike(["pgd", "fgsm", "pgd", "pgd-2"])
    ['pgd', 'fgsm', 'pgd-3', 'pgd-2']
    """
    used = set(taken)
    reserved = {*names, *used}
    found = []
    for name in names:
        number, new = 2, name
        while new in used or (new != name and new in reserved):
            new, number = f"{name}-{number}", number + 1
        used.add(new)
        found.append(new)
    return found


def transferable(
    attacks: Sequence[Mapping[str, Any]], *, models: int, error_only: bool
) -> list[str]:
    """Returns the labels of the attacks whose examples several models are scored on, as written.

    >>> transferable([{"label": "a"}, {"label": "b", "carried": True}], models=2, error_only=False)
    ['a']
    """
    if models == 1 or error_only:
        return []
    return [each["label"] for each in attacks if not each.get("carried", False)]


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
