"""Two tests on the same episodes, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsl_cli.report.outcome import Outcome
    from fsl_cli.stats import Difference


def lines(a: Outcome, b: Outcome, found: Difference) -> list[str]:
    from fsl_cli.runs.records import UNFINISHED
    from fsl_cli.runs.wording import score_text

    metric = a.result.metric
    width = max(len(a.result.algorithm), len(b.result.algorithm))
    lines = [
        f"{letter}  {test.result.algorithm:<{width}}   "
        f"{score_text(metric, test.result.mean, test.result.interval)}   {test.folder}"
        for letter, test in (("A", a), ("B", b))
    ]
    difference = score_text(metric, found.mean, found.interval)
    lines.append(
        f"{'A - B':<{width + 3}}   {difference}   {found.episodes} paired episodes, Wilcoxon p = {found.p:.2g}: "
        + _verdict(metric, found)
    )
    if any(getattr(a.result, key) != getattr(b.result, key) for key in ("norm", "inference")):
        words = (
            f"{name} is {each.result.inference} (norm={each.result.norm})"
            for name, each in zip("AB", (a, b), strict=True)
        )
        lines.append(f"{', '.join(words)}.")
    half = [name for name, each in zip("AB", (a, b), strict=True) if UNFINISHED in each.result.changes]
    if half:
        lines.append(f"{' and '.join(half)} {'was' if len(half) == 1 else 'were'} not trained to the end.")
    if len(a.scores) != len(b.scores):
        lines.append(f"A met {len(a.scores):,} episodes and B {len(b.scores):,}: only those that both met are paired.")
    return lines


def _verdict(metric: str, found: Difference) -> str:
    if abs(found.mean) > found.interval:
        first = (found.mean > 0) == (metric == "accuracy")
        return f"{'A' if first else 'B'} is better."
    if found.needed is None:
        return "they cannot be told apart."
    return (
        f"they cannot be told apart. If the difference is what it seems, {found.needed - found.episodes:,} "
        f"episodes more would show it: fsl test run=… episodes={found.needed}"
    )
