"""The command `train`: a model by its recipe, or a user's own model adversarially."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from gibbon.cli.arguments import own_name, path, with_own_options
from gibbon.cli.command_classes import WithExamples
from gibbon.cli.defaults import DATA_DIR
from gibbon.cli.grammar import as_source
from gibbon.cli.options import OF_OWN, OF_OWN_DATA, OF_OWN_MODEL, OF_OWN_RECIPE, Option
from gibbon.cli.output import say
from gibbon.cli.typer_apps import app
from gibbon.core.errors import SpecError
from gibbon.datasets import DATASETS
from gibbon.models.registry import MODELS, OwnTraining
from gibbon.specs.decoding import decode_spec
from gibbon.specs.naming import name_of
from gibbon.specs.suite import DatasetSpec, ModelSpec

EPILOG = """\
A model of the zoo, by its recipe:
    train maxout --seeds 0-2 --parallel 3
Your own model, adversarially:
    train --model nets/small.py:build --dataset photos/train --validation photos/val \\
        --objective pgd --epsilon 8/255 --epochs 30 --output small
The weights that it writes:
    evaluate --model nets/small.py:build --weights small/build.safetensors \\
        --dataset photos/val --attack pgd --epsilon 8/255"""
EXAMPLE = "train --model net.py:build --dataset photos/train --objective pgd --epsilon 8/255"
WHERE = "train"
COUNTS = {"--seed": "seed", "--seeds": "seed", "--epochs": "epochs"}  # fields of options, by flag


def own_training(given: Mapping[str, Any]) -> OwnTraining:
    """Returns the model, the data and the recipe that options say, by flag.

    Raises `SpecError` that names the option.
    """
    for flag, what in (("--model", "a source of the model"), ("--dataset", "training examples")):
        if flag not in given:
            raise SpecError(f"missing: {flag}, {what}. For example: {EXAMPLE}")
    model, data, settings = (
        _fields(options, given) for options in (OF_OWN_MODEL, OF_OWN_DATA, OF_OWN_RECIPE)
    )
    source, validation = data.pop("source"), settings.pop("validation", None)
    written = settings.pop("set", {})
    chosen = {each.flag: each.name for each in OF_OWN_RECIPE if each.flag in given}
    _check_given_once(written, chosen)
    settings |= written
    model = {**model, "model": as_source(model["model"], MODELS)}
    model.setdefault("name", name_of(given["--model"]))
    if "weights" in model:
        model["weights"] = as_source(model["weights"], ())
    try:
        return OwnTraining(
            decode_spec(ModelSpec, model, where=WHERE),
            _dataset({**data, "source": source}, split="train"),
            None if validation is None else _dataset({**data, "source": validation}, split="test"),
            settings,
        )
    except SpecError as error:
        raise SpecError(in_training_options(str(error))) from error


def _dataset(written: dict[str, Any], *, split: str) -> DatasetSpec:
    source = written["source"]
    keys = {**written, "name": name_of(source), "source": as_source(source, DATASETS)}
    if source in DATASETS or source.startswith("torchvision:"):
        keys["split"] = split
    return decode_spec(DatasetSpec, keys, where=WHERE)


def _fields(options: Sequence[Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of options by field; a repeated KEY=VALUE makes a mapping."""
    found: dict[str, Any] = {}
    for option in options:
        if option.flag not in given:
            continue
        value = given[option.flag]
        if option.many:
            pairs = [option.parse(text) for text in value]
            keys = [key for key, _ in pairs]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise SpecError(f"{option.flag} {twice} is given twice")
            value = dict(pairs)
        found[option.name] = value
    return found


def in_training_options(message: str) -> str:
    """Returns an error message with the key path that it begins with replaced by its option."""
    found = re.match(rf"(?:{WHERE}|recipe): (?P<key>[\w.]+): ", message)
    if found is None:
        return message.removeprefix(f"{WHERE}: ")
    flags = {option.name: option.flag for option in OF_OWN} | {"objective": "--objective"}
    flag = flags.get(found["key"], f"--set {found['key']}" if "." in found["key"] else "")
    text = message[found.end() :].replace("Field required", "is missing")
    return f"{flag or found['key']}: {text}"


CHECKPOINTS = Path("checkpoints")
EVENTS = Path("tensorboard")  # in the output folder of a training


@app.command(
    cls=WithExamples,
    options_metavar="[OPTIONS] | --model SOURCE --dataset SOURCE --objective NAME [OPTIONS]",
    epilog=EPILOG,
)
@with_own_options
def train(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="Name of a model with a recipe; else give --model SOURCE."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, in place of the recipe's.")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Seeds of several trainings, such as 0,1,2 or 0-4, each in a folder seed-N.",
        ),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of trainings of --seeds at a time, each with one thread. "
            "[default: one after another, with all threads]",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(parser=path, help="TOML file of a recipe, in place of the model's own."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs, in place of the recipe's.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(parser=path, help="Folder for the weights. [default: checkpoints/MODEL]"),
    ] = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:1 or mps.")] = "cpu",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ignore the checkpoint and start again.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            parser=path, envvar=DATA_DIR, help="Folder of datasets that are not embedded."
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            parser=path, help="Folder for TensorBoard. [default: tensorboard in the output folder]"
        ),
    ] = None,
    no_tensorboard: Annotated[
        bool,
        typer.Option(
            "--no-tensorboard",
            help="Files for TensorBoard are written unless --no-tensorboard is given.",
        ),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Start TensorBoard during the training; print its address."),
    ] = False,
    **own: Any,
) -> None:
    """Train a model by its recipe, or your own model adversarially.

    An interrupted training continues from its checkpoint.
    """
    from gibbon.models.registry import OWN, TRAINERS, TrainingRequest

    given = {option.flag: own[own_name(option)] for option in OF_OWN}
    given = {flag: value for flag, value in given.items() if value is not None}
    if model is not None and given:
        raise SpecError(
            f"{next(iter(given))} is for your own model, in place of {model!r}: {EXAMPLE}"
        )
    if model is None and not given:
        raise SpecError(f"say which model to train: train MODEL, or {EXAMPLE}")
    yours = own_training(given) if given else None
    if yours is not None:
        values = {"--seed": seed, "--seeds": seeds, "--epochs": epochs}
        chosen = {flag: key for flag, key in COUNTS.items() if values[flag] is not None}
        _check_given_once(yours.settings, chosen)
    trained = OWN if yours is not None else str(model)
    name = str(model) if yours is None else yours.model.name
    trainer = TRAINERS.load(trained)
    if no_tensorboard and (tensorboard is not None or watch):
        raise SpecError(
            "--no-tensorboard excludes --tensorboard and --watch", where="--no-tensorboard"
        )

    from gibbon.cli.tensorboard_server import serving
    from gibbon.runner.device.choose_device import choose_device
    from gibbon.runner.run_progress.training_bar import seeds_bar, training_bar
    from gibbon.runner.train_seeds import parse_seeds, train_seeds

    request = TrainingRequest(
        output=output if output is not None else CHECKPOINTS / name,
        report=lambda progress: None,
        seed=seed,
        epochs=epochs,
        device=str(choose_device(device)),
        fresh=fresh,
        data_dir=data_dir,
        recipe=recipe,
        own=yours,
        tensorboard=None if no_tensorboard else _events_folder(tensorboard),
    )
    if seeds is None and parallel is not None:
        raise SpecError("there is one training without --seeds", where="--parallel")
    if seeds is not None and seed is not None:
        raise SpecError("--seed and --seeds exclude each other", where="--seeds")
    numbers = None if seeds is None else parse_seeds(seeds)
    events = tensorboard or (request.output if numbers else request.output / EVENTS)
    try:
        with serving(events) if watch else nullcontext():
            if numbers is None:
                with training_bar(name) as report:
                    results = [trainer(replace(request, report=report))]
            else:
                with seeds_bar(name, numbers) as report_seed:
                    results = train_seeds(
                        trained, request, seeds=numbers, parallel=parallel, report=report_seed
                    )
    except SpecError as error:
        raise SpecError(in_training_options(str(error)) if yours else str(error)) from error
    for result in results:
        say(f"{result.summary}\nweights: {result.weights}\ncard: {result.card}")
        for note in result.notes:
            say(f"note: {note}", err=True)


def _check_given_once(written: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    """Raises `SpecError` if a field of the recipe is given by an option and by ``--set``.

    Args:
        written: fields given by ``--set``.
        fields: the fields of the options that are given, by flag.
    """
    for flag, key in fields.items():
        if key in written:
            raise SpecError(f"excludes --set {key}", where=flag)


def _events_folder(given: Path | None) -> Path:
    return EVENTS if given is None else given.absolute()
