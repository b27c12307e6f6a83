"""What was counted: per op, and at the model's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from quantscope.evaluation import Score


@dataclass(frozen=True)
class OpSaturation:
    """One product of uint8 and int8 codes over all samples.

    `pairs` counts the sums of two products, `saturated` those that do not fit in 16 bits; `outputs` the values of the
    op's output, `changed` those with such a pair among theirs. `sqnr_db` is that of the output where these pairs
    saturate against the exact one, before it is rounded, on inputs that nothing saturated before; +inf if equal.
    """

    op: str
    op_type: str
    pairs: int
    saturated: int
    outputs: int
    changed: int
    sqnr_db: float

    @property
    def share(self) -> float:
        """Share of the pairs that saturate."""
        return self.saturated / self.pairs if self.pairs else 0.0

    @property
    def changed_share(self) -> float:
        """Share of the output's values with such a pair."""
        return self.changed / self.outputs if self.outputs else 0.0


@dataclass(frozen=True)
class OutputChange:
    """One output of the model, over all samples.

    `sqnr_db` is that of the model in which pairs saturate against the exact quantized one. `exact_db` and
    `saturated_db` are those of either against the float model; None without one.
    """

    name: str
    sqnr_db: float
    exact_db: float | None = None
    saturated_db: float | None = None


@dataclass(frozen=True)
class Saturation:
    """All of it. `ops` are ordered as the model runs; `skipped` says why a product has no row.

    `score` has the exact model as its reference and the saturating one as the quantized; `top1_changed` is the share of
    decisions (the largest along the last axis of the first output) that are others, None where the output is none.
    `here` tells whether this machine's processor saturates; `quantized_here` that `model` is the float one, and was
    quantized for this.
    """

    ops: tuple[OpSaturation, ...]
    skipped: Mapping[str, str]
    outputs: tuple[OutputChange, ...]
    score: Score | None
    top1_changed: float | None
    samples: int
    here: bool
    processor: str
    model: str = ""
    quantized_here: bool = False

    @property
    def pairs(self) -> int:
        """The sums of two products in all ops."""
        return sum(op.pairs for op in self.ops)

    @property
    def saturated(self) -> int:
        """Those of them that saturate."""
        return sum(op.saturated for op in self.ops)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        values = asdict(self)
        for row, op in zip(values["ops"], self.ops, strict=True):
            row.update(share=op.share, changed_share=op.changed_share)
        return {**values, "pairs": self.pairs, "saturated": self.saturated}
