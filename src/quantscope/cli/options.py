"""Options that several commands share, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from quantscope.errors import DataError, RecipeError

if TYPE_CHECKING:
    from quantscope.images import Preprocessing
    from quantscope.recipe import Recipe

FLOAT_MODEL = "The float model: an .onnx or .tflite file; or TensorFlow's SavedModel folder, .keras, .h5 or .pb file."

_SAMPLES, _PHOTOS, _RECIPE, _RUN, _TABLES = "Samples", "Photos", "Quantization", "Run", "Output"

Data = Annotated[
    str | None,
    typer.Option(
        "--data", "-d", metavar="SOURCE", rich_help_panel=_SAMPLES,
        help="A folder of photos, an .npz or .npy file, or a function: package.module:function.",
    ),
]  # fmt: skip
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels", rich_help_panel=_SAMPLES,
        help='Labels: for photos a list of "file label" lines, else an .npy or text file.',
    ),
]  # fmt: skip
SampleCount = Annotated[
    int | None,
    typer.Option("--samples", "-n", metavar="N", rich_help_panel=_SAMPLES, help="Evaluate N samples. [default: all]"),
]
CalibrationSamples = Annotated[
    int | None,
    typer.Option(
        "--calibration-samples", metavar="N", rich_help_panel=_SAMPLES,
        help="Calibrate with the first N samples; the rest are evaluated. [default: 50, at most half]",
    ),
]  # fmt: skip
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N",
        rich_help_panel=_SAMPLES,
        help="Samples per inference. [default: the model's, or 1]",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric", rich_help_panel=_SAMPLES,
        help="top1, top5, agreement, cosine, mse, or package.module:function. [default: by outputs and labels]",
    ),
]  # fmt: skip

Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        rich_help_panel=_PHOTOS,
        help="imagenet-torch, imagenet-caffe or imagenet-tf; options below override.",
    ),
]
Resize = Annotated[
    int | None,
    typer.Option("--resize", metavar="PIXELS", rich_help_panel=_PHOTOS, help="Resize the short side."),
]
Crop = Annotated[
    str | None,
    typer.Option("--crop", metavar="N or HxW", rich_help_panel=_PHOTOS, help="Crop from the centre."),
]
Size = Annotated[
    str | None,
    typer.Option("--size", metavar="HxW", rich_help_panel=_PHOTOS, help="Resize to exactly this, whatever the shape."),
]
Scale = Annotated[
    str | None,
    typer.Option("--scale", rich_help_panel=_PHOTOS, help="Factor for pixels before mean and std, such as 1/255."),
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", metavar="M[,M,M]", rich_help_panel=_PHOTOS, help="Subtracted, in channel order."),
]
Std = Annotated[
    str | None,
    typer.Option("--std", metavar="S[,S,S]", rich_help_panel=_PHOTOS, help="Divided by, in channel order."),
]
Channels = Annotated[
    str | None, typer.Option("--channels", rich_help_panel=_PHOTOS, help="Channel order: rgb, bgr or gray.")
]
Layout = Annotated[str | None, typer.Option("--layout", rich_help_panel=_PHOTOS, help="Axis order: nchw or nhwc.")]

RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe", metavar="FILE", rich_help_panel=_RECIPE,
        help="What each op shall get, a TOML file. --fallback and --fallback-type add to it; the other options here "
        "are what it says.",
    ),
]  # fmt: skip
Format = Annotated[
    Literal["qdq", "qoperator"],
    typer.Option("--format", rich_help_panel=_RECIPE, help="Form of the quantized model."),
]
PerChannel = Annotated[
    bool,
    typer.Option("--per-channel/--per-tensor", rich_help_panel=_RECIPE, help="Weights: a scale per channel, or one."),
]
Equalize = Annotated[
    bool,
    typer.Option(
        "--equalize", rich_help_panel=_RECIPE, help="Scale channels of adjacent ops to like ranges first."
    ),
]  # fmt: skip
Activations = Annotated[
    Literal["uint8", "int8", "uint16", "int16"],
    typer.Option("--activations", rich_help_panel=_RECIPE, help="Type of activations."),
]
Weights = Annotated[
    Literal["int8", "uint8", "int4", "uint4", "int16", "uint16"],
    typer.Option("--weights", rich_help_panel=_RECIPE, help="Type of weights."),
]
Symmetric = Annotated[
    bool,
    typer.Option("--symmetric", rich_help_panel=_RECIPE, help="Activation ranges symmetric around zero."),
]
CalibrationMethod = Annotated[
    Literal["minmax", "percentile", "entropy", "mse"],
    typer.Option("--calibration", rich_help_panel=_RECIPE, help="How ranges are taken from the samples."),
]
Percentile = Annotated[
    float, typer.Option("--percentile", rich_help_panel=_RECIPE, help="Share of values kept, for percentile.")
]
Fallback = Annotated[
    list[str] | None,
    typer.Option(
        "--fallback",
        metavar="OP",
        rich_help_panel=_RECIPE,
        help="Leave this op in float: name or glob. Repeat.",
    ),
]
FallbackType = Annotated[
    list[str] | None,
    typer.Option(
        "--fallback-type",
        metavar="TYPE",
        rich_help_panel=_RECIPE,
        help="Leave this op type in float. Repeat.",
    ),
]
OpType = Annotated[
    list[str] | None,
    typer.Option("--op-type", metavar="TYPE", rich_help_panel=_RECIPE, help="Quantize only this op type. Repeat."),
]
ReduceRange = Annotated[
    bool,
    typer.Option("--reduce-range", rich_help_panel=_RECIPE, help="7-bit weights, for processors without VNNI."),
]

Trace = Annotated[
    Literal["deployed", "simulated", "both"],
    typer.Option(
        "--trace", rich_help_panel=_RUN,
        help="Look at the kernels that really run, at the quantization simulated in float, or at both.",
    ),
]  # fmt: skip
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory", metavar="SIZE", rich_help_panel=_RUN,
        help="Tensors held at once, such as 2GiB; more passes are made where a batch does not fit. "
        "[default: 40 % of what is free]",
    ),
]  # fmt: skip
Workers = Annotated[
    int,
    typer.Option("--workers", metavar="N", rich_help_panel=_RUN, help="Processes that share the samples."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler", metavar="ADDRESS", rich_help_panel=_RUN,
        help="A Dask cluster whose workers share the samples, such as tcp://host:8786.",
    ),
]  # fmt: skip
BudgetSamples = Annotated[
    int | None,
    typer.Option(
        "--budget-samples", metavar="N", rich_help_panel=_RUN,
        help="Samples for the isolated errors, the error budgets and the figures per channel; 0 for none. "
        "[default: 4 to 64, by the size of the tensors]",
    ),
]  # fmt: skip
Threads = Annotated[
    int, typer.Option("--threads", metavar="N", rich_help_panel=_RUN, help="Threads; 0 means all cores.")
]
Top = Annotated[int, typer.Option("--top", metavar="N", rich_help_panel=_TABLES, help="Rows to show of each table.")]
All = Annotated[bool, typer.Option("--all", rich_help_panel=_TABLES, help="Show all rows.")]
DEFAULT_SORT = "output_error_share"
Sort = Annotated[
    str,
    typer.Option(
        "--sort", metavar="COLUMN", rich_help_panel=_TABLES,
        help="Order of both tables, worst first: output_error_share, sqnr_db, mse, isolated_sqnr_db, max, … or order.",
    ),
]  # fmt: skip
Json = Annotated[
    bool,
    typer.Option("--json", rich_help_panel=_TABLES, help="Print the whole document as JSON and nothing else."),
]


def check_sort(column: str) -> None:
    """Raise a DataError if tables cannot be sorted by this column."""
    from quantscope.diagnosis import sortable_columns

    if column not in sortable_columns():
        raise DataError(f"cannot sort by {column!r}", accepted=", ".join(sortable_columns()))


def check_top(top: int) -> None:
    """Raise a DataError if so many rows cannot be shown."""
    if top < 0:
        raise DataError(f"--top {top}", accepted="0 or more")


@dataclass(frozen=True)
class Photos:
    """How photos become arrays."""

    preset: Preset = None
    resize: Resize = None
    crop: Crop = None
    size: Size = None
    scale: Scale = None
    mean: Mean = None
    std: Std = None
    channels: Channels = None
    layout: Layout = None

    def preprocessing(self) -> Preprocessing | None:
        """The preset with what the other options override; None if no option is given.

        Raises:
            DataError: an option's value means nothing.
        """
        from quantscope.images import PRESETS, Preprocessing

        given: dict[str, Any] = {
            "resize": self.resize,
            "crop": _pixels(self.crop, "--crop") if self.crop else None,
            "size": _pair(self.size, "--size") if self.size else None,
            "scale": _number(self.scale, "--scale") if self.scale else None,
            "mean": _numbers(self.mean, "--mean") if self.mean else None,
            "std": _numbers(self.std, "--std") if self.std else None,
            "channels": self.channels,
            "layout": self.layout,
        }
        given = {key: value for key, value in given.items() if value is not None}
        if self.preset is None:
            return Preprocessing(**given) if given else None
        if self.preset not in PRESETS:
            raise DataError(f"unknown preset {self.preset!r}", accepted=", ".join(PRESETS))
        if "size" in given:
            given = {"resize": None, "crop": None, **given}
        return replace(PRESETS[self.preset], **given)


@dataclass(frozen=True)
class Quantization:
    """What each op shall get."""

    recipe_file: RecipeFile = None
    format: Format = "qdq"
    per_channel: PerChannel = True
    equalize: Equalize = False
    activations: Activations = "uint8"
    weights: Weights = "int8"
    symmetric: Symmetric = False
    calibration: CalibrationMethod = "minmax"
    percentile: Percentile = 99.99
    fallback: Fallback = None
    fallback_type: FallbackType = None
    op_type: OpType = None
    reduce_range: ReduceRange = False

    def recipe(self, context: typer.Context) -> Recipe:
        """The recipe that the options describe, or that of the file with the fallbacks added.

        Raises:
            RecipeError: they contradict each other or the file, which `context` tells.
        """
        from quantscope.qparams import PerChannel, PerTensor, QuantSpec
        from quantscope.recipe import Calibration, OpRule, Recipe

        by_type = (OpRule(selector, "type") for selector in self.fallback_type or ())
        rules = (*map(OpRule, self.fallback or ()), *by_type)
        if self.recipe_file is not None:
            _check_alone(context)
            loaded = Recipe.load(self.recipe_file)
            return replace(loaded, rules=(*loaded.rules, *rules))
        granularity = PerChannel(0) if self.per_channel else PerTensor()
        return Recipe(
            format=self.format,
            activations=QuantSpec.from_dtype(self.activations, symmetric=self.symmetric),
            weights=QuantSpec.from_dtype(
                self.weights, symmetric=self.weights.startswith("int"), granularity=granularity
            ),
            op_types=tuple(self.op_type) if self.op_type else None,
            rules=rules,
            calibration=Calibration(self.calibration, self.percentile),
            reduce_range=self.reduce_range,
            equalize=self.equalize,
        )


# What commands get where no option is given.
ARRAYS, INT8 = Photos(), Quantization()


def _check_alone(context: typer.Context) -> None:
    """Raise a RecipeError if there are options beside --recipe that a recipe holds, or there is nothing to quantize."""
    if context.params.get("quantized") is not None:
        raise RecipeError("both a quantized model and --recipe are given", accepted="one of them")
    names = ("format", "per_channel", "activations", "weights", "symmetric", "calibration", "percentile", "op_type",
             "reduce_range", "equalize")  # fmt: skip
    given = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            given.append("/".join((*parameter.opts, *parameter.secondary_opts)))
    if given:
        raise RecipeError(
            f"--recipe and {', '.join(given)} are given: they say the same of the recipe",
            accepted="--recipe alone, or with --fallback and --fallback-type",
            next_step="write into the recipe what the option says",
        )


def _number(text: str, option: str) -> float:
    try:
        return float(Fraction(text.strip()))
    except (ValueError, ZeroDivisionError):
        raise DataError(f"{option} {text!r}", accepted="a number or a fraction, such as 0.5 or 1/255") from None


def _numbers(text: str, option: str) -> tuple[float, ...]:
    return tuple(_number(part, option) for part in text.split(","))


def _pair(text: str, option: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) == 1:
        parts *= 2
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise DataError(f"{option} {text!r}", accepted="N or HxW, such as 224 or 48x320")
    return int(parts[0]), int(parts[1])


def _pixels(text: str, option: str) -> int | tuple[int, int]:
    height, width = _pair(text, option)
    return height if height == width else (height, width)
