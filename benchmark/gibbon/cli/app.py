"""The command line: `evaluate`, `run`, `report`, `check`, `list`, `train`, `compare`, `baseline`.

Exit codes: 0 done; 1 a cell failed, a regression was found or an attack breaks a law; 2 the request
was wrong; 130 interrupted, 143 terminated.  torch is imported only once a command needs it,
so that ``--help`` and ``list`` answer at once.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperCommand

from gibbon.core.errors import RequestError
from gibbon.core.threat import Norm

if TYPE_CHECKING:
    from gibbon.core.registry import Entry, Registry
    from gibbon.records.run import RunRecord
    from gibbon.runner.settings import RunOptions
    from gibbon.specs.suite import Suite

DONE, FAILED, WRONG_REQUEST, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
RUNS = Path("results/runs")
CHECKPOINTS = Path("checkpoints")
DEFAULT_SUITE = "goodfellow2015"
DATA_DIR = "GIBBON_DATA"  # in the environment

app = typer.Typer(
    name="gibbon",
    help="Gibbon: how easily models are fooled, how sure they are when fooled, and how far "
    "examples made for one fool another.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Precision(StrEnum):
    """What models compute in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Kind(StrEnum):
    """What can be listed."""

    MODELS = "models"
    ATTACKS = "attacks"
    DATASETS = "datasets"
    SUITES = "suites"


class InOrder(TyperCommand):
    """A command that reads its words by itself, because their order says what belongs to what."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Leaves all words as they stand; ``--help`` is the one option that is everybody's."""
        super().parse_args(ctx, ["--help"] if "--help" in args else [])
        ctx.args = list(args)
        return args

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the options in groups."""
        from gibbon.cli.options import GROUPS, OPTIONS

        for group, what in GROUPS.items():
            with formatter.section(group):
                formatter.write_text(what)
                formatter.write_dl(
                    [
                        (f"{option.flag} {option.value}".rstrip(), option.help)
                        for option in OPTIONS
                        if option.group == group
                    ]
                )

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Writes examples."""
        from gibbon.cli.options import EXAMPLES

        with formatter.section("Examples"):
            formatter.write("\n".join(f"  {line}" if line else "" for line in EXAMPLES) + "\n")


class WithExamples(TyperCommand):
    """A command that is told what it is about first, with examples for an epilogue."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns the arguments, then the options."""
        options, *arguments = super().collect_usage_pieces(ctx)
        return [*arguments, options]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Writes examples."""
        with formatter.section("Examples"):
            lines = (self.epilog or "").splitlines()
            formatter.write("".join(f"  {line}\n" for line in lines))


@app.command(
    cls=InOrder,
    options_metavar="--model SOURCE --dataset SOURCE --attack NAME --epsilon E [OPTIONS]",
)
def evaluate(context: typer.Context) -> None:
    """Evaluate models on a dataset under attacks: a suite of one experiment, without a file.

    Prints the tables and writes the same files as `run`; running it again computes nothing.
    """
    from gibbon.cli.grammar import ask
    from gibbon.cli.suite_writer import results_folder, save_suite
    from gibbon.specs.naming import WHERE

    asked = ask(context.args)

    from gibbon.cli.parameters import check_parameters
    from gibbon.runner.plan.preprocessing import with_preprocessing

    def save() -> None:
        if asked.save_suite is not None:
            save_suite(suite, asked.save_suite)
            typer.echo(f"the suite is in {asked.save_suite}: run it with `run`", err=True)

    try:
        check_parameters(asked)
        suite, notes = with_preprocessing(asked.suite)
        for note in notes:
            typer.echo(note, err=True)
        folder = asked.run.output or results_folder(RUNS, suite, limit=asked.run.limit)
        _carry_out(suite, folder, asked.run, where=WHERE, ready=save)
    except RequestError as error:
        raise RequestError(asked.in_options(str(error))) from error


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
        str,
        typer.Option(
            metavar="auto|N",
            help="Examples in one pass; auto begins with a guess and halves it where memory runs "
            "out. Changes no result.",
        ),
    ] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="What models compute in.")
    ] = Precision.FLOAT32,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Send models through torch.compile.")
    ] = False,
    models_in_memory: Annotated[
        int | None,
        typer.Option(min=1, help="Models kept on the device at once. [default: what fits]"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Processes that read pictures. [default: by the number of processors]"
        ),
    ] = None,
    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable", help="Leave out pictures that can't be read, and say which."
        ),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Take a fixed sample of this many examples of each dataset."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute everything again.")] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar=DATA_DIR, help="Folder of datasets that are not embedded."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download no dataset.")] = False,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures/--no-pictures", help="Keep pictures of a few examples for the report."
        ),
    ] = True,
) -> None:
    """Run a suite: compute what is not recorded yet, write the files and print the tables."""
    from gibbon.cli.grammar import read_batch_size
    from gibbon.runner.settings import RunOptions
    from gibbon.specs.decoding import read_suite

    options = RunOptions(
        device=device,
        batch_size=read_batch_size(batch_size),
        precision=precision.value,
        compile=compile_,
        models_in_memory=models_in_memory,
        workers=workers,
        skip_unreadable=skip_unreadable,
        limit=limit,
        fresh=fresh,
        data_dir=data_dir,
        offline=offline,
        pictures=pictures,
    )
    asked = read_suite(suite)
    _carry_out(asked, output or RUNS / asked.name, options, where=suite)


def _carry_out(
    suite: Suite,
    folder: Path,
    options: RunOptions,
    *,
    where: str,
    ready: Callable[[], None] | None = None,
) -> NoReturn:
    """Runs a suite, prints its tables and ends with the exit code."""
    from gibbon.report import print_tables, write_report
    from gibbon.report.text.github_summary import run_markdown
    from gibbon.runner.progress_bar import RunProgress
    from gibbon.runner.run import run_suite
    from gibbon.runner.settings import RunSettings

    data_dir = options.data_dir or os.environ.get(DATA_DIR)
    settings = RunSettings(
        device=options.device,
        batch_size=options.batch_size,
        precision=options.precision,
        compile=options.compile,
        models_in_memory=options.models_in_memory,
        workers=options.workers,
        skip_unreadable=options.skip_unreadable,
        limit=options.limit,
        fresh=options.fresh,
        data_folder=Path(data_dir) if data_dir else RunSettings.data_folder,
        download=not options.offline,
        pictures=options.pictures,
    )
    with RunProgress(Console(stderr=True, emoji=False), ready=ready) as progress:
        record = run_suite(
            suite, folder, settings=settings, where=where, progress=progress, publish=write_report
        )
    print_tables(record, Console(), folder=folder)
    _tell_failures(record)
    _summarise(run_markdown(record))
    raise typer.Exit(FAILED if record.failures else DONE)


@app.command(
    cls=WithExamples,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="[--norm NORM] [--law LAW] [PARAMETERS]",
    epilog="""\
Your own attack:
    check attacks/mine.py:MyAttack
    check my_package.attacks:MyAttack --norm l2
With parameters of its own, and one law alone:
    check pgd --steps 10 --no-random-start --law optimum
An attack of another library:
    check foolbox:LinfPGD --steps 20 --rel-stepsize 0.1""",
)
def check(
    context: typer.Context,
    attack: Annotated[
        str,
        typer.Argument(
            metavar="ATTACK",
            help="path/to/mine.py:MyAttack, my_package:MyAttack, foolbox:LinfPGD, or a name of "
            "`list attacks`.",
        ),
    ],
    norm: Annotated[
        list[Norm] | None,
        typer.Option(help="A norm to try; may be repeated. [default: all that it claims]"),
    ] = None,
    law: Annotated[
        list[str] | None,
        typer.Option(metavar="LAW", help="A law to try; may be repeated. [default: all]"),
    ] = None,
) -> None:
    """Try an attack against the laws that every attack here keeps; exit code 1 if it breaks one.

    Small models are made for it; no data are needed.  Any other option is a parameter of the
    attack, such as --steps 20.
    """
    from gibbon.cli.grammar import read_parameters
    from gibbon.core.errors import SpecError

    if attack.startswith("--"):
        raise SpecError(f"say which attack first: check ATTACK {attack} ...")
    parameters = read_parameters(context.args)

    from gibbon.conformance import check_attack, verdict_table
    from gibbon.conformance import laws as conformance
    from gibbon.report.text.terminal import print_table
    from gibbon.runner.progress_bar import checking_bar

    laws = [conformance.law(name) for name in dict.fromkeys(law or ())] or conformance.LAWS
    with checking_bar() as progress:
        verdict = check_attack(
            attack, parameters=parameters, norms=norm or (), laws=laws, progress=progress
        )
    table = verdict_table(verdict)
    print_table(table, Console())
    for note in table.notes:
        typer.echo(note)
    raise typer.Exit(DONE if verdict.passed else FAILED)


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    long: Annotated[bool, typer.Option("--long", help="Print the cards too.")] = False,
) -> None:
    """List models, attacks, datasets or suites, a line each, and where else they may come from."""
    if kind is Kind.SUITES:
        from gibbon.specs.decoding import shipped_suites

        _print_lines(
            [(suite.name, suite.description or suite.title) for suite in shipped_suites().values()]
        )
        return
    entries = _registry(kind).entries()
    sources = [("", ""), *_sources(kind)]
    if not long:
        _print_lines([*((entry.name, _summary(entry)) for entry in entries), *sources])
        return
    for entry in entries:
        try:
            details = entry.details()
        except RequestError as error:  # one card that is not there must not hide the others
            details = f"(no card: {error})"
        typer.echo(f"{entry.name}: {_summary(entry)}")
        typer.echo("".join(f"    {line}\n" for line in details.splitlines()))
    _print_lines(sources[1:])


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
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar=DATA_DIR, help="Folder of datasets that are not embedded."),
    ] = None,
) -> None:
    """Train a model by its recipe; an interrupted training goes on where it stopped."""
    from gibbon.models.registry import TRAINERS, TrainingRequest

    trainer = TRAINERS.load(model)

    from gibbon.runner.plan.device import choose_device
    from gibbon.runner.progress_bar import training_bar

    with training_bar(model) as report:
        result = trainer(
            TrainingRequest(
                output=output if output is not None else CHECKPOINTS / model,
                report=report,
                seed=seed,
                epochs=epochs,
                device=str(choose_device(device)),
                fresh=fresh,
                data_dir=data_dir,
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
    from gibbon.core.files import write_atomically
    from gibbon.gate import compare as gate
    from gibbon.gate.baseline import read_side
    from gibbon.gate.comparison_text import (
        comparison_markdown,
        comparison_table,
        conclusion,
        sentences,
        write_junit,
    )
    from gibbon.gate.limits import Limits, limits_beside, read_limits
    from gibbon.report.text.terminal import print_table

    place = limits if limits is not None else limits_beside(baseline)
    allowed = read_limits(place) if place is not None else Limits()
    if max_increase is not None:
        allowed = allowed.allowing(max_increase)
    comparison = gate.compare(
        read_side(baseline),
        read_side(run_folder),
        limits=allowed,
        alpha=alpha,
        where=str(place or ""),
    )
    text = comparison_markdown(comparison)
    if markdown is not None:
        write_atomically(markdown, text)
    if junit is not None:
        write_junit(comparison, junit)
    print_table(comparison_table(comparison), Console())
    typer.echo(conclusion(comparison))
    for sentence in sentences(comparison):
        typer.echo(sentence, err=True)
    _summarise(text)
    raise typer.Exit(DONE if comparison.passed else FAILED)


@app.command()
def report(
    run_name: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's folder, or its name in results/runs.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Where it goes; - prints it. [default: RUN/report.html, .tex or .md]"),
    ] = None,
    latex: Annotated[
        bool, typer.Option("--latex", help="Write the tables as LaTeX, with booktabs.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Write them as markdown.")] = False,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write its figures there too, as SVG and PNG."),
    ] = None,
) -> None:
    """Write a run as one HTML page, or its tables as LaTeX or markdown.

    Made from what is stored: no model is loaded.  Exit code 1 where a cell of the run had failed.
    """
    from gibbon.core.errors import SpecError
    from gibbon.records.run import RunRecord
    from gibbon.report.documents import (
        Document,
        document,
        run_folder,
        write_document,
        write_figures,
    )

    if latex and markdown:
        raise SpecError("--latex and --markdown are two documents: ask for one at a time")
    kind = Document.LATEX if latex else Document.MARKDOWN if markdown else Document.HTML
    folder = run_folder(run_name, runs=RUNS)
    record = RunRecord.read(folder)
    text = document(record, folder, kind)
    if str(output) == "-":
        typer.echo(text, nl=False)
    else:
        file = output or folder / kind.file_name
        write_document(text, file)
        typer.echo(f"{file}: {len(text.encode()) / 1000:,.0f} kB")
    if figures is not None:
        written = write_figures(record, folder, figures)
        typer.echo(f"{figures}: {len(written)} files", err=str(output) == "-")
    _tell_failures(record)
    raise typer.Exit(FAILED if record.failures else DONE)


baseline_app = typer.Typer(help="Save a run as a baseline that is small enough to be committed.")
app.add_typer(baseline_app, name="baseline", no_args_is_help=True)


@baseline_app.command("save")
def baseline_save(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    file: Annotated[Path, typer.Argument(help="Where the baseline goes, such as robust.json.")],
) -> None:
    """Save which examples a run got wrong: one bit an example and measure."""
    from gibbon.gate.baseline import save_baseline

    saved = save_baseline(run_folder, file)
    typer.echo(f"{file}: {saved.measures} measures, {file.stat().st_size / 1000:.1f} kB")


def main() -> None:
    """Runs the command line; the way in for ``gibbon`` and ``run_benchmark.py``."""
    # Threads that wait in a loop take the core that another process would let them work on: on two
    # busy cores the default suite took 4.5 minutes with that, and 1.9 without.  Read once by torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _tell_warning
            app()
    except RequestError as error:
        # Without emoji: net.py:x:Net is no picture.
        console = Console(stderr=True, emoji=False)
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(WRONG_REQUEST)
    except Terminated:
        _tell_interrupted()
        sys.exit(TERMINATED)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:  # what typer makes of Ctrl-C
            _tell_interrupted()
        raise


class Terminated(BaseException):
    """The process was told to end: no failure of the cell it is in, and stops what it started.

    No `SystemExit`, which is what an attack or a model raises that ends the program by itself.
    """


def _terminate(*_: object) -> None:
    raise Terminated


def _tell_interrupted() -> None:
    typer.echo("interrupted; what was done is kept: run the same command again to go on", err=True)


def _registry(kind: Kind) -> Registry[object]:
    from gibbon.attacks import ATTACKS
    from gibbon.datasets import DATASETS
    from gibbon.models.registry import MODELS

    registries: dict[Kind, Registry[object]] = {
        Kind.MODELS: MODELS,  # type: ignore[dict-item]
        Kind.ATTACKS: ATTACKS,  # type: ignore[dict-item]
        Kind.DATASETS: DATASETS,  # type: ignore[dict-item]
    }
    return registries[kind]


def _sources(kind: Kind) -> list[tuple[str, str]]:
    """Returns where things of a kind may come from besides their registry, with a line each."""
    from gibbon.attacks.adapters import ATTACK_SOURCES
    from gibbon.datasets.open import KINDS
    from gibbon.models.sources import MODEL_SOURCES

    if kind is Kind.DATASETS:
        return [(each.example, each.title) for name, each in KINDS.items() if name != "registered"]
    registry: Registry[Any] = ATTACK_SOURCES if kind is Kind.ATTACKS else MODEL_SOURCES
    colon = ":NAME" if kind is Kind.ATTACKS else ""
    found = [
        (f"{entry.name}{colon}", _summary(entry) + ("" if entry.installed else " [not installed]"))
        for entry in registry.entries()
    ]
    if kind is Kind.MODELS:
        found.append(("ensemble", "several of these as one: ensemble:NAME,NAME"))
    return found


def _summary(entry: Entry[object]) -> str:
    ours = entry.origin in ("gibbon", "gibbon-bench")
    return entry.summary if ours else f"{entry.summary} [{entry.origin}]"


def _print_lines(lines: list[tuple[str, str]]) -> None:
    width = max((len(name) for name, _ in lines), default=0)
    for name, summary in lines:
        typer.echo(f"{name:<{width}}  {summary}".rstrip())


def _tell_warning(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"warning: {' '.join(str(message).split())}", err=True)


def _summarise(text: str) -> None:
    """Appends to the job summary, if there is one: what was found must not be lost for it."""
    from gibbon.report.text.github_summary import JOB_SUMMARY, append_summary

    try:
        append_summary(text, os.environ.get(JOB_SUMMARY))
    except RequestError as error:
        typer.echo(f"warning: {error}", err=True)


def _tell_failures(record: RunRecord) -> None:
    for failure in record.failures:
        typer.echo(
            f"failed: {failure.dataset}, {failure.model}, {failure.attack} at epsilon "
            f"{failure.epsilon}: {failure.error} (traceback in run.json)",
            err=True,
        )


if __name__ == "__main__":
    main()
