"""Progress of a run in a notebook: one bar by ``tqdm.auto``."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from gibbon.core.plain_text import without_controls


def in_notebook() -> bool:
    """Returns whether this code runs in the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class NotebookProgress:
    """Shows the progress of a run as one bar, which is removed at the end.

    Notes and failures are printed above it.
    """

    def __init__(self) -> None:
        self.bar: Any = None

    def __enter__(self) -> NotebookProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def note(self, text: str) -> None:
        """Prints a note to the user."""
        sys.stdout.write(f"{without_controls(text)}\n")

    def checking(self, examples: int, *, of: int, dataset: str) -> None:
        """Advances the bar of images that are read and checked."""
        if self.bar is None or self.bar.total != of:
            self._open(f"reading {dataset}", of)
        self.bar.update(examples)

    def start(self, *, work: int, cells: int, reused: int) -> None:
        """Starts the bar."""
        self._close()
        if cells:
            known = f", {reused} recorded already" if reused else ""
            self._open(f"{cells} cell{'s' if cells > 1 else ''}{known}", work)

    def advance(self, work: int, *, doing: str) -> None:
        """Advances the bar."""
        if self.bar is not None:
            self.bar.set_description_str(without_controls(doing), refresh=False)
            self.bar.update(work)

    def failed(self, cell: str, *, error: str) -> None:
        """Prints a failure as soon as it happens."""
        sys.stdout.write(f"{without_controls(f'failed: {cell}: {error}')}\n")

    def _open(self, doing: str, total: int) -> None:
        from tqdm import TqdmWarning

        self._close()
        with warnings.catch_warnings():
            # Without ipywidgets it says so, and draws a bar of characters.
            warnings.simplefilter("ignore", TqdmWarning)
            from tqdm.auto import tqdm

            bar_format = "{desc}: {percentage:3.0f} %|{bar}| [{elapsed} < {remaining}]"
            self.bar = tqdm(
                total=total, desc=without_controls(doing), leave=False, bar_format=bar_format
            )

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.refresh()  # what came since the last refresh, a tenth of a second ago
            self.bar.close()
            self.bar = None
