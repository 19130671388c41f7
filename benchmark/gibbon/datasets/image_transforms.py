"""Transforms of images, and a check from headers alone that they give inputs of one shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from PIL.Image import Image

from gibbon.core.errors import DatasetError
from gibbon.specs.base import Size
from gibbon.specs.suite import DatasetSpec

Colour = Literal["grey", "rgb"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

# PIL's modes with at most 8 bits a channel; all others have more.
GREY_MODES = ("1", "L", "LA", "La")
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")
MODES: dict[Colour, str] = {"grey": "L", "rgb": "RGB"}
CHANNELS: dict[Colour, int] = {"grey": 1, "rgb": 3}
PPM_CODECS = ("ppm", "ppm_plain")
PIXEL_MAX = 255
EXIF_ORIENTATION = 0x0112
UPRIGHT = 1


@dataclass(frozen=True)
class ImageHeader:
    """Header of an image file.

    Args:
        height, width: in pixels.
        mode: PIL's mode, such as ``"RGB"``.
        transparent: whether it has transparency.
        deep: whether it has more than 8 bits a channel.
        turned: whether its EXIF data have an orientation.
    """

    height: int
    width: int
    mode: str
    transparent: bool = False
    deep: bool = False
    turned: bool = False


def colour_of(mode: str) -> Colour:
    """Returns ``"grey"`` or ``"rgb"`` for one of PIL's modes."""
    return "grey" if mode in GREY_MODES else "rgb"


def read_header(picture: Image) -> ImageHeader:
    """Returns the header of an image, without decoding it."""
    return ImageHeader(
        height=picture.height,
        width=picture.width,
        mode=picture.mode,
        transparent=bool(picture.has_transparency_data),
        deep=picture.mode not in GREY_MODES + COLOUR_MODES or _is_cut(picture),
        # Asking for EXIF data that the header does not hold would decode the picture.
        turned="exif" in picture.info
        and picture.getexif().get(EXIF_ORIENTATION, UPRIGHT) != UPRIGHT,
    )


def _is_cut(picture: Image) -> bool:
    """Returns whether PIL decodes an image to fewer bits than it has, as it does with colours."""
    for tile in getattr(picture, "tile", None) or ():
        raw, *others = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if tile.codec_name in PPM_CODECS and others[0] > PIXEL_MAX:
            return True
        # A raw mode such as "RGB;16B"; "BGR;16" is 16 bits a pixel.
        _, _, bits = str(raw).partition(";")
        if bits.startswith("16") and not str(raw).startswith("BGR"):
            return True
    return False


@dataclass(frozen=True)
class Preparation:
    """Transforms that are applied to every image, in this order: colour, resize, crop.

    Args:
        resize: new length of the shorter side, or (height, width); not resized if None.
        crop: side of a square that is cropped from the centre, or (height, width).
        interpolation: filter that resizes.
        colour: colour mode that images are converted to; not converted if None.
    """

    resize: Size | None = None
    crop: Size | None = None
    interpolation: Interpolation = "bilinear"
    colour: Colour | None = None

    @classmethod
    def of(cls, spec: DatasetSpec) -> Preparation:
        """Returns the transforms that a spec declares."""
        return cls(spec.resize, spec.crop, spec.interpolation, spec.colour)

    @property
    def declared(self) -> dict[str, Any]:
        """Options that change an input, by name; for digests."""
        options: dict[str, Any] = {"resize": self.resize, "crop": self.crop, "colour": self.colour}
        if self.resize is not None:
            options["interpolation"] = self.interpolation
        return {key: value for key, value in options.items() if value is not None}

    def resized(self, header: ImageHeader) -> tuple[int, int]:
        """Returns the (height, width) of an image after resizing.

        >>> Preparation(resize=256).resized(ImageHeader(375, 500, "RGB"))
        (256, 341)
        """
        height, width = header.height, header.width
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        if width <= height:
            return int(self.resize * height / width), self.resize
        return self.resize, int(self.resize * width / height)

    def size(self, header: ImageHeader) -> tuple[int, int]:
        """Returns the (height, width) of the input made from an image."""
        return self.resized(header) if self.crop is None else both_sides(self.crop)

    def input_shape(self, header: ImageHeader) -> tuple[int, int, int]:
        """Returns the shape (C, H, W) of the input made from an image."""
        return (CHANNELS[self.colour or colour_of(header.mode)], *self.size(header))


@dataclass
class ImageConsistency:
    """Checks that images become inputs of one shape and colour mode.

    Args:
        dataset: name in error messages.
        preparation: transforms of every image.
    """

    dataset: str
    preparation: Preparation
    first: tuple[str, ImageHeader] | None = None
    converted: dict[str, int] = field(default_factory=dict)
    turned: int = 0

    def add(self, name: str, header: ImageHeader) -> None:
        """Adds an image; ``name`` is its name in error messages.

        Raises `DatasetError` if it can't be used, or differs from the first one.
        """
        if header.deep:
            raise DatasetError(
                f"{self._say(name)} has more than 8 bits a channel ({header.mode}), which would be "
                "cut off silently: convert it to 8 bits a channel"
            )
        self._check_crop(name, header)
        self.first = self.first or (name, header)
        self._check_colour(name, header, *self.first)
        self._check_size(name, header, *self.first)
        self.turned += header.turned
        wanted = MODES[self.preparation.colour or colour_of(header.mode)]
        if header.mode != wanted:
            change = f"{header.mode} converted to {wanted}"
            if header.transparent:
                change += ", its transparency dropped"
            self.converted[change] = self.converted.get(change, 0) + 1

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about conversions of the images."""
        notes = [f"{_pictures(n)}: {change}." for change, n in sorted(self.converted.items())]
        if self.turned:
            notes.append(
                f"{_pictures(self.turned)} with an EXIF orientation, which is not applied, as in "
                "torchvision."
            )
        return tuple(notes)

    def _say(self, name: str) -> str:
        return f"dataset {self.dataset!r}: {name}"

    def _check_crop(self, name: str, header: ImageHeader) -> None:
        if self.preparation.crop is None:
            return
        height, width = self.preparation.resized(header)
        crop_height, crop_width = both_sides(self.preparation.crop)
        if crop_height > height or crop_width > width:
            resized = "" if self.preparation.resize is None else " once it is resized"
            raise DatasetError(
                f"{self._say(name)} is {height} x {width}{resized}, smaller than the crop of "
                f"{crop_height} x {crop_width}: resize to more (--resize "
                f"{max(crop_height, crop_width)}) or crop to less"
            )

    def _check_colour(
        self, name: str, header: ImageHeader, first: str, earlier: ImageHeader
    ) -> None:
        if self.preparation.colour is not None:
            return
        if header.transparent:
            other = "" if first == name else f", {first} is {_kind(earlier)}"
            raise DatasetError(
                f"{self._say(name)} has transparency ({header.mode}){other}: choose a "
                "conversion, --colour rgb or --colour grey, which drops the transparency"
            )
        if colour_of(header.mode) != colour_of(earlier.mode):
            raise DatasetError(
                f"{self._say(first)} is {_kind(earlier)}, {name} is {_kind(header)}: choose a "
                "conversion, --colour rgb or --colour grey"
            )

    def _check_size(self, name: str, header: ImageHeader, first: str, earlier: ImageHeader) -> None:
        before, now = self.preparation.size(earlier), self.preparation.size(header)
        if before == now:
            return
        sizes = (
            f"{first} is {before[0]} x {before[1]} (height x width), {name} is {now[0]} x {now[1]}"
        )
        if self.preparation.resize is None:
            cure = "give one size for all, such as --resize 256 --crop 224"
        else:
            sizes += f", both with the shorter side resized to {self.preparation.resize}"
            cure = (
                f"add a crop, such as --crop {self.preparation.resize}, or resize both sides, "
                "--resize HxW"
            )
        raise DatasetError(f"dataset {self.dataset!r}: pictures of several sizes: {sizes}: {cure}")


def both_sides(size: Size) -> tuple[int, int]:
    """Returns (height, width) of a size that is given as one side or as both."""
    return size if isinstance(size, tuple) else (size, size)


def _kind(header: ImageHeader) -> str:
    return f"{'grey' if colour_of(header.mode) == 'grey' else 'in colour'} ({header.mode})"


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"
