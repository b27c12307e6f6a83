"""One run is one file: an SQLite database, written in transactions while the run goes on.

A process can be killed at any moment: what the last transaction wrote is there, and the run can go on from it. The file
holds tables, histograms and accumulators; of the model it holds the graph's structure and no weights.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from glob import escape
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.diagnosis import Diagnosis, SharedHistogram, TensorDiagnosis, TensorSummary
from quantscope.errors import QuantscopeError, RunFileError
from quantscope.evaluation import Score, score
from quantscope.graph import Graph, Op, Tensor
from quantscope.output_error import with_output_error
from quantscope.pairing import coverage
from quantscope.profiling.document import Profile
from quantscope.recipe import Recipe
from quantscope.statistics.budget import ErrorBudget
from quantscope.statistics.channels import ChannelStatistics

SCHEMA_VERSION = 1
SUFFIX = ".qscope"
_APPLICATION_ID = 0x51534350  # "QSCP": tells a run file from any other SQLite database.
_BUSY_SECONDS = 10
# Beyond what any run writes: a file that claims more is damaged, or made to fill the memory of who opens it.
_MOST_BYTES = 2**28
_MOST_TEXT = 2**26

_SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE stages (
    position INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, done INTEGER NOT NULL, total INTEGER,
    finished INTEGER NOT NULL, seconds REAL NOT NULL
);
CREATE TABLE tensors (
    position INTEGER PRIMARY KEY, role TEXT NOT NULL, op TEXT NOT NULL, row TEXT NOT NULL, arrays BLOB
);
CREATE TABLE scores (
    metric TEXT NOT NULL, first INTEGER NOT NULL, reference BLOB NOT NULL, quantized BLOB NOT NULL,
    PRIMARY KEY (metric, first)
);
CREATE TABLE accumulators (position INTEGER PRIMARY KEY, state BLOB NOT NULL);
"""

# Statements that bring a file of version N to N + 1.
_MIGRATIONS: Mapping[int, str] = {}


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Named arrays as compressed bytes: the names, types and shapes as a line of JSON, then the values. No pickle.

    A zip of .npy files, as numpy writes it, takes four times as long to make.
    """
    parts = [np.asarray(array, order="C") for array in arrays.values()]
    head = json.dumps([[name, a.dtype.str, a.shape] for name, a in zip(arrays, parts, strict=True)])
    return zlib.compress(b"\n".join([head.encode(), b"".join(a.tobytes() for a in parts)]), 1)


def unpack(blob: bytes) -> dict[str, NDArray[Any]]:
    """The arrays that `pack` packed.

    Raises:
        ValueError: they are not, or are larger than any that a run makes.
    """
    unzip = zlib.decompressobj()
    content = unzip.decompress(blob, _MOST_BYTES)
    if unzip.unconsumed_tail:
        raise ValueError(f"arrays of more than {_MOST_BYTES} bytes")
    head, _, values = content.partition(b"\n")
    result: dict[str, NDArray[Any]] = {}
    position = 0
    for name, dtype, shape in json.loads(head):
        if np.dtype(dtype).kind not in "biufU":
            raise ValueError(f"an array of {dtype}")
        result[name] = np.ndarray(shape, dtype, values, position)
        position += result[name].nbytes
    return result


class RunFile:
    """An open run file. Use `create`, `resume` or `read`; close it, or use it in a with statement."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        self._connection = connection
        self.path = path

    @classmethod
    def create(cls, path: Path | None, *, numbered: bool = False, **facts: Any) -> RunFile:
        """A new run file that holds these facts; None keeps the run in memory.

        Args:
            numbered: if the name is taken, by a run file or by the model that a run wrote, add "-2", "-3" and so on.
        Raises:
            RunFileError: the file exists or cannot be written.
        """
        if path is not None:
            path = _reserved(path, numbered)
        run = cls(_connect(path), path)
        try:
            with run.transaction():
                for statement in _SCHEMA.split(";"):
                    run._connection.execute(statement)
                run._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                run._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                for key, value in {"status": "running", "created": created, "writer": _this_process(), **facts}.items():
                    run._put(key, value)
        except BaseException:
            run.delete()
            raise
        return run

    @classmethod
    def read(cls, path: Path) -> RunFile:
        """An existing run file, of this or an older version.

        Raises:
            RunFileError: the file is missing, damaged, no run file, or of a newer version.
        """
        if not path.is_file():
            raise RunFileError(
                f"no such run file: {path}",
                accepted="a .qscope file",
                next_step="run quantscope diagnose first",
            )
        connection = _connect(path)
        try:
            kind = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            connection.close()
            raise RunFileError(
                f"not a run file, or a damaged one: {path} ({error})", accepted="a .qscope file"
            ) from error
        if kind != _APPLICATION_ID:
            connection.close()
            empty = path.stat().st_size == 0
            raise RunFileError(
                f"the run file is empty: its run was killed before it began: {path}"
                if empty
                else f"not a run file: {path}",
                accepted="a .qscope file that quantscope wrote",
                next_step="delete it and run quantscope diagnose again" if empty else "",
            )
        if version > SCHEMA_VERSION:
            connection.close()
            raise RunFileError(
                f"{path} has schema version {version}",
                accepted=f"versions up to {SCHEMA_VERSION}",
                next_step="upgrade quantscope: pip install --upgrade quantscope",
            )
        run = cls(connection, path)
        try:
            # Who only reads keeps no writer waiting.
            if version < SCHEMA_VERSION:
                with run.transaction():
                    for older in range(version, SCHEMA_VERSION):
                        connection.execute(_MIGRATIONS[older])
                        connection.execute(f"PRAGMA user_version = {older + 1}")
            run._check_tables()
        except BaseException:
            run.close()
            raise
        return run

    def _check_tables(self) -> None:
        """Raise a RunFileError unless the tables are those that this version makes, and there is nothing but tables.

        A file from elsewhere could have views or generated columns in their place that compute without end.
        """
        try:
            found = self._connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        except (sqlite3.Error, UnicodeError) as error:
            raise self._damaged(error) from error
        wanted = {s.strip() for s in _SCHEMA.split(";") if s.strip()}
        if {sql for _, sql in found} != wanted:
            raise self._damaged(f"tables {', '.join(sorted(str(name) for name, _ in found)) or 'missing'}")

    def _damaged(self, reason: object) -> RunFileError:
        return RunFileError(
            f"the run file is damaged: {self.path} ({reason})", next_step="run quantscope diagnose again"
        )

    @classmethod
    def resume(cls, path: Path) -> RunFile:
        """A run file to go on with, taken over from a process that is no more.

        Raises:
            RunFileError: the run is finished, or another process is writing it.
        """
        run = cls.read(path)
        with run.transaction():
            if run.about("status") == "finished":
                run.close()
                raise RunFileError(f"the run is finished: {path}", next_step=f"print it with: quantscope show {path}")
            writer = run.about("writer") or {}
            if _alive(writer):
                run.close()
                raise RunFileError(
                    f"another process is writing {path}: process {writer['pid']}",
                    next_step="wait for it, or stop it and try again",
                )
            run._put("writer", _this_process())
            run._put("status", "running")
        return run

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def delete(self) -> None:
        """Close the file and remove it."""
        self.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> RunFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is written, or nothing is.

        Raises:
            RunFileError: the disk is full or the file is damaged.
        """
        if not self._connection.in_transaction:
            self._guarded("BEGIN IMMEDIATE")
        try:
            yield
            self._guarded("COMMIT")
        except BaseException as error:
            # A closed connection has nothing to roll back.
            with suppress(sqlite3.ProgrammingError):
                self._connection.rollback()
            if isinstance(error, sqlite3.Error):
                raise self._failure(error) from error
            raise

    def _guarded(self, statement: str) -> None:
        try:
            self._connection.execute(statement)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> QuantscopeError:
        text = str(error)
        step = "free some space; then go on with --resume" if "full" in text else "check the file and its folder"
        return RunFileError(f"cannot write the run file {self.path}: {text}", next_step=step)

    def about(self, key: str) -> Any:
        """A fact about the run; None if it is not known yet."""
        text = self.about_text(key)
        return json.loads(text) if text is not None else None

    def about_text(self, key: str) -> str | None:
        """A fact about the run as it is written, in JSON; None if it is not known yet.

        Raises:
            RunFileError: it is longer than any that a run writes.
        """
        found = self._connection.execute(
            "SELECT CASE WHEN length(value) <= ? THEN value END FROM about WHERE key = ?", (_MOST_TEXT, key)
        ).fetchone()
        if found is not None and not isinstance(found[0], str):
            raise self._damaged(f"fact {key} is no text, or longer than {_MOST_TEXT} characters")
        return found[0] if found else None

    def _put(self, key: str, value: Any) -> None:
        self._connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, json.dumps(value)))

    def write_about(self, **facts: Any) -> None:
        """Write facts about the run: JSON values by key."""
        with self.transaction():
            for key, value in facts.items():
                self._put(key, value)

    def add_note(self, note: str) -> None:
        """Write something that was odd, once."""
        self.change_about("notes", lambda notes: list(dict.fromkeys([*(notes or ()), note])))

    def change_about(self, key: str, change: Callable[[Any], Any]) -> None:
        """Put in place of a fact what `change` makes of it; no other process writes in between."""
        with self.transaction():
            self._put(key, change(self.about(key)))

    def write_stage(
        self, name: str, done: int, total: int | None, *, finished: bool = False, seconds: float = 0
    ) -> None:
        """Write how far a stage is."""
        with self.transaction():
            self._stage(name, done, total, finished, seconds)

    def _stage(self, name: str, done: int, total: int | None, finished: bool, seconds: float) -> None:
        self._connection.execute(
            "INSERT INTO stages (name, done, total, finished, seconds) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET done = excluded.done, total = excluded.total, "
            "finished = excluded.finished, seconds = excluded.seconds",
            (name, done, total, int(finished), seconds),
        )

    def stages(self) -> tuple[dict[str, Any], ...]:
        """The stages so far: name, done, total, finished, seconds."""
        rows = self._connection.execute(
            "SELECT name, done, total, finished, seconds FROM stages ORDER BY position"
        ).fetchall()
        return tuple(dict(zip(("name", "done", "total", "finished", "seconds"), row, strict=True)) for row in rows)

    def samples_compared(self) -> int:
        """How many samples the last checkpoint covers."""
        found = self._connection.execute("SELECT done FROM stages WHERE name = 'compare'").fetchone()
        return int(found[0]) if found else 0

    def checkpoint(
        self,
        rows: Mapping[int, TensorDiagnosis],
        accumulators: Mapping[int, Mapping[str, NDArray[Any]]],
        scores: Mapping[str, tuple[int, Sequence[float], Sequence[float]]],
        stage: tuple[str, int, int | None, bool, float],
    ) -> None:
        """Write rows, accumulators, new scores and how far the stage is, all together or not at all.

        Args:
            rows: position in execution order → row.
            accumulators: position → state; none removes those that are there.
            scores: metric → (number of the first sample, reference, quantized).
            stage: the arguments of `write_stage`.
        """
        with self.transaction():
            self._connection.executemany(
                "INSERT OR REPLACE INTO tensors VALUES (?, ?, ?, ?, ?)",
                ((position, t.role, t.op, _row_json(t), pack(_row_arrays(t))) for position, t in rows.items()),
            )
            if not accumulators:
                self._connection.execute("DELETE FROM accumulators")
            self._connection.executemany(
                "INSERT OR REPLACE INTO accumulators VALUES (?, ?)",
                ((position, pack(state)) for position, state in accumulators.items()),
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)",
                (
                    (metric, first, np.asarray(x, "<f8").tobytes(), np.asarray(y, "<f8").tobytes())
                    for metric, (first, x, y) in scores.items()
                ),
            )
            self._stage(*stage)

    def accumulators(self) -> dict[int, dict[str, NDArray[Any]]]:
        """The state of every accumulator at the last checkpoint."""
        rows = self._connection.execute("SELECT position, state FROM accumulators").fetchall()
        return {position: unpack(state) for position, state in rows}

    def sample_scores(self) -> dict[str, tuple[list[float], list[float]]]:
        """Per metric the scores of every sample so far: of the reference and of the quantized model."""
        result: dict[str, tuple[list[float], list[float]]] = {}
        for metric, x, y in self._connection.execute(
            "SELECT metric, reference, quantized FROM scores ORDER BY rowid"
        ).fetchall():
            reference, quantized = result.setdefault(metric, ([], []))
            reference.extend(np.frombuffer(x, "<f8").tolist())
            quantized.extend(np.frombuffer(y, "<f8").tolist())
        return result

    def scores(self) -> tuple[Score, ...]:
        """The scores of both models over the samples so far."""
        return tuple(score(metric, x, y) for metric, (x, y) in self.sample_scores().items())

    def tensors(self) -> tuple[TensorDiagnosis, ...]:
        """The rows so far, in execution order."""
        rows = self._connection.execute("SELECT row, arrays FROM tensors ORDER BY position").fetchall()
        return tuple(_row(json.loads(row), unpack(arrays) if arrays else {}) for row, arrays in rows)

    def plain_rows(self) -> dict[int, TensorDiagnosis]:
        """The rows so far by position, without histograms and channels, which take most time."""
        rows = self._connection.execute("SELECT position, row FROM tensors ORDER BY position").fetchall()
        return {position: _row(json.loads(row), {}) for position, row in rows}

    def write_output_error(self) -> None:
        """Complete all rows with their shares of the outputs' error."""
        rows = self.plain_rows()
        completed = with_output_error(graph_from(self.about("graph")), list(rows.values()))
        with self.transaction():
            self._connection.executemany(
                "UPDATE tensors SET row = ? WHERE position = ?",
                ((_row_json(row), position) for position, row in zip(rows, completed, strict=True)),
            )

    def row(self, position: int) -> TensorDiagnosis | None:
        """The row at this position in full; None if there is none."""
        found = self._connection.execute("SELECT row, arrays FROM tensors WHERE position = ?", (position,)).fetchone()
        return _row(json.loads(found[0]), unpack(found[1]) if found[1] else {}) if found else None

    def row_count(self) -> int:
        """How many rows there are so far."""
        return int(self._connection.execute("SELECT count(*) FROM tensors").fetchone()[0])

    def activation_rows(self) -> dict[int, TensorDiagnosis]:
        """The rows of the activations so far, by position."""
        rows = self._connection.execute(
            "SELECT position, row, arrays FROM tensors WHERE role = 'activation'"
        ).fetchall()
        return {position: _row(json.loads(row), unpack(arrays) if arrays else {}) for position, row, arrays in rows}

    def diagnosis(self, rows: Iterable[TensorDiagnosis] | None = None, graph: Graph | None = None) -> Diagnosis:
        """The diagnosis as far as it is, of the rows in full and the graph unless they were read already.

        Raises:
            RunFileError: the file is damaged.
        """
        try:
            recipe = self.about("recipe")
            if graph is None and (stored := self.about("graph")):
                graph = graph_from(stored)
            tensors = self.tensors() if rows is None else tuple(rows)
            if graph is not None and self.about("status") != "finished":
                tensors = with_output_error(graph, tensors)
            skipped, compute_ops = self.about("skipped") or {}, self.about("compute_ops")
            return Diagnosis(
                tensors=tensors,
                scores=self.scores(),
                skipped=skipped,
                coverage=coverage(skipped, compute_ops) if compute_ops is not None else 0.0,
                recipe=Recipe.from_dict(recipe) if recipe else None,
                samples=self.about("samples") or {},
                models={**(self.about("models") or {}), "output": self.about("output")},
                environment=self.about("environment") or {},
                notes=tuple(self.about("notes") or ()),
                measuring_changed=self.about("measuring_changed"),
                trace=(self.about("plan") or {}).get("trace", "deployed"),
                status=self._status(),
                run=str(self.path or ""),
                stages=self.stages(),
                graph=graph,
            )
        except (sqlite3.Error, zlib.error, ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error

    def profile(self) -> Profile | None:
        """The times that were measured of the run's models; None if there are none.

        Raises:
            RunFileError: what stands there is no profile.
        """
        stored = self.about("profile")
        try:
            return Profile.from_dict(stored) if stored is not None else None
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error

    def _status(self) -> str:
        status = str(self.about("status"))
        return "interrupted" if status == "running" and self.why_killed() else status

    def why_killed(self) -> str:
        """Why a run that is neither finished nor failed does not go on; "" if it does."""
        if self.about("status") == "interrupted":
            return "stopped with Ctrl-C"
        writer = self.about("writer") or {}
        if self.about("status") != "running" or _alive(writer):
            return ""
        if writer and writer["host"] != os.uname().nodename:
            return f"another machine wrote it, {writer['host']}, and nothing here tells whether it goes on"
        return f"its process, {writer.get('pid')}, is gone: it was killed, or the machine stopped"


def model_beside(path: Path, suffix: str) -> Path:
    """Where a run writes the model that it quantized, a file of this kind."""
    return path.with_suffix(f".int8{suffix}")


def has_model_beside(path: Path) -> bool:
    """True if a model stands, in whatever file, where a run of this name would write its own."""
    return any(path.parent.glob(f"{escape(path.stem)}.int8.*"))


def _reserved(path: Path, numbered: bool) -> Path:
    """An empty file of this name, made now, so that two runs that begin at once get a name each."""
    for candidate in _numbered(path) if numbered else (path,):
        try:
            os.close(os.open(candidate, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            if numbered:
                continue
            raise RunFileError(
                f"the run file exists: {path}",
                accepted="a new name",
                next_step=f"choose another name with --run, delete it, or go on with it: --resume {path}",
            ) from None
        except OSError as error:
            raise RunFileError(
                f"cannot write the run file {path}: {error.strerror}",
                next_step="choose another folder with --run",
            ) from error
        return candidate
    raise AssertionError("the numbers never end")


def _numbered(path: Path) -> Iterator[Path]:
    """The name, then with "-2", "-3" and so on, but for those beside which a run's model stands."""
    for number in count(1):
        candidate = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        if not has_model_beside(candidate):
            yield candidate


def first_free(path: Path) -> Path:
    """The name that a new numbered run would get now."""
    return next(candidate for candidate in _numbered(path) if not candidate.exists())


def _connect(path: Path | None) -> sqlite3.Connection:
    try:
        return sqlite3.connect(path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise RunFileError(f"cannot open the run file {path}: {error}") from error


def _this_process() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": os.uname().nodename, "started": _started(os.getpid())}


def _started(pid: int) -> str:
    """When a process began, so that a later process with the same number is not taken for it; "" if not known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _alive(writer: Mapping[str, Any]) -> bool:
    if not writer or writer["host"] != os.uname().nodename:
        return False
    try:
        os.kill(writer["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(writer["pid"]) == str(writer["started"])


_ARRAY_FIELDS = ("histogram", "channels")


def _row_json(tensor: TensorDiagnosis) -> str:
    plain = asdict(replace(tensor, budget=None, histogram=None, channels=None))
    budget = tensor.budget
    if budget is not None:
        plain["budget"] = asdict(budget)
    return json.dumps({key: value for key, value in plain.items() if key not in _ARRAY_FIELDS})


def _row_arrays(tensor: TensorDiagnosis) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name in _ARRAY_FIELDS:
        part = getattr(tensor, name)
        if part is not None:
            arrays |= {f"{name}.{f.name}": np.asarray(getattr(part, f.name)) for f in fields(part)}
    return arrays


def _row(values: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> TensorDiagnosis:
    parts: dict[str, dict[str, Any]] = {}
    for key, array in arrays.items():
        name, _, field = key.partition(".")
        parts.setdefault(name, {})[field] = array
    if "channels" in parts:
        parts["channels"]["axis"] = int(parts["channels"]["axis"])
    return TensorDiagnosis(
        **{
            **values,
            "reference": TensorSummary(**values["reference"]),
            "quantized": TensorSummary(**values["quantized"]),
            "budget": ErrorBudget(**values["budget"]) if values.get("budget") else None,
            "histogram": SharedHistogram(**parts["histogram"]) if "histogram" in parts else None,
            "channels": ChannelStatistics(**parts["channels"]) if "channels" in parts else None,
        }
    )


def graph_json(graph: Graph) -> dict[str, Any]:
    """The structure of a graph as JSON values."""
    used = {name for op in graph.ops for name in (*op.inputs, *op.outputs)}
    return {
        "ops": [[op.name, op.op_type, op.inputs, op.outputs, op.scope, dict(op.attributes)] for op in graph.ops],
        "tensors": [[t.name, t.dtype, t.shape] for t in graph.tensors.values() if t.name in used],
        "inputs": [t.name for t in graph.inputs],
        "outputs": [t.name for t in graph.outputs],
        "constants": sorted(graph.constants & used),
    }


def graph_from(values: Mapping[str, Any]) -> Graph:
    """The graph that `graph_json` described."""
    tensors = {
        name: Tensor(name, dtype, tuple(shape) if shape is not None else None)
        for name, dtype, shape in values["tensors"]
    }
    return Graph(
        tuple(
            Op(name, op_type, tuple(inputs), tuple(outputs), scope, attributes)
            for name, op_type, inputs, outputs, scope, attributes in values["ops"]
        ),
        tensors,
        tuple(tensors.get(name, Tensor(name)) for name in values["inputs"]),
        tuple(tensors.get(name, Tensor(name)) for name in values["outputs"]),
        frozenset(values["constants"]),
    )
