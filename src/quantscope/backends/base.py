"""What a framework must offer to be diagnosed. Only the core types and numpy cross this line.

The Protocol exists so that pairing, statistics and diagnosis are written once: whatever runs the model, they see a
graph, tensors by name, and codes with the scale and zero point that give them meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from quantscope.graph import Graph
from quantscope.progress import Progress
from quantscope.quantized import FloatView, Weight
from quantscope.recipe import Recipe

Ranges = Mapping[str, tuple[float, float]]
"""Tensor name → the lowest and highest value that its codes shall represent."""

Trace = Literal["optimized", "exact", "deployed", "simulated"]
"""Which graph runs: the model's, optimized around the tensors that are exposed; the model's, op by op as it is written;
the one that the framework makes of it for production, exposed only after that optimization; or the model with its
quantization simulated in float by QuantizeLinear and DequantizeLinear, op by op."""


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model: its graph, and a handle that its backend alone understands.

    `path` is the file it came from, None for a model that was never a file; `notes` say what loading or quantizing
    it could not do.
    """

    backend: str
    graph: Graph
    handle: Any
    path: Path | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecipeCheck:
    """What a recipe comes to on a model: why each op that stays in float does, and what each op cannot get."""

    in_float: Mapping[str, str]
    unsupported: Mapping[str, str]


KernelRole = Literal["compute", "quantize", "dequantize", "layout"]
"""What an op that the framework runs is there for: the model's own work, a change from real values to codes or back, or
a change of layout (reorders, added transposes)."""


@dataclass(frozen=True)
class Kernel:
    """One op as the framework runs it: a fused one stands for several of the model's.

    `us` is its wall time per inference in µs, `calls` how often it ran in one. `inputs` and `outputs` say type and
    shape, such as "uint8[1, 64, 56, 56]"; `bytes_moved` is the size of what it reads and writes. `ops` are the names of
    the ops it computes; for a change of type or layout, the op it is there for. `provider` is "CPU", or the
    accelerator's name.
    """

    name: str
    op_type: str
    role: KernelRole
    us: float
    calls: float = 1
    ops: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    bytes_moved: int = 0
    provider: str = "CPU"


@dataclass(frozen=True, eq=False)
class Finding:
    """Why the framework loses time on a quantized model: the ops it is about, the evidence, and what to change.

    `ops` are names of the model's graph; `cost_us` estimates the time at stake per inference. `changed` makes the model
    with the change, to time it: its outputs need not be right, for which it would have to be calibrated anew. None
    where nothing can be tried. `exact` promises that the outputs stay the same to the last bit, so that the changed
    model can be used.
    """

    rule: str
    ops: tuple[str, ...]
    title: str
    evidence: str
    change: str
    cost_us: float
    changed: Callable[[], Model] | None = None
    exact: bool = False


@dataclass(frozen=True)
class Peak:
    """What this processor was measured to do at a number of threads: multiply-adds and bytes per second.

    `int8_multiply_adds` are products of uint8 activations and int8 weights, `signed_multiply_adds` those of int8 and
    int8. `bytes_per_second` counts what an op reads and what it writes, from and to memory.
    """

    float_multiply_adds: float
    int8_multiply_adds: float
    signed_multiply_adds: float
    bytes_per_second: float


@dataclass(frozen=True)
class Framework:
    """What runs the models: its name, version and build, where it can run them, and its threads if nobody says."""

    name: str
    version: str
    build: str
    providers: tuple[str, ...]
    default_threads: int


@dataclass(frozen=True)
class IntegerProduct:
    """An op whose product with a constant weight the framework computes from codes, as it really runs here.

    `op` is its name in the float view of the simulated trace. `activations` and `weights` are the types of the codes
    that are multiplied; the framework may have made uint8 of int8 activations by adding 128. With `dynamic` the
    activations get their scale at run time (ONNX operator specification, DynamicQuantizeLinear).
    """

    op: str
    activations: str
    weights: str
    dynamic: bool = False


class Runner(Protocol):
    """A model ready to run with some of its tensors exposed."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The exposed tensors and the model's outputs by name, for one batch; called by several threads at once.

        A tensor that this run gave no values, as one may be that has no elements for this batch, is left out.
        """
        ...


class CutRunner(Protocol):
    """A model cut at some of its tensors, ready to run; `inputs` names the tensors to feed."""

    inputs: tuple[str, ...]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What the ops before the cuts computed, by the names of the cut tensors, for one batch.

        What is fed is cast to the type that the model has at this place; names that it does not need are left out.
        """
        ...


class Profiler(Protocol):
    """A model ready to run as in production while each of its ops is timed."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The model's outputs by name, for one batch."""
        ...

    def finish(self, warm_up: int = 0) -> tuple[float, list[Kernel]]:
        """The time of a run in µs, and the kernels in the order they ran; nothing runs afterwards.

        Both are means over the faster half of the runs. The kernels' `ops` are names of the model's graph.

        Args:
            warm_up: how many of the first runs do not count.
        """
        ...


Feature = Literal[
    "float models",
    "integer models",
    "int8 activations",
    "uint8 activations",
    "16-bit activations",
    "4-bit weights",
    "scales per channel",
    "scales per block",
    "fallback by op",
    "deployed trace",
    "simulated trace",
    "error budgets",
    "channel equalization",
    "times per op",
    "reasons for lost time",
    "saturation on old processors",
    "weights outside the file",
]
"""What a backend may be able to do: the rows of the table in docs/frameworks.md."""


class Backend(Protocol):
    """A framework. A capability it lacks raises `UnsupportedError`.

    `suffix` is that of its files, `sources` says for a message what it reads, `packages` on which distributions its
    figures depend. `optimization` names what the framework does by itself to run a model faster. `capabilities` says
    of each feature what there is of it: "" where there is nothing.
    """

    name: str
    suffix: str
    sources: str
    packages: tuple[str, ...]
    optimization: str
    capabilities: Mapping[Feature, str]

    def missing(self) -> str:
        """How to install what it needs and this installation lacks; "" if all is there. Imports nothing."""
        ...

    def accepts(self, source: object) -> bool:
        """True if `load` can read this path or object."""
        ...

    def load(self, source: object, progress: Progress | None = None) -> Model:
        """The model; `progress` is told if there is something to wait for.

        Raises:
            ModelError: the source is missing, damaged or of another kind.
        """
        ...

    def save(self, model: Model, path: Path) -> None:
        """Write the model, large weights in a file of their own beside it; it appears whole or not at all."""
        ...

    def files(self, path: Path) -> tuple[Path, ...]:
        """The files of the model at this path: its own, and those with its weights, as far as they are there."""
        ...

    def portable(self, model: Model) -> Model:
        """The model as it can be sent to another machine: with its weights, where a message can hold them.

        Where it cannot, it is run there from files under the same names.
        """
        ...

    def fits_in_memory_form(self, model: Model) -> bool:
        """True if `memory_form` is something that the framework itself can run."""
        ...

    def memory_form(self, model: Model) -> Any:
        """A copy of the model as the framework's own code takes it, with all weights, without a file; to be changed
        where that kind of object can be."""
        ...

    def prepare(self, model: Model) -> Model:
        """The float model as quantization will see it: shapes inferred, constants and batch normalization folded."""
        ...

    def equalize(self, model: Model) -> Model:
        """The same function with channels of neighbouring ops scaled to like ranges; `model` is prepared.

        Its notes say where, and what was in the way elsewhere. What is made of it remembers the factors, so that it can
        be compared with the model from before: its float view names them, and its weights, and whatever is fed into
        it or comes out where it is cut, are in the unit from before.
        """
        ...

    def settled(self, recipe: Recipe) -> Recipe:
        """The recipe with the integer types that this framework has, where another holds the same values: int8 for
        uint8, whose codes it moves by 128."""
        ...

    def check(self, model: Model, recipe: Recipe) -> RecipeCheck:
        """What the recipe comes to; `model` is prepared.

        Raises:
            RecipeError: no op at all could get what the recipe's defaults ask for.
        """
        ...

    def tensors_to_calibrate(self, model: Model, recipe: Recipe) -> Sequence[str]:
        """The tensors whose ranges `quantize` needs; `model` is prepared."""
        ...

    def quantize(self, model: Model, recipe: Recipe, ranges: Ranges) -> Model:
        """The quantized model; `model` is prepared."""
        ...

    def float_view(self, model: Model, trace: Trace) -> FloatView:
        """The graph that this trace runs, without its quantization."""
        ...

    def weights(self, model: Model, trace: Trace = "exact") -> Iterable[Weight]:
        """The float constants that ops of this trace's graph compute with, dequantized where they are quantized."""
        ...

    def element_counts(
        self, model: Model, tensors: Sequence[str], inputs: Mapping[str, NDArray[Any]]
    ) -> dict[str, int]:
        """How many elements each tensor of a float model has for these inputs, found without keeping any of them."""
        ...

    def open(
        self, model: Model, tensors: Sequence[str], *, trace: Trace, threads: int
    ) -> AbstractContextManager[Runner]:
        """A runner that exposes these tensors of this trace's graph; 0 threads means all cores."""
        ...

    def open_cut(
        self,
        model: Model,
        tensors: Sequence[str],
        outputs: Sequence[str],
        *,
        trace: Trace,
        threads: int,
        absorbed: Mapping[str, tuple[Model, str]] = {},
        constants: Mapping[tuple[str, str], NDArray[Any]] = {},
    ) -> AbstractContextManager[CutRunner]:
        """A runner of the model cut at these tensors, op by op.

        Each tensor is fed from outside, before its quantization, and what the op before it computed comes out under
        the same name, not yet quantized. Ops that the outputs do not need, back to the cuts, are left out.

        Args:
            model: the model.
            tensors: names in the float view of this trace, "exact" for a float model and "simulated" for any.
            outputs: those of `tensors` to compute.
            trace: "exact" or "simulated".
            threads: 0 means all cores.
            absorbed: for an output the reference, and its op that is an activation to apply to what comes out: the
                quantizer removed it, since codes end where the activation does.
            constants: for an op and the name of its weight (`Weight.tensor`) the values to compute with instead.

        Raises:
            UnsupportedError: a tensor is not computed by an op, or an operand in `constants` is not a float one.
        """
        ...

    def deploy(self, model: Model | Path, *, threads: int, optimized: bool = True) -> AbstractContextManager[Runner]:
        """A runner of the model, or of the one in a file, as production runs it: loaded as it is, with the framework's
        own options.

        Args:
            model: the model, or its file.
            threads: 0 means the framework's choice.
            optimized: False to run it op by op as it is written, without what `optimization` names.
        Raises:
            ModelError: the framework refuses it.
        """
        ...

    def profile(self, model: Model, *, threads: int, optimized: bool = True) -> AbstractContextManager[Profiler]:
        """The same with each op timed."""
        ...

    def findings(
        self, model: Model, kernels: Sequence[Kernel], *, threads: int, cores: int, flags: Collection[str] = ()
    ) -> Sequence[Finding]:
        """Why a quantized model is not faster than it is, the most costly first.

        Args:
            model: the quantized model.
            kernels: what `profile` says that it runs as.
            threads: what it was profiled with; 0 means the framework's choice.
            cores: physical cores that this process may use.
            flags: what the processor can do, by LLVM's names; none if that is not known.
        """
        ...

    def multiply_adds(self, model: Model, inputs: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        """How many multiply-adds each op of a float model makes for these inputs, as it is written."""
        ...

    def peak(self, threads: int) -> Peak:
        """What the framework's own kernels do here at most, measured in about a second; 0 threads means all cores."""
        ...

    def framework(self) -> Framework:
        """What runs the models on this machine."""
        ...

    def integer_products(self, model: Model) -> Sequence[IntegerProduct]:
        """The products with constant weights that the framework computes from codes, in execution order."""
        ...
