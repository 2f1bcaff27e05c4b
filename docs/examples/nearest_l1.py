"""Nearest class mean in L1 distance: prototypical networks with another measure."""

from __future__ import annotations

import torch
from torch import Tensor

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.protonet import prototypes
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Examples


class NearestL1(Algorithm):
    """A class is the mean of its support embeddings; distances are divided by `temperature`."""

    takes_features = True  # in a test each image is embedded once

    def __init__(self, backbone: Backbone, temperature: float = 1.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.temperature = temperature

    def adapt(self, support: Examples) -> Classifier:
        centres = prototypes(self.backbone(support.x), support.y)  # (T, way, d)

        def classify(x: Tensor) -> Tensor:
            queries = self.backbone(x, support.x)  # (T, m, d)
            return -torch.cdist(queries, centres, p=1) / self.temperature  # (T, m, way)

        return classify
