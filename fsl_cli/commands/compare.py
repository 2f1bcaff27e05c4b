"""fsl compare: two runs, or the seeds of two methods, on the same episodes, paired."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

HELP = """Compare two runs, or two methods over several seeds, on the test episodes that all have met.

  fsl compare outputs/RUN_A outputs/RUN_B
  fsl compare outputs/RUN outputs/RUN/tests/NAME       a test of another kind, by its folder
  fsl compare a=RUN_1,RUN_2,RUN_3 b=RUN_4,RUN_5        seeds of two methods
  fsl compare outputs/maml-omniglot-5w1s outputs/protonet-omniglot-5w1s
                                                       the same: folders that hold the seeds' runs
  fsl compare RUN_A RUN_B --json                       for scripts

Prints, for example:
  A  maml      95.80% ± 0.30%   outputs/maml-omniglot-5w1s/2026-11-21_08-31-07
  B  metasgd   91.01% ± 0.42%   outputs/metasgd-omniglot-5w1s/2026-11-21_10-08-57
  A - B        4.79% ± 0.30%    1000 paired episodes, paired t-test p = 3e-162, Wilcoxon p = 1.1e-128
  A is ahead: the 95% interval of the difference, which decides, excludes zero; this is about these two runs, …

Episodes are paired by their number: the interval of the difference is far narrower than those of the two. It decides,
by Student's t; with several seeds a side it is over seeds and episodes. Wilcoxon's test stands beside it as a check."""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl compare`. Raises UserError when the two cannot be compared."""
    from fsl_cli.errors import shown
    from fsl_cli.report.comparison import lines
    from fsl_cli.report.sides import Side, difference, sides

    a, b = sides([word for word in words if word != "--json"])
    found = difference(a, b)
    if "--json" not in words:
        print("\n".join(map(shown, lines(a, b, found))))
        return

    def end(side: Side) -> dict[str, Any]:
        folders = [str(test.folder) for test in side.tests]
        return {"folder": folders[0], "folders": folders, "mean": side.mean}

    ends = {"a": end(a), "b": end(b)}
    print(json.dumps({**ends, "metric": a.first.result.metric, **found._asdict(), "ahead": found.told_apart}))
