"""fsl compare: two tests on the same episodes, paired."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fsl_cli.errors import UserError

if TYPE_CHECKING:
    from fsl_cli.report.outcome import Outcome
    from fsl_cli.stats import Difference

HELP = """Compare two runs, or two tests of runs, on the test episodes that both have met.

  fsl compare outputs/RUN_A outputs/RUN_B
  fsl compare outputs/RUN outputs/RUN/tests/NAME       a test of another kind, by its folder
  fsl compare RUN_A RUN_B --json                       for scripts

Prints, for example:
  A  maml      95.80% ± 0.30%   outputs/maml-omniglot-5w1s/2026-11-21_08-31-07
  B  metasgd   91.01% ± 0.42%   outputs/metasgd-omniglot-5w1s/2026-11-21_10-08-57
  A - B        4.79% ± 0.30%    1000 paired episodes, Wilcoxon p = 1.1e-128: A is better.

Episodes are paired by their number: the interval of the difference is far narrower than those of the two."""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl compare`. Raises UserError when the two cannot be compared."""
    from fsl_cli.report.outcome import read
    from fsl_cli.report.protocol import demand_same_episodes
    from fsl_cli.stats import compare

    folders = [Path(word) for word in words if word != "--json"]
    if len(folders) != 2:
        raise UserError(f"fsl compare takes two runs, not {len(folders)}. Type fsl compare RUN_A RUN_B.")
    a, b = (read(folder) for folder in folders)
    if folders[0].resolve() == folders[1].resolve():
        raise UserError(f"Both are {folders[0]}. Type fsl compare RUN_A RUN_B, two different runs or tests.")
    demand_same_episodes(a, b)
    both = sorted(a.scores.keys() & b.scores.keys())
    if len(both) < 2:
        raise UserError(f"The two tests share {len(both)} episodes. Test both with the same episodes=1000.")
    found = compare([a.scores[index] for index in both], [b.scores[index] for index in both])
    if "--json" in words:
        ends = {key: {"folder": str(test.folder), "mean": test.result["mean"]} for key, test in (("a", a), ("b", b))}
        print(json.dumps({**ends, "metric": a.result["metric"], **found._asdict()}))
        return
    print("\n".join(_lines(a, b, found)))


def _lines(a: Outcome, b: Outcome, found: Difference) -> list[str]:
    from fsl_cli.results import UNFINISHED, spelled

    metric = a.result["metric"]
    width = max(len(a.result["algorithm"]), len(b.result["algorithm"]))
    lines = [
        f"{letter}  {test.result['algorithm']:<{width}}   "
        f"{spelled(metric, test.result['mean'], test.result['interval'])}   {test.folder}"
        for letter, test in (("A", a), ("B", b))
    ]
    difference = spelled(metric, found.mean, found.interval)
    lines.append(
        f"{'A - B':<{width + 3}}   {difference}   {found.episodes} paired episodes, Wilcoxon p = {found.p:.2g}: "
        + _verdict(metric, found)
    )
    if any(a.result[key] != b.result[key] for key in ("norm", "inference")):
        words = (
            f"{name} is {each.result['inference']} (norm={each.result['norm']})"
            for name, each in zip("AB", (a, b), strict=True)
        )
        lines.append(f"{', '.join(words)}.")
    half = [name for name, each in zip("AB", (a, b), strict=True) if UNFINISHED in each.result["changes"]]
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
