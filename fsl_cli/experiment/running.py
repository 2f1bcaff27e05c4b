"""Starting a run and going on with one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsl_cli.errors import Diverged, UserError
from fsl_cli.files import disk, write_json, write_text
from fsl_cli.runs.folder import new_folder
from fsl_cli.runs.jobs import run_name
from fsl_cli.runs.run import Run
from fsl_cli.settings.binding import demand_fit, demand_packages, demand_root
from fsl_cli.settings.compose import Config, compose
from fsl_cli.settings.own_pictures import fitted
from fsl_cli.settings.schema import Settings, part

if TYPE_CHECKING:
    from fsl_cli.experiment.assemble import Experiment
    from fsl_cli.experiment.callbacks import Report


def start(config: Config, begun: Callable[[Run], Any] | None = None, report: Report | None = None) -> Run:
    """Train a new run and return it. Nothing is left behind when the settings do not work out.

    `begun` is told of the run before training; `report` as in `training.train`.
    """
    from fsl_cli.experiment.assemble import assemble
    from fsl_cli.experiment.repeats import demand_new_classes, say
    from fsl_cli.experiment.training import train

    config, reasons = fitted(config)
    settings = finalize(config)
    if reasons:
        say(f"Settings for {settings.data_name} by what its pictures are; why: fsl show {' '.join(config.overrides)}")
    typed = {word.partition("=")[0] for word in config.overrides}
    experiment = assemble(settings, fewer_queries=not settings.steps and "query" not in typed)
    settings = settings.having(**experiment.tested._asdict())
    demand_new_classes(settings, experiment.data)
    _try_out(settings, experiment)
    settings = settings.having(
        image=experiment.image, train_classes=experiment.train_classes, pretrained=experiment.pretrained
    )
    run = Run(new_folder(settings.out, run_name(settings)))
    try:
        with disk(run), run.lock():
            run.begin(settings, config.overrides)
            _describe(run, experiment)
            if begun:
                begun(run)
            train(run, settings, experiment, [trust_word(settings.trust)], report)
    except UserError as error:
        if not isinstance(error, Diverged) and not run.last.exists() and not run.best.exists():
            shutil.rmtree(run.folder, ignore_errors=True)
        raise
    return run


def _try_out(settings: Settings, experiment: Experiment) -> None:
    """Take the backbone to begin with, and let one episode show whether this algorithm can do what is asked.

    Raises UserError where that cannot be done, before the run has a folder.
    """
    import torch

    from fsl_cli.data.tasks import Batch
    from fsl_cli.runs.checkpoints import load_backbone

    if settings.init:
        load_backbone(Run(settings.init).best, experiment.learner)
    experiment.learner.configure_optimizers()  # raises UserError for what the optimizer cannot do
    with torch.no_grad():
        part = "val" if settings.steps else "test"
        [episode] = experiment.episodes.tasks.gather(Batch(part, 0, [0]), torch.device("cpu"))
        experiment.learner.eval().algorithm.adapt(episode.support)(episode.query.x)
        experiment.learner.train()


def _describe(run: Run, experiment: Experiment) -> None:
    """Note where the run runs, how fsl differs from its commit, and which classes each split holds."""
    from fsl_cli.data.store import SPLITS
    from fsl_cli.runs.environment import changes, environment

    write_json(run.folder / "environment.json", environment())
    if difference := changes():
        write_text(run.folder / "changes.diff", difference)
    write_json(run.folder / "classes.json", {part: experiment.data.fingerprints(part) for part in SPLITS})


def finalize(config: Config) -> Settings:
    """The settings of a new run, such that they mean the same from any folder. Raises UserError where they do not fit.

    With `init`, images are seen as that run sees them.
    """
    settings = demand_fit(config.values)
    demand_packages(settings)
    demand_root(settings.data)
    if root := settings.data.get("root"):
        settings = settings.having(data=settings.data.having(root=_absolute(root)))
    if places := {key: _absolute(path) for key in ("weights", "file") if (path := settings.backbone.get(key))}:
        settings = settings.having(backbone=settings.backbone.having(**places))
    if settings.teacher:
        settings = settings.having(teacher=_absolute(settings.teacher))
    if settings.init:
        first = Run(settings.init).settings
        settings = settings.having(init=_absolute(settings.init), image=first.image, pretrained=first.pretrained)
        if "size" in settings.data.values and settings.image:
            settings = settings.having(data=settings.data.having(size=settings.image.size))
    return settings.having(choices=config.choices)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def resume(run: Run, trust: list[str], trainer: str = "", again: str = "", report: Report | None = None) -> None:
    """Go on with a run from its last checkpoint, or say that it is finished.

    `trust` as in `binding.problems`; `trainer` replaces the run's, for another machine. `again` is a step to run
    once more with anomaly detection instead; `report` as in `training.train`.
    """
    from fsl_cli.experiment.assemble import assemble
    from fsl_cli.experiment.replay import replay
    from fsl_cli.experiment.training import train
    from fsl_cli.runs.checkpoints import read_checkpoint

    settings = run.settings
    if trainer:
        settings = settings.having(trainer=part(compose([f"trainer={trainer}"]).values["trainer"]))
    if again:
        demand_fit(settings.plain(), trust)
        if not again.isdecimal():
            raise UserError(f"replay={again}: must be the number of a step.")
        replay(run, settings, assemble(settings), int(again))
        return
    if run.is_finished() and "LOCAL_RANK" not in os.environ:
        print(f"{run} is finished: nothing to resume. To test it again: fsl test run={run}")
        return
    demand_fit(settings.plain(), trust)
    demand_packages(settings)
    with disk(run), run.lock():
        if run.last.exists():
            read_checkpoint(run.last)  # raises UserError where Lightning would raise anything
        words = [trust_word(trust), *([f"trainer={trainer}"] if trainer else [])]
        train(run, settings, assemble(settings), words, report)


def trust_word(trust: list[str]) -> str:
    """The word that says whom to trust."""
    return f"trust=[{','.join(trust)}]"
