"""From a configuration to the things it describes: data set, episodes, backbone, algorithm, learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.finetuning import demand_fine_tuning
from fsl_cli.backbones.base import Backbone
from fsl_cli.backbones.mode import ALONE, Mode
from fsl_cli.data.clusters import Clusters
from fsl_cli.data.curves import Curves
from fsl_cli.data.feasible import sizes_of, without_small
from fsl_cli.data.pseudo import hidden
from fsl_cli.data.sampler import Shape
from fsl_cli.data.several import DataSets, SeveralTasks
from fsl_cli.data.sources.lm import Corpus
from fsl_cli.data.store import DataSet, PseudoClasses, cache_folder
from fsl_cli.data.tasks import ImageTasks, Tasks
from fsl_cli.episodes import Metric
from fsl_cli.errors import UserError, setting
from fsl_cli.experiment.clusters import clustered, in_order
from fsl_cli.experiment.datamodule import Episodic
from fsl_cli.experiment.learner import Learner
from fsl_cli.experiment.seen import image_tasks, several_tasks
from fsl_cli.experiment.shapes import data_part, evaluated, shapes_of
from fsl_cli.runs.checkpoints import load_weights
from fsl_cli.runs.run import Run
from fsl_cli.runs.trust import trusted
from fsl_cli.settings.binding import build, class_of, demand_parts, without_weights
from fsl_cli.settings.schema import Image, Settings

Data = DataSet | DataSets | Curves
NOT_HELD_OUT = (
    "backbone.finetune: its learning rate is chosen on validation classes, and there are none that were not trained "
    "on. Type backbone.finetune=0, or choose a data set with a split val, and train_on=train."
)


POINT = Image(channels=1, size=1, mean=[0.0], std=[1.0], items="points")  # of a curve over one number
# What takes them
ITEMS = {
    "images": "backbone=conv4",
    "texts": "backbone=chars",
    "points": "backbone=mlp",
    "embeddings": "backbone=identity",
    "characters": "backbone=causal_chars",
}


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
    if isinstance(data, DataSets):
        _demand_classes_of_many(settings)
        found = {name: _prepared(settings, own, parts) for name, own in data.sets.items()}
        data = data._replace(sets={name: own for name, (own, _) in found.items()})
        tasks, image = several_tasks(settings, data, {name: own for name, (_, own) in found.items()})
        shapes = next(iter(found.values()))[1]
    elif isinstance(data, DataSet):
        data, shapes = _prepared(settings, data, parts, fewer_queries)
        tasks, image = image_tasks(settings, data, shapes)
    else:
        _demand_no_classes(settings, data)
        shapes = shapes_of(settings, data, parts, fewer_queries)
        if settings.pseudo:
            _hidden(settings, data, shapes)  # raises UserError
        tasks, image = data.tasks(shapes), _seen(data)
    episodes = episodic(settings, tasks, len(data.sets) if isinstance(data, DataSets) else 1)
    sets = [*data.sets.values()] if isinstance(data, DataSets) else [data]
    own = sum(len(sizes_of(each, "train")) for each in sets if isinstance(each, DataSet))
    train_classes = settings.train_classes or max(1, own)
    teacher = trained(Run(settings.teacher)) if settings.teacher and "train" in shapes else None
    built = learner(settings, image, tasks.metric, train_classes, teacher)
    if (settings.attack or built.algorithm.attacks) and image.items != "images":
        what = f"attack={settings.attack_name}" if settings.attack else f"algo={settings.algo_name}"
        raise UserError(f"{what} changes pixels, and {data.name} has {image.items}. Choose a data set of images.")
    built.attack = build(settings.attack) if settings.attack else None
    if isinstance(tasks, ImageTasks | SeveralTasks):
        tasks.ordered = built.algorithm.ordered
        _demand_use_of_support(settings, built.algorithm)
    if built.algorithm.compares_tasks and "train" in shapes and settings.steps and settings.meta_batch == 1:
        raise UserError(
            f"{type(built.algorithm).__name__} compares the tasks of a step, and meta_batch=1 has one. "
            "Type meta_batch=4, or algo=maml."
        )
    if built.algorithm.compares_tasks and not all(isinstance(count, int) for count in shapes.get("train", ())[:3]):
        raise UserError(
            f"{type(built.algorithm).__name__} compares the tasks of a step, so all have one shape. "
            "Type one number each for train_way, train_shot and train_query, such as train_shot=5."
        )
    _demand_fine_tuning(settings, built, image, data, "train" in shapes)
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
        data = _hidden(settings, data, shapes)
    return without_small(data, shapes), shapes


def _demand_classes_of_many(settings: Settings) -> None:
    """Raises UserError for what is of the classes of one data set alone."""
    if settings.classes == "all":
        raise UserError(
            f"classes=all is one task of all test classes of a data set, and here are {settings.data_name}. Leave it "
            f"out, or choose one of them: data={settings.data_name.partition('+')[0]}."
        )
    if settings.finetune:
        raise UserError(
            f"backbone.finetune={settings.finetune} chooses its rate on validation episodes of one data set, and here "
            f"are {settings.data_name}. Train with backbone.finetune=0, and test on each: fsl test run=RUN data=NAME "
            f"backbone.finetune={settings.finetune}."
        )
    if settings.labels != "drawn":
        raise UserError(
            f"labels={settings.labels} divides the classes of one data set among the labels, and here are "
            f"{settings.data_name}. Type labels=drawn."
        )


def each_alone(experiment: Experiment, settings: Settings) -> dict[str, Experiment]:
    """Of an experiment with several data sets, one with each: the same learner. Nothing where there is one."""
    data, tasks = experiment.data, experiment.episodes.tasks
    if not isinstance(data, DataSets) or not isinstance(tasks, SeveralTasks):
        return {}
    return {
        name: experiment._replace(data=own, episodes=episodic(settings, tasks.each[name]))
        for name, own in data.sets.items()
    }


def _demand_no_classes(settings: Settings, data: Curves) -> None:
    """Raises UserError where the method, or a setting, asks for classes, and the tasks of `data` have none."""
    algorithm = class_of(settings.algo, Algorithm)
    if isinstance(data, Corpus):
        if not algorithm.writes:
            raise UserError(
                f"{algorithm.__name__} does not predict characters, which the tasks of {data.name} ask for. "
                "Type algo=maml, algo=fomaml or algo=joint, or data=texts, whose classes it may tell apart."
            )
    elif not algorithm.regresses:
        raise UserError(
            f"{algorithm.__name__} tells classes apart, and the tasks of {data.name} have none: they are curves. "
            "Type algo=maml or another of the gradient family, or a data set of images."
        )
    if settings.train_on == "trainval":
        raise UserError(f"train_on=trainval: the tasks of {data.name} are drawn anew, and none is held out.")
    if settings.labels != "drawn":
        raise UserError(f"labels={settings.labels}: the tasks of {data.name} have no labels. Type labels=drawn.")
    if "metadataset" in (settings.shot, settings.train_shot):
        raise UserError(
            f"shot=metadataset shares out the images of classes, and the tasks of {data.name} have none. Type shot=5."
        )
    if settings.query_balance != "even":
        raise UserError(
            f"query_balance={settings.query_balance}: the curves of {data.name} have no classes. Leave it out."
        )
    if settings.unlabelled or settings.train_unlabelled or settings.distractors or settings.labelled_share < 1:
        raise UserError(
            f"The tasks of {data.name} have no labels that could be left out. Type unlabelled=0 train_unlabelled=0 "
            "distractors=0 labelled_share=1."
        )


def _demand_fine_tuning(settings: Settings, built: Learner, image: Image, data: Data, trains: bool) -> None:
    """Raises UserError where the backbone is to be fine-tuned at test, and this cannot be done."""
    if not any(module.finetune for module in built.modules() if isinstance(module, Backbone)):
        return
    if image.items != "images":
        raise UserError(
            f"backbone.finetune changes pixels, and {data.name} has {image.items}. Type backbone.finetune=0."
        )
    if built.attack:
        raise UserError("attack= is of the backbone as it is trained. Type backbone.finetune=0, or attack=null.")
    if trains and settings.train_on == "trainval":
        raise UserError(NOT_HELD_OUT)
    demand_fine_tuning(built.algorithm, settings.algo_name)


def _demand_use_of_support(settings: Settings, algorithm: Algorithm) -> None:
    """Raises UserError where support sets have images that the method makes nothing of: without labels, or at all."""
    if (settings.unlabelled or settings.train_unlabelled) and not algorithm.takes_unlabelled:
        raise UserError(
            f"unlabelled={settings.unlabelled or settings.train_unlabelled}: algo={settings.algo_name} learns from "
            "images with labels alone. Type unlabelled=0, or algo=softkmeans, which learns from both."
        )
    for name, shot in (("shot", settings.shot), ("train_shot", settings.train_shot)):
        if shot != 0 and not algorithm.looks_at_support:
            kind = type(algorithm).__name__
            raise UserError(f"{setting(name, shot)}: {kind} looks at no support images. Type {name}=0.")


def _hidden(settings: Settings, data: Data, shapes: dict[str, Shape]) -> DataSet:
    """The data set without labels where training would see them. Raises UserError where it has no images."""
    assert settings.pseudo
    pseudo = build(settings.pseudo)
    what = data.items if isinstance(data, DataSet) else "curves"
    possible = ("images", "embeddings") if isinstance(pseudo, Clusters) else ("images",)
    if not isinstance(data, DataSet) or what not in possible:
        makes = "clusters" if isinstance(pseudo, Clusters) else "copies"
        raise UserError(
            f"pseudo={settings.pseudo_name} makes {makes} of {' or '.join(possible)}, and {data.name} has {what}. "
            "Leave it out."
        )
    if settings.train_shot == "metadataset":
        raise UserError(
            f"train_shot=metadataset shares out the images of classes, which pseudo={settings.pseudo_name} hides. Type "
            "train_shot=1."
        )
    if settings.train_unlabelled or settings.labelled_share < 1:
        raise UserError(
            f"pseudo={settings.pseudo_name} hides the labels of all training images. Type train_unlabelled=0 "
            "labelled_share=1."
        )
    classes = partial(_clusters, settings, pseudo) if isinstance(pseudo, Clusters) else pseudo.classes
    return hidden(data, classes, shapes)


def _clusters(settings: Settings, pseudo: Clusters, data: DataSet, part: str, shape: Shape) -> PseudoClasses:
    """Clusters of a split as classes. Raises UserError where a run cannot give the features."""
    data, backbone = in_order(data, part), None
    tasks = ImageTasks(data, {}, data.store.images.shape[1])
    if pseudo.autoencoder and (pseudo.run or data.items != "images"):
        why = f"pseudo.run={pseudo.run} has features of its own" if pseudo.run else f"it takes images, not {data.items}"
        raise UserError(f"pseudo.autoencoder={pseudo.autoencoder}: {why}. Leave one of them out.")
    if pseudo.run:
        run = Run(pseudo.run)
        _demand_unlabelled(run, data)
        backbone = next((m for m in trained(run, settings.trust).modules() if isinstance(m, Backbone)), None)
        tasks, image = image_tasks(run.settings, data, {})
        if backbone is None or backbone.norm not in ALONE:
            raise UserError(
                f"pseudo.run={run}: what it makes of an image depends on those beside it. Choose a run with "
                f"{' or '.join(f'norm={each}' for each in ALONE)}."
            )
        if data.items == "images" and data.store.images.shape[2] != image.size:
            raise UserError(
                f"pseudo.run={run}: it sees images of {image.size} pixels, and {data.name} has "
                f"{data.store.images.shape[2]}. Choose a run of {data.name}."
            )
    return clustered(pseudo, tasks, part, shape, backbone, cache_folder(settings.data_cache))


def _demand_unlabelled(run: Run, data: DataSet) -> None:
    """Raises UserError where a run was trained with the labels that are to be hidden."""
    if run.settings.pseudo or not run.settings.steps or data.unsorted:
        return
    known = set(run.classes.get("train", {}).values())
    seen = [name for name, digest in data.fingerprints("train").items() if digest in known]
    if seen:
        raise UserError(
            f"pseudo.run={run}: it was trained with the labels of {len(seen)} of these training classes, such as "
            f"{seen[0]}, so nothing would be hidden. Choose a run with pseudo=prototransfer, or one of other data."
        )


def _seen(data: Curves) -> Image:
    """What the backbone sees of tasks that are drawn."""
    if isinstance(data, Corpus):
        return replace(POINT, size=data.size, items="characters")
    return replace(POINT, channels=data.inputs)


def trained(run: Run, trust: Sequence[str] = (), norm: Mode | None = None) -> Algorithm:
    """The algorithm of a finished run, as its best checkpoint left it, in evaluation mode; needs no data.

    `trust` are packages that its configuration may name besides ours; `norm` takes the place of the run's. Raises
    UserError when the folder holds no such run.
    """
    settings = run.settings
    demand_parts(settings, ("algo", "backbone"), trusted(run, trust))
    image = settings.image
    if image is None:
        raise UserError(f"{run.folder / 'config.yaml'} does not say what images the run sees. Is it of another fsl?")
    settings = without_weights(settings)
    if norm:
        settings = settings.having(norm=norm, backbone=settings.backbone.having(norm=norm))
    built = learner(settings, image, train_classes=settings.train_classes or 1)
    load_weights(run.best, built)
    return built.algorithm.eval()


def learner(
    settings: Settings,
    image: Image,
    metric: Metric = "accuracy",
    train_classes: int = 1,
    teacher: Algorithm | None = None,
) -> Learner:
    """The algorithm on its backbone for such images, weights drawn from the run's seed.

    `train_classes` and `teacher` are for algorithms that learn to tell all classes of the training split apart, or
    from another run. Raises UserError when the two do not go together.
    """
    torch.manual_seed(settings.seed)
    takes = class_of(settings.backbone, Backbone).takes
    if image.items not in takes:
        raise UserError(
            f"backbone={settings.backbone_name} takes {' or '.join(takes)}; {settings.data_choice} has "
            f"{image.items}. Type {ITEMS[image.items]}."
        )
    backbone = build(settings.backbone, channels=image.channels, size=image.size)
    backbone.pixels = (image.mean, image.std)
    row_width = image.class_rows or (backbone.out_features if backbone.of_names else 0)
    if not row_width and class_of(settings.algo, Algorithm).reads_class_rows:
        raise UserError(
            f"algo={settings.algo_name} reads class rows, and backbone={settings.backbone_name} has no text tower that "
            "makes them of names. Type backbone=openclip backbone.tag=…, or a run of data=embeddings that has them."
        )
    algorithm = build(
        settings.algo, backbone=backbone, train_classes=train_classes, teacher=teacher, regression=metric == "mse",
        row_width=row_width,
    )  # fmt: skip
    if settings.steps and not any(parameter.requires_grad for parameter in algorithm.parameters()):
        raise UserError(
            "There is nothing to train: the backbone has no weights or keeps them, and this algorithm has none of its "
            "own. Type steps=0 to test it as it is, backbone.frozen=false where it says true, backbone=mlp on "
            "embeddings, or an algorithm with weights of its own."
        )
    if backbone.drops and algorithm.checkpoint_inner:
        raise UserError(
            "algo.checkpoint_inner=true builds each step again, and a backbone that drops at random would drop others. "
            "Type backbone.drop_rate=0 (resnet12), backbone.dropout=0 (r2d2, wrn28_10) or algo.checkpoint_inner=false."
        )
    optimizer = partial(build, settings.optim)
    return Learner(
        algorithm,
        lambda parameters: optimizer(params=parameters),
        lambda outer: build(settings.schedule, optimizer=outer),
        metric,
        settings.steps,
        settings.seed,
    )
