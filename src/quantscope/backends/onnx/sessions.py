"""ONNX Runtime sessions: of the model as it is, and of the graph that really runs with its tensors exposed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from quantscope.backends.onnx.external import size
from quantscope.backends.onnx.files import OnnxModel, settled
from quantscope.backends.onnx.folders import TemporaryFolder
from quantscope.backends.onnx.structure import infer_types, name_ops
from quantscope.errors import DataError, ModelError

_ONLY_ERRORS = 3


def production_options(threads: int, level: str = "ORT_ENABLE_ALL") -> Any:
    """ONNX Runtime's own options, as whoever deploys a model has them; 0 threads means its own choice."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_ERRORS
    options.intra_op_num_threads = threads
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return options


def session_options(threads: int, level: str = "ORT_ENABLE_ALL") -> Any:
    """Options for a session that exposes tensors, at this optimization level; 0 threads means all cores."""
    options = production_options(threads, level)
    # Almost all tensors are outputs, with memory of their own: a block for the others at once is mostly waste.
    options.enable_mem_pattern = False
    # Idle worker threads would otherwise burn a core while the statistics are taken.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def session(model: OnnxModel, options: Any, tensors: Sequence[str] = ()) -> Any:
    """A session that runs the model on the CPU, with these tensors among its outputs.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    model.check_unchanged()
    if model.folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model.folder))
    proto = model.proto
    if tensors:
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        present = {output.name for output in proto.graph.output}
        added = (onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors) if name not in present)
        proto.graph.output.extend(added)
    return _loaded(proto.SerializeToString(), options)


def _loaded(content: bytes | str, options: Any) -> Any:
    """A session of a serialized model, or of a file."""
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base class.
        raise ModelError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run the model: {first_line(error)}",
            accepted="a model that onnxruntime.InferenceSession loads on the CPU",
        ) from error


BLOCKED_DOMAIN = "com.microsoft.nchwc"
"""Float ops on tensors whose channels ONNX Runtime keeps in blocks: what they write cannot be read as it is."""
_MOST_BLOCKED = 0.1


def deployed(model: OnnxModel) -> OnnxModel:
    """The graph after ONNX Runtime's own optimization for this CPU: the one that really runs.

    Where more than a tenth of the ops would work on blocked channels, as in a model that is mostly float, layouts are
    left alone: then nearly all tensors can be read, and float rounding may differ in the last digit.
    """
    found = optimized(model, "ORT_ENABLE_ALL")
    nodes = found.proto.graph.node
    if sum(node.domain == BLOCKED_DOMAIN for node in nodes) > _MOST_BLOCKED * len(nodes):
        return optimized(model, "ORT_ENABLE_EXTENDED")
    return found


def optimized(model: OnnxModel, level: str) -> OnnxModel:
    """The graph after ONNX Runtime's optimization at this level, large weights in a temporary folder.

    Raises:
        ModelError: ONNX Runtime refuses the model.
        OutputError: the temporary folder is full.
    """
    folder = TemporaryFolder()
    path = folder.path / "optimized.onnx"
    options = session_options(1, level)
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
    # Nothing will run: weights need no other form.
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        session(model, options)
    except ModelError as error:
        if shutil.disk_usage(folder.path).free < size(model.proto):
            raise folder.no_room(error.message) from error
        raise
    result = settled(OnnxModel(onnx.load(str(path), load_external_data=False), folder, model.data_beside))
    name_ops(result)
    infer_types(result)
    return result


class SessionRunner:
    """Runs a session and names its outputs."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [output.name for output in session.get_outputs() if output.type.startswith("tensor")]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All tensors among the outputs by name, for one batch.

        Sequences and maps, as some classifiers give them, have nothing to compare and are left out.

        Raises:
            DataError: the model fails on these inputs.
        """
        try:
            if any(array.dtype.kind in "OUS" for array in inputs.values()):
                outputs = self._session.run(self._names, dict(inputs))
            else:
                # Bound outputs stay in ONNX Runtime's memory: session.run would copy each one. A binding of its own
                # for each run, since a second run with it would overwrite the arrays of the first.
                binding = self._session.io_binding()
                bound = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
                for name, array in bound.items():
                    binding.bind_cpu_input(name, array)
                for name in self._names:
                    binding.bind_output(name)
                self._session.run_with_iobinding(binding)
                places = {_place(array) for array in bound.values()}
                outputs = [_own(value.numpy(), places) for value in binding.get_outputs()]
        except Exception as error:  # ONNX Runtime's exceptions have no common base class.
            got = ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in inputs.items())
            raise DataError(
                f"the model fails on a batch ({got}): {first_line(error)}",
                accepted=", ".join(f"{i.name}: {i.type}{i.shape}" for i in self._session.get_inputs()),
                next_step="check --batch-size and the preprocessing of the samples",
            ) from error
        return dict(zip(self._names, outputs, strict=True))


def _place(array: NDArray[Any]) -> int:
    """Where an array begins in memory."""
    return int(array.__array_interface__["data"][0])


def _own(output: NDArray[Any], places: Set[int]) -> NDArray[Any]:
    """The output in memory of its own: an input among the outputs is the caller's array, which may be gone soon."""
    return output.copy() if _place(output) in places else output


@contextmanager
def opened(model: OnnxModel, tensors: Sequence[str], *, optimize: bool, threads: int) -> Iterator[SessionRunner]:
    """A runner that exposes these tensors, of the graph as it is or as ONNX Runtime optimizes it around them."""
    options = session_options(threads, "ORT_ENABLE_ALL" if optimize else "ORT_DISABLE_ALL")
    yield SessionRunner(session(model, options, tensors))


@contextmanager
def deployment(model: OnnxModel | Path, *, threads: int, optimized: bool) -> Iterator[SessionRunner]:
    """A runner of the model, or of the one in a file, as whoever deploys it has it, or op by op as it is written."""
    options = production_options(threads, "ORT_ENABLE_ALL" if optimized else "ORT_DISABLE_ALL")
    yield SessionRunner(session(model, options) if isinstance(model, OnnxModel) else _loaded(str(model), options))


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
