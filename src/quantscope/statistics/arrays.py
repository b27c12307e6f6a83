"""Arrays of any float type or of codes in the form that the kernels take: flat, contiguous, float32 or float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.qparams import QParams
from quantscope.statistics.kernels.channels import decode

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def _float_dtype(values: NDArray[Any]) -> np.dtype[Any]:
    """The smaller of float32 and float64 that holds every value exactly."""
    if values.dtype in _FLOATS:
        return values.dtype
    return np.dtype(np.float32 if values.dtype.itemsize <= 2 or values.dtype.kind == "b" else np.float64)


def flat(values: NDArray[Any], dtype: Any = None) -> NDArray[Any]:
    """Return the array flat and in the one form that kernels are compiled for, without a copy where it is so already.

    numba compiles a kernel anew for arrays that are read-only, not aligned or not contiguous: seconds for each
    combination, where a copy takes a moment.
    """
    return np.require(values, dtype, ("C", "A", "W")).reshape(-1)


def flat_floats(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the arrays flat, as `flat` does, and of one float type."""
    dtype = np.result_type(*map(_float_dtype, arrays))
    return [flat(values, dtype) for values in arrays]


def real_values(values: NDArray[Any], qparams: QParams | None) -> NDArray[Any]:
    """Return what codes of an integer type stand for, and anything else as it is."""
    if values.dtype.kind not in "iu" or qparams is None:
        return values
    if not qparams.per_tensor or qparams.scale.dtype != np.float32 or qparams.spec.bits > 16:
        return qparams.dequantize(values)
    # The same as QParams.dequantize without its arrays of int64.
    result = np.empty(values.shape, np.float32)
    zero_point, step = np.int32(qparams.zero_point.reshape(())), np.float32(qparams.scale.reshape(()))
    decode(flat(values), zero_point, step, result.reshape(-1))
    return result
