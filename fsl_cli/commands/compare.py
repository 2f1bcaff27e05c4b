"""fsl compare: two tests on the same episodes, paired."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

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


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl compare`. Raises UserError when the two cannot be compared."""
    from fsl_cli.report.comparison import lines
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
        ends = {key: {"folder": str(test.folder), "mean": test.result.mean} for key, test in (("a", a), ("b", b))}
        print(json.dumps({**ends, "metric": a.result.metric, **found._asdict()}))
        return
    print("\n".join(lines(a, b, found)))
