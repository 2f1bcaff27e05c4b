"""TADAM, task dependent adaptive metric (Oreshkin et al., NeurIPS 2018), https://arxiv.org/abs/1805.10123

A prototypical network whose backbone knows the task: the mean of the class means, seen by the unchanged backbone,
scales and shifts the channels of its blocks, and all images pass once more (sections 3.2 and 3.3). Distances are
scaled.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.film import Film
from fsl_cli.algorithms.protonet import logits, prototypes, usual_temperature
from fsl_cli.algorithms.supervised import supervised_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Rate, Weight


class TADAM(Algorithm):
    """Nearest class mean in squared Euclidean distance times a learned scale, under the task's scales and shifts.

    The scale starts from `scale`, by default from one over `usual_temperature`. (The authors' code keeps it at 7.5, of
    distances that are not squared.) `penalty` times the sum of squares of what the scales and shifts are multiplied by
    is added to the loss. With `cotraining` the loss is shared with that of an ordinary classifier of all training
    classes, whose share is 0.9^floor(20 p) after the share p of the training: the authors draw one of the two for each
    step by that chance, and this is the mean of both. The task scales and shifts behind each block's last norm; in the
    authors' code behind every norm.
    """

    def __init__(
        self,
        backbone: Backbone,
        train_classes: int,
        scale: Rate | None = None,
        penalty: Weight = 0.01,
        cotraining: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.film = Film(backbone)
        start = scale or 1 / usual_temperature(backbone.out_features)
        self.log_scale = nn.Parameter(torch.tensor(math.log(start)))  # stays above 0 whatever a step does to it
        self.penalty = penalty
        self.head = nn.Linear(backbone.out_features, train_classes) if cotraining else None

    def adapt(self, support: Examples) -> Classifier:
        changes = self.film(self.backbone, support)
        centres = prototypes(self.backbone(support.x, changes=changes), support.y)
        return lambda x: self._logits(self.backbone(x, support.x, changes), centres)

    def loss(self, episodes: Episodes) -> Tensor:
        support, query = episodes.support, episodes.query
        supports, queries = self.backbone.joint(support.x, query.x, self.film(self.backbone, support))
        loss = task_loss(self._logits(queries, prototypes(supports, support.y)), query.y)
        if self.head is not None:
            share = 0.9 ** math.floor(20 * self.progress)
            loss = (1 - share) * loss + share * supervised_loss(self.backbone, self.head, episodes)
        return loss + self.penalty * self.film.strength.square().sum()

    def _logits(self, queries: Tensor, centres: Tensor) -> Tensor:
        return self.log_scale.exp() * logits(queries, centres)
