"""fsl train: meta-train, validate, and test once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from fsl_cli.errors import UserError, command
from fsl_cli.settings.registry import names, take_user_dir

HELP = """Meta-train an algorithm, keep the best checkpoint by validation, and test it once.

  fsl train                                            ProtoNet on built-in glyphs, two to four minutes
  fsl train algo=maml data=omniglot way=5 shot=1       the paper's settings
  fsl train data=[omniglot,cub] data.cub.root=DIR      episodes of each in turn; a test of each, and their mean
  fsl train -m algo=maml,protonet 'seed=range(0,3)'    a sweep: every combination; hydra/launcher=joblib: side by side
  fsl train -m … resume=true                           leave out what is finished, go on with what is not
  fsl train -m hydra/sweeper=optuna algo=maml          search for settings, by validation
  fsl train algo=maml time=2h                          as many steps as train, validate and test in time
  fsl train experiment=my.yaml                         settings of your own, as fsl config to=my.yaml writes them
  fsl train resume=outputs/RUN                         go on where a run was stopped
  fsl train resume=outputs/RUN replay=1234             that step again, with torch's anomaly detection
  fsl train --config-dir my_conf algo=mine             with your own configuration files

Prints one line a validation and ends with what was reached, for example:
  5-way 1-shot test accuracy  97.29% ± 0.22%
  glyphs seeded split (65ef75a02a), rotations=none, 15 queries a class, 1000 episodes, inductive (norm=running)

All settings: fsl show. What can be chosen: fsl ls. Completion: eval "$(fsl -sc install=bash)"."""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl train`. Raises UserError, or Interrupted after Ctrl-C or SIGTERM."""
    began = time.monotonic()  # before what takes seconds to import

    from fsl_cli.experiment.running import resume, start
    from fsl_cli.runs.run import Run
    from fsl_cli.settings.hydra_app import compose_and

    given = dict(word.split("=", 1) for word in words if "=" in word)
    if {"-m", "--multirun"} & set(words):
        from fsl_cli.sweeps.sweep import sweep

        if given.get("resume", "true") not in ("true", "false"):
            raise UserError(f"resume={given['resume']}: a sweep goes on with resume=true.")
        words = [word for word in words if word not in ("-m", "--multirun") and not word.startswith("resume=")]
        sweep(words, given.get("resume") == "true")
    elif "resume" in given:
        others = [word for word in words if not word.startswith(("resume=", "replay=", "trust=", "trainer=", "hydra."))]
        if given["resume"] in ("true", "false"):
            raise UserError(f"resume={given['resume']} is for a sweep (-m). Type resume=FOLDER to go on with one run.")
        if others:
            raise UserError(f"resume=DIR goes on with the run's own settings; leave out {' '.join(others)}.")
        resume(Run(given["resume"]), names(given.get("trust", "")), given.get("trainer", ""), given.get("replay", ""))
    elif "replay" in given:
        again = command("fsl", "train", "resume=FOLDER", f"replay={given['replay']}")
        raise UserError(f"Which run? Type {again}.")
    else:
        user_dir, typed = take_user_dir(words)
        compose_and(partial(start, began=began), typed, user_dir)
