"""How well each column of a diagnosis tells which op does most to the output: rank correlation with brute force.

    python benchmarks/ranking.py --models FOLDER --photos FOLDER

Brute force: each op alone is quantized for real, all others stay in float, and the damage at the output is measured on
all samples by plain inference. Prints the table of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from cases import CASES, Arrays
from numpy.typing import NDArray

import quantscope
from quantscope.backends.base import Backend, Model
from quantscope.diagnosis import Diagnosis, TensorDiagnosis
from quantscope.fallback.damage import damage
from quantscope.fallback.groups import By
from quantscope.graph import Graph
from quantscope.qparams import PerTensor
from quantscope.recipe import Recipe
from quantscope.samples import Samples
from quantscope.statistics.ranks import spearman
from quantscope.tracing import Values
from quantscope.workflows.diagnosis import paired
from quantscope.workflows.quantizer import Quantizer
from quantscope.workflows.runs import batch_size_for, opened

CALIBRATION = 32
PRODUCTS = frozenset(("Conv", "ConvTranspose", "MatMul", "Gemm"))
COLUMNS = (
    "mse", "sqnr_db", "local_sqnr_db", "isolated_sqnr_db", "Neural Insights' MSE", "output_error_share", "sensitivity",
)  # fmt: skip


@dataclass(frozen=True)
class Ranked:
    """What is ranked: a model of `cases`, with weights per tensor or per channel, by op or by module."""

    model: str
    per_tensor: bool
    by: By = "op"
    products_only: bool = False

    def recipe(self, graph: Graph) -> Recipe:
        """The recipe that is looked at."""
        types = tuple(sorted({op.op_type for op in graph.ops} & PRODUCTS))
        recipe = Recipe(op_types=types if self.products_only else None)
        granularity = PerTensor() if self.per_tensor else recipe.weights.granularity
        return replace(recipe, weights=replace(recipe.weights, granularity=granularity))


RANKED = (
    Ranked("efficientnet_lite0", per_tensor=True),
    Ranked("resnet50_v1", per_tensor=True, products_only=True),
    Ranked("minilm", per_tensor=False, products_only=True),
    Ranked("nudenet_320n", per_tensor=False, by="scope"),
    Ranked("ppocrv4_rec", per_tensor=True, by="scope"),
)


class BruteForce:
    """One group of ops after the other alone quantized, and the damage on all samples."""

    def __init__(self, backend: Backend, model: Model, samples: Samples, quantizer: Quantizer, count: int) -> None:
        self._backend, self._samples, self._quantizer = backend, samples, quantizer
        self._stop = CALIBRATION + count
        self._names = [t.name for t in model.graph.outputs]
        self._reference = list(self._outputs(model))

    def damage(self, recipe: Recipe) -> float:
        """The mean damage per sample of the model that a recipe gives."""
        outputs = self._outputs(self._quantizer.quantized(recipe))
        values = [damage(y, x)[1] for y, x in zip(outputs, self._reference, strict=True)]
        return float(np.concatenate(values).mean())

    def _outputs(self, model: Model) -> Iterator[Values]:
        with self._backend.open(model, [], trace="optimized", threads=0) as runner:
            for batch in self._samples.batches(1, start=CALIBRATION, stop=self._stop):
                found = runner.run(batch.inputs)
                yield {name: found[name] for name in self._names}


def insights_mse(reference: NDArray[Any], quantized: NDArray[Any]) -> float:
    """Neural Insights' measure: both tensors scaled to 0..1 by their own extrema, then the mean squared difference."""

    def scaled(x: NDArray[Any]) -> NDArray[Any]:
        x = x.astype(np.float64)
        return (x - x.min()) / (x.max() - x.min()) if x.max() > x.min() else x * 0

    return float(((scaled(reference) - scaled(quantized)) ** 2).mean())


def insights_by_tensor(backend: Backend, model: Model, quantized: Model, samples: Samples) -> dict[str, float]:
    """That measure of each paired tensor, on the second sample, the only one that it looks at."""
    pairs = paired(backend, model, quantized, "simulated").pairs
    batch = next(samples.batches(1, start=CALIBRATION + 1, stop=CALIBRATION + 2))
    with (
        backend.open(model, [p.reference_name for p in pairs], trace="exact", threads=0) as run_model,
        backend.open(quantized, [p.quantized_name for p in pairs], trace="simulated", threads=0) as run_quantized,
    ):
        x, y = run_model.run(batch.inputs), run_quantized.run(batch.inputs)
    return {
        p.reference_name: insights_mse(x[p.reference_name], p.real(y[p.quantized_name]))
        for p in pairs
        if x[p.reference_name].shape == y[p.quantized_name].shape
    }


def columns(
    diagnosis: Diagnosis, insights: dict[str, float], groups: dict[str, tuple[str, ...]]
) -> dict[str, NDArray[np.float64]]:
    """Each column by group, the more the worse: its worst tensor's, of shares the sum; nan where it has none."""
    rows: dict[str, list[TensorDiagnosis]] = {}
    for row in diagnosis.tensors:
        if row.role == "activation":
            rows.setdefault(row.op, []).append(row)

    def of(group: tuple[str, ...], column: str) -> float:
        own = [row for op in group for row in rows.get(op, ())]
        if column == "Neural Insights' MSE":
            values = [insights[row.tensor] for row in own if row.tensor in insights]
        else:
            sign = -1 if column.endswith("_db") else 1
            values = [sign * getattr(row, column) for row in own]
        values = [value for value in values if not math.isnan(value)]
        return (sum(values) if column == "output_error_share" else max(values)) if values else math.nan

    return {
        column: np.array([of(group, column) for group in groups.values()])
        for column in COLUMNS
        if column != "sensitivity"
    }


def rank(ranked: Ranked, models: Path, photos: Path | None, count: int) -> str:
    """A line of the table."""
    path = models / f"{ranked.model}.onnx"
    data: Arrays = CASES[ranked.model].samples(models, photos, CALIBRATION + count)
    backend, model, samples = opened(path, data, None, None)
    recipe = ranked.recipe(model.graph)
    quantizer = Quantizer(backend, model, samples, range(CALIBRATION), batch_size=batch_size_for(model, None))
    began = time.monotonic()
    found = quantizer.sensitivities(recipe, range(CALIBRATION, CALIBRATION + count), most_ops=1000, by=ranked.by)
    seconds = time.monotonic() - began
    possible = set(quantizer.ranking(recipe, found))
    # Activations that an op absorbs are no groups: were they in float, the op's output would be rounded unclipped.
    ranked_ops = [op for op in found.ranking if op in possible]
    groups = {row.op: tuple(op for op in row.ops if op in possible) for row in found.ops}
    groups = {name: ops for name, ops in groups.items() if ops}
    brute = BruteForce(backend, model, samples, quantizer, count)
    began = time.monotonic()
    total = brute.damage(recipe)
    evaluation = time.monotonic() - began
    effects = np.array(
        [brute.damage(recipe.with_fallback([o for o in ranked_ops if o not in ops])) for ops in groups.values()]
    )
    diagnosis = quantscope.diagnose(path, data=data, recipe=recipe, calibration_samples=CALIBRATION)
    insights = insights_by_tensor(backend, model, quantizer.quantized(recipe), samples)
    values = columns(diagnosis, insights, groups)
    alone = {row.op: row.alone for row in found.ops}
    values["sensitivity"] = np.array([alone[name] for name in groups])
    cells = []
    for column in COLUMNS:
        known = ~np.isnan(values[column])
        cells.append(f"{spearman(values[column][known], effects[known]):+.2f}")
    first = max(range(len(groups)), key=lambda i: float(effects[i]))
    name = list(groups)[first]
    places = [str(int((values[c] > values[c][first]).sum()) + 1) for c in COLUMNS]
    print(
        f"{ranked.model}: {len(groups)} groups, damage {total:.4g}, "
        f"worst by brute force {name} ({effects[first]:.4g}), "
        f"its place by {', '.join(f'{c} {p}' for c, p in zip(COLUMNS, places, strict=True))}; "
        f"sensitivity {seconds:.1f} s, one evaluation {evaluation:.2f} s",
        flush=True,
    )
    return f"| {ranked.model} | {len(groups)} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="the folder with the models")
    parser.add_argument("--photos", type=Path, help="a folder of photos with val.txt; noise without one")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--only", nargs="*", help="names of models")
    arguments = parser.parse_args()
    lines = [
        rank(ranked, arguments.models, arguments.photos, arguments.samples)
        for ranked in RANKED
        if not arguments.only or ranked.model in arguments.only
    ]
    print(f"| model | groups | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
