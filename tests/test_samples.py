"""Samples from every kind of source, and what is said of those that cannot be used."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantscope import Samples
from quantscope.errors import DataError
from quantscope.graph import Tensor

X = np.random.default_rng(0).normal(size=(11, 3, 4)).astype(np.float32)
Y = np.arange(11) % 5
ONE = (Tensor("x", "float32", ("N", 3, 4)),)
TWO = (Tensor("ids", "int64", ("N", None)), Tensor("mask", "int64", ("N", None)))


def gathered(
    samples: Samples, size: int = 4, start: int = 0, stop: int | None = None
) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    batches = list(samples.batches(size, start=start, stop=stop))
    inputs = {name: np.concatenate([b.inputs[name] for b in batches]) for name in batches[0].inputs}
    labels = None if batches[0].labels is None else np.concatenate([b.labels for b in batches])
    return inputs, labels


class Loader:
    """A loader as PyTorch's and Neural Compressor's are: batches of inputs and labels, again and again."""

    batch_size = 3

    def __init__(self, named: bool = False) -> None:
        self.named = named

    def __iter__(self) -> Iterator[Any]:
        for i in range(0, len(X), self.batch_size):
            x = X[i : i + self.batch_size]
            yield ({"x": x} if self.named else x), Y[i : i + self.batch_size]


def generate() -> Iterator[Any]:
    yield from zip(X, Y, strict=True)


SOURCES: dict[str, Any] = {
    "array": X,
    "dict": {"x": X, "labels": Y},
    "dict of another name": {"data": X, "y": Y},
    "pairs of batches": [(X[:5], Y[:5]), (X[5:], Y[5:])],
    "single samples": list(zip(X, Y, strict=True)),
    "dicts": [{"x": X[:5]}, {"x": X[5:]}],
    "dicts with labels": [({"x": X[:2]}, Y[:2]), ({"x": X[2:]}, Y[2:])],
    "loader": Loader(),
    "loader of dicts": Loader(named=True),
    "function": generate,
    "function by name": "test_samples:generate",
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_samples_again_and_again(kind: str) -> None:
    samples = Samples.of(SOURCES[kind]).for_inputs(ONE)
    for _ in range(2):
        inputs, labels = gathered(samples)
        np.testing.assert_array_equal(inputs["x"], X)
        if labels is not None:
            np.testing.assert_array_equal(labels, Y)
    assert samples.count == 11
    assert (labels is None) == (kind in ("array", "dicts"))


@given(
    cuts=st.lists(st.integers(0, 11), max_size=4),
    size=st.integers(1, 12),
    start=st.integers(0, 10),
    length=st.integers(1, 12),
)
def test_any_chunks_give_the_same_batches(cuts: list[int], size: int, start: int, length: int) -> None:
    parts = [(x, y) for x, y in zip(np.split(X, sorted(cuts)), np.split(Y, sorted(cuts)), strict=True) if len(x)]
    batches = list(Samples.of(parts).for_inputs(ONE).batches(size, start=start, stop=start + length))
    assert all(batch.size == size for batch in batches[:-1])
    assert batches[0].first == start
    np.testing.assert_array_equal(np.concatenate([b.inputs["x"] for b in batches]), X[start : start + length])


def test_files(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", x=X, labels=Y)
    (tmp_path / "y.txt").write_text("\n".join(map(str, Y)))
    for source, labels in (("x.npy", tmp_path / "y.txt"), ("x.npz", None)):
        samples = Samples.of(tmp_path / source, labels=labels).for_inputs(ONE)
        again = Samples.from_spec(samples.spec or {}).for_inputs(ONE)
        for found in (gathered(samples), gathered(again)):
            np.testing.assert_array_equal(found[0]["x"], X)
            np.testing.assert_array_equal(found[1], Y)


def test_batches_never_mix_shapes() -> None:
    ids = [np.ones((1, n), np.int64) for n in (5, 5, 7, 7, 7, 5)]
    samples = Samples.of([{"ids": i, "mask": i} for i in ids]).for_inputs(TWO)
    assert [b.inputs["ids"].shape for b in samples.batches(4)] == [(2, 5), (3, 7), (1, 5)]


def test_several_inputs_by_position_and_integers_of_another_width() -> None:
    ids = np.arange(12, dtype=np.int32).reshape(3, 4)
    inputs, labels = gathered(Samples.of([((ids, ids + 1), np.zeros(3, int))]).for_inputs(TWO))
    assert inputs["ids"].dtype == inputs["mask"].dtype == np.int64
    np.testing.assert_array_equal(inputs["mask"], ids + 1)
    assert labels is not None


def test_a_real_pytorch_loader() -> None:
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    samples = Samples.of(torch.utils.data.DataLoader(dataset, batch_size=3)).for_inputs(ONE)
    inputs, labels = gathered(samples)
    np.testing.assert_array_equal(inputs["x"], X)
    np.testing.assert_array_equal(labels, Y)
    assert samples.count == 11


def test_a_generator_is_refused_with_the_remedy() -> None:
    with pytest.raises(DataError) as raised:
        Samples.of(generate())
    assert "only once" in raised.value.message
    assert "list(samples)" in raised.value.next_step


@pytest.mark.parametrize(
    ("source", "inputs", "message"),
    [
        (X[:, :, :3], ONE, r"shape \[1, 3, 3\].*\n.*'samples', 3, 4"),
        (X[:, 0, 0], ONE, r"shape \[1\]"),
        (np.zeros((0, 3, 4), np.float32), ONE, "no samples"),
        ([], ONE, "no samples"),
        ({"a": X, "b": X}, ONE, "names are a, b\n.*x"),
        ({"ids": X[:, 0], "mask": X[:, 0]}, TWO, "is float32"),
        ({"x": X, "labels": Y[:4]}, ONE, "differ in their number of samples"),
        ([(X, Y[:4])], ONE, "4 labels for 11 samples"),
        ([[X, X, X]], TWO, "3 arrays, the model has 2 inputs"),
        (np.array([["a"]]), (Tensor("x", "float32", ("N", 1)),), "<U1"),
        (np.full((2, 4), 2**40), (Tensor("x", "int32", ("N", 4)),), "values that fit int32"),
        (3.5, ONE, "samples of type float"),
        ("nowhere.npz", ONE, "no such file"),
        ("no_such_module:function", ONE, "cannot import"),
        ("test_samples:X", ONE, "no function but ndarray"),
    ],
)
def test_what_does_not_fit_is_named(source: Any, inputs: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        gathered(Samples.of(source).for_inputs(inputs))


def test_labels_of_another_number_are_refused() -> None:
    with pytest.raises(DataError, match="10 labels for 11 samples"):
        Samples.of(X, labels=Y[:10])


def test_damaged_and_pickled_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 and then nothing")
    (tmp_path / "other.txt").write_text("1 2 3")
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "pickled.npz").write_bytes(pickle.dumps([1, 2]))
    for name in ("damaged.npz", "pickled.npy", "pickled.npz", "other.txt"):
        with pytest.raises(DataError, match=name.partition(".")[0]):
            Samples.of(tmp_path / name)


def test_the_current_directory_is_searched_for_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_loader.py").write_text("import numpy as np\ndef batches():\n    yield np.zeros((2, 3, 4))\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    assert Samples.of("my_own_loader:batches").for_inputs(ONE).count == 2
