"""The statistics: by hand, and what they promise in simulations, seeded."""

from __future__ import annotations

import math
from statistics import stdev

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import ttest_rel

from fsl_cli.stats import POWER, Spread, both_interval, compare, mean_interval, power, spread

Sides = tuple[np.ndarray, np.ndarray]


def drawn(rng: np.random.Generator, seeds: int, episodes: int, of_seeds: float, ahead: float = 0.0) -> Sides:
    """Two methods on the same episodes, some harder than others, some harder for one of them."""
    hard = rng.normal(0.7, 0.1, episodes)
    first, second = (
        hard
        + rng.normal(0, 0.05, episodes)
        + rng.normal(0, of_seeds, (seeds, 1))
        + rng.normal(0, 0.05, (seeds, episodes))
        for _ in range(2)
    )
    return first + ahead, second


def test_one_run_a_side_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    a, b = drawn(rng, 1, 40, 0)
    found, theirs = compare(a, b), ttest_rel(a[0], b[0])
    low, high = theirs.confidence_interval()
    assert (found.mean - found.interval, found.mean + found.interval) == pytest.approx((low, high))
    assert found.p == pytest.approx(theirs.pvalue) and found.episodes == 40 and found.seeds == (1, 1)


def test_the_parts_of_the_variance_by_hand() -> None:
    a = [[0.9, 0.8, 0.7], [0.7, 0.8, 0.3]]
    found = spread(a)
    assert found.episodes == pytest.approx(stdev([0.8, 0.8, 0.5]) ** 2 / 3)
    [(part, runs)] = found.seeds
    assert (part, runs) == (pytest.approx(stdev([0.8, 0.6]) ** 2 / 2), 2)
    left = [[0.0, -0.1, 0.1], [0.0, 0.1, -0.1]]
    assert found.both == pytest.approx(sum(x * x for row in left for x in row) / (1 * 2) / 6)
    total = found.episodes + part - found.both
    assert found.variance() == pytest.approx(total)
    assert found.freedom() == pytest.approx(total**2 / (found.episodes**2 / 2 + part**2 / 1))


def test_without_seeds_that_differ_the_interval_is_that_of_the_episodes() -> None:
    column = [0.5, 0.7, 0.9, 0.4, 0.8]
    assert both_interval([column]) == mean_interval(column)[1]
    assert both_interval([column, column]) == pytest.approx(2.776445 / 1.96 * mean_interval(column)[1])


def test_equal_columns_do_not_differ_and_what_is_not_finite_is_not_told_apart() -> None:
    found = compare([[0.5, 0.6]], [[0.5, 0.6]])
    assert (found.mean, found.p, found.wilcoxon, found.needed, found.told_apart) == (0, 1, 1, None, False)
    certain = compare([[0.5, 0.6]], [[0.25, 0.35]])
    assert certain.told_apart and certain.p < 1e-9
    assert not compare([[math.inf, 0.6, 0.1]], [[0.5, 0.6, 0.2]]).told_apart


@pytest.mark.parametrize(("seeds", "of_seeds"), [(2, 0.05), (3, 0.002), (3, 0.05), (5, 0.01)])
def test_intervals_over_seeds_and_episodes_hold_what_they_promise(seeds: int, of_seeds: float) -> None:
    rng = np.random.default_rng(1)
    times = 500
    held = 0
    for _ in range(times):
        a, b = drawn(rng, seeds, 60, of_seeds)
        found = spread(a, b)
        held += abs(a.mean() - b.mean()) <= stdtrit(found.freedom(), 0.975) * math.sqrt(found.variance())
    assert 0.92 <= held / times <= 0.985  # 95% give or take three standard errors of 500 draws


def test_a_bootstrap_of_three_seeds_would_not() -> None:
    rng = np.random.default_rng(2)
    held, times, seeds = 0, 80, 3
    for _ in range(times):
        a, b = drawn(rng, seeds, 60, 0.05)
        chosen = rng.integers(seeds, size=(2, 100, seeds))
        again = [
            (a[i].mean(0) - b[j].mean(0))[e].mean()
            for i, j, e in zip(*chosen, rng.integers(60, size=(100, 60)), strict=True)
        ]
        low, high = np.quantile(again, [0.025, 0.975])
        held += low <= 0 <= high
    assert held / times < 0.92


@pytest.mark.parametrize("size", [0.3, 0.8])
def test_the_episodes_that_are_needed_show_the_difference_in_four_of_five_tries(size: float) -> None:
    """`size` in standard deviations of a difference; the draws are of that true size."""
    rng = np.random.default_rng(3)
    needed = next(n for n in range(2, 10_000) if power(Spread(1 / n, n, (), 0), size) >= POWER)
    assert (2.8016 / size) ** 2 <= needed <= (2.8016 / size) ** 2 + 4  # the normal formula, and Student's t beyond it
    tries = rng.normal(size, 1, (2000, needed))
    errors = tries.std(1, ddof=1) / math.sqrt(needed)
    shown = (tries.mean(1) > stdtrit(needed - 1, 0.975) * errors).mean()
    assert shown == pytest.approx(power(Spread(1 / needed, needed, (), 0), size), abs=0.03) and shown > POWER - 0.03


def test_needed_episodes_have_the_power_and_one_fewer_has_not() -> None:
    rng = np.random.default_rng(4)
    a, b = drawn(rng, 1, 50, 0)
    found = compare(a, b)
    assert found.needed is not None
    of_it = [power(spread(a, b).with_episodes(found.needed - less), abs(found.mean)) for less in (0, 1)]
    assert of_it[0] >= POWER > of_it[1]


def test_where_seeds_differ_more_episodes_do_not_help_and_more_seeds_do() -> None:
    rng = np.random.default_rng(6)
    needed = [compare(*drawn(rng, 3, 500, 0.05, 0.03)) for _ in range(10)]
    stuck = [found for found in needed if not found.told_apart and found.needed is None]
    assert stuck and all(found.needed_seeds is None or found.needed_seeds > 3 for found in stuck)
    assert any(found.needed_seeds for found in stuck)
    found = spread(*drawn(np.random.default_rng(7), 4, 500, 0.05))
    more = found.with_seeds(400)
    assert more.variance() < found.variance() / 10 and more.variance() >= found.episodes - found.both


def test_the_power_with_more_seeds_is_what_a_simulation_sees() -> None:
    rng = np.random.default_rng(8)
    planned = spread(*drawn(rng, 60, 200, 0.04)).with_seeds(6)  # 60 seeds tell the parts of the variance well
    size = 0.06
    shown = sum(
        found.told_apart and found.mean > 0 for found in (compare(*drawn(rng, 6, 200, 0.04, size)) for _ in range(300))
    )
    assert shown / 300 == pytest.approx(power(planned, size), abs=0.08)
