"""Whether products of 8-bit codes saturate on the processor that a diagnosis was made on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_SUMS_OF_16_BITS = ("avx2", "avx512bw")
_SUMS_OF_32_BITS = ("avx512_vnni", "avx_vnni")


def saturating_processor(environment: Mapping[str, str]) -> str:
    """Return the name of the diagnosis' processor if its 8-bit products saturate; "" if not, or if nothing is known.

    Without VNNI, x86 processors add pairs of uint8 · int8 products in 16 bits: two of 255 · 127 do not fit. Only what
    this machine says of itself is known, so the diagnosis must have been made on a processor of the same name.
    Source: Intel, "Intel 64 and IA-32 Architectures Software Developer's Manual", VPMADDUBSW.
    """
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    name, flags = facts.get("model name", ""), facts.get("flags", "").split()
    if not name or name != environment.get("processor"):
        return ""
    adds_in_16_bits = any(flag in flags for flag in _SUMS_OF_16_BITS)
    return name if adds_in_16_bits and not any(flag in flags for flag in _SUMS_OF_32_BITS) else ""
