"""What an algorithm takes in before an evaluation: training images, and validation episodes to choose settings on."""

from __future__ import annotations

import torch

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.data.several import ClassTasks
from fsl_cli.errors import UserError
from fsl_cli.experiment.datamodule import SAMPLE, TUNED, Episodic


def parts_taken_in(algorithm: type[Algorithm]) -> list[str]:
    """The splits that a method looks at before it is tested, whether it is trained or not."""
    training = (algorithm.prepare, algorithm.prepare_classes) != (Algorithm.prepare, Algorithm.prepare_classes)
    return [*(["train"] if training else []), *(["val"] if algorithm.tune is not Algorithm.tune else [])]


def take_in(algorithm: Algorithm, episodes: Episodic, device: torch.device, dtype: torch.dtype) -> None:
    """Show an algorithm what it asks for, of the splits that the run has."""
    tasks, kind = episodes.tasks, type(algorithm)
    parts = tasks.samplers if isinstance(tasks, ClassTasks) else ("train", "val")
    if "train" in parts and kind.prepare is not Algorithm.prepare:
        algorithm.prepare(episodes.sample("train", SAMPLE, device, dtype))
    if isinstance(tasks, ClassTasks) and kind.prepare_classes is not Algorithm.prepare_classes:
        if "train" not in parts:
            raise UserError(
                f"{kind.__name__} looks at training classes, and there are none here. Choose a data set with a split "
                "train, leave classes=all out, or type algo=simpleshot."
            )
        algorithm.prepare_classes(tasks.classes("train", device, dtype))
    if "val" in parts and kind.tune is not Algorithm.tune:
        algorithm.tune(episodes.sample("val", min(TUNED, episodes.episodes["val"]), device, dtype))
