"""time=2h: as many meta-iterations, at most `steps`, as train, validate and test within it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from math import ceil
from typing import Any, NamedTuple

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from fsl_cli.algorithms.finetuning import RATES, FineTuning
from fsl_cli.data.store import cache_folder
from fsl_cli.data.tasks import Batch, ImageTasks
from fsl_cli.episodes import Examples
from fsl_cli.errors import TooShort
from fsl_cli.experiment.assemble import Experiment
from fsl_cli.experiment.calibrating import MOST
from fsl_cli.experiment.datamodule import EVALUATION_SEED, Episodic
from fsl_cli.experiment.features import features_for_images, left_to_compute, possible, train_on_them, worth_it
from fsl_cli.experiment.finalize import seconds
from fsl_cli.experiment.finetuning import CHOSEN_ON, augmentation
from fsl_cli.experiment.judging import evaluating
from fsl_cli.experiment.learner import Learner
from fsl_cli.experiment.trainer import new_trainer, one_process, quiet
from fsl_cli.settings.parts import sets_of, shortened
from fsl_cli.settings.schema import Settings

PROBED = 8  # validation episodes whose time is taken
SHARE = 0.03  # of the budget, for finding out how long a step takes
KEPT = 0.07  # of the budget, for what is not foreseen
VALIDATIONS = 5  # at least, where that many steps fit


class Pace(NamedTuple):
    """Seconds of work on this machine."""

    step: float
    episode: float  # of a validation
    image: float = 0.0  # to the features of one image, where these are computed once for all episodes
    known: float = 0.0  # of an evaluation episode with such features
    tuned: float = 0.0  # of one whose backbone is fine-tuned


def within(settings: Settings, experiment: Experiment, left: float) -> tuple[Settings, Deadline]:
    """The settings with which a run ends within `left` seconds: of other steps, val_every, schedule.

    And what ends training should that not come true. Raises UserError where there is no time even for the test. The
    experiment's weights have changed afterwards.
    """
    end, asked_for, sets = time.monotonic() + left, settings, max(1, len(sets_of(settings.data)))
    settings = settings.having(val_episodes=sets * settings.val_episodes, episodes=sets * settings.episodes)
    pace = measured(settings, experiment, left * SHARE)
    after = episodes_after(settings, experiment, pace)
    # a frozen network's features have been computed, which took longer than the measurement, and are kept
    now = min(left * (1 - SHARE), end - time.monotonic()) - left * KEPT
    found = fitted(settings, pace, now, after)
    found = found.having(val_episodes=asked_for.val_episodes, episodes=asked_for.episodes)
    return found, Deadline(end - left * KEPT / 2, pace, settings.val_episodes, after)


def evaluations(settings: Settings, metric: str) -> dict[str, int]:
    """Evaluation episodes that follow training, by split: those of the calibration and of the test."""
    calibration = min(MOST, settings.val_episodes) if settings.calibrate and metric == "accuracy" else 0
    return {"val": calibration, "test": settings.episodes if settings.test else 0}


def episodes_after(settings: Settings, experiment: Experiment, pace: Pace) -> float:
    """What follows training, in episodes of a validation that take as long.

    Less than there are where each image's features are computed once, and again less where they are kept already.
    """
    learner, tasks, total = experiment.learner, experiment.episodes.tasks, 0.0
    if pace.tuned:
        chosen = min(CHOSEN_ON, settings.val_episodes)
        tests = chosen * sum(map(bool, RATES)) + (chosen if settings.calibrate else 0)
        return (tests + (settings.episodes if settings.test else 0)) * pace.tuned / pace.episode
    for part, count in evaluations(settings, learner.metric).items():
        each = [count * pace.episode]
        by_features = count and possible(learner) and worth_it(experiment.episodes, part, count)
        if by_features and isinstance(tasks, ImageTasks):
            trainer, cache = one_process(settings.trainer), cache_folder(settings.data_cache)
            images = left_to_compute(learner, tasks, part, trainer, cache)
            each.append(images * pace.image + count * pace.known)
        total += min(each)
    return total / pace.episode


def fitted(settings: Settings, pace: Pace, left: float, after: float) -> Settings:
    """The same, for a pace that is known; `after` are the evaluation episodes that follow training, as of
    `episodes_after`."""
    ending = pace.episode * after
    validation = pace.episode * settings.val_episodes
    if left - ending < validation + pace.step:
        raise _too_short(settings, pace, left, after)
    every = settings.val_every
    steps = int((left - ending) / (pace.step + validation / every))
    if steps >= settings.steps:
        return settings
    if steps < VALIDATIONS * every:  # validate more often, or not at all would be left to choose from
        count = min(VALIDATIONS, int((left - ending) / (validation + pace.step)))
        steps = int((left - ending - count * validation) / pace.step)
        every = max(1, steps // count)
    steps = max(every, steps // every * every)
    schedule = shortened(settings.schedule, steps / settings.steps)
    return settings.having(steps=steps, val_every=every, schedule=schedule)


def _too_short(settings: Settings, pace: Pace, left: float, after: float) -> TooShort:
    """How long what cannot be left out takes, and settings that fit."""
    needed = pace.episode * (after + settings.val_episodes) + pace.step
    more = ceil(seconds(settings.time or "") + 1.2 * (needed - left) / (1 - SHARE - KEPT))
    test = int(left / 4 / pace.episode)
    fewer = f"episodes={test} val_episodes=10, or " if settings.test and test >= 10 and pace.step < left / 4 else ""
    return TooShort(
        f"time={settings.time}: too short. A step takes {pace.step:.2g} s here, a validation of "
        f"{settings.val_episodes:,} episodes {pace.episode * settings.val_episodes:.2g} s, and calibration and test "
        f"{pace.episode * after:.2g} s. Type {fewer}time={more}s.",
        f"{more}s",
    )


def measured(settings: Settings, experiment: Experiment, limit: float) -> Pace:
    """How long a meta-iteration and an evaluation episode take, found out within about `limit` seconds.

    Without the time that the features of all images take, where training is on these: they are kept. The experiment's
    weights have changed afterwards.
    """
    learner, episodes, stopwatch = experiment.learner, experiment.episodes, Stopwatch(limit)
    count = min(PROBED, settings.val_episodes)
    episodes.episodes = {**episodes.episodes, "val": count}
    episodes.val_every = episodes.steps
    with quiet(), ExitStack() as stack:
        trainer = new_trainer(
            **settings.trainer.values, max_steps=settings.steps, callbacks=[stopwatch], limit_val_batches=0
        )
        once = _once(learner, episodes, trainer) if possible(learner) else (0.0, 0.0)
        if train_on_them(learner, episodes):
            cache = cache_folder(settings.data_cache)
            stack.enter_context(features_for_images(learner, episodes, ["train", "val"], trainer, cache))
        trainer.fit(learner, datamodule=episodes)
        validation = []
        for _ in range(2):  # the first warms up
            trainer = new_trainer(**settings.trainer.values)
            began = time.monotonic()
            trainer.validate(learner, datamodule=episodes, verbose=False)
            validation.append(time.monotonic() - began)
        tuned = _fine_tuned(settings, experiment, trainer)
    return Pace(stopwatch.step(), validation[-1] / count, *once, tuned)


def _fine_tuned(settings: Settings, experiment: Experiment, trainer: Trainer) -> float:
    """Seconds of an evaluation episode whose backbone is fine-tuned; 0 where none is."""
    learner = experiment.learner
    backbone = learner.algorithm.shared_backbone
    if backbone is None or not backbone.finetune:
        return 0.0
    tuning = FineTuning(backbone.finetune, max(RATES), augmentation(settings, experiment.image.size))
    with evaluating(learner, trainer):
        batch = Batch("val", EVALUATION_SEED, [0])
        [episode] = experiment.episodes.tasks.gather(batch, learner.device, learner.dtype)
        began = time.monotonic()
        tuning.classifier(learner.algorithm, episode)(episode.query.x)
        return time.monotonic() - began


def _once(learner: Learner, episodes: Episodic, trainer: Trainer) -> tuple[float, float]:
    """Seconds to the features of one image, and of an episode whose features are known."""
    backbone = learner.algorithm.shared_backbone
    assert backbone
    training = learner.training
    learner.to(trainer.strategy.root_device).eval()
    seconds = [0.0, 0.0]
    try:
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            batch = Batch("val", EVALUATION_SEED, [0])
            [episode] = episodes.tasks.gather(batch, learner.device, learner.dtype)
            support, query = episode.support, episode.query
            for _ in range(2):  # the first warms up
                began = time.monotonic()
                seen, asked = backbone(support.x), backbone(query.x)
                seconds[0] = (time.monotonic() - began) / (support.x.shape[1] + query.x.shape[1])
            backbone.precomputed = True
            for _ in range(2):
                began = time.monotonic()
                learner.algorithm.classifier(episode._replace(support=Examples(seen, support.y)))(asked)
                seconds[1] = time.monotonic() - began
    finally:
        backbone.precomputed = False
        learner.train(training)
    return seconds[0], seconds[1]


class Stopwatch(Callback):
    """Takes the time of each step, and ends training after some seconds, but not before it has seen a few steps."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.ends: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.ends.append(time.monotonic())
        if len(self.ends) > 5 and self.ends[-1] - self.ends[0] > self.limit:
            trainer.should_stop = True

    def step(self) -> float:
        """The mean of the steps after the first two."""
        first = min(2, len(self.ends) - 1)
        return (self.ends[-1] - self.ends[first]) / max(1, len(self.ends) - 1 - first)


class Deadline(Callback):
    """Ends training while there is time for what follows it, should the machine be slower than it was.

    A training that ends between two validations is validated once more, by Lightning. What an episode takes is taken
    anew at each validation.
    """

    def __init__(self, at: float, pace: Pace, validation: int, after: float) -> None:
        self.at = at  # of time.monotonic
        self.pace = pace
        self.validation = validation  # episodes of one
        self.after = after  # as of `episodes_after`
        self.passed = False
        self._began = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._look(trainer)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._began = time.monotonic()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.pace = self.pace._replace(episode=(time.monotonic() - self._began) / self.validation)
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        """Is there time for one step more and what follows?"""
        needed = self.pace.step + self.pace.episode * (self.validation + self.after)
        if trainer.global_step < trainer.max_steps and time.monotonic() + needed > self.at:
            self.passed = trainer.should_stop = True
