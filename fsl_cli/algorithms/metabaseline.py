"""Meta-Baseline (Chen et al., ICCV 2021), https://arxiv.org/abs/2003.04390

A query belongs to the class mean of the greatest cosine, and the logits are the cosines times a learned scale. Training
on episodes goes on from a backbone that learned to classify all training classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.protonet import cosines, prototypes
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss


class MetaBaseline(Algorithm):
    """Nearest centroid by cosine (equations 1 and 2); `scale` is what the learned scale starts from."""

    takes_features = True

    def __init__(self, backbone: Backbone, scale: float = 10.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def adapt(self, support: Examples) -> Classifier:
        centres = prototypes(self.backbone(support.x), support.y)
        return lambda x: self.scale * cosines(self.backbone(x, support.x), centres)

    def loss(self, episodes: Episodes) -> Tensor:
        """As the authors' code: support and query pass together, so that both see the same batch statistics."""
        supports, queries = self.backbone.joint(episodes.support.x, episodes.query.x)
        return task_loss(self.scale * cosines(queries, prototypes(supports, episodes.support.y)), episodes.query.y)
