"""The documents that ``report`` writes for a stored run, and the look-up of runs by name."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from gibbon.core.errors import RunFolderError, SpecError, UnknownNameError
from gibbon.core.files import write_atomically
from gibbon.core.reading import expanded
from gibbon.records.run import RUN_FILE, RunRecord
from gibbon.report.content.tables.main_table import MainTableChoice

MAIN_FILE = "main.tex"  # the table of models by attacks


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


def main_choice(
    table: str | None,
    columns: str | None,
    models: str | None,
    attacks: str | None,
    *,
    latex: bool,
) -> MainTableChoice | None:
    """Returns what a main table shows, from lists in words; None if it is not requested.

    Raises `SpecError` if an option is given that needs another.
    """
    if table not in (None, "all", "main"):
        raise SpecError(f"expected main or all, got {table!r}", where="--table")
    if table is not None and not latex:
        raise SpecError("is for --latex: give both", where="--table")
    lists = {"--columns": columns, "--models": models, "--attacks": attacks}
    for flag, given in lists.items():
        if given is not None and table != "main":
            raise SpecError("is for --latex --table main: give both", where=flag)
        if given is not None and not given.strip(" ,"):
            raise SpecError("expected names with commas between them", where=flag)
    if table != "main":
        return None
    return MainTableChoice(*(_names(each) for each in lists.values()))


def _names(written: str | None) -> tuple[str, ...]:
    return tuple(name for each in (written or "").split(",") if (name := each.strip()))


def main_document(record: RunRecord, choice: MainTableChoice) -> str:
    """Returns the table of models by attacks as LaTeX.

    Raises `SpecError` or `UnknownNameError` for a name that the run lacks.
    """
    from gibbon.report.text.latex_main import main_table_latex

    return main_table_latex(record, choice)


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
