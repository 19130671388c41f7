"""The documents that ``report`` writes for a stored run, and the look-up of runs by name."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from gibbon.core.errors import RunFolderError, UnknownNameError
from gibbon.core.files import write_atomically
from gibbon.core.reading import expanded
from gibbon.records.run import RUN_FILE, RunRecord


class Document(StrEnum):
    """A format of a report."""

    HTML = "html"
    LATEX = "latex"
    MARKDOWN = "markdown"

    @property
    def file_name(self) -> str:
        """The name of its file in a run's folder."""
        return {"html": "report.html", "latex": "report.tex", "markdown": "report.md"}[self.value]


def run_folder(word: str, *, runs: Path) -> Path:
    """Returns the folder of a run, given its path or its name in the folder ``runs``.

    Raises `UnknownNameError` if there is no such run, `RunFolderError` if the path holds no run.
    """
    if not word.strip():
        raise RunFolderError(f"expected the folder of a run, got {word!r}")
    path = expanded(word, RunFolderError)
    named = len(path.parts) == 1 and path.name not in (".", "..")
    for folder in (path, *([runs / word] if named else [])):
        if (folder / RUN_FILE).is_file():
            return folder
    if path.name == RUN_FILE and path.is_file():
        return path.parent
    if path.exists() or not named:
        raise RunFolderError(f"{path}: expected the folder of a run, with a {RUN_FILE} in it")
    known = [each.parent.name for each in runs.glob(f"*/{RUN_FILE}")]
    if not known:
        raise RunFolderError(f"{word}: is not a folder, and {runs} holds no run of that name")
    raise UnknownNameError("run", word, known=known, where=str(runs))


def document(record: RunRecord, folder: Path, kind: Document) -> str:
    """Returns a run as a document; ``folder`` is the run's folder, with its outcomes.

    Raises `RecordError` if a file of the run can't be read.
    """
    if kind is Document.LATEX:
        from gibbon.report.text.latex import report_latex

        return report_latex(record)
    if kind is Document.MARKDOWN:
        from gibbon.report.text.markdown import report_markdown

        return report_markdown(record)
    from gibbon.report.html.page import report_html

    return report_html(record, folder)


def write_document(content: str | bytes, file: Path) -> None:
    """Writes a document atomically.  Raises `RunFolderError`."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{file}: can't be written: {error.strerror or error}") from error
    write_atomically(file, content)


def write_figures(record: RunRecord, run: Path, folder: Path) -> list[Path]:
    """Writes the figures of a run as SVG and PNG into a folder, and returns their paths.

    These are the run's illustrations, error against ε, and the transfer matrices of each attack at
    its largest ε.  Raises `RunFolderError`, or `RecordError` if an illustration can't be read.
    """
    from gibbon.report.figures.figure_files import figure_files

    written = []
    for name, content in figure_files(record, run):
        write_document(content, folder / name)
        written.append(folder / name)
    return written
