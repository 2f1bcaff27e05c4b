"""fsl compare: two tests on the same episodes, paired."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsl_cli.errors import UserError

HELP = """Compare two runs, or two tests of runs, on the test episodes that both have met.

  fsl compare outputs/RUN_A outputs/RUN_B
  fsl compare outputs/RUN outputs/RUN/tests/NAME       a test of another kind, by its folder
  fsl compare RUN_A RUN_B --json                       for scripts

Prints, for example:
  A  maml      95.80% ± 0.30%   outputs/maml-omniglot-5w1s/2026-11-21_08-31-07
  B  metasgd   91.01% ± 0.42%   outputs/metasgd-omniglot-5w1s/2026-11-21_10-08-57
  A - B        4.79% ± 0.30%    1000 paired episodes, Wilcoxon p = 1.1e-128: A is better.

Episodes are paired by their number: the interval of the difference is far narrower than those of the two."""

# what decides which images an episode consists of, and what is measured
SAME = (
    "data", "images", "split", "split_hash", "rotations", "part", "way", "shot", "query", "episode_seed", "sampling",
    "metric",
)  # fmt: skip


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl compare`. Raises UserError when the two cannot be compared."""
    from fsl_cli.results import read_test
    from fsl_cli.stats import compare

    folders = [Path(word) for word in words if word != "--json"]
    if len(folders) != 2:
        raise UserError(f"fsl compare takes two runs, not {len(folders)}. Type fsl compare RUN_A RUN_B.")
    (a, own), (b, other) = (read_test(folder) for folder in folders)
    _refuse(folders, a, b)
    both = sorted(own.keys() & other.keys())
    if len(both) < 2:
        raise UserError(f"The two tests share {len(both)} episodes. Test both with the same episodes=1000.")
    found = compare([own[index] for index in both], [other[index] for index in both])
    if "--json" in words:
        print(json.dumps({"a": str(folders[0]), "b": str(folders[1]), "metric": a["metric"], **found._asdict()}))
        return
    print("\n".join(_lines(folders, a, b, found)))


def _refuse(folders: list[Path], a: dict[str, Any], b: dict[str, Any]) -> None:
    differing = [key for key in SAME if a.get(key) != b.get(key)]
    if not differing:
        return
    facts = "; ".join(f"{key} is {a.get(key)} and {b.get(key)}" for key in differing)
    settings = [key for key in ("way", "shot", "query") if key in differing]
    if differing == settings:
        changes = " ".join(f"{key}={a[key]}" for key in settings)
        advice = f"Type fsl test run={folders[1]} {changes}, and compare with what that writes."
    else:
        advice = "Test both on the same data set and split."
    raise UserError(f"The two tests did not meet the same episodes: {facts}. {advice}")


def _lines(folders: list[Path], a: dict[str, Any], b: dict[str, Any], found: Any) -> list[str]:
    from fsl_cli.results import spelled

    metric = a["metric"]
    width = max(len(a["algorithm"]), len(b["algorithm"]))
    lines = [
        f"{letter}  {test['algorithm']:<{width}}   {spelled(metric, test['mean'], test['interval'])}   {folder}"
        for letter, test, folder in (("A", a, folders[0]), ("B", b, folders[1]))
    ]
    difference = spelled(metric, found.mean, found.interval)
    lines.append(
        f"{'A - B':<{width + 3}}   {difference}   {found.episodes} paired episodes, Wilcoxon p = {found.p:.2g}: "
        + _verdict(metric, found)
    )
    if a["norm"] != b["norm"] or a["inference"] != b["inference"]:
        lines.append(f"A is {a['inference']} (norm={a['norm']}), B is {b['inference']} (norm={b['norm']}).")
    return lines


def _verdict(metric: str, found: Any) -> str:
    if abs(found.mean) > found.interval:
        first = (found.mean > 0) == (metric == "accuracy")
        return f"{'A' if first else 'B'} is better."
    if found.needed is None:
        return "they cannot be told apart."
    return (
        f"they cannot be told apart. If the difference is what it seems, {found.needed - found.episodes:,} "
        f"episodes more would show it: fsl test run=… episodes={found.needed}"
    )
