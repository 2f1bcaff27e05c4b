"""What a trained algorithm says of the queries of evaluation episodes, and of pictures of none of their classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as lightning
import torch

from fsl_cli.data.several import ClassTasks
from fsl_cli.data.tasks import Batch
from fsl_cli.episodes import Episodes, Examples
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import Experiment
from fsl_cli.experiment.calibration import Judged
from fsl_cli.experiment.datamodule import EVALUATION_SEED
from fsl_cli.experiment.features import features_where_worth_it
from fsl_cli.experiment.learner import Learner
from fsl_cli.experiment.unknowns import OpenLogits


class Open(NamedTuple):
    """One episode, and as many pictures of other classes as it has queries."""

    known: Judged  # the queries
    sides: OpenLogits  # of the queries, and of the others, of which there may be none


def judge(experiment: Experiment, part: str, count: int, trainer: lightning.Trainer, cache: Path) -> list[Open]:
    """The first episodes of validation or test, the same as in every evaluation, on the trainer's device."""
    learner = experiment.learner
    features = features_where_worth_it(learner, experiment.episodes, [part], trainer, cache)
    with features, evaluating(learner, trainer):
        return [_judged(experiment, part, index) for index in range(count)]


@contextmanager
def evaluating(learner: Learner, trainer: lightning.Trainer) -> Iterator[None]:
    """On the trainer's device, at its precision, in evaluation mode and without gradients."""
    training = learner.training
    learner.to(trainer.strategy.root_device).eval()
    try:
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            yield
    finally:
        learner.train(training)


def _judged(experiment: Experiment, part: str, index: int) -> Open:
    learner, tasks = experiment.learner, experiment.episodes.tasks
    assert isinstance(tasks, ClassTasks)
    batch = Batch(part, EVALUATION_SEED, [index])
    [episode] = tasks.gather(batch, learner.device, learner.dtype)
    [others] = tasks.outside(batch, learner.device, learner.dtype)
    classify = learner.classifier(episode)
    known = Judged(classify(episode.query.x)[0].float().cpu(), episode.query.y[0].cpu())
    if learner.algorithm.sees_queries:  # others among them would change what is said of the known
        return Open(known, OpenLogits(torch.zeros(0, known.logits.shape[1]), torch.zeros(0, known.logits.shape[1])))
    if not len(others):
        return Open(known, _left_out(learner, episode))
    return Open(known, OpenLogits(known.logits, classify(others.unsqueeze(0))[0].float().cpu()))


def _left_out(learner: Learner, episode: Episodes) -> OpenLogits:
    """For splits without a class besides the episode's: the episode's last class is left out of the support set.

    Nothing where there are only two classes, or where the method's head is made for one number of classes.
    """
    last = int(episode.query.y.max())
    kept, asked = episode.support.y[0] < last, episode.query.y[0] < last
    none = torch.zeros(0, last)
    if last < 2:
        return OpenLogits(none, none)
    try:
        fewer = Examples(episode.support.x[:, kept], episode.support.y[:, kept])
        rows = None if episode.class_rows is None else episode.class_rows[:, :last]
        classify = learner.classifier(episode._replace(support=fewer, class_rows=rows))
        logits = classify(episode.query.x)[0].float().cpu()
    except UserError:
        return OpenLogits(none, none)
    return OpenLogits(logits[asked.cpu()], logits[~asked.cpu()])
