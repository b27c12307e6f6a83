"""Advice: rules that read a diagnosis and suggest what to change in the recipe, with evidence, and try it."""

from quantscope.advice.patch import RecipePatch
from quantscope.advice.rules import RULES, advise, why_nothing
from quantscope.advice.suggestion import Suggestion, Verification
from quantscope.advice.verification import ranked, remembered, verify

__all__ = [
    "RULES",
    "RecipePatch",
    "Suggestion",
    "Verification",
    "advise",
    "ranked",
    "remembered",
    "verify",
    "why_nothing",
]
