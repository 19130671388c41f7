"""The command line: ``run``, ``list``, ``train``, ``compare`` and ``baseline``.

Exit codes: 0 done; 1 a cell failed or a regression was found; 2 the request was wrong; 130
interrupted.  torch is imported only once a command needs it, so that ``--help`` and ``list`` answer
at once.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from benchmark.errors import RequestError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from benchmark.models import TrainingProgress
    from benchmark.records import RunRecord
    from benchmark.registry import Entry, Registry

DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130
RUNS = Path("results/runs")
CHECKPOINTS = Path("checkpoints")
DEFAULT_SUITE = "goodfellow2015"
QUIET_SECONDS = 15.0  # between two lines of progress where there is no terminal

app = typer.Typer(
    name="gibbon",
    help="Gibbon: how easily models are fooled, how sure they are when fooled, and how far "
    "examples made for one fool another.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Kind(StrEnum):
    """What can be listed."""

    MODELS = "models"
    ATTACKS = "attacks"
    DATASETS = "datasets"
    SUITES = "suites"


@app.command()
def run(
    suite: Annotated[
        str, typer.Argument(help="A shipped suite's name, or the path of a TOML file.")
    ] = DEFAULT_SUITE,
    output: Annotated[
        Path | None, typer.Option(help="Where results go. [default: results/runs/SUITE]")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Examples in one pass; changes no result.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Take a fixed sample of this many examples of each dataset."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute everything again.")] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar="GIBBON_DATA", help="Folder of datasets that are not embedded."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download no dataset.")] = False,
) -> None:
    """Run a suite: compute what is not recorded yet, write the files and print the tables."""
    from benchmark.specs import read_suite

    asked = read_suite(suite)
    folder = output if output is not None else RUNS / asked.name

    from benchmark.report import print_tables, write_report
    from benchmark.runner.plan import RunSettings
    from benchmark.runner.run import run_suite

    defaults = RunSettings()
    settings = RunSettings(
        device=device,
        batch_size=batch_size,
        limit=limit,
        fresh=fresh,
        data_folder=data_dir if data_dir is not None else defaults.data_folder,
        download=not offline,
    )
    with RunProgress(Console(stderr=True)) as progress:
        record = run_suite(
            asked, folder, settings=settings, where=suite, progress=progress, publish=write_report
        )
    print_tables(record, Console(), folder=folder)
    _tell_failures(record)
    raise typer.Exit(FAILED if record.failures else DONE)


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    long: Annotated[bool, typer.Option("--long", help="Print the cards too.")] = False,
) -> None:
    """List models, attacks, datasets or suites, a line each."""
    if kind is Kind.SUITES:
        from benchmark.specs import shipped_suites

        _print_lines(
            [(suite.name, suite.description or suite.title) for suite in shipped_suites().values()]
        )
        return
    entries = _registry(kind).entries()
    if not long:
        _print_lines([(entry.name, _summary(entry)) for entry in entries])
        return
    for entry in entries:
        try:
            details = entry.details()
        except RequestError as error:  # one card that is not there must not hide the others
            details = f"(no card: {error})"
        typer.echo(f"{entry.name}: {_summary(entry)}")
        typer.echo("".join(f"    {line}\n" for line in details.splitlines()))


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A model that has a recipe.")],
    seed: Annotated[int | None, typer.Option(min=0, help="Overrides the recipe's seed.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Overrides the recipe's.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where the weights go. [default: checkpoints/MODEL]")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "cpu",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ignore a checkpoint and restart.")
    ] = False,
) -> None:
    """Train a model by its recipe; an interrupted training goes on where it stopped."""
    from benchmark.models import TRAINERS, TrainingRequest

    trainer = TRAINERS.load(model)

    from benchmark.runner.plan import choose_device

    with _training_bar(model) as report:
        result = trainer(
            TrainingRequest(
                output=output if output is not None else CHECKPOINTS / model,
                report=report,
                seed=seed,
                epochs=epochs,
                device=str(choose_device(device)),
                fresh=fresh,
            )
        )
    typer.echo(f"{result.summary}\nweights: {result.weights}\ncard: {result.card}")


@app.command()
def compare(
    baseline: Annotated[Path, typer.Argument(help="A run's folder or a saved baseline.")],
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The new run's folder.")],
    max_increase: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Percentage points that are allowed. [default: 1.0]"),
    ] = None,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Level of significance.")] = 0.05,
    limits: Annotated[
        Path | None,
        typer.Option(help="TOML file of limits. [default: the one beside the baseline]"),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit report here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table here.")] = None,
) -> None:
    """Compare a run with a baseline; exit code 1 where it is significantly worse."""
    from benchmark import compare as gate
    from benchmark.baseline import read_side
    from benchmark.records import write_atomically
    from benchmark.report.summary import JOB_SUMMARY, append_summary
    from benchmark.report.terminal import print_table

    place = limits if limits is not None else gate.limits_beside(baseline)
    allowed = gate.read_limits(place) if place is not None else gate.Limits()
    if max_increase is not None:
        allowed = allowed.allowing(max_increase)
    comparison = gate.compare(
        read_side(baseline), read_side(run_folder), limits=allowed, alpha=alpha
    )
    text = gate.comparison_markdown(comparison)
    if markdown is not None:
        write_atomically(markdown, text)
    if junit is not None:
        gate.write_junit(comparison, junit)
    print_table(gate.comparison_table(comparison), Console())
    typer.echo(gate.conclusion(comparison))
    for sentence in gate.sentences(comparison):
        typer.echo(sentence, err=True)
    append_summary(text, os.environ.get(JOB_SUMMARY))
    raise typer.Exit(DONE if comparison.passed else FAILED)


baseline_app = typer.Typer(help="Save a run as a baseline that is small enough to be committed.")
app.add_typer(baseline_app, name="baseline", no_args_is_help=True)


@baseline_app.command("save")
def baseline_save(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    file: Annotated[Path, typer.Argument(help="Where the baseline goes, such as robust.json.")],
) -> None:
    """Save which examples a run got wrong: one bit an example and measure."""
    from benchmark.baseline import save_baseline

    saved = save_baseline(run_folder, file)
    typer.echo(f"{file}: {saved.measures} measures, {file.stat().st_size / 1000:.1f} kB")


def main() -> None:
    """Runs the command line; the way in for ``gibbon`` and ``run_benchmark.py``."""
    # Threads that wait in a loop take the core that another process would let them work on: on two
    # busy cores the default suite took 4.5 minutes with that, and 1.9 without.  Read once by torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except RequestError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(WRONG_REQUEST)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:  # what typer makes of Ctrl-C
            typer.echo(
                "interrupted; what was done is kept: run the same command again to go on", err=True
            )
        raise


class RunProgress:
    """Shows how far a run is: a bar in a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.console = console
        self.bar = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            speed_estimate_period=60.0,
        )
        self.task: TaskID | None = None
        self.check: TaskID | None = None
        self.work = self.done = 0
        self.began = self.told = time.monotonic()

    def __enter__(self) -> RunProgress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def note(self, text: str) -> None:
        """Prints what the user should know."""
        self.console.print(escape(text), highlight=False, soft_wrap=True)

    def checking(self, examples: int, *, of: int, dataset: str) -> None:
        """Moves a bar for the pictures that are looked at."""
        if self.check is None:
            self.check = self.bar.add_task(f"reading {dataset}", total=of)
        self.bar.update(self.check, advance=examples)
        if self.bar.tasks[self.bar.task_ids.index(self.check)].finished:
            self.bar.remove_task(self.check)
            self.check = None

    def start(self, *, work: int, cells: int, reused: int) -> None:
        """Says what there is to do."""
        self.work, self.began = work, time.monotonic()
        self.console.print(f"{cells} cells to compute, {reused} recorded already", highlight=False)
        if cells:
            self.task = self.bar.add_task("starting", total=work)

    def advance(self, work: int, *, doing: str) -> None:
        """Moves the bar, or writes a line if the last one was some time ago."""
        self.done += work
        if self.task is not None:
            self.bar.update(self.task, advance=work, description=doing)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.told > QUIET_SECONDS and self.done:
            self.told = now
            left = (now - self.began) * (self.work - self.done) / self.done
            self.console.print(
                f"{self.done / self.work:.0%} done, about {left:.0f} s left ({doing})",
                highlight=False,
            )

    def failed(self, cell: str, *, error: str) -> None:
        """Says at once that a cell failed."""
        self.console.print(f"[bold red]failed:[/] {escape(f'{cell}: {error}')}", soft_wrap=True)


@contextmanager
def _training_bar(model: str) -> Iterator[Callable[[TrainingProgress], None]]:
    console = Console(stderr=True)
    with RunProgress(console) as shown:
        started = False

        def report(progress: TrainingProgress) -> None:
            nonlocal started
            if not started:
                shown.work = progress.steps
                shown.task = shown.bar.add_task(f"training {model}", total=progress.steps)
                started = True
            doing = f"epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.4f}"
            shown.advance(progress.step - shown.done, doing=doing)

        yield report


def _registry(kind: Kind) -> Registry[object]:
    from benchmark.attacks import ATTACKS
    from benchmark.datasets import DATASETS
    from benchmark.models import MODELS

    registries: dict[Kind, Registry[object]] = {
        Kind.MODELS: MODELS,  # type: ignore[dict-item]
        Kind.ATTACKS: ATTACKS,  # type: ignore[dict-item]
        Kind.DATASETS: DATASETS,  # type: ignore[dict-item]
    }
    return registries[kind]


def _summary(entry: Entry[object]) -> str:
    ours = entry.origin in ("benchmark", "model_zoo", "gibbon-bench")
    return entry.summary if ours else f"{entry.summary} [{entry.origin}]"


def _print_lines(lines: list[tuple[str, str]]) -> None:
    width = max((len(name) for name, _ in lines), default=0)
    for name, summary in lines:
        typer.echo(f"{name:<{width}}  {summary}")


def _tell_failures(record: RunRecord) -> None:
    for failure in record.failures:
        typer.echo(
            f"failed: {failure.dataset}, {failure.model}, {failure.attack} at epsilon "
            f"{failure.epsilon}: {failure.error} (traceback in run.json)",
            err=True,
        )


if __name__ == "__main__":
    main()
