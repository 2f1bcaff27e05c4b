"""Numbers in, numbers out: what stands behind every `±`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95% interval: 1.96 * sample standard deviation / sqrt(n).

    A single value has no interval: it is then nan.
    """
    half = 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return fmean(values), half
