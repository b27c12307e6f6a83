"""quantscope finds where a quantized neural network loses its accuracy, names the op, and shows the proof.

`quantize`, `diagnose` and `tune` are the main jobs; `open` reads a run file back. Nothing heavy is imported before it
is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantscope.advice import Suggestion, advise, verify
    from quantscope.diagnosis import Diagnosis, OpDiagnosis, TensorDiagnosis
    from quantscope.errors import QuantscopeError
    from quantscope.images import Preprocessing
    from quantscope.profiling import Profile
    from quantscope.recipe import Calibration, OpRule, Recipe
    from quantscope.samples import Samples
    from quantscope.workflows import diagnose, open_profile, profile, quantize, resume
    from quantscope.workflows import open_run as open
    from quantscope.workflows.ranking import resume_sensitivity, sensitivity
    from quantscope.workflows.tuning import resume_tuning, tune

_PUBLIC = {
    "Calibration": "recipe",
    "Diagnosis": "diagnosis",
    "OpDiagnosis": "diagnosis",
    "OpRule": "recipe",
    "Preprocessing": "images",
    "Profile": "profiling",
    "QuantscopeError": "errors",
    "Recipe": "recipe",
    "Samples": "samples",
    "Suggestion": "advice",
    "TensorDiagnosis": "diagnosis",
    "advise": "advice",
    "diagnose": "workflows",
    "open": "workflows:open_run",
    "open_profile": "workflows",
    "profile": "workflows",
    "quantize": "workflows",
    "resume": "workflows",
    "resume_sensitivity": "workflows.ranking",
    "resume_tuning": "workflows.tuning",
    "sensitivity": "workflows.ranking",
    "tune": "workflows.tuning",
    "verify": "advice",
}

__all__ = [
    "Calibration",
    "Diagnosis",
    "OpDiagnosis",
    "OpRule",
    "Preprocessing",
    "Profile",
    "QuantscopeError",
    "Recipe",
    "Samples",
    "Suggestion",
    "TensorDiagnosis",
    "advise",
    "diagnose",
    "open",
    "open_profile",
    "profile",
    "quantize",
    "resume",
    "resume_sensitivity",
    "resume_tuning",
    "sensitivity",
    "tune",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'quantscope' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(f"quantscope.{module}"), attribute or name)


def __dir__() -> list[str]:
    return __all__
