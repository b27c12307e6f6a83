"""For whoever writes a backend: what every backend must do, as checks to run, and a tiny network to run them with.

    case = Case(backend, Path("tiny.xyz"), {"x": tiny.samples(8)}, tiny.outputs(tiny.samples(8)), tiny.multiply_adds)
    check_backend(case, tmp_path)

The network has to be written in the framework's own format: `TinyNetwork` holds its weights as arrays.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.base import Backend, Feature, Model, Trace
from quantscope.calibration import calibrate
from quantscope.confirmation import Alignment
from quantscope.errors import DataError, ModelError, OutputError, UnsupportedError
from quantscope.pairing import coverage
from quantscope.qparams import QParams
from quantscope.quantized import EncodedTensor
from quantscope.recipe import Recipe
from quantscope.samples import Samples
from quantscope.workflows.diagnosis import paired

_FLOAT_TOLERANCE = 1e-4
_LEAST_COVERAGE = 0.9
_LEAST_DB = 15.0
_KERNEL_STEPS = 2.5
_TRACES: tuple[Trace, ...] = ("optimized", "exact", "deployed", "simulated")


@dataclass(frozen=True, eq=False)
class TinyNetwork:
    """Two convolutions, the first with a ReLU, then the mean over each channel and a product: 3×8×8 in, 5 out.

    `stem` is (8, 3, 3, 3), padded by one on each side, `body` (16, 8, 1, 1), as (out, in, height, width); `head` is
    (16, 5). Each has a bias.
    """

    stem: NDArray[np.float32] = field(default_factory=lambda: _random(1, 0.3, 8, 3, 3, 3))
    stem_bias: NDArray[np.float32] = field(default_factory=lambda: _random(2, 0.1, 8))
    body: NDArray[np.float32] = field(default_factory=lambda: _random(3, 0.4, 16, 8, 1, 1))
    body_bias: NDArray[np.float32] = field(default_factory=lambda: _random(4, 0.1, 16))
    head: NDArray[np.float32] = field(default_factory=lambda: _random(5, 0.4, 16, 5))
    head_bias: NDArray[np.float32] = field(default_factory=lambda: _random(6, 0.1, 5))

    multiply_adds = 8 * 64 * 27 + 16 * 64 * 8 + 16 * 5
    """Of one sample."""

    def samples(self, count: int) -> NDArray[np.float32]:
        """Samples of shape (count, 3, 8, 8); the same ones each time."""
        return _random(7, 1.0, count, 3, 8, 8)

    def outputs(self, samples: NDArray[np.float32]) -> NDArray[np.float64]:
        """What the network makes of samples, in float64: shape (count, 5)."""
        x = np.pad(samples.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
        first = np.einsum("nihwyx,oiyx->nohw", windows, self.stem.astype(np.float64))
        first = np.maximum(first + self.stem_bias[:, None, None], 0)
        second = np.einsum("nihw,oi->nohw", first, self.body[:, :, 0, 0].astype(np.float64))
        second += self.body_bias[:, None, None]
        pooled: NDArray[np.float64] = second.mean((2, 3)) @ self.head + self.head_bias
        return pooled


def _random(seed: int, scale: float, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Case:
    """A float model of a backend and what it must give.

    Args:
        backend: the one that is checked.
        path: the file of the model.
        inputs: eight samples or more by the names of the model's inputs, the samples on the leading axis.
        outputs: what the first output must be, (samples, …).
        multiply_adds: of all ops together, for one sample.
    """

    backend: Backend
    path: Path
    inputs: Mapping[str, NDArray[Any]]
    outputs: NDArray[np.float64]
    multiply_adds: int

    @cached_property
    def model(self) -> Model:
        """The float model."""
        return self.backend.load(self.path)

    @cached_property
    def samples(self) -> Samples:
        """The inputs as samples of the model."""
        return Samples.of(dict(self.inputs)).for_inputs(self.model.graph.inputs)

    @property
    def first(self) -> dict[str, NDArray[Any]]:
        """A batch of the first sample."""
        return next(iter(self.samples.batches(1))).inputs

    @cached_property
    def quantized(self) -> Model:
        """The model quantized by the recipe that is taken if nobody gives one."""
        return self.by(Recipe())

    def by(self, recipe: Recipe) -> Model:
        """The model quantized by a recipe."""
        prepared = self.backend.prepare(self.model)
        if recipe.equalize:
            prepared = self.backend.equalize(prepared)
        ranges, _ = calibrate(self.backend, prepared, recipe, partial(self.samples.batches, 1), threads=1)
        return self.backend.quantize(prepared, recipe, ranges)

    def run(self, model: Model, trace: Trace, tensors: list[str] | None = None) -> dict[str, NDArray[Any]]:
        """What a trace gives of the first sample."""
        with self.backend.open(model, tensors or [], trace=trace, threads=1) as runner:
            return runner.run(self.first)

    def has(self, feature: Feature) -> bool:
        """True if the backend says that it can do this."""
        return bool(self.backend.capabilities[feature])


def check_backend(case: Case, folder: Path) -> None:
    """Run all checks; the AssertionError of one that fails names the check and all that failed.

    Args:
        case: a model of the backend.
        folder: an empty folder to write to.
    """
    failures = []
    for check in CHECKS:
        place = folder / check.__name__
        place.mkdir()
        try:
            check(case, place)
        except AssertionError as error:
            failures.append(f"{check.__name__}: {check.__doc__} {error}".strip())
    assert not failures, "\n".join(failures)


def _float_tensors(case: Case, model: Model, trace: Trace) -> dict[str, EncodedTensor]:
    view = case.backend.float_view(model, trace)
    # Of a tensor that is computed from constants or shapes there is nothing to say.
    return {n: e for n, e in view.tensors.items() if view.graph.tensor(n).dtype in ("", "float32")}


def _readable(encoded: EncodedTensor) -> str:
    return encoded.codes or encoded.real


def _real(encoded: EncodedTensor, values: NDArray[Any]) -> NDArray[Any]:
    return encoded.qparams.dequantize(values) if encoded.codes and encoded.qparams is not None else values


def _sqnr_db(x: NDArray[Any], y: NDArray[Any]) -> float:
    noise = float(((x.astype(np.float64) - y) ** 2).sum())
    return 10 * float(np.log10(float((x.astype(np.float64) ** 2).sum()) / noise)) if noise else np.inf


def _raises(kind: type[Exception], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind:
        return True
    return False


def says_what_it_can_do(case: Case, folder: Path) -> None:
    """Every feature has an entry, there is nothing to install, and names are as the Protocol wants them."""
    backend = case.backend
    assert set(backend.capabilities) == set(get_args(Feature))
    assert backend.missing() == ""
    assert backend.suffix.startswith(".")
    assert backend.sources
    settled = backend.settled(Recipe())
    assert backend.settled(settled) == settled
    framework = backend.framework()
    assert framework.name
    assert framework.version
    assert framework.default_threads >= 1


def refuses_what_it_cannot_read(case: Case, folder: Path) -> None:
    """A file that is cut off, or is something else, raises a ModelError; another suffix is not accepted."""
    backend, content = case.backend, case.path.read_bytes()
    assert backend.accepts(case.path)
    assert backend.accepts(str(case.path))
    assert not backend.accepts(folder / f"missing{backend.suffix}")
    assert not backend.accepts(object())
    for part in (b"", b"not a model at all", content[: len(content) // 2], content[:40]):
        broken = folder / f"broken{backend.suffix}"
        broken.write_bytes(part)
        assert _raises(ModelError, lambda: backend.load(broken)), f"{len(part)} bytes were read as a model"  # noqa: B023


def graph_is_complete(case: Case, folder: Path) -> None:
    """Ops have names of their own and stand in execution order; each reads what is there by then."""
    for model in (case.model, case.quantized):
        for graph in (model.graph, case.backend.float_view(model, "exact").graph):
            assert len({op.name for op in graph.ops}) == len(graph.ops) > 0
            known = {t.name for t in graph.inputs}
            for op in graph.ops:
                early = {name for name in op.inputs if name in graph.producers} - known
                assert not early, f"{op.name} reads {early} before it is computed"
                known.update(op.outputs)
            assert known.issuperset(t.name for t in graph.outputs)
        assert [t.name for t in model.graph.inputs] == [t.name for t in case.model.graph.inputs]
        assert [t.name for t in model.graph.outputs] == [t.name for t in case.model.graph.outputs]


def float_values_are_right(case: Case, folder: Path) -> None:
    """All traces of a float model give its outputs, and those are what they should be."""
    name = case.model.graph.outputs[0].name
    expected = case.outputs[:1]
    for trace in _TRACES:
        found = case.run(case.model, trace)[name]
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=_FLOAT_TOLERANCE)
    with case.backend.deploy(case.model, threads=0) as runner:
        np.testing.assert_allclose(runner.run(case.first)[name], expected, atol=_FLOAT_TOLERANCE)


def every_tensor_can_be_read(case: Case, folder: Path) -> None:
    """Every float tensor of the view comes out, with as many elements as `element_counts` says."""
    names = list(_float_tensors(case, case.model, "exact"))
    values = case.run(case.model, "exact", names)
    counts = case.backend.element_counts(case.model, names, case.first)
    for name in names:
        assert counts[name] == values[name].size, name


def codes_stand_for_what_is_said(case: Case, folder: Path) -> None:
    """Codes are integers in their range, and some tensors of a quantized model have them."""
    for trace in ("deployed", "simulated"):
        tensors = _float_tensors(case, case.quantized, trace)
        coded = {n: e for n, e in tensors.items() if e.codes and e.qparams is not None}
        assert coded
        values = case.run(case.quantized, trace, [e.codes for e in coded.values()])
        for encoded in coded.values():
            assert encoded.qparams is not None
            codes, (low, high) = values[encoded.codes], encoded.qparams.spec.code_range
            assert codes.dtype.kind in "iu"
            assert low <= codes.min() <= codes.max() <= high


def quantized_is_near_and_pairs(case: Case, folder: Path) -> None:
    """The quantized model pairs with the float one, and its tensors are near the float ones in both traces."""
    for trace in ("deployed", "simulated"):
        covered, skipped = _near(case, case.quantized, trace)
        assert covered >= _LEAST_COVERAGE, skipped


def _near(case: Case, quantized: Model, trace: Trace) -> tuple[float, Mapping[str, str]]:
    """How many ops pair, and why others do not, when each pair is near the float model's."""
    found = paired(case.backend, case.model, quantized, trace)
    x = case.run(case.model, "exact", [p.reference_name for p in found.pairs])
    y = case.run(quantized, trace, [p.quantized_name for p in found.pairs])
    for pair in found.pairs:
        # An optimizer may have moved the axes.
        reference = x[pair.reference_name]
        read = Alignment().aligned(pair.rescaled(reference), y[pair.quantized_name])
        assert read is not None, pair.op.name
        assert _sqnr_db(reference, pair.real(read)) > _LEAST_DB, pair.op.name
    return coverage(found.skipped, found.compute_ops), found.skipped


def recipes_are_followed(case: Case, folder: Path) -> None:
    """What the recipe leaves in float has no codes, by name, glob and type; `check` says so, op by op."""
    weighted = [w.op for w in case.backend.weights(case.quantized) if w.qparams is not None and w.role == "weight"]
    graph = case.backend.prepare(case.model).graph
    chosen = next(name for name in dict.fromkeys(weighted) if name in graph.by_name)
    for selector in (chosen, f"*{chosen[1:]}"):
        recipe = Recipe().with_fallback([selector])
        assert case.backend.check(case.backend.prepare(case.model), recipe).in_float[chosen] == "fallback"
        weights = [w for w in case.backend.weights(case.by(recipe)) if w.op == chosen and w.role == "weight"]
        assert weights
        assert all(w.qparams is None for w in weights)
    op_type = graph.by_name[chosen].op_type
    only = Recipe(op_types=(op_type,))
    in_float = case.backend.check(case.backend.prepare(case.model), only).in_float
    assert set(in_float) == {op.name for op in graph.ops if op.op_type != op_type}


def weights_are_dequantized(case: Case, folder: Path) -> None:
    """The weights of a quantized model are its float weights, but for rounding, and have the shape that is said."""
    floats = {(w.op, w.role): w for w in case.backend.weights(case.backend.prepare(case.model))}
    compared = 0
    for weight in case.backend.weights(case.quantized):
        values = weight.read()
        assert values.shape == weight.shape
        reference = floats.get((weight.op, weight.role))
        if weight.qparams is None or reference is None or reference.shape != weight.shape:
            continue
        step = np.broadcast_to(weight.qparams.aligned(weight.shape)[0], weight.shape)
        assert (np.abs(values - reference.read()) <= step * 0.5001 + 1e-9).all(), weight.tensor
        compared += 1
    assert compared


def cut_models_agree(case: Case, folder: Path) -> None:
    """A model cut everywhere, and fed its own tensors, computes those tensors again, before they are quantized."""
    if not case.has("error budgets"):
        assert _raises(UnsupportedError, lambda: case.backend.open_cut(case.model, [], [], trace="exact", threads=1))
        return
    runs: tuple[tuple[Model, Trace], ...] = ((case.model, "exact"), (case.quantized, "simulated"))
    for model, trace in runs:
        view = case.backend.float_view(model, trace)
        computed = {name for op in view.graph.ops for name in op.outputs}
        tensors = {n: e for n, e in _float_tensors(case, model, trace).items() if n in computed}
        read = case.run(model, trace, [_readable(e) for e in tensors.values()])
        own = {name: _real(e, read[_readable(e)]) for name, e in tensors.items()}
        names = list(own)
        with case.backend.open_cut(model, names, names, trace=trace, threads=1) as runner:
            assert set(runner.inputs) <= {*names, *case.first}
            found = runner.run({name: {**case.first, **own}[name] for name in runner.inputs})
        for name, values in found.items():
            expected, qparams = own[name], tensors[name].qparams
            assert values.shape == expected.shape, name
            if qparams is not None:
                values = qparams.dequantize(qparams.quantize(values))  # noqa: PLW2901
            np.testing.assert_allclose(values, expected, atol=_step(qparams) + _FLOAT_TOLERANCE, err_msg=name)
        assert _raises(UnsupportedError, lambda: _entered(case, model, trace))  # noqa: B023


def _step(qparams: QParams | None) -> float:
    return 0.0 if qparams is None else 1.001 * float(qparams.scale.max())


def _entered(case: Case, model: Model, trace: Trace) -> None:
    with case.backend.open_cut(model, ["no such tensor"], ["no such tensor"], trace=trace, threads=1):
        pass


def cut_models_take_other_constants(case: Case, folder: Path) -> None:
    """An op of a cut model computes with the bias that is given in the place of its own."""
    if not case.has("error budgets"):
        return
    view = case.backend.float_view(case.quantized, "simulated")
    biases = [w for w in case.backend.weights(case.quantized, "simulated") if w.role == "bias"]
    bias = next(w for w in biases if w.op in view.graph.by_name)
    output = view.graph.by_name[bias.op].outputs[0]
    found = []
    for constants in ({}, {(bias.op, bias.tensor): bias.read().astype(np.float32) + 1}):
        with case.backend.open_cut(
            case.quantized, [output], [output], trace="simulated", threads=1, constants=constants
        ) as runner:
            found.append(runner.run({name: case.first[name] for name in runner.inputs})[output])
    difference = found[1] - found[0]
    # An activation within the op may hold some values at zero.
    assert difference.min() > -_FLOAT_TOLERANCE
    np.testing.assert_allclose(difference.max(), 1, atol=1e-3)


def equalized_models_keep_the_former_unit(case: Case, folder: Path) -> None:
    """An equalized model computes the same; what is made of it is compared in the unit from before, from a file too."""
    backend = case.backend
    if not case.has("channel equalization"):
        return
    prepared = backend.prepare(case.model)
    equalized = backend.equalize(prepared)
    assert len(equalized.notes) > len(prepared.notes), "no note says where"
    factors = backend.float_view(equalized, "exact").factors
    assert any(values.max() > values.min() for values in factors.values()), "no channel was scaled"
    before, after = (case.run(model, "exact", list(factors)) for model in (prepared, equalized))
    for name, values in before.items():
        np.testing.assert_allclose(after[name] / factors.get(name, 1), values, atol=_FLOAT_TOLERANCE, err_msg=name)
    for weight, scaled in zip(backend.weights(prepared), backend.weights(equalized), strict=True):
        np.testing.assert_allclose(scaled.read(), weight.read(), rtol=1e-5, err_msg=weight.tensor)
    path = folder / f"equalized{backend.suffix}"
    backend.save(case.by(Recipe(equalize=True)), path)
    quantized = backend.load(path)
    # An optimizer may have renamed tensors, of which it is then not known whether they are scaled.
    covered, skipped = _near(case, quantized, "simulated")
    assert covered >= _LEAST_COVERAGE, skipped
    _near(case, quantized, "deployed")
    for trace in ("deployed", "simulated"):
        found = backend.float_view(quantized, trace).factors
        assert found.keys() == factors.keys()
        for name, values in factors.items():
            np.testing.assert_array_equal(found[name], values)
    assert not backend.float_view(backend.prepare(quantized), "exact").factors, "the record is still there"
    if case.has("error budgets"):
        _takes_and_gives_the_former_unit(case, equalized, before)


def _takes_and_gives_the_former_unit(case: Case, equalized: Model, before: Mapping[str, NDArray[Any]]) -> None:
    """Cut where its channels are scaled, and fed tensors and weights from before, it computes what the model did."""
    backend = case.backend
    names = list(backend.float_view(equalized, "exact").factors)
    own = {(weight.op, weight.tensor): weight.read() for weight in backend.weights(equalized)}
    for constants in ({}, own):
        with backend.open_cut(equalized, names, names, trace="exact", threads=1, constants=constants) as runner:
            found = runner.run({name: {**case.first, **before}[name] for name in runner.inputs})
        for name, values in found.items():
            np.testing.assert_allclose(values, before[name], atol=_FLOAT_TOLERANCE, err_msg=name)


def simulation_is_near_the_kernels(case: Case, folder: Path) -> None:
    """The simulated and the deployed outputs differ by rounding alone."""
    name = case.quantized.graph.outputs[0].name
    simulated, deployed = (case.run(case.quantized, trace)[name] for trace in ("simulated", "deployed"))
    view = case.backend.float_view(case.quantized, "simulated")
    steps = [_step(view.tensors[t.name].qparams) for t in view.graph.outputs if t.name in view.tensors]
    assert np.abs(simulated - deployed).max() <= _KERNEL_STEPS * max([*steps, 0.01])


def measuring_changes_nothing(case: Case, folder: Path) -> None:
    """With every tensor exposed the deployed trace gives the outputs of plain inference, bit for bit."""
    tensors = [_readable(e) for e in _float_tensors(case, case.quantized, "deployed").values() if _readable(e)]
    plain = case.run(case.quantized, "optimized")
    traced = case.run(case.quantized, "deployed", tensors)
    for name, values in plain.items():
        np.testing.assert_array_equal(traced[name], values)


def files_come_back(case: Case, folder: Path) -> None:
    """A model that is written and read again, or sent to another process, gives the same outputs bit for bit."""
    path = folder / f"written{case.backend.suffix}"
    case.backend.save(case.quantized, path)
    assert case.backend.accepts(path)
    assert all(file.is_file() for file in case.backend.files(path))
    assert list(folder.iterdir()) == list(case.backend.files(path)), "something was left beside the model"
    expected = case.run(case.quantized, "optimized")
    sent: Model = pickle.loads(pickle.dumps(case.backend.portable(case.quantized)))
    for model in (case.backend.load(path), sent):
        for name, values in case.run(model, "optimized").items():
            np.testing.assert_array_equal(values, expected[name])
    with case.backend.deploy(path, threads=1) as runner:
        for name, values in runner.run(case.first).items():
            np.testing.assert_array_equal(values, expected[name])
    assert _raises(OutputError, lambda: case.backend.save(case.quantized, folder / "no" / path.name))


def runners_serve_several_threads(case: Case, folder: Path) -> None:
    """Batches that several threads ask for at once come out as if alone; a wrong shape is a DataError."""
    names = [e.real for e in _float_tensors(case, case.model, "exact").values()]
    batches = [batch.inputs for batch in case.samples.batches(1)]
    with case.backend.open(case.model, names, trace="exact", threads=1) as runner:
        alone = [runner.run(inputs) for inputs in batches]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(runner.run, batches))
        for x, y in zip(alone, together, strict=True):
            for name in names:
                np.testing.assert_array_equal(x[name], y[name])
        wrong = {name: np.zeros((1, 3), np.float32) for name in case.first}
        assert _raises(DataError, lambda: runner.run(wrong))


def times_belong_to_ops(case: Case, folder: Path) -> None:
    """A profile names ops of the model's graph, adds up to the time of a run, and changes no output, with and without
    optimization."""
    if not case.has("times per op"):
        return
    assert case.backend.optimization
    output = case.quantized.graph.outputs[0].name
    # With optimization last: the reasons below are about what production runs.
    for optimized in (False, True):
        with case.backend.deploy(case.quantized, threads=1, optimized=optimized) as runner:
            expected = runner.run(case.first)[output]
        with case.backend.profile(case.quantized, threads=1, optimized=optimized) as profiler:
            outputs = [profiler.run(case.first) for _ in range(6)]
            total_us, kernels = profiler.finish(2)
        np.testing.assert_allclose(outputs[-1][output], expected, atol=_FLOAT_TOLERANCE)
        assert kernels
        assert all(kernel.us >= 0 for kernel in kernels)
        assert sum(kernel.us for kernel in kernels) <= total_us * 1.001
        assert {name for kernel in kernels for name in kernel.ops} <= {op.name for op in case.quantized.graph.ops}
    findings = case.backend.findings(case.quantized, kernels, threads=1, cores=1)
    assert all(finding.rule and finding.title and finding.change for finding in findings)
    costs = [finding.cost_us for finding in findings]
    assert costs == sorted(costs, reverse=True)


def work_is_counted(case: Case, folder: Path) -> None:
    """Multiply-adds are those of the network; products of codes name ops of the simulated view."""
    counted = case.backend.multiply_adds(case.model, case.first)
    assert set(counted) <= {op.name for op in case.model.graph.ops}
    assert sum(counted.values()) == case.multiply_adds
    names = {op.name for op in case.backend.float_view(case.quantized, "simulated").graph.ops}
    assert {product.op for product in case.backend.integer_products(case.quantized)} <= names
    peak = case.backend.peak(1)
    assert min(peak.float_multiply_adds, peak.int8_multiply_adds, peak.bytes_per_second) > 0


CHECKS: tuple[Callable[[Case, Path], None], ...] = (
    says_what_it_can_do,
    refuses_what_it_cannot_read,
    graph_is_complete,
    float_values_are_right,
    every_tensor_can_be_read,
    codes_stand_for_what_is_said,
    quantized_is_near_and_pairs,
    recipes_are_followed,
    weights_are_dequantized,
    cut_models_agree,
    cut_models_take_other_constants,
    equalized_models_keep_the_former_unit,
    simulation_is_near_the_kernels,
    measuring_changes_nothing,
    files_come_back,
    runners_serve_several_threads,
    times_belong_to_ops,
    work_is_counted,
)
"""What a backend must do, one by one."""
