"""What a method, its settings and a data set ask of each other before an experiment is put together."""

from __future__ import annotations

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.finetuning import demand_fine_tuning
from fsl_cli.algorithms.maml import MAML
from fsl_cli.backbones.base import Backbone
from fsl_cli.data.curves import Curves
from fsl_cli.data.sampler import Shape
from fsl_cli.data.sources.lm import Corpus
from fsl_cli.errors import UserError, setting
from fsl_cli.experiment.learner import Learner
from fsl_cli.settings.binding import class_of
from fsl_cli.settings.schema import Image, Settings

NOT_HELD_OUT = (
    "backbone.finetune: its learning rate is chosen on validation classes, and there are none that were not trained "
    "on. Type backbone.finetune=0, or choose a data set with a split val, and train_on=train."
)


def demand_classes_of_many(settings: Settings) -> None:
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


def demand_no_classes(settings: Settings, data: Curves) -> None:
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
    for name, way in (("way", settings.way), ("train_way", settings.train_way)):
        if not isinstance(data, Corpus) and way != 1:  # of characters, way is how many there are
            raise UserError(f"{setting(name, way)}: the tasks of {data.name} have no classes. Type {name}=1.")
    if settings.classes != "drawn":
        raise UserError(f"classes={settings.classes}: the tasks of {data.name} have no classes. Leave it out.")
    if settings.query_balance != "even":
        raise UserError(
            f"query_balance={settings.query_balance}: the curves of {data.name} have no classes. Leave it out."
        )
    if settings.unlabelled or settings.train_unlabelled or settings.distractors or settings.labelled_share < 1:
        raise UserError(
            f"The tasks of {data.name} have no labels that could be left out. Type unlabelled=0 train_unlabelled=0 "
            "distractors=0 labelled_share=1."
        )


def demand_method_fits(settings: Settings, built: Learner, shapes: dict[str, Shape], name: str, image: Image) -> None:
    """Raises UserError where the method does not go with the episodes, or with the items of the data set `name`."""
    algorithm, trains = built.algorithm, "train" in shapes
    if (settings.attack or algorithm.attacks) and image.items != "images":
        what = f"attack={settings.attack_name}" if settings.attack else f"algo={settings.algo_name}"
        raise UserError(f"{what} changes pixels, and {name} has {image.items}. Choose a data set of images.")
    if algorithm.compares_tasks and trains and settings.steps and settings.meta_batch == 1:
        without = "algo.exclusive=0" if isinstance(algorithm, MAML) else "algo=maml"
        raise UserError(
            f"{type(algorithm).__name__} compares the tasks of a step, and meta_batch=1 has one. "
            f"Type meta_batch=4, or {without}."
        )
    if algorithm.compares_tasks and not all(isinstance(count, int) for count in shapes.get("train", ())[:3]):
        raise UserError(
            f"{type(algorithm).__name__} compares the tasks of a step, so all have one shape. "
            "Type one number each for train_way, train_shot and train_query, such as train_shot=5."
        )
    _demand_fine_tuning(settings, built, image, name, trains)


def _demand_fine_tuning(settings: Settings, built: Learner, image: Image, name: str, trains: bool) -> None:
    """Raises UserError where the backbone is to be fine-tuned at test, and this cannot be done."""
    if not any(module.finetune for module in built.modules() if isinstance(module, Backbone)):
        return
    if image.items != "images":
        raise UserError(f"backbone.finetune changes pixels, and {name} has {image.items}. Type backbone.finetune=0.")
    if settings.attack:
        raise UserError("attack= is of the backbone as it is trained. Type backbone.finetune=0, or attack=null.")
    if trains and settings.train_on == "trainval":
        raise UserError(NOT_HELD_OUT)
    demand_fine_tuning(built.algorithm, settings.algo_name)


def demand_use_of_support(settings: Settings) -> None:
    """Raises UserError where support sets have images that the method makes nothing of: without labels, or at all."""
    algorithm = class_of(settings.algo, Algorithm)
    for name in () if algorithm.takes_unlabelled else ("unlabelled", "train_unlabelled", "distractors"):
        if count := getattr(settings, name):
            raise UserError(
                f"{name}={count}: algo={settings.algo_name} learns from images with labels alone. Type {name}=0, or "
                "algo=softkmeans, which learns from both."
            )
    for name, shot in (("shot", settings.shot), ("train_shot", settings.train_shot)):
        if shot != 0 and not algorithm.looks_at_support:
            raise UserError(f"{setting(name, shot)}: {algorithm.__name__} looks at no support images. Type {name}=0.")
