"""Galleries as a report shows them: pictures that carry their own content, and words for each."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gibbon.records.gallery import Gallery, gallery_file, read_gallery
from gibbon.report.content.lookup import Cut, Results
from gibbon.report.content.number_format import percent
from gibbon.specs.suite import Experiment

_SHEET_SIDE: Final = 84  # pixels of a picture on a sheet, at least
_SHEET_WORDS: Final = 300
_GAP: Final = 6
_LINE: Final = 16
_FONT_SIZE: Final = 12
_RANDOM: Final = "random"
_REASONS: Final = {"misled": "misled with the greatest confidence", "withstood": "withstood"}
_BEYOND: Final = "beyond the input's bounds, shown at them"
_PARTS: Final = ("clean", "change, scaled", "adversarial")


@dataclass(frozen=True)
class Answered:
    """What a model said of an input, in words, and whether it is right."""

    label: str
    confidence: str
    right: bool

    def __str__(self) -> str:
        return f"{self.label}, {self.confidence} ({'right' if self.right else 'wrong'})"


@dataclass(frozen=True)
class Example:
    """One example of a gallery: three pictures as addresses, and what is known of it."""

    title: str
    pictures: tuple[str, ...]
    before: Answered
    after: Answered
    words: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Strip:
    """The random or the chosen examples of a gallery."""

    title: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class GalleryView:
    """The gallery of one model under one attack; ``notes`` hold for all of its pictures."""

    cut: Cut
    model: str
    strips: tuple[Strip, ...]
    notes: tuple[str, ...]


def galleries(results: Results, folder: Path) -> Iterator[tuple[Experiment, str, Cut, Gallery]]:
    """Yields the galleries that a run's folder holds, with what each is of."""
    for experiment, model, cut, digest in _cells(results):
        gallery = read_gallery(folder, digest)
        if gallery is not None:
            yield experiment, model, cut, gallery


def damaged_galleries(
    results: Results, folder: Path, *, read: Collection[str]
) -> tuple[tuple[str, Path], ...]:
    """Returns model and file of the galleries that are there, but not among the digests read."""
    return tuple(
        (model, gallery_file(folder, digest))
        for _, model, _, digest in _cells(results)
        if digest not in read and gallery_file(folder, digest).exists()
    )


def _cells(results: Results) -> Iterator[tuple[Experiment, str, Cut, str]]:
    for experiment in results.experiments:
        for cut in results.cuts(experiment):
            for model in experiment.models:
                found = results.evaluation(cut, model.name)
                if found is not None and found.status == "done" and found.digest:
                    yield experiment, model.name, cut, found.digest


def gallery_view(model: str, cut: Cut, gallery: Gallery, classes: Sequence[str]) -> GalleryView:
    """Returns a gallery for a page."""
    places = range(len(gallery.label))
    beyond = all(gallery.beyond(place) for place in places)
    examples = [_example(gallery, place, classes, say_beyond=not beyond) for place in places]
    strips = [
        Strip(
            title,
            tuple(
                each
                for each, why in zip(examples, gallery.why, strict=True)
                if (why == _RANDOM) is random
            ),
        )
        for title, random in (("Random examples", True), ("Chosen examples", False))
    ]
    notes = [_smaller(gallery)] if gallery.smaller else []
    if gallery.narrowed:
        notes.append(_narrowed(gallery))
    if beyond:
        notes.append(f"The adversarial examples are {_BEYOND}.")
    return GalleryView(cut, model, tuple(each for each in strips if each.examples), tuple(notes))


def gallery_sheet(gallery: Gallery, classes: Sequence[str]) -> bytes:
    """Returns a gallery as one PNG: a row an example, with its words."""
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
            # The font that comes with Pillow has few signs beyond ASCII.
            pen.text(at, text.encode("ascii", "replace").decode(), fill="black", font=font)
    stream = io.BytesIO()
    sheet.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _example(
    gallery: Gallery, place: int, classes: Sequence[str], *, say_beyond: bool = True
) -> Example:
    truth = int(gallery.label[place])
    before = _answered(gallery.before[place], gallery.sure_before[place], truth, classes)
    after = _answered(gallery.after[place], gallery.sure_after[place], truth, classes)
    title = f"#{gallery.example_id[place]}: {_name(truth, classes)}"
    why = gallery.why[place]
    notes = [_REASONS[why]] if why in _REASONS else []
    if not gallery.valid[place]:
        notes.append("out of the threat model: counts for nothing")
    if say_beyond and gallery.beyond(place):
        notes.append(_BEYOND)
    if not gallery.change[place].any():
        notes.append("unchanged")
    return Example(
        title,
        tuple(_address(picture) for picture in gallery.pictures(place)),
        before,
        after,
        f"Example {title}. Clean: {before}. Adversarial: {after}. The change between them is drawn "
        f"so that its largest size, {gallery.scale[place]:.3g}, is black or white.",
        tuple(notes),
    )


def _answered(
    predicted: np.int32, confidence: np.float32, truth: int, classes: Sequence[str]
) -> Answered:
    return Answered(
        _name(int(predicted), classes), percent(float(confidence)), int(predicted) == truth
    )


def _name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if 0 <= label < len(classes) else f"class {label}"


def _smaller(gallery: Gallery) -> str:
    height, width = gallery.clean.shape[2:]
    return (
        f"Pictures of {gallery.shape[0]} × {gallery.shape[1]} shown at {height} × {width}: each "
        "pixel is the mean of those it stands for, so that fine changes look weaker than they are."
    )


def _narrowed(gallery: Gallery) -> str:
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


def _address(picture: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    _picture(picture).save(stream, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
