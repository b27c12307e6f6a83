"""Quantizes a model with AMD Quark; `make.py` runs this in an environment that has it."""
# mypy: disable-error-code="import-not-found, misc"

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
from quark.onnx import CalibrationDataReader, ModelQuantizer, QConfig


class Reader(CalibrationDataReader):
    """Samples one at a time."""

    def __init__(self, batches: list[dict[str, Any]]) -> None:
        self.rest = iter(batches)

    def get_next(self) -> Any:
        return next(self.rest, None)


def main(model: str, samples: str, out: str, variant: str) -> None:
    """Variants: the names of Quark's own configurations in lower case, such as xint8."""
    name = onnx.load(model).graph.input[0].name
    reader = Reader([{name: sample[None]} for sample in np.load(samples)["x"]])
    ModelQuantizer(QConfig.get_default_config(variant.upper())).quantize_model(model, out, reader)


if __name__ == "__main__":
    main(*sys.argv[1:])
