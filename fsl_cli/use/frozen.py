"""A run that nobody trained: a head on the frozen features of a network that came trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from fsl_cli.backbones.base import Backbone
from fsl_cli.errors import UserError
from fsl_cli.experiment.method import learner
from fsl_cli.runs.run import Run
from fsl_cli.settings.binding import class_of, demand_fit
from fsl_cli.settings.compose import compose
from fsl_cli.settings.parts import OfBackbone, asked
from fsl_cli.settings.schema import Image
from fsl_cli.use.predictor import Predictor

USUAL = ("backbone=photos", "algo=simpleshot", "norm=running", "steps=0", "trainer=cpu")
AS_THEY_ARE = ("backbone=identity", "norm=none")
SIZE = 224  # pixels of a picture where the network does not say
LETTERS = 512  # of a text


def frozen_predictor(words: Sequence[str] = (), width: int = 0) -> Predictor:
    """What `words` choose, such as backbone=photos algo=simpleshot, which is what there is without them.

    With a `width`, a head on vectors of so many numbers, as they are, and on class rows of as many. Raises
    UserError for a method that has no head of its own without training, or a network without weights.
    """
    composed = compose([*USUAL, *(AS_THEY_ARE if width else ()), *words])
    settings = demand_fit(composed.values).having(choices=composed.choices)
    half = [0.5, 0.5, 0.5]
    image = Image(3, asked(settings.backbone, OfBackbone).resize or SIZE, half, half)
    if "texts" in class_of(settings.backbone, Backbone).takes:
        image = Image(1, LETTERS, [0.0], [1.0], items="texts")
    if width:
        image = Image(width, 1, [0.0], [1.0], items="embeddings", class_rows=width)
    trained = UserError(
        f"algo={settings.algo_name}: needs a run that was trained, run=FOLDER. Without one, type a head on "
        "frozen features: algo=simpleshot, protonet, metabaseline, rfs or metaoptnet."
    )
    try:
        algorithm = learner(settings, image).algorithm.eval()
    except UserError as error:
        raise trained if "norm=" in str(error) else error from None  # which only an inner loop asks for
    backbone = algorithm.shared_backbone
    if not algorithm.takes_features or not algorithm.looks_at_support or backbone is None:
        raise trained
    if not backbone.origin and any(True for _ in backbone.parameters()):
        raise UserError(
            f"backbone={settings.backbone_name}: its weights are random, and nothing trains them here. Type "
            "backbone.weights=FILE or backbone.pretrained=true, or leave it out: backbone=photos."
        )
    if backbone.finetune:
        raise UserError(
            "backbone.finetune: its learning rate is chosen on validation classes, which a support set alone does not "
            "have. Type backbone.finetune=0, or run=FOLDER with a run that was tested so."
        )
    backbone.freeze()
    if algorithm.reads_class_rows:
        image = replace(image, class_rows=backbone.out_features)
    elif width:
        image = replace(image, class_rows=0)
    settings = settings.having(image=image, train_classes=1, pretrained=backbone.origin)
    return Predictor(Run.unwritten(settings), algorithm, image, torch.device("cpu"), False)


def described(predictor: Predictor) -> str:
    """backbone=photos on weights from ImageNet, nothing trained"""
    settings = predictor.run.settings
    if not settings.pretrained:
        return "embeddings as they are, nothing trained"
    backbone = asked(settings.backbone, OfBackbone)
    name = backbone.name or backbone.file
    which = f"backbone={settings.backbone_name}{f' {name}' if name else ''}"
    return f"{which} on weights from {settings.pretrained}, nothing trained"
