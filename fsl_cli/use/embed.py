"""What a network makes of all items of a data set: of a run, or one that came trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fsl_cli.backbones.base import Backbone
from fsl_cli.backbones.mode import ALONE
from fsl_cli.data.store import SPLITS, DataSet
from fsl_cli.data.tasks import ImageTasks
from fsl_cli.errors import UserError
from fsl_cli.experiment.features import in_pieces
from fsl_cli.experiment.method import learner
from fsl_cli.experiment.seen import image_tasks
from fsl_cli.experiment.shapes import data_part
from fsl_cli.files import replacing
from fsl_cli.runs.checkpoints import load_weights
from fsl_cli.runs.retest import settings_of_a_test
from fsl_cli.runs.run import Run
from fsl_cli.settings.binding import build, demand_fit, demand_one, demand_root
from fsl_cli.settings.compose import compose
from fsl_cli.settings.schema import Settings

TURNED = re.compile(r" turned \d+$")  # what a class that quarter turns add is called


class Made(NamedTuple):
    """A network, and the data set that it is to see."""

    backbone: Backbone
    tasks: ImageTasks
    about: str


class Embedded(NamedTuple):
    features: Any  # (n, d) float32
    labels: list[str]
    splits: list[str]
    about: str  # what made them, of what
    class_rows: Any = None  # (classes, k) float32, of a model with a text tower
    class_names: list[str] = []


def of_run(given: dict[str, str], user_dir: str | None) -> Made:
    """A finished run's backbone, and its data set or the one that is typed. Raises UserError."""
    run = Run(given.pop("run"))
    settings = settings_of_a_test(run, given, user_dir)
    return _made(settings, f"run {run}", run)


def of_backbone(given: dict[str, str], user_dir: str | None) -> Made:
    """A network that came trained, and the data set that is typed. Raises UserError."""
    settings = untrained([f"{key}={value}" for key, value in given.items()], user_dir)
    made = _made(settings, f"backbone={settings.backbone_name}", None)
    if not made.backbone.origin and any(True for _ in made.backbone.parameters()):
        raise UserError(
            f"backbone={settings.backbone_name}: its weights are random. Type backbone.weights=FILE, "
            "backbone.pretrained=true, backbone=photos, or run=RUN for a run's."
        )
    return made


def untrained(words: Sequence[str], user_dir: str | None) -> Settings:
    """The settings of a data set that is typed, of which nothing is trained. Raises UserError."""
    composed = compose(["algo=simpleshot", "steps=0", *words], user_dir)
    settings = demand_fit(composed.values).having(choices=composed.choices)
    demand_root(settings.data)
    return settings


def _made(settings: Settings, by: str, run: Run | None) -> Made:
    demand_one(settings.data)
    data = build(data_part(settings))
    if not isinstance(data, DataSet):
        raise UserError(f"{data.name} is drawn as it is needed: there are no items to embed.")
    tasks, image = image_tasks(settings, data, {})
    built = learner(settings, image, train_classes=settings.train_classes or 1)
    found = [module for module in built.algorithm.modules() if isinstance(module, Backbone)][:1]
    if not found:
        raise UserError(f"algo={settings.algo_name} has no backbone that makes features of an item.")
    if found[0].norm not in ALONE:
        raise UserError(
            f"norm={found[0].norm}: what is made of an item depends on those beside it. Choose a run with "
            f"{' or '.join(f'norm={each}' for each in ALONE)}."
        )
    if run:
        load_weights(run.best, built)
    return Made(found[0].eval(), tasks, f"{by} on {data.name}, {data.hash}")


@torch.no_grad()
def embedded(made: Made) -> Embedded:
    """The features of every item, split by split and class by class."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone, data = made.backbone.to(device), made.tasks.data
    features, labels, splits = list[Any](), list[str](), list[str]()
    for part in SPLITS:
        split = data.splits[part]
        for number, items in enumerate(made.tasks.images(part, device)):
            features.append(in_pieces(backbone, items).float().cpu().numpy())
            base, turn = divmod(number, split.turns)
            name = data.store.names[split.classes[base]] + (f" turned {90 * turn}" if turn else "")
            labels += [name] * len(items)
            splits += [part] * len(items)
    found = Embedded(np.concatenate(features), labels, splits, made.about)
    if backbone.of_names is None:
        return found
    names = sorted(set(labels))
    rows = backbone.of_names([TURNED.sub("", name) for name in names])
    return found._replace(class_rows=rows.float().cpu().numpy(), class_names=names)


def write(path: Path, found: Embedded) -> None:
    """The file: written under another name, and there when it is whole."""
    arrays = {"features": found.features, "labels": np.array(found.labels), "split": np.array(found.splits)}
    if found.class_rows is not None:
        arrays |= {"class_rows": found.class_rows, "class_names": np.array(found.class_names)}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays, about=np.array(found.about))
