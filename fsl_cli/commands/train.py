"""fsl train: meta-train, validate, and test once."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsl_cli.config import Config, conf_dir, explain, from_hydra, register_resolvers, take_user_dir
from fsl_cli.errors import Interrupted, UserError

HELP = """Meta-train an algorithm, keep the best checkpoint by validation, and test it once.

  fsl train                                            ProtoNet on built-in glyphs, two minutes
  fsl train algo=maml data=omniglot way=5 shot=1       the paper's settings
  fsl train -m algo=maml,protonet seed=0,1             a sweep: every combination
  fsl train resume=outputs/RUN                         go on where a run was stopped
  fsl train --config-dir my_conf algo=mine             with your own configuration files

Prints one line a validation and ends with, for example:
  5-way 1-shot test accuracy  96.92% ± 0.29%  (1000 episodes, inductive, norm=running)

All settings: fsl show. What can be chosen: fsl ls. Completion: eval "$(fsl -sc install=bash)"."""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl train`. Raises UserError, or Interrupted after Ctrl-C."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    if "resume" in given:
        others = [word for word in words if not word.startswith(("resume=", "trust=", "hydra."))]
        if others:
            raise UserError(f"resume=DIR goes on with the run's own settings; leave out {' '.join(others)}.")
        resume(Path(given["resume"]), names(given.get("trust", "")))
        return
    _through_hydra(words)


def _through_hydra(words: Sequence[str]) -> None:
    """Let Hydra compose, and sweep, launch or complete where asked to; one bad job does not stop a sweep."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    failed: list[str] = []
    jobs: list[Path] = []
    sweep = [word for word in words if word in ("-m", "--multirun")]  # argparse wants it before the first key=value

    def job(composed: Any) -> None:
        chosen, typed = HydraConfig.get().runtime.choices, HydraConfig.get().overrides.task
        try:
            jobs.append(start(from_hydra(composed, chosen, typed)))
        except UserError as error:
            failed.append(f"{' '.join(typed)}: {error}" if sweep else str(error))
        except OmegaConfBaseException as error:
            failed.append(str(explain(error, typed)))

    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through: we tell the user what to type
    before = sys.argv
    user_dir, rest = take_user_dir([word for word in words if word not in sweep])
    sys.argv = [before[0], *sweep, *(["--config-dir", user_dir] if user_dir else []), *rest]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, [word for word in rest if not word.startswith("-")], user_dir) from error
    except OSError as error:  # Hydra makes a sweep's folder
        raise UserError(
            f"{error.filename} cannot be written: {error.strerror}. Choose another with out=FOLDER."
        ) from error
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
    from fsl_cli.binding import problems
    from fsl_cli.data.datamodule import Batch
    from fsl_cli.results import environment, new_folder, write_json, write_text

    values = config.values
    found = problems(values)
    if found:
        raise UserError("\n".join(found))
    experiment = assemble(values)
    experiment.learner.configure_optimizers()  # raises UserError for what the optimizer cannot do
    with torch.no_grad():  # one validation episode shows whether this algorithm can do what is asked
        episode = experiment.episodes.gather(Batch("val", 0, [0]), torch.device("cpu"))
        experiment.learner.eval().algorithm.adapt(episode.support)(episode.query.x[:, :1])
        experiment.learner.train()
    name = f"{config.choices['algo']}-{config.choices['data']}-{values['way']}w{values['shot']}s"
    folder = new_folder(values["out"], name)
    try:
        with disk(folder):
            saved = {**values, "choices": config.choices, "image": experiment.image}
            write_text(folder / "config.yaml", yaml.safe_dump(saved, sort_keys=False))
            write_text(folder / "overrides.txt", "".join(f"{word}\n" for word in config.overrides))
            write_json(folder / "environment.json", environment())
            train(folder, saved, experiment)
    except UserError:
        if not list(folder.glob("checkpoints/*.ckpt")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def names(text: str) -> list[str]:
    """The names in `[a,b]`, as Hydra writes a list."""
    return [name for name in text.strip("[]").split(",") if name]


def resume(folder: Path, trust: list[str]) -> None:
    """Go on with a run from its last checkpoint, or say that it is finished; `trust` as in `binding.problems`."""
    from fsl_cli.assemble import assemble
    from fsl_cli.binding import problems
    from fsl_cli.commands.test import read_checkpoint, saved_config

    values = saved_config(folder)
    done = (folder / "training.json").exists() and ((folder / "result.json").exists() or not values["test"])
    if done and "LOCAL_RANK" not in os.environ:
        print(f"{folder} is finished: nothing to resume. To test it again: fsl test run={folder}")
        return
    found = problems(values, trust)
    if found:
        raise UserError("\n".join(found))
    last = folder / "checkpoints" / "last.ckpt"
    if last.exists():
        read_checkpoint(last)  # raises UserError where Lightning would raise anything
    with disk(folder):
        train(folder, values, assemble(values))


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """While inside, a full or read-only disk is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror}. Free some space, or type out=FOLDER."
        ) from error


def train(folder: Path, values: dict[str, Any], experiment: Any) -> None:
    """Fit from the last checkpoint if there is one, then test the best; writes the run's folder."""
    import pytorch_lightning as lightning
    from lightning_fabric.utilities.exceptions import MisconfigurationException
    from pytorch_lightning.callbacks import EarlyStopping

    from fsl_cli.allocator import keep_memory
    from fsl_cli.callbacks import Record, Screen, StopOnCtrlC, Stopped, WholeFiles
    from fsl_cli.commands.test import run_test
    from fsl_cli.results import write_json
    from fsl_cli.screen import console, curves, last_screen

    keep_memory()
    record = Record(folder)
    patience = [EarlyStopping("val_accuracy", mode="max", patience=values["patience"])] if values["patience"] else []
    screen = console()
    last = folder / "checkpoints" / "last.ckpt"
    with quiet(), one_job(folder, values["trust"]):
        try:
            trainer = lightning.Trainer(
                **trainer_settings(values["trainer"]),
                max_steps=values["steps"],
                callbacks=[*patience, Screen(screen), record, StopOnCtrlC(folder)],
                plugins=[WholeFiles()],
            )
        except (TypeError, ValueError, MisconfigurationException) as error:
            raise UserError(f"trainer: {' '.join(str(error).split())} See fsl ls trainer.") from error
        screen.print(f"Training in {folder}", highlight=False, soft_wrap=True)
        try:
            if not (folder / "training.json").exists():
                trainer.fit(
                    experiment.learner,
                    datamodule=experiment.episodes,
                    ckpt_path=str(last) if last.exists() else None,
                    weights_only=True,
                )
        except Stopped:
            raise Interrupted(f"\nStopped and saved. To go on: fsl train resume={folder}") from None
        if trainer.is_global_zero and not (folder / "training.json").exists():
            step, accuracy = record.best
            summary = {"steps": trainer.global_step, "best_step": step, "best_val_accuracy": accuracy}
            write_json(folder / "training.json", {**summary, "seconds": round(record.seconds, 1)})
            curves(folder)
        if values["test"]:
            run_test(folder, values, experiment, trainer, folder)
        if trainer.is_global_zero:
            last_screen(folder, values["test"])


def trainer_settings(trainer: dict[str, Any]) -> dict[str, Any]:
    """What every Trainer of ours is given: fsl writes its own record, and inner loops need gradients in evaluation."""
    strategy = trainer["strategy"]
    if strategy == "ddp":
        from pytorch_lightning.strategies import DDPStrategy

        strategy = DDPStrategy(broadcast_buffers=False)  # the learner averages them
    return {
        **trainer,
        "strategy": strategy,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "inference_mode": False,
        "use_distributed_sampler": False,
        "max_epochs": -1,
        "check_val_every_n_epoch": 1,
    }


@contextmanager
def one_job(folder: Path, trust: list[str]) -> Iterator[None]:
    """While inside, the command line is that of this run alone, for the processes that Lightning starts.

    They would otherwise repeat a whole sweep; and what Lightning leaves in the environment would
    make the sweep's next job believe that it is one of them.
    """
    import torch.distributed as processes

    argv, environment = sys.argv, dict(os.environ)
    sys.argv = [argv[0], "train", f"resume={folder.resolve()}", f"trust=[{','.join(trust)}]"]
    try:
        yield
    finally:
        if processes.is_available() and processes.is_initialized():
            processes.destroy_process_group()
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out Lightning's remarks on hardware, tips and worker counts."""
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        yield
