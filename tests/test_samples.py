"""Whatever the samples come from, the same ones arrive: in order, complete, and as the model takes them."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantscope.errors import DataError
from quantscope.graph import Tensor
from quantscope.images import PRESETS
from quantscope.samples import Batch, Samples

X = np.arange(7 * 3, dtype=np.float32).reshape(7, 3)
Y = np.arange(7) * 10
ONE = (Tensor("input", "float32", ("N", 3)),)
TWO = (Tensor("ids", "int64", (None, 2)), Tensor("mask", "float32", (None, 3)))
IDS = np.arange(14).reshape(7, 2)


class Loader:
    """What Neural Compressor's dataloaders look like from outside."""

    def __init__(self, chunks: list[Any], **attributes: Any) -> None:
        self.chunks = chunks
        self.batch_size = 3
        self.passes = 0
        self.__dict__.update(attributes)

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(self.chunks)


class Dataset:
    """What a PyTorch Dataset looks like from outside: items by number, no __iter__."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[NDArray[Any], int]:
        self.read.append(index)
        return X[index], int(Y[index])


def cut(*arrays: NDArray[Any]) -> list[tuple[NDArray[Any], ...]]:
    return [tuple(a[i : i + 3] for a in arrays) for i in (0, 3, 6)]


def gathered(batches: Iterator[Batch] | list[Batch]) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    found = list(batches)
    inputs = {name: np.concatenate([b.inputs[name] for b in found]) for name in found[0].inputs}
    labels = [b.labels for b in found if b.labels is not None]
    assert len(labels) in (0, len(found))
    return inputs, np.concatenate(labels) if labels else None


def message(action: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


def first_batch(source: object, inputs: tuple[Tensor, ...] = ONE, **options: Any) -> Batch:
    return next(iter(Samples.of(source, **options).for_inputs(inputs).batches(2)))


# --- what is accepted


@pytest.mark.parametrize(
    ("source", "labelled"),
    [
        pytest.param(lambda: X, False, id="array"),
        pytest.param(lambda: {"anything": X}, False, id="dict, one array"),
        pytest.param(lambda: {"input": X, "labels": Y}, True, id="dict, labels"),
        pytest.param(lambda: {"x": X, "y": Y}, True, id="dict, y"),
        pytest.param(lambda: [c for (c,) in cut(X)], False, id="list of arrays"),
        pytest.param(lambda: cut(X), False, id="list of 1-tuples"),
        pytest.param(lambda: cut(X, Y), True, id="list of pairs"),
        pytest.param(lambda: [list(c) for c in cut(X, Y)], True, id="list of lists"),
        pytest.param(lambda: [((x,), y) for x, y in cut(X, Y)], True, id="nested pairs"),
        pytest.param(lambda: [({"input": x}, y) for x, y in cut(X, Y)], True, id="dict and labels"),
        pytest.param(lambda: [{"input": x, "label": y} for x, y in cut(X, Y)], True, id="dicts"),
        pytest.param(lambda: list(zip(X, Y, strict=True)), True, id="lone pairs"),
        pytest.param(lambda: [{"q": x, "label": y} for x, y in zip(X, Y, strict=True)], True, id="lone dicts"),
        pytest.param(X.tolist, False, id="lone lists of numbers"),
        pytest.param(lambda: tuple(cut(X, Y)), True, id="tuple of pairs"),
        pytest.param(lambda: Loader(cut(X, Y)), True, id="Neural Compressor"),
        pytest.param(lambda: Loader([([x], y) for x, y in cut(X, Y)]), True, id="Neural Compressor, list"),
        pytest.param(lambda: Loader([{"input": x} for (x,) in cut(X)]), False, id="Neural Compressor, dict"),
        pytest.param(Dataset, True, id="PyTorch Dataset"),
        pytest.param(lambda: lambda: (pair for pair in cut(X, Y)), True, id="function of a generator"),
        pytest.param(lambda: lambda: {"x": X, "y": Y}, True, id="function of a dict"),
        pytest.param(lambda: Samples.of(X), False, id="Samples"),
    ],
)
def test_every_source_gives_the_same_samples_twice(source: Callable[[], object], labelled: bool) -> None:
    samples = Samples.of(source()).for_inputs(ONE)
    for _ in range(2):
        batches = list(samples.batches(2))
        assert [(b.first, b.stop, b.size) for b in batches] == [(0, 2, 2), (2, 4, 2), (4, 6, 2), (6, 7, 1)]
        inputs, labels = gathered(batches)
        np.testing.assert_array_equal(inputs["input"], X)
        assert (labels is not None) == labelled
        assert labels is None or (labels == Y).all()
    assert samples.count == 7
    assert samples.skipped == {}


@pytest.mark.parametrize(
    "source",
    [
        pytest.param({"mask": X, "ids": IDS}, id="dict"),
        pytest.param(cut(IDS, X), id="by position"),
        pytest.param(cut(IDS, X, Y), id="by position, labels"),
        pytest.param([((i, x), y) for i, x, y in cut(IDS, X, Y)], id="nested"),
        pytest.param(list(zip(IDS, X, Y, strict=True)), id="lone"),
        pytest.param([{"mask": x, "ids": i, "y": y} for i, x, y in cut(IDS, X, Y)], id="dicts"),
    ],
)
def test_several_inputs_are_matched_by_name_or_position(source: object) -> None:
    inputs, labels = gathered(Samples.of(source).for_inputs(TWO).batches(4))
    assert list(inputs) == ["ids", "mask"]
    np.testing.assert_array_equal(inputs["ids"], IDS)
    np.testing.assert_array_equal(inputs["mask"], X)
    assert labels is None or (labels == Y).all()


def test_a_label_key_that_the_model_takes_is_an_input() -> None:
    inputs = (Tensor("input", "float32", (None, 3)), Tensor("labels", "int64", (None,)))
    batch = first_batch({"input": X, "labels": Y}, inputs)
    assert list(batch.inputs) == ["input", "labels"]
    assert batch.labels is None


def test_a_lone_vector_label_gets_its_axis_too() -> None:
    marks = np.arange(14).reshape(7, 2)
    _, labels = gathered(Samples.of(list(zip(X, marks, strict=True))).for_inputs(ONE).batches(3))
    np.testing.assert_array_equal(labels, marks)


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
def test_files_are_read_and_rebuilt_from_their_spec(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labels: str | None = None
    if kind == "npy":
        np.save("x.npy", X)
        Path("labels.txt").write_text("\n".join(map(str, Y)) + "\n\n")
        labels = "labels.txt"
    elif kind == "npz":
        np.savez("x.npz", images=X, labels=Y)
    else:
        np.savez_compressed("x.npz", images=X, y=Y)
    samples = Samples.of("x.npy" if kind == "npy" else Path("x.npz"), labels=labels)
    monkeypatch.chdir("/")
    for each in (samples, Samples.from_spec(json.loads(json.dumps(samples.spec)))):
        inputs, found = gathered(each.for_inputs(ONE).batches(3))
        np.testing.assert_array_equal(inputs["input"], X)
        np.testing.assert_array_equal(found, Y)
        assert each.count == 7


@pytest.mark.parametrize("kind", ["array", "list", "npy", "txt", "float txt"])
def test_labels_can_be_given_apart(tmp_path: Path, kind: str) -> None:
    given: object = {"array": Y, "list": Y.tolist()}.get(kind, tmp_path / f"labels.{kind[-3:]}")
    expected = Y + 0.5 if kind == "float txt" else Y
    if kind == "npy":
        np.save(tmp_path / "labels.npy", Y)
    elif kind.endswith("txt"):
        (tmp_path / "labels.txt").write_text("\n".join(map(str, expected)))
    _, labels = gathered(Samples.of(X, labels=given).for_inputs(ONE).batches(3))
    np.testing.assert_array_equal(labels, expected)
    assert labels is not None
    assert labels.dtype.kind == ("f" if kind == "float txt" else "i")


def test_a_function_is_found_by_name_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_samples.py").write_text(
        "import numpy as np\nclass Data:\n    @staticmethod\n    def photos():\n"
        "        for i in range(7):\n            yield np.full((1, 3), i, np.float32), [i]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    samples = Samples.of("my_samples:Data.photos")
    assert samples.spec == {"source": "my_samples:Data.photos"}
    for each in (samples, Samples.from_spec(samples.spec)):
        for _ in range(2):
            assert gathered(each.for_inputs(ONE).batches(4))[1].tolist() == list(range(7))  # type: ignore[union-attr]
    assert samples.count == 7


def test_in_memory_samples_have_no_spec() -> None:
    assert Samples.of(X).spec is None
    assert Samples.of(cut(X)).spec is None
    assert Samples.of(lambda: cut(X)).spec is None


@given(
    cuts=st.lists(st.integers(0, 7), max_size=4).map(sorted),
    batch_size=st.integers(1, 9),
    start=st.integers(0, 9),
    stop=st.none() | st.integers(0, 9),
    kind=st.sampled_from(["chunks", "stream", "array", "lone", "dataset"]),
)
def test_any_chunking_gives_the_same_window(
    cuts: list[int], batch_size: int, start: int, stop: int | None, kind: str
) -> None:
    chunks = [(X[a:b], Y[a:b]) for a, b in zip([0, *cuts], [*cuts, 7], strict=True)]
    source: object = {
        "chunks": chunks,
        "stream": Loader(chunks),
        "array": {"x": X, "y": Y},
        "lone": list(zip(X, Y, strict=True)),
        "dataset": Dataset(),
    }[kind]
    samples = Samples.of(source).for_inputs(ONE)
    batches = list(samples.batches(batch_size, start=start, stop=stop))
    expected = list(range(7))[start:stop]
    assert [i for b in batches for i in range(b.first, b.stop)] == expected
    assert all(b.size == b.stop - b.first == batch_size for b in batches[:-1])
    if expected:
        inputs, labels = gathered(batches)
        np.testing.assert_array_equal(inputs["input"], X[expected])
        np.testing.assert_array_equal(labels, Y[expected])
    assert samples.count == 7


def test_samples_before_the_window_are_not_read() -> None:
    dataset = Dataset()
    samples = Samples.of(dataset).for_inputs(ONE)
    batch = next(iter(samples.batches(2, start=4)))
    assert (batch.first, batch.stop) == (4, 6)
    # Item 0 tells that an item is one sample.
    assert sorted(set(dataset.read)) == [0, 4, 5]


def test_a_batch_is_given_before_the_next_sample_is_read() -> None:
    def endless() -> Iterator[NDArray[Any]]:
        yield X[:2]
        raise AssertionError("read too far")

    assert next(iter(Samples.of(endless).for_inputs(ONE).batches(2))).size == 2


def test_a_batch_never_mixes_shapes() -> None:
    widths = [3, 3, 4, 4, 4, 3]
    samples = Samples.of([np.full(w, i, np.float32) for i, w in enumerate(widths)])
    batches = list(samples.for_inputs((Tensor("x", "float32", (None, None)),)).batches(2))
    assert [(b.first, b.inputs["x"].shape) for b in batches] == [
        (0, (2, 3)),
        (2, (2, 4)),
        (4, (1, 4)),
        (5, (1, 3)),
    ]


def test_the_count_follows_the_binding_and_the_loader() -> None:
    lone = Samples.of([X[0], X[1]])
    assert lone.count == 6  # nothing says yet that a vector of 3 is one sample
    assert lone.for_inputs(ONE).count == 2
    assert Samples.of(list(zip(X, Y, strict=True))).count == 7
    loader = Loader(cut(X, Y), dataset=range(7))
    assert Samples.of(loader).count == 7
    assert loader.passes == 0
    dropping = Loader(cut(X, Y)[:2], dataset=range(7), drop_last=True)
    assert Samples.of(dropping).count == 6
    assert Samples.of(Loader(cut(X, Y)[:1], dataset=range(7), sampler=range(3))).count == 3


# --- dtypes and shapes


@pytest.mark.parametrize(
    ("got", "wanted"),
    [("float64", "float32"), ("float16", "float32"), ("float32", "float16"), ("uint8", "float32"),
     ("int64", "float32"), ("bool", "float32"), ("int64", "int32"), ("int32", "int64"), ("uint8", "int64"),
     ("bool", "int64")],
)  # fmt: skip
def test_safe_conversions_are_made(got: str, wanted: str) -> None:
    values = np.array([[0, 1, 1]], got)
    batch = first_batch(values, (Tensor("x", wanted, (None, 3)),))
    assert batch.inputs["x"].dtype == wanted
    np.testing.assert_array_equal(batch.inputs["x"], [[0, 1, 1]])


def test_not_finite_values_pass() -> None:
    values = np.array([[np.nan, np.inf, -np.inf]])
    np.testing.assert_array_equal(first_batch(values).inputs["input"], values)


@pytest.mark.parametrize(
    ("value", "wanted", "words"),
    [
        (np.array([[1, 2, 3]], np.float32), "int64", ["float32", "int64", "'x'"]),
        (np.array([[1, 2, 1 << 40]]), "int32", ["1099511627776", "int32", "2147483647"]),
        (np.array([[1, 2, -1]]), "uint8", ["-1", "uint8", "0 to 255"]),
        (np.array([[1, 2, 1e300]]), "float32", ["1e+300", "float32"]),
        (np.array([[1, 2, 3]]), "bool", ["int64", "bool"]),
        (np.array([["a", "b", "c"]]), "float32", ["<U1", "float32"]),
    ],
)
def test_unsafe_conversions_are_refused(value: NDArray[Any], wanted: str, words: list[str]) -> None:
    text = message(lambda: first_batch(value, (Tensor("x", wanted, (None, 3)),)))
    assert all(word in text for word in words), text


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 1), (2,)])
def test_a_wrong_shape_is_shown_beside_the_expected_one(shape: tuple[int, ...]) -> None:
    text = message(lambda: first_batch(np.zeros(shape, np.float32)))
    assert str([1, *shape[1:]]) in text
    assert "[samples, 3]" in text
    assert "'input'" in text


def test_free_dimensions_take_anything() -> None:
    inputs = (Tensor("x", "float32", ("N", None, "width")),)
    assert first_batch(np.zeros((2, 5, 6)), inputs).inputs["x"].shape == (2, 5, 6)
    assert first_batch(np.zeros((2, 5)), (Tensor("x"),)).inputs["x"].dtype == np.float64


# --- what is refused


@pytest.mark.parametrize("one_shot", [lambda: (x for x in X), lambda: iter([X]), lambda: map(np.asarray, [X])])
def test_a_one_shot_iterator_is_refused(one_shot: Callable[[], object]) -> None:
    text = message(lambda: Samples.of(one_shot()))
    assert "only once" in text
    assert "list(samples)" in text
    assert "package.module:function" in text


def test_a_hidden_one_shot_iterator_is_found_in_the_second_pass() -> None:
    class Exhausted:
        def __init__(self) -> None:
            self.iterator = iter([X])

        def __iter__(self) -> Iterator[Any]:
            return self.iterator

    samples = Samples.of(Exhausted()).for_inputs(ONE)
    assert len(list(samples.batches(7))) == 1
    assert "only once" in message(lambda: list(samples.batches(7)))


@pytest.mark.parametrize("source", [[], np.zeros((0, 3)), {"x": np.zeros((0, 3))}, [np.zeros((0, 3))], lambda: []])
def test_no_sample_is_an_error(source: object) -> None:
    text = message(lambda: list(Samples.of(source).for_inputs(ONE).batches(2)))
    assert "no samples in" in text
    assert "an .npz" in text


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (X, {"labels": [1, 2]}, ["2 labels", "7 samples"]),
        (X, {"labels": np.zeros((6, 2))}, ["6 labels", "7 samples"]),
        (X, {"labels": np.zeros((1, 7))}, ["1 labels", "7 samples"]),
        (X, {"labels": 5}, ["1 labels", "7 samples"]),
        ([(X, Y[:3])], {}, ["3 labels", "7 samples"]),
        ({"x": X, "y": Y[:3]}, {}, ["x [7, 3]", "y [3]"]),
        (cut(X), {"labels": Y}, ["apart", "(inputs, labels)"]),
        (X, {"preprocessing": PRESETS["imagenet-tf"]}, ["preprocessing", "leave the preprocessing out"]),
        (np.float32(3), {}, ["samples on the leading axis"]),
        ({}, {}, ["no array"]),
        (3, {}, ["type int", "DataLoader"]),
        ("nowhere", {}, ["no such file or folder: nowhere"]),
        ("no.such.module:f", {}, ["cannot import no.such.module:f"]),
        ("json:nothing", {}, ["cannot import json:nothing"]),
        (":f", {}, ["cannot import :f"]),
        (".relative:f", {}, ["cannot import .relative:f"]),
        ("./missing:f", {}, ["cannot import ./missing:f"]),
        ("sys:maxsize", {}, ["is no function but int"]),
        (lambda: "a path", {}, ["returned 'a path'"]),
        (lambda: None, {}, ["returned None"]),
        ([(X, X, X, X)], {}, ["4 arrays by position", "1 inputs", "input"]),
        ([{"input": X, "other": X}], {}, ["unknown other", "input"]),
        ([{"labels": Y, "y": Y, "z": X}], {}, ["unknown y", "input"]),
        ([{}], {}, ["without any array"]),
        ([{"input": object()}], {}, ["object is no array"]),
        ([[[1.0, 2.0, 3.0], [1.0]]], {}, ["no array"]),
        ([X[0], X], {}, ["item 0 is a lone sample", "batch of 7"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_explained(source: object, options: dict[str, Any], words: list[str]) -> None:
    text = message(lambda: list(Samples.of(source, **options).for_inputs(ONE).batches(2)))
    assert all(word in text for word in words), text


def test_names_of_both_sides_are_listed() -> None:
    text = message(lambda: first_batch({"ids": IDS, "maks": X}, TWO))
    assert "ids, maks" in text
    assert "missing mask; unknown maks" in text
    assert "the model's inputs: ids, mask" in text


@pytest.mark.parametrize(("batch_size", "start", "stop"), [(0, 0, None), (2, -1, None), (2, 0, -1)])
def test_impossible_windows_are_refused(batch_size: int, start: int, stop: int | None) -> None:
    text = message(lambda: list(Samples.of(X).batches(batch_size, start=start, stop=stop)))
    assert f"batch size {batch_size}, start {start}, stop {stop}" in text


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
@pytest.mark.parametrize("content", ["empty", "text", "pickle", "object", "cut", "zip"])
def test_damaged_and_pickled_files_are_refused(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    if content in ("object", "cut"):
        array = np.array([{"a": 1}], dtype=object) if content == "object" else X
        if name == "x.npz":
            np.savez(path, x=array)
        else:
            np.save(path, array)
        if content == "cut":
            path.write_bytes(path.read_bytes()[:-60])
    else:
        data = {
            "empty": b"",
            "text": b"hello",
            "pickle": pickle.dumps([X]),
            "zip": b"PK\x03\x04" + b"\0" * 40,
        }
        path.write_bytes(data[content])
    text = message(lambda: Samples.of(path))
    assert f"cannot read {path}" in text
    assert "without pickled objects" in text


def test_a_file_of_another_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2")
    assert ".csv" in message(lambda: Samples.of(tmp_path / "x.csv"))


@pytest.mark.parametrize("content", [None, "1\ntwo\n", "1e30\n" * 7])
def test_unreadable_label_files_are_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "labels.txt").write_text(content)
    text = message(lambda: Samples.of(X, labels=tmp_path / "labels.txt"))
    assert "cannot read the labels" in text
    assert "number per line" in text


def test_a_damaged_record_is_refused() -> None:
    assert "names no source" in message(lambda: Samples.from_spec({}))


# --- PyTorch itself


@pytest.mark.parametrize("drop_last", [False, True])
def test_a_pytorch_loader_needs_no_adapter(drop_last: bool) -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y))
    samples = Samples.of(torch.utils.data.DataLoader(data, batch_size=3, drop_last=drop_last)).for_inputs(ONE)
    count = 6 if drop_last else 7
    for _ in range(2):
        inputs, labels = gathered(samples.batches(4))
        np.testing.assert_array_equal(inputs["input"], X[:count])
        np.testing.assert_array_equal(labels, Y[:count])
    assert samples.count == count
    subset = torch.utils.data.SubsetRandomSampler([1, 2])
    assert Samples.of(torch.utils.data.DataLoader(data, batch_size=3, sampler=subset)).count == 2
    np.testing.assert_array_equal(gathered(Samples.of(data).for_inputs(ONE).batches(3))[0]["input"], X)
    np.testing.assert_array_equal(first_batch(torch.from_numpy(X)).inputs["input"], X[:2])
