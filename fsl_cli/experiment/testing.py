"""Testing a run's best checkpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from typing import Any

import pytorch_lightning as lightning
import torch

from fsl_cli import __version__
from fsl_cli.data.sources.sinusoid import REACH, SinusoidTasks
from fsl_cli.data.store import cache_folder
from fsl_cli.data.tasks import Batch
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import Data, Experiment
from fsl_cli.experiment.datamodule import EVALUATION_SEED
from fsl_cli.experiment.features import features_for_images, possible, worth_it
from fsl_cli.files import read_json, writing
from fsl_cli.runs.checkpoints import load_weights, read_checkpoint
from fsl_cli.runs.folder import saved_config
from fsl_cli.runs.results import UNFINISHED, FittedTask, Result, write_result
from fsl_cli.stats import mean_interval


def run_test(
    folder: Path,
    values: dict[str, Any],
    experiment: Experiment,
    trainer: lightning.Trainer,
    destination: Path,
    changes: list[str],
) -> None:
    """Read the test split with the best checkpoint of the run in `folder`; writes result.json and episodes.csv.

    `changes` are the settings of the run that were changed for this test; `UNFINISHED` is added to them where training
    is not over. Raises UserError when the checkpoint does not fit, or when a class of the test was trained on or used
    for choosing the checkpoint.
    """
    refuse_seen_classes(folder, experiment.data)
    path = folder / "checkpoints" / "best.ckpt"
    finished = (folder / "training.json").exists()
    training = read_json(folder / "training.json") if finished else read_checkpoint(path)["callbacks"]["Record"]
    step = load_weights(path, experiment.learner)
    started = time.monotonic()
    with ExitStack() as stack:
        if possible(experiment.learner) and worth_it(experiment.episodes, "test"):
            cache = cache_folder(values["data"].get("cache"))
            stack.enter_context(features_for_images(experiment.learner, experiment.episodes, ["test"], trainer, cache))
        trainer.test(experiment.learner, datamodule=experiment.episodes, verbose=False)
    scores = experiment.learner.scores
    mean, interval = mean_interval([score.value for score in scores])
    if not trainer.is_global_zero:
        return
    data = experiment.data
    stated: dict[str, Any] = {key: values[key] for key in ("way", "shot", "query", "episodes", "seed", "norm")}
    stated |= data.protocol
    result = Result(
        algorithm=values["choices"]["algo"],
        data=data.name,
        images=data.hash,
        part="test",
        **stated,
        episode_seed=EVALUATION_SEED,
        inference="transductive" if values["norm"] == "transductive" else "inductive",
        trained_on=saved_config(folder)["choices"]["data"],
        image=experiment.image,
        checkpoint=path.name,
        step=step,
        metric=experiment.learner.metric,
        mean=mean,
        interval=interval,
        loss=fmean(score.loss for score in scores),
        seconds=round(time.monotonic() - started, 2),
        changes=changes if finished else [*changes, UNFINISHED],
        training_seconds=round(training["seconds"], 1),
        version=__version__,
    )
    with writing(destination, "Free some space and test again."):
        write_result(destination, result, scores)


def fit_tasks(
    experiment: Experiment, steps: Sequence[int] = (0, 1, 5, 10), part: str = "test", index: Sequence[int] = (0, 1, 2)
) -> list[FittedTask]:
    """These tasks of a regression, as the trained algorithm fits them in so many gradient steps."""
    algorithm: Any = experiment.learner.algorithm.eval()
    tasks = experiment.episodes.tasks
    assert isinstance(tasks, SinusoidTasks)
    device, trained = experiment.learner.device, algorithm.test_steps
    batch = Batch(part, EVALUATION_SEED, list(index))
    [episodes] = tasks.gather(batch, device)
    x = torch.linspace(-REACH, REACH, 200, device=device).unsqueeze(-1)
    truth = tasks.truth(batch, x)  # (T, 200, 1)
    after = {}
    for number in steps:
        algorithm.test_steps = number
        after[number] = algorithm.adapt(episodes.support)(x.expand(len(index), -1, -1)).detach()
    algorithm.test_steps = trained
    points, curve = (x.flatten().tolist(), truth.flatten(1).tolist())
    support_x, support_y = (part.flatten(1).tolist() for part in episodes.support)
    fits = {number: predicted.flatten(1).tolist() for number, predicted in after.items()}
    return [
        FittedTask(points, curve[i], support_x[i], support_y[i], {number: fit[i] for number, fit in fits.items()})
        for i in range(len(index))
    ]


def refuse_seen_classes(folder: Path, data: Data) -> None:
    """Raises UserError when a test class of `data` is one that the run in `folder` was trained or validated on."""
    if not (folder / "classes.json").exists():
        return
    splits = read_json(folder / "classes.json")
    seen = {digest for part in ("train", "val") for digest in splits[part].values()}
    tested = data.fingerprints("test")
    known = [name for name, digest in tested.items() if digest in seen]
    if known:
        raise UserError(
            f"{len(known)} of the {len(tested)} test classes, such as {known[0]}, are among those "
            f"that {folder} was trained or validated on. Test it with the split of its training."
        )
