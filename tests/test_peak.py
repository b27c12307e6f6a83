"""What the backend measures of this processor; nothing here asserts a time."""

from __future__ import annotations

import math
from dataclasses import astuple

import pytest

from quantscope.backends.registry import backend


@pytest.mark.parametrize("threads", [0, 1])
def test_the_peak_is_measured_without_a_word_of_the_framework(threads: int, capfd: pytest.CaptureFixture[str]) -> None:
    peak = backend("onnx").peak(threads)
    assert all(math.isfinite(value) and value > 0 for value in astuple(peak))
    assert capfd.readouterr() == ("", "")
