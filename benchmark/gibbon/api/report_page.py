"""The report of results as a page: shown in a notebook, or written to a file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from gibbon.core.errors import RunFolderError
from gibbon.core.files import StrPath
from gibbon.core.reading import expanded
from gibbon.report.documents import write_document

FRAME_HEIGHT = 640  # pixels of the frame in a notebook


@dataclass(frozen=True)
class ReportPage:
    """A report as one HTML page that needs no other files.

    A notebook shows it in a frame; `save` writes it to a file.

    Args:
        title: name of the suite.
        html: the whole page.
    """

    title: str
    html: str = field(repr=False)

    def save(self, file: StrPath) -> Path:
        """Writes the page to a file, and returns its path.

        Raises `RunFolderError` if it can't be written.
        """
        path = expanded(os.fspath(file), RunFolderError)
        write_document(self.html, path)
        return path

    def _repr_html_(self) -> str:
        return (
            f'<iframe title="{escape(self.title)}" sandbox="allow-scripts" width="100%" '
            f'height="{FRAME_HEIGHT}" style="border: 1px solid #ccc" '
            f'srcdoc="{escape(self.html)}"></iframe>'
        )
