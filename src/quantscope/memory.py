"""How much memory a run may use, and which tensors it can hold at once."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from quantscope.errors import DataError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
# Of what is free, so that the models, their samples and other programs have room beside the tensors.
_SHARE = 0.4
_GROUP = Path("/sys/fs/cgroup")


def parsed(text: str) -> int:
    """Return the number of bytes that a text such as "2GiB", "512 MiB" or "1.5GB" means.

    Raises:
        DataError: it means none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(found.group(2).upper()) if found else None
    if found is None or unit is None or float(found.group(1)) * unit < 1:
        raise DataError(f"memory {text!r}", accepted="a size such as 2GiB, 512MiB or 1.5GB")
    return int(float(found.group(1)) * unit)


def budget() -> int:
    """Return how many bytes of tensors a run may hold when nobody says: a share of what is free now."""
    return int(available() * _SHARE)


def total() -> int:
    """Return the bytes of memory of the machine, or of the container that this process runs in."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_of_group("memory.max")])


def _of_group(name: str) -> list[int]:
    """The number in a file of the control group; none without a limit, or where there is no such thing."""
    try:
        return [int((_GROUP / name).read_text())]
    except (OSError, ValueError):
        return []


def available() -> int:
    """Return the bytes that this process can still get: of the machine, or of the container it runs in."""
    found = []
    try:
        match = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        found += [int(match.group(1)) * 1024] if match else []
    except OSError:
        pass  # Not Linux.
    found += [limit - used for limit in _of_group("memory.max") for used in _of_group("memory.current")]
    if not found:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return max(min(found), 0)


def chunks(sizes: Sequence[int], limit: int) -> list[range]:
    """Return runs of consecutive positions whose sizes add up to at most `limit`; one that is larger stands alone."""
    found, first, total = [], 0, 0
    for position, size in enumerate(sizes):
        if total + size > limit and position > first:
            found.append(range(first, position))
            first, total = position, 0
        total += size
    if len(sizes) > first:
        found.append(range(first, len(sizes)))
    return found
