"""Stores what other tools say about tensors that anyone can make again, in NAME.json beside this file.

    cd tests && python -m rivals.make NAME [--environments FOLDER]

NAME is a tool in RIVALS, or `all`. Each tool's own function runs in the virtual environment that `producers/make.py`
makes for it, because its pins contradict quantscope's. The tensors follow from the formulas below, which the tests use
too; each figure is stored with the true value that the tool's environment computed from the same tensors in float64.
"""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
Figures = dict[str, dict[str, float]]

# Two lines y = a·x + b: an error that no rounding makes, and that nobody can overlook in a plot.
LINES = {"3x+100": (3, 100), "0.5x+3": (0.5, 3)}


def line(name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Normal values, and the same ones scaled and shifted."""
    x = np.random.default_rng(0).normal(0, 1, 1000).astype(np.float32)
    scale, shift = LINES[name]
    return x, (x * np.float32(scale) + np.float32(shift)).astype(np.float32)


def one_exact_in_ten() -> tuple[NDArray[Any], NDArray[Any]]:
    """Ten samples of activations in the hundreds; all but the first carry noise of 30 %."""
    rng = np.random.default_rng(3)
    x = rng.normal(0, 300, (10, 1000)).astype(np.float32)
    noise = rng.normal(0, 90, (10, 1000)).astype(np.float32)
    noise[0] = 0
    return x, x + noise


def true_mse(x: NDArray[Any], y: NDArray[Any]) -> float:
    """The mean squared error in float64."""
    return float(np.square(x.astype(np.float64) - y.astype(np.float64)).mean())


def true_sqnr_db(x: NDArray[Any], y: NDArray[Any]) -> float:
    """The signal to quantization noise ratio over all values, in float64."""
    return float(10 * np.log10(np.square(x.astype(np.float64)).mean() / true_mse(x, y)))


def neural_compressor() -> Figures:
    """The MSE that Neural Compressor computes and that Neural Insights shows."""
    from neural_compressor.utils.utility import mse_metric_gap

    return {name: {"rival": float(mse_metric_gap(*line(name))), "true": true_mse(*line(name))} for name in LINES}


def quark() -> Figures:
    """The SQNR that steers AMD Quark's mixed precision; it comes with its sign turned."""
    from quark.onnx.algorithm.mprecision.metric_funcs import sqnr_metric

    x, y = one_exact_in_ten()
    rival = -sqnr_metric([[sample] for sample in x], [[sample] for sample in y])
    return {"one exact in ten": {"rival": float(rival), "true": true_sqnr_db(x, y)}}


def aimet() -> Figures:
    """The SQNR that steers AIMET's mixed precision, on the outputs of a model that only hands out y."""
    from aimet_onnx.amp.mixed_precision_algo import _evaluate_sqnr

    class Loader(list[NDArray[Any]]):
        batch_size = 1

    x, y = one_exact_in_ten()
    rival = _evaluate_sqnr(
        None, None, SimpleNamespace(session=None), Loader(y), lambda session, sample: sample, len(x), list(x)
    )
    return {"one exact in ten": {"rival": float(rival), "true": true_sqnr_db(x, y)}}


# The function that takes the figures, the rival's function that they come from, and the packages that matter for them.
RIVALS: dict[str, tuple[Callable[[], Figures], str, tuple[str, ...]]] = {
    "neural_compressor": (
        neural_compressor, "neural_compressor.utils.utility.mse_metric_gap", ("neural-compressor", "numpy"),
    ),
    "quark": (quark, "quark.onnx.algorithm.mprecision.metric_funcs.sqnr_metric", ("amd-quark", "numpy")),
    "aimet": (aimet, "aimet_onnx.amp.mixed_precision_algo._evaluate_sqnr", ("aimet-onnx", "numpy")),
}  # fmt: skip


def stored(name: str) -> dict[str, Any]:
    """What was stored of a tool."""
    values: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return values


def take(name: str, file: Path) -> None:
    """Takes the figures of a tool in the environment that this runs in."""
    figures, function, packages = RIVALS[name]
    about = {
        "command": f"cd tests && python -m rivals.make {name}",
        "function": function,
        "versions": {"python": platform.python_version(), **{package: version(package) for package in packages}},
        "figures": figures(),
    }
    file.write_text(json.dumps(about, indent=2) + "\n")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Stores figures of other tools.")
    parser.add_argument("name", choices=[*RIVALS, "all"])
    parser.add_argument("--environments", type=Path, help="the folder of the tools' virtual environments")
    parser.add_argument("--here", action="store_true", help="take them in the environment that this runs in")
    options = parser.parse_args()
    for name in RIVALS if options.name == "all" else [options.name]:
        file = HERE / f"{name}.json"
        if options.here:
            take(name, file)
            continue
        from producers.make import CACHE, environment

        python = environment(name, (options.environments or CACHE / "producers").resolve())
        subprocess.run([str(python), __file__, name, "--here"], check=True)
        print(f"{file}: {json.loads(file.read_text())['figures']}")


if __name__ == "__main__":
    main()
