"""What is done to pictures, and whether they then go together: told from their headers alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from PIL.Image import Image

from gibbon.core.errors import DatasetError

Size = int | tuple[int, int]
Colour = Literal["grey", "rgb"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

# What PIL calls 8 bits a channel or fewer; all others hold more.
GREY_MODES = ("1", "L", "LA", "La")
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")
MODES: dict[Colour, str] = {"grey": "L", "rgb": "RGB"}
CHANNELS: dict[Colour, int] = {"grey": 1, "rgb": 3}
PPM_CODECS = ("ppm", "ppm_plain")
PIXEL_MAX = 255
EXIF_ORIENTATION = 0x0112
UPRIGHT = 1


@dataclass(frozen=True)
class Look:
    """What a picture's header says of it.

    Args:
        height, width: in pixels.
        mode: PIL's name of its kind, such as ``"RGB"``.
        transparent: whether it has transparency.
        deep: whether it has more than 8 bits a channel.
        turned: whether its EXIF data say that it is to be shown turned.
    """

    height: int
    width: int
    mode: str
    transparent: bool = False
    deep: bool = False
    turned: bool = False

    @property
    def colour(self) -> Colour:
        """Whether it has colours."""
        return colour_of(self.mode)


def colour_of(mode: str) -> Colour:
    """Returns whether pictures of one of PIL's modes have colours."""
    return "grey" if mode in GREY_MODES else "rgb"


def look_at(picture: Image) -> Look:
    """Returns what a picture's header says, without decoding it."""
    return Look(
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
    """Says whether PIL decodes a picture to fewer bits than it has, as it does with colours."""
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
    """What is done to every picture, in this order: colour, resize, crop.

    Args:
        resize: the shorter side becomes this, or the picture (height, width); as it is if None.
        crop: then cropped from the centre to a square of this side, or to (height, width).
        interpolation: how it is resized.
        colour: what it is converted to; as it is if None.
    """

    resize: Size | None = None
    crop: Size | None = None
    interpolation: Interpolation = "bilinear"
    colour: Colour | None = None

    @property
    def declared(self) -> dict[str, Any]:
        """What changes an input, by the names of the options; for digests."""
        options: dict[str, Any] = {"resize": self.resize, "crop": self.crop, "colour": self.colour}
        if self.resize is not None:
            options["interpolation"] = self.interpolation
        return {key: value for key, value in options.items() if value is not None}

    def resized(self, look: Look) -> tuple[int, int]:
        """Returns the (height, width) of a picture once it is resized.

        >>> Preparation(resize=256).resized(Look(375, 500, "RGB"))
        (256, 341)
        """
        height, width = look.height, look.width
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        if width <= height:
            return int(self.resize * height / width), self.resize
        return self.resize, int(self.resize * width / height)

    def size(self, look: Look) -> tuple[int, int]:
        """Returns the (height, width) of the input that a picture becomes."""
        return self.resized(look) if self.crop is None else both_sides(self.crop)


@dataclass
class Agreement:
    """Sees to it that pictures become inputs of one shape and one kind.

    Args:
        dataset: what errors call the dataset.
        preparation: what is done to every picture.
    """

    dataset: str
    preparation: Preparation
    first: tuple[str, Look] | None = None
    converted: dict[str, int] = field(default_factory=dict)
    turned: int = 0

    def add(self, name: str, look: Look) -> None:
        """Takes in one more picture; ``name`` is what errors call it.

        Raises `DatasetError` where it can't be used, or does not go with the first one.
        """
        if look.deep:
            raise DatasetError(
                f"{self._say(name)} has more than 8 bits a channel ({look.mode}), which would be "
                "cut off silently: convert it to 8 bits a channel"
            )
        self._check_crop(name, look)
        self.first = self.first or (name, look)
        self._check_colour(name, look)
        self._check_size(name, look)
        self.turned += look.turned
        wanted = MODES[self.preparation.colour or look.colour]
        if look.mode != wanted:
            change = f"{look.mode} converted to {wanted}"
            if look.transparent:
                change += ", its transparency dropped"
            self.converted[change] = self.converted.get(change, 0) + 1

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of all inputs."""
        if self.first is None:
            raise DatasetError(f"dataset {self.dataset!r} has no picture that can be read")
        _, look = self.first
        channels = CHANNELS[self.preparation.colour or look.colour]
        return (channels, *self.preparation.size(look))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to pictures that is worth knowing, as sentences."""
        notes = [f"{_pictures(n)}: {change}." for change, n in sorted(self.converted.items())]
        if self.turned:
            notes.append(
                f"{_pictures(self.turned)} with an EXIF orientation, which is not applied, as in "
                "torchvision."
            )
        return tuple(notes)

    def _say(self, name: str) -> str:
        return f"dataset {self.dataset!r}: {name}"

    def _check_crop(self, name: str, look: Look) -> None:
        if self.preparation.crop is None:
            return
        height, width = self.preparation.resized(look)
        crop_height, crop_width = both_sides(self.preparation.crop)
        if crop_height > height or crop_width > width:
            resized = "" if self.preparation.resize is None else " once it is resized"
            raise DatasetError(
                f"{self._say(name)} is {height} x {width}{resized}, smaller than the crop of "
                f"{crop_height} x {crop_width}: resize to more (--resize "
                f"{max(crop_height, crop_width)}) or crop to less"
            )

    def _check_colour(self, name: str, look: Look) -> None:
        if self.preparation.colour is not None or self.first is None:
            return
        first, earlier = self.first
        if look.transparent:
            other = "" if first == name else f", {first} is {_kind(earlier)}"
            raise DatasetError(
                f"{self._say(name)} has transparency ({look.mode}){other}: say what pictures are "
                "converted to, --colour rgb or --colour grey, which drops the transparency"
            )
        if look.colour != earlier.colour:
            raise DatasetError(
                f"{self._say(first)} is {_kind(earlier)}, {name} is {_kind(look)}: say what "
                "pictures are converted to, --colour rgb or --colour grey"
            )

    def _check_size(self, name: str, look: Look) -> None:
        if self.first is None:
            return
        first, earlier = self.first
        before, now = self.preparation.size(earlier), self.preparation.size(look)
        if before == now:
            return
        sizes = (
            f"{first} is {before[0]} x {before[1]} (height x width), {name} is {now[0]} x {now[1]}"
        )
        if self.preparation.resize is None:
            cure = "say a size for all, such as --resize 256 --crop 224"
        else:
            sizes += f", both with the shorter side resized to {self.preparation.resize}"
            cure = (
                f"add a crop, such as --crop {self.preparation.resize}, or resize both sides, "
                "--resize HxW"
            )
        raise DatasetError(f"dataset {self.dataset!r}: pictures of several sizes: {sizes}: {cure}")


def both_sides(size: Size) -> tuple[int, int]:
    """Returns height and width of what is written as one side or as both."""
    return size if isinstance(size, tuple) else (size, size)


def _kind(look: Look) -> str:
    return f"{'grey' if look.colour == 'grey' else 'in colour'} ({look.mode})"


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"
