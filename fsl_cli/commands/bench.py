"""fsl bench: speed and memory of a training step on this machine, beside a plain loop on the same work."""

from __future__ import annotations

from collections.abc import Sequence

from fsl_cli.doctor.speed import WORK, speed_line, start_up
from fsl_cli.errors import UserError

HELP = """Time training steps here, beside a plain hand-written loop on the same episodes, alternating.

  fsl bench                                  MAML (5w1s, 15 queries, meta-batch 32) and ProtoNet
  fsl bench algo=maml rounds=20              one of them, more rounds
  fsl bench algo=maml algo.inner_steps=5     other settings, of both
  fsl bench trainer.precision=bf16-mixed     in another precision, both

Prints, for each algorithm, for example:
  protonet  fsl 41.17 steps/s (170 MB), 31% of this machine's 499 GFLOP/s in float32   plain loop 29.60 steps/s (154 MB)
            1.39 times as fast   episodes 2.74% of a step
and how long fsl takes to answer words that need no torch. This machine's speed is the most that torch reaches here in a
large product of matrices, or a convolution, in the same precision; the share counts what the plain loop multiplies."""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl bench`. Raises UserError for an algorithm that has no plain loop here."""
    given = dict(word.partition("=")[::2] for word in words)
    wanted = given.pop("algo", "maml,protonet").split(",")
    typed = given.pop("rounds", "10")
    if not typed.isdecimal() or not int(typed):
        raise UserError(f"rounds={typed}: must be a whole number of at least 1.")
    rounds = int(typed)
    for algo in wanted:
        if algo not in WORK:
            raise UserError(f"algo={algo}: fsl bench has a plain loop for {', '.join(WORK)}.")
        overrides = [f"{key}={value}" for key, value in given.items()]
        print(speed_line(algo, overrides, rounds), flush=True)
    print(start_up(rounds))
