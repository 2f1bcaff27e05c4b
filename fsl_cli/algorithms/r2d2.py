"""R2-D2, ridge regression differentiable discriminator (Bertinetto et al., ICLR 2019), https://arxiv.org/abs/1805.08136

The head of a task is ridge regression from features to one-hot labels, a closed form, and training goes through it. As
there are fewer examples than features, the Woodbury identity makes it a small system (equation 6).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.solvers.ridge import ridge
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Rate


class R2D2(Algorithm):
    """Ridge regression of the labels on the features and a 1, whose output, times a learned scale, is the logits.

    `scale` and `penalty` are what the learned scale and the learned regulariser of the mean squared error start from
    (as released, the authors' settings leave the latter at 50). The paper also adds a learned number to all logits
    alike; the softmax takes no notice of it, and there is none here.
    """

    takes_features = True

    def __init__(self, backbone: Backbone, scale: Rate = 1e-4, penalty: Rate = 50.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.log_penalty = nn.Parameter(torch.tensor(math.log(penalty)))  # so that it stays positive

    def adapt(self, support: Examples) -> Classifier:
        weights = self._fit(self.backbone(support.x), support.y)
        return lambda x: self._logits(self.backbone(x, support.x), weights)

    def loss(self, episodes: Episodes) -> Tensor:
        """Cross-entropy. As in the authors' code, support and query pass together and share batch statistics."""
        supports, queries = self.backbone.joint(episodes.support.x, episodes.query.x)
        return task_loss(self._logits(queries, self._fit(supports, episodes.support.y)), episodes.query.y)

    def _fit(self, features: Tensor, y: Tensor) -> Tensor:
        """Features (T, n, d), labels (T, n) -> weights (T, d + 1, way) in float64."""
        penalty = y.shape[1] * self.log_penalty.exp()  # times n: of the errors' mean, as the authors' code
        return ridge(_with_one(features), F.one_hot(y), penalty)

    def _logits(self, features: Tensor, weights: Tensor) -> Tensor:
        scores = _with_one(features).double() @ weights  # (T, m, d + 1) @ (T, d + 1, way)
        return (self.scale * scores).to(self.scale.dtype)


def _with_one(features: Tensor) -> Tensor:
    """A further feature, 1, whose weights are the bias."""
    return F.pad(features, (0, 1), value=1.0)
