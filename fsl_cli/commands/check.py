"""fsl check: find what is wrong with settings without running anything."""

from __future__ import annotations

from collections.abc import Sequence

from fsl_cli.settings.compose import compose, take_user_dir

HELP = """Bind every component's signature to the settings and report all problems at once; builds and runs nothing.
Of a folder of your own, files that are there twice are told too.

  fsl check algo=maml data=omniglot way=20
  fsl check algo=maml meta_batch=0 algo.inner_lr=fast

Prints "These settings fit together." or, for example:
  fsl: meta_batch=0: must be at least 1.
  algo.inner_lr=fast: must be a number, not str 'fast'."""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl check`. Raises UserError with every problem."""
    from fsl_cli.experiment.repeats import tell_same_files
    from fsl_cli.settings.binding import demand_fit, demand_packages, demand_root
    from fsl_cli.settings.own_pictures import fitted

    user_dir, overrides = take_user_dir(words)
    settings = demand_fit(fitted(compose(overrides, user_dir)).config.values)
    demand_packages(settings)
    demand_root(settings.data)
    tell_same_files(settings.data)
    print("These settings fit together.")
