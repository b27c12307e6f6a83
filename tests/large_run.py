"""A run of a transformer with as many ops as wanted, for tests and timings of views; its figures are made up.

python tests/large_run.py FILE.qscope [LAYERS]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from quantscope.diagnosis import TensorDiagnosis, tensor_diagnosis
from quantscope.graph import Graph, Op, Tensor
from quantscope.pairing import TensorPair
from quantscope.qparams import QParams, QuantSpec
from quantscope.runfile import RunFile, graph_json
from quantscope.statistics import PairStatistics


class _Builder:
    """Ops one by one, each with one output."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.constants: set[str] = set()

    def op(self, scope: str, op_type: str, *inputs: str) -> str:
        name = f"/{scope}/{op_type}_{len(self.ops)}"
        self.ops.append(Op(name, op_type, inputs, (f"{name}_output",), scope))
        return f"{name}_output"

    def linear(self, scope: str, x: str) -> str:
        weight = f"{scope.replace('/', '.')}.weight"
        self.constants.add(weight)
        return self.op(scope, "MatMul", x, weight)

    def norm(self, scope: str, x: str) -> str:
        square = self.op(scope, "Pow", x)
        scale = self.op(scope, "Sqrt", self.op(scope, "Add", self.op(scope, "ReduceMean", square)))
        return self.op(scope, "Mul", self.op(scope, "Div", x, scale))

    def heads(self, scope: str, x: str) -> str:
        shape = self.op(scope, "Concat", self.op(scope, "Gather", self.op(scope, "Shape", x)))
        return self.op(scope, "Transpose", self.op(scope, "Reshape", x, shape))

    def rotated(self, scope: str, x: str, cos: str, sin: str) -> str:
        turned = self.op(scope, "Concat", self.op(scope, "Neg", self.op(scope, "Slice", x)), self.op(scope, "Slice", x))
        return self.op(scope, "Add", self.op(scope, "Mul", x, cos), self.op(scope, "Mul", turned, sin))

    def layer(self, scope: str, x: str, mask: str, cos: str, sin: str) -> str:
        at = f"{scope}/self_attn"
        h = self.norm(f"{scope}/input_layernorm", x)
        q, k, v = (self.heads(at, self.linear(f"{at}/{name}_proj", h)) for name in "qkv")
        k = self.op(at, "Transpose", self.rotated(at, k, cos, sin))
        scores = self.op(at, "Div", self.op(at, "MatMul", self.rotated(at, q, cos, sin), k))
        mixed = self.op(at, "MatMul", self.op(at, "Softmax", self.op(at, "Add", scores, mask)), v)
        merged = self.op(at, "Reshape", self.op(at, "Transpose", mixed))
        x = self.op(scope, "Add", x, self.linear(f"{at}/o_proj", merged))
        h = self.norm(f"{scope}/post_attention_layernorm", x)
        gate = self.linear(f"{scope}/mlp/gate_proj", h)
        gate = self.op(f"{scope}/mlp/act_fn", "Mul", gate, self.op(f"{scope}/mlp/act_fn", "Sigmoid", gate))
        up = self.op(f"{scope}/mlp", "Mul", gate, self.linear(f"{scope}/mlp/up_proj", h))
        return self.op(scope, "Add", x, self.linear(f"{scope}/mlp/down_proj", up))


def graph(layers: int) -> Graph:
    """A decoder of so many layers, about 57 ops each; mask and rotary tensors are read by all of them."""
    b = _Builder()
    x = b.op("model/embed_tokens", "Gather", "input_ids")
    angles = b.op("model/rotary_emb", "MatMul", "position_ids")
    cos, sin = b.op("model/rotary_emb", "Cos", angles), b.op("model/rotary_emb", "Sin", angles)
    mask = b.op("model", "Where", "attention_mask")
    for i in range(layers):
        x = b.layer(f"model/layers.{i}", x, mask, cos, sin)
    x = b.linear("lm_head", b.norm("model/norm", x))
    inputs = tuple(
        Tensor(name, "int64", ("batch", "length")) for name in ("input_ids", "position_ids", "attention_mask")
    )
    return Graph(tuple(b.ops), {}, inputs, (Tensor(x),), frozenset(b.constants))


def row(op: Op, rng: np.random.Generator) -> TensorDiagnosis:
    """A row of values that were drawn, rounded to codes."""
    qparams = QParams(
        np.array(rng.uniform(0.005, 0.08), np.float32), np.array(128), QuantSpec(8, signed=False, symmetric=False)
    )
    statistics = PairStatistics(qparams)
    x = rng.normal(0, 1, 64).astype(np.float32)
    statistics.update(x, qparams.quantize(x + rng.normal(0, 0.05, 64)).astype(np.uint8))
    return tensor_diagnosis(TensorPair(op, "activation", op.outputs[0], op.outputs[0], qparams), statistics)


def write(path: Path, layers: int) -> Graph:
    """Write the run file and return its graph."""
    made, rng = graph(layers), np.random.default_rng(0)
    facts = graph_json(made)
    rows = {i: row(op, rng) for i, op in enumerate(op for op in made.ops if op.op_type in ("MatMul", "Add", "Mul"))}
    models = {"reference": {"path": f"/made-up/{path.stem}.onnx", "bytes": None}, "quantized": None}
    with RunFile.create(path, graph=facts, quantized_graph=facts, models=models, compute_ops=len(rows)) as run:
        run.checkpoint(rows, {}, {}, ("compare", 1, 1, True, 0.0))
        run.write_about(status="finished", skipped={})
    return made


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 350)
