"""The command `sweep`: the outputs of models along the direction of an attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from gibbon.cli.arguments import path
from gibbon.cli.command_classes import WithExamples
from gibbon.cli.defaults import DONE, RUNS, environment_data_folder
from gibbon.cli.grammar import parse_request
from gibbon.cli.output import say
from gibbon.cli.typer_apps import app
from gibbon.core.errors import RunFolderError, SpecError
from gibbon.core.files import write_atomically
from gibbon.specs.decoding import WHERE

if TYPE_CHECKING:
    from gibbon.runner.settings import RunSettings
    from gibbon.specs.suite import Suite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gibbon.records.swept_outputs import SweepRecord, SweptExample, SweptOutputs
    from gibbon.runner.settings import RunSettings
    from gibbon.specs.suite import Suite

EPILOG = """\
Figure 4 of Goodfellow, Shlens and Szegedy (2015): logits from -10 to 10 along the gradient's sign:
    sweep --model maxout --dataset mnist --attack fgsm --epsilon 10
Several models, and a finer sweep on one side:
    sweep --model softmax --model rbf --dataset mnist --attack fgsm --epsilon 2 --from 0"""
DEFAULT_EXAMPLES: Final = 100
DEFAULT_POINTS: Final = 201
LOGITS_FILE, EXAMPLES_FILE = "logits.csv", "sweep.csv"
MOST_POINTS: Final = 10_001


@dataclass(frozen=True)
class SweepArguments:
    """The arguments of the command.

    Args:
        words: the options of `evaluate`.
        low: the lowest epsilon; minus the attack's epsilon if None.
        points: number of epsilons.
        shown: number of examples whose outputs are written.
        output: folder of the files.
    """

    words: Sequence[str]
    low: float | None
    points: int
    shown: int
    output: Path | None


def sweep_models(arguments: SweepArguments, *, data_folder: Path | None, runs: Path) -> None:
    """Measures, writes the files and prints the table."""
    from gibbon.records.swept_outputs import SWEEP_FILE, SweepRecord
    from gibbon.report.content.tables.sweep_table import sweep_table
    from gibbon.report.text.terminal import print_table
    from gibbon.runner.counting.provenance import now, provenance
    from gibbon.runner.plan.make_plan import make_plan
    from gibbon.runner.run_progress.progress_bar import checking_bar
    from gibbon.runner.sweep_outputs import sweep_outputs, swept_examples, swept_model

    suite, settings, epsilons = _request(arguments, data_folder)
    plan = make_plan(suite, settings, where=WHERE)
    origin = provenance(plan)
    with plan.pool, checking_bar() as bar:
        found = list(
            sweep_outputs(plan, epsilons, report=lambda done, of: bar("sweeping", done, of))
        )
    rows = [list(swept_examples(each)) for each in found]
    record = SweepRecord(
        provenance=origin.model_copy(update={"finished": now()}),
        models=tuple(swept_model(each, own) for each, own in zip(found, rows, strict=True)),
    )
    folder = arguments.output or runs / f"{suite.name}-sweep"
    try:
        _write(folder, record, found, rows, shown=arguments.shown)
    except OSError as error:
        raise RunFolderError(f"{folder}: can't be written: {error.strerror or error}") from error
    table = sweep_table(record.models)
    print_table(table, Console())
    for note in table.notes:
        say(note)
    say(f"{folder}: {SWEEP_FILE}, {EXAMPLES_FILE}, {LOGITS_FILE}, logits.svg, logits.png", err=True)


def _request(
    arguments: SweepArguments, data_folder: Path | None
) -> tuple[Suite, RunSettings, NDArray[np.float64]]:
    """Returns the suite, the settings and the epsilons of a sweep.  Raises `SpecError`."""
    from gibbon.cli.parameters import check_parameters
    from gibbon.runner.plan.preprocessing import with_preprocessing
    from gibbon.runner.sweep_outputs import MOST_EXAMPLES, epsilons_between

    if not 3 <= arguments.points <= MOST_POINTS:
        raise SpecError(f"3 to {MOST_POINTS:,} points, got {arguments.points}", where="--points")
    request = parse_request([*arguments.words, "--no-transfer"], data_folder=data_folder)
    check_parameters(request)
    suite, notes = with_preprocessing(request.suite)
    for note in notes:
        say(note, err=True)
    if suite.without_classes:
        raise SpecError("a sweep starts at inputs with a class", where="--dataset")
    attacks = suite.experiments[0].attacks
    budgets = [epsilon for attack in attacks for epsilon in attack.epsilon]
    if len(budgets) != 1:
        raise SpecError(
            f"a sweep goes to one epsilon, got {len(budgets)}: it has --points between the ends",
            where="--epsilon",
        )
    high = float(budgets[0])
    low = -high if arguments.low is None else arguments.low
    epsilons = epsilons_between(low, high, arguments.points)
    limit = request.settings.limit if request.settings.limit is not None else DEFAULT_EXAMPLES
    if limit > MOST_EXAMPLES:
        raise SpecError(f"at most {MOST_EXAMPLES:,} examples, got {limit:,}", where="--limit")
    return suite, replace(request.settings, limit=limit), epsilons


def _write(
    folder: Path,
    record: SweepRecord,
    found: Sequence[SweptOutputs],
    rows: Sequence[Sequence[SweptExample]],
    *,
    shown: int,
) -> None:
    """Writes the files of a sweep; outputs of the first ``shown`` examples.  Raises `OSError`."""
    from gibbon.records.swept_outputs import SWEEP_FILE, SweptExample, outputs_csv, sweep_text
    from gibbon.report.figures.output_lines import sweep_figure
    from gibbon.report.text.csv import csv_text

    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SWEEP_FILE, sweep_text(record))
    flat = [row for own in rows for row in own]
    write_atomically(folder / EXAMPLES_FILE, csv_text(SweptExample, flat))
    write_atomically(folder / LOGITS_FILE, outputs_csv(found, examples=shown))
    for suffix in (".svg", ".png"):
        write_atomically(folder / f"logits{suffix}", sweep_figure(found, suffix))


@app.command(
    "sweep",
    cls=WithExamples,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="--model SOURCE --dataset SOURCE --attack NAME --epsilon E [OPTIONS]",
    epilog=EPILOG,
)
def sweep_(
    context: typer.Context,
    low: Annotated[
        float | None,
        typer.Option("--from", metavar="E", help="Lowest epsilon. [default: minus --epsilon]"),
    ] = None,
    points: Annotated[int, typer.Option(help="Number of epsilons.")] = DEFAULT_POINTS,
    shown: Annotated[
        int, typer.Option("--logits-of", help="Number of examples whose outputs are written.")
    ] = 1,
    output: Annotated[
        Path | None,
        typer.Option(parser=path, help="Folder. [default: results/runs/DATASET-MODELS-sweep]"),
    ] = None,
) -> None:
    """Follow the outputs of models along the direction of an attack.

    Writes the outputs against epsilon (`logits.csv`, `logits.svg`), a row for each example
    (`sweep.csv`) and a summary (`sweep.json`): how straight the outputs are on each side of the
    input, where the first error is, and how much of the rest is misclassified. Other options are
    those of `evaluate`. Points are not clipped; 100 examples unless `--limit` says otherwise.
    """
    words = SweepArguments(tuple(context.args), low, points, shown, output)
    sweep_models(words, data_folder=environment_data_folder(), runs=RUNS)
    raise typer.Exit(DONE)
