"""Runs a suite for a command, prints its tables and ends with the exit code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console

from gibbon.cli.defaults import DONE, FAILED
from gibbon.cli.output import say
from gibbon.core.errors import RequestError
from gibbon.records.stores import LocalStore, Store

if TYPE_CHECKING:
    from gibbon.records.acceptance import Acceptance
    from gibbon.records.run import RunRecord
    from gibbon.runner.run_progress.progress import Progress
    from gibbon.runner.settings import RunSettings
    from gibbon.specs.suite import Suite


UNCHANGED = "no result has changed: tables, CSV files and TensorBoard folder are left as they are"


def run_and_print(
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
    from gibbon.runner.run_progress.progress_bar import RunProgress
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
            publish=publisher(bar),
        )
    end_run(record, store, strict=strict, accepted=accepted)


def publisher(progress: Progress) -> Callable[[RunRecord, Path], None]:
    """Returns a function that writes the report of a record, and notes if nothing has changed."""
    from gibbon.report import write_report

    def publish(record: RunRecord, folder: Path) -> None:
        if not write_report(record, folder):
            progress.note(UNCHANGED)

    return publish


def end_run(
    record: RunRecord, store: Store, *, strict: bool, accepted: tuple[Acceptance, ...]
) -> NoReturn:
    """Prints the tables of a run and ends with the exit code; see `run_and_print`."""
    from gibbon.gate.flag_text import serious_flags_text
    from gibbon.records.acceptance import acceptance_text
    from gibbon.report import TABLES_FILE, print_tables
    from gibbon.report.text.github_summary import run_markdown
    from gibbon.report.text.terminal import print_places

    print_failures(record)
    # Flags come last, and stay in sight.
    print_tables(record, Console(), place=str(store.child(TABLES_FILE)))
    for acceptance in accepted:
        covered = [flag for flag in record.flags if flag.kind == acceptance.kind]
        say(acceptance_text(acceptance, covered), err=True)
    serious = [flag for flag in record.flags if flag.counts] if strict else []
    if serious:
        say(serious_flags_text(serious), err=True)
    local = store.path if isinstance(store, LocalStore) else None
    attacked = any(not row.unattacked for row in record.evaluations)
    print_places(str(store), Console(), folder=local, attacked=attacked)
    failed = bool(record.failures or serious)
    append_job_summary(run_markdown(record, failed=failed))
    raise typer.Exit(FAILED if failed else DONE)


def append_job_summary(text: str) -> None:
    """Appends a text to the CI job summary, if there is one; if that fails, only warns."""
    from gibbon.report.text.github_summary import JOB_SUMMARY, append_summary

    try:
        append_summary(text, os.environ.get(JOB_SUMMARY))
    except RequestError as error:
        say(f"warning: {error}", err=True)


def print_failures(record: RunRecord) -> None:
    """Prints a line on stderr for each failed cell."""
    for failure in record.failures:
        say(
            f"failed: {failure.dataset}, {failure.model}, {failure.attack} at epsilon "
            f"{failure.epsilon}: {failure.text} (traceback in run.json)",
            err=True,
        )
