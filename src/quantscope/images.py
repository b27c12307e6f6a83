"""Photos as samples: where they are, what their labels are, and how pixels become a model's input."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from quantscope.errors import DataError

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"))
_LABEL_LIST = "val.txt"
_CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}


class UnreadableImageError(Exception):
    """A photo that cannot be used; the text says why. Not an error of the run: it is counted and passed over."""


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes an array: value = (pixel · scale − mean) / std, in float32.

    `resize` brings the short side to so many pixels, `crop` cuts (height, width) from the centre, `size` resizes to
    (height, width) whatever the shape was and excludes both. `mean` and `std` have one number, or one per channel in
    the order of `channels`. Resizing is bilinear with antialiasing, to sizes as torchvision's Resize gives them; an
    odd margin leaves its extra pixel at the right and the bottom.
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
            if len(values) not in (1, _CHANNELS[self.channels]):
                raise DataError(
                    f"{name} has {len(values)} values for {self.channels}",
                    accepted=f"1 or {_CHANNELS[self.channels]} values",
                )
        if 0 in self.std:
            raise DataError(f"std is {self.std}", accepted="values other than 0")
        if self.size and (self.resize or self.crop):
            raise DataError("both size and resize or crop are given", accepted="size alone, or resize and crop")
        if any(pixels < 1 for pixels in (*self.crop_size, *(self.size or ()), self.resize or 1)):
            raise DataError(
                f"resize {self.resize}, crop {self.crop}, size {self.size}",
                accepted="positive numbers of pixels",
            )

    @property
    def crop_size(self) -> tuple[int, ...]:
        """The crop as (height, width); () without a crop."""
        if self.crop is None:
            return ()
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop

    def apply(self, image: Image.Image) -> NDArray[np.float32]:
        """The photo as float32, shape (C, H, W) or (H, W, C) by `layout`.

        Raises:
            UnreadableImageError: it is smaller than the crop.
        """
        image = ImageOps.exif_transpose(image).convert("L" if self.channels == "gray" else "RGB")
        width, height = image.size
        if self.size:
            image = image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)
        elif self.resize:
            short = min(width, height)
            scaled = (int(self.resize * width / short), int(self.resize * height / short))
            if scaled != image.size:
                image = image.resize(scaled, Image.Resampling.BILINEAR)
        if self.crop_size:
            image = self._cropped(image, *self.crop_size)
        pixels = np.asarray(image, np.float32)
        if pixels.ndim == 2:
            pixels = pixels[..., None]
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
        """The settings that `to_spec` gave."""
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in spec.items()}
        return cls(**settings)


PRESETS: Mapping[str, Preprocessing] = {
    "imagenet-torch": Preprocessing(
        resize=256, crop=224, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    "imagenet-caffe": Preprocessing(resize=256, crop=224, mean=(103.939, 116.779, 123.68), channels="bgr"),
    "imagenet-tf": Preprocessing(resize=256, crop=224, scale=1 / 127.5, mean=(1.0,)),
}


@dataclass(frozen=True)
class Photo:
    """A file and its label, None without labels."""

    path: Path
    label: int | None


@dataclass(frozen=True)
class PhotoFolder:
    """The photos of a folder in a fixed order, and where their labels come from."""

    photos: tuple[Photo, ...]
    labels: str


def find_photos(folder: Path, labels: Path | None = None) -> PhotoFolder:
    """The photos in a folder, with labels from a list, from folder names, or none.

    A list is a file of "file label" lines, `val.txt` in or beside the folder if none is given; its files are looked
    for in the folder, in its folder `val`, and beside the list. Without a list each sub-folder is a class, numbered in
    sorted order, or by its name if all names are whole numbers.

    Raises:
        DataError: there is no photo, or a line of the list is malformed.
    """
    listed = labels or next(
        (path for path in (folder / _LABEL_LIST, folder.parent / _LABEL_LIST) if path.is_file()), None
    )
    if listed is not None:
        return PhotoFolder(tuple(_listed(folder, listed)), f"labels: {listed.name}")
    classes = sorted(sub for sub in folder.iterdir() if sub.is_dir() and _photos(sub))
    if classes:
        numbered = all(sub.name.isdecimal() for sub in classes)
        photos = tuple(
            Photo(path, int(sub.name) if numbered else index)
            for index, sub in enumerate(classes)
            for path in _photos(sub)
        )
        return PhotoFolder(photos, f"labels: {len(classes)} class folders")
    photos = tuple(Photo(path, None) for path in _photos(folder))
    if not photos:
        raise DataError(
            f"no samples: no photo in {folder}",
            accepted=f"files {', '.join(sorted(EXTENSIONS))}, or one folder of them per class",
            next_step="check --data",
        )
    return PhotoFolder(photos, "no labels")


def _photos(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and p.is_file())


def _listed(folder: Path, listed: Path) -> list[Photo]:
    try:
        lines = listed.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the label list {listed}: {error}", accepted='lines "file label"') from error
    photos = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, label = line.rstrip().rpartition(" ")
        if not name or not label.removeprefix("-").isdecimal():
            raise DataError(
                f"line {number} of {listed} is {line!r}",
                accepted='lines "file label", the label a whole number',
            )
        places = [place / name.strip() for place in (folder, folder / "val", listed.parent)]
        photos.append(Photo(next((p for p in places if p.is_file()), places[0]), int(label)))
    if not photos:
        raise DataError(f"no samples: the label list {listed} is empty", accepted='lines "file label"')
    return photos


def read_photo(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The photo in a file as an array.

    Raises:
        UnreadableImageError: the file is missing, damaged, no photo, or too small.
    """
    try:
        with warnings.catch_warnings():
            # A decompression bomb warning is about trust; the user's own photos are trusted.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return preprocessing.apply(image)
    except FileNotFoundError:
        raise UnreadableImageError("no such file") from None
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image" if path.stat().st_size else "empty file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(str(error)) from error
