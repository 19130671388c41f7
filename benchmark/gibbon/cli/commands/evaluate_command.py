"""The command `evaluate`: a request in words, without a suite file."""

from __future__ import annotations

import typer

from gibbon.cli.arguments import accepted_kinds
from gibbon.cli.command_classes import OrderedCommand
from gibbon.cli.defaults import RUNS, environment_data_folder
from gibbon.cli.end_run import run_and_print
from gibbon.cli.grammar import parse_request
from gibbon.cli.options import EXAMPLES
from gibbon.cli.output import say
from gibbon.cli.typer_apps import app
from gibbon.core.errors import RequestError
from gibbon.records.stores import LocalStore
from gibbon.specs.decoding import WHERE


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
    request = parse_request(context.args, data_folder=environment_data_folder(), customary=True)
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
        run_and_print(
            suite,
            request.output or LocalStore(results_folder(RUNS, suite, limit=limit)),
            request.settings,
            where=WHERE,
            ready=save,
            strict=request.strict,
            accepted=accepted_kinds(list(suite.accept)),
        )
    except RequestError as error:
        raise RequestError(request.in_options(str(error))) from error
