"""`quantization.fit` of Neural Compressor 2.x: calibrate, quantize, tune until the accuracy is met, diagnose."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from quantscope.errors import DataError, UnsupportedError
from quantscope.evaluation import Score
from quantscope.fallback.search import WEIGHTS_PER_CHANNEL, Criterion, Move, Search, Trial, Tuner, calibrated
from quantscope.neural_compressor import limits, loaders
from quantscope.neural_compressor.accuracy import Evaluate, evaluation
from quantscope.neural_compressor.config import PostTrainingQuantConfig
from quantscope.neural_compressor.diagnosing import diagnosed, free_run, show
from quantscope.neural_compressor.limits import CompatibilityWarning
from quantscope.neural_compressor.model import QuantizedModel
from quantscope.neural_compressor.source import Source
from quantscope.neural_compressor.translation import recipe_of
from quantscope.recipe import Calibration, CalibrationMethod, Recipe

logger = logging.getLogger("quantscope.neural_compressor")

_METHODS: dict[str, CalibrationMethod] = {"minmax": "minmax", "kl": "entropy", "percentile": "percentile"}


class AccuracyWarning(UserWarning):
    """The quantized model does not meet the accuracy criterion."""


def fit(
    model: object,
    conf: PostTrainingQuantConfig,
    calib_dataloader: Any = None,
    calib_func: Any = None,
    eval_func: Callable[[Any], Any] | None = None,
    eval_dataloader: Any = None,
    eval_metric: Any = None,
    **others: Any,
) -> QuantizedModel:
    """Return the quantized model; where the accuracy criterion cannot be met, the best one, with a warning.

    Args:
        model: the path of an ONNX, LiteRT or TensorFlow model, a `ModelProto`, or a Keras model; it stays as it is.
        conf: how to quantize, tune and diagnose.
        calib_dataloader: gives batches (inputs, labels); the first `calibration_sampling_size` samples calibrate.
        eval_func: gets a `ModelProto`, or the bytes of a .tflite file, and returns its accuracy; with it the model is
            tuned.
        eval_dataloader, eval_metric: the same from batches and a metric; both or neither.
    Raises:
        QuantscopeError: one of its subclasses, with what is accepted instead. What `eval_func` raises comes through.
    """
    _refuse(calib_func, others)
    if not isinstance(conf, PostTrainingQuantConfig):
        raise DataError(
            f"conf is {type(conf).__name__}", accepted="quantscope.neural_compressor.PostTrainingQuantConfig"
        )
    limits.check(conf)
    loader = loaders.checked(calib_dataloader, "calib_dataloader")
    source = Source.of(model, loader, conf.calibration_samples)
    evaluate = evaluation(source, eval_func, eval_dataloader, eval_metric)
    idle = {"eval_metric": eval_metric, "eval_dataloader": None if conf.diagnosis else eval_dataloader}
    for name in [name for name, given in idle.items() if eval_func is not None and given is not None]:
        warnings.warn(f"{name} changes nothing here: there is an eval_func", CompatibilityWarning, stacklevel=2)
    recipe, notes = recipe_of(conf, source.backend, source.reference, source.quantizer.prepared)
    for note in notes:
        warnings.warn(note, CompatibilityWarning, stacklevel=2)
    run = free_run(conf.ni_workload_name) if conf.diagnosis else None
    tuning = _tuned(conf, source, recipe, evaluate) if evaluate is not None else None
    if tuning is not None:
        recipe = tuning.best.recipe
        if not tuning.met:
            missed = f"the accuracy criterion is not met, and the best model is returned. {tuning.summary}"
            warnings.warn(missed, AccuracyWarning, stacklevel=2)
    quantized = source.quantizer.quantized(recipe)
    for note in quantized.notes:
        logger.warning("%s", note)
    diagnosis = None
    if run is not None:
        diagnosis = diagnosed(source, quantized, eval_dataloader, run)
        show(diagnosis, tuning.summary if tuning is not None else "")
    return QuantizedModel(quantized, recipe, tuning=tuning, diagnosis=diagnosis)


def _tuned(conf: PostTrainingQuantConfig, source: Source, recipe: Recipe, evaluate: Evaluate) -> Search:
    """What tuning finds: the configuration, then what it leaves open, then ops in float."""
    baseline = evaluate(source.reference)
    logger.info("accuracy of the float model: %.6g", baseline)
    wanted, quantizer = conf.accuracy_criterion, source.quantizer

    def evaluated(recipe: Recipe) -> tuple[Score, float]:
        accuracy = evaluate(quantizer.quantized(recipe))
        score = Score("accuracy", None, baseline, accuracy, higher_is_better=wanted.higher_is_better)
        return score, quantizer.share(recipe)

    def note(trial: Trial) -> None:
        number = len(tuner.trials)
        logger.info("trial %d: %s: accuracy %.6g, float %.6g", number, trial.change, trial.score.quantized, baseline)

    tuner = Tuner(
        Criterion(wanted.tolerable_loss, wanted.criterion == "relative"), evaluated, source.ranked,
        _open_moves(conf, recipe), conf.tuning.max_trials, conf.tuning.timeout or math.inf, note=note,
    )  # fmt: skip
    return tuner.search(recipe)


def _open_moves(conf: PostTrainingQuantConfig, recipe: Recipe) -> list[Move]:
    """What tuning may change: what the entry for all op types leaves open, or gives as a list of several."""
    entry = (conf.op_type_dict or {}).get(".*", {})
    activations = entry.get("activation") or entry.get("activations") or {}
    weights = entry.get("weight") or entry.get("weights") or {}
    algorithms = _listed(activations.get("algorithm", list(_METHODS)))
    methods = [_METHODS[name] for name in algorithms if name in _METHODS]
    moves = [calibrated(Calibration(method, recipe.calibration.percentile)) for method in methods]
    if "per_channel" in _listed(weights.get("granularity", "per_channel")):
        moves.append(WEIGHTS_PER_CHANNEL)
    return moves


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _refuse(calib_func: Any, others: dict[str, Any]) -> None:
    unknown = {"calib_func": calib_func, **others} if calib_func is not None else others
    if unknown:
        raise UnsupportedError(
            f"{', '.join(unknown)} of fit has no equivalent in quantscope",
            accepted="calib_dataloader, eval_func, eval_dataloader, eval_metric",
            next_step="give the samples to calibrate with as calib_dataloader",
        )
