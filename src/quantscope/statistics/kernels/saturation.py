"""What pairs of products lose where they are added in 16 bits."""

from __future__ import annotations

import numba
import numpy as np

from quantscope.statistics.kernels.blocks import Array

LOWEST, HIGHEST = -32768, 32767


@numba.njit(cache=True, nogil=True)
def lost(
    codes: Array, rows: Array, step: int, first: Array, offsets: Array, weights: Array, loss: Array, saturated: Array
) -> None:
    """Add to `loss` what each output loses, and to `saturated` how many of its pairs do.

    A pair is codes[i] · w + codes[j] · v; what it has beyond 16 bits is lost.

    Args:
        codes: uint8, flat.
        rows: where each row of outputs begins in `codes`; the next output of a row is `step` further on.
        first: of each channel, its first pair; one more entry ends the last one.
        offsets, weights: int64 and int32, (pairs, 2): the places of a pair from where an output begins, its weights.
        loss: int32, (channels, rows, outputs of a row).
        saturated: int32, of the same shape.
    """
    width = loss.shape[2]
    for channel in range(loss.shape[0]):
        for pair in range(first[channel], first[channel + 1]):
            w, v = weights[pair, 0], weights[pair, 1]
            for row in range(rows.size):
                i, j = rows[row] + offsets[pair, 0], rows[row] + offsets[pair, 1]
                lost_of_row, saturated_of_row = loss[channel, row], saturated[channel, row]
                for x in range(width):
                    product = np.int32(codes[i + x * step]) * w + np.int32(codes[j + x * step]) * v
                    beyond = max(product - np.int32(HIGHEST), np.int32(0)) + min(
                        product - np.int32(LOWEST), np.int32(0)
                    )
                    lost_of_row[x] += beyond
                    saturated_of_row[x] += np.int32(beyond != 0)
