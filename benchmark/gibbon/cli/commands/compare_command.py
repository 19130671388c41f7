"""The command `compare`: a run against a baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gibbon.cli.arguments import ACCEPT, accepted_kinds, path, place
from gibbon.cli.defaults import DONE, FAILED
from gibbon.cli.end_run import append_job_summary
from gibbon.cli.options import BY_FLAG
from gibbon.cli.output import say
from gibbon.cli.typer_apps import app
from gibbon.records.stores import Store


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
            accept=accepted_kinds(accept),
        )
    comparison = replace(comparison, old=str(baseline), new=str(run_folder))
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
    append_job_summary(text)
    shown = not (strict and comparison.inconclusive)
    raise typer.Exit(DONE if comparison.passed and shown else FAILED)
