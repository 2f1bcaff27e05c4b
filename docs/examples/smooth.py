"""Prototypical networks trained on another loss: cross-entropy with smoothed labels (Szegedy et al. 2016)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.protonet import ProtoNet
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import PartOf


class Smooth(Algorithm):
    """A share `smoothing` of each label's weight goes to all classes alike."""

    takes_features = True

    def __init__(self, backbone: Backbone, smoothing: PartOf = 0.1) -> None:
        super().__init__()
        self.backbone = backbone
        self.method = ProtoNet(backbone)
        self.smoothing = smoothing

    def adapt(self, support: Examples) -> Classifier:
        return self.method.adapt(support)

    def loss(self, episodes: Episodes) -> Tensor:
        logits = self.adapt(episodes.support)(episodes.query.x)  # (T, m, way)
        return F.cross_entropy(logits.flatten(0, 1), episodes.query.y.flatten(), label_smoothing=self.smoothing)
