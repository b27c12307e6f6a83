"""Quantize, tune, diagnose and time an image classifier: the calls and flags of Neural Compressor's ResNet-50 example.

python main.py --model_path resnet50_v1.onnx --dataset_location ImageNet/ --label_path val.txt --tune --diagnose
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from quantscope.errors import QuantscopeError
from quantscope.images import PRESETS
from quantscope.neural_compressor import PostTrainingQuantConfig, quantization, set_workspace

Batch = tuple[NDArray[Any], list[int]]


class Dataloader:
    """Batches (photos, labels) of the photos in a list of "file label" lines; a photo that is not there is left out."""

    def __init__(self, dataset_location: Path, label_path: Path, batch_size: int, preset: str) -> None:
        self.batch_size = batch_size
        self._preprocessing = PRESETS[preset]
        lines = [line.rsplit(maxsplit=1) for line in label_path.read_text().splitlines() if line.strip()]
        folders = (dataset_location, dataset_location / "val")
        self.photos = [
            (folder / name, int(label)) for name, label in lines for folder in folders if (folder / name).is_file()
        ]
        if not self.photos:
            sys.exit(f"none of the {len(lines)} photos of {label_path} is in {dataset_location} or its folder val")

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, len(self.photos), self.batch_size):
            part = self.photos[first : first + self.batch_size]
            yield np.stack([self._array(path) for path, _ in part]), [label for _, label in part]

    def _array(self, path: Path) -> NDArray[Any]:
        with Image.open(path) as photo:
            return self._preprocessing.apply(photo)


def session_of(model: Any) -> Any:
    """An ONNX Runtime session of a ModelProto, or of the file of a model that is too large for one."""
    content = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def top1(model: Any, dataloader: Dataloader) -> float:
    """The share of photos whose label has the highest score."""
    session = session_of(model)
    name = session.get_inputs()[0].name
    right = 0
    for photos, labels in dataloader:
        scores = session.run(None, {name: photos})[0]
        right += int((scores.reshape(len(photos), -1).argmax(1) == labels).sum())
    return right / len(dataloader.photos)


def latencies_ms(model: Any, photos: NDArray[Any], warmup: int, iterations: int) -> list[float]:
    """The time of each inference of one batch, in milliseconds, sorted."""
    session = session_of(model)
    name = session.get_inputs()[0].name
    times = []
    for _ in range(warmup + iterations):
        began = time.perf_counter()
        session.run(None, {name: photos})
        times.append((time.perf_counter() - began) * 1000)
    return sorted(times[warmup:])


def benchmark(model: Any, dataloader: Dataloader, mode: str, iterations: int) -> None:
    """Print the latency or the accuracy of a model."""
    print(f"Batch size = {dataloader.batch_size}")
    if mode == "accuracy":
        print(f"Accuracy: {top1(model, dataloader):.5f}")
        return
    photos, _ = next(iter(dataloader))
    times = latencies_ms(model, photos, max(iterations // 10, 1), iterations)
    print(f"Latency: {statistics.median(times):.3f} ms median, {times[0]:.3f} to {times[-1]:.3f} ms")
    print(f"Throughput: {len(photos) * 1000 / statistics.mean(times):.3f} images/sec")


def tune(args: argparse.Namespace, model: Any, dataloader: Dataloader) -> None:
    """Quantize the model until its accuracy is met, diagnose it if that is asked for, and write it."""
    config = PostTrainingQuantConfig(
        quant_format=args.quant_format,
        diagnosis=args.diagnose,
        calibration_sampling_size=[args.calibration_sampling_size],
    )
    output = args.output_model or Path(f"{args.model_path.stem}.int8.onnx")
    set_workspace(output.parent)
    q_model = quantization.fit(
        model, config, calib_dataloader=dataloader, eval_func=lambda candidate: top1(candidate, dataloader)
    )
    q_model.save(output)
    print(f"Quantized model: {output}")


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_path", type=Path, required=True, help="the float model, an .onnx file")
    parser.add_argument("--dataset_location", type=Path, required=True, help="the folder of the photos")
    parser.add_argument("--label_path", type=Path, required=True, help='a file of "file label" lines')
    parser.add_argument("--tune", action="store_true", help="quantize the model and write it")
    parser.add_argument("--diagnose", action="store_true", help="with --tune: show where the int8 model differs")
    parser.add_argument("--benchmark", action="store_true", help="measure the model at --model_path as it is")
    parser.add_argument("--mode", choices=("performance", "accuracy"), default="performance", help="for --benchmark")
    parser.add_argument("--output_model", type=Path, help="where to write the int8 model [MODEL.int8.onnx]")
    parser.add_argument("--quant_format", choices=("default", "QDQ", "QOperator"), default="default")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--calibration_sampling_size", type=int, default=100, help="photos that calibrate [100]")
    parser.add_argument("--iterations", type=int, default=100, help="inferences that --benchmark times [100]")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="imagenet-caffe", help="how photos become arrays")
    args = parser.parse_args(given)
    if not (args.tune or args.benchmark):
        parser.error("nothing to do: give --tune, --tune --diagnose, or --benchmark")
    if args.diagnose and not args.tune:
        parser.error("--diagnose goes with --tune; quantscope does not profile yet")
    for name in ("model_path", "dataset_location", "label_path"):
        if not getattr(args, name).exists():
            parser.error(f"--{name}: there is no {getattr(args, name)}")
    for name in ("batch_size", "calibration_sampling_size", "iterations"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}, at least 1 is accepted")
    return args


def main(given: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    args = arguments(given)
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    model = onnx.load(args.model_path)
    dataloader = Dataloader(args.dataset_location, args.label_path, args.batch_size, args.preset)
    if args.benchmark:
        benchmark(model, dataloader, args.mode, args.iterations)
    if args.tune:
        tune(args, model, dataloader)


if __name__ == "__main__":
    try:
        main()
    except QuantscopeError as error:
        sys.exit(f"error: {error}")
