"""fsl train: meta-train, validate, and test once."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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

HELP = """Meta-train an algorithm, keep the best checkpoint by validation, and test it once.

  fsl train                                            ProtoNet on built-in glyphs, two minutes
  fsl train algo=maml data=omniglot way=5 shot=1       the paper's settings
  fsl train -m algo=maml,protonet seed=0,1             a sweep: every combination
  fsl train resume=outputs/RUN                         go on where a run was stopped
  fsl train resume=outputs/RUN replay=1234             that step again, with torch's anomaly detection
  fsl train --config-dir my_conf algo=mine             with your own configuration files

Prints one line a validation and ends with what was reached, for example:
  5-way 1-shot test accuracy  97.29% ± 0.22%
  glyphs seeded split (65ef75a02a), rotations=none, 15 queries a class, 1000 episodes, inductive (norm=running)

All settings: fsl show. What can be chosen: fsl ls. Completion: eval "$(fsl -sc install=bash)"."""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl train`. Raises UserError, or Interrupted after Ctrl-C."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    if "resume" in given:
        others = [word for word in words if not word.startswith(("resume=", "replay=", "trust=", "trainer=", "hydra."))]
        if others:
            raise UserError(f"resume=DIR goes on with the run's own settings; leave out {' '.join(others)}.")
        resume(Path(given["resume"]), names(given.get("trust", "")), given.get("trainer", ""), given.get("replay", ""))
        return
    if "replay" in given:
        raise UserError(f"Which run? Type fsl train resume=FOLDER replay={given['replay']}.")
    _through_hydra(words)


def _through_hydra(words: Sequence[str]) -> None:
    """Let Hydra compose, and sweep, launch or complete where asked to; one bad job does not stop a sweep."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    here = os.getpid()
    failed: list[str] = []
    jobs: list[Path] = []
    sweep = [word for word in words if word in ("-m", "--multirun")]  # argparse wants it before the first key=value

    def job(composed: Any) -> None:
        chosen, typed = HydraConfig.get().runtime.choices, HydraConfig.get().overrides.task
        try:
            jobs.append(start(from_hydra(composed, chosen, typed)))
        except UserError as error:
            if os.getpid() != here:  # in a launcher's worker, which hands only exceptions on
                raise
            failed.append(f"{' '.join(typed)}: {error}" if sweep else str(error))
        except OmegaConfBaseException as error:
            failed.append(str(explain(error, typed)))

    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through: we tell the user what to type
    before = sys.argv
    user_dir, rest = take_user_dir([word for word in words if word not in sweep])
    demand_names(rest, user_dir)
    sys.argv = [before[0], *sweep, *(["--config-dir", user_dir] if user_dir else []), *rest]
    try:
        with disk("the sweep's folder"):
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, [word for word in rest if not word.startswith("-")], user_dir) from error
    finally:
        sys.argv = before
    if sweep:
        from fsl_cli.screen import sweep_screen

        sweep_screen(jobs)
    if failed:
        raise UserError("\n".join(failed))


def start(config: Config) -> Path:
    """Train a new run and return its folder. Nothing is left behind when the settings do not work out."""
    import torch
    import yaml

    from fsl_cli.assemble import assemble
    from fsl_cli.binding import demand_fit, demand_packages
    from fsl_cli.checkpoints import load_backbone
    from fsl_cli.data.store import SPLITS
    from fsl_cli.data.tasks import Batch
    from fsl_cli.results import changes, environment, new_folder, task_name, write_json, write_text
    from fsl_cli.training import train

    values = config.values
    demand_fit(values)
    demand_packages(values)
    if values["data"].get("root"):  # so that the run can be tested from any folder
        values["data"]["root"] = str(Path(values["data"]["root"]).expanduser().resolve())
    for key in ("init", "teacher"):
        if values.get(key):
            values[key] = str(Path(values[key]).expanduser().resolve())
    if values["init"]:
        see_as(Path(values["init"]), values)
    experiment = assemble(values)
    if values["init"]:
        load_backbone(Path(values["init"]) / "checkpoints" / "best.ckpt", experiment.learner)
    experiment.learner.configure_optimizers()  # raises UserError for what the optimizer cannot do
    with torch.no_grad():  # one validation episode shows whether this algorithm can do what is asked
        [episode] = experiment.episodes.tasks.gather(Batch("val", 0, [0]), torch.device("cpu"))
        experiment.learner.eval().algorithm.adapt(episode.support)(episode.query.x)
        experiment.learner.train()
    name = f"{config.choices['algo']}-{config.choices['data']}-{task_name(values)}"
    folder = new_folder(values["out"], name)
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
            train(folder, saved, experiment, [spelled(values["trust"])])
    except UserError as error:
        if not isinstance(error, Diverged) and not list(folder.glob("checkpoints/*.ckpt")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def see_as(run: Path, values: dict[str, Any]) -> None:
    """Let the run that `values` describe see images as `run` does: channels, size, mean and std."""
    from fsl_cli.results import saved_config

    values["image"] = saved_config(run)["image"]
    if "size" in values["data"]:
        values["data"]["size"] = values["image"]["size"]


def resume(folder: Path, trust: list[str], trainer: str = "", again: str = "") -> None:
    """Go on with a run from its last checkpoint, or say that it is finished.

    `trust` as in `binding.problems`; `trainer` replaces the run's, for another machine. `again` is a step to run
    once more with anomaly detection instead.
    """
    from fsl_cli.assemble import assemble
    from fsl_cli.binding import demand_fit, demand_packages
    from fsl_cli.checkpoints import read_checkpoint
    from fsl_cli.results import saved_config
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
    done = (folder / "training.json").exists() and ((folder / "result.json").exists() or not values["test"])
    if done and "LOCAL_RANK" not in os.environ:
        print(f"{folder} is finished: nothing to resume. To test it again: fsl test run={folder}")
        return
    demand_fit(values, trust)
    demand_packages(values)
    last = folder / "checkpoints" / "last.ckpt"
    if last.exists():
        read_checkpoint(last)  # raises UserError where Lightning would raise anything
    with disk(folder):
        words = [spelled(trust), *([f"trainer={trainer}"] if trainer else [])]
        train(folder, values, assemble(values), words)


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
