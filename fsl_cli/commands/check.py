"""fsl check: find what is wrong with settings without training anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fsl_cli.settings.compose import compose
from fsl_cli.settings.registry import take_user_dir

if TYPE_CHECKING:
    from fsl_cli.experiment.ready import Found

HELP = """Find what fsl train would refuse before its first step, all problems at once; nothing is trained or fetched.

  fsl check algo=maml data=omniglot way=20
  fsl check algo=maml meta_batch=0 algo.inner_lr=fast
  fsl check -m algo=maml,protonet 'seed=range(0,3)'    every run of a sweep, as fsl train -m does before the first

A data set that lies here is opened, and prepared where it is not yet, as by fsl train. One that would be fetched is not
fetched: its classes and pictures are not counted. Of a folder of your own, files that are there twice are told too.

Prints, for example:
  These settings fit together. glyphs: 1,000 classes for training, 100 for validation, 200 for the test; 26,000 images.
or:
  fsl: meta_batch=0: must be at least 1.
  algo.inner_lr=fast: must be a number, not str 'fast'."""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl check`. Raises UserError with every problem."""
    user_dir, typed = take_user_dir(words)
    settings = [word for word in typed if word not in ("-m", "--multirun")]
    if len(settings) < len(typed):
        from fsl_cli.sweeps.plan import demand_plugins, demand_runs, plan

        demand_plugins(settings)
        runs = demand_runs(plan(settings, user_dir), user_dir)
        all_of_them = "the one run" if runs == 1 else f"all {runs:,} runs"
        print(f"The settings of {all_of_them} fit together." if runs else "These settings compose.")
        return
    config = compose(settings, user_dir)
    from fsl_cli.experiment.ready import check

    print(f"These settings fit together. {_said(check(config))}".rstrip())


def _said(found: Found) -> str:
    if found.classes is None:
        return f"{found.data} is not here: its classes are not counted." if found.absent else ""
    train, val, test = (found.classes[part] for part in ("train", "val", "test"))
    return (
        f"{found.data}: {train:,} classes for training, {val:,} for validation, {test:,} for the test; "
        f"{found.size:,} {found.items}."
    )
