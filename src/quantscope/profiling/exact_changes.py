"""A faster model with the same outputs: the changes that a backend promises to be exact, each checked and timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantscope.backends.base import Backend, Finding, Kernel, Model
from quantscope.errors import DataError, ModelError
from quantscope.profiling.document import Rewritten, Tried
from quantscope.profiling.inputs import Inputs, for_other
from quantscope.profiling.reasons import findings
from quantscope.profiling.timing import PARTS, gain
from quantscope.progress import Progress

_RUNS = 12
_WARM_UP = 2


@dataclass
class ExactChanges:
    """The way from a quantized model to a faster one.

    `batches` are what outputs are compared on; the first one is what is timed, for `seconds` at the most.
    """

    backend: Backend
    quantized: Model
    batches: Sequence[Inputs]
    threads: int
    seconds: float
    progress: Progress
    notes: list[str] = field(default_factory=list)

    def written(self, kernels: Sequence[Kernel], output: Path) -> Rewritten | None:
        """Write the faster model and return what was done; None, and nothing written, if no change makes it faster.

        Args:
            kernels: what the quantized model runs as.
            output: the file.
        """
        model, applied = self._changed(kernels)
        if not applied:
            return None
        measured = self._gain(self.quantized, model)
        self.backend.save(model, output)
        samples = sum(len(next(iter(batch.values()))) for batch in self.batches)
        return Rewritten(str(output), tuple(finding.title for finding in applied), measured, samples)

    def _changed(self, kernels: Sequence[Kernel]) -> tuple[Model, list[Finding]]:
        """The quantized model with all changes that help, the most costly reason first."""
        model, applied = self.quantized, list[Finding]()
        seen: set[str] = set()
        while finding := self._next(model, kernels, seen):
            seen.add(finding.rule)
            assert finding.changed is not None
            try:
                candidate = finding.changed()
                obstacle = self._obstacle(model, candidate)
            except (ModelError, DataError) as error:
                obstacle = error.message
            if obstacle:
                self.notes.append(f"not changed, as {obstacle}: {finding.title}")
                continue
            model = candidate
            applied.append(finding)
            kernels = self._kernels(model)
        return model, applied

    def _next(self, model: Model, kernels: Sequence[Kernel], seen: set[str]) -> Finding | None:
        found = findings(self.backend, model, kernels, self.threads)
        return next((f for f in found if f.exact and f.changed is not None and f.rule not in seen), None)

    def _obstacle(self, model: Model, candidate: Model) -> str:
        """Why the candidate is no better than the model; "" if it is."""
        if not self._same_outputs(candidate):
            return "outputs would differ"
        tried = self._gain(model, candidate)
        return "" if tried.low > 1 else f"a gain is not sure ({tried.gain:.2f}×, {tried.low:.2f} to {tried.high:.2f})"

    def _same_outputs(self, candidate: Model) -> bool:
        with (
            self.backend.deploy(self.quantized, threads=self.threads) as first,
            self.backend.deploy(candidate, threads=self.threads) as second,
        ):
            for batch in self.batches:
                expected = first.run(batch)
                found = second.run(self._fed(batch, candidate))
                if expected.keys() != found.keys():
                    return False
                if any(expected[name].tobytes() != found[name].tobytes() for name in expected):
                    return False
        return True

    def _fed(self, batch: Inputs, model: Model) -> Inputs:
        return for_other(batch, self.quantized.graph.inputs, model.graph.inputs)

    def _gain(self, before: Model, after: Model) -> Tried:
        self.progress.stage("time the change", PARTS)
        inputs = self._fed(self.batches[0], before)
        return gain(self.backend, before, after, inputs, self.threads, self.seconds, self.progress)

    def _kernels(self, model: Model) -> list[Kernel]:
        with self.backend.profile(model, threads=self.threads) as profiler:
            for _ in range(_RUNS):
                profiler.run(self._fed(self.batches[0], model))
            return profiler.finish(_WARM_UP)[1]
