"""SimpleShot (Wang et al. 2019), https://arxiv.org/abs/1911.04623

Train an ordinary classifier of the training classes, throw its head away, and give a query to the class with the
nearest centroid. What makes it good is the transformation of the features before that (section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.protonet import logits, prototypes
from fsl_cli.algorithms.supervised import all_images, supervised_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples


class SimpleShot(Algorithm):
    """`transform` of the features: UN none, L2N to unit length, CL2N less the mean of training images before that."""

    takes_features = True
    centre: Tensor

    def __init__(
        self, backbone: Backbone, train_classes: int, transform: Literal["UN", "L2N", "CL2N"] = "CL2N"
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_features, train_classes)
        self.transform = transform
        self.register_buffer("centre", torch.zeros(backbone.out_features))

    def prepare(self, episodes: Iterable[Episodes]) -> None:
        """The mean feature vector of training images."""
        if self.transform == "CL2N":
            features = torch.cat([self.backbone(all_images(some)[0]).flatten(0, 1) for some in episodes])
            self.centre.copy_(features.mean(0))

    def adapt(self, support: Examples) -> Classifier:
        centroids = prototypes(self.embed(support.x), support.y)
        return lambda x: logits(self.embed(x, support.x), centroids)

    def loss(self, episodes: Episodes) -> Tensor:
        """The loss of a classifier of all training classes."""
        return supervised_loss(self.backbone, self.head, episodes)

    def embed(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """The backbone's features, transformed."""
        features = self.backbone(x, support)
        if self.transform == "CL2N":
            features = features - self.centre
        return features if self.transform == "UN" else F.normalize(features, dim=-1)
