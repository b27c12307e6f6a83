"""Which module each op belongs to: read from names such as '/layer4/conv', or found as repeated structure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_BLOCK = re.compile(r"blocks\.\d+/\d+")
_LONGEST_BLOCK = 80
_SMALLEST_REPEAT = 6


def scopes(names: Sequence[str], op_types: Sequence[str], declared: Sequence[str] | None = None) -> list[str]:
    """The scope of each op, "" at the top.

    A declared scope comes first. Names with slashes or double colons carry theirs: '/body/body.0/conv/Conv' is in
    'body/body.0/conv'. Where fewer than half of the ops have one, ops in execution order that repeat the same sequence
    of types form numbered blocks.
    """
    known = [own or scope_of(name) for own, name in zip(declared or [""] * len(names), names, strict=True)]
    if sum(map(bool, known)) * 2 >= len(names):
        return known
    return _repeated_blocks(op_types)


def scope_of(name: str) -> str:
    """The scope that a name carries, "" if it carries none; of joined names ("a/x;b/y") that of the last one."""
    return name.rpartition(";")[2].replace("::", "/").strip("/").rpartition("/")[0]


def is_repeated_block(scope: str) -> bool:
    """True for the scope of a numbered block, which was found and not read."""
    return _BLOCK.fullmatch(scope) is not None


def _repeated_blocks(op_types: Sequence[str]) -> list[str]:
    """Numbered blocks: the longest run of a repeated sequence at each place, found left to right."""
    result = [""] * len(op_types)
    run = 0
    start = 0
    while start < len(op_types):
        best_period, best_length = 0, 0
        for period in range(2, min(_LONGEST_BLOCK, (len(op_types) - start) // 2) + 1):
            if len(set(op_types[start : start + period])) < 2:
                continue
            length = period
            while start + length < len(op_types) and op_types[start + length] == op_types[start + length - period]:
                length += 1
            length -= length % period
            # The shortest period that covers the most: a block, not two blocks taken for one.
            if length >= 2 * period and length > best_length:
                best_period, best_length = period, length
        if best_length < _SMALLEST_REPEAT:
            start += 1
            continue
        for offset in range(best_length):
            result[start + offset] = f"blocks.{run}/{offset // best_period}"
        run += 1
        start += best_length
    return result
