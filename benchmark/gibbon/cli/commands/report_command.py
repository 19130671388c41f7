"""The command `report`: a run as HTML, LaTeX or markdown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gibbon.cli.arguments import place, stored_run
from gibbon.cli.defaults import DONE, FAILED
from gibbon.cli.end_run import print_failures
from gibbon.cli.output import say
from gibbon.cli.typer_apps import app
from gibbon.core.errors import SpecError
from gibbon.records.stores import LocalStore, Store, is_url, open_store

if TYPE_CHECKING:
    from gibbon.records.run import RunRecord


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
    from gibbon.report.content.summary.missing import missing_outcomes
    from gibbon.report.content.summary.opening import opening

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
    with stored_run(run_name) as folder:
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
    print_failures(record)
    raise typer.Exit(FAILED if record.failures else DONE)
