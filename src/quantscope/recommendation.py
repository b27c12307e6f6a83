"""What to choose for int8 on a machine, with the reason: a function of what the machine says of itself, nothing else.

Which kernels a processor runs: docs/decisions/0012-machine.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quantscope.machine import Machine, Processor


@dataclass(frozen=True)
class Recommendation:
    """One choice: what it is about, what to choose, why, and the flags of `quantscope quantize` that do so."""

    subject: str
    choice: str
    reason: str
    flags: tuple[str, ...] = ()


def recommend(machine: Machine, default_threads: int) -> tuple[Recommendation, ...]:
    """Return what to choose on this machine, where the framework starts so many threads if nobody says."""
    return (*_codes(machine.processor), _form(machine.processor), _threads(machine, default_threads))


def _codes(processor: Processor) -> Iterator[Recommendation]:
    """Types of codes, range and scales of weights."""
    subject, features = "types", processor.features or frozenset()
    unsigned = ("--activations", "uint8", "--weights", "int8")
    if processor.is_arm:
        fast = [label for name, label in (("i8mm", "i8mm"), ("dotprod", "dotprod")) if name in features]
        reason = (
            f"{fast[0]} multiplies int8 by int8, and kernels that add zero points beforehand exist for it alone"
            if fast
            else "it has neither dotprod nor i8mm: int8 runs in ordinary vector instructions, so expect little speed-up"
        )
        yield Recommendation(
            subject, "S8S8: int8 activations, int8 weights", reason, ("--activations", "int8", "--weights", "int8")
        )
    elif not processor.is_x86 or processor.features is None:
        reason = "nothing is known of this processor's instructions, and every kernel has this form"
        yield Recommendation(subject, "U8S8: uint8 activations, int8 weights", reason, unsigned)
    else:
        yield Recommendation(subject, "U8S8: uint8 activations, int8 weights", _x86_reason(features), unsigned)
    yield _range(processor)
    reason = "costs no time, and keeps channels of small weights from being rounded with the scale of large ones"
    yield Recommendation("scales of weights", "per channel", reason, ("--per-channel",))


def _x86_reason(features: frozenset[str]) -> str:
    if "amx-int8" in features:
        return "AMX-INT8 multiplies tiles of uint8 and int8; products of int8 and int8 have no such kernel"
    for name, label in (("avx512vnni", "AVX-512 VNNI"), ("avxvnni", "AVX-VNNI")):
        if name in features:
            reason = f"{label} multiplies uint8 by int8 and adds four products at once"
            if "avxvnniint8" not in features:
                reason += "; int8 by int8 has no fast kernel here"
            return reason
    if "avx2" in features:
        width = "AVX-512" if "avx512bw" in features else "AVX2"
        return f"{width} without VNNI multiplies uint8 by int8 in pairs; int8 by int8 has no fast kernel here"
    return "without AVX2 there is no fast kernel for 8-bit products: expect no speed-up, and measure before quantizing"


def _range(processor: Processor) -> Recommendation:
    subject = "range of weights"
    if processor.saturates:
        return Recommendation(
            subject,
            "7 bits (reduce_range)",
            "without VNNI pairs of products are added in 16 bits, which saturate; with 7 bits none can. What it does "
            "to your model: quantscope doctor MODEL --data SOURCE",
            ("--reduce-range",),
        )
    if processor.is_x86 and processor.sums_in_32_bits:
        reason = "products are added in 32 bits here: nothing saturates, and a bit less would only cost accuracy"
    elif processor.is_arm and {"dotprod", "i8mm"}.isdisjoint(processor.features or ()):
        reason = "pairs are added in 16 bits here, which symmetric weights, -127 to 127, never exceed"
    elif processor.is_arm:
        reason = "products are added in 32 bits here: nothing saturates, and a bit less would only cost accuracy"
    elif processor.features is None:
        reason = "nothing is known of this processor's instructions; x86 without VNNI would want 7 bits"
    else:
        reason = "products are widened before they are added here: nothing saturates"
    return Recommendation(subject, "all 8 bits", reason)


def _form(processor: Processor) -> Recommendation:
    reason = "fuses to the same kernels as QOperator, and an op without one still runs, in float"
    if processor.is_x86 and "avxvnniint8" not in (processor.features or ()):
        reason += "; int8 activations become uint8 in it, where QOperator would run the slow kernel"
    return Recommendation("form", "QDQ", reason, ("--format", "qdq"))


def _threads(machine: Machine, default: int) -> Recommendation:
    wanted = machine.threads
    count = f"{wanted} thread{'s' * (wanted != 1)}"
    if default == wanted:
        return Recommendation("threads", count, "what the framework starts by default: one for each core it may use")
    if default < wanted:
        reason = f"the framework starts {default} by default, and {wanted} cores are free to use"
    elif machine.core_quota is not None and machine.core_quota < min(machine.usable_cores, default):
        reason = (
            f"the container has the time of {machine.core_quota:g} cores, and the framework would start {default} "
            "threads, which wait for each other"
        )
    elif machine.usable_cores < default:
        reason = f"this process may use {machine.usable_cores} cores, and the framework would start {default} threads"
    else:
        reason = f"two threads of one core share its arithmetic: {default} would not compute more than {wanted}"
    return Recommendation("threads", count, reason, ("--threads", str(wanted)))
