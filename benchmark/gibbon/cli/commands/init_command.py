"""The command ``init``: writes a commented suite for a user's model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gibbon.cli.arguments import own_name, path, with_parameters
from gibbon.cli.command_classes import WithExamples
from gibbon.cli.grammar import CommandRequest, parse_request
from gibbon.cli.options import BY_FLAG
from gibbon.cli.output import say
from gibbon.cli.typer_apps import app
from gibbon.core.errors import RequestError, RunFolderError, SpecError
from gibbon.core.plain_text import shown
from gibbon.core.threat import Norm
from gibbon.specs.decoding import WHERE
from gibbon.specs.suite import Suite

if TYPE_CHECKING:
    from gibbon.specs.suite import Suite

FILE: Final = "robustness.toml"
FLAGS: Final = (
    *("--model", "--weights", "--mean", "--std", "--outputs", "--dataset", "--resize", "--crop"),
    *("--class-order", "--class-map", "--bounds", "--epsilon", "--norm", "--trust-code"),
)
OPTIONS: Final = tuple(BY_FLAG[flag] for flag in FLAGS)
EPILOG: Final = """\
With three questions:
    init
Without questions:
    init mine.toml --model nets/small.py:build --weights small.safetensors --dataset photos/val"""
_QUESTIONS: Final = (
    ("--model", "Model (path/to/net.py:build, torchvision:resnet50, maxout): ", True),
    ("--weights", "Weights file (Enter for none): ", False),
    ("--dataset", "Data (a folder of class folders, a CSV file, mnist): ", True),
)
_HEAD: Final = """\
# A suite of Gibbon: models, data and attacks.  Run it, on a sample at first, with
#     gibbon run {file} --limit 200
#     gibbon run {file}
# Paths are relative to this file.  An interrupted run continues if it is run again.
"""
_FIRST: Final = ("head", "comment", "name")  # lines before the seed
# Comments before the first line that begins with a text.
_COMMENTS: Final = {
    "name = ": "# The name of the folder of results: results/runs/NAME.",
    "dataset = ": "# The data: a name of `gibbon list datasets`, a folder, a CSV or .npz file.",
    "[dataset]": (
        '# The data.  Other keys: resize = 256, crop = 224, class_order = "numeric", '
        'class_map = "map.json".'
    ),
    "models = ": (
        "# The models: names of `gibbon list models`, or tables such as\n"
        '# { name = "mine", model = "net.py:build", weights = "w.safetensors" }.'
    ),
    "[[models]]": (
        "# A model; another [[models]] table adds one that it is compared with.  Other keys:\n"
        "# mean = [0.485, 0.456, 0.406] and std = [0.229, 0.224, 0.225] (a normalisation that the\n"
        '# network does not contain), outputs = "probabilities", arguments = { width = 16 }.'
    ),
    "[[attacks]]": (
        "# Attacks, with budgets in the units of the input: pictures are in [0, 1], so that 8/255\n"
        "# is 8 steps of 255.  `gibbon list attacks --long` shows all attacks and parameters."
    ),
    'name = "worst-of"': (
        "# A list: each attack is run on the examples that the earlier ones left.  For a figure\n"
        '# to publish, replace it by name = "autoattack", without attacks.'
    ),
    "[transfer]": "# Attacks whose examples are also tried on the other models.",
}


def write_first_suite(file: Path, given: Mapping[str, str]) -> str:
    """Writes a suite for a model and data, prompting for what is missing, and returns what is next.

    Args:
        file: the file to write; it must not exist.
        given: options of `FLAGS` and their texts.

    Raises `SpecError` if the file exists, an answer is missing or something in them is wrong.
    """
    if not str(file).isprintable():  # it is written into a comment
        raise SpecError(f"{shown(str(file))}: expected a name without line breaks and the like")
    if file.exists() or file.is_symlink():
        raise SpecError(f"{file}: is there already, and init never overwrites: name another file")
    answers = dict(given)
    for flag, question, needed in _QUESTIONS:
        if flag in given or (flag == "--weights" and "--model" in given):
            continue
        answer = _answer(question, flag)
        if answer:
            answers[flag] = answer
        elif needed:
            raise SpecError(f"{flag}: is missing: answer the question, or give {flag} SOURCE")
    words = [word for flag, text in answers.items() for word in _words(flag, text)]
    request = parse_request(words, customary=True)
    _check(request)
    text = commented(request.suite, file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError as error:
        raise SpecError(f"{file}: is there already, and init never overwrites") from error
    except OSError as error:
        raise RunFolderError(f"{file}: can't be written: {error.strerror or error}") from error
    (experiment,) = request.suite.experiments
    budget = ", ".join(str(each) for each in experiment.attacks[0].epsilon)
    norm = (experiment.attacks[0].norm or Norm.LINF).symbol
    names = ", ".join(each.label for each in experiment.attacks)
    return (
        f"{file}: {experiment.models[0].name} on {experiment.dataset.name}, {names} at {norm} "
        f"{budget}\nrun it: gibbon run {file} --limit 200"
    )


def _words(flag: str, text: str) -> list[str]:
    return [f"{flag}={text}"] if BY_FLAG[flag].value else [flag]


def _answer(question: str, flag: str) -> str:
    sys.stderr.write(question)
    sys.stderr.flush()
    try:
        line = sys.stdin.readline()
    except (OSError, ValueError):  # closed
        line = ""
    if not line:
        raise SpecError(f"{flag}: is missing, and there is no answer to the question: give {flag}")
    return line.strip()


def _check(request: CommandRequest) -> None:
    """Raises a `RequestError`, in the words of options, if the suite could not be run."""
    from gibbon.datasets.open import check_dataset
    from gibbon.models.sources.build import check_model

    (experiment,) = request.suite.experiments
    try:
        for at, model in enumerate(experiment.models):
            check_model(model, where=f"{WHERE}: models[{at}]")
        check_dataset(experiment.dataset, where=f"{WHERE}: dataset")
    except RequestError as error:
        raise SpecError(request.in_options(str(error))) from error
    if not experiment.attacks:
        raise SpecError("--dataset: init is for data with classes; see docs/no-class.md for others")


def commented(suite: Suite, file: Path) -> str:
    """Returns a suite as TOML with a comment above each part; paths are relative to the file."""
    from gibbon.cli.suite_writer import suite_toml  # imports the records of runs

    lines = suite_toml(suite, folder=file.parent).splitlines()
    waiting = dict(_COMMENTS)
    written = [_HEAD.format(file=file)]
    for line in lines:
        for start in [each for each in waiting if line.startswith(each)]:
            comment = waiting.pop(start)
            table = written[-1] == "[[attacks]]"
            written.insert(len(written) - 1 if table else len(written), comment)
        written.append(line)
        if len(written) == len(_FIRST):
            written.append("# seed = 0  # of every random number")
    return "\n".join([*written, ""])


def with_init_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the keyword arguments of a command by options of a model and data, as texts."""
    options = {own_name(each): replace(each, read=str, many=False) for each in OPTIONS}
    return with_parameters(command, options)


@app.command(cls=WithExamples, epilog=EPILOG)
@with_init_options
def init(
    file: Annotated[
        Path | None,
        typer.Argument(parser=path, metavar="FILE", help=f"File to write. [default: {FILE}]"),
    ] = None,
    **own: Any,
) -> None:
    """Write a commented suite for your model and data.

    Prompts for the model, its weights and the data unless they are given.  The suite runs as it is:
    FGSM, PGD and a short worst case at the customary budget.  Nothing is overwritten.
    """
    given = {option.flag: own[own_name(option)] for option in OPTIONS}
    texts = {flag: "" if text is True else text for flag, text in given.items() if text is not None}
    say(write_first_suite(file or Path(FILE), texts))
