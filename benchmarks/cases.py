"""The models that are measured, how their samples are made, and the files that these are in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_TOKENS = 128
_START, _END, _UNKNOWN = "[CLS]", "[SEP]", "[UNK]"


@dataclass(frozen=True)
class Case:
    """A model, the file MODELS/name.onnx: `samples(models, photos, count)` are arrays by the names of its inputs."""

    samples: Callable[[Path, Path | None, int], Arrays]


def photos(name: str, **settings: Any) -> Case:
    """A model that takes preprocessed photos in its input `name`; without a folder of photos it gets noise."""

    def samples(models: Path, folder: Path | None, count: int) -> Arrays:
        from PIL import Image

        from quantscope import Preprocessing, Samples

        preprocessing = Preprocessing(**settings)
        if folder is None:
            noise = np.random.default_rng(0).integers(0, 256, (count, settings["crop"], settings["crop"], 3), np.uint8)
            return {name: np.stack([preprocessing.apply(Image.fromarray(pixels)) for pixels in noise])}
        batches = Samples.of(folder, preprocessing=preprocessing).batches(16, stop=count)
        return {name: np.concatenate([batch.inputs["0"] for batch in batches])}

    return Case(samples)


def text_lines(models: Path, folder: Path | None, count: int) -> Arrays:
    """Rendered text lines as PP-OCR takes them."""
    return text_lines_with_truth(count)[0]


def text_lines_with_truth(count: int) -> tuple[Arrays, list[str]]:
    """Rendered text lines as PP-OCR takes them, and what is written on them."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(30)
    rng = np.random.default_rng(0)
    letters = "abcdefghijklmnopqrstuvwxyz 0123456789"
    lines, texts = [], []
    for _ in range(count):
        image = Image.new("RGB", (320, 48), "white")
        texts.append("".join(rng.choice(list(letters), 18)))
        ImageDraw.Draw(image).text((8, 6), texts[-1], "black", font)
        lines.append((np.asarray(image, np.float32)[..., ::-1] / 127.5 - 1).transpose(2, 0, 1))
    return {"x": np.stack(lines)}, [text.strip() for text in texts]


def sentences(models: Path, folder: Path | None, count: int) -> Arrays:
    """Sentences of the Python language reference, out of this Python itself, in the model's own tokens."""
    from pydoc_data.topics import topics

    vocabulary = json.loads((models / "minilm_tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    prose = re.sub(r"\s+", " ", " ".join(topics.values()))
    # A pass over all topics: the sentences without code in them, which letters and plain punctuation tell.
    found = dict.fromkeys(re.findall(r"(?<=\. )[A-Z][a-z ,;()'-]{40,400}\.(?= )", prose))
    ids = np.zeros((count, _TOKENS), np.int64)
    for row, sentence in zip(ids, islice(cycle(found), count), strict=True):
        words = re.findall(r"\w+|[^\w\s]", sentence.lower())
        tokens = [piece for word in words for piece in word_pieces(word, vocabulary)][: _TOKENS - 2]
        row[: len(tokens) + 2] = [vocabulary[token] for token in (_START, *tokens, _END)]
    return {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)}


def word_pieces(word: str, vocabulary: dict[str, int]) -> list[str]:
    """WordPiece: the longest known beginning, then the longest known continuation, and so on to the word's end."""
    pieces: list[str] = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if prefix + word[start:end] in vocabulary), None)
        if end is None:
            return [_UNKNOWN]
        pieces.append(prefix + word[start:end])
        start = end
    return pieces


CASES = {
    "resnet50_v1": photos("input", resize=256, crop=224, mean=(103.939, 116.779, 123.68), channels="bgr"),
    "efficientnet_lite0": photos("input", resize=256, crop=224, mean=(127,), std=(128,)),
    "ppocrv4_rec": Case(text_lines),
    "nudenet_320n": photos("images", resize=320, crop=320, scale=1 / 255),
    "ppocrv4_det": photos("x", resize=640, crop=640, scale=1 / 127.5, mean=(1,), channels="bgr"),
    "minilm": Case(sentences),
}


def write(samples: Arrays, count: int, stem: Path) -> Path:
    """A file of `count` samples, repeated as often as needed: .npy, which is mapped, for the only input, else .npz."""
    if len(samples) > 1:
        path = stem.with_suffix(".npz")
        repeated = {name: np.resize(values, (count, *values.shape[1:])) for name, values in samples.items()}
        np.savez(path, allow_pickle=False, **repeated)
        return path
    path, (values,) = stem.with_suffix(".npy"), samples.values()
    file = np.lib.format.open_memmap(path, "w+", values.dtype, (count, *values.shape[1:]))
    for start in range(0, count, len(values)):
        file[start : start + len(values)] = values[: count - start]
    return path


def each_sample(data: str, only_input: str) -> Iterator[Arrays]:
    """The samples of a file one by one, as a session takes them; an .npy file is for the model's only input."""
    loaded = np.load(data, mmap_mode="r")
    arrays = {only_input: loaded} if data.endswith(".npy") else {name: loaded[name] for name in loaded.files}
    for i in range(len(next(iter(arrays.values())))):
        yield {name: values[i : i + 1] for name, values in arrays.items()}
