"""Executes notebooks and stores their outputs: ``python -m tools.docs.notebooks FILE...``.

Bars of progress are left out, because they are not the same twice.  Needs the extra ``dev``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECONDS = 600  # that a cell may take


def executed(file: Path) -> Any:
    """Returns a notebook after its execution in its own folder.

    Raises `nbclient.exceptions.CellExecutionError` if a cell raises.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(file, as_version=4)
    folder = {"metadata": {"path": str(file.parent)}}
    client = NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=folder)
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    return notebook


def main(words: Sequence[str] | None = None) -> int:
    """Executes and stores notebooks; returns the exit code."""
    import nbformat

    for word in sys.argv[1:] if words is None else words:
        nbformat.write(executed(Path(word)), word)
    return 0


if __name__ == "__main__":
    sys.exit(main())
