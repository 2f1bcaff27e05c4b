"""Two sides on the same episodes, in words that claim no more than was computed."""

from __future__ import annotations

from collections.abc import Sequence

from fsl_cli.errors import command
from fsl_cli.report.sides import Side
from fsl_cli.runs.records import UNFINISHED
from fsl_cli.runs.wording import score_text
from fsl_cli.stats import LEVEL, POWER, Difference, both_interval

LISTED = 6  # commands that are written out


def lines(a: Side, b: Side, found: Difference) -> list[str]:
    """A line for each side, one for the difference, what it says, and what else must be known to read it."""
    metric = a.first.result.metric
    both = (("A", a), ("B", b))
    width = max(len(side.first.result.algorithm) for side in (a, b))
    said = [f"{name}  {side.first.result.algorithm:<{width}}   {_reached(side)}" for name, side in both]
    tests = f"paired t-test p = {found.p:.2g}"
    if found.wilcoxon is not None:
        tests += f", Wilcoxon p = {found.wilcoxon:.2g}"
    said.append(
        f"{'A - B':<{width + 3}}   {score_text(metric, found.mean, found.interval)}   {found.episodes} paired episodes"
        f"{_seeds(found)}, {tests}"
    )
    said += [verdict(metric, found), *_more(a, b, found), *_remarks(a, b)]
    return said


def verdict(metric: str, found: Difference) -> str:
    """What the t-test says, which decides; and where Wilcoxon's says another thing, that."""
    ahead = "A" if (found.mean > 0) == (metric == "accuracy") else "B"
    other = found.wilcoxon is not None and (found.wilcoxon < LEVEL) != found.told_apart
    if found.told_apart:
        said = f"{ahead} is ahead: the 95% interval of the difference, which decides, excludes zero"
        return f"{said}. Wilcoxon's test disagrees: take it as undecided." if other else f"{said}{_of(found)}."
    said = "They cannot be told apart: the 95% interval of the difference, which decides, holds zero"
    return f"{said}. Wilcoxon's test disagrees: take it as undecided." if other else f"{said}{_of(found)}."


def _of(found: Difference) -> str:
    """What the decision is about."""
    if found.seeds == (1, 1):
        return "; this is about these two runs, other seeds were not tried"
    single = [name for name, count in zip("AB", found.seeds, strict=True) if count == 1]
    return f"; {single[0]} is one run, whose other seeds were not tried" if single else ""


def _seeds(found: Difference) -> str:
    return "" if found.seeds == (1, 1) else f", {found.seeds[0]} and {found.seeds[1]} seeds"


def _reached(side: Side) -> str:
    metric = side.first.result.metric
    if len(side.tests) == 1:
        return f"{score_text(metric, side.first.result.mean, side.first.result.interval)}   {side.first.folder}"
    half = both_interval(side.columns(sorted(side.shared)))
    seeds = ", ".join(str(test.result.seed) for test in side.tests)
    folders = ", ".join(str(test.folder) for test in side.tests)
    return f"{score_text(metric, side.mean, half)}   seeds {seeds}: {folders}"


def _more(a: Side, b: Side, found: Difference) -> list[str]:
    """How many episodes, or seeds, would show a difference of this size, and what to type for them."""
    if found.told_apart or found.mean == 0:
        return []
    if found.needed is None:
        said = "More episodes alone would not show a difference of this size"
        if found.needed_seeds is None:
            return [f"{said}."]
        return [f"{said}; {found.needed_seeds} seeds a side would, with a probability of {POWER:.0%}."]
    tests = [test for side in (a, b) for test in side.tests]
    said = (
        f"Were the true difference of this size, {found.needed:,} episodes in all "
        f"({found.needed - found.episodes:,} more) would show it with a probability of {POWER:.0%}:"
    )
    if found.needed <= found.episodes:  # so many would have sufficed on average: chance was against it
        return [
            f"Were the true difference of this size, {found.episodes:,} episodes showed it in {POWER:.0%} of tries."
        ]
    again = [_test_again(test.run, test.result.changes, found.needed) for test in tests]
    return [said, *(f"  {line}" for line in again[:LISTED]), *(["  …"] if len(again) > LISTED else [])]


def _test_again(run: object, changes: Sequence[str], episodes: int) -> str:
    kept = [each for each in changes if each != UNFINISHED and not each.startswith("episodes=")]
    return command("fsl", "test", f"run={run}", *kept, f"episodes={episodes}")


def _remarks(a: Side, b: Side) -> list[str]:
    both = (("A", a), ("B", b))
    said = []
    if any(getattr(a.first.result, key) != getattr(b.first.result, key) for key in ("norm", "inference")):
        words = (f"{name} is {s.first.result.inference} (norm={s.first.result.norm})" for name, s in both)
        said.append(f"{', '.join(words)}.")
    half = [name for name, side in both if any(UNFINISHED in test.result.changes for test in side.tests)]
    if half:
        said.append(f"{' and '.join(half)} {'was' if len(half) == 1 else 'were'} not trained to the end.")
    counts = [len(side.shared) for _, side in both]
    if counts[0] != counts[1]:
        said.append(f"A met {counts[0]:,} episodes and B {counts[1]:,}: only those that both met are paired.")
    return said
