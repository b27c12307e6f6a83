"""LiteRT models: names, files from elsewhere, recipes, cuts, memory, times, and what is said without LiteRT."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import quantscope
from quantscope.backends.base import Backend, Model, Trace
from quantscope.backends.litert.names import is_given, op_name
from quantscope.backends.registry import backend, backend_for
from quantscope.calibration import calibrate
from quantscope.channel_axes import channel_axes
from quantscope.confirmation import layout, lie_alike
from quantscope.diagnosis import Diagnosis, TensorDiagnosis
from quantscope.errors import DataError, ModelError, OutputError, RecipeError
from quantscope.pairing import coverage
from quantscope.recipe import OpRule, Recipe, SpecChange
from quantscope.samples import Samples
from quantscope.testing import TinyNetwork
from quantscope.workflows.diagnosis import paired
from registry import registry_model
from test_spread import figures
from tflite import apart, dividing, half_read, halved, integer, looped, odd, recurrent, tiny, wide, with_op

LITERT: Backend = backend("litert")
MISSING = LITERT.missing()
needs_litert = pytest.mark.skipif(bool(MISSING), reason=f"LiteRT is not installed; next step: {MISSING}")


def images(count: int = 8) -> NDArray[np.float32]:
    return np.ascontiguousarray(TinyNetwork().samples(count).transpose(0, 2, 3, 1))


def activations(found: Diagnosis) -> list[TensorDiagnosis]:
    return [row for op in found.rows for row in op.activations]


def quantized_by(model: Model, recipe: Recipe, data: Any) -> Model:
    samples = Samples.of(data).for_inputs(model.graph.inputs)
    ranges, _ = calibrate(LITERT, model, recipe, partial(samples.batches, 1), threads=1)
    return LITERT.quantize(model, recipe, ranges)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return tiny(tmp_path / "tiny.tflite")


# ---------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("tensor", "native", "expected"),
    [
        ("net/conv/Conv2D", "CONV_2D", "net/conv/Conv2D"),
        # Fused ops, doubled, and a layer whose bias of zeros is shared; digits behind the last make the whole unique.
        (
            "m/re_lu_3/Relu;m/re_lu_3/Relu;m/bn_3/FusedBatchNormV3;m/bn_3/FusedBatchNormV3;m/conv2d_4/BiasAdd;"
            "m/conv2d_4/BiasAdd;m/conv2d_2/Conv2D;m/conv2d_2/Conv2D;m/conv2d_4/Conv2D;m/conv2d_4/Conv2D1",
            "CONV_2D",
            "m/conv2d_4/Conv2D",
        ),
        ("m/contours/BiasAdd;m/conv2d_5/Conv2D;m/contours/Conv2D", "CONV_2D", "m/contours/Conv2D"),
        ("m/stem/Relu6;m/stem/BiasAdd;m/stem/convolution;m/stem/Squeeze1", "CONV_2D", "m/stem/convolution"),
        ("m/dw/Relu6;m/dw/BiasAdd;m/dw/depthwise;m/dw/Squeeze1", "DEPTHWISE_CONV_2D", "m/dw/depthwise"),
        ("m/dense/Relu;m/dense/MatMul;m/dense/BiasAdd", "FULLY_CONNECTED", "m/dense/MatMul"),
        ("m/Neg_7;m/transpose_61;m/conv1d_22/Squeeze", "NEG", "m/Neg_7"),
        ("m/Neg_7;m/transpose_61;m/conv1d_22/Squeeze1", "RESHAPE", "m/conv1d_22/Squeeze"),
        ("m/Neg_7;m/transpose_61;m/conv1d_22/Squeeze1", "TRANSPOSE", "m/transpose_61"),
        ("m/strided_slice_9;m/strided_slice_92", "STRIDED_SLICE", "m/strided_slice_9"),
        ("m/a;m/b", "WHERE", "m/a"),
        ("", "ADD", ""),
    ],
)
def test_of_joined_names_the_right_one_is_the_ops(tensor: str, native: str, expected: str) -> None:
    assert op_name(tensor, native) == expected


@pytest.mark.parametrize(
    "name", ["StatefulPartitionedCall:0", "StatefulPartitionedCall_1:01", "Identity", "Identity1", ""]
)
def test_names_that_the_converter_gave_are_known(name: str) -> None:
    assert is_given(name)
    assert not is_given("m/conv/Identity")


@needs_litert
def test_ops_and_tensors_go_by_the_users_names(network: Path) -> None:
    graph = LITERT.load(network).graph
    assert [op.name for op in graph.ops] == ["net/stem/Conv2D", "net/body/Conv2D", "net/pool/Mean", "net/head/MatMul"]
    assert [op.op_type for op in graph.ops] == ["Conv", "Conv", "ReduceMean", "Gemm"]
    assert [op.native_type for op in graph.ops] == ["CONV_2D", "CONV_2D", "MEAN", "FULLY_CONNECTED"]
    assert [op.scope for op in graph.ops] == ["net/stem", "net/body", "net/pool", "net/head"]
    assert [t.name for t in (*graph.inputs, *graph.outputs)] == ["image", "scores"]
    assert graph.inputs[0].shape == (None, 8, 8, 3)
    assert graph.ops[0].attributes["activation"] == "Relu"


@needs_litert
def test_channels_are_on_the_last_axis(network: Path) -> None:
    graph = LITERT.load(network).graph
    assert channel_axes(graph) == {graph.ops[0].outputs[0]: 3, graph.ops[1].outputs[0]: 3, "scores": 1}


# ---------------------------------------------------------------------------------------------------- diagnosis


@needs_litert
def test_a_float_file_is_quantized_and_diagnosed_in_one_command(network: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", image=images(24), labels=np.arange(24) % 5)
    command = ["diagnose", str(network), "--data", str(tmp_path / "samples.npz"), "--run", str(tmp_path / "run.qscope")]
    done = subprocess.run([sys.executable, "-m", "quantscope", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "coverage: 100.0%" in done.stdout
    assert "equal bit for bit" in done.stdout
    assert "XNNPACK" not in done.stderr
    assert (tmp_path / "run.int8.tflite").is_file()
    found = quantscope.open(tmp_path / "run.qscope")
    rows = {row.op: row for row in activations(found)}
    assert list(rows) == ["net/stem/Conv2D", "net/body/Conv2D", "net/pool/Mean", "net/head/MatMul"]
    assert all(
        row.sqnr_db > 20 and row.isolated_sqnr_db is not None and row.budget is not None for row in rows.values()
    )
    assert found.environment["ai-edge-litert"]
    channels = rows["net/body/Conv2D"].channels
    assert channels is not None
    assert (channels.axis, len(channels.mean)) == (3, 16)


@needs_litert
def test_the_error_of_an_op_is_found_where_it_is_made(network: Path) -> None:
    """A weight with one huge value, per tensor: the op's isolated error is large, and that of the others is not."""
    path = network.with_name("broken.tflite")
    net = TinyNetwork()
    body = net.body.copy()
    # This value meets a channel that is always zero.
    body[0, 0, 0, 0] = 200
    stem, bias = net.stem.copy(), net.stem_bias.copy()
    stem[0], bias[0] = 0, -1
    tiny(path, TinyNetwork(stem=stem, stem_bias=bias, body=body))
    recipe = Recipe.from_dict({"weights": {"granularity": "per_tensor"}})
    found = quantscope.diagnose(path, data={"image": images(16)}, recipe=recipe)
    rows = {row.op: row for row in activations(found)}
    assert rows["net/body/Conv2D"].isolated_sqnr_db < 5
    assert rows["net/head/MatMul"].isolated_sqnr_db > 20
    budget = rows["net/body/Conv2D"].budget
    assert budget is not None
    assert budget.weight == max(budget.inherited, budget.clipping, budget.rounding, budget.weight, budget.bias)
    kept = quantscope.diagnose(path, data={"image": images(16)}, recipe=recipe.with_fallback(["net/body/*"]))
    assert min(row.sqnr_db for row in activations(kept)) > 25


@needs_litert
def test_a_file_of_integers_from_elsewhere_pairs_by_name(network: Path, tmp_path: Path) -> None:
    other = integer(tmp_path / "integer.tflite")
    reference, quantized = LITERT.load(network), LITERT.load(other)
    assert [t.dtype for t in (*quantized.graph.inputs, *quantized.graph.outputs)] == ["float32", "float32"]
    for trace in ("deployed", "simulated"):
        found = paired(LITERT, reference, quantized, trace)
        assert [(p.op.name, p.quantized_op, p.how) for p in found.pairs] == [
            (o.name, o.name, "name") for o in reference.graph.ops
        ]
        assert coverage(found.skipped, found.compute_ops) == 1
    diagnosis = quantscope.diagnose(network, other, data={"image": images()})
    assert all(row.sqnr_db > 15 and row.budget is not None for row in activations(diagnosis))
    assert {row.role for op in diagnosis.rows for row in op.weights} == {"weight", "bias"}


@needs_litert
def test_a_file_whose_names_say_nothing_pairs_by_weights_and_structure(network: Path, tmp_path: Path) -> None:
    from quantscope.backends.litert import schema

    table = schema.unpacked(integer(tmp_path / "integer.tflite").read_bytes())
    for i, tensor in enumerate(table.subgraphs[0].tensors):
        tensor.name = f"t{i}".encode()
    table.signatureDefs = None
    (tmp_path / "nameless.tflite").write_bytes(schema.packed(table))
    reference = LITERT.load(network)
    found = paired(LITERT, reference, LITERT.load(tmp_path / "nameless.tflite"), "deployed")
    outputs = (f"t{int(op.outputs[0])}" for op in table.subgraphs[0].operators)
    written = dict(zip(outputs, (op.name for op in reference.graph.ops), strict=True))
    assert {p.view_name: p.op.name for p in found.pairs} == written
    assert "name" not in {p.how for p in found.pairs}


@needs_litert
def test_inputs_that_another_converter_renamed_are_fed_by_position(network: Path, tmp_path: Path) -> None:
    other = LITERT.load(integer(tmp_path / "integer.tflite", signature={}))
    assert [t.name for t in other.graph.inputs] == ["serving_default_image:0"]
    with LITERT.open(other, [], trace="optimized", threads=1) as runner:
        found = runner.run({"image": images(1)})
    expected = TinyNetwork().outputs(TinyNetwork().samples(1))
    assert np.abs(next(iter(found.values())) - expected).max() < 0.2


@needs_litert
def test_an_activation_that_the_codes_took_over_is_part_of_the_op(tmp_path: Path) -> None:
    """Without it, all that the ReLU removes would count as what clipping costs."""
    reference = apart(tmp_path / "apart.tflite")
    found = quantscope.diagnose(
        reference, integer(tmp_path / "integer.tflite", activation="in codes"), data={"image": images(16)}
    )
    row = next(row for row in activations(found) if row.absorbed)
    assert row.absorbed == "Relu"
    assert row.isolated_sqnr_db > 25
    assert row.budget is not None
    assert row.budget.energies["clipping"] < row.budget.mse


@needs_litert
def test_ops_without_a_float_form_go_on_with_codes(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantscope.backends.litert import simulation

    expected = traced_simulation(integer(tmp_path / "integer.tflite"))
    monkeypatch.setattr(simulation, "COMPOUND", frozenset(("CONV_2D", "MEAN")))
    found = traced_simulation(tmp_path / "integer.tflite")
    model = LITERT.load(tmp_path / "integer.tflite")
    encoded = LITERT.float_view(model, "simulated").tensors
    for name, values in found.items():
        qparams = encoded[name].qparams
        assert qparams is not None
        assert np.abs(values - expected[name]).max() <= 2.001 * float(qparams.scale)


@needs_litert
def test_a_sample_does_not_go_on_from_where_the_one_before_ended(tmp_path: Path) -> None:
    """A recurrent layer's state lasts from run to run: each sample has to begin with zeros, in every figure."""
    path, weights = recurrent(tmp_path / "recurrent.tflite")
    x = np.random.default_rng(0).normal(size=(8, 1, 4, 3)).astype(np.float32)
    expected = []
    for sample in x:
        state, steps = np.zeros(5), []
        for step in sample[0].astype(np.float64):
            state = np.tanh(weights["inner"] @ step + weights["back"] @ state + weights["bias"])
            steps.append(state)
        expected.append(weights["head"] @ np.concatenate(steps))
    model = LITERT.load(path)
    with LITERT.open(model, [], trace="exact", threads=1) as runner, LITERT.profile(model, threads=1) as profiler:
        for run in (runner.run, profiler.run):
            found = [run({"x": sample})["y"][0] for sample in x]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    rows = {row.op: row for row in activations(quantscope.diagnose(path, data={"x": x[:, 0]}))}
    # It has no integer form, so that all of the error comes behind it.
    assert rows["rnn"].isolated_mse == rows["rnn"].mse == 0
    assert 10 < rows["y"].sqnr_db < 60


@needs_litert
def test_a_loop_is_one_op_and_what_nobody_reads_of_it_can_be_seen(tmp_path: Path) -> None:
    path, matrix = looped(tmp_path / "looped.tflite")
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    expected = x.astype(np.float64) @ np.linalg.matrix_power(matrix.T.astype(np.float64), 3)
    model = LITERT.load(path)
    with LITERT.open(model, ["loop", "unread"], trace="exact", threads=1) as runner:
        found = [runner.run({"x": sample[None]}) for sample in x]
    np.testing.assert_array_equal([one["unread"] for one in found], [matrix] * len(x))
    np.testing.assert_allclose([one["loop"][0] for one in found], expected, rtol=1e-5, atol=1e-6)
    diagnosis = quantscope.diagnose(path, data={"x": x})
    assert diagnosis.notes == ("LiteRT's quantizer leaves in float, with the weights in them: 'j' (WHILE)",)
    rows = {row.tensor: row for row in activations(diagnosis)}
    assert rows["loop"].isolated_sqnr_db > 10
    assert 10 < rows["y"].sqnr_db < 60
    ranked = quantscope.sensitivity(path, data={"x": x})
    assert "y" in ranked.ranking


def traced_simulation(path: Path) -> dict[str, NDArray[Any]]:
    model = LITERT.load(path)
    names = [name for op in LITERT.float_view(model, "simulated").graph.ops for name in op.outputs]
    with LITERT.open(model, names, trace="simulated", threads=1) as runner:
        values = runner.run({"image": images(1)})
    with LITERT.open_cut(model, names, names, trace="simulated", threads=1) as cut:
        again = cut.run({n: {"image": images(1), **values}[n] for n in cut.inputs})
    for name in names:
        assert np.isfinite(again[name]).all()
    return {name: values[name] for name in names}


def test_axes_of_one_element_are_left_where_they_are() -> None:
    """A tensor that quantization destroyed follows nothing; exchanging lone axes would change nothing."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1, 1, 40, 6)), rng.normal(size=(1, 1, 40, 6))
    assert layout(x, y) == (0, 1, 2, 3)
    assert lie_alike(x, y)


# ---------------------------------------------------------------------------------------------------- recipes


@needs_litert
@pytest.mark.parametrize(
    "rule",
    [
        OpRule("net/body/Conv2D"),
        OpRule("net/b*"),
        OpRule("net/(body|nothing)/.*", "regex"),
        OpRule("net/body", "scope"),
    ],
)
def test_a_fallback_leaves_the_op_in_float(network: Path, rule: OpRule) -> None:
    model = LITERT.load(network)
    quantized = quantized_by(model, Recipe(rules=(rule,)), {"image": images()})
    weights = {w.op: w.qparams for w in LITERT.weights(quantized) if w.role == "weight" and len(w.shape) > 1}
    assert [op for op, qparams in weights.items() if qparams is None] == ["net/body/Conv2D"]


@needs_litert
@pytest.mark.parametrize("op_type", ["Conv", "CONV_2D"])
def test_types_are_known_by_both_names(network: Path, op_type: str) -> None:
    model = LITERT.load(network)
    left = LITERT.check(model, Recipe(rules=(OpRule(op_type, "type"),))).in_float
    assert [name for name, reason in left.items() if reason == "fallback"] == ["net/stem/Conv2D", "net/body/Conv2D"]
    only = LITERT.check(model, Recipe(op_types=(op_type,))).in_float
    assert set(only) == {"net/pool/Mean", "net/head/MatMul"}


@needs_litert
@pytest.mark.parametrize(
    ("values", "dtype", "bits", "per_tensor"),
    [
        ({"weights": {"granularity": "per_tensor"}}, "int8", 8, True),
        ({"activations": {"dtype": "int8", "symmetric": True}}, "int8", 8, False),
        ({"activations": {"dtype": "int16", "symmetric": True}}, "int16", 8, False),
        ({"weights": {"dtype": "int4"}}, "int8", 4, False),
    ],
)
def test_codes_are_those_of_the_recipe(
    network: Path, values: dict[str, Any], dtype: str, bits: int, per_tensor: bool
) -> None:
    model = LITERT.load(network)
    quantized = quantized_by(model, Recipe.from_dict(values), {"image": images()})
    view = LITERT.float_view(quantized, "deployed")
    coded = [e.qparams for n, e in view.tensors.items() if n != "image" and e.qparams is not None]
    assert len(coded) == 4
    assert all(q.spec.dtype == dtype for q in coded)
    if values.get("activations", {}).get("symmetric"):
        assert all(not q.zero_point.any() for q in coded)
    weights = [w for w in LITERT.weights(quantized) if w.role == "weight" and len(w.shape) == 4]
    assert [w.qparams.spec.bits for w in weights if w.qparams is not None] == [bits, bits]
    assert [w.qparams.per_tensor for w in weights if w.qparams is not None] == [per_tensor, per_tensor]


@needs_litert
def test_what_litert_cannot_do_is_said(network: Path) -> None:
    model = LITERT.load(network)
    blocks = Recipe.from_dict({"weights": {"dtype": "int4", "granularity": "per_block", "block_size": 8}})
    assert "blocks" in LITERT.check(model, blocks).unsupported["net/head/MatMul"]
    rule = OpRule("net/body/Conv2D", weights=SpecChange(dtype="uint8"))
    assert "symmetric and signed" in LITERT.check(model, Recipe(rules=(rule,))).unsupported["net/body/Conv2D"]
    with pytest.raises(RecipeError, match="4 bits"):
        LITERT.check(model, Recipe.from_dict({"activations": {"dtype": "int4"}}))


@needs_litert
def test_a_file_without_a_signature_keeps_the_names_of_its_tensors(network: Path, tmp_path: Path) -> None:
    """LiteRT's quantizer calls the output otherwise when it brings it back to real values."""
    from quantscope.backends.litert import schema

    table = schema.unpacked(network.read_bytes())
    table.signatureDefs = None
    table.subgraphs[0].tensors[int(table.subgraphs[0].outputs[0])].name = b"net/head/Softmax"
    path = tmp_path / "unsigned.tflite"
    path.write_bytes(schema.packed(table))
    model = LITERT.load(path)
    quantized = quantized_by(model, Recipe(), {"image": images()})
    assert (
        [t.name for t in model.graph.inputs] == [t.name for t in quantized.graph.inputs] == ["serving_default_image:0"]
    )
    assert [t.name for t in model.graph.outputs] == [t.name for t in quantized.graph.outputs] == ["net/head/Softmax"]
    found = paired(LITERT, model, quantized, "deployed")
    assert [p.quantized_op for p in found.pairs] == [op.name for op in model.graph.ops]


@needs_litert
def test_weights_of_16_bits_are_read_and_quantized(network: Path, tmp_path: Path) -> None:
    """float16 weights behind a DEQUANTIZE, as the converter writes them, are ordinary weights."""
    path = halved(tmp_path / "half.tflite")
    model, reference = LITERT.load(path), LITERT.load(network)
    for half, whole in zip(LITERT.weights(model), LITERT.weights(reference), strict=True):
        assert (half.op, half.role, half.shape, half.qparams) == (whole.op, whole.role, whole.shape, None)
        np.testing.assert_allclose(half.read(), whole.read(), rtol=1e-3)
    found = quantscope.diagnose(path, data={"image": images(16)})
    assert all(row.sqnr_db > 20 and row.budget is not None for row in activations(found))
    assert sum(row.dtype == "int8" for op in found.rows for row in op.weights if row.role == "weight") == 3
    with LITERT.profile(model, threads=1) as profiler:
        profiler.run({"image": images(1)})
        assert {kernel.role for kernel in profiler.finish()[1]} == {"compute"}


@needs_litert
def test_a_run_says_what_litert_makes_of_unsigned_types(network: Path, tmp_path: Path) -> None:
    rule = OpRule("net/body/Conv2D", activations=SpecChange(dtype="uint16"), weights=SpecChange(dtype="uint8"))
    found = quantscope.diagnose(
        network, data=images(3), recipe=Recipe(rules=(rule,)), run=tmp_path / "n.qscope"
    )  # fmt: skip
    assert found.recipe is not None
    assert found.recipe.defaults_in_words == "int8 activations, int8 weights per channel, minmax"
    settled = found.recipe.rules[0]
    assert settled.activations == SpecChange(dtype="int16")
    assert settled.weights == SpecChange(dtype="int8")


@needs_litert
def test_an_output_that_nobody_reads_has_codes_like_its_siblings(tmp_path: Path) -> None:
    """Else LiteRT refuses the model."""
    x = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    found = quantscope.diagnose(half_read(tmp_path / "half_read.tflite"), data={"x": x})
    rows = {row.tensor: row for row in activations(found)}
    assert rows["unread"].scale == rows["half"].scale > 0
    assert rows["y"].sqnr_db > 20


@needs_litert
def test_a_model_that_is_all_loop_cannot_be_quantized(tmp_path: Path) -> None:
    path, _ = looped(tmp_path / "looped.tflite")
    with pytest.raises(RecipeError, match=r"every op stays in float: .*no form for WHILE.*; fallback"):
        quantscope.quantize(path, {"x": np.ones((4, 4), np.float32)}, recipe=Recipe().with_fallback(["y"]))


@needs_litert
def test_a_quantized_model_is_not_quantized_again(network: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="quantized already"):
        quantscope.quantize(integer(tmp_path / "integer.tflite"), {"image": images()})


@needs_litert
@pytest.mark.parametrize(
    ("native", "name", "written"),
    [
        ("EXPAND_DIMS", "net/expand/ExpandDims", "RESHAPE"),
        # It follows a convolution, from which a product with a constant must not be taken for a part of it.
        ("NEG", "net/negative/Neg", "MUL"),
        ("SQUARE", "net/squared/Square", "MUL"),
    ],
)
def test_what_has_no_integer_form_becomes_an_op_that_has_one(
    network: Path, tmp_path: Path, native: str, name: str, written: str
) -> None:
    """The prepared model computes the same bits, and keeps all names."""
    model = LITERT.load(with_op(tmp_path / "model.tflite", native))
    prepared = LITERT.prepare(model)
    assert [op.native_type for op in model.graph.ops][2] == native
    assert [op.native_type for op in prepared.graph.ops][2] == written
    assert [op.name for op in model.graph.ops] == [op.name for op in prepared.graph.ops]
    for batch in (1, 3):
        results = []
        for one in (model, prepared):
            with LITERT.open(one, [], trace="exact", threads=1) as runner:
                results.append(runner.run({"image": images(batch)})["scores"])
        np.testing.assert_array_equal(results[0], results[1])
    assert native in LITERT.check(model, Recipe()).in_float[name]
    assert not LITERT.check(prepared, Recipe()).in_float
    found = quantscope.diagnose(tmp_path / "model.tflite", data={"image": images(16)})
    assert all(row.sqnr_db > 25 for row in activations(found))
    assert name in {*(row.op for row in activations(found)), *found.skipped}
    assert coverage(found.skipped, len(model.graph.ops)) == 1
    plain = LITERT.load(network)
    assert LITERT.prepare(plain) is plain


# ---------------------------------------------------------------------------------------------------- files


@needs_litert
def test_weights_behind_the_flatbuffer_are_found(network: Path, tmp_path: Path) -> None:
    """LiteRT's quantizer writes those of larger models there; what is cut out of such a model has them with it."""
    from quantscope.backends.litert import schema

    table = schema.unpacked(network.read_bytes())
    behind, data = [b for b in table.buffers if b.data is not None and len(b.data) > 16], b""
    arrays = [b.data.tobytes() for b in behind]
    for buffer, array in zip(behind, arrays, strict=True):
        buffer.data, buffer.offset, buffer.size = None, 1 << 20, len(array)
    start = -(-len(schema.packed(table)) // 16) * 16
    for buffer, array in zip(behind, arrays, strict=True):
        buffer.offset = start + len(data)
        data += array + bytes(-len(array) % 16)
    path = tmp_path / "behind.tflite"
    path.write_bytes(schema.packed(table).ljust(start, b"\0") + data)
    one, other = LITERT.load(network), LITERT.load(path)
    for x, y in zip(LITERT.weights(one), LITERT.weights(other), strict=True):
        np.testing.assert_array_equal(x.read(), y.read())
    names = [name for op in one.graph.ops for name in op.outputs]
    results = []
    for model in (one, other):
        with LITERT.open_cut(model, names, names[:1], trace="exact", threads=1) as cut:
            results.append(cut.run({"image": images(1)})[names[0]])
    np.testing.assert_array_equal(results[0], results[1])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelError, match="damaged"):
        LITERT.load(path)


@needs_litert
def test_operator_codes_of_old_files_are_read(network: Path, tmp_path: Path) -> None:
    from quantscope.backends.litert import schema

    table = schema.unpacked(network.read_bytes())
    for code in table.operatorCodes:
        code.deprecatedBuiltinCode, code.builtinCode = schema.builtin(code), 0
    table.subgraphs[0].tensors[-1].name = table.subgraphs[0].tensors[-2].name
    old = tmp_path / "old.tflite"
    old.write_bytes(schema.packed(table))
    model = LITERT.load(old)
    assert [op.op_type for op in model.graph.ops] == ["Conv", "Conv", "ReduceMean", "Gemm"]
    quantized = quantized_by(model, Recipe(), {"image": images()})
    assert sum(w.qparams is not None for w in LITERT.weights(quantized)) == 6


@needs_litert
@pytest.mark.parametrize("keep", [0, 7, 30, 500, -200])
def test_a_damaged_file_is_one_message(network: Path, keep: int) -> None:
    network.write_bytes(network.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"damaged|not a LiteRT model"):
        LITERT.load(network)


@needs_litert
def test_a_constant_of_another_size_than_its_shape_is_one_message(network: Path, tmp_path: Path) -> None:
    from quantscope.backends.litert import schema

    table = schema.unpacked(network.read_bytes())
    table.subgraphs[0].tensors[0].shape = np.array([8, 3, 3, 4], np.int32)
    path = tmp_path / "damaged.tflite"
    path.write_bytes(schema.packed(table))
    with pytest.raises(ModelError, match="net/stem/Conv2D"):
        [weight.read() for weight in LITERT.weights(LITERT.load(path))]


@needs_litert
def test_an_op_that_litert_does_not_know_is_one_message(network: Path, tmp_path: Path) -> None:
    from quantscope.backends.litert import schema

    table = schema.unpacked(network.read_bytes())
    table.operatorCodes[0].builtinCode = table.operatorCodes[0].deprecatedBuiltinCode = 32
    table.operatorCodes[0].customCode = "FlexErf"
    for op in table.subgraphs[0].operators:
        if op.opcodeIndex == 0:
            op.builtinOptionsType, op.builtinOptions = 0, None
    path = tmp_path / "custom.tflite"
    path.write_bytes(schema.packed(table))
    model = LITERT.load(path)
    assert model.graph.ops[0].op_type == "FlexErf"
    said = "does not have the op FlexErf"
    with pytest.raises(ModelError, match=said), LITERT.open(model, [], trace="exact", threads=1):
        pass


@needs_litert
def test_wrong_samples_are_one_message(network: Path) -> None:
    with pytest.raises(DataError, match="shape"):
        quantscope.quantize(network, {"image": TinyNetwork().samples(4)})


def test_without_litert_there_is_one_message_and_how_to_install_it(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\0\0\0\0TFL3")
    code = (
        "import sys, importlib.util\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name.startswith('ai_edge') else real(name, *a)\n"
        "from quantscope.cli import main\n"
        f"sys.argv = ['quantscope', 'diagnose', {str(path)!r}, '--data', 'samples.npz']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'quantscope[litert]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_onnx_model_needs_nothing_of_litert(model: Path) -> None:
    code = (
        "import sys, quantscope\n"
        "from quantscope.backends.registry import backend_for\n"
        f"b = backend_for({str(model)!r}); b.load({str(model)!r})\n"
        "print([m for m in sys.modules if m.startswith(('ai_edge', 'flatbuffers', 'tensorflow'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # ONNX Runtime brings flatbuffers itself, and does not import it.
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------------- division


def kernel(path: Path, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """What LiteRT's integer kernel makes of these values in a model of `dividing`."""
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(model_path=str(path))
    made.allocate_tensors()
    for i, values in enumerate((x, y)):
        made.set_tensor(i, (np.rint(values * 16) + 3).astype(np.int8))
    made.invoke()
    found: NDArray[np.float64] = (made.get_tensor(3).astype(np.float64) + 5) / 8
    return found


@needs_litert
def test_batches_on_which_an_integer_division_fails_are_run_in_float(tmp_path: Path) -> None:
    """All commands work on samples with a divisor of zero; on the others the kernel is that of production."""
    reference, path = dividing(tmp_path / "float.tflite"), dividing(tmp_path / "int8.tflite", "int8")
    rng = np.random.default_rng(0)
    x, y = (rng.uniform(1, 6, (16, 8)).astype(np.float32) for _ in "xy")
    # Of so small a quotient LiteRT's kernel makes the largest code.
    x[1, 0], y[1, 0] = 1 / 16, 6
    y[0, 3] = 0
    with pytest.raises(RuntimeError, match="div"):
        kernel(path, x[:1], y[:1])
    theirs = kernel(path, x[1:2], y[1:2])
    assert theirs[0, 0] == 132 / 8
    with np.errstate(divide="ignore"):
        expected = np.minimum(np.rint(x[:1].astype(np.float64) * 16) / np.rint(y[:1].astype(np.float64) * 16), 132 / 8)

    model = LITERT.load(path)
    assert "'net/div'" in model.notes[0]
    runners = [LITERT.open(model, tensors, trace="deployed", threads=1) for tensors in ([], ["net/div"])]
    runners += [LITERT.deploy(source, threads=1) for source in (model, path, replace(model, path=None))]
    for opened in runners:
        with opened as runner:
            for _ in range(2):
                found = [runner.run({"x": x[i : i + 1], "y": y[i : i + 1]})["net/relu"] for i in range(2)]
                np.testing.assert_allclose(found[0], expected, atol=1 / 8)
                np.testing.assert_array_equal(found[1], theirs)
    with LITERT.profile(model, threads=1) as profiler:
        np.testing.assert_allclose(profiler.run({"x": x[:1], "y": y[:1]})["net/relu"], expected, atol=1 / 8)
    data = {"x": x, "y": y}
    diagnosis = quantscope.diagnose(reference, path, data=data)
    assert "'net/div'" in diagnosis.notes[0]
    assert [row.op for row in activations(diagnosis)] == ["net/div", "net/relu"]
    profile = quantscope.profile(reference, path, data=data, seconds=0.1)
    assert "'net/div'" in profile.notes[0]
    assert profile.quantized is not None
    assert profile.quantized.peak_memory_bytes


@needs_litert
def test_divisions_that_cannot_fail_are_left_as_they_are(tmp_path: Path) -> None:
    from quantscope.backends.litert.division import in_float

    constants = {value: np.full((1, 8), value, np.int8) for value in (3, 19)}
    for path, notes in (
        (dividing(tmp_path / "float.tflite"), 0),
        (dividing(tmp_path / "constant.tflite", "int8", constants[19]), 0),
        (dividing(tmp_path / "zero.tflite", "int8", constants[3]), 1),
    ):
        content = path.read_bytes()
        assert (in_float(content) is content) == (not notes)
        model = LITERT.load(path)
        assert len(model.notes) == notes
        with LITERT.deploy(model, threads=1) as runner:
            found = runner.run({t.name: np.full((1, 8), 2, np.float32) for t in model.graph.inputs})["net/relu"]
        assert (found == (132 / 8 if notes else found[0, 0])).all()


# ---------------------------------------------------------------------------------------------------- speed, memory


@needs_litert
def test_findings_name_ops_in_float_between_integers(tmp_path: Path) -> None:
    model = LITERT.load(with_op(tmp_path / "floor.tflite", "FLOOR"))
    quantized = quantized_by(model, Recipe(), {"image": images()})
    assert "no form for FLOOR" in LITERT.check(model, Recipe()).in_float["net/floor/Floor"]
    with LITERT.profile(quantized, threads=1) as profiler:
        for _ in range(4):
            profiler.run({"image": images(1)})
        _, kernels = profiler.finish(1)
    assert {k.role for k in kernels} == {"compute", "quantize", "dequantize"}
    conversions = {op for k in kernels if k.role != "compute" for op in k.ops}
    assert "net/floor/Floor" in conversions
    found = {f.rule: f for f in LITERT.findings(quantized, kernels, threads=1, cores=1)}
    assert found["float-between-integers"].ops == ("net/floor/Floor",)
    assert "FLOOR" in found["float-between-integers"].change


@needs_litert
def test_a_profile_compares_both_models(network: Path, tmp_path: Path) -> None:
    quantscope.quantize(network, {"image": images()}, tmp_path / "int8.tflite")
    found = quantscope.profile(network, tmp_path / "int8.tflite", data={"image": images()}, seconds=0.2)
    assert found.ops
    assert found.quantized is not None
    assert found.reference.sums.attributed == found.quantized.sums.attributed == 1
    assert found.environment["ai-edge-litert"]


@needs_litert
@pytest.mark.parametrize("trace", ["deployed", "simulated"])
def test_tensors_that_are_looked_at_have_the_values_that_litert_keeps_of_them(tmp_path: Path, trace: Trace) -> None:
    """All at once and one by one, batches of another size too; and the outputs are those of the untouched model."""
    from ai_edge_litert.interpreter import Interpreter

    from quantscope.backends.litert.interpreters import InterpreterRunner

    model = LITERT.load(integer(tmp_path / "integer.tflite"))
    content, runnable = model.handle.runnable(trace)
    places = runnable.reading.places
    with pytest.warns(UserWarning, match="preserve_all_tensors"):
        made = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    made.allocate_tensors()
    kept = InterpreterRunner(made, runnable.inputs, places)
    for batch in (1, 3):
        x = {"image": images(batch)}
        expected = kept.run(x)
        assert len(expected) == len(places)
        for names in ([], list(places), *([name] for name in places)):
            with LITERT.open(model, names, trace=trace, threads=1) as runner:
                for name, values in runner.run(x).items():
                    np.testing.assert_array_equal(values, expected[name])


@needs_litert
def test_tensors_of_any_kind_can_be_looked_at(tmp_path: Path) -> None:
    """An input, one that shares its memory with another, one that nobody reads, and those whose size is found late."""
    model = LITERT.load(odd(tmp_path / "odd.tflite"))
    x = np.random.default_rng(0).normal(size=(1, 4, 8)).astype(np.float32)
    rows = x.reshape(4, 8)
    above = np.argwhere(rows > 0).astype(np.float32)
    expected = {
        "x": x, "reshaped": rows, "absolute": np.abs(rows), "unread": -rows, "above": above, "late": -above,
        "out": np.exp(np.abs(rows)),
    }  # fmt: skip
    for names in (list(expected), *([name] for name in expected)):
        with LITERT.open(model, names, trace="deployed", threads=1) as runner:
            for factor in (2, 1):
                found = runner.run({"x": x * np.float32(factor)})
        assert set(found) == {*names, "out"}
        for name, values in found.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-5)


@needs_litert
def test_there_is_one_message_where_no_temporary_file_can_be_written(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LITERT.load(network)
    monkeypatch.setattr("tempfile.tempdir", str(network / "nowhere"))
    with (
        pytest.raises(OutputError, match="temporary file"),
        LITERT.open(model, model.graph.ops[0].outputs, trace="exact", threads=1),
    ):
        pass


@needs_litert
@pytest.mark.parametrize("trace", ["deployed", "simulated", "both"])
def test_passes_change_no_figure(network: Path, trace: Any) -> None:
    whole = quantscope.diagnose(network, data={"image": images(16)}, trace=trace)
    passes = quantscope.diagnose(network, data={"image": images(16)}, trace=trace, memory=20_000)
    assert figures(passes) == figures(whole)
    assert [row.budget for row in activations(passes)] == [row.budget for row in activations(whole)]


@needs_litert
@pytest.mark.parametrize("trace", ["deployed", "simulated", "both"])
def test_interpreters_hold_no_more_than_they_may(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trace: Any
) -> None:
    from quantscope.backends.litert.interpreters import InterpreterRunner

    held: dict[object, int] = {}
    run = InterpreterRunner.run

    def counted(self: InterpreterRunner, inputs: Any) -> dict[str, NDArray[Any]]:
        details = self._interpreter.get_output_details()
        held[self] = sum(int(np.prod(d["shape"])) * np.dtype(d["dtype"]).itemsize for d in details)
        return run(self, inputs)

    monkeypatch.setattr(InterpreterRunner, "run", counted)
    limit, at_once = 20_000, 3 if trace == "both" else 2
    pair = network, integer(tmp_path / "integer.tflite")
    for memory in (limit, None):
        held.clear()
        quantscope.diagnose(*pair, data={"image": images(16)}, trace=trace, memory=memory, budget_samples=0)
        # The first one shows what the outputs are if nobody looks; then there are as many as models in each pass.
        traced = list(held.values())[1:]
        passes = [sum(traced[i : i + at_once]) for i in range(0, len(traced), at_once)]
        # Two batches are held beside what the interpreters hold.
        assert (3 * max(passes) <= limit) == (memory is not None)
        assert len(passes) == (1 if memory is None else 2)


_HELD = """
import sys
import numpy as np
import quantscope

def batches():
    rng = np.random.default_rng(0)
    for _ in range(int(sys.argv[2])):
        yield {"x": rng.normal(size=(1, 256, 256, 3)).astype(np.float32)}

memory = sys.argv[3] if len(sys.argv) > 3 else None
quantscope.diagnose(sys.argv[1], data=batches, calibration_samples=4, budget_samples=4, memory=memory)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
tells_memory = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="this system does not tell how much memory was held"
)


def held_mib(path: Path, *arguments: str) -> float:
    """The most memory that a diagnosis of a wide model takes."""
    command = [sys.executable, "-c", _HELD, str(path), *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024


@needs_litert
@tells_memory
def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    """64 samples in the memory of 8: the tensors of the other 56 would be 450 MiB in float alone."""
    path = wide(tmp_path / "wide.tflite")
    peaks = [held_mib(path, count) for count in ("8", "64")]
    assert peaks[1] - peaks[0] < 80, peaks


@needs_litert
@tells_memory
def test_memory_does_not_grow_with_the_tensors_of_a_sample(tmp_path: Path) -> None:
    """16 large tensors in the memory of 4: the other 12 are 60 MiB in both models together, and held in copies."""
    paths = [wide(tmp_path / f"{layers}.tflite", layers) for layers in (2, 8)]
    peaks = [held_mib(path, "6", "16MiB") for path in paths]
    assert peaks[1] - peaks[0] < 60, peaks


# ---------------------------------------------------------------------------------------------------- a real model


@needs_litert
def test_a_real_model_of_222_ops_is_read_quantized_and_paired(tmp_path: Path) -> None:
    path = registry_model("basic_pitch_litert")
    model = LITERT.load(path)
    assert backend_for(path) is LITERT
    names = {op.name for op in model.graph.ops}
    assert len(names) == len(model.graph.ops) == 222
    convolutions = [op.name for op in model.graph.ops if op.op_type == "Conv"]
    # All layers of the model's own code, each once.
    assert {"model_1/contours-reduced/Conv2D", "model_1/conv2d_4/Conv2D", "model_1/conv2d_5/Conv2D"} <= set(
        convolutions
    )
    assert all("conv" in name.lower() or "contours" in name for name in convolutions)
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 0.1, (2, 43844, 1)).astype(np.float32)
    quantized = quantized_by(model, Recipe(), {"input_2": audio})
    found = paired(LITERT, model, quantized, "deployed")
    assert coverage(found.skipped, found.compute_ops) == 1
    assert all(p.op.name == p.quantized_op for p in found.pairs)
    x = {"input_2": audio[:1]}
    with LITERT.open(quantized, [p.quantized_name for p in found.pairs], trace="deployed", threads=1) as runner:
        traced = runner.run(x)
    with LITERT.open(quantized, [], trace="optimized", threads=1) as runner:
        for name, values in runner.run(x).items():
            np.testing.assert_array_equal(traced[name], values)
