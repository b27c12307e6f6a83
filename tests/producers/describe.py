"""Prints how a quantized model is built and how its tensors compare with those of its float model.

    cd tests && python -m producers.describe FLOAT.onnx producers/data/QUANTIZED.onnx

The README in `data/` is written from this. Both models run without graph optimizations, on the lines of text that
calibrated them, so that every tensor is there to be read.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from producers.make import MODELS, text_lines

WEIGHTED = {"Conv": 1, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1, "QLinearConv": 3, "QLinearMatMul": 3,
            "ConvInteger": 1, "MatMulInteger": 1, "MatMulNBits": 1}  # fmt: skip


def constants(model: Any) -> dict[str, NDArray[Any]]:
    """The values of initializers and Constant nodes."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    return {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}


def values(model: Any, samples: NDArray[Any], kind: str = "float") -> dict[str, NDArray[Any]]:
    """Every tensor that the model computes whose type has this in its name."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    existing = {output.name for output in model.graph.output}
    computed = [name for node in model.graph.node if node.op_type != "Constant" for name in node.output if name]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed if name not in existing)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs() if kind in output.type]
    entry = session.get_inputs()[0].name
    runs = [session.run(names, {entry: samples[i : i + 1]}) for i in range(len(samples))]
    return {name: np.stack([run[k] for run in runs]).astype(np.float64) for k, name in enumerate(names)}


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The cosine between two tensors, 1 if both are zero."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / norms if norms else float(np.allclose(a, b))


def like(tensor: NDArray[Any], others: dict[str, NDArray[Any]], least: float) -> list[str]:
    """The names of at most three tensors that have these values, but for quantization."""
    found = (name for name, other in others.items() if other.shape == tensor.shape and cosine(other, tensor) > least)
    return list(islice(found, 3))


def origin(name: str, producers: dict[str, Any], fixed: dict[str, NDArray[Any]]) -> str:
    """Where an input comes from, back through Q and DQ: `int8 > DQ`, or `op > Q > DQ`."""
    steps: list[str] = []
    while name in producers and producers[name].op_type in {"QuantizeLinear", "DequantizeLinear"}:
        node = producers[name]
        scale = fixed.get(node.input[1])
        axis = " per channel" if scale is not None and scale.size > 1 else ""
        steps.insert(0, {"Q": "Q", "D": "DQ"}[node.op_type[0]] + axis)
        name = node.input[0]
    return " > ".join([f"{fixed[name].dtype} constant" if name in fixed else "tensor", *steps])


def lines(float_path: Path, path: Path, samples: NDArray[Any]) -> Iterator[str]:
    """The description, line by line."""
    reference, model = onnx.load(str(float_path)), onnx.load(str(path))
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    fixed, producers = constants(model), {name: node for node in nodes for name in node.output}
    opsets = ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)
    yield f"{path.name}: {path.stat().st_size} bytes, producer {model.producer_name!r}, opsets {opsets}"
    yield "ops: " + ", ".join(f"{op} {n}" for op, n in Counter(node.op_type for node in nodes).most_common())
    yield f"domains: {dict(Counter(node.domain or 'ai.onnx' for node in nodes))}"
    for kind, shift in (("weights", 0), ("biases", 1)):
        found: Counter[str] = Counter()
        for node in nodes:
            index = WEIGHTED.get(node.op_type, 99) + shift + (4 * shift if node.op_type == "QLinearConv" else 0)
            if index < len(node.input) and (not shift or node.op_type in {"Conv", "Gemm", "QLinearConv"}):
                found[f"{node.op_type}: {origin(node.input[index], producers, fixed)}"] += 1
        yield f"{kind}: {dict(found)}"
    wrapped: Counter[str] = Counter()
    for node in nodes:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            kinds = {origin(name, producers, fixed) for name in node.input[:2] if name and name not in fixed}
            wrapped[f"{node.op_type} {'with' if any('tensor > Q' in kind for kind in kinds) else 'without'}"] += 1
    yield f"ops whose inputs come through Q > DQ: {dict(sorted(wrapped.items()))}"
    floats = [node for node in reference.graph.node if node.op_type != "Constant"]
    kept = {node.name for node in floats if node.name} & {node.name for node in nodes}
    yield f"node names kept: {len(kept)} of {len(floats)}"
    known = constants(reference)
    same = [name for name in known if name in fixed]
    equal = sum(known[n].shape == fixed[n].shape and bool(np.array_equal(known[n], fixed[n])) for n in same)
    yield f"constant names kept: {len(same)} of {len(known)}, with the same value: {equal}"
    before, after = values(reference, samples), values(model, samples)
    shared = [name for name in before if name in after]
    roles = Counter("by Dequantize" if producers[n].op_type == "DequantizeLinear" else "by an op" for n in shared)
    yield f"float tensors whose name is kept: {len(shared)} of {len(before)}, written {dict(roles)}"
    for name in shared:
        close = before[name].shape == after[name].shape and cosine(before[name], after[name]) >= 0.9
        if not close:
            yield f"  {name} differs, and is like {like(after[name], before, 0.98)}"
    lost = [name for name in before if name not in after and before[name].size > len(samples)]
    matches = {name: like(before[name], after, 0.995) for name in lost}
    found_again = [(name, match) for name, match in matches.items() if match]
    yield f"float tensors whose name is gone: {len(lost)}, of which {len(found_again)} have a tensor like them"
    yield f"  such as {dict(found_again[:5])}; none for {[name for name, match in matches.items() if not match][:5]}"
    classifiers = {"MatMul", "Gemm", "QLinearMatMul", "QGemm", "MatMulNBits", "MatMulInteger"}
    first, last = (next(n for n in reversed(found) if n.op_type in classifiers) for found in (floats, nodes))
    features, name = before[first.input[0]], last.input[0]
    if name in after:
        others = after[name]
    elif producers[name].op_type == "DynamicQuantizeLinear":
        others = after[producers[name].input[0]]
    else:
        others = (values(model, samples, "int8")[name] - fixed[last.input[2]].astype(float)) * fixed[last.input[1]]
    pairs = {
        f"classifier's input {first.input[0]} > {name}": (features, others),
        f"output {reference.graph.output[0].name} > {model.graph.output[0].name}": (
            before[reference.graph.output[0].name], after[model.graph.output[0].name],
        ),
    }  # fmt: skip
    for title, (a, b) in pairs.items():
        each = [cosine(x, y) for x, y in zip(a, b.reshape(a.shape), strict=True)]
        yield f"{title}: cosine mean {np.mean(each):.4f}, least {min(each):.4f}"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Describes a quantized model next to its float model.")
    parser.add_argument("float", type=Path)
    parser.add_argument("quantized", type=Path)
    options = parser.parse_args()
    width = next(width for stem, width in MODELS.values() if stem == options.float.stem)
    print("\n".join(lines(options.float, options.quantized, text_lines(8, width))))


if __name__ == "__main__":
    main()
