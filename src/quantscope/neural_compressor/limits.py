"""What of Neural Compressor's options quantscope lacks, by name: errors where the model would differ, else warnings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quantscope.errors import QuantscopeError, RecipeError, UnsupportedError

if TYPE_CHECKING:
    from quantscope.neural_compressor.config import BenchmarkConfig, PostTrainingQuantConfig, TuningCriterion

_FORMATS = ("default", "QDQ", "QOperator")
_DOMAINS = ("auto", "cv", "object_detection", "nlp", "recommendation_system")
_PRECISIONS = ("bf16", "fp16")
_LEVELS = ("auto", 0, 1)
_MEASURED = "something else would be measured"

# recipes: the values that quantscope does as well; anything else is an error.
_RECIPES: Mapping[str, tuple[Any, ...]] = {
    "smooth_quant": (False, None),
    "layer_wise_quant": (False, None, True),
    "fast_bias_correction": (False, None),
    "weight_correction": (False, None),
    "gemm_to_matmul": (False, None, True),
    "graph_optimization_level": (None, "ENABLE_BASIC"),
    "first_conv_or_matmul_quantization": (True, None, False),
    "last_conv_or_matmul_quantization": (True, None, False),
    "pre_post_process_quantization": (True, None, False),
    "add_qdq_pair_to_weight": (False, None),
    "optypes_to_exclude_output_quant": (None, []),
    "dedicated_qdq_pair": (False, None),
    "rtn_args": (None, {}),
    "awq_args": (None, {}),
    "gptq_args": (None, {}),
    "teq_args": (None, {}),
}
# Arguments of a method that is not asked for, or that does not change the result.
_ARGUMENTS_OF = {"smooth_quant_args": "smooth_quant", "layer_wise_quant_args": "layer_wise_quant"}


class CompatibilityWarning(UserWarning):
    """An option of Neural Compressor that quantscope lacks, and that changes neither the model nor what is measured."""


def check(config: PostTrainingQuantConfig) -> None:
    """Raise an error for the first option that means nothing, or without which the model would be another one.

    Raises:
        RecipeError, UnsupportedError: with the option's name and what is accepted.
    """
    if "static" not in config.approach:
        _known("approach", config.approach, ("dynamic", "auto", "weight_only"), "post_training_dynamic_quant")
        raise _lacking("approach", config.approach, "static")
    if config.device != "cpu":
        raise _lacking("device", config.device, "cpu")
    if config.backend != "default":
        raise _lacking("backend", config.backend, "default: ONNX Runtime on the CPU")
    _known("quant_format", config.quant_format, _FORMATS)
    _known("domain", config.domain, _DOMAINS)
    _known("quant_level", config.quant_level, _LEVELS)
    for precision in config.excluded_precisions:
        _known("excluded_precisions", precision, _PRECISIONS)
    sampling_sizes(config.calibration_sampling_size)
    _check_recipes(config.recipes)


def sampling_sizes(sizes: int | Sequence[int]) -> tuple[int, ...]:
    """The calibration sizes to choose from.

    Raises:
        RecipeError: there is none, or one is not a number of samples.
    """
    found = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    if not found or any(not isinstance(size, int) or size < 1 for size in found):
        raise RecipeError(f"calibration_sampling_size is {sizes!r}", accepted="a number of samples from 1, or a list")
    return found


def warn(config: PostTrainingQuantConfig) -> None:
    """Warn of each option that is only about tuning, or about another framework."""
    sizes = sampling_sizes(config.calibration_sampling_size)
    for name, odd, why in (
        ("inputs", bool(config.inputs), "the model's own inputs are taken"),
        ("outputs", bool(config.outputs), "the model's own outputs are taken"),
        ("example_inputs", config.example_inputs is not None, "it is for PyTorch"),
        ("domain", config.domain != "auto", "it picks settings for other frameworks and for fused transformers"),
        ("quant_level", config.quant_level == 0, "quantscope tunes in one way: from all ops quantized to fewer"),
        ("calibration_sampling_size", len(sizes) > 1, f"a choice to tune: {sizes[0]} is taken"),
    ):
        if odd:
            _warn(f"{name}={getattr(config, name)!r} changes nothing here: {why}")
    if config.recipes.get("layer_wise_quant"):
        _warn("recipes['layer_wise_quant'] changes nothing here: weights never are in memory twice")
    if config.recipes.get("gemm_to_matmul"):
        _warn("recipes['gemm_to_matmul'] changes nothing here: a Gemm is quantized as it is, under its own name")


def warn_of_tuning(criterion: TuningCriterion) -> None:
    """Warn of each setting of a way to tune that quantscope does not have."""
    given = criterion.objective
    objective = given if isinstance(given, str) else given[0] if isinstance(given, list) and len(given) == 1 else given
    for name, odd in (
        ("strategy", criterion.strategy != "basic"),
        ("strategy_kwargs", bool(criterion.strategy_kwargs)),
        ("objective", objective != "performance"),
    ):
        if odd:
            _warn(f"{name}={getattr(criterion, name)!r} changes nothing here: quantscope tunes in one way")


def check_benchmark(config: BenchmarkConfig) -> None:
    """Raise an error for the first option that means nothing, or without which something else would be measured.

    Raises:
        RecipeError, UnsupportedError: with the option's name and what is accepted.
    """
    if config.device != "cpu":
        raise _lacking("device", config.device, "cpu", _MEASURED)
    if config.backend != "default":
        raise _lacking("backend", config.backend, "default: ONNX Runtime on the CPU", _MEASURED)
    if config.num_of_instance != 1:
        raise _lacking("num_of_instance", config.num_of_instance, "1", _MEASURED)
    for name, least in (("warmup", 0), ("cores_per_instance", 1), ("intra_num_of_threads", 1)):
        value = getattr(config, name)
        if value is not None and (not isinstance(value, int) or value < least):
            raise RecipeError(f"{name} is {value!r}", accepted=f"a whole number from {least}")
    if not isinstance(config.iteration, int) or (config.iteration < 1 and config.iteration != -1):
        raise RecipeError(f"iteration is {config.iteration!r}", accepted="1 or more, or -1 for the batches once")


def warn_of_benchmark(config: BenchmarkConfig) -> None:
    """Warn of each option that changes nothing here."""
    for name, odd, why in (
        ("inputs", bool(config.inputs), "the model's own inputs are taken"),
        ("outputs", bool(config.outputs), "the model's own outputs are taken"),
        ("model_name", bool(config.model_name), "it is for TensorFlow"),
        ("inter_num_of_threads", config.inter_num_of_threads not in (None, 1), "one op runs after the other"),
    ):
        if odd:
            _warn(f"{name}={getattr(config, name)!r} changes nothing here: {why}")


def _check_recipes(recipes: Mapping[str, Any]) -> None:
    if not isinstance(recipes, Mapping):
        raise RecipeError(f"recipes is {type(recipes).__name__}", accepted="a dictionary")
    for name, value in recipes.items():
        if name in _ARGUMENTS_OF:
            continue
        if name not in _RECIPES:
            raise RecipeError(f"unknown entry in recipes: {name!r}", accepted=", ".join((*_RECIPES, *_ARGUMENTS_OF)))
        if not any(value is known or value == known for known in _RECIPES[name]):
            accepted = " or ".join(repr(known) for known in _RECIPES[name] if known is not None)
            raise _lacking(f"recipes[{name!r}]", value, accepted)


def _known(name: str, value: object, known: Sequence[object], *others: object) -> None:
    if not any(value == one and type(value) is type(one) for one in (*known, *others)):
        raise RecipeError(f"{name} is {value!r}", accepted=", ".join(map(str, known)))


def _lacking(
    name: str, value: object, accepted: str, without: str = "the model would be another one"
) -> QuantscopeError:
    return UnsupportedError(
        f"{name}={value!r} of Neural Compressor has no equivalent in quantscope, and {without}",
        accepted=accepted,
        next_step=f"take {name} out, and see docs/neural-compressor.md",
    )


def _warn(text: str) -> None:
    # From here through the check, the class's __post_init__ and its __init__ to the line that made the configuration.
    warnings.warn(text, CompatibilityWarning, stacklevel=5)
