"""Accumulators that update and merge, and the metrics that follow from their sums."""

from quantscope.statistics.budget import BudgetAccumulator, ErrorBudget
from quantscope.statistics.channels import ChannelAccumulator, ChannelStatistics
from quantscope.statistics.histogram import Histogram, shared_bins
from quantscope.statistics.pair import ErrorStatistics, PairStatistics, RoundingStatistics
from quantscope.statistics.tensor import TensorStatistics

__all__ = [
    "BudgetAccumulator",
    "ChannelAccumulator",
    "ChannelStatistics",
    "ErrorBudget",
    "ErrorStatistics",
    "Histogram",
    "PairStatistics",
    "RoundingStatistics",
    "TensorStatistics",
    "shared_bins",
]
