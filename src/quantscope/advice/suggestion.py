"""A suggestion: what to change, why, and what that brought when it was tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from quantscope.advice.patch import RecipePatch
from quantscope.evaluation import Score


@dataclass(frozen=True)
class Verification:
    """A metric before and after a patch, over the same samples.

    `score` compares the quantized model as it was, its `reference`, with the one of the patched recipe, its
    `quantized`: the difference is the gain, with its 95 % interval. `notes` say what of the patch could not be done.
    """

    score: Score
    float_value: float
    notes: tuple[str, ...] = ()

    @property
    def gain(self) -> float:
        """How much better the metric became: the difference, turned around for errors, where less is better."""
        return -self.score.difference if self.score.metric == "mse" else self.score.difference

    @property
    def certain(self) -> bool:
        """True if the whole 95 % interval is on the better side of no change."""
        return self.score.high < 0 if self.score.metric == "mse" else self.score.low > 0


@dataclass(frozen=True)
class Suggestion:
    """What one rule suggests.

    `ops` are those that the evidence is about, worst first. `share` is the part of the error that the patch
    addresses, from 0 to 1, and `cost` the part of the quantized work that it takes out of 8 bits: estimates that
    suggestions are ordered by, no promise. What it really brings is `verified`, None as long as nobody tried.
    """

    rule: str
    ops: tuple[str, ...]
    title: str
    evidence: tuple[str, ...]
    patch: RecipePatch
    share: float
    cost: float = 0.0
    verified: Verification | None = None

    def to_dict(self) -> dict[str, Any]:
        """The suggestion as plain values."""
        return {
            "rule": self.rule,
            "ops": list(self.ops),
            "title": self.title,
            "evidence": list(self.evidence),
            "patch": self.patch.to_dict(),
            "share": self.share,
            "cost": self.cost,
            "verified": asdict(self.verified) if self.verified is not None else None,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Suggestion:
        """The suggestion that `to_dict` described."""
        verified = values["verified"]
        return cls(
            values["rule"],
            tuple(values["ops"]),
            values["title"],
            tuple(values["evidence"]),
            RecipePatch.from_dict(values["patch"]),
            values["share"],
            values["cost"],
            verified and Verification(Score(**verified["score"]), verified["float_value"], tuple(verified["notes"])),
        )
