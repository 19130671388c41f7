"""The command `run`: a suite, a shard of it, or an estimate of what it takes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from gibbon.cli.arguments import RunOutput, accepted_kinds, chosen_settings, path, with_run_options
from gibbon.cli.defaults import DONE, FAILED, RUNS
from gibbon.cli.end_run import print_failures, run_and_print
from gibbon.cli.options import RUN_OPTIONS
from gibbon.cli.output import say
from gibbon.cli.shard_options import parsed_shard, shard_folder
from gibbon.cli.typer_apps import app
from gibbon.core.errors import SpecError
from gibbon.core.shard import Shard
from gibbon.records.stores import LocalStore, Store

if TYPE_CHECKING:
    from gibbon.runner.settings import RunSettings
    from gibbon.specs.suite import Suite


DEFAULT_SUITE = "goodfellow2015"


@app.command()
@with_run_options
def run(
    suite: Annotated[
        str,
        typer.Argument(metavar="SUITE", help="A shipped suite's name, or the path of a TOML file."),
    ] = DEFAULT_SUITE,
    output: RunOutput = None,
    trainings: Annotated[
        Path | None,
        typer.Option(
            parser=path,
            metavar="DIR",
            help="Folder with several trainings of models of the suite, "
            "DIR/MODEL/seed-N/MODEL.safetensors, such as checkpoints: all of them are measured in "
            "place of the shipped weights, and verdicts are about their mean and spread.",
        ),
    ] = None,
    shard: Annotated[
        Shard | None,
        typer.Option(
            parser=parsed_shard,
            metavar="I/N",
            help="Compute part I of N of the examples, without tables; `merge` joins the parts.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Estimate passes, time, memory and disk; nothing is computed or written.",
        ),
    ] = False,
    price: Annotated[
        float | None,
        typer.Option(min=0, help="With --dry-run: money that an hour of the machine costs."),
    ] = None,
    **settings: Any,
) -> None:
    """Run a suite and print its tables.

    Computes the cells that are not recorded yet and writes the files of the run.
    """
    from gibbon.records.acceptance import acceptances
    from gibbon.specs.decoding import read_suite
    from gibbon.specs.trainings import with_trainings

    strict = bool(settings.pop("strict"))
    on_call = accepted_kinds(settings.pop("accept"))
    loaded = read_suite(suite)
    if trainings is not None:
        loaded = with_trainings(loaded, trainings)
    chosen = chosen_settings(settings, RUN_OPTIONS)
    accepted = (*acceptances(loaded.accept, where=suite), *on_call)
    kinds = tuple(dict.fromkeys(each.kind for each in accepted))
    loaded = loaded.model_copy(update={"accept": kinds})
    default = RUNS / loaded.name
    if shard is not None:
        default = shard_folder(default, shard)
    store = output or LocalStore(default)
    if price is not None and not dry_run:
        raise SpecError("is for --dry-run", where="--price")
    if price is not None and not math.isfinite(price):
        raise SpecError(f"must be a finite number, got {price}", where="--price")
    if dry_run:
        from gibbon.cli.estimate_text import print_estimate

        with store.reading() as folder:
            print_estimate(loaded, folder, chosen, shard=shard, price=price, where=suite)
        raise typer.Exit(DONE)
    if shard is not None and strict:
        raise SpecError("flags are raised on all examples: give it to merge", where="--strict")
    if shard is not None:
        _run_shard(loaded, store, shard, chosen, where=suite)
    run_and_print(loaded, store, chosen, where=suite, strict=strict, accepted=accepted)


def _run_shard(
    suite: Suite, store: Store, shard: Shard, settings: RunSettings, *, where: str
) -> NoReturn:
    """Computes a shard of a suite, prints where it is, and ends with the exit code."""
    from gibbon.runner.run_progress.progress_bar import RunProgress
    from gibbon.runner.run_shard import run_shard

    with RunProgress(Console(stderr=True, emoji=False)) as bar, store.writing(bar.note) as folder:
        record = run_shard(suite, folder, shard=shard, settings=settings, where=where, progress=bar)
    print_failures(record)
    card = record.shard
    assert card is not None  # noqa: S101  for the type checker
    say(f"{store}: shard {shard} is finished ({card.examples()}); merge it with the others")
    raise typer.Exit(FAILED if record.failures else DONE)
