"""The command `audit`: whether an evaluation could have found what it should have found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gibbon.cli.arguments import path, stored_run
from gibbon.cli.command_classes import WithExamples
from gibbon.cli.defaults import DONE, FAILED, environment_data_folder
from gibbon.cli.grammar import parse_request, read_parameters
from gibbon.cli.options import RUN_OPTIONS, run_settings
from gibbon.cli.output import say
from gibbon.cli.typer_apps import app
from gibbon.core.errors import SpecError, suggest
from gibbon.specs.decoding import WHERE

if TYPE_CHECKING:
    from gibbon.records.run import RunRecord
    from gibbon.runner.settings import RunSettings
    from gibbon.specs.suite import Suite

UNIT_TEST = "--unit-test"
DEFAULT_PROBLEMS = 64
EPILOG = """\
A finished run, by three published lists, and the suite that closes the gaps:
    audit results/runs/mnist-linf
    audit mnist-linf --suggest better.toml
Whether attacks find adversarial examples that are known to be there:
    audit maxout --unit-test --dataset mnist --attack pgd --epsilon 0.1
    audit maxout-adv --unit-test --suite mnist-linf --limit 32"""


@dataclass(frozen=True)
class AuditArguments:
    """The arguments of the command.

    Args:
        subject: a model's source, or a run.
        unit_test: whether attacks are tested on planted examples.
        suggest: file for the suite that closes the gaps.
        suite: suite whose attacks are tested.
        rest: the options of `evaluate`.
    """

    subject: str
    unit_test: bool
    suggest: Path | None
    suite: str | None
    rest: tuple[str, ...]


def audit_run(words: AuditArguments, folder: Path) -> bool:
    """Prints the lists for a run, and writes the suite that closes the gaps.

    Returns whether no evidence speaks against the figures.
    """
    from gibbon.audit.additions import lines_of_entries
    from gibbon.audit.attack_failures import PINTOR
    from gibbon.audit.autoattack_checks import AUTOATTACK
    from gibbon.audit.carlini import CARLINI
    from gibbon.audit.checklist import Audit
    from gibbon.audit.facts import facts_of
    from gibbon.records.consistency import of_one_record
    from gibbon.records.run import RunRecord
    from gibbon.report.text.terminal import print_table

    if words.rest or words.suite:
        given = words.rest[0] if words.rest else "--suite"
        raise SpecError(f"{given} goes with {UNIT_TEST}: a run is audited as it is")

    @of_one_record
    def audited(folder: Path) -> tuple[RunRecord, Audit]:
        record = RunRecord.read(folder)
        return record, Audit.of((CARLINI, AUTOATTACK, PINTOR), facts_of(record))

    record, audit = audited(folder)
    console = Console()
    for table in audit.tables():
        print_table(table, console)
        say("\n".join(table.notes))
    shown: set[str] = set()
    for facts, item, answer in audit.gaps:
        lines = lines_of_entries(answer.attacks, transfer=answer.transfer)
        if lines and lines not in shown:
            shown.add(lines)
            say(f"\n# {facts.dataset}, {item.name}: {answer.evidence}\n{lines}")
    counted = dict.fromkeys(("done", "fails", "not done", "not applicable"), 0)
    for answers in audit.answers.values():
        for _, _, answer in answers:
            counted[answer.state] += 1
    say("\n" + ", ".join(f"{count} {state}" for state, count in counted.items()))
    if words.suggest is not None:
        from gibbon.audit.suggest import suggested_suite
        from gibbon.cli.suite_writer import save_suite
        from gibbon.specs.vouches import vouches

        save_suite(suggested_suite(record, audit), words.suggest)
        say(f"{words.suggest}: the suite with the attacks that are missing", err=True)
        if trusted := vouches(record.suite):
            say(
                f"{words.suggest}: vouches for no file: if you still trust those of "
                f"{', '.join(trusted)}, write trust_code = true into the suite",
                err=True,
            )
    return not audit.failures


def audit_model(words: AuditArguments, data_folder: Path | None) -> bool:
    """Tests attacks on planted examples and prints the results.

    Returns whether every attack passed.
    """
    from gibbon.audit.planted import PlantedResult, PlantedSettings, audit_attack
    from gibbon.audit.planted_table import planted_table
    from gibbon.report.text.terminal import print_table
    from gibbon.runner.failures.raised_by import blaming
    from gibbon.runner.plan.make_plan import make_plan
    from gibbon.runner.run_progress.progress_bar import checking_bar

    if words.suggest is not None:
        raise SpecError(f"--suggest is for a run: leave out {UNIT_TEST}")
    suite, settings = _planted_request(words, data_folder)
    if suite.without_classes:
        raise SpecError(
            f"{suite.without_classes[0].dataset.name!r} has inputs without a class: examples are "
            "planted in data with classes"
        )
    plan = make_plan(suite, settings, where=words.suite or WHERE)
    (experiment,) = plan.experiments
    (model,) = experiment.models
    tests = [
        (planned, threat)
        for planned in experiment.attacks
        for threat in planned.threats
        if threat.radius > 0
    ]
    if not tests:
        raise SpecError("no attack has an epsilon above 0: nothing can be planted")
    how, results = PlantedSettings(seed=suite.seed), list[PlantedResult]()
    batch = experiment.dataset.batch(experiment.ids).to(plan.device)
    with plan.pool, checking_bar() as bar, model.classifier.evaluating(plan.device) as source:
        for at, (planned, threat) in enumerate(tests):
            doing = f"{planned.label} at epsilon {threat.epsilon}"

            def report(done: int, *, doing: str = doing, at: int = at) -> None:
                bar(doing, at * len(batch.ids) + done, len(tests) * len(batch.ids))

            with blaming(f"the unit test of {doing} can't be run"):
                found = audit_attack(
                    source,
                    batch,
                    attack=planned.attack,
                    label=planned.label,
                    threat=threat,
                    settings=how,
                    adaptation=planned.adaptation,
                    progress=report,
                )
            results.append(found)
    table = planted_table(model.name, experiment.spec.dataset.name, results)
    print_table(table, Console())
    for note in table.notes:
        say(note)
    return all(each.passed for each in results)


def _planted_request(words: AuditArguments, data_folder: Path | None) -> tuple[Suite, RunSettings]:
    """Returns a suite of one model, and settings with a limit."""
    from gibbon.specs.decoding import read_suite

    if words.suite is None:
        request = parse_request(["--model", words.subject, *words.rest], data_folder=data_folder)
        suite, settings = request.suite, request.settings
    else:
        options = {each.name: each for each in RUN_OPTIONS}
        given = {}
        for name, value in read_parameters(words.rest).items():
            if name not in options:
                flag = f"--{name.replace('_', '-')}"
                known = [each.flag for each in RUN_OPTIONS]
                raise SpecError(
                    f"{flag}: with --suite only options of the run are taken{suggest(flag, known)}"
                )
            option = options[name]
            given[name] = option.parse(str(value)) if option.value else value
        suite = _with_model(read_suite(words.suite), words.subject)
        settings = run_settings(given, data_folder=data_folder)
    limit = settings.limit if settings.limit is not None else DEFAULT_PROBLEMS
    return suite, replace(settings, limit=limit)


def _with_model(suite: Suite, subject: str) -> Suite:
    """Returns a suite with one model: that of this name, else one from this source."""
    from gibbon.specs.suite import ModelSpec, TransferSpec

    named = [
        (experiment, model)
        for experiment in suite.with_classes
        for model in experiment.models
        if model.name == subject
    ]
    first = (*suite.with_classes, *suite.experiments)[0]
    found = named[0] if named else (first, ModelSpec.model_validate(subject))
    experiment, model = found
    nothing: TransferSpec | None = None
    alone = experiment.model_copy(update={"models": (model,), "transfer": nothing})
    return suite.model_copy(update={"experiments": (alone,), "published": ()})


@app.command(
    cls=WithExamples,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="[--suggest FILE | --unit-test [--suite SUITE] [OPTIONS OF evaluate]]",
    epilog=EPILOG,
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
    words = AuditArguments(subject, unit_test, suggest, suite, tuple(context.args))
    if unit_test:
        passed = audit_model(words, environment_data_folder())
    else:
        with stored_run(subject) as folder:
            passed = audit_run(words, folder)
    raise typer.Exit(DONE if passed else FAILED)
