"""What does not fit in memory at once is looked at in several passes, with the same figures."""

from __future__ import annotations

import json
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantscope
from conftest import images
from quantscope import memory
from quantscope.errors import DataError
from test_runs import SLOW_SAMPLES, begin, finish, wait_for
from test_spread import figures


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GiB", 2 << 30), ("512 MiB", 512 << 20), ("1.5GB", 1_500_000_000), ("64kib", 65536), ("1000", 1000)],
)
def test_sizes_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert memory.parsed(text) == expected


@pytest.mark.parametrize("text", ["", "two", "2 gigs", "-1GiB", "0", "0.1", "1e9", "GiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="memory"):
        memory.parsed(text)


def test_the_default_leaves_room() -> None:
    assert 0 < memory.budget() < memory.available() <= memory.total()


@given(st.lists(st.integers(0, 100)), st.integers(1, 150))
def test_chunks_hold_everything_once_and_no_more_than_they_may(sizes: list[int], limit: int) -> None:
    found = memory.chunks(sizes, limit)
    assert [position for chunk in found for position in chunk] == list(range(len(sizes)))
    assert all(len(chunk) == 1 or sum(sizes[i] for i in chunk) <= limit for chunk in found)
    # None could have been joined with the next.
    assert all(sum(sizes[i] for i in (*a, *b)) > limit for a, b in pairwise(found))


class Listening:
    """Remembers the notes and the totals of the stages."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.totals: dict[str, int | None] = {}

    def stage(self, name: str, total: int | None) -> None:
        self.totals[name] = total

    def advance(self, count: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("options", [{}, {"trace": "both"}, {"workers": 2}])
def test_passes_change_no_figure(model: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    quantscope.quantize(model, images(8), tmp_path / "int8.onnx")
    x = images(20)
    whole = quantscope.diagnose(model, tmp_path / "int8.onnx", data=x, **options)
    listening = Listening()
    passes = quantscope.diagnose(
        model, tmp_path / "int8.onnx", data=x, memory="20KiB", progress=listening, **options
    )  # fmt: skip
    assert any("passes over the samples" in note for note in listening.notes)
    assert listening.totals["compare"] in (40, 60, 80, 100)
    assert figures(passes) == figures(whole)
    assert [t.budget for t in passes.tensors] == [t.budget for t in whole.tensors]


def test_killed_in_a_later_pass_a_run_goes_on_with_the_same_figures(tmp_path: Path, model: Path) -> None:
    (tmp_path / "slow_samples.py").write_text(SLOW_SAMPLES)
    arguments = ("model.onnx", "--memory", "45KiB", "--json")
    whole = json.loads(finish(begin(tmp_path, "diagnose", *arguments, "--data", "slow_samples:quick"))[0])
    run = tmp_path / "killed.qscope"
    process = begin(tmp_path, "diagnose", *arguments, "--data", "slow_samples:batches", "--run", run.name)
    wait_for(run, 160, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    resumed = json.loads(finish(begin(tmp_path, "diagnose", "--resume", run.name, "--json"))[0])
    for key in ("activations", "weights", "accuracy", "coverage"):
        assert resumed[key] == whole[key]
