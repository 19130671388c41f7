"""The summary of a job in CI: markdown that GitHub shows on the page of a workflow run."""

from __future__ import annotations

from pathlib import Path

from gibbon.core.errors import RunFolderError
from gibbon.records.run import RunRecord
from gibbon.report.text.markdown import chapter_markdown, escape
from gibbon.report.text.terminal import short_chapters

JOB_SUMMARY = "GITHUB_STEP_SUMMARY"  # the variable that names the file, where there is one

# GitHub shows nothing of a step whose summary is larger than 1 MiB.
LARGEST = 1_000_000


def append_summary(text: str, place: str | None) -> None:
    """Appends markdown to a job's summary; does nothing where there is none.

    ``place`` is the file's path, the value of ``GITHUB_STEP_SUMMARY``.  What is longer than GitHub
    shows is cut, and says so.

    Raises `RunFolderError` where the file can't be written.
    """
    if not place:
        return
    written = text.encode()
    if len(written) > LARGEST:
        kept = written[:LARGEST].decode(errors="ignore").rpartition("\n")[0]
        text = f"{kept}\n\nThe rest is too long to be shown here.\n"
    try:
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(text.rstrip("\n") + "\n\n")
    except OSError as error:
        raise RunFolderError(
            f"{place}: the job summary can't be written: {error.strerror or error}; is "
            f"{JOB_SUMMARY} set to a file?"
        ) from error


def run_markdown(record: RunRecord) -> str:
    """Returns a run's tables for a job's summary: those that a terminal shows."""
    chapters = [each for each in short_chapters(record) if each.tables or each.notes]
    word = "failed" if record.failures else "done"
    parts = [f"## Robustness of {escape(record.suite.title or record.suite.name)}: {word}"]
    parts += [part for each in chapters for part in chapter_markdown(each, level=0)]
    return "\n\n".join(parts) + "\n"
