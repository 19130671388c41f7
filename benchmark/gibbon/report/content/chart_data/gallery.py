"""Galleries for a report: pictures as data URLs, and a description of each."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gibbon.records.gallery import Gallery, gallery_file, read_gallery
from gibbon.report.content.parts.lookup import Condition, RunLookup
from gibbon.report.content.parts.number_format import percent
from gibbon.specs.suite import Experiment

_SHEET_SIDE: Final = 84  # pixels of a picture on a sheet, at least
_SHEET_WORDS: Final = 300
_GAP: Final = 6
_LINE: Final = 16
_FONT_SIZE: Final = 12
_RANDOM: Final = "random"
_REASONS: Final = {"misled": "misclassified with the greatest confidence", "withstood": "withstood"}
_BEYOND: Final = "beyond the input's bounds, shown at them"
_PARTS: Final = ("clean", "change, scaled", "adversarial")


@dataclass(frozen=True)
class AnswerText:
    """A model's answer as text: class, confidence, and whether it is right."""

    label: str
    confidence: str
    right: bool

    def __str__(self) -> str:
        return f"{self.label}, {self.confidence} ({'right' if self.right else 'wrong'})"


@dataclass(frozen=True)
class Example:
    """An example of a gallery: three pictures as data URLs, answers and notes."""

    title: str
    pictures: tuple[str, ...]
    before: AnswerText
    after: AnswerText
    words: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class GalleryRow:
    """The random or the selected examples of a gallery."""

    title: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class GalleryView:
    """The gallery of one model under one attack; ``notes`` apply to all its pictures."""

    condition: Condition
    model: str
    rows: tuple[GalleryRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class StoredGallery:
    """A gallery of a run, with the cell that it is of; ``gallery`` is None if it is damaged."""

    experiment: Experiment
    model: str
    condition: Condition
    file: Path
    gallery: Gallery | None


def galleries(results: RunLookup, folder: Path) -> Iterator[StoredGallery]:
    """Yields the galleries in a run's folder, in the suite's order."""
    for experiment in results.experiments:
        for condition in results.conditions(experiment):
            for model in experiment.models:
                found = results.evaluation(condition, model.name)
                if found is not None and found.status == "done" and found.digest:
                    file = gallery_file(folder, found.digest)
                    if file.exists():
                        gallery = read_gallery(folder, found.digest)
                        yield StoredGallery(experiment, model.name, condition, file, gallery)


def gallery_view(
    model: str, condition: Condition, gallery: Gallery, classes: Sequence[str]
) -> GalleryView:
    """Returns the view of a gallery for a page."""
    places = range(len(gallery.label))
    beyond = all(gallery.beyond(place) for place in places)
    examples = [_example(gallery, place, classes, say_beyond=not beyond) for place in places]
    rows = [
        GalleryRow(
            title,
            tuple(
                each
                for each, why in zip(examples, gallery.why, strict=True)
                if (why == _RANDOM) is random
            ),
        )
        for title, random in (("Random examples", True), ("Chosen examples", False))
    ]
    notes = [_size_note(gallery)] if gallery.smaller else []
    if gallery.narrowed:
        notes.append(_range_note(gallery))
    if beyond:
        notes.append(f"The adversarial examples are {_BEYOND}.")
    return GalleryView(
        condition, model, tuple(each for each in rows if each.examples), tuple(notes)
    )


def gallery_sheet(gallery: Gallery, classes: Sequence[str]) -> bytes:
    """Returns a gallery as one PNG, with a row and a description for each example."""
    font = ImageFont.load_default(_FONT_SIZE)
    shown = [
        [_enlarged(picture) for picture in gallery.pictures(place)]
        for place in range(len(gallery.label))
    ]
    wide, high = shown[0][0].size if shown else (_SHEET_SIDE, _SHEET_SIDE)
    pitch = high + _GAP
    sheet = Image.new(
        "RGB",
        (len(_PARTS) * (wide + _GAP) + _GAP + _SHEET_WORDS, len(shown) * pitch + _LINE + _GAP),
        "white",
    )
    pen = ImageDraw.Draw(sheet)
    for column, part in enumerate(_PARTS):
        pen.text((_GAP + column * (wide + _GAP), 2), part, fill="black", font=font)
    for row, pictures in enumerate(shown):
        top = _LINE + row * pitch
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (_GAP + column * (wide + _GAP), top))
        example = _example(gallery, row, classes)
        lines = (
            example.title,
            f"before: {example.before}",
            f"after: {example.after}",
            *example.notes,
        )
        for line, text in enumerate(lines):
            at = (2 * _GAP + len(_PARTS) * (wide + _GAP), top + line * _LINE)
            # Pillow's default font has few characters beyond ASCII.
            pen.text(at, text.encode("ascii", "replace").decode(), fill="black", font=font)
    stream = io.BytesIO()
    sheet.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _example(
    gallery: Gallery, place: int, classes: Sequence[str], *, say_beyond: bool = True
) -> Example:
    truth = int(gallery.label[place])
    before = _answer_text(gallery.before[place], gallery.sure_before[place], truth, classes)
    after = _answer_text(gallery.after[place], gallery.sure_after[place], truth, classes)
    title = f"#{gallery.example_id[place]}: {_name(truth, classes)}"
    why = gallery.why[place]
    notes = [_REASONS[why]] if why in _REASONS else []
    if not gallery.valid[place]:
        notes.append("out of the threat model: not counted")
    if say_beyond and gallery.beyond(place):
        notes.append(_BEYOND)
    if not gallery.change[place].any():
        notes.append("unchanged")
    return Example(
        title,
        tuple(_data_url(picture) for picture in gallery.pictures(place)),
        before,
        after,
        f"Example {title}. Clean: {before}. Adversarial: {after}. The change between them is drawn "
        f"so that its largest size, {gallery.scale[place]:.3g}, is black or white.",
        tuple(notes),
    )


def _answer_text(
    predicted: np.int32, confidence: np.float32, truth: int, classes: Sequence[str]
) -> AnswerText:
    return AnswerText(
        _name(int(predicted), classes), percent(float(confidence)).text, int(predicted) == truth
    )


def _name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if 0 <= label < len(classes) else f"class {label}"


def _size_note(gallery: Gallery) -> str:
    height, width = gallery.clean.shape[2:]
    return (
        f"Pictures of {gallery.shape[0]} × {gallery.shape[1]} shown at {height} × {width}: each "
        "pixel is the mean of those it replaces, so that fine changes look weaker than they are."
    )


def _range_note(gallery: Gallery) -> str:
    return (
        "The pictures take a small part of the input's range: drawn from "
        f"{_signed(gallery.low)}, black, to {_signed(gallery.high)}, white."
    )


def _signed(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _picture(picture: NDArray[np.uint8]) -> Any:
    if len(picture) == 1:
        return Image.fromarray(picture[0])
    return Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))


def _enlarged(picture: NDArray[np.uint8]) -> Any:
    image = _picture(picture)
    times = max(1, -(-_SHEET_SIDE // max(image.size)))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def _data_url(picture: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    _picture(picture).save(stream, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
