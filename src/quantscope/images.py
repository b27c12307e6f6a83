"""Photos as samples: where they are, what their labels are, and how pixels become a model's input."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from quantscope.errors import DataError

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"))
_LABEL_LIST = "val.txt"
_CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}


class UnreadableImageError(DataError):
    """A photo that cannot be used. It does not end a run: it is named, counted and passed over."""


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes an array: value = (pixel · scale − mean) / std, in float32.

    `resize` brings the short side to so many pixels, `crop` cuts (height, width) from the centre, `size`
    resizes to (height, width) whatever the shape was and excludes both. `mean` and `std` have one number, or
    one per channel in the order of `channels`. Resizing is bilinear with antialiasing; the long side becomes
    int(resize · long / short), as torchvision has it. An odd margin of a crop leaves its extra pixel at the right and
    the bottom.
    """

    resize: int | None = None
    crop: int | tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: str = "rgb"
    layout: str = "nchw"

    def __post_init__(self) -> None:
        if self.channels not in _CHANNELS:
            raise DataError(f"unknown channel order {self.channels!r}", accepted=", ".join(_CHANNELS))
        if self.layout not in ("nchw", "nhwc"):
            raise DataError(f"unknown layout {self.layout!r}", accepted="nchw, nhwc")
        for name, values in (("mean", self.mean), ("std", self.std)):
            known = isinstance(values, tuple | list) and len(values) in (1, _CHANNELS[self.channels])
            if not known or not all(map(_is_finite, values)):
                accepted = " or ".join(str(n) for n in sorted({1, _CHANNELS[self.channels]}))
                raise DataError(f"{name} is {values} for {self.channels}", accepted=f"{accepted} finite numbers")
        if 0 in self.std:
            raise DataError(f"std is {self.std}", accepted="numbers other than 0")
        if not _is_finite(self.scale) or self.scale == 0:
            raise DataError(f"scale is {self.scale}", accepted="a number other than 0, such as 1/255")
        self._check_sizes()

    def _check_sizes(self) -> None:
        if self.size is not None and (self.resize is not None or self.crop is not None):
            raise DataError("size is given together with resize or crop", accepted="size alone, or resize and crop")
        for name, pair in (("crop", self.crop_size), ("size", self.size or ())):
            known = isinstance(pair, tuple | list) and len(pair) in (0, 2)
            if not known or any(type(pixels) is not int or pixels < 1 for pixels in pair):
                raise DataError(f"{name} is {pair}", accepted="(height, width), both whole and 1 or more")
        short = self.resize
        if short is not None and (type(short) is not int or short < min(self.crop_size or (1,))):
            raise DataError(
                f"resize is {self.resize}, crop is {self.crop}",
                accepted="a short side of 1 pixel or more, whole, and not smaller than the crop",
            )

    @property
    def crop_size(self) -> tuple[int, ...]:
        """The crop as (height, width); () without a crop."""
        if self.crop is None:
            return ()
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop

    def apply(self, image: Image.Image) -> NDArray[np.float32]:
        """The photo as float32, shape (C, H, W) or (H, W, C) by `layout`, turned as EXIF says.

        Raises:
            UnreadableImageError: it is smaller than the crop, or its pixels have more than 8 bits.
        """
        if image.mode.startswith(("I", "F")):
            # Pillow would cut every value above 255 to 255.
            raise UnreadableImageError(f"its pixels are of mode {image.mode}, more than 8 bits; save it with 8 bits")
        image = ImageOps.exif_transpose(image).convert("L" if self.channels == "gray" else "RGB")
        if self.size:
            image = image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)
        elif self.resize:
            short = min(image.size)
            scaled = (int(self.resize * image.width / short), int(self.resize * image.height / short))
            if scaled != image.size:
                image = image.resize(scaled, Image.Resampling.BILINEAR)
        if self.crop_size:
            image = self._cropped(image, *self.crop_size)
        pixels = np.asarray(image, np.float32).reshape(image.height, image.width, -1)
        if self.channels == "bgr":
            pixels = pixels[..., ::-1]
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        values = (pixels * np.float32(self.scale) - mean) / std
        return np.ascontiguousarray(values.transpose(2, 0, 1) if self.layout == "nchw" else values)

    @staticmethod
    def _cropped(image: Image.Image, height: int, width: int) -> Image.Image:
        if image.width < width or image.height < height:
            raise UnreadableImageError(
                f"{image.height}x{image.width}, smaller than the crop {height}x{width}; set resize"
            )
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))

    def to_spec(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return asdict(self)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Preprocessing:
        """The settings that `to_spec` gave.

        Raises:
            DataError: there is a setting that does not exist.
        """
        unknown = sorted(set(spec) - {setting.name for setting in fields(cls)})
        if unknown:
            raise DataError(
                f"unknown preprocessing settings: {', '.join(unknown)}",
                accepted=", ".join(setting.name for setting in fields(cls)),
            )
        settings: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()
        }
        return cls(**settings)

    def __str__(self) -> str:
        preset = next((name for name, known in PRESETS.items() if known == self), None)
        if preset:
            return f"preset {preset}"
        changed = [f for f in fields(self) if getattr(self, f.name) != f.default]
        return "preprocessing " + (", ".join(f"{f.name} {getattr(self, f.name)}" for f in changed) or "none")


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


PRESETS: Mapping[str, Preprocessing] = {
    "imagenet-torch": Preprocessing(
        resize=256, crop=224, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    "imagenet-caffe": Preprocessing(resize=256, crop=224, mean=(103.939, 116.779, 123.68), channels="bgr"),
    "imagenet-tf": Preprocessing(resize=256, crop=224, scale=1 / 127.5, mean=(1.0,)),
}


@dataclass(frozen=True)
class Photo:
    """A file, its name for people (as listed, or within the folder), and its label if it has one."""

    path: Path
    name: str
    label: int | None


@dataclass(frozen=True)
class PhotoFolder:
    """The photos of a folder in a fixed order, and where their labels come from."""

    photos: tuple[Photo, ...]
    labels: str


def find_photos(folder: Path, labels: Path | None = None) -> PhotoFolder:
    """The photos in a folder, with labels from a list, from folder names, or none.

    A list is a file of "file label" lines, `val.txt` in or beside the folder if none is given; its files are
    looked for in the folder, in its folder `val`, and beside the list. Without a list each sub-folder is a
    class, numbered in sorted order, or by its name if all names are whole numbers.

    Raises:
        DataError: there is no photo, or a line of the list is malformed.
    """
    if labels is not None and not labels.is_file():
        raise DataError(f"no such label list: {labels}", accepted='a file of "file label" lines')
    beside = (folder / _LABEL_LIST, folder.resolve().parent / _LABEL_LIST)
    listed = labels or next((path for path in beside if path.is_file()), None)
    if listed is not None:
        return PhotoFolder(tuple(_listed(folder, listed)), f"labels: {listed.name}")
    flat = tuple(Photo(path, path.name, None) for path in _photos(folder))
    classes = sorted(sub for sub in folder.iterdir() if sub.is_dir() and _photos(sub))
    if flat and classes:
        raise DataError(
            f"{folder} holds {len(flat)} photos and {len(classes)} folders of photos, as {classes[0].name}",
            accepted="photos, or one folder of photos per class",
            next_step="move one kind away, or give a label list",
        )
    if not flat and not classes:
        raise DataError(
            f"no samples: no photo in {folder}",
            accepted=f"files {', '.join(sorted(EXTENSIONS))}, or one folder of them per class",
            next_step="check the folder",
        )
    if flat:
        return PhotoFolder(flat, "no labels")
    numbered = all(sub.name.isdecimal() for sub in classes)
    photos = tuple(
        Photo(path, f"{sub.name}/{path.name}", int(sub.name) if numbered else index)
        for index, sub in enumerate(classes)
        for path in _photos(sub)
    )
    return PhotoFolder(photos, f"labels: {len(classes)} class folders")


def _photos(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and p.is_file())


def _listed(folder: Path, listed: Path) -> list[Photo]:
    accepted = 'lines "file label", the label a whole number'
    try:
        lines = listed.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the label list {listed}: {error}", accepted=accepted) from error
    photos = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        # From the right: a file name may contain blanks.
        name, *rest = line.strip().rsplit(maxsplit=1)
        if not rest or not rest[0].removeprefix("-").isdecimal():
            raise DataError(f"line {number} of {listed} is {line!r}", accepted=accepted)
        places = [place / name for place in (folder, folder / "val", listed.parent)]
        photos.append(Photo(next((p for p in places if p.is_file()), places[0]), name, int(rest[0])))
    if not photos:
        raise DataError(f"no samples: the label list {listed} is empty", accepted=accepted)
    return photos


def read_photo(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The photo in a file as an array.

    Raises:
        UnreadableImageError: the file is missing, damaged, no photo, or too small.
    """
    if not path.is_file():
        raise UnreadableImageError("no such file")
    try:
        with warnings.catch_warnings():
            # A warning about the size or the metadata of a photo that can be read helps nobody.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
                return preprocessing.apply(image)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image" if path.stat().st_size else "empty file") from None
    except Exception as error:  # Pillow's decoders meet damage with nearly any type of error.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableImageError(str(reason)) from error
