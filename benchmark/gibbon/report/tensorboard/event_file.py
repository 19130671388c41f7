"""Event files of TensorBoard, written with the messages of its own package.

This needs no torch.  Unlike TensorBoard's own writer it starts no thread and writes neither host
name nor time of writing, so that equal records give equal files on one machine.  An `EventRun`
holds the events of a finished run; an `EventLog` adds events during a training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_DOUBLE, DT_FLOAT, DT_STRING
from tensorboard.plugins.custom_scalar import metadata as custom_metadata
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from gibbon.report.file_names import EVENTS_FILE

_FILE_VERSION: Final = "brain.Event:2"
_PNG_SIZE: Final = slice(16, 24)  # width and height in a PNG's header, four bytes each
_OF_A_BIN: Final = 3  # left edge, right edge, count
_BINS: Final = 30


@dataclass
class EventRun:
    """The events of one TensorBoard run, all at ``wall_time``, in seconds since 1970."""

    wall_time: float
    values: list[tuple[int, Any]] = field(default_factory=list)

    def scalar(self, tag: str, value: float, *, step: int, description: str = "") -> None:
        """Adds a number."""
        self._add(
            tag,
            TensorProto(dtype=DT_FLOAT, float_val=[value], tensor_shape=TensorShapeProto()),
            scalar_metadata.create_summary_metadata("", description),
            step,
        )

    def histogram(
        self, tag: str, counts: Sequence[int], *, step: int, description: str = ""
    ) -> None:
        """Adds the counts of a quantity in equal bins from 0 to 1."""
        self._add_bins(tag, counts, np.arange(len(counts) + 1) / len(counts), step, description)

    def distribution(
        self, tag: str, values: NDArray[np.floating[Any]], *, step: int, description: str = ""
    ) -> None:
        """Adds the histogram of finite values, in `_BINS` equal bins over their range."""
        finite = values[np.isfinite(values)]
        if len(finite):
            counts, edges = np.histogram(finite.astype(np.float64), bins=_BINS)
            self._add_bins(tag, counts.tolist(), edges, step, description)

    def _add_bins(
        self,
        tag: str,
        counts: Sequence[int],
        edges: NDArray[np.float64],
        step: int,
        description: str,
    ) -> None:
        size = len(counts)
        bins = [
            number
            for low, high, each in zip(edges[:-1].tolist(), edges[1:].tolist(), counts, strict=True)
            for number in (low, high, float(each))
        ]
        shape = TensorShapeProto(
            dim=[TensorShapeProto.Dim(size=size), TensorShapeProto.Dim(size=_OF_A_BIN)]
        )
        tensor = TensorProto(dtype=DT_DOUBLE, double_val=bins, tensor_shape=shape)
        metadata = histogram_metadata.create_summary_metadata("", description)
        self._add(tag, tensor, metadata, step)

    def image(self, tag: str, png: bytes, *, step: int, description: str = "") -> None:
        """Adds a picture."""
        header = png[_PNG_SIZE]
        width, height = (int.from_bytes(header[at : at + 4], "big") for at in (0, 4))
        tensor = _strings(str(width).encode(), str(height).encode(), png)
        metadata = image_metadata.create_summary_metadata("", description)
        self._add(tag, tensor, metadata, step)

    def text(self, tag: str, markdown: str) -> None:
        """Adds a text in markdown."""
        tensor = _strings(markdown.encode())
        self._add(tag, tensor, text_metadata.create_summary_metadata("", ""), 0)

    def layout(self, layout: Any) -> None:
        """Adds the layout of the dashboard of custom scalars."""
        tensor = _strings(layout.SerializeToString())
        self._add(
            custom_metadata.CONFIG_SUMMARY_TAG, tensor, custom_metadata.create_summary_metadata(), 0
        )

    def hyperparameters(self, tag: str, data: Any) -> None:
        """Adds a message to the dashboard of hyperparameters."""
        tensor = TensorProto(
            dtype=DT_FLOAT, tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=0)])
        )
        self._add(tag, tensor, hparams_metadata.create_summary_metadata(data), 0)

    def _add(self, tag: str, tensor: Any, metadata: Any, step: int) -> None:
        self.values.append((step, Summary.Value(tag=tag, tensor=tensor, metadata=metadata)))

    def write(self, path: Path) -> None:
        """Writes an event file into a new folder."""
        path.parent.mkdir(parents=True)
        with path.open("wb") as stream:
            writer = RecordWriter(stream)
            opening = Event(wall_time=self.wall_time, file_version=_FILE_VERSION)
            writer.write(opening.SerializeToString())
            self.write_events(writer)

    def write_events(self, writer: Any) -> None:
        """Writes the events to a `RecordWriter`."""
        for step, value in self.values:
            event = Event(wall_time=self.wall_time, step=step, summary=Summary(value=[value]))
            writer.write(event.SerializeToString())


class EventLog:
    """An event file that grows, in the folder of a TensorBoard run.

    Each session of an interrupted training writes a file of its own, which begins with the step
    from which on events of earlier files are void.

    Args:
        folder: folder of the run; it is made.
        wall_time: seconds since 1970.
        first_step: step of the first event that follows; with 0 or 1, files of earlier sessions are
            removed.
    """

    def __init__(self, folder: Path, *, wall_time: float, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = sorted(folder.glob(f"{EVENTS_FILE}*"))
        if first_step <= 1:
            for path in earlier:
                path.unlink()
            earlier = []
        number = int(earlier[-1].name.removeprefix(f"{EVENTS_FILE}.") or 0) + 1 if earlier else 1
        self.path = folder / f"{EVENTS_FILE}.{number:04}"
        self._put(Event(wall_time=wall_time, file_version=_FILE_VERSION))
        # TensorBoard takes the first of these marks as the beginning and any other as a restart.
        start = SessionLog(status=SessionLog.START)
        self._put(Event(wall_time=wall_time, step=first_step, session_log=start))

    def add(self, run: EventRun) -> None:
        """Writes the events of a run to the end of the file."""
        with self.path.open("ab") as stream:
            run.write_events(RecordWriter(stream))

    def add_graph(self, graph: bytes, *, wall_time: float) -> None:
        """Writes the graph of a model: a serialised ``GraphDef``."""
        self._put(Event(wall_time=wall_time, graph_def=graph))

    def _put(self, event: Any) -> None:
        with self.path.open("ab") as stream:
            RecordWriter(stream).write(event.SerializeToString())


def _strings(*values: bytes) -> Any:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(values))])
    return TensorProto(dtype=DT_STRING, string_val=values, tensor_shape=shape)
