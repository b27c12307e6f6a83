"""The jobs, a file for each: every one reads like the drawing in the README, from what is given to what is found."""

from quantscope.workflows.diagnosis import diagnose, open_run, resume
from quantscope.workflows.profiling import open_profile, profile
from quantscope.workflows.quantization import quantize

__all__ = ["diagnose", "open_profile", "open_run", "profile", "quantize", "resume"]
