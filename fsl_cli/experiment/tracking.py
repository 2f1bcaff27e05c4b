"""Telling trackers about a run, through Lightning's loggers: settings, environment, metrics, result and files."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CometLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torchvision.io import read_image

from fsl_cli.experiment.callbacks import Record, columns
from fsl_cli.files import read_json, write_json
from fsl_cli.pictures.console import warn
from fsl_cli.runs.run import Run
from fsl_cli.settings.binding import build
from fsl_cli.settings.parts import OfTracker, Part, asked
from fsl_cli.settings.schema import Settings

BEFORE = ("config.yaml", "overrides.txt", "environment.json", "changes.diff")  # files that are there before training
AFTER = (
    "training.json", "metrics.csv", "curves.png", "tasks.png", "result.json", "episodes.csv",
    "checkpoints/best.ckpt", "checkpoints/last.ckpt",
)  # fmt: skip
TEXT = (".yaml", ".txt", ".json", ".diff")
ENVIRONMENT = {  # variables for trackers, unless the user has set them
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a server that is away costs seconds, not minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "WANDB_SILENT": "true",
    "COMET_LOGGING_CONSOLE": "ERROR",
}


class Comet(CometLogger):
    """Lightning's, whose offline experiment is a disabled one that writes nothing; this one writes its archive."""

    def __init__(
        self, save_dir: str, name: str | None = None, experiment_key: str | None = None, **settings: Any
    ) -> None:
        super().__init__(offline_directory=save_dir, name=name, experiment_key=experiment_key, **settings)

    def _create_experiment(self) -> None:
        import comet_ml

        self._comet_config = comet_ml.ExperimentConfig(**self._kwargs)
        super()._create_experiment()


class Track(Callback):
    """Sends what the record has just noted, and comes after it.

    A tracker that fails is left alone from then on, and training goes on; `lost` has what it said. A resumed run goes
    on where it was in the trackers, by the ids in tracking.json.
    """

    def __init__(self, run: Run, settings: Settings, record: Record) -> None:
        self.run = run
        self.settings = settings
        self.record = record
        self.loggers: dict[str, Logger] = {}
        self.lost: dict[str, str] = {}
        self._opened = False

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if not self.settings.logger or self._opened or not trainer.is_global_zero:
            return
        self._opened = True
        for name, value in {**ENVIRONMENT, "WANDB_DATA_DIR": str(self.run.folder / "wandb")}.items():
            os.environ.setdefault(name, value)
        for library in ("mlflow", "alembic", "pytorch_lightning.loggers"):
            logging.getLogger(library).setLevel(logging.ERROR)
        path = self.run.folder / "tracking.json"
        ids = read_json(path) if path.exists() else {}
        for name, part in self.settings.logger.items():
            with self._going_on(name):
                logger = _open(part, self.run, name, own_id(ids.get(name)))
                self.loggers[name], new = logger, name not in ids
                ids[name] = logger.version
                if new:
                    logger.log_hyperparams(self._about())
                    _send(logger, self.run.folder, BEFORE)
        write_json(path, ids)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        step, *numbers = self.record.rows[-1]
        row = dict(zip(columns(module.metric)[1:], numbers, strict=True))
        finite = {name: value for name, value in row.items() if math.isfinite(value)}
        self._each(lambda logger: logger.log_metrics(finite, step=int(step)))

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._each(lambda logger: _end(logger, "failed"))

    def finish(self, run: Run) -> None:
        """Send what `run`, the same that has now ended, reached, and all files; say which trackers were lost."""
        training, result = run.training, run.result
        assert training  # is over
        metric = training.metric
        reached = {"training_seconds": training.seconds}
        if training.best_value is not None:  # of training, if there was any
            reached[f"best_val_{metric}"] = training.best_value
        if result:
            numbers = {metric: result.mean, "interval": result.interval, "loss": result.loss}
            reached |= {f"test_{name}": value for name, value in numbers.items()}

        def last(logger: Logger) -> None:
            logger.log_metrics(reached, step=training.steps)
            if isinstance(logger, TensorBoardLogger):  # its table of settings is made of settings with their result
                logger.log_hyperparams(self._about(), {f"reached/{name}": value for name, value in reached.items()})
            _send(logger, run.folder, AFTER)
            _end(logger, "success")

        self._each(last)
        for name, reason in self.lost.items():
            warn(f"lost   what {name} should have of this run, {reason}")

    def _about(self) -> dict[str, Any]:
        """Dotted settings, and where the run runs."""
        where = {"environment": self.run.environment} if self.run.environment else {}
        settings = {key: value for key, value in self.settings.plain().items() if key != "logger"}
        return {key.replace("@", "."): value for key, value in _dotted(settings | where)}  # MLflow takes no @

    def _each(self, action: Callable[[Logger], None]) -> None:
        for name, logger in list(self.loggers.items()):
            with self._going_on(name):
                action(logger)

    @contextmanager
    def _going_on(self, name: str) -> Iterator[None]:
        """While inside, no error of a tracker's library or server stops training."""
        try:
            yield
        except Exception as error:
            self.loggers.pop(name, None)
            since = f"since step {int(self.record.rows[-1][0])}" if self.record.rows else "from the start"
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self.lost[name] = f"{since}: {reason}"
            warn(f"logger={name} fails and is left alone; training goes on. {reason}")


def own_id(known: Any) -> str | None:
    """An id, which trackers make part of paths and addresses, if it is one: a run may come from a stranger."""
    return known if isinstance(known, str) and re.fullmatch(r"\w[\w.-]{,127}", known) else None


def _open(part: Part, run: Run, name: str, known: str | None) -> Logger:
    """The logger that `part` describes, for a run; `known` is its id of before."""
    own, title = run.folder / name, run.name
    later: dict[str, Any] = {"save_dir": str(own), "name": title, "run_name": title}
    later |= dict.fromkeys(("id", "run_id", "experiment_key"), known)
    alone: Any = nullcontext()
    uri = asked(part, OfTracker).tracking_uri
    if uri and uri.startswith("sqlite:///"):
        store = Path(uri.removeprefix("sqlite:///"))
        store.parent.mkdir(parents=True, exist_ok=True)
        later["artifact_location"] = str(store.parent / name)
        alone = FileLock(f"{store}.lock")  # the runs of a sweep would make its tables at once
    elif uri is None:
        own.mkdir(exist_ok=True)  # W&B writes elsewhere when it is missing
    with alone:
        logger: Logger = build(part, **{key: value for key, value in later.items() if key not in part.values})
        logger.experiment  # noqa: B018  # opens it
    return logger


def _send(logger: Logger, folder: Path, names: Iterable[str]) -> None:
    """Give a tracker these files of the run's folder, where there are such; TensorBoard shows texts and pictures."""
    there = [name for name in names if (folder / name).exists()]
    if isinstance(logger, MLFlowLogger):
        for name in there:
            logger.experiment.log_artifact(logger.run_id, str(folder / name), str(Path(name).parent).strip("."))
    elif isinstance(logger, WandbLogger):
        import wandb

        files = wandb.Artifact(f"run-{logger.version}", type="run")
        for name in there:
            files.add_file(str(folder / name), name=name)
        logger.experiment.log_artifact(files)
    elif isinstance(logger, CometLogger):
        for name in there:
            logger.experiment.log_asset(str(folder / name), file_name=name)
    elif isinstance(logger, TensorBoardLogger):
        for name in there:
            if name.endswith(TEXT):
                text = (folder / name).read_text(encoding="utf-8")
                logger.experiment.add_text(name, "".join(f"    {line}\n" for line in text.splitlines()))  # as code
            elif name.endswith(".png"):
                logger.experiment.add_image(name, read_image(str(folder / name)))


def _end(logger: Logger, status: str) -> None:
    """Close a run in its tracker: else the next run of a sweep would go on with it."""
    logger.finalize(status)
    if isinstance(logger, WandbLogger):
        logger.experiment.finish(exit_code=int(status != "success"))
    elif isinstance(logger, CometLogger):
        logger.experiment.end()


def _dotted(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, int | float | str) else str(value)
