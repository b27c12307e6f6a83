"""What this machine says of itself: processor, instructions that matter for 8-bit products, cores and memory."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from quantscope import memory

CPUINFO = Path("/proc/cpuinfo")
_TOPOLOGY = Path("/sys/devices/system/cpu")
_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_X86 = ("x86_64", "amd64", "i386", "i686")
_ARM = ("aarch64", "arm64")

X86_FEATURES: Mapping[str, str] = {
    "avx2": "AVX2", "avx512f": "AVX-512", "avx512vnni": "AVX-512 VNNI", "avxvnni": "AVX-VNNI",
    "avxvnniint8": "AVX-VNNI-INT8", "amx-int8": "AMX-INT8", "avx512fp16": "AVX-512 FP16", "avx512bf16": "AVX-512 BF16",
}  # fmt: skip
ARM_FEATURES: Mapping[str, str] = {
    "dotprod": "dotprod", "i8mm": "i8mm", "sve": "SVE", "sve2": "SVE2", "fullfp16": "FP16", "bf16": "BF16",
}  # fmt: skip
"""Instructions that decide how fast float and 8-bit products are, by LLVM's names, with those that people know."""


@dataclass(frozen=True)
class Processor:
    """A processor: its name, its architecture ("x86_64", "aarch64"), and what it can do, by LLVM's names.

    `features` is None where nothing is known of them.
    """

    name: str
    architecture: str
    features: frozenset[str] | None = None

    @property
    def is_x86(self) -> bool:
        """True for Intel's and AMD's processors."""
        return self.architecture.lower() in _X86

    @property
    def is_arm(self) -> bool:
        """True for 64-bit ARM."""
        return self.architecture.lower() in _ARM

    @property
    def notable(self) -> dict[str, bool]:
        """Whether it has each of the instructions that matter on its architecture, by the names that people know."""
        names = X86_FEATURES if self.is_x86 else ARM_FEATURES if self.is_arm else {}
        return {label: name in (self.features or ()) for name, label in names.items()}

    @property
    def sums_in_32_bits(self) -> bool:
        """True if it has instructions that add products of uint8 and int8 in 32 bits: VNNI."""
        return not {"avx512vnni", "avxvnni"}.isdisjoint(self.features or ())

    @property
    def saturates(self) -> bool:
        """True if it adds pairs of products of uint8 and int8 in 16 bits: two of 255 · 127 do not fit.

        Source: Intel, "Intel 64 and IA-32 Architectures Software Developer's Manual", VPMADDUBSW, VPDPBUSD.
        """
        return self.is_x86 and "avx2" in (self.features or ()) and not self.sums_in_32_bits


@dataclass(frozen=True)
class Machine:
    """A processor with its cores and memory, as far as this process may use them.

    `physical_cores` is None where nothing is known of them. `usable_cores` are those that this process may run on,
    `core_quota` how many of them its control group gives it the time of; None without a limit.
    """

    processor: Processor
    physical_cores: int | None
    logical_cores: int
    usable_cores: int
    core_quota: float | None
    memory_total_bytes: int
    memory_free_bytes: int

    @property
    def threads(self) -> int:
        """How many threads can compute at once without getting in each other's way: at least 1.

        One for each physical core, within what this process may use.
        """
        quota = self.usable_cores if self.core_quota is None else int(self.core_quota)
        return max(1, min(self.physical_cores or self.logical_cores, self.usable_cores, quota))


@cache
def processor() -> Processor:
    """The processor of this machine."""
    return Processor(processor_name(), platform.machine(), _features())


def machine() -> Machine:
    """This machine, and what is free of it now."""
    logical = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    return Machine(
        processor(), _physical_cores(), logical, usable, _core_quota(), memory.total(), memory.available()
    )  # fmt: skip


def processor_name() -> str:
    """The name that the processor gives itself, or else what is known: "znver4", "neoverse-n1", "x86_64"."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or _llvm_name() or platform.processor() or platform.machine()


def _llvm_name() -> str:
    from llvmlite import binding

    name = str(binding.get_host_cpu_name())
    return "" if name == "generic" else name


def _features() -> frozenset[str] | None:
    from llvmlite import binding

    try:
        return frozenset(name for name, present in binding.get_host_cpu_features().items() if present)
    except RuntimeError:  # LLVM does not know how to ask here.
        return None


def _physical_cores() -> int | None:
    """Cores that are not two threads of one; processors and cores that are switched off do not count."""
    found = set()
    for path in _TOPOLOGY.glob("cpu[0-9]*/topology/thread_siblings_list"):
        try:
            found.add(path.read_text().strip())
        except OSError:
            continue
    return len(found) or None


def _core_quota() -> float | None:
    """Cores whose time the control groups of this process grant it: the least of its own and those above it."""
    return min(_quotas(), default=None)


def _quotas() -> Iterator[float]:
    for folder in _groups():
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def _groups() -> Iterator[Path]:
    """The folders of this process' control groups, up to the root, in both versions of the file system."""
    for line in _read(_OWN_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "cpu", "cpu,cpuacct"):
            root = _GROUPS / controllers
            group = root / path.lstrip("/")
            yield from (group, *(parent for parent in group.parents if parent.is_relative_to(root)))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
