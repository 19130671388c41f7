"""The command line: `evaluate`, `run`, `report`, `check`, `list`, `explain`, `train` and others.

Exit codes: 0 done; 1 a cell failed, a regression or a doubtful improvement was found, ``--strict``
met a serious flag, or an attack breaks a law; 2 the request was wrong; 3 shards to merge are
missing or not finished; 130 interrupted, 143 terminated, 129 hung up.  torch is imported only once
a command needs it, so that ``--help`` and ``list`` answer at once.
"""

from __future__ import annotations

import inspect
import os
import platform
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperCommand

from gibbon.cli.aliases import known_spelling
from gibbon.cli.audit_command import EPILOG as AUDIT_EXAMPLES
from gibbon.cli.exit_code import exit_code_protected
from gibbon.cli.grammar import parse_request, read_parameters
from gibbon.cli.init_command import EPILOG as INIT_EXAMPLES
from gibbon.cli.init_command import FILE as INIT_FILE
from gibbon.cli.init_command import OPTIONS as INIT_OPTIONS
from gibbon.cli.init_command import write_first_suite
from gibbon.cli.options import (
    BY_FLAG,
    EXAMPLES,
    GROUPS,
    MERGE_EXAMPLES,
    MERGE_OPTIONS,
    OF_OWN,
    RUN_OPTIONS,
    VERDICT_OPTIONS,
    Option,
    run_settings,
)
from gibbon.cli.output import say
from gibbon.cli.shard_words import parsed_shard, shard_folder
from gibbon.cli.sweep_command import DEFAULT_POINTS
from gibbon.cli.sweep_command import EPILOG as SWEEP_EXAMPLES
from gibbon.cli.train_command import EPILOG as TRAINING_EXAMPLES
from gibbon.cli.train_command import EXAMPLE, in_training_options, own_training
from gibbon.core.endings import ENDING, Terminated
from gibbon.core.errors import (
    FlagError,
    IncompleteError,
    RequestError,
    SpecError,
    UnknownNameError,
    suggest,
)
from gibbon.core.plain_text import shown, without_controls
from gibbon.core.reading import expanded, text_problem
from gibbon.core.registry import PACKAGE
from gibbon.core.shard import Shard
from gibbon.core.threat import Norm
from gibbon.records.stores import LocalStore, Store, is_url, open_store
from gibbon.specs.decoding import WHERE

if TYPE_CHECKING:
    from gibbon.core.registry import Entry, Registry
    from gibbon.records.acceptance import Acceptance
    from gibbon.records.run import RunRecord
    from gibbon.runner.progress import Progress
    from gibbon.runner.settings import RunSettings
    from gibbon.specs.suite import Suite

DONE, FAILED, WRONG_REQUEST, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130
BY_SIGNAL = 128  # plus the number of the signal: 143 for SIGTERM, 129 for SIGHUP
RUNS = Path("results/runs")
CHECKPOINTS = Path("checkpoints")
EVENTS = Path("tensorboard")  # in the output folder of a training
DEFAULT_SUITE = "goodfellow2015"
INTERRUPTION = "interrupted; what was done is kept: run the same command again to continue"
UNCHANGED = "no result has changed: tables, CSV files and TensorBoard folder are left as they are"
DATA_DIR = "GIBBON_DATA"  # in the environment
ACCEPT = "--accept"

app = typer.Typer(
    name="gibbon",
    help="Gibbon: how easily models are fooled, how sure they are when fooled, and how far "
    "examples made for one fool another.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


UNKNOWN = "ignore_unknown_options"  # of commands whose other options are read later


def _print_version(given: bool) -> None:
    if given:
        say(f"gibbon {version(PACKAGE)}, Python {platform.python_version()}{_torch_version()}")
        raise typer.Exit(DONE)


def _torch_version() -> str:
    try:
        return f", torch {version('torch')}"
    except PackageNotFoundError:
        return ""


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the versions of Gibbon, Python and torch.",
        ),
    ] = False,
) -> None:
    """Options of the command itself."""


class Kind(StrEnum):
    """Kinds of things that `list` prints."""

    MODELS = "models"
    ATTACKS = "attacks"
    DATASETS = "datasets"
    SUITES = "suites"


def listed_kind(text: str) -> Kind:
    """Returns the kind of that name.  Raises `typer.BadParameter` with the nearest name."""
    try:
        return Kind(text)
    except ValueError:
        raise typer.BadParameter(
            str(UnknownNameError("kind", text, known=map(str, Kind)))
        ) from None


class Command(TyperCommand):
    """A command that takes other spellings of its options, and lists them for an unknown one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the words after other spellings of options are replaced.

        Raises `SpecError` for an option that the command does not have.
        """
        known = [flag for each in self.params for flag in (*each.opts, *each.secondary_opts)]
        known = [flag for flag in known if flag.startswith("--")]
        words, left = [], list(args)
        while left:
            word = left.pop(0)
            flag, equals, value = word.partition("=")
            if word == "--" or not word.startswith("--"):
                words.append(word)
                continue
            meant = known_spelling(flag, known)
            if meant not in (*known, "--help") and not self.context_settings.get(UNKNOWN):
                raise SpecError(
                    f"No such option: {flag}{suggest(flag, known)} The options of {self.name}: "
                    f"{', '.join(known)}"
                )
            words.append(f"{meant}{equals}{value}")
        return super().parse_args(ctx, words)


class WithExamples(Command):
    """A command whose usage names the arguments first and whose epilogue holds examples."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns the arguments, then the options."""
        options, *arguments = super().collect_usage_pieces(ctx)
        return [*arguments, options]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Writes examples."""
        with formatter.section("Examples"):
            lines = (self.epilog or "").splitlines()
            formatter.write("".join(f"  {line}\n" for line in lines))


class OrderedCommand(WithExamples):
    """A command that gets its words unparsed, because their order says which belong together."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Leaves all words to the command, except ``--help``."""
        TyperCommand.parse_args(self, ctx, ["--help"] if "--help" in args else [])
        ctx.args = list(args)
        return args

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the options in groups."""
        for group, (text, options) in GROUPS.items():
            with formatter.section(group):
                formatter.write_text(text)
                formatter.write_dl([(each.usage, each.full_help) for each in options])


def parsed_norm(text: str) -> Norm:
    """Returns the norm of a name or another spelling of it.  Raises `typer.BadParameter`."""
    try:
        return Norm(text)
    except ValueError:
        raise typer.BadParameter(f"expected {', '.join(Norm)}, got {text!r}") from None


def path(text: str) -> Path:
    """Returns a path given on the command line; an empty one would be the current folder.

    A shell leaves the ``~`` of ``--output=~/runs`` as it is.
    """
    if not text.strip():
        raise typer.BadParameter(f"expected a path, got {text!r}")
    if is_url(text):
        found = open_store(text)
        if not isinstance(found, LocalStore):
            raise typer.BadParameter(f"expected a path of this machine, got the URL {text!r}")
        return found.path
    return expanded(text, SpecError)


def place(text: str) -> Store:
    """Returns the store of a path or URL given on the command line."""
    return open_store(text) if is_url(text) else LocalStore(path(text))


RunOutput = Annotated[
    Store | None,
    typer.Option(
        parser=place,
        metavar="DIR",
        help="Folder for the results, or its URL, such as s3://bucket/run. "
        "[default: results/runs/SUITE]",
    ),
]


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the keyword arguments of a command by the run settings of the option table."""
    options = {option.name: option for option in (*RUN_OPTIONS, *VERDICT_OPTIONS)}
    return _with_parameters(command, options)


def with_merge_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the keyword arguments of a command by the settings that concern this machine."""
    options = {option.name: option for option in (*MERGE_OPTIONS, *VERDICT_OPTIONS)}
    return _with_parameters(command, options)


def with_own_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the keyword arguments of a command by the options of a user's own model."""
    return _with_parameters(command, {own_name(option): option for option in OF_OWN})


def with_init_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the keyword arguments of a command by options of a model and data, as texts."""
    options = {own_name(each): replace(each, read=str, many=False) for each in INIT_OPTIONS}
    return _with_parameters(command, options)


def own_name(option: Option) -> str:
    """Returns the argument of `train` that an option of a user's own model is passed as."""
    return f"own{option.flag[1:]}".replace("-", "_")


def _with_parameters(
    command: Callable[..., None], options: Mapping[str, Option]
) -> Callable[..., None]:
    signature = inspect.signature(command, eval_str=True)
    parameters = [
        *(each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD),
        *(_parameter(name, option) for name, option in options.items()),
    ]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _parameter(name: str, option: Option) -> inspect.Parameter:
    """Returns an option as a parameter that typer reads; None if it is not given."""
    annotation: Any = bool | None
    keys: dict[str, Any] = {}
    flags = [option.flag, *([option.formerly] if option.formerly else [])]
    if option.many:
        annotation, keys = list[str] | None, {"metavar": option.value}
    elif option.value:
        annotation, keys = Any, {"metavar": option.value, "parser": option.parse}
    elif option.negative:
        flags = [f"{option.flag.replace('--no-', '--')}/{option.flag}"]
    annotation = Annotated[annotation, typer.Option(*flags, help=option.full_help, **keys)]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=None, annotation=annotation)


@app.command(
    cls=OrderedCommand,
    options_metavar="--model SOURCE --dataset SOURCE [--attack NAME --epsilon E] [OPTIONS]",
    epilog=EXAMPLES,
)
def evaluate(context: typer.Context) -> None:
    """Evaluate models on a dataset under attacks.

    The request is a suite of one experiment, without a file: the tables and files are those of
    `run`, and an interrupted evaluation continues if it is run again.  Without --attack, FGSM, PGD
    and a short worst case are run at the customary budget, on at most 1,000 examples.
    """
    request = parse_request(context.args, data_folder=_data_folder(), customary=True)
    for note in request.notes:
        say(note, err=True)

    from gibbon.cli.parameters import check_parameters
    from gibbon.cli.suite_writer import results_folder, save_suite
    from gibbon.runner.plan.preprocessing import with_preprocessing

    def save() -> None:
        if request.save_suite is not None:
            save_suite(suite, request.save_suite)
            say(f"the suite is in {request.save_suite}: run it with `run`", err=True)

    try:
        check_parameters(request)
        suite, notes = with_preprocessing(request.suite)
        for note in notes:
            say(note, err=True)
        limit = request.settings.limit
        _run(
            suite,
            request.output or LocalStore(results_folder(RUNS, suite, limit=limit)),
            request.settings,
            where=WHERE,
            ready=save,
            strict=request.strict,
            accepted=_accepted(list(suite.accept)),
        )
    except RequestError as error:
        raise RequestError(request.in_options(str(error))) from error


@app.command(cls=WithExamples, epilog=INIT_EXAMPLES)
@with_init_options
def init(
    file: Annotated[
        Path | None,
        typer.Argument(parser=path, metavar="FILE", help=f"File to write. [default: {INIT_FILE}]"),
    ] = None,
    **own: Any,
) -> None:
    """Write a commented suite for your model and data.

    Prompts for the model, its weights and the data unless they are given.  The suite runs as it is:
    FGSM, PGD and a short worst case at the customary budget.  Nothing is overwritten.
    """
    given = {option.flag: own[own_name(option)] for option in INIT_OPTIONS}
    texts = {flag: "" if text is True else text for flag, text in given.items() if text is not None}
    say(write_first_suite(file or Path(INIT_FILE), texts))


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
    on_call = _accepted(settings.pop("accept"))
    loaded = read_suite(suite)
    if trainings is not None:
        loaded = with_trainings(loaded, trainings)
    chosen = _chosen(settings, RUN_OPTIONS)
    accepted = (*acceptances(loaded.accept, where=suite), *on_call)
    kinds = tuple(dict.fromkeys(each.kind for each in accepted))
    loaded = loaded.model_copy(update={"accept": kinds})
    default = RUNS / loaded.name
    if shard is not None:
        default = shard_folder(default, shard)
    store = output or LocalStore(default)
    if price is not None and not dry_run:
        raise SpecError("is for --dry-run", where="--price")
    if dry_run:
        from gibbon.cli.estimate_text import print_estimate

        with store.reading() as folder:
            print_estimate(loaded, folder, chosen, shard=shard, price=price, where=suite)
        raise typer.Exit(DONE)
    if shard is not None:
        _run_shard(loaded, store, shard, chosen, where=suite)
    _run(loaded, store, chosen, where=suite, strict=strict, accepted=accepted)


def _run_shard(
    suite: Suite, store: Store, shard: Shard, settings: RunSettings, *, where: str
) -> NoReturn:
    """Computes a shard of a suite, prints where it is, and ends with the exit code."""
    from gibbon.runner.progress_bar import RunProgress
    from gibbon.runner.run_shard import run_shard

    with RunProgress(Console(stderr=True, emoji=False)) as bar, store.writing(bar.note) as folder:
        record = run_shard(suite, folder, shard=shard, settings=settings, where=where, progress=bar)
    _print_failures(record)
    card = record.shard
    assert card is not None  # noqa: S101  for the type checker
    say(f"{store}: shard {shard} is finished ({card.examples()}); merge it with the others")
    raise typer.Exit(FAILED if record.failures else DONE)


@app.command(cls=WithExamples, epilog=MERGE_EXAMPLES)
@with_merge_options
def merge(
    folders: Annotated[
        list[Store],
        typer.Argument(
            parser=place, metavar="DIR...", help="Folders of all shards of one run, or their URLs."
        ),
    ],
    output: RunOutput = None,
    **settings: Any,
) -> None:
    """Merge the shards of a run and print its tables.

    Writes the files of the whole run.  Nothing is written, and the exit code is 3, as long as
    shards are missing or not finished; run the command again once they are there.
    """
    from gibbon.runner.merge_shards import merge_shards
    from gibbon.runner.progress_bar import RunProgress
    from gibbon.runner.shards.read_shards import read_shards

    strict = bool(settings.pop("strict"))
    on_call = _accepted(settings.pop("accept"))
    chosen = _chosen(settings, MERGE_OPTIONS)
    from gibbon.records.acceptance import acceptances

    with ExitStack() as stack:
        shards = [stack.enter_context(each.reading()) for each in folders]
        suite = read_shards(shards).first.record.suite
        store = output or LocalStore(RUNS / suite.name)
        accepted = (*acceptances(suite.accept, where=str(folders[0])), *on_call)
        bar = stack.enter_context(RunProgress(Console(stderr=True, emoji=False)))
        folder = stack.enter_context(store.writing(bar.note))
        record = merge_shards(
            shards,
            folder,
            settings=chosen,
            accept=[each.kind for each in on_call],
            progress=bar,
            publish=_publisher(bar),
        )
    _end_run(record, store, strict=strict, accepted=accepted)


@contextmanager
def _stored_run(word: str) -> Iterator[Path]:
    """Gives the folder of a run, given its path, its URL, or its name in the folder of runs."""
    from gibbon.report.documents import run_folder

    store = open_store(word) if is_url(word) else None
    if store is None:
        yield run_folder(word, runs=RUNS)
        return
    with store.reading() as folder:
        yield run_folder(str(folder), runs=RUNS)


def _accepted(texts: list[str] | None) -> tuple[Acceptance, ...]:
    """Returns the acceptances of ``--accept``.  Raises `SpecError` for an unknown kind."""
    from gibbon.records.acceptance import acceptances

    kinds = [kind for text in texts or () for kind in BY_FLAG[ACCEPT].parse(text)]
    return acceptances(kinds, where=ACCEPT)


def _chosen(settings: Mapping[str, Any], options: Iterable[Option]) -> RunSettings:
    """Returns the run settings of the options that were given."""
    given = {
        each.name: settings[each.name] if each.value or each.negative else each.constant
        for each in options
        if settings[each.name] is not None
    }
    return run_settings(given, data_folder=_data_folder())


def _data_folder() -> Path | None:
    """Returns the folder of datasets that the environment names, if it does."""
    return expanded(os.environ[DATA_DIR], SpecError) if os.environ.get(DATA_DIR) else None


def _run(
    suite: Suite,
    store: Store,
    settings: RunSettings,
    *,
    where: str,
    ready: Callable[[], None] | None = None,
    strict: bool = False,
    accepted: tuple[Acceptance, ...] = (),
) -> NoReturn:
    """Runs a suite, prints its tables and ends with the exit code.

    ``accepted`` holds the kinds of flags that the suite accepts and the places where it says so.
    """
    from gibbon.runner.progress_bar import RunProgress
    from gibbon.runner.run_suite import run_suite

    with (
        RunProgress(Console(stderr=True, emoji=False), ready=ready) as bar,
        store.writing(bar.note) as folder,
    ):
        record = run_suite(
            suite,
            folder,
            settings=settings,
            where=where,
            progress=bar,
            publish=_publisher(bar),
        )
    _end_run(record, store, strict=strict, accepted=accepted)


def _publisher(progress: Progress) -> Callable[[RunRecord, Path], None]:
    """Returns a function that writes the report of a record, and notes if nothing has changed."""
    from gibbon.report import write_report

    def publish(record: RunRecord, folder: Path) -> None:
        if not write_report(record, folder):
            progress.note(UNCHANGED)

    return publish


def _end_run(
    record: RunRecord, store: Store, *, strict: bool, accepted: tuple[Acceptance, ...]
) -> NoReturn:
    """Prints the tables of a run and ends with the exit code; see `_run`."""
    from gibbon.gate.flag_text import serious_flags_text
    from gibbon.records.acceptance import acceptance_text
    from gibbon.report import TABLES_FILE, print_tables
    from gibbon.report.text.github_summary import run_markdown
    from gibbon.report.text.terminal import print_places

    _print_failures(record)
    # Flags come last, and stay in sight.
    print_tables(record, Console(), place=str(store.child(TABLES_FILE)))
    for acceptance in accepted:
        covered = [flag for flag in record.flags if flag.kind == acceptance.kind]
        say(acceptance_text(acceptance, covered), err=True)
    serious = [flag for flag in record.flags if flag.counts] if strict else []
    if serious:
        say(serious_flags_text(serious), err=True)
    local = store.path if isinstance(store, LocalStore) else None
    print_places(str(store), Console(), folder=local)
    failed = bool(record.failures or serious)
    _append_summary(run_markdown(record, failed=failed))
    raise typer.Exit(FAILED if failed else DONE)


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
        typer.Option(
            parser=parsed_norm,
            metavar="NORM",
            help="Norm to check: linf, l2 or l1; may be repeated. [default: all of the attack]",
        ),
    ] = None,
    law: Annotated[
        list[str] | None,
        typer.Option(metavar="LAW", help="Law to check; may be repeated. [default: all]"),
    ] = None,
) -> None:
    """Check an attack against the laws of attacks.

    The laws are those that every attack of Gibbon keeps, tried on small models without data; exit
    code 1 if the attack breaks one.  Any other option is a parameter of the attack, such as
    --steps 20.
    """
    if attack.startswith("--"):
        raise SpecError(f"say which attack first: check ATTACK {attack} ...")
    parameters = read_parameters(context.args)

    from gibbon.conformance import check_attack, verdict_table
    from gibbon.conformance import laws as conformance
    from gibbon.report.text.terminal import print_table
    from gibbon.runner.progress_bar import checking_bar

    laws = [conformance.law(name) for name in dict.fromkeys(law or ())] or conformance.LAWS
    with checking_bar() as bar:
        norms = norm or ()
        verdict = check_attack(attack, parameters=parameters, norms=norms, laws=laws, progress=bar)
    table = verdict_table(verdict)
    print_table(table, Console())
    for note in table.notes:
        say(note)
    raise typer.Exit(DONE if verdict.passed else FAILED)


@app.command(
    cls=WithExamples,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="[--suggest FILE | --unit-test [--suite SUITE] [OPTIONS OF evaluate]]",
    epilog=AUDIT_EXAMPLES,
)
def audit(
    context: typer.Context,
    subject: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Folder of a run, or its name in results/runs; a model with --unit-test.",
        ),
    ],
    unit_test: Annotated[
        bool, typer.Option("--unit-test", help="Test attacks on planted adversarial examples.")
    ] = False,
    suite: Annotated[
        str | None,
        typer.Option(help="Suite whose attacks are tested, in place of --dataset and --attack."),
    ] = None,
    suggest: Annotated[
        Path | None,
        typer.Option(parser=path, help="File for the suite with the attacks that are missing."),
    ] = None,
) -> None:
    """Audit a run, or test attacks on planted examples.

    Exit code 1 if evidence speaks against the figures of the run, or an attack misses more than
    5 % of the adversarial examples that are known to be there.
    """
    from gibbon.cli.audit_command import AuditWords, audit_model, audit_run

    words = AuditWords(subject, unit_test, suggest, suite, tuple(context.args))
    if unit_test:
        passed = audit_model(words, _data_folder())
    else:
        with _stored_run(subject) as folder:
            passed = audit_run(words, folder)
    raise typer.Exit(DONE if passed else FAILED)


@app.command(
    "sweep",
    cls=WithExamples,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="--model SOURCE --dataset SOURCE --attack NAME --epsilon E [OPTIONS]",
    epilog=SWEEP_EXAMPLES,
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
    from gibbon.cli.sweep_command import SweepWords, sweep_models

    words = SweepWords(tuple(context.args), low, points, shown, output)
    sweep_models(words, data_folder=_data_folder(), runs=RUNS)
    raise typer.Exit(DONE)


@app.command("list")
def list_(
    kind: Annotated[
        Kind,
        typer.Argument(parser=listed_kind, metavar="KIND", help="Kind of things to list."),
    ],
    long: Annotated[bool, typer.Option("--long", help="Print cards as well.")] = False,
) -> None:
    """List models, attacks, datasets or suites.

    Prints one line for each, and for each other source that they may come from.
    """
    if kind is Kind.SUITES:
        from gibbon.specs.decoding import shipped_suites

        suites = shipped_suites().values()
        _print_lines([(suite.name, suite.description or suite.title) for suite in suites])
        return
    entries = _registry(kind).entries()
    sources = [("", ""), *_sources(kind)]
    if not long:
        _print_lines([*((entry.name, _summary(entry)) for entry in entries), *sources])
        return
    for entry in entries:
        try:
            details = _attack_card(entry) if kind is Kind.ATTACKS else entry.details()
        except RequestError as error:  # a missing card must not hide the others
            details = f"(no card: {error})"
        say(f"{entry.name}: {_summary(entry)}")
        say("".join(f"    {line}\n" for line in details.splitlines()))
    _print_lines(sources[1:])


@app.command()
def explain(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="Kind of flag, such as zero-gradient.")
    ] = None,
) -> None:
    """Explain a kind of flag.

    Prints what was seen, why it matters, and what to do.  Without a kind, lists all kinds with
    their severity.
    """
    from gibbon.records.flag_kinds import KINDS, MEANINGS, SEVERITIES, flag_page

    if kind is not None:
        typer.echo(flag_page(kind), nl=False)
        return
    for severity in SEVERITIES:
        kinds = [each for each in KINDS.values() if each.severity == severity]
        say(f"{severity}: {MEANINGS[severity]}")
        _print_lines([(f"  {each.name}", each.title) for each in kinds])
    say("gibbon explain KIND prints the page of a kind.")


@app.command(
    cls=WithExamples,
    options_metavar="[OPTIONS] | --model SOURCE --dataset SOURCE --objective NAME [OPTIONS]",
    epilog=TRAINING_EXAMPLES,
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
    trained = OWN if yours is not None else str(model)
    name = str(model) if yours is None else yours.model.name
    trainer = TRAINERS.load(trained)
    if no_tensorboard and (tensorboard is not None or watch):
        raise SpecError(
            "--no-tensorboard excludes --tensorboard and --watch", where="--no-tensorboard"
        )

    from gibbon.cli.tensorboard_server import serving
    from gibbon.runner.plan.device import choose_device
    from gibbon.runner.train_seeds import parse_seeds, train_seeds
    from gibbon.runner.training_bar import seeds_bar, training_bar

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


def _events_folder(given: Path | None) -> Path:
    return EVENTS if given is None else given.absolute()


@app.command()
def compare(
    baseline: Annotated[
        Store,
        typer.Argument(
            parser=place, metavar="BASELINE", help="Folder of a run, or a saved baseline, or a URL."
        ),
    ],
    run_folder: Annotated[
        Store,
        typer.Argument(parser=place, metavar="RUN", help="Folder of the new run, or its URL."),
    ],
    max_increase: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Allowed increase in percentage points. [default: 1.0]"),
    ] = None,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Significance level.")] = 0.05,
    limits: Annotated[
        Path | None,
        typer.Option(
            parser=path, help="TOML file of limits. [default: the file next to the baseline]"
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(parser=path, help="File for a JUnit report.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(parser=path, help="File for the table in markdown.")
    ] = None,
    accept: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help=BY_FLAG[ACCEPT].help)
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Fail if too few examples could show an increase."),
    ] = False,
) -> None:
    """Compare a run with a baseline.

    Exit code 1 if the run is significantly worse, or if it is not, but has a serious flag that the
    baseline has not; with --strict also if the examples are too few to show the allowed increase.
    """
    from gibbon.core.files import write_atomically
    from gibbon.gate import compare as gate
    from gibbon.gate import comparison_text
    from gibbon.gate.junit import write_junit
    from gibbon.gate.limits import Limits, default_limits, read_limits
    from gibbon.report.text.terminal import print_table

    with baseline.reading() as before, run_folder.reading() as run:
        found = limits if limits is not None else default_limits(before)
        allowed = read_limits(found) if found is not None else Limits()
        if max_increase is not None:
            allowed = allowed.allowing(max_increase)
        comparison = gate.compare(
            before,
            run,
            limits=allowed,
            alpha=alpha,
            where=str(found or ""),
            accept=_accepted(accept),
        )
    text = comparison_text.comparison_markdown(comparison)
    if markdown is not None:
        write_atomically(markdown, text)
    if junit is not None:
        write_junit(comparison, junit)
    print_table(comparison_text.comparison_table(comparison), Console())
    say(comparison_text.conclusion(comparison))
    notes = [*comparison_text.sentences(comparison), *comparison_text.flag_notes(comparison)]
    for line in notes:
        say(line, err=True)
    _append_summary(text)
    shown = not (strict and comparison.inconclusive)
    raise typer.Exit(DONE if comparison.passed and shown else FAILED)


@app.command()
def report(
    run_name: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="Folder of a run, its URL, or its name in results/runs."
        ),
    ],
    output: Annotated[
        Store | None,
        typer.Option(
            parser=place,
            metavar="FILE",
            help="File to write, or its URL; - prints it. [default: RUN/report.html, .tex or .md; "
            "main.tex]",
        ),
    ] = None,
    latex: Annotated[bool, typer.Option("--latex", help="Write tables as LaTeX.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Write tables as markdown.")] = False,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="With --latex: all (every table), or main, one table of models by attacks, best "
            "in bold, for a paper. [default: all]",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Columns of --table main: clean, robust-accuracy, worst-case, adversarial-error, "
            "success-rate, confidence. [default: the first three]",
        ),
    ] = None,
    models: Annotated[
        str | None, typer.Option(metavar="LIST", help="Models of --table main. [default: all]")
    ] = None,
    attacks: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Attacks of --table main, such as fgsm,pgd@8/255. [default: all, each at its "
            "largest epsilon]",
        ),
    ] = None,
    figures: Annotated[
        Store | None,
        typer.Option(
            parser=place, metavar="DIR", help="Folder for the figures as SVG and PNG, or its URL."
        ),
    ] = None,
) -> None:
    """Write a run as HTML, LaTeX or markdown.

    Everything comes from the stored run; no model is loaded.  Exit code 1 if a cell of the run
    failed.
    """
    from gibbon.records.consistency import of_one_record
    from gibbon.records.run import RunRecord
    from gibbon.report import documents
    from gibbon.report.content.missing import missing_outcomes
    from gibbon.report.content.opening import opening

    if latex and markdown:
        raise SpecError("--latex and --markdown are two documents: give one of them")
    kinds = documents.Document
    kind = kinds.LATEX if latex else kinds.MARKDOWN if markdown else kinds.HTML
    choice = documents.main_choice(table, columns, models, attacks, latex=latex)

    @of_one_record
    def document(folder: Path) -> tuple[RunRecord, str]:
        record = RunRecord.read(folder)
        if choice is not None:
            return record, documents.main_document(record, choice)
        return record, documents.document(record, folder, kind)

    printed = str(output) == "-"
    with _stored_run(run_name) as folder:
        record, text = document(folder)
        if printed:
            typer.echo(text, nl=False)
        else:
            run_store = open_store(run_name) if is_url(run_name) else LocalStore(folder)
            name = kind.file_name if choice is None else documents.MAIN_FILE
            file = output or run_store.child(name)
            with file.writing_file() as local:
                documents.write_document(text, local)
            say(f"{file}: {len(text.encode()) / 1000:,.0f} kB")
        if figures is not None:
            with figures.adding() as local:
                written = documents.write_figures(record, folder, local)
            say(f"{figures}: {len(written)} files", err=printed)
        missing = missing_outcomes(record, folder)
    if missing:
        say(missing, err=True)
    first = opening(record)
    if first.reasons:
        say(first.sentence, err=True)
    _print_failures(record)
    raise typer.Exit(FAILED if record.failures else DONE)


@app.command()
def view(
    run_name: Annotated[
        str, typer.Argument(metavar="RUN", help="Folder of a run, or its name in results/runs.")
    ],
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port; 0 for any. [default: the first free one from 8643]"
        ),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address.")
    ] = False,
    link: Annotated[
        str, typer.Option(metavar="LINK", help="Link to an example that somebody has sent.")
    ] = "",
) -> None:
    """Look at single examples of a run in the browser.

    The page filters examples by model, attack, epsilon, class, confidence, outcome and agreement
    between models, and shows pictures, the change, and the answers of all models.  It is served on
    this machine alone until Ctrl-C.  Pictures of all examples need a run with --keep-examples.
    """
    from gibbon.cli.view_command import serve_examples
    from gibbon.report import documents

    serve_examples(
        documents.run_folder(run_name, runs=RUNS), port=port, browser=not no_browser, link=link
    )


baseline_app = typer.Typer(help="Save a run as a small baseline file.")
app.add_typer(baseline_app, name="baseline", no_args_is_help=True)


@baseline_app.command("save")
def baseline_save(
    run_folder: Annotated[
        Store, typer.Argument(parser=place, metavar="RUN", help="Folder of a run, or its URL.")
    ],
    file: Annotated[
        Store,
        typer.Argument(
            parser=place, metavar="FILE", help="File for the baseline, such as robust.json."
        ),
    ],
    accept: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help=BY_FLAG[ACCEPT].help)
    ] = None,
) -> None:
    """Save the errors of a run as a baseline file.

    The file holds one bit per example and measure.  Exit code 1, and no file, if the run has a
    serious flag that nobody accepted: neither its suite, nor the limits next to the file, nor
    --accept.
    """
    from gibbon.gate.baseline import save_baseline
    from gibbon.gate.limits import default_limits, read_limits

    with run_folder.reading() as folder, file.writing_file() as local:
        limits = default_limits(local)
        saved = save_baseline(
            folder,
            local,
            limits=read_limits(limits) if limits is not None else None,
            where=str(limits or ""),
            accept=_accepted(accept),
        )
        size = local.stat().st_size
    say(f"{file}: {saved.measures} measures, {size / 1000:.1f} kB")


plugin_app = typer.Typer(help="Write packages of your own attacks and models.")
app.add_typer(plugin_app, name="plugin", no_args_is_help=True)


@plugin_app.command("new")
def plugin_new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the package, such as my-attacks.")
    ],
    output: Annotated[
        Path | None, typer.Option(parser=path, help="Folder for it. [default: NAME]")
    ] = None,
) -> None:
    """Write a package with an attack and a model that Gibbon finds by name.

    It holds entry points, the laws of attacks as a test, and a workflow for CI.  Nothing is
    overwritten.
    """
    from gibbon.cli.plugin_command import new_plugin

    say(new_plugin(name, output or Path(name)))


_apps = (app, baseline_app, plugin_app)
for _command in [each for one in _apps for each in one.registered_commands]:
    if _command.cls is None or _command.cls is TyperCommand:
        _command.cls = Command


def main() -> None:
    """Runs the command line: the entry point of ``gibbon`` and ``run_benchmark.py``."""
    # Threads that spin while they wait occupy cores that other processes need: on two busy cores
    # the default suite took 4.5 minutes with spinning and 1.9 without.  Read once by torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    interrupting = signal.getsignal(signal.SIGINT)
    is_process = sys._getframe(1).f_globals.get("__name__") == "__main__"  # not called by a test
    _save_at_signals()
    try:
        with exit_code_protected(to_the_end=is_process):
            _run_command()
    finally:
        ENDING.reason = None
        if interrupting is not None:  # it was installed by Python
            signal.signal(signal.SIGINT, interrupting)


def _run_command() -> None:
    try:
        _check_words(sys.argv[1:])
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            app()
    except (RequestError, FlagError) as error:
        # Without emoji: the :x: of net.py:x:Net is none.
        console = Console(stderr=True, emoji=False)
        console.print(f"[bold red]error:[/] {escape(without_controls(str(error)))}", soft_wrap=True)
        sys.exit(FAILED if isinstance(error, FlagError) else WRONG_REQUEST)
    except IncompleteError as error:
        for sentence in str(error).split("; "):
            say(without_controls(sentence), err=True)
        say("not merged: nothing is written; run the command again later", err=True)
        sys.exit(INCOMPLETE)
    except (OSError, MemoryError, RecursionError, UnicodeError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        sentence = _environment_sentence(error)
        Console(stderr=True, emoji=False).print(f"[bold red]error:[/] {escape(sentence)}")
        sys.exit(WRONG_REQUEST)
    except Terminated as terminated:
        _end(BY_SIGNAL + terminated.signal, INTERRUPTION)
    except SystemExit as leaving:
        # 130 is what typer makes of Ctrl-C.
        _end(leaving.code, INTERRUPTION if leaving.code == INTERRUPTED else "")


def _end(code: str | int | None, sentence: str) -> NoReturn:
    if sentence:
        with suppress(OSError):  # the terminal may be closed
            say(sentence, err=True)
    sys.exit(code)


def _check_words(words: Sequence[str]) -> None:
    """Raises `SpecError` for a word that can't be a name or a path in tables and records."""
    for word in words:
        problem = text_problem(word)
        if problem:
            raise SpecError(f"the word {shown(word)} {problem}")
        if word.startswith("~"):
            expanded(word, SpecError)


def _environment_sentence(error: BaseException) -> str:
    """Returns a sentence on an error of this machine that no reader of a file has caught."""
    if isinstance(error, MemoryError):
        return f"memory ran out: {error or 'a file may be damaged, or too large for this machine'}"
    if isinstance(error, RecursionError):
        return "a file or an option is nested too deeply"
    place = getattr(error, "filename", None)
    reason = getattr(error, "strerror", None) or str(error)
    return without_controls(f"{place}: {reason}" if place else f"{type(error).__name__}: {reason}")


def _save_at_signals() -> None:
    """Lets the signals that end a process raise `Terminated`, so that a run saves what is done.

    SIGHUP stays ignored if it is, as by ``nohup``, and SIGINT in a background job of a shell.
    """
    ENDING.reason = None
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, ENDING.interrupt)
    signal.signal(signal.SIGTERM, ENDING.terminate)
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        signal.signal(hang_up, ENDING.terminate)


def _registry(kind: Kind) -> Registry[Any]:
    from gibbon.attacks import ATTACKS
    from gibbon.datasets import DATASETS
    from gibbon.models.registry import MODELS

    if kind is Kind.MODELS:
        return MODELS
    return ATTACKS if kind is Kind.ATTACKS else DATASETS


def _sources(kind: Kind) -> list[tuple[str, str]]:
    """Returns the sources of a kind besides its registry, with one line about each."""
    from gibbon.attacks.adapters import ATTACK_SOURCES
    from gibbon.datasets.open import KINDS
    from gibbon.models.sources import MODEL_SOURCES

    if kind is Kind.DATASETS:
        return [(each.example, each.title) for name, each in KINDS.items() if name != "registered"]
    if kind is Kind.ATTACKS:
        return [(f"{each.name}:NAME", _summary(each)) for each in ATTACK_SOURCES.entries()]
    ensemble = ("ensemble", "an ensemble of models or sources: ensemble:NAME,NAME")
    return [*((each.name, _summary(each)) for each in MODEL_SOURCES.entries()), ensemble]


def _attack_card(entry: Entry[Any]) -> str:
    """Returns what an entry says of an attack, and the card of its class."""
    from gibbon.cli.attack_cards import attack_card

    return "\n".join(filter(None, (entry.details(), attack_card(entry.load()))))


def _summary(entry: Entry[Any]) -> str:
    ours = entry.origin in ("gibbon", "gibbon-bench")
    there = "" if entry.installed else " [not installed]"
    return f"{entry.summary}{'' if ours else f' [{entry.origin}]'}{there}"


def _print_lines(lines: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in lines)
    for name, summary in lines:
        say(f"{name:<{width}}  {summary}".rstrip())


def _print_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"warning: {' '.join(str(message).split())}", err=True)


def _append_summary(text: str) -> None:
    """Appends a text to the CI job summary, if there is one; if that fails, only warns."""
    from gibbon.report.text.github_summary import JOB_SUMMARY, append_summary

    try:
        append_summary(text, os.environ.get(JOB_SUMMARY))
    except RequestError as error:
        say(f"warning: {error}", err=True)


def _print_failures(record: RunRecord) -> None:
    for failure in record.failures:
        say(
            f"failed: {failure.dataset}, {failure.model}, {failure.attack} at epsilon "
            f"{failure.epsilon}: {failure.text} (traceback in run.json)",
            err=True,
        )


if __name__ == "__main__":
    main()
