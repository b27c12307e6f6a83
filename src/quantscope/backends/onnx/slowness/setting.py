"""What slows a model down from outside of it: many small ops, the number of threads, the processor."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from quantscope.backends.base import Finding
from quantscope.backends.onnx.slowness.times import Times, on_codes, us
from quantscope.backends.onnx.slowness.unfused import count

# To find a kernel's inputs and outputs and to call it takes ONNX Runtime a few µs, whatever it computes.
_SMALL_US = 5.0
_MANY = 0.25
_ON_X86 = ("avx512vnni", "avxvnni", "avxvnniint8", "amx-int8")
_ON_ARM = ("dotprod", "i8mm")
_ARM = "neon"
_PRODUCT_TYPES = frozenset(("QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"))
# Three instructions do without it what one does with it, of which memory hides a part.
_WITHOUT_DOT_PRODUCTS = 0.5


def overhead(times: Times) -> Iterator[Finding]:
    """A finding if small ops take a good part of the time."""
    small = [kernel for kernel in times.kernels if kernel.us < _SMALL_US * max(kernel.calls, 1)]
    share = us(small) / times.total_us if times.total_us else 0.0
    if share >= _MANY:
        names = tuple(dict.fromkeys(op for kernel in small for op in kernel.ops))
        mean = us(small) / max(sum(kernel.calls for kernel in small), 1)
        yield Finding(
            "overhead",
            names,
            f"{count(len(small), 'small op')}, dominated by the cost of calling them",
            f"{len(small)} of {count(len(times.kernels), 'kernel')} take less than {_SMALL_US:.0f} µs a call,"
            f" {mean:.1f} µs on average: together {us(small):.0f} of {times.total_us:.0f} µs ({share:.0%})",
            "run larger batches, or simplify the model before it is quantized (fold constants, merge elementwise ops)",
            us(small),
        )


def threads(times: Times, threads: int, cores: int) -> Iterator[Finding]:
    """A finding if there are more threads than cores, or fewer.

    What more threads cost is estimated as if those without a core of their own had to be waited for. Fewer are mostly
    wanted, so their cost is given as 0.

    Args:
        times: the model's kernels.
        threads: 0 means ONNX Runtime's own choice, which is right.
        cores: physical cores that this process may use.
    """
    if threads > cores:
        yield Finding(
            "threads", (), f"{threads} threads on {count(cores, 'core')}",
            f"each op is split over {threads} threads, of which {threads - cores} wait for a core while the others wait"
            f" for them: {times.total_us:.0f} µs",
            f"set intra_op_num_threads to {cores}, or leave it at 0",
            times.total_us * (1 - cores / threads),
        )  # fmt: skip
    elif 0 < threads < cores:
        yield Finding(
            "threads", (), f"{count(threads, 'thread')} on {cores} cores",
            f"{count(cores - threads, 'core')} without work",
            f"set intra_op_num_threads to {cores} if no other process needs them",
            0.0,
        )  # fmt: skip


def processor(times: Times, flags: Collection[str]) -> Iterator[Finding]:
    """A finding if the processor has no instruction for dot products of 8-bit codes, and the model has such products.

    Args:
        times: the model's kernels.
        flags: what the processor can do, by LLVM's names; none if that is not known.
    """
    products = [kernel for kernel in times.kernels if kernel.op_type in _PRODUCT_TYPES and on_codes(kernel)]
    wanted = _ON_ARM if _ARM in flags else _ON_X86
    if flags and products and not set(wanted).intersection(flags):
        names = tuple(dict.fromkeys(op for kernel in products for op in kernel.ops))
        missing = "dot products (dotprod, i8mm)" if _ARM in flags else "VNNI or AMX"
        yield Finding(
            "processor", names, f"this processor has no {missing}: integer products gain little over float",
            f"{us(products):.0f} µs in {count(len(products), 'integer product')}: three instructions do what one would"
            " do with it",
            "run on a processor that has it; here, compare with float before you quantize products",
            us(products) * _WITHOUT_DOT_PRODUCTS,
        )  # fmt: skip
