"""The TensorBoard folder of a training, written during it.

==================  =============================================================================
``train``           loss, error on a sample, learning rate, momentum, norms, saturation,
                    histograms of weights and logits, filters of the first layer, the graph
``validation``      loss and error under the same tags, so that both share a chart; FGSM, PGD,
                    pictures of the clean example, the change and the adversarial example
``recipe``          hyperparameters and final figures, a row of the dashboard HPARAMS
==================  =============================================================================

The step is the epoch.  The embedding of the last hidden layer is in files that the projector reads.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gibbon.core.files import write_atomically
from gibbon.report.tensorboard.event_file import EventLog, EventRun
from gibbon.report.tensorboard.hparams import Hyperparameter, begin_session, end_session

TRAIN: Final = "train"
VALIDATION: Final = "validation"
RECIPE: Final = "recipe"
PROJECTOR_FILE: Final = "projector_config.pbtxt"
EMBEDDING: Final = "last hidden layer"


class TrainingEvents:
    """Writes the events of one training.

    Args:
        folder: TensorBoard folder of the training.
        first_step: first epoch that follows; with 1, events of earlier trainings are removed.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        self.folder, self.first_step = folder, first_step
        self._logs: dict[str, EventLog] = {}

    def epoch(self, run: str) -> EventRun:
        """Returns an empty run with the present time, whose events are passed to `add`."""
        return EventRun(time.time())

    def add(self, name: str, run: EventRun) -> None:
        """Writes events to the TensorBoard run of this name."""
        self._log(name).add(run)

    def add_graph(self, graph: bytes) -> None:
        """Writes the graph of the model, a serialised ``GraphDef``."""
        self._log(TRAIN).add_graph(graph, wall_time=time.time())

    def add_embedding(
        self,
        vectors: NDArray[np.floating[Any]],
        labels: Sequence[str],
        *,
        sprite: bytes | None,
        side: tuple[int, int],
    ) -> None:
        """Writes the points of the projector, in place of earlier ones.

        Args:
            vectors: shape (N, width).
            labels: N texts.
            sprite: PNG of N pictures in rows, as many rows as columns; None without pictures.
            side: width and height of one picture, in pixels.
        """
        folder = self.folder / TRAIN
        rows = ("\t".join(f"{number:.5g}" for number in vector) for vector in vectors.tolist())
        write_atomically(folder / "embedding.tsv", "\n".join(rows) + "\n")
        write_atomically(folder / "embedding_labels.tsv", "\n".join(labels) + "\n")
        pictures = ""
        if sprite is not None:
            write_atomically(folder / "embedding.png", sprite)
            width, height = side
            pictures = (
                '  sprite {\n    image_path: "embedding.png"\n'
                f"    single_image_dim: {width}\n    single_image_dim: {height}\n  }}\n"
            )
        config = (
            f'embeddings {{\n  tensor_name: "{EMBEDDING}"\n  tensor_path: "embedding.tsv"\n'
            f'  metadata_path: "embedding_labels.tsv"\n{pictures}}}\n'
        )
        write_atomically(folder / PROJECTOR_FILE, config)

    def begin(self, group: str, given: Mapping[str, Hyperparameter]) -> None:
        """Writes the hyperparameters."""
        run = EventRun(time.time())
        begin_session(run, group, given)
        self.add(RECIPE, run)

    def end(self, figures: Mapping[str, float], *, step: int) -> None:
        """Writes the final figures, by name."""
        run = EventRun(time.time())
        for name, value in figures.items():
            run.scalar(f"final/{name}", value, step=step)
        end_session(run, done=True)
        self.add(RECIPE, run)

    def _log(self, name: str) -> EventLog:
        if name not in self._logs:
            self._logs[name] = EventLog(
                self.folder / name, wall_time=time.time(), first_step=self.first_step
            )
        return self._logs[name]
