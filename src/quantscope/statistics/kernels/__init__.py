"""The hot loops, compiled by numba: each reads its arrays once, block by block, and allocates nothing per element.

A block stays in the first-level cache while its sums, its error and its histogram are taken. The sums of a block are
plain loops over a slice, which the compiler turns into vector instructions (`blocks`); what cannot be vectorized is
counting (`counting`). docs/decisions/0003-kernels.md has the figures. A value that is not finite shows up in the
block's sums, and only such a block takes the slow path that looks at each value.

`tensors`, `channels` and `budget` are the loops that the accumulators of the same names call.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def _drop_stale_caches(folder: Path) -> None:
    """numba compiles anew when a function's own file changed, but not when that of a function it calls did."""
    newest = max(path.stat().st_mtime for path in folder.glob("*.py"))
    for index in folder.glob("__pycache__/*.nbi"):
        # Another process may be faster, and where nothing may be removed numba keeps its cache elsewhere.
        with suppress(OSError):
            if index.stat().st_mtime < newest:
                index.unlink()


_drop_stale_caches(Path(__file__).parent)
