"""Follows a training in TensorBoard: figures, histograms, pictures, graph, embedding and recipe.

Nothing in the training is changed: passes are made in evaluation mode, random numbers are put
back, and gradients are those that the last step left.  Each epoch costs a forward pass of at most
`SAMPLE` training examples and `SAMPLE` held-out ones, and FGSM on the latter if the log lacks it.
"""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from gibbon.attacks.toolkit.projections import region
from gibbon.core.errors import RunFolderError
from gibbon.core.rng import seeded_globals
from gibbon.core.threat import ThreatModel
from gibbon.report.figures.picture_grid import grid_png
from gibbon.report.tensorboard.event_file import EventRun
from gibbon.report.tensorboard.training_events import TRAIN, VALIDATION, TrainingEvents
from gibbon_zoo.learner import ExampleFeed, sample_of
from gibbon_zoo.monitor_settings import MonitorSettings
from gibbon_zoo.trained_network import TrainedNetwork
from gibbon_zoo.training import Observer
from gibbon_zoo.training_log import EpochRecord

SAMPLE = 500  # examples that are measured, of the training examples and of the held-out ones
BATCH = 100  # examples a pass
WIDEST = 2048  # units of the embedding
SPRITE_SIDE = 32  # pixels of a picture in the projector, whose pictures are in one file
SHOWN = 8  # examples in the strip of pictures
FILTERS = 64
PICTURES_EVERY = 5  # epochs, besides the first one
TEXT = "The step is the epoch."


class TrainingMonitor(Observer):
    """Writes the events of one part of a training.

    Args:
        settings: what is written.
        network: the network in training.
        steps_an_epoch: steps after which an epoch ends.
        first_epoch: number of the part's first epoch.
        examples: what is trained on.
        unseen: held-out examples; None if there are none.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        network: TrainedNetwork,
        *,
        steps_an_epoch: int,
        first_epoch: int,
        examples: ExampleFeed,
        unseen: ExampleFeed | None,
    ) -> None:
        self.settings, self.network = settings, network
        self.steps_an_epoch, self.first_epoch = steps_an_epoch, first_epoch
        self.samples = {TRAIN: sample_of(examples, SAMPLE)}
        if unseen is not None:
            self.samples[VALIDATION] = sample_of(unseen, SAMPLE)
        self.events: TrainingEvents | None = None

    def begin(self, step: int) -> None:
        """Opens the folder and writes the graph.  Raises `RunFolderError`."""
        done = step // self.steps_an_epoch
        try:
            events = TrainingEvents(self.settings.folder, first_step=self.first_epoch + done)
            if done == 0:
                self._add_graph(events)
        except OSError as error:
            reason = error.strerror or error
            raise RunFolderError(f"{self.settings.folder}: can't be written: {reason}") from error
        self.events = events

    def epoch(self, history: Sequence[EpochRecord], *, step: int) -> None:
        """Writes the events of the last epoch; if that fails, says so once and writes no more."""
        if self.events is None:
            return
        record = history[-1]
        pictures = record.epoch == self.first_epoch or record.epoch % PICTURES_EVERY == 0
        try:
            with self._undisturbed():
                for name, sample in self.samples.items():
                    self._add_epoch(self.events, name, sample, record, pictures=pictures)
        except (OSError, RunFolderError) as error:
            self.events = None
            self.settings.failed(f"TensorBoard: no more events are written: {error}")

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        device = self.samples[TRAIN].device
        with seeded_globals(0, device), self.network.evaluating():
            yield

    def _add_epoch(
        self,
        events: TrainingEvents,
        name: str,
        sample: ExampleFeed,
        record: EpochRecord,
        *,
        pictures: bool,
    ) -> None:
        attacked = self._attacks(name, record, pictures)
        seen = measure_sample(self.network, sample, self.settings.threat if attacked else None)
        run, step = EventRun(time.time()), record.epoch

        def scalar(tag: str, value: float | None, text: str) -> None:
            if value is not None and math.isfinite(value):
                run.scalar(tag, value, step=step, description=f"{text} {TEXT}")

        if name == TRAIN:
            scalar("loss", record.loss, "Mean objective over the epoch's batches.")
            scalar("error", seen.error, f"Share misclassified of {len(sample)} training examples.")
            scalar("learning_rate", record.learning_rate, "Of the epoch's last step.")
            scalar("momentum", record.momentum, "Of the epoch's last step.")
            scalar("seconds", record.seconds, "Since the training began, interruptions left out.")
            self._add_norms(scalar)
            scalar("error/fgsm", seen.fgsm_error, "Share misclassified under FGSM.")
            scalar("confidence/fgsm", seen.fgsm_confidence, "Mean confidence on these.")
        else:
            scalar("loss", _first(record.loss_held_out, seen.loss), "Mean loss, unattacked.")
            scalar("error", _first(record.clean_error, seen.error), "Share misclassified.")
            self._add_attacks(scalar, record, seen)
        scalar(
            "saturation", seen.saturation, "Share whose probability of the true class rounds to 1."
        )
        if pictures:
            run.distribution("logits", seen.outputs.flatten(), step=step, description=TEXT)
            if name == TRAIN:
                self._add_weights(run, step)
            self._add_strip(run, step, seen)
            if name == VALIDATION or VALIDATION not in self.samples:
                self._add_embedding(events, sample)
        events.add(name, run)

    def _attacks(self, name: str, record: EpochRecord, pictures: bool) -> bool:
        """Returns whether a sample is attacked: the held-out one, if it is shown or not logged.

        Without held-out examples it is that of training examples.
        """
        if name == TRAIN:
            return VALIDATION not in self.samples
        return pictures or self._logged_fgsm(record)[0] is None

    def _logged_fgsm(self, record: EpochRecord) -> tuple[float | None, float | None]:
        if self.settings.log_attack == "fgsm":
            return record.adversarial_error, record.adversarial_confidence
        return record.fgsm_error, record.fgsm_confidence

    def _add_norms(self, scalar: Callable[[str, float | None, str], None]) -> None:
        totals = {"weight_norm": 0.0, "gradient_norm": 0.0}
        for name, parameter in self.network.module.named_parameters():
            parts = {"weight_norm": parameter.detach(), "gradient_norm": parameter.grad}
            for tag, tensor in parts.items():
                if tensor is not None:
                    norm = float(torch.linalg.vector_norm(tensor.detach().float()))
                    totals[tag] += norm**2
                    scalar(f"{tag}/{name}", norm, "L2 norm; gradients of the epoch's last step.")
        for tag, square in totals.items():
            scalar(tag, math.sqrt(square), "L2 norm over all parameters.")

    def _add_attacks(
        self,
        scalar: Callable[[str, float | None, str], None],
        record: EpochRecord,
        seen: SampleFigures,
    ) -> None:
        found = {"fgsm": self._logged_fgsm(record)}
        if found["fgsm"][0] is None:
            found["fgsm"] = (seen.fgsm_error, seen.fgsm_confidence)
        if self.settings.log_attack == "pgd":
            found["pgd"] = (record.adversarial_error, record.adversarial_confidence)
        for attack, (error, confidence) in found.items():
            words = f"under {attack.upper()} at epsilon {self.settings.threat.epsilon}."
            scalar(f"error/{attack}", error, f"Share misclassified {words}")
            scalar(f"confidence/{attack}", confidence, f"Mean confidence on misclassified {words}")

    def _add_weights(self, run: EventRun, step: int) -> None:
        for name, parameter in self.network.module.named_parameters():
            values = parameter.detach().float().flatten().cpu().numpy()
            run.distribution(f"weights/{name}", values, step=step, description=TEXT)
        filters = first_filters(self.network.module, self.samples[TRAIN])
        if filters is not None:
            text = f"Filters of the first layer, each scaled to its range. {TEXT}"
            run.image("first_layer", grid_png(filters), step=step, description=text)

    def _add_strip(self, run: EventRun, step: int, seen: SampleFigures) -> None:
        if seen.clean is None or seen.attacked is None:
            return
        bounds, epsilon = self.network.bounds, max(self.settings.threat.radius, 1e-12)
        change = seen.attacked - seen.clean
        largest = max(float(np.abs(change).max()), 1e-12)
        rows = (
            (seen.clean - bounds.low) / bounds.width,
            0.5 + change / (2 * largest),
            (seen.attacked - bounds.low) / bounds.width,
        )
        text = (
            f"Clean, the change by FGSM at epsilon {self.settings.threat.epsilon} (largest change "
            f"{largest / epsilon:.2f} epsilon, scaled to the whole range), adversarial. {TEXT}"
        )
        run.image("adversarial", grid_png(np.stack(rows)), step=step, description=text)

    def _add_embedding(self, events: TrainingEvents, sample: ExampleFeed) -> None:
        vectors, inputs, labels = last_hidden(self.network, sample)
        sprite, side = None, (1, 1)
        if inputs.ndim == 4 and inputs.shape[1] in (1, 3):
            low, width = self.network.bounds.low, self.network.bounds.width
            pixels = np.clip((inputs - low) / width, 0, 1)
            rows = math.ceil(math.sqrt(len(pixels)))
            whole = np.ones((rows * rows, *pixels.shape[1:]), pixels.dtype)
            whole[: len(pixels)] = pixels
            side = (pixels.shape[3], pixels.shape[2])
            sprite = grid_png(whole.reshape(rows, rows, *pixels.shape[1:]), gap=0, least=1)
        names = [str(label) for label in labels.tolist()]
        events.add_embedding(vectors, names, sprite=sprite, side=side)

    def _add_graph(self, events: TrainingEvents) -> None:
        with self._undisturbed():
            inputs, _ = next(self.samples[TRAIN].in_order(1))
            graph = graph_of(self.network.whole, inputs)
        if graph is not None:
            events.add_graph(graph)


@dataclass(frozen=True)
class SampleFigures:
    """Figures of a sample, its outputs, and a few pictures before and after FGSM."""

    loss: float
    error: float
    saturation: float
    outputs: NDArray[np.float32]
    fgsm_error: float | None = None
    fgsm_confidence: float | None = None
    clean: NDArray[np.float32] | None = None
    attacked: NDArray[np.float32] | None = None


def measure_sample(
    network: TrainedNetwork, sample: ExampleFeed, threat: ThreatModel | None
) -> SampleFigures:
    """Returns a network's figures on a sample, clean and under FGSM, in evaluation mode.

    Without a threat model, or with an epsilon of 0, it is not attacked.
    """
    parts = [
        _look(network, inputs, labels, None if threat is None or threat.radius == 0 else threat)
        for inputs, labels in sample.in_order(BATCH)
    ]
    attacked = torch.cat([each.attacked for each in parts])
    wrong = torch.cat([each.fooled for each in parts])
    confidence = torch.cat([each.confidence for each in parts])[wrong]
    clean = parts[0].inputs
    pictures = clean.ndim == 4 and clean.shape[1] in (1, 3) and len(attacked) > 0
    return SampleFigures(
        loss=float(torch.cat([each.losses for each in parts]).double().mean()),
        error=_share(torch.cat([each.mistaken for each in parts])),
        saturation=_share(torch.cat([each.saturated for each in parts])),
        outputs=torch.cat([each.outputs for each in parts]).cpu().numpy(),
        fgsm_error=_share(wrong) if len(wrong) else None,
        fgsm_confidence=float(confidence.mean()) if len(confidence) else None,
        clean=clean[:SHOWN].cpu().numpy() if pictures else None,
        attacked=attacked[:SHOWN].cpu().numpy() if pictures else None,
    )


@dataclass(frozen=True)
class _SampleBatch:
    """One batch of a sample, with a value for each example; empty tensors if it is not attacked."""

    inputs: Tensor
    outputs: Tensor
    losses: Tensor
    mistaken: Tensor
    saturated: Tensor
    attacked: Tensor
    fooled: Tensor
    confidence: Tensor


def _look(
    network: TrainedNetwork, inputs: Tensor, labels: Tensor, threat: ThreatModel | None
) -> _SampleBatch:
    rule = network.rule
    leaf = inputs.detach().requires_grad_(threat is not None)
    with torch.set_grad_enabled(threat is not None):
        outputs = network.outputs(leaf)
        losses = rule.loss(outputs, labels)
    points, attacked = inputs[:0], outputs.detach()[:0]
    if threat is not None:
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        allowed = region(inputs, threat=threat)
        points = allowed.project(inputs + threat.radius * allowed.unit(gradient))
        with torch.no_grad():
            attacked = network.outputs(points)
    outputs = outputs.detach()
    return _SampleBatch(
        inputs=inputs,
        outputs=outputs,
        losses=losses.detach(),
        mistaken=outputs.argmax(1) != labels,
        saturated=rule.true_class_probability(outputs, labels) == 1,
        attacked=points,
        fooled=attacked.argmax(1) != labels[: len(attacked)],
        confidence=rule.confidence(attacked),
    )


def first_filters(module: nn.Module, sample: ExampleFeed) -> NDArray[np.float32] | None:
    """Returns filters of the first layer in a grid, each scaled to [0, 1]; None if not pictures.

    They are the weights of the first convolution of pictures, or the rows of the first matrix that
    takes a whole picture.
    """
    inputs, _ = next(sample.in_order(1))
    shape = inputs.shape[1:]
    if len(shape) != 3 or shape[0] not in (1, 3):
        return None
    for parameter in module.parameters():
        weights = parameter.detach().float()
        if weights.ndim == 4 and weights.shape[1] == shape[0] and min(weights.shape[2:]) > 1:
            filters = weights
        elif weights.ndim in (1, 2) and weights.shape[-1] == shape.numel():
            filters = weights.view(-1, *shape)
        else:
            continue
        filters = filters[:FILTERS]
        low, high = filters.amin((1, 2, 3), keepdim=True), filters.amax((1, 2, 3), keepdim=True)
        scaled = (filters - low) / (high - low).clamp(min=1e-12)
        columns = math.ceil(math.sqrt(len(scaled)))
        rows = math.ceil(len(scaled) / columns)
        grid = torch.ones(rows * columns, *scaled.shape[1:])
        grid[: len(scaled)] = scaled.cpu()
        whole: NDArray[np.float32] = grid.view(rows, columns, *scaled.shape[1:]).numpy()
        return whole
    return None


def last_hidden(
    network: TrainedNetwork, sample: ExampleFeed
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Returns the last hidden layer on a sample, its inputs, made small, and its labels.

    It is what the last submodule with parameters that is called takes; if that submodule returns no
    outputs of the network, what it returns.  Of a layer wider than `WIDEST` every k-th unit is
    taken, and so are pixels of pictures larger than `SPRITE_SIDE`.
    """
    found: list[tuple[Tensor, Tensor]] = []
    last: list[tuple[Tensor, Tensor]] = []
    labels_of: list[Tensor] = []

    def note(part: nn.Module, given: tuple[Any, ...], returned: Any) -> None:
        if given and isinstance(given[0], Tensor) and isinstance(returned, Tensor):
            last[:] = [(given[0].detach(), returned.detach())]

    leaves = [
        part
        for part in network.module.modules()
        if next(part.parameters(recurse=False), None) is not None and part is not network.module
    ]
    handles = [part.register_forward_hook(note) for part in leaves]
    try:
        for inputs, labels in sample.in_order(BATCH):
            last.clear()
            with torch.no_grad():
                outputs = network.outputs(inputs)
            hidden = _hidden(last, outputs)
            strided = hidden[:, :: -(-hidden.shape[1] // WIDEST)]
            if inputs.ndim == 4:
                every = -(-max(inputs.shape[2:]) // SPRITE_SIDE)
                inputs = inputs[:, :, ::every, ::every]
            found.append((strided.float().cpu(), inputs.cpu()))
            labels_of.append(labels.cpu())
    finally:
        for handle in handles:
            handle.remove()
    vectors, small = (torch.cat(each).numpy() for each in zip(*found, strict=True))
    return vectors, small, torch.cat(labels_of).numpy()


def _hidden(last: Sequence[tuple[Tensor, Tensor]], outputs: Tensor) -> Tensor:
    if not last or len(last[0][0]) != len(outputs) or len(last[0][1]) != len(outputs):
        return outputs
    taken, returned = (each.flatten(1) for each in last[0])
    return taken if returned.shape == outputs.shape else returned


def graph_of(module: nn.Module, inputs: Tensor) -> bytes | None:
    """Returns a module's graph as a serialised ``GraphDef``; None if it can't be traced."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                with SummaryWriter(folder) as writer:
                    writer.add_graph(module, inputs)
        except Exception:  # noqa: BLE001  tracing runs the user's code, and may not support it
            return None
        for path in Path(folder).iterdir():
            for content in RawEventFileLoader(str(path)).Load():
                event = Event.FromString(content)
                if event.graph_def:
                    graph: bytes = event.graph_def
                    return graph
    return None


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _share(mask: Tensor) -> float:
    return float(mask.double().mean())
