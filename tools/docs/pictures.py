"""Writes the pictures that a documentation page shows of a stored run."""

from __future__ import annotations

from pathlib import Path

from gibbon.core.errors import RecordError
from gibbon.core.files import write_atomically
from gibbon.records.illustration import Illustration, digest_of
from gibbon.records.run import RunRecord
from gibbon.report.content.chart_data.curves import Panel, by_model, panels
from gibbon.report.figures.illustrations import figure_of
from gibbon.report.figures.plots import error_curves, house_style, panels_digest, rendered


def model_curve_digest(record: RunRecord) -> str:
    """Returns the digest of the data of `save_model_curves`, which its files contain."""
    return panels_digest(by_model(panels(record)))


def save_error_curves(record: RunRecord, path: Path) -> None:
    """Writes error against epsilon as ``.svg`` or ``.png``.

    On one machine equal records give equal files.

    Raises `RecordError` if no attack was run at two or more epsilons.
    """
    _save(panels(record), record, path)


def save_model_curves(record: RunRecord, path: Path) -> None:
    """Writes error against epsilon with a panel for each model and a curve for each attack.

    Raises as `save_error_curves` does.
    """
    _save(by_model(panels(record)), record, path)


def save_drawing(illustration: Illustration, path: Path) -> None:
    """Writes an illustration as ``.svg`` or ``.png``.

    Raises `RecordError` for another suffix, `RunFolderError` if it can't be written.
    """
    with house_style():
        content = rendered(figure_of(illustration), path.suffix, digest_of(illustration))
    write_atomically(path, content)


def _save(drawn: tuple[Panel, ...], record: RunRecord, path: Path) -> None:
    if not drawn:
        raise RecordError(
            f"{record.suite.name}: no attack of this run has two epsilons or more: there is no "
            "curve to draw"
        )
    with house_style():
        write_atomically(path, rendered(error_curves(drawn), path.suffix, panels_digest(drawn)))
