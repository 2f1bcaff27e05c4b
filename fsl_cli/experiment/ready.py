"""All that can be found out about a run before its first step: what `fsl train` begins with, and `fsl check` asks."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
import torch

from fsl_cli.algorithms import finetuning
from fsl_cli.algorithms.attack import demand_gradient, demand_use
from fsl_cli.data.download import Absent, without_downloads
from fsl_cli.data.feasible import sizes_of
from fsl_cli.data.sampler import Queries, Shots, largest
from fsl_cli.data.several import DataSets
from fsl_cli.data.store import SPLITS, DataSet, ImageStore, Split
from fsl_cli.data.tasks import Batch
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import Experiment, assemble
from fsl_cli.experiment.finalize import finalize
from fsl_cli.experiment.repeats import demand_new_classes
from fsl_cli.experiment.trainer import new_trainer, quiet
from fsl_cli.runs.checkpoints import load_backbone
from fsl_cli.runs.run import Run
from fsl_cli.settings.compose import Config
from fsl_cli.settings.own_pictures import fit_to_pictures
from fsl_cli.settings.parts import OfData, asked
from fsl_cli.settings.schema import Settings


class Found(NamedTuple):
    """What there is for a run whose settings fit."""

    data: str  # its name
    classes: dict[str, int] | None  # of each split, turned ones counted on their own; None: the images are not here
    size: int  # items
    items: str = ""  # what they are
    absent: bool = False


def ready_experiment(
    settings: Settings, typed: Sequence[str] = (), data: DataSet | None = None, again: bool = False
) -> Experiment:
    """The experiment that settings describe, once it has been found to work.

    `typed` are the words that led to them; `data` stands in for a data set that is not here; `again`: do not repeat
    warnings about the data set. Raises UserError for whatever would go wrong before the first step: data, shapes of
    episodes, weights to begin with, optimizer, trainer, and an algorithm that cannot do what is asked.
    """
    own_query = any(word.startswith("query=") for word in typed)
    experiment = assemble(settings, fewer_queries=not settings.steps and not own_query, data=data)
    if data is None and not again:
        demand_new_classes(settings, experiment.data)
    if settings.init:
        load_backbone(Run(settings.init).best, experiment.learner)
    experiment.learner.configure_optimizers()  # raises UserError for what the optimizer cannot do
    with quiet():
        new_trainer(**settings.trainer.values, max_steps=settings.steps)
    with torch.no_grad():  # one episode shows whether this algorithm can do what is asked
        [episode] = experiment.episodes.tasks.gather(
            Batch("val" if settings.steps else "test", 0, [0]), torch.device("cpu")
        )
        experiment.learner.eval().algorithm.classifier(episode)(episode.query.x)
        if experiment.learner.attack:
            demand_gradient(experiment.learner.algorithm, episode, settings.algo_name)
        if (backbone := experiment.learner.algorithm.shared_backbone) and backbone.finetune:
            finetuning.demand_gradient(experiment.learner.algorithm, episode, settings.algo_name)
        experiment.learner.train()
        if experiment.learner.attack and settings.steps:
            [first, *_] = experiment.episodes.tasks.gather(Batch("train", settings.seed, [0]), torch.device("cpu"))
            demand_use(experiment.learner.attack, experiment.learner.algorithm, first, settings.algo_name)
    return experiment


def check(config: Config) -> Found:
    """Whether `fsl train` would refuse anything, without fetching what is not here. Raises UserError as `ready`."""
    settings = finalize(fit_to_pictures(config).config)
    try:
        with without_downloads():
            data = ready_experiment(settings, config.overrides).data
    except Absent as absent:
        known = settings.having(pseudo=None)  # noise has no clusters
        ready_experiment(known, config.overrides, stand_in(settings))
        return Found(absent.name, None, 0, absent=True)
    sets = [*data.sets.values()] if isinstance(data, DataSets) else [data] if isinstance(data, DataSet) else []
    if not sets:
        return Found(data.name, None, 0)
    classes = {part: sum(len(sizes_of(own, part)) for own in sets) for part in SPLITS}
    return Found(data.name, classes, sum(len(own.store.images) for own in sets), sets[0].items)


def stand_in(settings: Settings) -> DataSet:
    """Images of noise, as many as these episodes need, in place of a data set that is not here."""

    def most(count: Shots | Queries) -> int:
        return 1 if count == "all" else largest(count)

    way = max(most(settings.way), most(settings.train_way), 2) + settings.distractors
    each = max(most(settings.shot) + most(settings.query), most(settings.train_shot) + most(settings.train_query))
    each = ceil((each + max(settings.unlabelled, settings.train_unlabelled)) / settings.labelled_share) + 1
    own = asked(settings.data, OfData)
    size = own.size or 84
    noise = np.random.default_rng(0).integers(0, 256, (way * each, own.channels or 3, size, size), dtype=np.uint8)
    store = ImageStore(noise, np.arange(way + 1) * each, [str(number) for number in range(way)], "")
    return DataSet(
        "a stand-in", store, dict.fromkeys(SPLITS, Split(np.arange(way))), {"split": "-", "rotations": "none"}
    )


def why_refused(config: Config) -> str:
    """What `check` would say of a run of a sweep; "" where nothing is wrong."""
    try:
        check(config)
    except UserError as error:
        return str(error)
    return ""
