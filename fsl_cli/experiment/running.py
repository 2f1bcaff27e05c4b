"""Starting a run and going on with one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsl_cli.errors import Diverged, UserError
from fsl_cli.files import disk
from fsl_cli.settings.compose import Config, compose

if TYPE_CHECKING:
    from fsl_cli.experiment.callbacks import Report


def start(config: Config, begun: Callable[[Path], Any] | None = None, report: Report | None = None) -> Path:
    """Train a new run and return its folder. Nothing is left behind when the settings do not work out.

    `begun` is told the folder before training; `report` as in `training.train`.
    """
    import torch
    import yaml

    from fsl_cli.data.store import SPLITS
    from fsl_cli.data.tasks import Batch
    from fsl_cli.experiment.assemble import assemble
    from fsl_cli.experiment.training import train
    from fsl_cli.files import write_json, write_text
    from fsl_cli.runs.checkpoints import load_backbone
    from fsl_cli.runs.environment import changes, environment
    from fsl_cli.runs.folder import new_folder
    from fsl_cli.runs.jobs import run_name

    values = config.values
    finalize(values)
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
            train(folder, saved, experiment, [trust_word(values["trust"])], report)
    except UserError as error:
        if not isinstance(error, Diverged) and not list(folder.glob("checkpoints/*.ckpt")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def finalize(values: dict[str, Any]) -> None:
    """Make a composed configuration one that means the same anywhere. Raises UserError where it does not fit."""
    from fsl_cli.settings.binding import demand_fit, demand_packages, demand_root

    demand_fit(values)
    demand_packages(values)
    demand_root(values)
    if values["data"].get("root"):  # so that the run can be tested from any folder
        values["data"]["root"] = str(Path(values["data"]["root"]).expanduser().resolve())
    for key in ("init", "teacher"):
        if values.get(key):
            values[key] = str(Path(values[key]).expanduser().resolve())
    if values["init"]:
        take_image_of(Path(values["init"]), values)


def take_image_of(run: Path, values: dict[str, Any]) -> None:
    """Let the run that `values` describe see images as `run` does: channels, size, mean and std."""
    from fsl_cli.runs.folder import saved_config

    values["image"] = saved_config(run)["image"]
    if "size" in values["data"]:
        values["data"]["size"] = values["image"]["size"]


def resume(folder: Path, trust: list[str], trainer: str = "", again: str = "", report: Report | None = None) -> None:
    """Go on with a run from its last checkpoint, or say that it is finished.

    `trust` as in `binding.problems`; `trainer` replaces the run's, for another machine. `again` is a step to run
    once more with anomaly detection instead; `report` as in `training.train`.
    """
    from fsl_cli.experiment.assemble import assemble
    from fsl_cli.experiment.replay import replay
    from fsl_cli.experiment.training import train
    from fsl_cli.runs.checkpoints import read_checkpoint
    from fsl_cli.runs.folder import saved_config
    from fsl_cli.runs.jobs import is_finished
    from fsl_cli.settings.binding import demand_fit, demand_packages

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
        words = [trust_word(trust), *([f"trainer={trainer}"] if trainer else [])]
        train(folder, values, assemble(values), words, report)


def trust_word(trust: list[str]) -> str:
    """The word that says whom to trust."""
    return f"trust=[{','.join(trust)}]"
