"""Numbers in, numbers out: what stands behind every `±`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

DIGITS = 9  # of a difference that count: what is beyond is the rounding of float


class Difference(NamedTuple):
    """How two columns of paired numbers differ."""

    episodes: int
    mean: float  # of the first less the second
    interval: float  # half the width of its 95% interval
    p: float  # of Wilcoxon's signed-rank test, two-sided; 1 where no pair differs
    needed: int | None  # pairs for which a difference of this size would leave its interval; None where it is zero


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95% interval: 1.96 * sample standard deviation / sqrt(n).

    A single value has no interval, nor have values that are not all finite: it is then nan.
    """
    known = len(values) > 1 and all(map(math.isfinite, values))
    return fmean(values), 1.96 * stdev(values) / math.sqrt(len(values)) if known else math.nan


def share_interval(hits: int, total: int) -> tuple[float, float]:
    """The 95% interval of a share by Wilson (1927), which has a width where all or none hit, too."""
    share, z = hits / total, 1.96
    middle, half = share + z**2 / (2 * total), z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    return (middle - half) / (1 + z**2 / total), (middle + half) / (1 + z**2 / total)


def seeds_interval(values: Sequence[float]) -> float:
    """Half the width of the 95% interval of a mean over two or more seeds, by Student's t: seeds are few."""
    from scipy.special import stdtrit

    count = len(values)
    return float(stdtrit(count - 1, 0.975)) * stdev(values) / math.sqrt(count)


def compare(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Paired: first[i] and second[i] are of the same episode."""
    from scipy.stats import wilcoxon

    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean, interval = mean_interval(differences)
    # accuracies are counts over a count: 8/75 - 7/75 and 3/75 - 2/75 are one size, and must be a tie in the ranks too
    rounded = [round(difference, DIGITS) for difference in differences]
    p = float(wilcoxon(rounded, method="approx").pvalue) if any(rounded) else 1.0
    needed = math.ceil((1.96 * stdev(differences) / mean) ** 2) + 1 if mean else None
    return Difference(len(differences), mean, interval, p, needed)
