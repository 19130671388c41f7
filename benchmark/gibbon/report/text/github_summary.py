"""The summary of a CI job: markdown that GitHub shows on the page of a workflow run."""

from __future__ import annotations

from pathlib import Path

from gibbon.core.errors import RunFolderError
from gibbon.records.run import RunRecord
from gibbon.report.content.summary.opening import opening
from gibbon.report.text.markdown import chapter_markdown, escape_text, opening_markdown
from gibbon.report.text.terminal import short_chapters

JOB_SUMMARY = "GITHUB_STEP_SUMMARY"  # the environment variable with the path of the file

# GitHub shows no summary that is larger than 1 MiB.
LARGEST = 1_000_000


def append_summary(text: str, place: str | None) -> None:
    """Appends markdown to the summary of a job.

    ``place`` is the path of its file, the value of ``GITHUB_STEP_SUMMARY``; without one nothing is
    written.  A text that is longer than GitHub shows is cut, with a note.

    Raises `RunFolderError` if the file can't be written.
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


def run_markdown(record: RunRecord, *, failed: bool | None = None) -> str:
    """Returns the tables of a run for the summary of a job, as a terminal shows them.

    ``failed`` says whether the heading calls the run failed; if None, it does if a cell failed.
    """
    chapters = [each for each in short_chapters(record) if not each.empty]
    word = "failed" if (bool(record.failures) if failed is None else failed) else "done"
    parts = [f"## Robustness of {escape_text(record.suite.title or record.suite.name)}: {word}"]
    parts.append(opening_markdown(opening(record)))
    parts += [part for each in chapters for part in chapter_markdown(each, level=0)]
    return "\n\n".join(parts) + "\n"
