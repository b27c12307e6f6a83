"""Why a quantized model is not faster: what its ops really run as, and what in its file makes them do so."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from quantscope.backends.base import Finding, Kernel
from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.slowness import setting
from quantscope.backends.onnx.slowness.codes import slow_on_codes
from quantscope.backends.onnx.slowness.obstacles import X86
from quantscope.backends.onnx.slowness.times import Times
from quantscope.backends.onnx.slowness.unfused import Made, unfused
from quantscope.backends.onnx.slowness.written import Written


def findings(
    model: OnnxModel, kernels: Sequence[Kernel], made: Made, *, threads: int, cores: int, flags: Collection[str]
) -> list[Finding]:
    """Return what slows the model down, the most costly first.

    Args:
        model: the quantized model as it is written.
        kernels: what it runs as, with times.
        made: makes the backend's model of a changed file.
        threads: what it ran with; 0 means ONNX Runtime's own choice.
        cores: physical cores that this process may use.
        flags: what the processor can do, by LLVM's names; none if that is not known.
    """
    written, times = Written(model), Times(kernels)
    found = [
        *unfused(written, times, made),
        *setting.overhead(times),
        *setting.threads(times, threads, cores),
        *setting.processor(times, flags),
    ]
    if X86:
        found += slow_on_codes(written, times, made)
    return sorted(found, key=lambda finding: -finding.cost_us)
