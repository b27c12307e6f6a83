"""Photos: where they are found, what is done to their pixels, and what happens to those that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantscope import Preprocessing, Samples
from quantscope.errors import DataError
from quantscope.images import PRESETS

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 31, 3)).astype(np.uint8)
PLAIN = Preprocessing(crop=8)


def save(path: Path, pixels: np.ndarray = PIXELS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def read(folder: Path, labels: Path | None = None) -> tuple[Samples, list[int | None]]:
    samples = Samples.of(folder, labels=labels, preprocessing=PLAIN)
    found = [None if b.labels is None else int(b.labels[0]) for b in samples.batches(1)]
    return samples, found


def test_pixels_become_what_the_formula_says() -> None:
    image = Image.fromarray(PIXELS)
    mean, std = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    bgr = Preprocessing(crop=(20, 30), scale=0.5, mean=mean, std=std, channels="bgr").apply(image)
    crop = PIXELS[2:22, 0:30].astype(np.float64)
    expected = np.stack([(crop[..., 2 - c] * 0.5 - mean[c]) / std[c] for c in range(3)])
    np.testing.assert_allclose(bgr, expected, rtol=1e-6)
    rgb = Preprocessing(crop=(20, 30), layout="nhwc").apply(image)
    np.testing.assert_array_equal(rgb, crop)
    gray = Preprocessing(crop=8, channels="gray").apply(image)
    assert gray.shape == (1, 8, 8)


@pytest.mark.parametrize(("size", "expected"), [((31, 24), (24, 24)), ((24, 31), (24, 24)), ((100, 50), (24, 24))])
def test_the_short_side_is_resized_and_the_middle_kept(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (50, 100, 200))
    array = Preprocessing(resize=24, crop=24).apply(image)
    assert array.shape == (3, *expected)
    np.testing.assert_array_equal(array[:, 0, 0], [50, 100, 200])


def test_presets_give_what_their_networks_expect() -> None:
    image = Image.new("RGB", (300, 280), (255, 0, 127))
    torch, caffe, tf = (PRESETS[f"imagenet-{n}"].apply(image)[:, 0, 0] for n in ("torch", "caffe", "tf"))
    np.testing.assert_allclose(torch, [(1 - 0.485) / 0.229, -0.456 / 0.224, (127 / 255 - 0.406) / 0.225], rtol=1e-6)
    np.testing.assert_allclose(caffe, [127 - 103.939, -116.779, 255 - 123.68], rtol=1e-6)
    np.testing.assert_allclose(tf, [1, -1, 127 / 127.5 - 1], rtol=1e-4)


def test_a_label_list_beside_the_photos_and_below(tmp_path: Path) -> None:
    for name in ("a.jpg", "val/b b.jpg", "val/c.jpg"):
        save(tmp_path / name)
    (tmp_path / "val.txt").write_text("# the list\na.jpg 3\n\nb b.jpg 7\nc.jpg 1\n")
    assert read(tmp_path)[1] == [3, 7, 1]
    assert read(tmp_path / "val")[1] == [3, 7, 1]
    (tmp_path / "mine.txt").write_text("c.jpg 9\n")
    samples, labels = read(tmp_path, tmp_path / "mine.txt")
    assert labels == [9]
    again = Samples.from_spec(samples.spec or {})
    np.testing.assert_array_equal(next(again.batches(1)).inputs["0"], next(samples.batches(1)).inputs["0"])


def test_a_folder_per_class_and_no_labels(tmp_path: Path) -> None:
    for name in ("dog/1.png", "cat/1.PNG", "cat/2.jpeg"):
        save(tmp_path / "named" / name)
    for name in ("10/1.png", "9/1.png"):
        save(tmp_path / "numbered" / name)
    save(tmp_path / "flat" / "1.png")
    assert read(tmp_path / "named")[1] == [0, 0, 1]
    assert read(tmp_path / "numbered")[1] == [10, 9]
    assert read(tmp_path / "flat")[1] == [None]


def test_unreadable_photos_are_named_counted_and_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "good.jpg")
    whole = save(tmp_path / "truncated.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a photo")
    save(tmp_path / "small.png", PIXELS[:5, :5])
    (tmp_path / "val.txt").write_text("\n".join(f"{n} 1" for n in (
        "good.jpg", "truncated.jpg", "empty.jpg", "text.png", "small.png", "missing.jpg",
    )))  # fmt: skip
    samples, labels = read(tmp_path)
    assert labels == [1]
    reasons = {Path(name).name: why for name, why in samples.skipped.items()}
    assert reasons.keys() == {"truncated.jpg", "empty.jpg", "text.png", "small.png", "missing.jpg"}
    assert reasons["missing.jpg"] == "no such file"
    assert reasons["empty.jpg"] == "empty file"
    assert reasons["text.png"] == "not an image"
    assert "truncated" in reasons["truncated.jpg"].lower()
    assert "smaller than the crop 8x8" in reasons["small.png"]
    list(samples.batches(1))
    assert len(samples.skipped) == 5, "going through them again does not count them twice"
    (tmp_path / "val.txt").write_text("empty.jpg 1\n")
    with pytest.raises(DataError, match=r"none of 1 photos could be read .*empty file"):
        read(tmp_path)


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no photo in"):
        read(tmp_path)
    save(tmp_path / "a.png")
    with pytest.raises(DataError, match="--preset imagenet-torch"):
        Samples.of(tmp_path)
    (tmp_path / "val.txt").write_text("a.png one\n")
    with pytest.raises(DataError, match=r"line 1 of .*val.txt is 'a.png one'"):
        read(tmp_path)
    with pytest.raises(DataError, match="no such label list"):
        read(tmp_path, tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mean": (1.0, 2.0)}, "mean has 2 values for rgb"),
        ({"std": (0.0,)}, "std is"),
        ({"channels": "rbg"}, "rgb, bgr, gray"),
        ({"layout": "chw"}, "nchw, nhwc"),
        ({"crop": 0}, "positive"),
        ({"size": (4, 4), "resize": 5}, "both size and resize"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocessing(**wrong)  # type: ignore[arg-type]
