"""The command `merge`: the shards of a run become one run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Any

import typer
from rich.console import Console

from gibbon.cli.arguments import (
    RunOutput,
    accepted_kinds,
    chosen_settings,
    place,
    with_merge_options,
)
from gibbon.cli.command_classes import WithExamples
from gibbon.cli.defaults import RUNS
from gibbon.cli.end_run import end_run, publisher
from gibbon.cli.options import MERGE_EXAMPLES, MERGE_OPTIONS
from gibbon.cli.typer_apps import app
from gibbon.records.stores import LocalStore, Store


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
    trust_code: Annotated[
        bool,
        typer.Option(
            "--trust-code",
            help="Load files that the suite vouches for and that may run any code: pickles.",
        ),
    ] = False,
    **settings: Any,
) -> None:
    """Merge the shards of a run and print its tables.

    Writes the files of the whole run.  Nothing is written, and the exit code is 3, as long as
    shards are missing or not finished; run the command again once they are there.
    """
    from gibbon.records.acceptance import acceptances
    from gibbon.runner.merge_shards import merge_shards
    from gibbon.runner.run_progress.progress_bar import RunProgress
    from gibbon.runner.shards.read_shards import read_shards

    strict = bool(settings.pop("strict"))
    on_call = accepted_kinds(settings.pop("accept"))
    chosen = chosen_settings(settings, MERGE_OPTIONS)
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
            trust_code=trust_code,
            progress=bar,
            publish=publisher(bar),
        )
    end_run(record, store, strict=strict, accepted=accepted)
