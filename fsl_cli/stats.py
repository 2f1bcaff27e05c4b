"""Numbers in, numbers out: what stands behind every `±`.

Seeds and episodes are two samples, crossed: each seed's run meets the same episodes. A mean over both has variance

    V = V_episodes + max(0, V_seeds - V_both)

with V_episodes the variance of the episodes' means (over the seeds) by their number, V_seeds the same of the seeds'
means, and V_both the part that both hold, from what is left of a two-way analysis of variance. Student's t has
Satterthwaite's degrees of freedom. So are readers and cases treated in radiology: Hillis, Statistics in Medicine 26
(2007), https://doi.org/10.1002/sim.2532. A bootstrap of two or three seeds promises 95% and holds 75% to 86%
(tests/test_stats.py draws both).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

Column = Sequence[float]  # a run's metric, episode by episode
DIGITS = 9  # of a difference; further digits are rounding errors of float
LEVEL = 0.05  # of every test; its complement is the intervals'
POWER = 0.8
MOST_EPISODES = 10_000_000
MOST_SEEDS = 1000


class Spread(NamedTuple):
    """The variance of a mean over seeds and episodes, or of a difference of two such, by where it comes from."""

    episodes: float
    met: int  # how many episodes
    seeds: tuple[tuple[float, int], ...]  # of each side with several: its part, and how many seeds
    both: float  # what the two parts above hold twice

    def variance(self) -> float:
        return self.episodes + max(0.0, sum(part for part, _ in self.seeds) - self.both)

    def freedom(self) -> float:
        """Satterthwaite's degrees of freedom."""
        parts = [(self.episodes, self.met), *(self.seeds if self.variance() > self.episodes else ())]
        below = sum(part**2 / (count - 1) for part, count in parts)
        return self.variance() ** 2 / below if below else math.inf

    def with_episodes(self, count: int) -> Spread:
        """The spread that would be seen with so many episodes."""
        return self._replace(episodes=self.episodes * self.met / count, met=count)

    def with_seeds(self, count: int) -> Spread:
        """The spread that would be seen with so many seeds on each side that has several."""
        now = max(seeds for _, seeds in self.seeds)
        both = self.both * now / count
        parts = tuple((part * seeds / count, count) for part, seeds in self.seeds)
        return Spread(max(0.0, self.episodes - self.both) + both, self.met, parts, both)


class Difference(NamedTuple):
    """How two sides differ, each of one run or of several seeds, on the same episodes."""

    episodes: int
    seeds: tuple[int, int]  # runs of the first side and of the second
    mean: float  # of the first less the second
    interval: float  # half the width of its 95% interval; nan where the values are not all finite
    p: float  # of the t-test that goes with the interval, two-sided: below 0.05 where it excludes zero
    wilcoxon: float | None  # p of the signed-rank test over the episodes; None where a side has several seeds
    needed: (
        int | None
    )  # where it is not told apart: episodes that would show it with a power of 80%, if any number would
    needed_seeds: int | None  # where no number of episodes would: seeds a side that would

    @property
    def told_apart(self) -> bool:
        return abs(self.mean) > self.interval


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
    count = len(values)
    return _quantile(count - 1) * stdev(values) / math.sqrt(count)


def both_interval(runs: Sequence[Column]) -> float:
    """Half the width of the 95% interval of a mean over seeds and episodes; of one run, over the episodes alone."""
    if len(runs) == 1:
        return mean_interval(runs[0])[1]
    found = spread(runs)
    return _quantile(found.freedom()) * math.sqrt(found.variance())


def compare(first: Sequence[Column], second: Sequence[Column]) -> Difference:
    """Two sides of one or more seeds; first[i][e] and second[j][e] are of the same episode, two or more in number."""
    a, b = (np.asarray(side, dtype=np.float64) for side in (first, second))  # (seeds, episodes)
    seeds, episodes = (len(a), len(b)), a.shape[1]
    mean = float(a.mean() - b.mean())
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Difference(episodes, seeds, mean, math.nan, math.nan, None, None, None)
    found = spread(first, second)
    error, freedom = math.sqrt(found.variance()), found.freedom()
    signed = _wilcoxon(a[0] - b[0]) if seeds == (1, 1) else None
    interval = _quantile(freedom) * error if error else 0.0
    unsure = mean != 0 and abs(mean) <= interval
    more = _episodes_needed(found, abs(mean)) if unsure else None
    others = _seeds_needed(found, abs(mean)) if unsure and more is None and len(found.seeds) == 2 else None
    return Difference(episodes, seeds, mean, interval, _p(mean, error, freedom), signed, more, others)


def spread(first: Sequence[Column], second: Sequence[Column] = ()) -> Spread:
    """How much the mean of `first`, minus that of `second` if given, varies; needs at least two episodes."""
    sides = [np.asarray(side, dtype=np.float64) for side in (first, second) if len(side)]  # (seeds, episodes)
    means = [side.mean(0) for side in sides]
    column = means[0] - means[1] if len(means) > 1 else means[0]
    count, seeds, both = len(column), [], 0.0
    for side, mean in zip(sides, means, strict=True):
        runs = len(side)
        if runs > 1:
            seeds.append((float(side.mean(1).var(ddof=1)) / runs, runs))
            left = side - side.mean(1, keepdims=True) - mean + side.mean()
            both += float((left**2).sum()) / ((runs - 1) * (count - 1)) / (runs * count)
    return Spread(float(column.var(ddof=1)) / count, count, tuple(seeds), both)


def power(found: Spread, size: float) -> float:
    """How probably the interval excludes zero, on the right side of it, where the true difference is `size` > 0."""
    from scipy.stats import nct, norm

    error, freedom = math.sqrt(found.variance()), found.freedom()
    if not error:
        return 1.0
    edge, shift = _quantile(freedom), size / error
    return float(norm.sf(edge - shift) if freedom > 1e4 or shift > 30 else nct.sf(edge, freedom, shift))


def _episodes_needed(found: Spread, size: float) -> int | None:
    return _least(lambda count: power(found.with_episodes(count), size), 2, MOST_EPISODES)


def _seeds_needed(found: Spread, size: float) -> int | None:
    return _least(lambda count: power(found.with_seeds(count), size), 2, MOST_SEEDS)


def _least(power_of: Callable[[int], float], low: int, high: int) -> int | None:
    """The least number that has the power; None where `high` has not."""
    if power_of(high) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= POWER else (middle + 1, high)
    return low


def _quantile(freedom: float) -> float:
    from scipy.special import stdtrit

    return 1.959964 if math.isinf(freedom) else float(stdtrit(freedom, 1 - LEVEL / 2))


def _p(mean: float, error: float, freedom: float) -> float:
    from scipy.special import stdtr

    if not error:
        return 0.0 if mean else 1.0
    return 2 * float(stdtr(min(freedom, 1e9), -abs(mean) / error))


def _wilcoxon(differences: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    from scipy.stats import wilcoxon

    # accuracies are counts over a count: 8/75 - 7/75 and 3/75 - 2/75 are one size, and must be a tie in the ranks too
    rounded = differences.round(DIGITS)
    return float(wilcoxon(rounded, method="approx").pvalue) if rounded.any() else 1.0


ENDINGS = {1: "st", 2: "nd", 3: "rd"}


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 22nd"""
    last = 0 if number % 100 in (11, 12, 13) else number % 10
    return f"{number}{ENDINGS.get(last, 'th')}"
