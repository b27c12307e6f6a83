"""Where a model's time goes, asked by the ops of its file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantscope.backends.base import Kernel

_CODES = tuple(f"{kind}[" for kind in ("uint8", "int8", "uint16", "int16", "uint4", "int4"))
# Weights are packed before anything runs, and no longer seen among the inputs.
_WITH_CODES_INSIDE = frozenset(("MatMulNBits", "DynamicQuantizeMatMul"))
_CONVERSIONS = frozenset(("quantize", "dequantize"))


def on_codes(kernel: Kernel) -> bool:
    """True if a kernel reads codes: it is an integer one, moves codes as they are, or has a weight of codes inside."""
    return kernel.op_type in _WITH_CODES_INSIDE or any(typed.startswith(_CODES) for typed in kernel.inputs)


def shape(typed: str) -> tuple[int, ...]:
    """The shape in "uint8[1, 64]"."""
    inside = typed[typed.index("[") + 1 : typed.index("]")]
    return tuple(int(size) for size in inside.split(",") if size.strip())


class Times:
    """The kernels of one inference by the ops that they compute or serve."""

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self.kernels = kernels
        self.total_us = sum(kernel.us for kernel in kernels)
        self._by_op: dict[str, list[Kernel]] = {}
        for kernel in kernels:
            for op in kernel.ops:
                self._by_op.setdefault(op, []).append(kernel)

    def computing(self, ops: Iterable[str]) -> list[Kernel]:
        """The kernels that compute any of these ops, each once."""
        return [kernel for kernel in self._of(ops) if kernel.role == "compute"]

    def converting(self, ops: Iterable[str]) -> list[Kernel]:
        """The kernels that quantize or dequantize for any of these ops, each once."""
        return [kernel for kernel in self._of(ops) if kernel.role in _CONVERSIONS]

    def _of(self, ops: Iterable[str]) -> list[Kernel]:
        found = {kernel.name: kernel for op in ops for kernel in self._by_op.get(op, ())}
        return list(found.values())


def us(kernels: Iterable[Kernel]) -> float:
    """The time of these kernels per inference, in µs."""
    return sum(kernel.us for kernel in kernels)
