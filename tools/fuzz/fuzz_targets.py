"""Targets: what Gibbon reads of a folder, by the entry points of its commands."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NoReturn
from unittest import mock

import numpy as np
import torch
import typer.main
from torch import nn

from gibbon.cli import app
from gibbon.cli.defaults import DONE, FAILED, WRONG_REQUEST
from gibbon.cli.suite_writer import suite_toml
from gibbon.core.errors import RequestError
from gibbon.datasets import DataRequest
from gibbon.datasets.base import ArrayDataset
from gibbon.datasets.image_dataset import open_cache
from gibbon.datasets.open import open_dataset
from gibbon.models.sources.checkpoint import load_checkpoint
from gibbon.models.sources.wrap_module import adopt_model
from gibbon.records.acceptance import acceptances
from gibbon.records.run import Provenance, RunRecord
from gibbon.report import table_files, write_report
from gibbon.report.documents import write_figures
from gibbon.report.viewer.answers_json import (
    example_values,
    page_values,
    run_values,
    shown_input,
)
from gibbon.report.viewer.examples import RunExamples, parse_filters
from gibbon.report.viewer.inputs import InputStore, png
from gibbon.runner import merge_shards as merging
from gibbon.runner.counting import provenance
from gibbon.runner.merge_shards import merge_shards
from gibbon.runner.plan.make_plan import make_plan
from gibbon.runner.plan.planned import Supplied
from gibbon.runner.proofs.published_proofs import check_published_proofs, read_ids
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.runner.shards import restrict
from gibbon.specs.decoding import parse_suite, read_suite
from gibbon.specs.suite import DatasetSpec, ModelSpec, Suite
from gibbon_zoo.card import read_card
from gibbon_zoo.recipe import Recipe, read_recipe
from gibbon_zoo.training_checkpoint import read_training_checkpoint
from gibbon_zoo.zoo import publish
from tools.fuzz.judging import UnclearError

EXAMPLES, SHAPE, CLASSES = 12, (1, 4, 4), 3
SUITE_FILE, LIMITS_FILE, RECIPE_FILE, CARD_FILE = "suite.toml", "robust.toml", "r.toml", "card.json"
GOOD_BASELINE = "good.json"
CODE = "0" * 32  # of shards, in place of the digest of the code
NOWHERE = Provenance(
    gibbon="1", commit="", dirty=None, python="3", libraries={}, platform="", device="cpu",
    threads=1, batch_size=1, limit=None, started="",
)  # fmt: skip


@dataclass(frozen=True)
class FuzzTarget:
    """Files that are read, and how.

    Args:
        read: reads the folder of a case.
        mutable: suffixes of the files that are mutated.
        corpus: the folder of its corpus; named after the target if empty.
    """

    read: Callable[[Path], None]
    mutable: tuple[str, ...]
    corpus: str = ""


def command(*words: str | Path) -> None:
    """Runs a command of Gibbon in this process.

    Raises `UnclearError` if it ends with another exit code than those of its help, if a refusal is
    no sentence, or if it prints control characters; and whatever it ends with instead.
    """
    out, problems = io.StringIO(), io.StringIO()
    arguments = ["gibbon", *map(str, words)]
    code: Any = None
    with (
        mock.patch.object(sys, "argv", arguments),
        mock.patch.object(app, "_environment_sentence", _not_foreseen),
        mock.patch.object(app, "app", _parser()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(problems),
    ):
        try:
            app.main()
        except SystemExit as left:
            code = left.code
            if code == WRONG_REQUEST and isinstance(left.__context__, RequestError):
                refusal = left.__context__
                _check_text(problems.getvalue(), "refusal")
                raise refusal from refusal.__cause__
    said = problems.getvalue()
    if code not in (None, DONE, FAILED):
        raise UnclearError(f"exit code {code} with {said[:200]!r}")
    _check_text(said, "warnings")
    _check_text(out.getvalue(), "output")


@cache
def _parser() -> Callable[[], Any]:
    """Returns the command line, which takes longer to make than most commands take."""
    return typer.main.get_command(app.app)


def _not_foreseen(error: BaseException) -> NoReturn:
    """Replaces the last resort of the command line, which names no file and no cure."""
    raise error


def _check_text(text: str, what: str) -> None:
    bad = {sign for sign in text if not (sign.isprintable() or sign in "\n\u200b")}
    if bad:
        raise UnclearError(f"{what} with control characters: {sorted(map(repr, bad))}")


# Suites


@cache
def supplied() -> Supplied:
    """Returns a small dataset and two small models, by the names that the corpus uses."""
    random = np.random.default_rng(0)
    pixels = random.integers(40, 160, (EXAMPLES, *SHAPE), dtype=np.uint8)
    labels = np.arange(EXAMPLES) % CLASSES
    for example, label in enumerate(labels):
        pixels[example, 0, label] += 60
    data = ArrayDataset("squares", pixels, targets=labels, classes=("a", "b", "c"))
    models = {}
    for seed, name in enumerate(("one", "two")):
        module = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(CLASSES, 16, generator=generator)
        for row in range(CLASSES):
            weight[row, 4 * row : 4 * row + 4] += 2.0
        module.load_state_dict({"1.weight": weight, "1.bias": torch.zeros(CLASSES)})
        spec = ModelSpec(name=name, model=name)
        models[name] = replace(adopt_model(module, spec=spec, input_shape=SHAPE), rebuilds=False)
    return Supplied(models=models, datasets={"squares": data})


def settings() -> RunSettings:
    """Returns settings of small runs."""
    return RunSettings(device="cpu", batch_size=16, examination=False, decoders=0, download=False)


def read_suites(folder: Path) -> None:
    """Reads a suite and plans it as ``run`` does, and writes and reads it as a record and TOML."""
    path = folder / SUITE_FILE
    suite = read_suite(str(path))
    acceptances(suite.accept, where=str(path))
    plan = make_plan(suite, settings(), where=str(path), supplied=supplied())
    check_published_proofs(plan)
    with plan.pool:
        pass
    with _must_succeed("what was planned"):
        record = RunRecord(suite=suite, status="running", provenance=NOWHERE)
        record.write(folder)
        table_files(RunRecord.read(folder))
        parse_suite(suite_toml(suite, folder=folder), where="again.toml", folder=folder)


@contextlib.contextmanager
def _must_succeed(what: str) -> Iterator[None]:
    try:
        yield
    except RequestError as error:
        raise UnclearError(f"{what} can't be written and read again: {error}") from error


# Comparisons


def read_limits_file(folder: Path) -> None:
    """Compares two baselines under limits."""
    good = folder / GOOD_BASELINE
    command("compare", good, folder / "new.json", "--limits", folder / LIMITS_FILE)


def read_baselines(folder: Path) -> None:
    """Compares a baseline with a good one, both ways, and writes what ``compare`` may write."""
    file, good = folder / "baseline.json", folder / GOOD_BASELINE
    files = ("--junit", folder / "junit.xml", "--markdown", folder / "table.md")
    command("compare", file, good, *files)
    _check_text((folder / "table.md").read_text(), "table.md")
    command("compare", good, file, *files)


# Runs


def read_run_folders(folder: Path) -> None:
    """Reports, compares, audits or saves a run: one of the commands, chosen by what it holds."""
    run = folder / "run"
    words: list[tuple[str | Path, ...]] = [
        ("report", run, "--markdown"),
        ("report", run, "--latex"),
        ("report", run),
        ("compare", run, run),
        ("baseline", "save", run, folder / "saved.json", "--accept", "not-examined"),
        ("audit", run, "--suggest", folder / "better.toml"),
    ]
    held = [each for each in sorted(run.rglob("*")) if each.is_file() and not each.is_symlink()]
    digest = hashlib.sha256(b"".join(each.read_bytes() for each in held)).digest()
    command(*Random(digest).choice(words))  # noqa: S311  reproducible


def read_reports(folder: Path) -> None:
    """Draws the figures, tables and TensorBoard files of a run."""
    run = folder / "run"
    command("report", run)
    record = RunRecord.read(run)
    write_figures(record, run, folder / "figures")
    write_report(record, run)


def view_examples(folder: Path) -> None:
    """Shows the first and the last example of each cell of a run, as the viewer does."""
    run = folder / "run"
    examples, inputs = RunExamples(RunRecord.read(run), run), InputStore(run)
    json.dumps(run_values(examples), allow_nan=False)
    for row in examples.cells():
        cell = {"dataset": row.dataset, "model": row.model, "attack": row.attack}
        asked = {**cell, "epsilon": str(row.epsilon), "agreement": "any", "order": "nearest"}
        page = page_values(examples, inputs, asked)
        json.dumps(page, allow_nan=False)
        for each in page["rows"][:: max(1, len(page["rows"]) - 1)]:
            one = {**asked, "example": str(each["id"])}
            json.dumps(example_values(examples, inputs, one), allow_nan=False)
            shown = shown_input(examples, inputs, parse_filters(asked, examples), each["id"])
            for picture in (shown.pictures if shown is not None else None) or ():
                png(picture)


def resume_runs(folder: Path) -> None:
    """Runs the suite of a run's folder again, which finds what is damaged."""
    suite = resumed_suite()
    for repair in (False, True):
        again = replace(settings(), repair=repair, save_every=0.0)
        try:
            with mock.patch.object(provenance, "_commit", return_value=("", None)):
                record = run_suite(suite, folder / "run", settings=again, supplied=supplied())
        except RequestError:
            if repair:
                raise
            continue
        if record.status != "done":
            raise UnclearError(f"status {record.status}: {[each.text for each in record.failures]}")
        break


@cache
def resumed_suite() -> Suite:
    """Returns the suite of the corpus' run folders."""
    return Suite.model_validate(
        {
            "name": "fuzzed",
            "dataset": "squares",
            "models": ["one", "two"],
            "attacks": [{"name": "fgsm", "epsilon": "0.2"}],
            "transfer": {"attacks": ["fgsm"]},
        }
    )


def merge_runs(folder: Path) -> None:
    """Merges two shards of a run."""
    parts = [folder / "1", folder / "2"]
    with code_of_shards():
        record = merge_shards(parts, folder / "run", settings=settings(), supplied=supplied())
    if record.status != "done":
        raise UnclearError(f"status {record.status}: {[each.text for each in record.failures]}")


@contextlib.contextmanager
def code_of_shards() -> Iterator[None]:
    """Lets shards be of one version of Gibbon, whichever this is."""
    with contextlib.ExitStack() as stack:
        for each in (restrict, merging):
            stack.enter_context(mock.patch.object(each, "package_digest", return_value=CODE))
        stack.enter_context(mock.patch.object(provenance, "_commit", return_value=("", None)))
        yield


# Datasets


def read_class_maps(folder: Path) -> None:
    """Opens a folder of pictures with each class map, JSON and CSV."""
    for path in sorted(each for each in folder.iterdir() if each.name.startswith("map.")):
        _read_all(DatasetSpec(name="d", source=str(folder / "pictures"), class_map=str(path)))


def read_lists(folder: Path) -> None:
    """Opens the pictures of a CSV file, with the class map next to it if there is one."""
    place = folder / "map.json"
    spec = DatasetSpec(
        name="d",
        source=str(folder / "list.csv"),
        class_map=str(place) if place.exists() else None,
    )
    for order in (None, "text", "index"):
        _read_all(spec.model_copy(update={"class_order": order}))


def read_arrays(folder: Path) -> None:
    """Opens arrays, pictures and inputs with other bounds."""
    if (folder / "data.npz").exists():
        _read_all(DatasetSpec(name="d", source=str(folder / "data.npz"), layout="NCHW"))
    if (folder / "x.npy").exists():
        source, labels = str(folder / "x.npy"), str(folder / "y.npy")
        _read_all(DatasetSpec(name="d", source=source, labels=labels, bounds=(-4.0, 300.0)))


def read_pictures(folder: Path) -> None:
    """Opens a folder of damaged pictures, which may be left out."""
    spec = DatasetSpec(name="d", source=str(folder / "pictures"))
    for colour in (None, "rgb"):
        spec = spec.model_copy(update={"colour": colour})
        with contextlib.suppress(RequestError):
            _read_all(spec)
    data = open_dataset(spec, DataRequest(folder=folder, download=False, workers=0))
    ids = np.arange(len(data))
    bad = data.unreadable(ids, progress=lambda count: None)
    sound = np.array([each for each in ids.tolist() if each not in bad], dtype=np.int64)
    if len(sound):
        data.batch(sound)


def read_decode_caches(folder: Path) -> None:
    """Opens pictures with a cache of facts about them."""
    place = open_cache(folder, folder / "pictures").path
    place.parent.mkdir(parents=True, exist_ok=True)
    if (folder / "cache.json").exists() or (folder / "cache.json").is_symlink():
        (folder / "cache.json").rename(place)
    _read_all(DatasetSpec(name="d", source=str(folder / "pictures")), data=folder)


def _read_all(spec: DatasetSpec, *, data: Path | None = None) -> None:
    folder = data if data is not None else Path(spec.source).parent / "data"
    dataset = open_dataset(spec, DataRequest(folder=folder, download=False, workers=0))
    dataset.batch(np.arange(min(4, len(dataset)), dtype=np.int64))
    len(dataset.digest)
    RunRecord.model_validate_json(
        RunRecord(
            suite=Suite.model_validate({"name": "s", "dataset": "mnist", "models": ["rbf"]}),
            status="running",
            provenance=NOWHERE,
        ).model_dump_json()
    )


# The zoo


def read_recipes(folder: Path) -> None:
    """Reads a recipe as ``train --recipe`` does."""
    recipe = read_recipe(folder / RECIPE_FILE)
    Recipe.model_validate_json(recipe.override(seed=1, epochs=1).model_dump_json())


def read_cards(folder: Path) -> None:
    """Reads the card of trained weights, and publishes it."""
    read_card(folder / CARD_FILE).text()
    (folder / CARD_FILE).rename(folder / "softmax.json")
    publish("softmax", [folder], destination=folder, with_weights=False).text()


def read_training_checkpoints(folder: Path) -> None:
    """Reads the checkpoint of an interrupted training."""
    read_training_checkpoint(folder / "checkpoint.pt", read_recipe(folder / RECIPE_FILE))


def read_weights(folder: Path) -> None:
    """Copies weights of each format into a model."""
    for path in sorted(folder.iterdir()):
        load_checkpoint(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), path)


def read_proved_ids(folder: Path) -> None:
    """Reads the ids of examples that somebody proved robust."""
    read_ids(folder / "proved.txt")


TARGETS = {
    "suites": FuzzTarget(read_suites, (".toml",)),
    "limits": FuzzTarget(read_limits_file, (LIMITS_FILE,)),
    "baselines": FuzzTarget(read_baselines, ("baseline.json",)),
    "run-folders": FuzzTarget(read_run_folders, (".json", ".parquet", ".npz", ".csv")),
    "reports": FuzzTarget(read_reports, (".json", ".npz")),
    "viewed-examples": FuzzTarget(view_examples, (".json", ".parquet", ".npz"), "run-folders"),
    "resumed-runs": FuzzTarget(resume_runs, (".json", ".parquet"), "run-folders"),
    "shards": FuzzTarget(merge_runs, (".json", ".parquet", ".npz")),
    "class-maps": FuzzTarget(read_class_maps, ("map.json", "map.csv")),
    "lists": FuzzTarget(read_lists, ("list.csv",)),
    "arrays": FuzzTarget(read_arrays, (".npz", ".npy")),
    "pictures": FuzzTarget(read_pictures, (".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm")),
    "decode-caches": FuzzTarget(read_decode_caches, ("cache.json",)),
    "recipes": FuzzTarget(read_recipes, (".toml",)),
    "cards": FuzzTarget(read_cards, (".json",)),
    "training-checkpoints": FuzzTarget(read_training_checkpoints, (".pt",)),
    "weights": FuzzTarget(read_weights, (".pt", ".safetensors")),
    "proved-ids": FuzzTarget(read_proved_ids, (".txt",)),
}
