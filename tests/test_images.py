"""Photos become the arrays that the model was trained with, and a bad photo never ends a run."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from quantscope.errors import DataError
from quantscope.images import PRESETS, Preprocessing, UnreadableImageError, find_photos
from quantscope.samples import Samples

PLAIN = Preprocessing()


def pixels(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, height: int = 8, width: int = 8, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(height, width, seed)).save(path)
    return path


@pytest.mark.parametrize(
    ("preset", "order", "scale", "mean", "std"),
    [
        ("imagenet-torch", [0, 1, 2], 1 / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("imagenet-caffe", [2, 1, 0], 1.0, [103.939, 116.779, 123.68], [1.0, 1.0, 1.0]),
        ("imagenet-tf", [0, 1, 2], 1 / 127.5, [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
    ],
)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_presets_are_the_published_formulas(
    preset: str, order: list[int], scale: float, mean: list[float], std: list[float], layout: str
) -> None:
    # Of the size after the resize, so that only the crop and the arithmetic are at work.
    photo = pixels(256, 300)
    got = replace(PRESETS[preset], layout=layout).apply(Image.fromarray(photo))
    cropped = photo[16:240, 38:262].astype(np.float64)[..., order]
    expected = (cropped * scale - np.array(mean)) / np.array(std)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got if layout == "nhwc" else got.transpose(1, 2, 0), expected, rtol=1e-5, atol=1e-5)


def test_gray_has_one_channel_of_luma() -> None:
    photo = pixels(4, 5)
    got = Preprocessing(channels="gray", mean=(10.0,), std=(2.0,)).apply(Image.fromarray(photo))
    luma = photo.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert got.shape == (1, 4, 5)
    np.testing.assert_allclose(got[0], (luma - 10) / 2, atol=0.5)


@pytest.mark.parametrize(
    ("height", "width", "resized"),
    [(300, 401, (256, 342)), (401, 300, (342, 256)), (256, 999, (256, 999)), (100, 100, (256, 256))],
)
def test_resize_brings_the_short_side_as_torchvision_does(height: int, width: int, resized: tuple[int, int]) -> None:
    # torchvision: the long side is int(size * long / short), rounded down.
    got = Preprocessing(resize=256).apply(Image.fromarray(pixels(height, width)))
    assert got.shape == (3, *resized)


@pytest.mark.parametrize(("side", "offset"), [(7, 1), (9, 2), (11, 3), (13, 4), (8, 2)])
def test_centre_crop_leaves_an_odd_pixel_at_the_end(side: int, offset: int) -> None:
    photo = pixels(side, side)
    got = Preprocessing(crop=4, layout="nhwc").apply(Image.fromarray(photo))
    np.testing.assert_array_equal(got, photo[offset : offset + 4, offset : offset + 4])


def test_crop_and_size_are_height_then_width() -> None:
    photo = Image.fromarray(pixels(20, 30))
    assert Preprocessing(crop=(10, 12)).apply(photo).shape == (3, 10, 12)
    assert Preprocessing(size=(5, 9)).apply(photo).shape == (3, 5, 9)


def test_resize_is_bilinear_with_antialiasing() -> None:
    # Halving a step edge: without antialiasing the result would hold 0 and 255 alone.
    step = np.zeros((8, 8, 3), np.uint8)
    step[:, 3:] = 255
    got = Preprocessing(size=(4, 4)).apply(Image.fromarray(step))
    assert ((got > 5) & (got < 250)).any()


def test_exif_orientation_is_applied() -> None:
    photo = Image.new("RGB", (6, 4), "black")
    photo.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    buffer = io.BytesIO()
    photo.save(buffer, "PNG", exif=exif)
    with Image.open(buffer) as stored:
        got = Preprocessing(layout="nhwc").apply(stored)
    assert got.shape == (6, 4, 3)
    assert got[0, 3, 0] == 255


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1"])
def test_every_8_bit_mode_becomes_rgb(mode: str) -> None:
    photo = Image.fromarray(pixels(6, 6)).convert(mode)
    np.testing.assert_array_equal(
        Preprocessing(layout="nhwc").apply(photo), np.asarray(photo.convert("RGB"), np.float32)
    )


def test_16_bit_photos_are_refused_rather_than_cut_to_white() -> None:
    photo = Image.fromarray(np.full((4, 4), 1000, np.uint16))
    with pytest.raises(UnreadableImageError, match="more than 8 bits"):
        PLAIN.apply(photo)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"channels": "hsv"}, ["hsv", "rgb, bgr, gray"]),
        ({"layout": "chw"}, ["chw", "nchw, nhwc"]),
        ({"mean": (1.0, 2.0)}, ["mean is (1.0, 2.0)", "1 or 3"]),
        ({"mean": (1.0, 2.0, 3.0), "channels": "gray"}, ["gray", "1 finite"]),
        ({"std": (1.0, 0.0, 1.0)}, ["std", "other than 0"]),
        ({"std": (float("nan"),)}, ["std", "finite"]),
        ({"scale": 0.0}, ["scale is 0.0", "1/255"]),
        ({"size": (8, 8), "resize": 8}, ["together", "size alone"]),
        ({"size": (8,)}, ["size is (8,)", "(height, width)"]),
        ({"crop": 0}, ["crop", "1 or more"]),
        ({"crop": (4, -1)}, ["crop is (4, -1)", "1 or more"]),
        ({"crop": 224.0}, ["crop is 224.0", "whole"]),
        ({"size": 224}, ["size is 224", "(height, width)"]),
        ({"size": (8.5, 8)}, ["size is (8.5, 8)", "whole"]),
        ({"resize": 1.5}, ["resize is 1.5", "whole"]),
        ({"resize": "256"}, ["resize is 256", "whole"]),
        ({"mean": 127}, ["mean is 127", "1 or 3 finite numbers"]),
        ({"std": ("a",)}, ["std is ('a',)", "finite numbers"]),
        ({"scale": "1"}, ["scale is 1", "1/255"]),
        ({"resize": 0}, ["resize is 0", "1 pixel or more"]),
        ({"resize": 200, "crop": 224}, ["resize is 200", "224", "not smaller than the crop"]),
    ],
)
def test_impossible_preprocessing_is_refused(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        Preprocessing(**settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("name", PRESETS)
def test_preprocessing_survives_json(name: str) -> None:
    for settings in (PRESETS[name], Preprocessing(size=(3, 4), layout="nhwc"), Preprocessing(crop=(3, 4))):
        assert Preprocessing.from_spec(json.loads(json.dumps(settings.to_spec()))) == settings
    assert str(PRESETS[name]) == f"preset {name}"


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(DataError, match="unknown preprocessing settings: colour"):
        Preprocessing.from_spec({"colour": "rgb"})


# --- where photos are and what their labels are


def labels_of(folder: Path, labels: Path | None = None) -> list[tuple[str, int | None]]:
    return [(photo.name, photo.label) for photo in find_photos(folder, labels).photos]


def test_a_flat_folder_is_sorted_and_has_no_labels(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.tiff"):
        save(tmp_path / name)
    (tmp_path / "notes.md").write_text("no photo")
    assert labels_of(tmp_path) == [("a.jpg", None), ("b.PNG", None), ("c.tiff", None)]


def test_class_folders_are_numbered_in_sorted_order(tmp_path: Path) -> None:
    for name in ("dog/2.png", "cat/1.png", "dog/1.png"):
        save(tmp_path / name)
    (tmp_path / "annotations").mkdir()
    assert labels_of(tmp_path) == [("cat/1.png", 0), ("dog/1.png", 1), ("dog/2.png", 1)]


def test_class_folders_named_by_integers_are_those_classes(tmp_path: Path) -> None:
    for name in ("10/a.png", "9/a.png"):
        save(tmp_path / name)
    assert labels_of(tmp_path) == [("10/a.png", 10), ("9/a.png", 9)]


@pytest.mark.parametrize("photos_in", ["", "val"])
@pytest.mark.parametrize("list_in", ["folder", "beside", "given"])
def test_a_label_list_keeps_its_order(tmp_path: Path, photos_in: str, list_in: str) -> None:
    folder = tmp_path / "data"
    for name in ("b.png", "a b.png"):
        save(folder / photos_in / name)
    place = {"folder": folder / "val.txt", "beside": tmp_path / "val.txt", "given": tmp_path / "mine.txt"}[list_in]
    place.write_text("# photos\n\nb.png 7\na b.png\t-1\n")
    found = find_photos(folder, place if list_in == "given" else None)
    assert [(photo.name, photo.label) for photo in found.photos] == [("b.png", 7), ("a b.png", -1)]
    assert all(photo.path.is_file() for photo in found.photos)
    assert found.labels == f"labels: {place.name}"


@pytest.mark.parametrize("line", ["a.png", "a.png cat", "7", "a.png 1.5"])
def test_a_malformed_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "val.txt").write_text(f"# head\na.png 1\n{line}\n")
    with pytest.raises(DataError) as caught:
        find_photos(tmp_path)
    assert "line 3" in str(caught.value)
    assert repr(line) in str(caught.value)
    assert "file label" in str(caught.value)


@pytest.mark.parametrize("case", ["empty", "empty list", "no list", "mixed"])
def test_folders_without_clear_photos_are_refused(tmp_path: Path, case: str) -> None:
    labels, words = None, "no photo in"
    if case == "empty list":
        (tmp_path / "val.txt").write_text("# nothing\n")
        words = "is empty"
    elif case == "no list":
        labels, words = tmp_path / "missing.txt", "no such label list"
    elif case == "mixed":
        save(tmp_path / "a.png")
        save(tmp_path / "cat" / "a.png")
        words = "1 photos and 1 folders"
    with pytest.raises(DataError, match=words):
        find_photos(tmp_path, labels)


# --- photos as samples


def test_without_preprocessing_the_error_explains_the_presets(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(DataError) as caught:
        Samples.of(tmp_path)
    for words in (*PRESETS, "--preset imagenet-torch", "--resize", "--crop", "--mean", "--std", "--scale"):
        assert words in str(caught.value)


def truncate(path: Path) -> None:
    save(path.with_suffix(".png"), 64, 64).rename(path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        pytest.param(lambda path: path.write_bytes(b""), "empty file", id="zero bytes"),
        pytest.param(lambda path: path.write_text("no photo at all"), "not an image", id="text"),
        pytest.param(truncate, "truncated", id="truncated"),
        pytest.param(lambda path: save(path, 3, 9), "smaller than the crop 8x8; set resize", id="too small"),
        pytest.param(lambda path: None, "no such file", id="missing"),
        pytest.param(lambda path: path.mkdir(), "no such file", id="folder"),
    ],
)
def test_an_unreadable_photo_is_named_counted_and_passed_over(
    tmp_path: Path, write: Callable[[Path], object], reason: str
) -> None:
    for index, name in enumerate(("a.png", "c.png", "d.png")):
        save(tmp_path / name, seed=index)
    write(tmp_path / "b.png")
    (tmp_path / "val.txt").write_text("a.png 0\nb.png 1\nc.png 2\nd.png 3\n")
    samples = Samples.of(tmp_path, preprocessing=Preprocessing(crop=8, layout="nhwc"))
    assert samples.count == 4
    for _ in range(2):
        batches = list(samples.batches(2))
        assert [(b.first, b.stop, b.size) for b in batches] == [(0, 3, 2), (3, 4, 1)]
        np.testing.assert_array_equal(np.concatenate([b.labels for b in batches if b.labels is not None]), [0, 2, 3])
        np.testing.assert_array_equal(batches[0].inputs["0"][1], pixels(8, 8, 1))
        assert list(samples.skipped) == ["b.png"]
        assert reason in samples.skipped["b.png"]
    # A window of unreadable photos after the first is empty, not an error: a run may resume there.
    assert list(samples.batches(2, start=1, stop=2)) == []


def test_no_readable_photo_at_all_names_the_first_ones(tmp_path: Path) -> None:
    for index in range(5):
        (tmp_path / f"{index}.jpg").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        list(Samples.of(tmp_path, preprocessing=PLAIN).batches(4))
    assert "5 photos could not be read" in str(caught.value)
    assert "0.jpg: empty file" in str(caught.value)
    assert "4.jpg" not in str(caught.value)


def test_photos_outside_the_window_are_not_opened(tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes(b"")
    save(tmp_path / "b.png")
    samples = Samples.of(tmp_path, preprocessing=PLAIN)
    assert [batch.first for batch in samples.batches(4, start=1, stop=2)] == [1]
    assert samples.skipped == {}


def test_photos_of_different_shapes_do_not_share_a_batch(tmp_path: Path) -> None:
    for name, width in (("a.png", 8), ("b.png", 8), ("c.png", 9), ("d.png", 8)):
        save(tmp_path / name, 8, width)
    batches = list(Samples.of(tmp_path, preprocessing=PLAIN).batches(3))
    assert [(b.first, b.size, b.inputs["0"].shape[-1]) for b in batches] == [(0, 2, 8), (2, 1, 9), (3, 1, 8)]


@pytest.mark.parametrize("given", [False, True])
def test_photos_are_rebuilt_from_their_spec(tmp_path: Path, given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, name in enumerate(("a.png", "b.png")):
        save(tmp_path / "photos" / name, seed=index)
    (tmp_path / "mine.txt").write_text("b.png 4\na.png 2\n")
    monkeypatch.chdir(tmp_path)
    settings = Preprocessing(crop=(4, 6), channels="bgr", mean=(1.0, 2.0, 3.0))
    samples = Samples.of("photos", labels="mine.txt" if given else None, preprocessing=settings)
    monkeypatch.chdir("/")
    again = Samples.from_spec(json.loads(json.dumps(samples.spec)))
    for one, other in zip(samples.batches(2), again.batches(2), strict=True):
        np.testing.assert_array_equal(one.inputs["0"], other.inputs["0"])
        np.testing.assert_array_equal(one.labels, other.labels)
    assert "2 photos in" in samples.description
    assert ("labels: mine.txt" if given else "no labels") in samples.description
    assert "crop (4, 6)" in samples.description
