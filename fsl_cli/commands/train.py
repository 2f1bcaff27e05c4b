"""fsl train: meta-train, validate, and test once."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsl_cli.config import (
    Config,
    compose,
    conf_dir,
    demand_names,
    explain,
    from_hydra,
    names,
    register_resolvers,
    take_user_dir,
)
from fsl_cli.errors import Diverged, UserError

if TYPE_CHECKING:
    from fsl_cli.callbacks import Report

HELP = """Meta-train an algorithm, keep the best checkpoint by validation, and test it once.

  fsl train                                            ProtoNet on built-in glyphs, two to four minutes
  fsl train algo=maml data=omniglot way=5 shot=1       the paper's settings
  fsl train -m algo=maml,protonet 'seed=range(0,3)'    a sweep: every combination; hydra/launcher=joblib: side by side
  fsl train -m … resume=true                           leave out what is finished, go on with what is not
  fsl train -m hydra/sweeper=optuna algo=maml          search for settings, by validation
  fsl train resume=outputs/RUN                         go on where a run was stopped
  fsl train resume=outputs/RUN replay=1234             that step again, with torch's anomaly detection
  fsl train --config-dir my_conf algo=mine             with your own configuration files

Prints one line a validation and ends with what was reached, for example:
  5-way 1-shot test accuracy  97.29% ± 0.22%
  glyphs seeded split (65ef75a02a), rotations=none, 15 queries a class, 1000 episodes, inductive (norm=running)

All settings: fsl show. What can be chosen: fsl ls. Completion: eval "$(fsl -sc install=bash)"."""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl train`. Raises UserError, or Interrupted after Ctrl-C or SIGTERM."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    if {"-m", "--multirun"} & set(words):
        from fsl_cli.commands.sweep import sweep

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
        resume(Path(given["resume"]), names(given.get("trust", "")), given.get("trainer", ""), given.get("replay", ""))
    elif "replay" in given:
        raise UserError(f"Which run? Type fsl train resume=FOLDER replay={given['replay']}.")
    else:
        _one_run(words)


def _one_run(words: Sequence[str]) -> None:
    """A run of its own, or whatever Hydra is asked for besides, such as completion."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf.errors import OmegaConfBaseException

    failed: list[UserError] = []  # Hydra would say more of an exception than the user needs

    def job(composed: Any) -> None:
        chosen, typed = HydraConfig.get().runtime.choices, HydraConfig.get().overrides.task
        try:
            start(from_hydra(composed, chosen, typed))
        except UserError as error:
            failed.append(error)
        except OmegaConfBaseException as error:
            failed.append(explain(error, typed))

    user_dir, typed = take_user_dir(words)
    through_hydra(job, typed, user_dir)
    if failed:
        raise failed[0]


# of Hydra's, those that go with fsl
FLAGS = ("-m", "--multirun", "-c", "--cfg", "--resolve", "-p", "--package", "-i", "--info", "-sc", "--shell-completion")


def through_hydra(job: Callable[[Any], Any], words: Sequence[str], user_dir: str | None) -> None:
    """Let Hydra compose what `words` ask for, and call `job` with it: once, or for each run of a sweep."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through: we tell the user what to type
    before = sys.argv
    odd = [word for word in words if word.startswith("-") and word.partition("=")[0] not in FLAGS]
    if odd:
        raise UserError(f"there is no option {odd[0]}. Settings are typed as way=5. See fsl train --help.")
    demand_names([word for word in words if word != "-m"], user_dir)
    sys.argv = [before[0], *(["--config-dir", user_dir] if user_dir else []), *words]
    try:
        with disk("the sweep's folder"):
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, [word for word in words if not word.startswith("-")], user_dir) from error
    finally:
        sys.argv = before


def start(config: Config, begun: Callable[[Path], Any] | None = None, report: Report | None = None) -> Path:
    """Train a new run and return its folder. Nothing is left behind when the settings do not work out.

    `begun` is told the folder before training; `report` as in `training.train`.
    """
    import torch
    import yaml

    from fsl_cli.assemble import assemble
    from fsl_cli.checkpoints import load_backbone
    from fsl_cli.data.store import SPLITS
    from fsl_cli.data.tasks import Batch
    from fsl_cli.results import changes, environment, new_folder, write_json, write_text
    from fsl_cli.sweeps import run_name
    from fsl_cli.training import train

    values = config.values
    settle(values)
    experiment = assemble(values)
    if values["init"]:
        load_backbone(Path(values["init"]) / "checkpoints" / "best.ckpt", experiment.learner)
    experiment.learner.configure_optimizers()  # raises UserError for what the optimizer cannot do
    with torch.no_grad():  # one validation episode shows whether this algorithm can do what is asked
        [episode] = experiment.episodes.tasks.gather(Batch("val", 0, [0]), torch.device("cpu"))
        experiment.learner.eval().algorithm.adapt(episode.support)(episode.query.x)
        experiment.learner.train()
    folder = new_folder(values["out"], run_name(values, config.choices))
    try:
        with disk(folder):
            saved = {**values, "choices": config.choices, "image": experiment.image}
            saved["train_classes"] = experiment.train_classes
            write_text(folder / "config.yaml", yaml.safe_dump(saved, sort_keys=False))
            write_text(folder / "overrides.txt", "".join(f"{word}\n" for word in config.overrides))
            write_json(folder / "environment.json", environment())
            if difference := changes():
                write_text(folder / "changes.diff", difference)
            write_json(folder / "classes.json", {part: experiment.data.fingerprints(part) for part in SPLITS})
            if begun:
                begun(folder)
            train(folder, saved, experiment, [spelled(values["trust"])], report)
    except UserError as error:
        if not isinstance(error, Diverged) and not list(folder.glob("checkpoints/*.ckpt")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def settle(values: dict[str, Any]) -> None:
    """Make a composed configuration one that means the same anywhere. Raises UserError where it does not fit."""
    from fsl_cli.binding import demand_fit, demand_packages, demand_root

    demand_fit(values)
    demand_packages(values)
    demand_root(values)
    if values["data"].get("root"):  # so that the run can be tested from any folder
        values["data"]["root"] = str(Path(values["data"]["root"]).expanduser().resolve())
    for key in ("init", "teacher"):
        if values.get(key):
            values[key] = str(Path(values[key]).expanduser().resolve())
    if values["init"]:
        see_as(Path(values["init"]), values)


def see_as(run: Path, values: dict[str, Any]) -> None:
    """Let the run that `values` describe see images as `run` does: channels, size, mean and std."""
    from fsl_cli.results import saved_config

    values["image"] = saved_config(run)["image"]
    if "size" in values["data"]:
        values["data"]["size"] = values["image"]["size"]


def resume(folder: Path, trust: list[str], trainer: str = "", again: str = "", report: Report | None = None) -> None:
    """Go on with a run from its last checkpoint, or say that it is finished.

    `trust` as in `binding.problems`; `trainer` replaces the run's, for another machine. `again` is a step to run
    once more with anomaly detection instead; `report` as in `training.train`.
    """
    from fsl_cli.assemble import assemble
    from fsl_cli.binding import demand_fit, demand_packages
    from fsl_cli.checkpoints import read_checkpoint
    from fsl_cli.results import saved_config
    from fsl_cli.sweeps import is_finished
    from fsl_cli.training import replay, train

    values = saved_config(folder)
    if trainer:
        values["trainer"] = compose([f"trainer={trainer}"]).values["trainer"]
    if again:
        demand_fit(values, trust)
        if not again.isdecimal():
            raise UserError(f"replay={again}: must be the number of a step.")
        replay(folder, values, assemble(values), int(again))
        return
    if is_finished(folder, values["test"]) and "LOCAL_RANK" not in os.environ:
        print(f"{folder} is finished: nothing to resume. To test it again: fsl test run={folder}")
        return
    demand_fit(values, trust)
    demand_packages(values)
    last = folder / "checkpoints" / "last.ckpt"
    if last.exists():
        read_checkpoint(last)  # raises UserError where Lightning would raise anything
    with disk(folder):
        words = [spelled(trust), *([f"trainer={trainer}"] if trainer else [])]
        train(folder, values, assemble(values), words, report)


def spelled(trust: list[str]) -> str:
    """The word that says whom to trust."""
    return f"trust=[{','.join(trust)}]"


@contextmanager
def disk(place: object) -> Iterator[None]:
    """While inside, a full or read-only disk is the user's to mend."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            raise
        raise UserError(
            f"{error.filename or place} cannot be written: {error.strerror}. Free some space, or type out=FOLDER."
        ) from error
