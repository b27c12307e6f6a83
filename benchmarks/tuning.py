"""What `tune` finds on models that int8 hurts, and how many evaluations it takes.

    python benchmarks/tuning.py --models FOLDER --photos FOLDER

Prints the trials of each search, and the table of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from cases import text_lines_with_truth
from numpy.typing import NDArray

import quantscope
from quantscope import Preprocessing
from quantscope.fallback.search import Search
from quantscope.qparams import PerTensor
from quantscope.recipe import Recipe
from quantscope.report.search import search_table
from quantscope.report.terminal import console

RECIPE = Recipe()
PER_TENSOR = replace(RECIPE, weights=replace(RECIPE.weights, granularity=PerTensor()))
CALIBRATION = 50


@dataclass(frozen=True)
class Tuned:
    """A search: the model, where it begins, the allowed drop, and what may change before ops are left in float."""

    model: str
    recipe: Recipe
    max_drop: float
    moves: tuple[str, ...] | None = None


TUNED = (
    Tuned("ppocrv4_rec", PER_TENSOR, 0.02),
    Tuned("ppocrv4_rec", PER_TENSOR, 0.02, ()),
    Tuned("efficientnet_lite0", PER_TENSOR, 0.01),
    Tuned("efficientnet_lite0", PER_TENSOR, 0.01, ()),
    Tuned("resnet50_v1", RECIPE, 0.01),
)
PHOTOS = {
    "efficientnet_lite0": Preprocessing(resize=256, crop=224, mean=(127,), std=(128,)),
    "resnet50_v1": Preprocessing(resize=256, crop=224, mean=(103.939, 116.779, 123.68), channels="bgr"),
}


class Similarity:
    """The share of characters that were read right: 2·matches / (characters read + characters written)."""

    __name__ = "similarity"

    def __init__(self, model: Path) -> None:
        properties = {entry.key: entry.value for entry in onnx.load(model, load_external_data=False).metadata_props}
        self.characters = ["", *properties["character"].splitlines(), " "]

    def __call__(self, outputs: dict[str, NDArray[Any]], labels: NDArray[Any]) -> NDArray[np.float64]:
        (scores,) = outputs.values()
        read = [self.read(classes) for classes in scores.argmax(2).tolist()]
        pairs = zip(read, labels.tolist(), strict=True)
        return np.array([SequenceMatcher(None, text, truth, autojunk=False).ratio() for text, truth in pairs])

    def read(self, classes: list[int]) -> str:
        """The text of a sequence of classes: repeated ones are one, class 0 is nothing."""
        kept = [c for i, c in enumerate(classes) if c and (i == 0 or classes[i - 1] != c)]
        return "".join(self.characters[c] for c in kept)


def search(tuned: Tuned, models: Path, photos: Path, count: int) -> Search:
    """What `tune` finds."""
    path = models / f"{tuned.model}.onnx"
    given: dict[str, Any] = {} if tuned.moves is None else {"moves": tuned.moves}
    if tuned.model in PHOTOS:
        given |= {"data": photos, "preprocessing": PHOTOS[tuned.model]}
    else:
        arrays, truth = text_lines_with_truth(CALIBRATION + count)
        given |= {"data": arrays, "labels": np.array(truth), "metric": Similarity(path)}
    return quantscope.tune(
        path, recipe=tuned.recipe, max_drop=tuned.max_drop, samples=count, calibration_samples=CALIBRATION, **given
    )


def main() -> None:
    """Print the trials and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="the folder with the models")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos with val.txt")
    parser.add_argument("--samples", type=int, help="evaluate so many; 450 photos, 64 lines, if not given")
    parser.add_argument("--only", nargs="*", help="names of models")
    arguments = parser.parse_args()
    lines = [
        "| model | moves | float | int8 | found | quantized ops | evaluations | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for tuned in TUNED:
        if arguments.only and tuned.model not in arguments.only:
            continue
        count = arguments.samples or (450 if tuned.model in PHOTOS else 64)
        began = time.monotonic()
        found = search(tuned, arguments.models, arguments.photos, count)
        console().print(search_table(found))
        score = found.best.score
        lines.append(
            f"| {tuned.model} | {'all' if tuned.moves is None else 'fallback alone'} | {score.reference:.4f} "
            f"| {found.trials[0].score.quantized:.4f} | {score.quantized:.4f}{'' if found.met else ' (missed)'} "
            f"| {found.best.quantized_share:.1%} | {len(found.trials)} | {time.monotonic() - began:.0f} |"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
