"""From a configuration to the things it describes: data set, episodes, backbone, algorithm, learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from fsl_cli.backbones.base import Backbone
from fsl_cli.data.curves import Curves
from fsl_cli.data.feasible import sizes_of, without_small
from fsl_cli.data.sampler import Shape
from fsl_cli.data.several import ClassTasks, DataSets, OfClasses, SeveralTasks
from fsl_cli.data.sources.lm import Corpus
from fsl_cli.data.store import DataSet
from fsl_cli.data.tasks import Tasks
from fsl_cli.experiment.datamodule import Episodic
from fsl_cli.experiment.demands import (
    demand_classes_of_many,
    demand_method_fits,
    demand_no_classes,
    demand_use_of_support,
)
from fsl_cli.experiment.hiding import without_labels
from fsl_cli.experiment.learner import Learner
from fsl_cli.experiment.method import learner, trained
from fsl_cli.experiment.seen import demand_as_trained, image_tasks, several_tasks
from fsl_cli.experiment.shapes import data_part, evaluated, shapes_of
from fsl_cli.runs.run import Run
from fsl_cli.settings.binding import build
from fsl_cli.settings.schema import Image, Settings

Data = OfClasses | Curves
POINT = Image(channels=1, size=1, mean=[0.0], std=[1.0], items="points")  # of a curve over one number


class Experiment(NamedTuple):
    learner: Learner
    episodes: Episodic
    data: Data
    image: Image  # what the backbone sees
    train_classes: int  # of the training split, turned ones counted on their own
    pretrained: str  # what the backbone's first weights had seen, as `Backbone.origin`
    tested: dict[str, Any]  # way, shot and query of the test episodes


def assemble(
    settings: Settings, parts: Sequence[str] | None = None, fewer_queries: bool = False, data: Data | None = None
) -> Experiment:
    """Build what settings describe, with episodes of these splits; by default of those that the run looks at.

    `data` takes the place of the data set that they name. A finished run's settings say what its backbone sees
    (`image`), and other data sets are brought to that. `fewer_queries`: a test takes as many as its classes have, where
    these have not enough. Raises UserError when the data set cannot be had or cannot give such episodes.
    """
    data = data or build(data_part(settings))
    tasks: Tasks
    if isinstance(data, OfClasses):
        demand_use_of_support(settings)
    if isinstance(data, DataSets):
        demand_classes_of_many(settings)
        found = {name: _prepared(settings, own, parts) for name, own in data.sets.items()}
        data = data._replace(sets={name: own for name, (own, _) in found.items()})
        tasks, image = several_tasks(settings, data, {name: own for name, (_, own) in found.items()})
        shapes = next(iter(found.values()))[1]
    elif isinstance(data, DataSet):
        data, shapes = _prepared(settings, data, parts, fewer_queries)
        tasks, image = image_tasks(settings, data, shapes)
    else:
        demand_no_classes(settings, data)
        shapes = shapes_of(settings, data, parts, fewer_queries)
        if settings.pseudo:
            without_labels(settings, data, shapes)  # raises UserError
        image = _seen(data)
        demand_as_trained(settings, data.name, image)
        tasks = data.tasks(shapes)
    episodes = episodic(settings, tasks, len(data.sets) if isinstance(data, DataSets) else 1)
    sets = [*data.sets.values()] if isinstance(data, DataSets) else [data]
    own = sum(len(sizes_of(each, "train")) for each in sets if isinstance(each, DataSet))
    train_classes = settings.train_classes or max(1, own)
    teacher = trained(Run(settings.teacher)) if settings.teacher and "train" in shapes else None
    built = learner(settings, image, tasks.metric, train_classes, teacher)
    demand_method_fits(settings, built, shapes, data.name, image)
    built.attack = build(settings.attack) if settings.attack else None
    if isinstance(tasks, ClassTasks):
        tasks.ordered = built.algorithm.ordered
    pretrained = settings.pretrained or next((b.origin for b in built.modules() if isinstance(b, Backbone)), "")
    tested = shapes.get("test", evaluated(settings))
    asked = {"way": tested.way, "shot": tested.shot, "query": tested.query}
    return Experiment(built, episodes, data, image, train_classes, pretrained, asked)


def episodic(settings: Settings, tasks: Tasks, sets: int = 1) -> Episodic:
    """The episodes of a run: as many for validation and test as are asked for, of each of so many data sets."""
    return Episodic(
        tasks,
        seed=settings.seed,
        meta_batch=settings.meta_batch,
        steps=settings.steps,
        val_every=settings.val_every,
        episodes={"val": sets * settings.val_episodes, "test": sets * settings.episodes},
    )


def _prepared(
    settings: Settings, data: DataSet, parts: Sequence[str] | None, fewer_queries: bool = False
) -> tuple[DataSet, dict[str, Shape]]:
    """A data set as the settings have it, and the shapes of its episodes. Raises UserError where it cannot be so."""
    if settings.train_on == "trainval":
        data = data.training_on_validation()
    shapes = shapes_of(settings, data, parts, fewer_queries)
    if settings.pseudo:
        data = without_labels(settings, data, shapes)
    return without_small(data, shapes), shapes


def each_alone(experiment: Experiment, settings: Settings) -> dict[str, Experiment]:
    """Of an experiment with several data sets, one with each: the same learner. Nothing where there is one."""
    data, tasks = experiment.data, experiment.episodes.tasks
    if not isinstance(data, DataSets) or not isinstance(tasks, SeveralTasks):
        return {}
    return {
        name: experiment._replace(data=own, episodes=episodic(settings, tasks.each[name]))
        for name, own in data.sets.items()
    }


def _seen(data: Curves) -> Image:
    """What the backbone sees of tasks that are drawn."""
    if isinstance(data, Corpus):
        return replace(POINT, size=data.size, items="characters")
    return replace(POINT, channels=data.inputs)
