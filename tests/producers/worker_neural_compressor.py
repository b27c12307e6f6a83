"""Quantizes a model with Intel Neural Compressor 2; `make.py` runs this in an environment that has it."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from neural_compressor import PostTrainingQuantConfig, quantization
from numpy.typing import NDArray


class Loader:
    """Samples one at a time with a label that nothing reads: the calibration takes pairs only."""

    batch_size = 1

    def __init__(self, samples: NDArray[Any]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[tuple[NDArray[Any], int]]:
        return ((sample[None], 0) for sample in self.samples)


def main(model: str, samples: str, out: str, variant: str) -> None:
    """Variants: qdq and qoperator."""
    data = np.load(samples)["x"]
    config = PostTrainingQuantConfig(
        approach="static",
        quant_format={"qdq": "QDQ", "qoperator": "default"}[variant],
        calibration_sampling_size=[len(data)],
    )
    # Without a function that evaluates the model there is no tuning: the first model is the result.
    quantization.fit(model, config, calib_dataloader=Loader(data)).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
